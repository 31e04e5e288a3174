// The console's websocket: authentication, renewal, numbers, gaps, and coming back. Draws nothing.
// The token travels in the first message, never in the address.

import { instancePath, parse } from "./api.js";

const FIRST_BACKOFF = 1000;
const BACKOFF_LIMIT = 20000;
const ACK_LIMIT = 10000;
const ABNORMAL = 1006; // RFC 6455, 7.1.5: closed without a close frame
const STAYS_AWAY = new Set([4403, 4409]); // trying again would be answered the same
const BACKOFF_OF = { 1012: 2000, 1013: 10000, 4429: 10000 };

// `on` holds: output(lines), gap({from, to, reason}), began(), upstream(state), link({phase, code, retryAt}), error(text).
// Phases: connecting, open, waiting (for retryAt, a time of Date.now()), ended.
export class ConsoleSocket {
  #socket = null;
  #streamId = null;
  #lastSeq = -1;
  #backoff = FIRST_BACKOFF;
  #timer = null; // while it waits to connect again
  #acks = new Map();
  #count = 0;
  #hasRenewed = false;
  #isOver = false;
  #token = null;

  constructor(instance, session, on) {
    const url = new URL(`${instancePath(instance)}/console`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this.url = url;
    this.session = session;
    this.on = on;
    addEventListener("offline", this.#lost);
    addEventListener("silence", this.#lost);
    addEventListener("online", this.#found);
    this.connect();
  }

  async connect() {
    this.#stopWaiting();
    this.on.link({ phase: "connecting" });
    let token;
    try {
      token = await this.session.token();
    } catch {
      if (!this.#isOver) this.#comeBack(null);
      return;
    }
    if (this.#isOver) return;
    this.#token = token;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.addEventListener("open", () => {
      if (this.#socket !== socket) {
        socket.close();
        return;
      }
      this.#send({ event: "auth", token });
      if (this.#streamId !== null) this.#send({ event: "resume", streamId: this.#streamId, afterSeq: this.#lastSeq });
    });
    socket.addEventListener("message", ({ data }) => {
      if (this.#socket === socket) this.#take(parse(data));
    });
    socket.addEventListener("close", ({ code }) => {
      if (this.#socket === socket) this.#closed(code);
    });
  }

  // Resolves to null where the command was accepted, else to the code of why not.
  command(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.resolve("not_connected");
    const id = String(++this.#count);
    this.#send({ event: "command", id, command: text });
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#acknowledge(id, "unanswered"), ACK_LIMIT);
      this.#acks.set(id, { resolve, timer });
    });
  }

  destroy() {
    this.#isOver = true;
    removeEventListener("offline", this.#lost);
    removeEventListener("silence", this.#lost);
    removeEventListener("online", this.#found);
    this.#stopWaiting();
    this.#letGo();
    for (const id of [...this.#acks.keys()]) this.#acknowledge(id, "unanswered");
  }

  // The browser, or the stream of events with its regular sign of life, knows what the socket itself would notice in
  // minutes. What came meanwhile is read after a resume: a console that was lost for no reason loses nothing.
  #lost = () => {
    if (this.#socket === null) return;
    this.#letGo();
    this.#closed(ABNORMAL);
  };

  #found = () => {
    if (this.#timer === null) return;
    this.#backoff = FIRST_BACKOFF;
    this.connect();
  };

  #letGo() {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.close(); // one that still opens is closed by then
    this.#socket = null;
  }

  #stopWaiting() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #take(message) {
    if (message === null) return;
    if (message.event === "output") this.#output(message);
    else if (message.event === "hello") this.#hello(message);
    else if (message.event === "state") this.on.upstream(message);
    else if (message.event === "gap") this.#gap(message);
    else if (message.event === "commandAck") this.#acknowledge(String(message.id), message.accepted ? null : message.code);
    else if (message.event === "tokenExpiring") this.#renew();
    else if (message.event === "error") this.on.error(message.error);
  }

  #hello({ streamId }) {
    if (this.#streamId !== streamId) {
      if (this.#streamId !== null) this.on.began();
      this.#streamId = streamId;
      this.#lastSeq = -1;
    }
    this.#backoff = FIRST_BACKOFF;
    this.#hasRenewed = false;
    this.on.link({ phase: "open" });
  }

  #output({ seq, data }) {
    if (seq <= this.#lastSeq) return;
    if (this.#lastSeq >= 0 && seq > this.#lastSeq + 1) {
      this.on.gap({ from: this.#lastSeq + 1, to: seq - 1, reason: "missing" });
    }
    this.#lastSeq = seq;
    this.on.output(data, seq);
  }

  #gap(message) {
    if (message.to !== null) this.#lastSeq = Math.max(this.#lastSeq, message.to);
    this.on.gap(message);
  }

  #acknowledge(id, code) {
    const waiting = this.#acks.get(id);
    if (waiting === undefined) return;
    this.#acks.delete(id);
    clearTimeout(waiting.timer);
    waiting.resolve(code);
  }

  async #renew() {
    try {
      this.#token = await this.session.tokenAfter(this.#token);
      this.#send({ event: "auth", token: this.#token });
    } catch {
      return; // the server closes when the old one is over, and the close says what to do
    }
  }

  #closed(code) {
    this.#socket = null;
    for (const id of [...this.#acks.keys()]) this.#acknowledge(id, "unanswered");
    if (this.#isOver) return;
    if (STAYS_AWAY.has(code)) {
      this.on.link({ phase: "ended", code });
      return;
    }
    if (code === 4401) this.#signedOut();
    else this.#comeBack(code);
  }

  // A token may have ended just then: once with a fresh one, and then no more.
  async #signedOut() {
    if (this.#hasRenewed) {
      this.on.link({ phase: "ended", code: 4401 });
      return;
    }
    this.#hasRenewed = true;
    try {
      await this.session.tokenAfter(this.#token);
    } catch {
      this.on.link({ phase: "ended", code: 4401 });
      return;
    }
    if (!this.#isOver) this.connect();
  }

  #comeBack(code) {
    const wait = Math.max(this.#backoff, BACKOFF_OF[code] ?? 0) * (0.75 + Math.random() / 2);
    this.#backoff = Math.min(2 * this.#backoff, BACKOFF_LIMIT);
    this.on.link({ phase: "waiting", code, retryAt: Date.now() + wait });
    this.#timer = setTimeout(() => this.connect(), wait);
  }
}
