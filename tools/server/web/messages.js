// messages.js: the messages of the shown conversation, as elements, and what can be done with each.
import { siblingsOf } from "./conversation.js";
import { copyText, el, formatCount, formatRate, formatSeconds, icon, iconButton } from "./dom.js";
import { renderMarkdown } from "./markdown.js";
import { openDialog } from "./settings.js";

export function fileChip(file, ...more) {
  const tokens = el("small", {}, file.tokens == null ? "" : `${formatCount(file.tokens)} tokens`);
  const open = el("button", { type: "button", class: "chip-name", title: `Show ${file.name}` }, icon("clip"), el("span", {}, file.name), tokens);
  open.addEventListener("click", () => openDialog(file.name, "reader", el("pre", { tabindex: "0" }, file.text)));
  return el("li", { class: "chip" }, open, ...more);
}

// One message's element, made once and then updated.
class Message {
  // hooks: {edit(node, text), retry(node), select(node), busy()}
  constructor(node, hooks) {
    this.node = node;
    this.hooks = hooks;
    this.user = node.role === "user";
    this.body = el("div", { class: this.user ? "said" : "markdown" });
    this.foot = el("footer", { class: "foot" });
    this.element = el("article", { class: `message ${node.role}` }, el("h3", { class: "off-screen" }, this.user ? "You" : "Answer"));
    if (this.user) {
      if (node.files?.length) this.element.append(el("ul", { class: "files", "aria-label": "Attached files" }, node.files.map((file) => fileChip(file))));
      this.body.textContent = node.text;
      this.body.hidden = !node.text;
      this.element.append(this.body, this.foot);
    } else {
      this.thoughts = el("div", { class: "thoughts-text" });
      this.thinking = el("details", { class: "thoughts", hidden: true }, el("summary", {}, "Reasoning"), this.thoughts);
      this.status = el("div", { class: "status", hidden: true });
      this.element.append(this.thinking, this.body, this.status, this.foot);
    }
  }

  // run: the run that writes this message, if one does.
  update(conversation, run) {
    const { node } = this;
    this.element.classList.toggle("running", Boolean(run));
    if (!this.user) {
      if (this.shown !== node.text) renderMarkdown(this.body, node.text);
      this.shown = node.text;
      this.thinking.hidden = !node.reasoning;
      this.thoughts.textContent = node.reasoning ?? "";
      this.showStatus(run);
    }
    this.showFoot(conversation, run);
  }

  showStatus(run) {
    const { node } = this;
    const parts = [];
    if (run?.phase === "waiting") {
      parts.push(el("span", { class: "pulse" }), el("span", {}, "Waiting for the server"));
    } else if (run?.phase === "reading") {
      const { done, total, cached } = run.progress;
      // Replaced in place: a new bar a chunk would jump.
      this.meter ??= el("progress", { "aria-label": "Prompt read" });
      this.meter.max = Math.max(1, total);
      this.meter.value = done;
      parts.push(el("span", {}, `Reading ${formatCount(done)} of ${formatCount(total)} tokens${cached ? `, ${formatCount(cached)} from the cache` : ""}`), this.meter);
    } else if (run?.phase === "pausing") {
      const left = Math.max(0, Math.ceil((run.pauseUntil - Date.now()) / 1000));
      parts.push(el("span", { class: "said-by-server" }, run.error.message),
        el("span", {}, left > 0 ? `Trying again in ${left} s.` : "Trying again."),
        el("button", { type: "button", class: "button small", onclick: () => run.tryNow() }, "Try now"));
    } else if (node.state === "failed" && node.error) {
      const { message, status, code, type } = node.error;
      const facts = [status && `HTTP ${status}`, code || type].filter(Boolean).join(" · ");
      parts.push(el("span", { class: "said-by-server" }, message), facts ? el("small", {}, facts) : "",
        el("button", { type: "button", class: "button small", onclick: () => this.hooks.retry(node) }, "Try again"));
    }
    const key = parts.map((part) => part.textContent ?? part).join("|");
    this.status.hidden = !parts.length;
    this.status.classList.toggle("failed", node.state === "failed" && !run);
    this.status.setAttribute("role", node.state === "failed" ? "alert" : "none");
    if (key !== this.statusKey) this.status.replaceChildren(...parts);
    this.statusKey = key;
  }

  showFoot(conversation, run) {
    const { node, hooks } = this;
    const siblings = siblingsOf(conversation, node);
    const at = siblings.indexOf(node);
    const key = [Boolean(run), node.state, node.finish, siblings.length, at].join();
    if (key === this.footKey) return;
    this.footKey = key;
    if (run) {
      this.foot.replaceChildren();
      return;
    }
    const parts = [];
    if (siblings.length > 1) {
      const step = (by, name, label) => iconButton(name, label, () => hooks.select(siblings[at + by]), { disabled: !siblings[at + by] });
      parts.push(el("span", { class: "branches" }, step(-1, "left", "Earlier version"),
        el("span", { "aria-label": `Version ${at + 1} of ${siblings.length}` }, `${at + 1}/${siblings.length}`), step(1, "right", "Later version")));
    }
    if (node.text) {
      const copy = iconButton("copy", this.user ? "Copy message" : "Copy answer", () => copyText(node.text, copy));
      parts.push(copy);
    }
    parts.push(this.user
      ? iconButton("pencil", "Edit and send again", () => this.edit())
      : iconButton("retry", "Answer again", () => hooks.retry(node)));
    if (!this.user) parts.push(el("span", { class: "meta" }, metaOf(node)));
    this.foot.replaceChildren(...parts);
  }

  edit() {
    if (this.editor) return;
    const { node } = this;
    const area = el("textarea", { class: "edit", "aria-label": "Edit message", rows: Math.min(12, node.text.split("\n").length + 1) });
    area.value = node.text;
    const leave = () => {
      this.editor.replaceWith(this.body);
      this.editor = null;
      this.foot.hidden = false;
      this.foot.querySelector("[title^=Edit]")?.focus();
    };
    const send = () => {
      const text = area.value.trim();
      if (!text && !node.files?.length) return;
      leave();
      this.hooks.edit(node, text);
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") leave();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.editor = el("div", { class: "editing" }, area, el("div", { class: "actions" },
      el("button", { type: "button", class: "button", onclick: leave }, "Cancel"),
      el("button", { type: "button", class: "button primary", onclick: send }, "Send")));
    this.body.hidden = false;
    this.body.replaceWith(this.editor);
    this.foot.hidden = true;
    area.focus();
  }
}

// What an answer cost, in a few words.
function metaOf(node) {
  const f = node.figures ?? {};
  return [
    node.state === "stopped" ? "stopped" : node.finish === "length" ? "cut off at the longest answer" : null,
    node.kv,
    f.written ? `${formatCount(f.written)} tokens` : null,
    f.rate ? `${formatRate(f.rate)} tokens/s` : null,
    f.ttft != null ? `first after ${formatSeconds(f.ttft)}` : null,
  ].filter(Boolean).join(" · ");
}

export class MessageLog {
  constructor(log, scroll, hooks) {
    this.log = log;
    this.scroll = scroll;
    this.hooks = hooks;
    this.messages = new Map();
    this.follow = true;
    // Who scrolls up wants to read: the page stops following until the end is reached again.
    scroll.addEventListener("scroll", () => {
      this.follow = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
    });
  }

  // Shows line (nodes); runOf(node) is the run behind a node, if any.
  show(conversation, line, runOf) {
    const keep = new Map();
    for (const node of line) {
      let message = this.messages.get(node.id);
      if (message?.node !== node) message = new Message(node, this.hooks);
      keep.set(node.id, message);
    }
    for (const [id, message] of this.messages) if (keep.get(id) !== message) message.element.remove();
    this.messages = keep;
    let at = this.log.firstChild;
    for (const message of keep.values()) {
      message.update(conversation, runOf(message.node));
      if (message.element === at) at = at.nextSibling;
      else this.log.insertBefore(message.element, at);
    }
    this.keepUp();
  }

  update(conversation, node, run) {
    this.messages.get(node.id)?.update(conversation, run);
    this.keepUp();
  }

  keepUp() {
    if (this.follow) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  toEnd() {
    this.follow = true;
    this.keepUp();
  }

  editLast(line) {
    const node = line.findLast((other) => other.role === "user");
    if (node) this.messages.get(node.id)?.edit();
  }
}
