// store.js: what stays in this browser: conversations in IndexedDB, settings in localStorage.  Nothing is sent anywhere.
// Where a browser forbids storage, both live in memory until the page is closed, and persistent() says so.

const NAME = "turboquant";
const memory = { heads: new Map(), bodies: new Map() };
let db = null;

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export async function openStore() {
  try {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      // Heads are small and read all at once for the list; bodies hold messages and files.
      request.result.createObjectStore("heads", { keyPath: "id" });
      request.result.createObjectStore("bodies", { keyPath: "id" });
    };
    db = await settled(request);
    db.onversionchange = () => db.close();
  } catch {
    db = null;
  }
}

export const persistent = () => db !== null;

function transaction(mode, work) {
  return new Promise((resolve, reject) => {
    const t = db.transaction(["heads", "bodies"], mode);
    const result = work(t);
    t.oncomplete = () => resolve(result?.result);
    t.onabort = t.onerror = () => reject(t.error);
  });
}

const headOf = ({ id, title, created, updated }) => ({ id, title, created, updated });

// Newest first.
export async function listHeads() {
  const heads = db ? await transaction("readonly", (t) => t.objectStore("heads").getAll()) : [...memory.heads.values()];
  return heads.sort((a, b) => b.updated - a.updated);
}

export async function loadConversation(id) {
  if (db) return transaction("readonly", (t) => t.objectStore("bodies").get(id));
  return structuredClone(memory.bodies.get(id));
}

export async function saveConversation(conversation) {
  if (!db) {
    memory.heads.set(conversation.id, headOf(conversation));
    memory.bodies.set(conversation.id, structuredClone(conversation));
    return;
  }
  await transaction("readwrite", (t) => {
    t.objectStore("heads").put(headOf(conversation));
    t.objectStore("bodies").put(conversation);
  });
}

export async function deleteConversation(id) {
  memory.heads.delete(id);
  memory.bodies.delete(id);
  if (!db) return;
  await transaction("readwrite", (t) => {
    t.objectStore("heads").delete(id);
    t.objectStore("bodies").delete(id);
  });
}

export async function deleteAll() {
  memory.heads.clear();
  memory.bodies.clear();
  if (!db) return;
  await transaction("readwrite", (t) => {
    t.objectStore("heads").clear();
    t.objectStore("bodies").clear();
  });
}

export async function allConversations() {
  if (!db) return [...memory.bodies.values()];
  return transaction("readonly", (t) => t.objectStore("bodies").getAll());
}

// ---- small values ----------------------------------------------------------------------------------------------------

export function readSetting(key, fallback, storage = "localStorage") {
  try {
    const text = window[storage].getItem(`tq.${key}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

export function writeSetting(key, value, storage = "localStorage") {
  try {
    if (value === null) window[storage].removeItem(`tq.${key}`);
    else window[storage].setItem(`tq.${key}`, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the setting holds until the page is closed.
  }
}
