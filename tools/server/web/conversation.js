// conversation.js: what a conversation is: a tree of messages, of which one line, from the root to the leaf, is shown and
// sent.  Editing or retrying adds a sibling, so that nothing is lost.  Plain objects: store.js keeps them as they are.
//
//   {id, title, created, updated, leaf, nodes: {id: node}}
//   node: {id, parent, role: "user" | "assistant", text, created,
//          files: [{name, text, tokens}]                            (user)
//          reasoning, state, finish, kv, timings, cache, usage      (assistant)}
//   state: "running", "done", "stopped" or "failed" (then error says why)

// crypto.randomUUID wants https or localhost; this does not.
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

export function newConversation() {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, leaf: null, nodes: {} };
}

export function addNode(conversation, parent, fields) {
  const node = { id: newId(), parent, text: "", created: Date.now(), ...fields };
  conversation.nodes[node.id] = node;
  conversation.leaf = node.id;
  conversation.updated = node.created;
  if (!conversation.title && node.role === "user") conversation.title = titleOf(node);
  return node;
}

function titleOf(node) {
  const text = (node.text || node.files?.[0]?.name || "").replace(/\s+/g, " ").trim();
  return text.length > 60 ? `${text.slice(0, 60).replace(/\s\S*$/, "")}…` : text;
}

// The shown line of messages, oldest first.  leaf: where it ends, normally conversation.leaf.
export function lineOf(conversation, leaf = conversation.leaf) {
  const line = [];
  for (let node = conversation.nodes[leaf]; node; node = conversation.nodes[node.parent]) line.unshift(node);
  return line;
}

// The node and its alternatives, oldest first.
export function siblingsOf(conversation, node) {
  return Object.values(conversation.nodes)
    .filter((other) => other.parent === node.parent && other.role === node.role)
    .sort((a, b) => a.created - b.created);
}

// Shows the line through node, to its newest end.
export function selectNode(conversation, node) {
  let end = node;
  for (;;) {
    const children = Object.values(conversation.nodes).filter((other) => other.parent === end.id);
    if (!children.length) break;
    end = children.reduce((a, b) => (b.created >= a.created ? b : a));
  }
  conversation.leaf = end.id;
}

// What the model reads of a message: its files, each under its name, then what was typed.
export function contentOf(node) {
  const files = (node.files ?? []).map((file) => `${file.name}:\n\n${file.text.trim()}`);
  return [...files, node.text].filter(Boolean).join("\n\n");
}

// The messages of a request whose answer will stand below leaf.
export function messagesOf(conversation, leaf, system) {
  const messages = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  for (const node of lineOf(conversation, leaf)) {
    // An answer that failed before its first word is none.
    if (node.role === "assistant" && !node.text) continue;
    messages.push({ role: node.role, content: contentOf(node) });
  }
  return messages;
}

// After a reload nothing runs any more.
export function settleConversation(conversation) {
  for (const node of Object.values(conversation.nodes)) if (node.state === "running") node.state = "stopped";
}

// A conversation as Markdown, for reading elsewhere.
export function toMarkdown(conversation) {
  const parts = lineOf(conversation).map((node) => {
    const files = (node.files ?? []).map((file) => `*${file.name}* (attached)\n\n`).join("");
    return `## ${node.role === "user" ? "You" : "Answer"}\n\n${files}${node.text}\n`;
  });
  return `# ${conversation.title}\n\n${parts.join("\n")}`;
}

// A conversation out of a file that anyone may have written; throws with what is wrong.
export function checkedConversation(value) {
  const wrong = (what) => {
    throw new Error(`not a conversation: ${what}`);
  };
  const isText = (x) => typeof x === "string";
  if (!value || typeof value !== "object" || !/^[0-9a-f]{24}$/.test(value.id) || typeof value.nodes !== "object" || !value.nodes) wrong("id or nodes are missing");
  const nodes = {};
  for (const [id, node] of Object.entries(value.nodes)) {
    if (!/^[0-9a-f]{24}$/.test(id) || !node || node.id !== id || !isText(node.text) || !["user", "assistant"].includes(node.role)) wrong(`message ${id.slice(0, 40)}`);
    const files = Array.isArray(node.files) ? node.files : [];
    if (!files.every((file) => file && isText(file.name) && isText(file.text))) wrong(`files of message ${id.slice(0, 40)}`);
    nodes[id] = { id, parent: isText(node.parent) ? node.parent : null, role: node.role, text: node.text, created: Number(node.created) || 0 };
    if (files.length) nodes[id].files = files.map((file) => ({ name: file.name, text: file.text, tokens: Number(file.tokens) || null }));
    if (node.role === "assistant") nodes[id].state = "done";
    if (isText(node.reasoning)) nodes[id].reasoning = node.reasoning;
    if (isText(node.kv)) nodes[id].kv = node.kv;
  }
  for (const start of Object.values(nodes)) {
    const seen = new Set();
    for (let node = start; node; node = nodes[node.parent]) {
      if (seen.has(node.id)) wrong("messages answer each other in a circle");
      seen.add(node.id);
    }
  }
  const leaf = nodes[value.leaf] ? value.leaf : wrong("leaf is missing");
  const created = Number(value.created) || Date.now();
  return { id: value.id, title: isText(value.title) ? value.title.slice(0, 200) : "", created, updated: Number(value.updated) || created, leaf, nodes };
}
