// The IDE of a dev container: it opens in a tab of its own, and code-server behind it is started and stopped.

import { ApiError, instancePath } from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, setEnabled, setText } from "./dom.js";
import { complain, notify } from "./notices.js";

const REFRESH = 3000;
const STARTS_WITHIN = 60000;
const LOOK = 1000;

const ACTIONS = {
  start: { label: "Start code-server", icon: "play", doing: "Starting …" },
  restart: { label: "Restart code-server", icon: "restart", doing: "Restarting …", question: "Open editors lose their connection until it is ready again." },
  stop: { label: "Stop code-server", icon: "stop", doing: "Stopping …", question: "Open editors lose their connection. What is not saved stays in them." },
};

// What the agent says of code-server, in a sentence. `null` is an agent that does not tell, `undefined` not known yet.
function sentence(status) {
  if (status === undefined) return "Looking …";
  if (status === null) return "This container's agent does not tell whether code-server runs.";
  if (isReady(status)) return "code-server is running.";
  if (isStopped(status)) return status.error ? `code-server is stopped: ${status.error}` : "code-server is stopped.";
  return `code-server is ${status.state ?? "in an unknown state"}.`;
}

function isStopped(status) {
  return ["stopped", "crashed", "error"].includes(status?.state);
}

// `ready` says that its port answers; agents that leave it out mean it by "running".
function isReady(status) {
  return status?.state === "running" && status.ready !== false;
}

// The address holds a token that works once: it is handed to the new tab alone, which shares nothing with this one.
function openTab(url) {
  const target = new URL(url, location.origin);
  if (!["http:", "https:"].includes(target.protocol)) throw new Error("That is no address of an IDE.");
  h("a", { href: target.href, target: "_blank", rel: "noopener noreferrer" }).click();
}

export function idePanel({ instance, api, store }) {
  const path = instancePath(instance);
  let status;
  let under = null;
  let isGone = false;

  const said = h("p", { class: "quiet-text", role: "status" });
  const openButton = h("button", { type: "button", class: "primary", onclick: open }, icon("dev"), h("span", {}, "Open IDE"));
  const buttons = Object.entries(ACTIONS).map(([action, { icon: name }]) => ({
    action,
    element: h("button", { type: "button", onclick: () => press(action) }, icon(name), h("span", {})),
  }));
  const element = h(
    "section",
    { class: "panel", "aria-label": "IDE" },
    h(
      "div",
      { class: "panel-head" },
      h("div", {}, h("h2", {}, "IDE"), said),
      openButton,
    ),
    h("div", { class: "power", role: "group", "aria-label": "code-server" }, buttons.map((each) => each.element)),
  );

  function draw() {
    setText(said, sentence(status));
    setText(openButton.lastElementChild, under === "open" ? "Opening …" : "Open IDE");
    setEnabled(openButton, under === null);
    for (const { action, element: button } of buttons) {
      setText(button.lastElementChild, under === action ? ACTIONS[action].doing : ACTIONS[action].label);
      setEnabled(button, under === null && fits(action));
    }
  }

  function fits(action) {
    if (!status) return true; // not told: the agent itself knows best
    return action === "start" ? isStopped(status) : !isStopped(status);
  }

  async function look() {
    try {
      status = await api.get(`${path}/codeserver/status`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      status = error.status === 404 ? null : status; // how the container is, the chip above says
    }
    if (!isGone) draw();
  }

  async function doing(what, work) {
    if (under !== null) return;
    under = what;
    draw();
    try {
      await work();
    } catch (error) {
      complain(error, `${store.get(instance.id)?.name ?? instance.name}:`);
    }
    under = null;
    if (!isGone) await look();
  }

  async function press(action) {
    const { label, question } = ACTIONS[action];
    if (under !== null || !fits(action)) return;
    if (question && (await ask({ title: `${label}?`, body: [question], confirm: label })) === null) return;
    await doing(action, () => api.post(`${path}/codeserver/${action}`));
  }

  async function open() {
    if (under !== null) return;
    if (isStopped(status)) {
      const body = ["It is stopped. Shall it be started, and then opened?"];
      if ((await ask({ title: "Start code-server?", body, confirm: "Start and open" })) === null) return;
    }
    await doing("open", async () => {
      if (isStopped(status)) await start();
      openTab((await api.post(`${path}/ide-token`)).url);
    });
  }

  async function start() {
    await api.post(`${path}/codeserver/start`);
    const endsAt = Date.now() + STARTS_WITHIN;
    do {
      await new Promise((resolve) => setTimeout(resolve, LOOK));
      await look();
    } while (!isGone && status && !isReady(status) && Date.now() < endsAt);
    if (!navigator.userActivation?.isActive) notify("code-server is ready: press Open IDE.");
  }

  const looking = setInterval(() => {
    if (document.visibilityState !== "hidden" && under === null) look();
  }, REFRESH);
  draw();
  look();
  return {
    element,
    destroy() {
      isGone = true;
      clearInterval(looking);
    },
  };
}
