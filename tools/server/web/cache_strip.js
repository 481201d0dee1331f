// cache_strip.js: a conversation's cache as a row of pages.  Every page is as wide as its tokens and as tall as its bytes,
// in a frame as tall as f16 would be: what is left empty is what packing saves.
import { el, formatBytes, formatCount } from "./dom.js";

const MAX_CELLS = 512;
const KINDS = {
  exact: "exact, as f16",
  packed: "packed",
  shared: "packed and shared: kept for later turns and other conversations",
};

const DEFAULT_PAGE = 128; // tokens, should the server not say

// Runs of the server's strip cut into cells of a page each (of several, where there are too many to draw).  fill: a
// cell's bytes as a share of f16's.  What exact rows do not take of the bytes is the packed rows'.
export function cellsOf(cache) {
  const page = cache.page_tokens || DEFAULT_PAGE;
  const f16 = cache.tokens > 0 ? cache.f16_bytes / cache.tokens : 0;
  const packed = cache.strip.reduce((sum, run) => sum + (run.kind === "exact" ? 0 : run.tokens), 0);
  const exact = cache.strip.reduce((sum, run) => sum + (run.kind === "exact" ? run.tokens : 0), 0);
  const packedFill = packed > 0 && f16 > 0 ? Math.min(1, Math.max(0.02, (cache.bytes - exact * f16) / packed / f16)) : 1;
  const total = cache.strip.reduce((sum, run) => sum + Math.ceil(run.tokens / page), 0);
  const step = page * Math.max(1, Math.ceil(total / MAX_CELLS));
  const cells = [];
  let from = 0;
  for (const run of cache.strip) {
    const kind = Object.hasOwn(KINDS, run.kind) ? run.kind : "exact";
    for (let done = 0; done < run.tokens; done += step) {
      const tokens = Math.min(step, run.tokens - done);
      cells.push({ kind, from: from + done, tokens, share: tokens / step, fill: kind === "exact" ? 1 : packedFill });
    }
    from += run.tokens;
  }
  return cells;
}

export class CacheStrip {
  constructor() {
    this.cells = el("div", { class: "strip", role: "img" });
    this.words = el("p", { class: "strip-words" });
    this.legend = el("ul", { class: "legend" });
    this.node = el("div", {}, this.words, this.cells, this.legend);
  }

  // cache: the server's report; null: nothing is known yet.
  show(cache) {
    this.node.classList.toggle("empty", !cache);
    if (!cache) {
      this.words.replaceChildren("Nothing is cached yet.");
      this.cells.replaceChildren();
      this.cells.setAttribute("aria-label", "empty cache");
      this.legend.replaceChildren();
      return;
    }
    // A short conversation's exact window takes more than f16 alone would.
    const saves = cache.f16_bytes > cache.bytes;
    this.words.replaceChildren(
      el("strong", { class: "bytes" }, formatBytes(cache.bytes)),
      saves ? ` instead of ${formatBytes(cache.f16_bytes)} in f16 ` : ` f16: ${formatBytes(cache.f16_bytes)} `,
      el("span", { class: "factor" }, saves ? `${(cache.f16_bytes / cache.bytes).toFixed(1)}×` : ""));
    this.draw(cellsOf(cache), cache.kv);
    const sums = { packed: 0, shared: 0, exact: 0 };
    for (const run of cache.strip) if (run.kind in sums) sums[run.kind] += run.tokens;
    const names = { packed: `packed (${cache.kv})`, shared: "packed and shared", exact: "exact" };
    this.legend.replaceChildren(
      ...Object.entries(sums).filter(([, n]) => n > 0).map(([kind, n]) =>
        el("li", {}, el("i", { class: `swatch ${kind}` }), `${formatCount(n)} tokens ${names[kind]}`)));
    this.cells.setAttribute("aria-label",
      Object.entries(sums).filter(([, n]) => n > 0).map(([kind, n]) => `${formatCount(n)} tokens ${KINDS[kind]}`).join(", ") || "empty cache");
  }

  draw(cells, kv) {
    while (this.cells.childElementCount > cells.length) this.cells.lastChild.remove();
    while (this.cells.childElementCount < cells.length) this.cells.append(el("i", {}, el("b")));
    cells.forEach((cell, i) => {
      const node = this.cells.children[i];
      const title = `tokens ${formatCount(cell.from)} to ${formatCount(cell.from + cell.tokens - 1)}: ${KINDS[cell.kind]}${cell.kind === "exact" ? "" : ` (${kv})`}`;
      if (node.title === title && node.fill === cell.fill) return;
      node.className = `page ${cell.kind}`;
      node.title = title;
      node.fill = cell.fill;
      node.style.setProperty("--share", cell.share);
      node.firstChild.style.setProperty("--fill", cell.fill);
    });
  }
}
