// Calls to the API, and its errors as sentences. Knows no tokens but those that it is handed.

const HINTS = {
  agent_unreachable: "Its container may be off, or the network to it down. It is asked again by itself.",
  agent_timeout: "It may be busy. Look at its state before you try again: the first request may still take effect.",
  restore_in_progress: "Wait until it is done.",
  suspended: "Ask the operator why it is suspended.",
  storage_unavailable: "Nothing was changed. Try again in a moment.",
  overloaded: "Try again in a moment.",
  too_many_requests: "Wait a little before you try again.",
  not_found: "It may have been removed, or it is not yours.",
  internal_error: "Try again; if it stays so, tell the operator the request id.",
};

// `message` is the API's own sentence; `hint` what to do next; `status` 0 means that no answer came.
export class ApiError extends Error {
  constructor(status, body, requestId) {
    super(sentence(status, body));
    this.status = status;
    this.code = body?.code ?? body?.details?.code ?? null;
    this.details = body?.details ?? null;
    this.requestId = body?.requestId ?? requestId ?? null;
  }

  get hint() {
    if (this.status === 0) return "Check your connection and try again.";
    const said = typeof this.details === "object" ? this.details?.error : this.details;
    if (typeof said === "string" && said !== this.message) return said.slice(0, 500);
    const fields = Object.values(this.details?.fields ?? {}).flat();
    return fields.length ? fields.join("; ") : (HINTS[this.code] ?? "");
  }
}

function sentence(status, body) {
  if (typeof body?.error === "string" && body.error) return body.error;
  if (status === 0) return "The control plane cannot be reached.";
  return `The control plane answered ${status}.`;
}

// The parsed answer, or null where there is none. Raises ApiError; AbortError passes through.
export async function request(method, path, { token, body, headers, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "omit",
      cache: "no-store",
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, null, null);
  }
  const answer = parse(text);
  if (!response.ok) throw new ApiError(response.status, answer, response.headers.get("X-Request-Id"));
  return answer;
}

export function parse(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

// Calls with the session's token; a 401 is tried once more with a fresh one.
export class Api {
  constructor(session) {
    this.session = session;
  }

  get(path, options) {
    return this.call("GET", path, options);
  }

  post(path, options) {
    return this.call("POST", path, options);
  }

  delete(path, options) {
    return this.call("DELETE", path, options);
  }

  async call(method, path, options = {}) {
    const token = await this.session.token();
    try {
      return await request(method, path, { ...options, token });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      return request(method, path, { ...options, token: await this.session.tokenAfter(token) });
    }
  }
}

export function instancePath(instance) {
  const base = instance.kind === "dev" ? "/api/dev" : "/api/game/servers";
  return `${base}/${encodeURIComponent(instance.id)}`;
}

// For Idempotency-Key. Not crypto.randomUUID(), which only secure contexts have.
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
