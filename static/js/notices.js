// What the page has to say: to the eye in the corner, to a screen reader through the live region.

import { ApiError } from "./api.js";
import { h, icon } from "./dom.js";

const SECONDS = 7;
const LIMIT = 4;
const ANNOUNCEMENT_PAUSE = 1000;

let waiting = [];
let timer = 0;

// Gathered for a moment: a fleet that restarts is one announcement, not fifty.
export function announce(sentence) {
  waiting.push(sentence);
  timer ||= setTimeout(() => {
    timer = 0;
    const said = waiting.length > LIMIT ? `${waiting.length} changes.` : waiting.join(" ");
    document.getElementById("announcer").textContent = said;
    waiting = [];
  }, ANNOUNCEMENT_PAUSE);
}

export function notify(sentence) {
  announce(sentence);
  show("ok", "check", sentence, null, SECONDS);
}

// Stays until it is dismissed: an error that fades is an error nobody read.
export function complain(error, lead = "") {
  const sentence = lead ? `${lead} ${error.message}` : error.message;
  show("bad", "warning", sentence, error, null);
}

function show(tone, iconName, sentence, error, seconds) {
  const region = document.getElementById("notices");
  const notice = h(
    "div",
    { class: `notice tone-${tone}`, role: error ? "alert" : null },
    icon(iconName),
    h("div", { class: "notice-text" }, h("p", {}, sentence), error ? explanation(error) : null),
    h("button", { class: "quiet icon-only", type: "button", "aria-label": "Dismiss", onclick: dismiss }, icon("close")),
  );
  function dismiss() {
    notice.remove();
    (region.querySelector("button") ?? document.getElementById("main"))?.focus();
  }

  region.append(notice);
  while (region.children.length > LIMIT) region.firstElementChild.remove();
  if (seconds !== null) setTimeout(() => notice.remove(), seconds * 1000);
}

// The small print of an error: what to do next, and where the fault is not one's own, the request id for whom to tell.
export function explanation(error) {
  const hint = error instanceof ApiError ? error.hint : "";
  const requestId = error instanceof ApiError && error.status >= 500 ? error.requestId : null;
  return h(
    "div",
    { class: "explanation" },
    hint ? h("p", {}, hint) : null,
    requestId ? h("p", { class: "request-id" }, "Request ", h("code", {}, requestId)) : null,
  );
}

// An error in the place of what could not be shown.
export function errorPanel(lead, error, onRetry) {
  return h(
    "div",
    { class: "panel-note tone-bad", role: "alert" },
    icon("warning"),
    h("div", {}, h("p", { class: "strong" }, `${lead} ${error.message}`), explanation(error)),
    onRetry ? h("button", { type: "button", onclick: onRetry }, "Try again") : null,
  );
}
