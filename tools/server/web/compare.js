// compare.js: the same question answered with two codecs, side by side, and where the answers part.
import { el, formatBytes, formatCount, formatRate, formatSeconds } from "./dom.js";
import { Run } from "./run.js";
import { openDialog } from "./settings.js";

// Longest answers compared where the person has set no limit: a small model may go on to the end of its context.
const MAX_TOKENS = 512;

// Where texts a and b part: an index at the beginning of a word; -1: they do not, as far as both go.  whole: nothing
// more comes, so that the end of one within the other is a parting too.
export function partingOf(a, b, whole) {
  const n = Math.min(a.length, b.length);
  let i = 0;
  while (i < n && a[i] === b[i]) i++;
  if (i === n && (!whole || a.length === b.length)) return -1;
  while (i > 0 && !/\s/.test(a[i - 1])) i--;
  return i;
}

const percent = (logprob) => {
  const p = 100 * Math.exp(logprob);
  return p < 1 ? "< 1 %" : `${p.toFixed(0)} %`;
};

class Side {
  constructor(label, names, chosen) {
    this.select = el("select", { "aria-label": label }, names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
    this.text = el("div", { class: "side-text", tabindex: "0", role: "region", "aria-label": label });
    this.facts = el("p", { class: "side-facts" });
    this.tokens = el("p", { class: "side-tokens" });
    this.keep = el("button", { type: "button", class: "button small", disabled: true }, "Keep this answer");
    this.node = el("section", { class: "side" }, el("header", {}, this.select, this.keep), this.text, this.tokens, this.facts);
  }

  show(at) {
    const { run } = this;
    const common = at < 0 ? run.text : run.text.slice(0, at);
    const rest = at < 0 ? "" : run.text.slice(at);
    this.text.replaceChildren(common, at < 0 ? "" : el("mark", {}, rest || "∎"));
    if (run.phase === "reading") this.text.replaceChildren(el("span", { class: "fine" }, `Reading ${formatCount(run.progress.done)} of ${formatCount(run.progress.total)} tokens`));
    if (run.phase === "waiting") this.text.replaceChildren(el("span", { class: "fine" }, "Waiting for the server"));
    if (run.phase === "pausing") this.text.replaceChildren(el("span", { class: "fine" }, `${run.error.message} Trying again soon.`));
    if (run.state === "failed") this.text.append(el("p", { class: "said-by-server", role: "alert" }, run.error.message));
    const f = run.figures();
    this.facts.textContent = [
      run.cache && `${formatBytes(run.cache.bytes)}, as f16 ${formatBytes(run.cache.f16_bytes)}`,
      f.rate && `${formatRate(f.rate)} tokens/s`,
      f.ttft != null && `first after ${formatSeconds(f.ttft)}`,
      run.finish === "length" && "cut off at the longest answer",
    ].filter(Boolean).join(" · ");
    this.keep.disabled = run.phase !== "done" || !run.text;
  }

  // What the model held likely at the first token that differs.
  showTokens(at) {
    const token = this.run.tokens[at];
    const top = token?.top.slice(0, 3) ?? [];
    this.tokens.replaceChildren(...top.flatMap(({ token: text, logprob }) =>
      [el("span", { class: text === token.text ? "odds chosen" : "odds" }, el("code", {}, JSON.stringify(text).slice(1, -1).trim() || "space"), ` ${percent(logprob)}`)]));
  }
}

// question: what is asked, for the heading; body: the request without kv; names: codecs; first, second: of them.
// keep(run) takes an answer into the conversation.
export function openCompare({ question, body, names, first, second, keep }) {
  const sides = [new Side("First codec", names, first), new Side("Second codec", names, second)];
  const verdict = el("p", { class: "verdict", role: "status" });
  const again = el("button", { type: "button", class: "button primary" }, "Answer again");
  const stop = el("button", { type: "button", class: "button" }, "Stop");
  const asked = question.length > 300 ? `${question.slice(0, 300)}…` : question;

  const show = () => {
    const [a, b] = sides.map((side) => side.run);
    const done = a.phase === "done" && b.phase === "done";
    const answered = a.state !== "failed" && b.state !== "failed";
    const at = partingOf(a.text, b.text, done && a.state === "done" && b.state === "done");
    for (const side of sides) side.show(at);
    let token = a.tokens.findIndex((t, i) => b.tokens[i] && t.text !== b.tokens[i].text);
    if (at < 0) token = -1;
    for (const side of sides) side.showTokens(token);
    const words = a.text.slice(0, at < 0 ? undefined : at).split(/\s+/).filter(Boolean).length;
    if (at >= 0) verdict.textContent = words ? `The same for ${formatCount(words)} ${words === 1 ? "word" : "words"}, then they part.` : "They part at the first word.";
    else if (!done) verdict.textContent = words ? `The same so far: ${formatCount(words)} words.` : "";
    else if (answered && a.text) verdict.textContent = a.state === "done" && b.state === "done" ? "Word for word the same." : "The same as far as both go.";
    else verdict.textContent = "";
    verdict.classList.toggle("parted", at >= 0);
    verdict.classList.toggle("same", done && at < 0 && answered);
    stop.hidden = done;
    again.hidden = !done;
  };

  let frame = 0;
  const soon = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      show();
    });
  };
  const start = () => {
    for (const side of sides) {
      side.run?.stop();
      side.run = new Run({ max_tokens: MAX_TOKENS, ...body, kv: side.select.value, temperature: 0, logprobs: true, top_logprobs: 3 }, soon);
    }
    show();
    for (const side of sides) side.run.go();
  };

  const dialog = openDialog("Two codecs, one question", "compare",
    el("p", { class: "asked" }, asked), verdict, el("div", { class: "sides" }, sides.map((side) => side.node)),
    el("footer", {}, el("p", { class: "fine" }, "Both always take the likeliest token, so what differs comes from the cache alone."), stop, again));
  for (const side of sides) {
    side.select.addEventListener("change", start);
    side.keep.addEventListener("click", () => {
      dialog.close();
      keep(side.run);
    });
  }
  again.addEventListener("click", start);
  stop.addEventListener("click", () => sides.forEach((side) => side.run.stop()));
  dialog.addEventListener("close", () => sides.forEach((side) => side.run.stop()));
  start();
  (stop.hidden ? again : stop).focus();
}
