// markdown.js: a model's text as DOM nodes: paragraphs, headings, lists, quotes, tables, code, emphasis, links.
// A model's text is not to be trusted.  It becomes text nodes and elements of the fixed kinds below; HTML in it stays
// text, images are not fetched, and links lead to http, https and mailto only.
import { copyText, el, icon } from "./dom.js";

const MAX_DEPTH = 12; // of lists and quotes in each other; what is deeper stays text

// ---- inline ----------------------------------------------------------------------------------------------------------

// In order of precedence.  Every pattern is sticky, starts at a character of SPECIAL and looks a bounded way ahead, so
// that no text, however made, takes more than linear time.
const SPECIAL = /[\\`*_~[!<h]/g;
const ESCAPE = /\\([\\`*_{}[\]()#+\-.!|~<>])/y;
const CODE = /(`+)(?!`)([^]{0,2000}?[^`])\1(?!`)/y;
const LINK = /!?\[((?:\\.|[^\]\\]){0,1000})\]\(\s{0,9}<?((?:[^\s()<>]|\([^\s()]{0,200}\)){1,2000})>?(?:\s{1,9}"[^"]{0,500}")?\s{0,9}\)/y;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const BARE = /https?:\/\/[^\s<>"'`]{0,2000}[^\s<>"'`.,;:!?)\]*_]/y;
const STRONG = /(\*\*|__)(?=\S)([^]{0,2000}?\S)\1/y;
const EMPHASIS = /([*_])(?=[^\s*_])((?:(?!\1)[^]){0,2000}?\S)\1(?![\p{L}\p{N}])/uy;
const STRIKE = /~~(?=\S)([^]{0,2000}?\S)~~/y;

const matchAt = (pattern, text, at) => {
  pattern.lastIndex = at;
  return pattern.exec(text);
};

function safeUrl(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function linkTo(target, children) {
  const href = safeUrl(target);
  if (!href) return null;
  return el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow", title: href }, children);
}

// A node for what begins at text[at], and where it ends; null: nothing special begins there.
function inlineAt(text, at, depth) {
  const inner = (part) => (depth < MAX_DEPTH ? inline(part, depth + 1) : [part]);
  let m = matchAt(ESCAPE, text, at);
  if (m) return { node: m[1], end: at + m[0].length };
  if ((m = matchAt(CODE, text, at))) return { node: el("code", {}, m[2].replace(/^ (.*[^ ].*) $/s, "$1")), end: at + m[0].length };
  if ((m = matchAt(LINK, text, at))) {
    const node = linkTo(m[2], m[0][0] === "!" ? [m[1] || m[2]] : inner(m[1]));
    if (node) return { node, end: at + m[0].length };
  }
  if ((m = matchAt(ANGLE, text, at) || matchAt(BARE, text, at))) {
    const target = m[1] || m[0];
    const node = linkTo(target, [target]);
    if (node) return { node, end: at + m[0].length };
  }
  const inWord = at > 0 && /[\p{L}\p{N}]/u.test(text[at - 1]);
  if (text[at] !== "_" || !inWord) {
    if ((m = matchAt(STRONG, text, at))) return { node: el("strong", {}, inner(m[2])), end: at + m[0].length };
    if ((m = matchAt(EMPHASIS, text, at))) return { node: el("em", {}, inner(m[2])), end: at + m[0].length };
  }
  if ((m = matchAt(STRIKE, text, at))) return { node: el("del", {}, inner(m[1])), end: at + m[0].length };
  return null;
}

// Nodes and strings for one run of text.
function inline(text, depth = 0) {
  const out = [];
  let plain = 0;
  let at = 0;
  for (;;) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (!special) break;
    at = special.index;
    const found = inlineAt(text, at, depth);
    if (!found) {
      at++;
      continue;
    }
    if (at > plain) out.push(text.slice(plain, at));
    out.push(found.node);
    at = plain = found.end;
  }
  if (plain < text.length) out.push(text.slice(plain));
  return out;
}

// Inline text of several lines: two spaces or a backslash at the end of a line break it, and so does every line end
// here, because models that write verse or addresses mean it.
function inlineLines(lines) {
  return lines.flatMap((line, i) => {
    const last = i === lines.length - 1;
    const nodes = inline(line.trimStart().replace(last ? / +$/ : / +$|\\$/, ""));
    return last ? nodes : [...nodes, el("br")];
  });
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

const startsBlock = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

function codeBlock(lines, language) {
  const code = lines.join("\n");
  const button = el("button", { type: "button", class: "icon-button code-copy", title: "Copy code", "aria-label": "Copy code" }, icon("copy"));
  button.addEventListener("click", () => copyText(code, button));
  return el("div", { class: "code" },
    el("div", { class: "code-head" }, el("span", {}, language.slice(0, 40)), button),
    el("pre", { tabindex: "0" }, el("code", {}, code)));
}

const tableCells = (line) =>
  line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function table(head, rule, rows) {
  const aligns = tableCells(rule).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : null));
  const row = (line, kind) =>
    el("tr", {}, tableCells(line).slice(0, aligns.length).map((cell, i) => el(kind, { class: aligns[i] && `align-${aligns[i]}` }, inline(cell))));
  return el("div", { class: "table", tabindex: "0" },
    el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, rows.map((line) => row(line, "td")))));
}

// One list from lines[i]: how to make its node, and the line after it.  An item holds what follows with its text's
// indentation.
function list(lines, i, depth) {
  const first = ITEM.exec(lines[i]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || /\d/.test(item[2]) !== ordered || RULE.test(lines[i])) break;
    const indent = Math.min(item[0].length, item[1].length + item[2].length + 4);
    const body = [lines[i].slice(item[0].length)];
    for (i++; i < lines.length; i++) {
      const line = lines[i];
      const spaces = line.length - line.trimStart().length;
      if (line.trim() === "") {
        // An empty line belongs to the item if the item goes on after it.
        const next = lines[i + 1];
        if (next === undefined || next.trim() === "" || next.length - next.trimStart().length < 2) break;
        body.push("");
      } else if (spaces >= 2 && spaces >= item[1].length + 2) {
        body.push(line.slice(Math.min(spaces, indent)));
      } else if (startsBlock(line)) {
        break;
      } else {
        body.push(line);
      }
    }
    items.push(body);
    while (i < lines.length && lines[i].trim() === "" && ITEM.test(lines[i + 1] ?? "")) i++;
  }
  const makeItem = (body) => {
    const content = splitBlocks(body, depth + 1).map((block) => block.make());
    // An item's first paragraph is its text.
    if (content[0]?.localName === "p") content.splice(0, 1, ...content[0].childNodes);
    return el("li", {}, content);
  };
  const make = () => el(ordered ? "ol" : "ul", { start: ordered && Number.parseInt(first[2], 10) }, items.map(makeItem));
  return { make, next: i };
}

// The blocks of lines, in order: {source, make}: make() gives the node.
function splitBlocks(lines, depth = 0) {
  const blocks = [];
  const add = (from, to, make) => blocks.push({ source: lines.slice(from, to).join("\n"), make });
  for (let i = 0; i < lines.length; ) {
    const from = i;
    const line = lines[i];
    let m;
    if (line.trim() === "") {
      i++;
    } else if ((m = FENCE.exec(line))) {
      const close = new RegExp(`^ {0,3}${m[1][0]}{${m[1].length},}\\s*$`);
      const language = m[2].trim();
      for (i++; i < lines.length && !close.test(lines[i]); i++);
      const body = lines.slice(from + 1, i);
      i++;
      add(from, i, () => codeBlock(body, language));
    } else if ((m = HEADING.exec(line))) {
      const [, marks, title] = m;
      i++;
      // The page's own headings are h1 and h2.
      add(from, i, () => el(`h${Math.min(6, marks.length + 2)}`, {}, inline(title)));
    } else if (RULE.test(line)) {
      i++;
      add(from, i, () => el("hr"));
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const body = [];
      for (; i < lines.length && lines[i].trim() !== "" && (QUOTE.test(lines[i]) || !startsBlock(lines[i])); i++)
        body.push(lines[i].replace(QUOTE, ""));
      add(from, i, () => el("blockquote", {}, splitBlocks(body, depth + 1).map((block) => block.make())));
    } else if (ITEM.test(line) && depth < MAX_DEPTH) {
      const { make, next } = list(lines, i, depth);
      i = next;
      add(from, i, make);
    } else if (line.includes("|") && TABLE_RULE.test(lines[i + 1] ?? "") && lines[i + 1].includes("-")) {
      for (i += 2; i < lines.length && lines[i].includes("|"); i++);
      const rows = lines.slice(from + 2, i);
      add(from, i, () => table(line, lines[from + 1], rows));
    } else {
      for (i++; i < lines.length && lines[i].trim() !== "" && !startsBlock(lines[i]); i++);
      const body = lines.slice(from, i);
      add(from, i, () => el("p", {}, inlineLines(body)));
    }
  }
  return blocks;
}

// Shows text in parent.  While text grows, nodes of blocks that did not change stay as they are, with the reader's
// selection in them.
export function renderMarkdown(parent, text) {
  const blocks = splitBlocks(text.replace(/\r\n?/g, "\n").split("\n"));
  const before = parent.renderedBlocks ?? [];
  let same = 0;
  while (same < blocks.length && same < before.length && blocks[same].source === before[same]) same++;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  for (const block of blocks.slice(same)) parent.append(block.make());
  parent.renderedBlocks = blocks.map((block) => block.source);
}
