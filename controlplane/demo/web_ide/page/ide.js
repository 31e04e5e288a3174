// A file list, an editor that saves over HTTP, a shell over a websocket. Every address is relative to the page.

const RETRY = 1000;
const SCREEN_LIMIT = 100000;
const CONTROL = new RegExp("\\u001b(?:\\[[0-9;?]*[A-Za-z]|\\][^\\u0007]*\\u0007|.)|[\\u0000-\\u0007\\u000b-\\u001f]", "g");
const KEYS = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B" };

const at = (id) => document.getElementById(id);
const say = (text) => {
  at("message").textContent = text;
};
let current = null;

// -- files ------------------------------------------------------------------------------------------------------------

const address = (name) => `api/files/${name.split("/").map(encodeURIComponent).join("/")}`;

async function ask(url, options) {
  const response = await fetch(url, options);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return response;
}

async function list() {
  const { folder, files } = await (await ask("api/files")).json();
  at("folder").textContent = folder;
  document.title = `${folder} – Web IDE`;
  at("files").replaceChildren(
    ...files.map((name) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => open(name));
      if (name === current) button.setAttribute("aria-current", "true");
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

async function open(name) {
  try {
    show(name, await (await ask(address(name))).text());
    say("");
    await list();
  } catch (error) {
    say(`${name} cannot be opened: ${error.message}`);
  }
}

function show(name, text) {
  current = name;
  at("name").textContent = name;
  delete at("name").dataset.changed;
  at("text").value = text;
  at("text").disabled = at("save").disabled = false;
  number();
}

async function save() {
  if (current === null) return;
  const body = at("text").value;
  say(`Saving ${current} …`);
  try {
    const { bytes } = await (await ask(address(current), { method: "PUT", body })).json();
    if (at("text").value === body) delete at("name").dataset.changed;
    say(`Saved ${current}, ${bytes} bytes`);
    await list();
  } catch (error) {
    say(`${current} was not saved: ${error.message}`);
  }
}

function number() {
  const count = at("text").value.split("\n").length;
  at("lines").textContent = Array.from({ length: count }, (_, index) => index + 1).join("\n");
  at("lines").scrollTop = at("text").scrollTop;
}

at("text").addEventListener("input", () => {
  at("name").dataset.changed = "true";
  number();
});
at("text").addEventListener("scroll", () => {
  at("lines").scrollTop = at("text").scrollTop;
});
at("save").addEventListener("click", save);
at("new-file").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("new-name").value.trim();
  if (name === "") return;
  at("new-name").value = "";
  show(name, "");
  save();
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "s") {
    event.preventDefault();
    save();
  }
});

// -- the shell --------------------------------------------------------------------------------------------------------

class Shell {
  #name = sessionStorage.getItem("shell") ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
  #decoder = new TextDecoder();
  #socket = null;

  constructor(screen) {
    this.screen = screen;
    sessionStorage.setItem("shell", this.#name);
    screen.addEventListener("keydown", (event) => this.#press(event));
    screen.addEventListener("paste", (event) => this.#type(event.clipboardData.getData("text")));
    this.#connect();
  }

  #connect() {
    const url = new URL(`terminal?name=${this.#name}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.screen.textContent = ""; // the server sends what was there before
      this.#tell("open", "Connected");
    });
    socket.addEventListener("message", ({ data }) => this.#print(this.#decoder.decode(data, { stream: true })));
    socket.addEventListener("close", () => {
      this.#tell("closed", "Connection lost, trying again …");
      setTimeout(() => this.#connect(), RETRY);
    });
  }

  #tell(state, text) {
    document.body.dataset.link = state;
    at("link").textContent = text;
  }

  #print(text) {
    let shown = this.screen.textContent;
    for (const part of text.replace(CONTROL, (found) => (found === "\b" ? "\b" : "")).split(/(\x08)/)) {
      shown = part === "\b" ? shown.slice(0, -1) : shown + part;
    }
    this.screen.textContent = shown.slice(-SCREEN_LIMIT);
    this.screen.scrollTop = this.screen.scrollHeight;
  }

  #press(event) {
    if (event.metaKey || event.altKey) return;
    let keys = KEYS[event.key] ?? (event.key.length === 1 ? event.key : null);
    if (keys === null) return;
    if (event.ctrlKey) {
      if (!/^[a-z]$/.test(event.key) || event.key === "s" || event.key === "v") return;
      keys = String.fromCharCode(event.key.charCodeAt(0) - 96);
    }
    event.preventDefault();
    this.#type(keys);
  }

  #type(keys) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(new TextEncoder().encode(keys));
  }
}

// -- start ------------------------------------------------------------------------------------------------------------

async function work() {
  try {
    const registration = await navigator.serviceWorker.register("worker.js");
    at("worker").textContent = `Worker for ${new URL(registration.scope).pathname}`;
  } catch (error) {
    at("worker").textContent = `No worker: ${error.message}`;
  }
}

new Shell(at("screen"));
if ("serviceWorker" in navigator) work();
list().then(
  () => {
    document.body.dataset.state = "ready";
  },
  (error) => say(`The files cannot be listed: ${error.message}`),
);
