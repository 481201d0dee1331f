// settings.js: what the person has set, the dialog to set it, and what of it goes into a request.  A field left empty is
// not sent: the server's own default holds, and is what the empty field shows.
import { el, iconButton } from "./dom.js";
import { persistent, readSetting, writeSetting } from "./store.js";

// Sampling, as the API names it.
const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: "any", about: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: "any", about: "the likeliest tokens that make up this share" },
  { name: "top_k", label: "Top k", min: 0, step: 1, about: "this many of the likeliest; 0: all" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: "any", about: "at least this share of the likeliest" },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, about: "the same seed, the same answer" },
  { name: "max_tokens", label: "Longest answer", min: 1, step: 1, about: "in tokens" },
];

const EMPTY = { kv: "", system: "", shortcuts: true, ...Object.fromEntries(NUMBERS.map(({ name }) => [name, null])) };

export const settings = { ...EMPTY, ...readSetting("settings", {}) };

export function changeSettings(changes) {
  Object.assign(settings, changes);
  writeSetting("settings", settings);
}

// The part of a request that settings decide.
export function requestFields() {
  const fields = {};
  for (const { name } of NUMBERS) if (settings[name] !== null) fields[name] = settings[name];
  if (settings.kv) fields.kv = settings.kv;
  return fields;
}

// ---- the API key -----------------------------------------------------------------------------------------------------

// In this tab's storage, or the browser's where the person wants that.
export const storedApiKey = () => readSetting("key", "", "sessionStorage") || readSetting("key", "");

export function storeApiKey(key, remember) {
  writeSetting("key", key || null, "sessionStorage");
  writeSetting("key", remember && key ? key : null);
}

// ---- dialogs ---------------------------------------------------------------------------------------------------------

// A modal dialog with a heading; gone from the document when it closes.
export function openDialog(title, className, ...content) {
  const close = iconButton("close", "Close", () => dialog.close(), { class: "icon-button dialog-close" });
  const dialog = el("dialog", { class: `dialog ${className}`, "aria-label": title },
    el("header", {}, el("h2", {}, title), close), ...content);
  // A click on the backdrop closes, unless it began inside, as when text is selected.
  dialog.addEventListener("mousedown", (event) => (dialog.outside = event.target === dialog));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.outside && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function numberField({ name, label, about, min, max, step }, defaults) {
  const known = defaults?.[name];
  const input = el("input", {
    type: "number", id: `set-${name}`, name, min, max, step, inputmode: "decimal", "aria-describedby": `about-${name}`,
    placeholder: known == null ? "server's" : String(known), value: settings[name] ?? "",
  });
  input.addEventListener("change", () => input.reportValidity());
  input.addEventListener("input", () => {
    if (input.checkValidity()) changeSettings({ [name]: input.value === "" ? null : Number(input.value) });
  });
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input, el("small", { id: `about-${name}` }, about));
}

// Asks for a key; onKey(key, remember) when one is given.
export function openKeyDialog(why, onKey) {
  const input = el("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", autofocus: true });
  const remember = el("input", { type: "checkbox", id: "remember" });
  const form = el("form", { method: "dialog" },
    el("p", { class: "why" }, why),
    el("div", { class: "field" }, el("label", { for: "key" }, "API key"), input),
    el("label", { class: "check", for: "remember" }, remember, "Remember it in this browser"),
    el("div", { class: "actions" }, el("button", { class: "button primary" }, "Use this key")));
  form.addEventListener("submit", () => onKey(input.value.trim(), remember.checked));
  return openDialog("This server wants a key", "narrow", form);
}

// hooks: {defaults, onTheme, theme, onKey, onExport, onImport, onDeleteAll}
export function openSettings(hooks) {
  const system = el("textarea", { id: "set-system", rows: "3", placeholder: "None" });
  system.value = settings.system;
  system.addEventListener("input", () => changeSettings({ system: system.value }));

  const theme = el("select", { id: "set-theme" },
    [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]].map(([value, text]) => el("option", { value, selected: hooks.theme() === value }, text)));
  theme.addEventListener("change", () => hooks.onTheme(theme.value));

  const shortcuts = el("input", { type: "checkbox", id: "set-shortcuts", checked: settings.shortcuts });
  shortcuts.addEventListener("change", () => changeSettings({ shortcuts: shortcuts.checked }));

  const numbers = el("div", { class: "fields" }, NUMBERS.map((number) => numberField(number, hooks.defaults())));
  const reset = el("button", { type: "button", class: "button" }, "Back to the server's defaults");
  reset.addEventListener("click", () => {
    changeSettings({ ...EMPTY, kv: settings.kv, shortcuts: settings.shortcuts });
    for (const input of numbers.querySelectorAll("input")) input.value = "";
    system.value = "";
  });

  const sure = el("button", { type: "button", class: "button danger" }, "Delete all conversations");
  let armed = false;
  sure.addEventListener("click", () => {
    if (armed) {
      dialog.close();
      hooks.onDeleteAll();
    }
    armed = true;
    sure.textContent = "Really delete all?";
  });

  const dialog = openDialog("Settings", "settings",
    el("section", {}, el("h3", {}, "Answers"),
      el("div", { class: "field" }, el("label", { for: "set-system" }, "System prompt"), system), numbers, reset),
    el("section", {}, el("h3", {}, "This page"),
      el("div", { class: "field" }, el("label", { for: "set-theme" }, "Colours"), theme),
      el("label", { class: "check", for: "set-shortcuts" }, shortcuts, "Single-key shortcuts (press ? to see them)"),
      el("div", { class: "buttons" },
        el("button", { type: "button", class: "button", onclick: () => (dialog.close(), hooks.onKey()) }, "API key…"),
        el("button", { type: "button", class: "button", onclick: hooks.onExport }, "Export all"),
        el("button", { type: "button", class: "button", onclick: hooks.onImport }, "Import…"),
        sure),
      el("p", { class: "fine" }, persistent()
        ? "Conversations and settings are kept in this browser and sent nowhere but to this server."
        : "This browser allows no storage here: conversations are lost when the page is closed.")));
  return dialog;
}

export function openHelp(keys) {
  openDialog("Keyboard", "narrow",
    el("dl", { class: "keys" }, keys.flatMap(([key, what]) => [el("dt", {}, key.split(" ").map((k) => el("kbd", {}, k))), el("dd", {}, what)])),
    el("p", { class: "fine" }, "Single keys work outside text fields: press Esc to leave the message, / to come back."));
}
