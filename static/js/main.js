// The composition root: makes the parts, shows the view that the address names, and follows the events.
// Which views there are is said in views.js.

import { Api, ApiError } from "./api.js";
import { h } from "./dom.js";
import { EventBus } from "./event-bus.js";
import { EventStream } from "./events.js";
import { FleetStore } from "./fleet-store.js";
import { announce, complain, errorPanel } from "./notices.js";
import { Router } from "./router.js";
import { Session } from "./session.js";
import { Shell } from "./shell.js";
import { resetView, signInView } from "./sign-in.js";
import { Uploads } from "./uploads.js";
import { VIEWS } from "./views.js";
import { summary } from "./words.js";

const REFRESH = 15000;
const LIST_LIMIT = 15000; // a network that swallows everything answers nothing
const PAGE = 200;
const PAGES = 5; // a larger fleet lives by its events alone
const APP = "controlplane";
const HOME = "#/";

const app = document.getElementById("app");
const session = new Session();
const api = new Api(session);
const store = new FleetStore();
const uploads = new Uploads(session);
const events = new EventBus();
const shell = new Shell({ views: VIEWS, onSignOut: signOut });
const stream = new EventStream(session, {
  onConnect: () => store.connected(),
  onEvent: (name, data) => {
    store.take(name, data);
    events.tell(name, data);
  },
  onLink: (isLive) => {
    if (isLive && shell.isOld) refresh(); // of what did not change meanwhile no event tells
    shell.showLink(isLive);
  },
});
const router = new Router(VIEWS, (route) => {
  resetToken ??= takeResetToken();
  show(route);
});

let view = null; // what is on the screen
let shown = null; // the entry of views.js that made it, or null
let sentence = null; // what is to be said at the next sign-in
let resetToken = takeResetToken();

// The link of a reset mail is `/#reset=…`: what it holds does not stay in the address.
function takeResetToken() {
  const [, token] = /^#reset=(.+)$/.exec(location.hash) ?? [];
  if (token === undefined) return null;
  history.replaceState(null, "", HOME);
  return token;
}

function show(route) {
  const isInside = session.isSignedIn && resetToken === null;
  const wanted = isInside ? inside(route) : outside(route);
  if (view !== null && shown !== null && shown === wanted.view && view.take?.(wanted.parameters)) return;
  const isFirst = view === null;
  view?.destroy();
  shown = wanted.view;
  view = shown.make({ api, events, session, store, uploads, sentence, parameters: wanted.parameters });
  if (isInside) {
    shell.showPlace(shown);
    shell.main.replaceChildren(view.element);
    if (!shell.element.isConnected) app.replaceChildren(shell.element);
  } else {
    app.replaceChildren(view.element);
  }
  drawTitle();
  const target = view.element.querySelector("[data-focus]") ?? view.element.querySelector("h1");
  if (!isFirst || target?.matches("input")) target?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function inside(route) {
  if (route !== null && !route.view.isForGuests) return route;
  history.replaceState(null, "", HOME);
  return router.match(HOME);
}

// Whoever has to sign in first finds the address unchanged afterwards.
function outside(route) {
  if (resetToken !== null) {
    const parameters = { token: resetToken };
    resetToken = null;
    return { view: { make: resetView }, parameters };
  }
  return route?.view.isForGuests ? route : { view: { make: signInView }, parameters: {} };
}

function signOut() {
  session.signOut().catch((error) => complain(error, "You are signed out here, but the control plane was not told."));
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
    const signal = AbortSignal.timeout(LIST_LIMIT);
    const answer = await api.get(`${path}?limit=${PAGE}${after && `&after=${encodeURIComponent(after)}`}`, { signal });
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
    shell.awaitLink();
    stream.run();
    refresh();
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

// See setEnabled in dom.js.
function stopWhereDisabled(event) {
  if (!event.target.closest?.('[aria-disabled="true"]')) return;
  event.preventDefault();
  event.stopPropagation();
}
document.addEventListener("click", stopWhereDisabled, { capture: true });

// A file or a link that is dropped beside its place would take the place of the page. Text may go into a field.
function keepThePage(event) {
  if (event.defaultPrevented) return;
  const { types } = event.dataTransfer;
  if (!types.includes("Files") && event.target.closest?.("input")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
}
for (const name of ["dragover", "drop"]) document.addEventListener(name, keepThePage);

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
