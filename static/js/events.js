// GET /api/events over fetch(): EventSource cannot send the token in a header, and a token belongs in no URL.

import { ApiError, parse } from "./api.js";

const FIRST_BACKOFF = 1000;
const BACKOFF_LIMIT = 30000;
const SILENCE_LIMIT = 45000; // a comment comes every 15 s: three missed mean a dead connection

// Feeds on decoded text; calls `emit({id, event, data})` for each event (WHATWG HTML, section 9.2.6).
export class EventParser {
  #rest = "";
  #event = "";
  #data = [];
  #id = null;

  constructor(emit) {
    this.emit = emit;
  }

  feed(text) {
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") {
      if (this.#data.length) this.emit({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id") this.#id = value;
  }
}

// `onEvent(name, data)`; `onLink(isLive)`; `onConnect()` before the first event of each connection. Where nothing came for
// SILENCE_LIMIT, the window gets an event "silence", as "offline" where the browser knows: for connections of which a page
// sees no sign of life.
export class EventStream {
  #abort = null;
  #lastId = null;
  #backoff = FIRST_BACKOFF;
  #run = null;
  #wake = null;

  constructor(session, { onEvent, onLink, onConnect }) {
    this.session = session;
    this.onEvent = onEvent;
    this.onLink = onLink;
    this.onConnect = onConnect;
    // The browser knows at once what the connection itself would notice in minutes, or at the end of a long pause.
    addEventListener("offline", () => this.#abort?.abort());
    addEventListener("online", () => {
      this.#backoff = FIRST_BACKOFF;
      this.#wake?.();
    });
  }

  // Until `stop`. Another run may begin before this one has noticed that it is over.
  async run() {
    const run = (this.#run = {});
    while (this.#run === run) {
      try {
        await this.#follow();
      } catch {
        // why it ended makes no difference: an end without news is an end, and a session that is over stops the stream
      }
      if (this.#run !== run) return;
      this.onLink(false);
      await this.#pause(this.#backoff * (0.75 + Math.random() / 2));
      this.#backoff = Math.min(2 * this.#backoff, BACKOFF_LIMIT);
    }
  }

  stop() {
    this.#run = null;
    this.#lastId = null;
    this.#abort?.abort();
    this.#wake?.();
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async #follow() {
    const abort = (this.#abort = new AbortController());
    const giveUp = () => {
      abort.abort();
      dispatchEvent(new Event("silence"));
    };
    let watchdog = setTimeout(giveUp, SILENCE_LIMIT);
    try {
      const response = await this.#connect(abort.signal);
      this.onConnect();
      this.onLink(true);
      this.#backoff = FIRST_BACKOFF;
      const parser = new EventParser(({ id, event, data }) => {
        const said = parse(data);
        if (said !== null) this.onEvent(event, said);
        if (id !== null) this.#lastId = id;
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, SILENCE_LIMIT);
        const { done, value } = await reader.read();
        if (done) return;
        parser.feed(value);
      }
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }

  async #connect(signal) {
    const token = await this.session.token();
    const response = await this.#open(token, signal);
    if (response.status === 401) return this.#checked(await this.#open(await this.session.tokenAfter(token), signal));
    return this.#checked(response);
  }

  #open(token, signal) {
    const headers = { Authorization: `Bearer ${token}`, Accept: "text/event-stream" };
    if (this.#lastId !== null) headers["Last-Event-ID"] = this.#lastId;
    return fetch("/api/events", { headers, signal, credentials: "omit", cache: "no-store" });
  }

  #checked(response) {
    if (!response.ok) throw new ApiError(response.status, null, response.headers.get("X-Request-Id"));
    return response;
  }
}
