// The composition root: makes the parts, shows the view that the address names, and follows the events.

import { Api, ApiError } from "./api.js";
import { h } from "./dom.js";
import { EventStream } from "./events.js";
import { fleetView } from "./fleet.js";
import { FleetStore } from "./fleet-store.js";
import { instanceView } from "./instance.js";
import { announce, errorPanel } from "./notices.js";
import { Router } from "./router.js";
import { Session } from "./session.js";
import { Shell } from "./shell.js";
import { forgottenView, resetView, signInView } from "./sign-in.js";
import { Uploads } from "./uploads.js";
import { summary } from "./words.js";

const REFRESH = 15000;
const PAGE = 200;
const PAGES = 5; // a larger fleet lives by its events alone
const APP = "controlplane";

const app = document.getElementById("app");
const session = new Session();
const api = new Api(session);
const store = new FleetStore();
const uploads = new Uploads(session);
const shell = new Shell({ onSignOut: () => session.signOut() });
const listeners = new Map();
const events = {
  on(name, listener) {
    if (!listeners.has(name)) listeners.set(name, new Set());
    listeners.get(name).add(listener);
    return () => listeners.get(name).delete(listener);
  },
};
const stream = new EventStream(session, {
  onConnect: () => store.connected(),
  onEvent: (name, data) => {
    store.take(name, data);
    for (const listener of listeners.get(name) ?? []) listener(data);
  },
  onLink: (isLive) => shell.showLink(isLive),
});
const router = new Router(
  [
    ["/", "fleet"],
    ["/sign-in", "sign-in"],
    ["/forgotten", "forgotten"],
    ["/instances/:id", "instance"],
    ["/instances/:id/:panel", "instance"],
  ],
  (route) => {
    resetToken ??= takeResetToken();
    show(route);
  },
);

let view = null;
let shown = null;
let sentence = null;
let resetToken = takeResetToken();

// The link of a reset mail is `/#reset=…`: what it holds does not stay in the address.
function takeResetToken() {
  const [, token] = /^#reset=(.+)$/.exec(location.hash) ?? [];
  if (token === undefined) return null;
  history.replaceState(null, "", "#/");
  return token;
}

function show(route) {
  const isInside = session.isSignedIn && resetToken === null;
  if (isInside && shown?.name === "instance" && route.name === "instance" && shown.parameters.id === route.parameters.id) {
    shown = route;
    view.show(route.parameters.panel);
    return;
  }
  view?.destroy();
  const isFirst = shown === null;
  shown = route;
  view = isInside ? signedInView(route) : signedOutView(route);
  if (isInside) {
    shell.main.replaceChildren(view.element);
    if (!shell.element.isConnected) app.replaceChildren(shell.element);
  } else {
    app.replaceChildren(view.element);
  }
  drawTitle();
  const target = view.element.querySelector("[autofocus]") ?? view.element.querySelector("h1");
  if (!isFirst || target?.matches("input")) target?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function signedInView({ name, parameters }) {
  const context = { session, api, store, uploads, events };
  if (name === "instance") return instanceView({ ...context, ...parameters });
  return fleetView(context);
}

function signedOutView({ name }) {
  if (resetToken !== null) {
    const token = resetToken;
    resetToken = null;
    return resetView({ token });
  }
  if (name === "forgotten") return forgottenView();
  return signInView({ session, sentence });
}

function drawTitle() {
  document.title = `${view.title} · ${APP}`;
}

async function refresh() {
  if (!session.isSignedIn || document.visibilityState === "hidden") return;
  const asOf = store.now;
  try {
    const lists = await Promise.all([readList("/api/game/servers"), readList("/api/dev")]);
    if (!session.isSignedIn) return;
    store.takeList(lists.flatMap(({ items }) => items), asOf, { isWhole: lists.every(({ isWhole }) => isWhole) });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the link's state is said by the bar
  }
}

async function readList(path) {
  const items = [];
  let after = "";
  for (let page = 0; page < PAGES; page += 1) {
    const answer = await api.get(`${path}?limit=${PAGE}${after && `&after=${encodeURIComponent(after)}`}`);
    items.push(...answer.items);
    if (answer.nextAfter === null) return { items, isWhole: true };
    after = answer.nextAfter;
  }
  return { items, isWhole: false };
}

session.onChange((said) => {
  sentence = said;
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close(""));
  if (session.isSignedIn) {
    shell.showUser(session.user);
    stream.run();
    refresh();
    if (["sign-in", "forgotten"].includes(router.match(location.hash).name)) history.replaceState(null, "", "#/");
  } else {
    stream.stop();
    store.clear();
    uploads.clear();
    document.getElementById("notices").replaceChildren();
  }
  shown = null;
  router.go();
});

store.onChange(({ before, after }) => {
  if (view !== null) drawTitle();
  if (before === null || after === null) return;
  const [then, now] = [summary(before).word, summary(after).word];
  if (then !== now) announce(`${after.name} is now: ${now}.`);
});

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main")?.focus();
});

setInterval(refresh, REFRESH);
document.addEventListener("visibilitychange", refresh);

async function start() {
  if (resetToken === null) app.replaceChildren(h("p", { class: "lone-note", role: "status" }, "Loading …"));
  try {
    if (resetToken === null && (await session.resume())) return;
  } catch (error) {
    app.replaceChildren(h("div", { class: "lone-note" }, errorPanel("", error, start)));
    return;
  }
  router.go();
}

start();
