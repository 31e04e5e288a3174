// Uploads, one after the other, with progress and a way to stop. They go on while one looks at other views.
// XMLHttpRequest, since fetch() tells nothing of how far a body has gone.

import { ApiError, instancePath, parse } from "./api.js";
import { announce, complain, notify } from "./notices.js";

const RATE_WINDOW = 5000;

export class Uploads {
  #items = [];
  #listeners = new Set();
  #current = null;
  #watched = new Set();

  constructor(session) {
    this.session = session;
    addEventListener("beforeunload", (event) => {
      if (this.busy.length) event.preventDefault();
    });
  }

  // What is being sent or waits for its turn.
  get busy() {
    return this.#items.filter(({ phase }) => phase === "waiting" || phase === "sending");
  }

  of(instanceId) {
    return this.#items.filter((item) => item.instance.id === instanceId);
  }

  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // Until the returned function is called, the uploads to this instance are looked at: no notice has to tell of them.
  watch(instanceId) {
    this.#watched.add(instanceId);
    return () => this.#watched.delete(instanceId);
  }

  add(instance, file, path) {
    const item = { instance, file, path };
    this.#items.push(item);
    this.#wait(item);
  }

  // From its first byte on: an agent keeps nothing of what it did not get in full.
  tryAgain(item) {
    if (item.phase === "failed") this.#wait(item);
  }

  cancel(item) {
    if (item.phase === "sending") item.request?.abort();
    item.phase = "cancelled";
    this.#tell();
  }

  dismiss(item) {
    this.#items = this.#items.filter((each) => each !== item);
    this.#tell();
  }

  // Somebody else may sit there now.
  clear() {
    for (const item of this.#items) this.cancel(item);
    this.#items = [];
    this.#tell();
  }

  #wait(item) {
    Object.assign(item, { phase: "waiting", sent: 0, rate: null, error: null, marks: [], request: null });
    this.#tell();
    this.#next();
  }

  async #next() {
    if (this.#current !== null) return;
    const item = this.#items.find(({ phase }) => phase === "waiting");
    if (item === undefined) return;
    this.#current = item;
    item.phase = "sending";
    this.#tell();
    try {
      await this.#send(item);
      item.phase = "done";
      this.#say(item, `${item.path} is uploaded to ${item.instance.name}.`);
    } catch (error) {
      this.#failed(item, error);
    }
    this.#current = null;
    this.#tell();
    this.#next();
  }

  #failed(item, error) {
    if (item.phase === "cancelled") {
      announce(`The upload of ${item.path} was stopped.`);
      return;
    }
    item.phase = "failed";
    item.error = error;
    if (this.#watched.has(item.instance.id)) announce(`${item.path} was not uploaded. ${error.message}`);
    else complain(error, `${item.path} was not uploaded.`);
  }

  #say(item, sentence) {
    if (this.#watched.has(item.instance.id)) announce(sentence);
    else notify(sentence);
  }

  async #send(item) {
    const token = await this.session.token();
    try {
      await this.#post(item, token);
    } catch (error) {
      if (error.status !== 401 || item.phase !== "sending") throw error;
      await this.#post(item, await this.session.tokenAfter(token));
    }
  }

  #post(item, token) {
    return new Promise((resolve, reject) => {
      if (item.phase !== "sending") {
        reject(new ApiError(0, null, null));
        return;
      }
      const request = new XMLHttpRequest();
      item.request = request;
      request.open("POST", `${instancePath(item.instance)}/files/upload?path=${encodeURIComponent(item.path)}`);
      request.setRequestHeader("Authorization", `Bearer ${token}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.upload.onprogress = ({ loaded }) => this.#progressed(item, loaded);
      request.onload = () => {
        const answer = parse(request.responseText);
        if (request.status >= 200 && request.status < 300) resolve(answer);
        else reject(new ApiError(request.status, answer, request.getResponseHeader("X-Request-Id")));
      };
      request.onerror = () =>
        reject(new ApiError(0, { error: "The connection ended before the file was through." }, null));
      request.onabort = () => reject(new ApiError(0, { error: "The upload was stopped." }, null));
      request.send(item.file);
    });
  }

  #progressed(item, loaded) {
    const now = performance.now();
    item.sent = loaded;
    item.marks.push([now, loaded]);
    while (item.marks.length > 2 && now - item.marks[0][0] > RATE_WINDOW) item.marks.shift();
    const [[since, from]] = item.marks;
    item.rate = now - since > 500 ? ((loaded - from) * 1000) / (now - since) : null;
    this.#tell();
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
