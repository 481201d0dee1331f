// composer.js: what the person is about to send: text and text files, by keyboard, picker, drop or paste.
import { countTokens } from "./api.js";
import { byId, el, formatCount, iconButton, setIcon, toast } from "./dom.js";
import { fileChip } from "./messages.js";

const MAX_FILE_BYTES = 32 << 20;

// A file's text, or an error that says why it has none.
async function readText(file) {
  if (file.size > MAX_FILE_BYTES) throw new Error(`${file.name} has more than ${MAX_FILE_BYTES >> 20} MB`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is not a text in UTF-8`);
  }
  if (text.includes("\0")) throw new Error(`${file.name} is not a text`);
  return text;
}

export class Composer {
  // hooks: {send({text, files}), stop(), busy(), editLast()}
  constructor(hooks) {
    this.hooks = hooks;
    this.files = [];
    this.input = byId("input");
    this.sendButton = byId("send");
    this.list = byId("files");
    this.picker = byId("picker");
    setIcon(byId("attach"), "clip");
    byId("attach").addEventListener("click", () => this.pick());
    this.picker.addEventListener("change", () => {
      this.add([...this.picker.files]);
      this.picker.value = "";
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.hooks.busy()) this.hooks.stop();
      else this.send();
    });
    this.input.addEventListener("input", () => this.changed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.add([...event.clipboardData.files]);
    });
    this.listenForDrops();
    this.changed();
  }

  pick() {
    this.picker.click();
  }

  key(event) {
    // On a phone Enter makes a line, as everywhere on phones; the button sends.
    const touch = matchMedia("(pointer: coarse)").matches && !matchMedia("(any-pointer: fine)").matches;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch) {
      event.preventDefault();
      if (!this.hooks.busy()) this.send();
    } else if (event.key === "ArrowUp" && this.input.value === "" && !this.hooks.busy()) {
      event.preventDefault();
      this.hooks.editLast();
    }
  }

  send() {
    const text = this.input.value.trim();
    if (!text && !this.files.length) return;
    const files = this.files.map(({ name, text: content, tokens }) => ({ name, text: content, tokens }));
    this.clear();
    this.hooks.send({ text, files });
  }

  // What would be sent now, without sending it.
  draft() {
    const text = this.input.value.trim();
    return text || this.files.length ? { text, files: this.files.map(({ name, text: content, tokens }) => ({ name, text: content, tokens })) } : null;
  }

  clear() {
    for (const file of this.files) file.counting.abort();
    this.files = [];
    this.input.value = "";
    this.showFiles();
    this.changed();
  }

  setText(text) {
    this.input.value = text;
    this.changed();
    this.input.focus();
  }

  focus() {
    this.input.focus();
  }

  async add(chosen) {
    for (const given of chosen) {
      try {
        const file = { name: given.name, text: await readText(given), tokens: null, counting: new AbortController() };
        this.files.push(file);
        this.showFiles();
        this.changed();
        countTokens(file.text, file.counting.signal).then(
          (tokens) => {
            file.tokens = tokens;
            this.showFiles();
          },
          (error) => {
            if (error.name !== "AbortError") toast(`${file.name}: tokens not counted. ${error.message}`);
          });
      } catch (error) {
        toast(error.message);
      }
    }
    this.input.focus();
  }

  showFiles() {
    this.list.replaceChildren(...this.files.map((file) =>
      fileChip(file, iconButton("close", `Remove ${file.name}`, () => {
        file.counting.abort();
        this.files = this.files.filter((other) => other !== file);
        this.showFiles();
        this.changed();
        this.input.focus();
      }))));
    const known = this.files.reduce((sum, file) => sum + (file.tokens ?? 0), 0);
    byId("hint").textContent = this.files.length > 1 && known ? `${formatCount(known)} tokens in files` : "";
  }

  // Grows with its text, and shows what the button does now.
  changed() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 0.4 * innerHeight)}px`;
    const busy = this.hooks.busy();
    if (this.shownBusy !== busy) {
      setIcon(this.sendButton, busy ? "stop" : "send");
      this.sendButton.setAttribute("aria-label", busy ? "Stop" : "Send");
      this.sendButton.title = busy ? "Stop (Esc)" : "Send (Enter)";
      this.sendButton.classList.toggle("stop", busy);
    }
    this.shownBusy = busy;
    this.sendButton.disabled = !busy && !this.input.value.trim() && !this.files.length;
  }

  listenForDrops() {
    const sign = byId("drop");
    let depth = 0;
    const hasFiles = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
    addEventListener("dragenter", (event) => {
      if (!hasFiles(event)) return;
      depth++;
      sign.hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (hasFiles(event) && --depth <= 0) sign.hidden = true;
    });
    addEventListener("dragover", (event) => {
      if (hasFiles(event)) event.preventDefault();
    });
    addEventListener("drop", (event) => {
      depth = 0;
      sign.hidden = true;
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
  }
}
