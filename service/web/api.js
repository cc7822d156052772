// Requests to the service this page came from. The browser adds the log-in by itself.

/** Why a request failed: a problem document of the service, or that it could not be reached. */
export class Problem extends Error {
  constructor({ status = 0, title, detail, errors = [], requestId = null, retryAfter = null }) {
    super(detail);
    this.name = "Problem";
    Object.assign(this, { status, title, detail, errors, requestId, retryAfter });
  }

  /** Whether the same request may succeed later, without anybody changing it. */
  get passes() {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

const UNREACHED = {
  title: "No connection",
  detail: "The service cannot be reached. It may be restarting, or this computer is offline.",
};

/** A text that nobody else sends; works where crypto.randomUUID does not, which is on plain HTTP. */
export function unique() {
  const parts = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(parts, (part) => part.toString(16).padStart(2, "0")).join("");
}

/** How far the clock of the service is ahead of ours, in ms; small differences are those of the network. */
export const clock = {
  offset: 0,
  now: () => Date.now() + clock.offset,
  learn(date) {
    const ahead = Date.parse(date) + 500 - Date.now();
    if (Number.isFinite(ahead)) clock.offset = Math.abs(ahead) > 2000 ? ahead : 0;
  },
};

/** The path of a request, each part escaped: `path("v1", "pools", name)`. */
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

export const get = (where, { signal } = {}) => send("GET", where, { signal });

export const put = (where, body, { signal } = {}) => send("PUT", where, { body, signal });

export const patch = (where, body) => send("PATCH", where, { body });

export const remove = (where, { keepalive = false } = {}) => send("DELETE", where, { keepalive });

/** POST, again if the answer is lost: with the same key the service does it once. `key: null` for what may be done twice. */
export async function post(where, body, { signal, key = unique() } = {}) {
  try {
    return await send("POST", where, { body, signal, key });
  } catch (problem) {
    if (!(problem instanceof Problem) || problem.status !== 0) throw problem;
    return send("POST", where, { body, signal, key });
  }
}

async function send(method, where, { body, signal, key, keepalive } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let response;
  let text;
  try {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(where, { method, headers, body: sent, signal, keepalive, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Problem(UNREACHED);
  }
  clock.learn(response.headers.get("Date"));
  return answer(response.status, text, (name) => response.headers.get(name));
}

/** What an answer holds; throws the Problem that it is. */
export function answer(status, text, header) {
  let document = null;
  try {
    document = text ? JSON.parse(text) : null;
  } catch {
    document = null;
  }
  if (status >= 200 && status < 300) return document;
  const wait = Number(header("Retry-After"));
  throw new Problem({
    status,
    title: document?.title ?? `HTTP ${status}`,
    detail: document?.detail ?? "Something between this page and the service answered in its place.",
    errors: document?.errors ?? [],
    requestId: header("X-Request-ID"),
    retryAfter: wait > 0 ? wait : null,
  });
}

/** Send a file as the body of a request. fetch tells nothing of the progress of an upload; this does. */
export function upload(where, file, media, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", where);
    request.setRequestHeader("Content-Type", media);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      try {
        resolve(answer(request.status, request.responseText, (name) => request.getResponseHeader(name)));
      } catch (problem) {
        reject(problem);
      }
    });
    request.addEventListener("error", () => reject(new Problem(UNREACHED)));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}
