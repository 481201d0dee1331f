// api.js: the server, as the page sees it: requests, errors, streams of events.  No state but the API key.

let apiKey = "";

export function setApiKey(key) {
  apiKey = key;
}

// What the server (or the way to it) said instead of an answer.  status 0: it could not be reached.
export class ApiError extends Error {
  constructor(message, { status = 0, type = "", code = "", retryAfter = null, retry = false } = {}) {
    super(message);
    this.status = status;
    this.type = type;
    this.code = code;
    this.retryAfter = retryAfter; // seconds, null: not said
    this.retry = retry; // the same request may succeed later
  }
}

// The OpenAI error object {error: {message, type, code}}, or whatever text came instead.
function errorOf(status, text, headers) {
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not the server itself, but something between, says this.
  }
  const retryAfter = headers ? Number.parseFloat(headers.get("retry-after")) : Number.NaN;
  const retry = (status === 429 || status === 503) && headers?.get("x-should-retry") !== "false";
  const message = typeof error?.message === "string" ? error.message : text.trim().slice(0, 400) || `HTTP status ${status}`;
  return new ApiError(message, {
    status,
    type: error?.type || "",
    code: error?.code || "",
    retryAfter: Number.isFinite(retryAfter) ? Math.max(0, retryAfter) : null,
    retry,
  });
}

async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey) headers.authorization = `Bearer ${apiKey}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?", { retry: true });
  }
  if (!response.ok) throw errorOf(response.status, await response.text(), response.headers);
  return response;
}

const getJson = async (path) => (await request(path)).json();

export const getProps = () => getJson("props");
export const getModels = () => getJson("v1/models");

// The number of tokens that text becomes.
export async function countTokens(text, signal) {
  const answer = await (await request("tokenize", { body: { content: text }, signal })).json();
  return answer.tokens.length;
}

// The data of each server-sent event of a stream, as the standard has it: lines end with \n, \r\n or \r, several data
// lines of an event are joined, comments and other fields are left out.  Throws what reading throws.
export async function* serverEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += done ? "" : value;
      // A \r at the end may be half of \r\n: it waits for what follows.
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Asks for a chat completion and yields its chunks (objects) as they come.  Throws ApiError, also for an error that the
// server reports in mid-stream and for a stream that ends without [DONE].
export async function* streamChat(body, signal) {
  const response = await request("v1/chat/completions", { body: { ...body, stream: true }, signal });
  try {
    for await (const data of serverEvents(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw errorOf(chunk.error.status || 200, data, null);
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection to the server broke in the middle of the answer.", { retry: true });
  }
  throw new ApiError("The server closed the connection before the answer was complete.", { retry: true });
}
