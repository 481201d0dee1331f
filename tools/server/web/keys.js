// keys.js: the keyboard.  Single keys work outside text fields only, and not at all where the person has switched them off.
import { settings } from "./settings.js";

const inText = (target) => target.closest?.("input, textarea, select, [contenteditable]");

// bindings: [{key, what, run, always}]: key as KeyboardEvent.key says it; always: also in text fields.
export function listenToKeys(bindings) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const binding = bindings.find(({ key }) => key === event.key);
    if (!binding || (!binding.always && (inText(event.target) || !settings.shortcuts))) return;
    event.preventDefault();
    binding.run(event);
  });
}
