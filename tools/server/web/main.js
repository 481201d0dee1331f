// main.js: the page: which conversation is shown, which answers are on their way, and what every button does.
import { ApiError, getModels, getProps, setApiKey } from "./api.js";
import { openCompare } from "./compare.js";
import { Composer } from "./composer.js";
import { addNode, checkedConversation, contentOf, lineOf, messagesOf, newConversation, selectNode, settleConversation, toMarkdown } from "./conversation.js";
import { announce, byId, download, el, icon, iconButton, setIcon, toast } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { MessageLog } from "./messages.js";
import { Panel } from "./panel.js";
import { Run } from "./run.js";
import { changeSettings, openHelp, openKeyDialog, openSettings, requestFields, settings, storeApiKey, storedApiKey } from "./settings.js";
import * as store from "./store.js";

let conversation = newConversation();
let props = null;
let model = null;
const runs = new Map(); // id of a conversation -> {conversation, node, run}

const currentRun = () => runs.get(conversation.id);
const busy = () => runs.has(conversation.id);
const narrow = matchMedia("(max-width: 62rem)");

// ---- showing ---------------------------------------------------------------------------------------------------------

const log = new MessageLog(byId("log"), byId("scroll"), { edit: editMessage, retry: retryAnswer, select: selectVersion });
const composer = new Composer({ send, stop, busy, editLast: () => log.editLast(lineOf(conversation)) });
const panel = new Panel({ codec: () => settings.kv, setCodec: (kv) => changeSettings({ kv }), close: () => showPanel(false) });

function show() {
  const line = lineOf(conversation);
  const running = currentRun();
  byId("title").textContent = conversation.title || "New conversation";
  document.title = conversation.title ? `${conversation.title} · turboquant` : "turboquant";
  byId("hello").hidden = line.length > 0;
  log.show(conversation, line, (node) => (running?.node === node ? running.run : null));
  showPanelOf(line);
  composer.changed();
}

function showPanelOf(line = lineOf(conversation)) {
  const node = line.findLast((other) => other.figures && other.state !== "failed");
  const withCache = line.findLast((other) => other.cache);
  panel.show(withCache?.cache ?? null, node?.figures ?? null);
}

async function showList() {
  const heads = await store.listHeads();
  byId("list").replaceChildren(...heads.map((head) => {
    const current = head.id === conversation.id;
    const name = head.title || "Untitled";
    const open = el("button", { type: "button", class: "entry", "aria-current": current ? "true" : null, title: name, onclick: () => openConversation(head.id) },
      el("span", {}, name), runs.has(head.id) ? el("span", { class: "pulse", title: "Answering" }) : null);
    return el("li", { class: current ? "current" : "" }, open,
      iconButton("save", `Export “${name}”`, () => exportOne(head.id)),
      iconButton("trash", `Delete “${name}”`, () => removeConversation(head)));
  }));
}

function notice(text, ...more) {
  const node = byId("notice");
  node.hidden = !text;
  node.replaceChildren(text, ...more);
}

// ---- keeping ---------------------------------------------------------------------------------------------------------

async function save(what) {
  try {
    await store.saveConversation(what);
  } catch (error) {
    toast(`This conversation could not be saved: ${error.message}`);
  }
}

async function openConversation(id) {
  showSidebar(false);
  if (id === conversation.id) return;
  const loaded = runs.get(id)?.conversation ?? (await store.loadConversation(id));
  if (!loaded) return toast("This conversation is gone.");
  if (!runs.has(id)) settleConversation(loaded);
  conversation = loaded;
  store.writeSetting("last", id);
  show();
  showList();
  log.toEnd();
}

function startConversation() {
  conversation = newConversation();
  store.writeSetting("last", null);
  showSidebar(false);
  show();
  showList();
  composer.focus();
}

// Deleted at once, and taken back as easily.
async function removeConversation(head) {
  const body = runs.get(head.id)?.conversation ?? (await store.loadConversation(head.id));
  runs.get(head.id)?.run.stop();
  await store.deleteConversation(head.id);
  if (head.id === conversation.id) startConversation();
  else showList();
  byId("new").focus();
  toast("Deleted.", { label: "Undo", run: async () => {
    settleConversation(body);
    await save(body);
    showList();
  } });
}

async function exportOne(id) {
  const one = runs.get(id)?.conversation ?? (await store.loadConversation(id));
  download(`${(one.title || "conversation").replace(/[^\p{L}\p{N} _-]+/gu, "").trim() || "conversation"}.md`, toMarkdown(one), "text/markdown");
}

async function exportAll() {
  const all = await store.allConversations();
  download("turboquant-conversations.json", JSON.stringify({ format: "turboquant conversations 1", conversations: all }), "application/json");
}

function importAll() {
  const picker = el("input", { type: "file", accept: ".json,application/json" });
  picker.addEventListener("change", async () => {
    try {
      const { conversations } = JSON.parse(await picker.files[0].text());
      const checked = conversations.map(checkedConversation);
      for (const one of checked) await store.saveConversation(one);
      toast(`${checked.length} conversations taken in.`);
      showList();
    } catch (error) {
      toast(`This file cannot be taken in: ${error.message}`);
    }
  });
  picker.click();
}

async function removeAll() {
  for (const { run } of runs.values()) run.stop();
  await store.deleteAll();
  startConversation();
}

// ---- asking ----------------------------------------------------------------------------------------------------------

function send({ text, files }) {
  addNode(conversation, conversation.leaf, { role: "user", text, ...(files.length ? { files } : {}) });
  answer(conversation.leaf);
}

function editMessage(node, text) {
  if (busy()) return toast("This conversation is being answered: stop it first.");
  addNode(conversation, node.parent, { role: "user", text, ...(node.files ? { files: node.files } : {}) });
  answer(conversation.leaf);
}

function retryAnswer(node) {
  if (!busy()) answer(node.parent);
}

function selectVersion(node) {
  if (busy()) return;
  selectNode(conversation, node);
  save(conversation);
  show();
}

function stop() {
  currentRun()?.run.stop();
}

function requestBody(leaf) {
  return { model: model ?? undefined, messages: messagesOf(conversation, leaf, settings.system), ...requestFields() };
}

// Answers the message leaf of the shown conversation.
async function answer(leaf) {
  const mine = conversation;
  const body = requestBody(leaf);
  const node = addNode(mine, leaf, { role: "assistant", state: "running", kv: body.kv ?? props?.kv });
  const speaker = new Speaker();
  let frame = 0;
  let saved = Date.now();
  const draw = () => {
    frame = 0;
    copyRun(node, run);
    speaker.hear(node.text);
    if (mine !== conversation) return;
    log.update(mine, node, runs.get(mine.id)?.node === node ? run : null);
    showPanelOf();
  };
  const run = new Run(body, () => {
    frame ||= requestAnimationFrame(draw);
    if (Date.now() - saved < 1500) return;
    saved = Date.now();
    copyRun(node, run);
    save(mine);
  });
  runs.set(mine.id, { conversation: mine, node, run });
  store.writeSetting("last", mine.id);
  show();
  log.toEnd();
  // The button that asked for this is gone; without a touch keyboard in the way, go where the next message is written.
  if (document.activeElement === document.body && !narrow.matches) composer.focus();
  announce("Answering");
  await save(mine);
  showList();
  const ticking = setInterval(() => run.phase === "pausing" && draw(), 500);
  await run.go();
  clearInterval(ticking);
  cancelAnimationFrame(frame);
  runs.delete(mine.id);
  copyRun(node, run);
  mine.updated = Date.now();
  speaker.finish(node, run);
  if (mine === conversation) show();
  if (run.error?.status === 401) askForKey(run.error.message);
  if (await stillThere(mine)) await save(mine);
  showList();
}

// Not deleted while it was being answered.
const stillThere = async (one) => one === conversation || Boolean(await store.loadConversation(one.id));

function copyRun(node, run) {
  node.text = run.text;
  if (run.reasoning) node.reasoning = run.reasoning;
  node.state = run.state;
  node.finish = run.finish;
  node.figures = run.figures();
  if (run.cache) {
    node.cache = run.cache;
    node.kv = run.cache.kv;
  }
  const e = run.error;
  node.error = run.state === "failed" && e ? { message: e.message, status: e.status, code: e.code, type: e.type } : null;
}

// Reads an answer to screen readers sentence by sentence, instead of syllable by syllable.
class Speaker {
  said = 0;

  hear(text) {
    const end = /[^]*[.!?:]\s/.exec(text.slice(this.said))?.[0].length ?? 0;
    if (end < 40) return;
    announce(text.slice(this.said, this.said + end));
    this.said += end;
  }

  finish(node, run) {
    const rest = node.text.slice(this.said);
    announce(run.state === "failed" ? "The answer failed" : run.state === "stopped" ? "Stopped" : `${rest} End of the answer.`);
  }
}

function compare() {
  const draft = composer.draft();
  const line = lineOf(conversation);
  const last = line.findLast((node) => node.role === "user");
  if (!draft && !last) {
    toast("Type a question first, or open a conversation.");
    return composer.focus();
  }
  const system = settings.system;
  const messages = draft
    ? [...messagesOf(conversation, conversation.leaf, system), { role: "user", content: contentOf(draft) }]
    : messagesOf(conversation, last.id, system);
  const names = [...new Set([...(props?.kv_available ?? []), props?.kv ?? "tq3", "f16"])];
  const other = settings.kv || props?.kv || "tq3";
  const question = (draft ?? last).text || (draft ?? last).files.map((file) => file.name).join(", ");
  openCompare({
    question, names, first: "f16", second: other === "f16" ? "tq3" : other,
    body: { ...requestBody(conversation.leaf), messages },
    keep(run) {
      let parent = last?.id;
      if (draft) {
        composer.clear();
        parent = addNode(conversation, conversation.leaf, { role: "user", text: draft.text, ...(draft.files.length ? { files: draft.files } : {}) }).id;
      }
      copyRun(addNode(conversation, parent, { role: "assistant", kv: run.body.kv }), run);
      save(conversation).then(showList);
      show();
    },
  });
}

// ---- the frame of the page -------------------------------------------------------------------------------------------

function showSidebar(open) {
  document.body.classList.toggle("sidebar-open", open && narrow.matches);
  byId("menu").setAttribute("aria-expanded", String(open));
  byId("sidebar").inert = narrow.matches && !open;
  showShade();
  if (open && narrow.matches) byId("new").focus();
}

function showPanel(open) {
  document.body.classList.toggle("panel-open", open);
  byId("toggle-panel").setAttribute("aria-expanded", String(open));
  byId("panel").inert = !open;
  if (!narrow.matches) store.writeSetting("panel", open);
  showShade();
}

function showShade() {
  const { classList } = document.body;
  byId("shade").hidden = !(narrow.matches && (classList.contains("sidebar-open") || classList.contains("panel-open")));
}

const theme = () => document.documentElement.dataset.theme ?? "system";
const darkNow = () => (theme() === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme() === "dark");

function setTheme(wanted) {
  if (wanted === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  store.writeSetting("theme", wanted === "system" ? null : wanted);
  showTheme();
}

function showTheme() {
  const button = byId("theme");
  setIcon(button, darkNow() ? "sun" : "moon");
  button.title = darkNow() ? "Light" : "Dark";
  button.setAttribute("aria-label", button.title);
}

function askForKey(why) {
  if (document.querySelector("dialog[open]")) return;
  openKeyDialog(why, (key, remember) => {
    storeApiKey(key, remember);
    setApiKey(key);
    connect();
  });
}

const settingsHooks = {
  defaults: () => props?.default_generation_settings, theme, onTheme: setTheme, onExport: exportAll, onImport: importAll, onDeleteAll: removeAll,
  onKey: () => askForKey("The key is sent with every request to this server."),
};

function sayHello() {
  const example = (title, text, run) => el("button", { type: "button", class: "example", onclick: run }, el("strong", {}, title), el("span", {}, text));
  byId("hello").append(
    el("h2", {}, "Long conversations, small caches"),
    el("p", {}, "What is said stays in the model's cache, packed to a few bits a value. Watch it page by page."),
    el("div", { class: "examples" },
      example("Tell it something", "and ask for it again", () => composer.setText("Hugo Marsh lives in Lisbon. Where does Hugo Marsh live?")),
      example("Bring a document", "drop a text file, then ask about it", () => composer.pick()),
      example("Compare codecs", "one question, two caches, side by side", compare)));
}

const KEYS = [
  { key: "/", what: "write a message", run: () => composer.focus() },
  { key: "n", what: "new conversation", run: startConversation },
  { key: "r", what: "answer the last question again", run: () => retryLast() },
  { key: "e", what: "edit the last message", run: () => log.editLast(lineOf(conversation)) },
  { key: "c", what: "compare two codecs", run: compare },
  { key: "p", what: "show or hide the cache", run: () => showPanel(!document.body.classList.contains("panel-open")) },
  { key: "s", what: "settings", run: () => openSettings(settingsHooks) },
  { key: "j", what: "next conversation", run: () => step(1) },
  { key: "k", what: "previous conversation", run: () => step(-1) },
  { key: "?", what: "this list", run: () => openHelp(help) },
  { key: "Escape", what: "stop the answer; leave the message", always: true, run: escape },
];
const help = [["Enter", "send"], ["Shift Enter", "a new line"], ["ArrowUp", "in an empty message: edit the last one"], ...KEYS.map(({ key, what }) => [key, what])];

function retryLast() {
  const node = lineOf(conversation).at(-1);
  if (node && !busy()) answer(node.role === "user" ? node.id : node.parent);
}

async function step(by) {
  const heads = await store.listHeads();
  const at = heads.findIndex((head) => head.id === conversation.id);
  const next = heads[at < 0 ? 0 : at + by];
  if (next) openConversation(next.id);
}

function escape() {
  if (document.body.classList.contains("sidebar-open")) {
    showSidebar(false);
    byId("menu").focus();
  } else if (narrow.matches && document.body.classList.contains("panel-open")) showPanel(false);
  else if (busy()) stop();
  else document.activeElement?.blur();
}

// ---- the server ------------------------------------------------------------------------------------------------------

// Asks what the server has, until it answers: it may be loading its model.
async function connect() {
  try {
    props = await getProps();
    model = (await getModels()).data?.[0]?.id ?? null;
    notice("");
    byId("model").textContent = model ?? "";
    byId("model").title = `Model: ${model}`;
    panel.setProps(props);
    show();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 || error.status === 403) return askForKey(error.message);
    notice(error.message, error.retry ? " Trying again." : "");
    if (error.retry) setTimeout(connect, 1000 * (error.retryAfter ?? 2));
  }
}

async function start() {
  await store.openStore();
  const last = store.readSetting("last", null);
  const loaded = last && (await store.loadConversation(last));
  if (loaded) {
    settleConversation(loaded);
    conversation = loaded;
  }
  setApiKey(storedApiKey());

  byId("new").append(icon("plus"), "New conversation");
  byId("new").addEventListener("click", startConversation);
  setIcon(byId("menu"), "menu");
  byId("menu").addEventListener("click", () => showSidebar(true));
  byId("compare").append(icon("split"), el("span", {}, "Compare"));
  byId("compare").title = "Answer with two codecs side by side (c)";
  byId("compare").addEventListener("click", compare);
  byId("theme").addEventListener("click", () => setTheme(darkNow() ? "light" : "dark"));
  setIcon(byId("settings"), "gear");
  byId("settings").addEventListener("click", () => openSettings(settingsHooks));
  setIcon(byId("toggle-panel"), "pages");
  byId("toggle-panel").addEventListener("click", () => showPanel(!document.body.classList.contains("panel-open")));
  byId("peek").addEventListener("click", () => showPanel(true));
  byId("shade").addEventListener("click", () => {
    showSidebar(false);
    showPanel(false);
  });
  const layout = () => {
    showSidebar(false);
    showPanel(!narrow.matches && store.readSetting("panel", true));
  };
  narrow.addEventListener("change", layout);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  listenToKeys(KEYS);

  layout();
  showTheme();
  sayHello();
  panel.setProps(null);
  show();
  log.toEnd();
  showList();
  if (!narrow.matches) composer.focus();
  connect();
}

start();
