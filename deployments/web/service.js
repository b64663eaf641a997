// Requests to the service that this page came from, and to no other.

import { askForKey, storedKey } from "./key.js";

const base = new URL(".", location.href);

/** Where the service is, as a client would be told, without a slash at the end. */
export const serviceUrl = base.href.replace(/\/$/, "");

/** What went wrong, in the service's own sentence. */
export class ServiceError extends Error {
  constructor(status, code, message, retryAfterS = null) {
    super(message);
    Object.assign(this, { status, code, retryAfterS });
  }

  /** Whether the same request may succeed in a moment. */
  get isBusy() {
    return this.status === 429 || this.status === 503;
  }
}

async function errorOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not raylens's own answer, perhaps a proxy's
  }
  const message = error.message ?? `The answer was HTTP ${response.status} without an explanation.`;
  const after = Number.parseFloat(response.headers.get("Retry-After"));
  return new ServiceError(response.status, error.code, message, after > 0 ? after : null);
}

/** The answer, whatever its status. Asks for a key where the service wants one. */
export async function send(path, options = {}) {
  for (;;) {
    const key = storedKey();
    const headers = new Headers(options.headers);
    if (key) headers.set("Authorization", `Bearer ${key}`);
    let response;
    try {
      response = await fetch(new URL(path, base), { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError(0, "unreachable", "The service did not answer. Is it running?");
    }
    const reason = key ? "The service does not accept this key." : "";
    const isSame = key === storedKey(); // another request may have asked meanwhile
    if (response.status !== 401 || (isSame && !(await askForKey(reason)))) return response;
    options.signal?.throwIfAborted();
  }
}

/** The answer, if it is a success. Raises ServiceError. */
export async function call(path, options = {}) {
  const response = await send(path, options);
  if (!response.ok) throw await errorOf(response);
  return response;
}

export async function models() {
  return json(await call("v1/models"));
}

/** One request for items of one kind. Rows are in the items' order, each with a `vector` or an
 * `error`; `timing` has milliseconds by the names of Server-Timing; `cached` items needed no model.
 * Raises ServiceError. */
export async function embed(items, model, signal) {
  const began = performance.now();
  const options = { model: model.id, on_error: "report", encoding_format: "base64" };
  let body;
  const headers = {};
  if (items[0].file) {
    body = new FormData();
    for (const [name, value] of Object.entries(options)) body.append(name, value);
    for (const item of items) body.append("file", item.file, item.name);
  } else {
    body = JSON.stringify({ ...options, input: items.map((item) => item.input) });
    headers["Content-Type"] = "application/json";
  }
  const response = await call("v1/embeddings", { method: "POST", body, headers, signal });
  const { data, usage } = await json(response);
  const rows = data.map(({ error, embedding, truncated }) =>
    error ? { error: error.message, code: error.code } : { vector: floats(embedding), truncated },
  );
  if (rows.some((row) => row.vector && row.vector.length !== model.dimensions)) {
    throw new ServiceError(0, "replaced", "The model was replaced by another. Reload the page.");
  }
  const timing = timings(response.headers.get("Server-Timing"));
  timing.rest = Math.max(0, performance.now() - began - (timing.total ?? 0));
  return { rows, timing, cached: usage.cached };
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreadable", "The answer was cut short, or is not the service's own.");
  }
}

/** Base64 of little-endian float32. */
function floats(text) {
  const raw = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(raw.buffer);
  return Float32Array.from({ length: raw.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** "fetch;dur=1.5, total;dur=3" as {fetch: 1.5, total: 3}. */
export function timings(header) {
  const found = {};
  for (const [, name, ms] of (header ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)) found[name] = Number(ms);
  return found;
}
