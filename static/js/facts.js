// What is known of an instance, each thing by itself: the axes of its state, its load, its dates.

import { h, setAttribute, setText } from "./dom.js";
import { bytes, duration, moment, percent, shortMoment } from "./format.js";
import { axis } from "./words.js";

// Label, text, and for what is shortened, the whole of it.
const ROWS = [
  ["Connection", ({ state }) => axis(state.connection)],
  ["Readiness", ({ state }) => axis(state.readiness)],
  ["Process", ({ state }) => `${axis(state.process)}${state.stale && state.process !== "unknown" ? " (when last seen)" : ""}`],
  ["Players", ({ state }) => players(state.detail.players)],
  ["CPU", ({ state }) => load(state, percent(state.detail.cpuPercent))],
  ["Memory", ({ state }) => load(state, share(state.detail.memory))],
  ["Disk", ({ state }) => share(state.detail.disk)],
  ["Running for", ({ state }) => load(state, state.detail.uptimeSeconds === undefined ? "–" : duration(state.detail.uptimeSeconds * 1000))],
  ["Version", ({ state }) => state.detail.version ?? "–"],
  ["Last ready", ({ state }) => shortMoment(state.lastReadyAt), ({ state }) => moment(state.lastReadyAt)],
  ["Last seen", ({ state }) => shortMoment(state.lastSeenAt), ({ state }) => moment(state.lastSeenAt)],
  ["Created", ({ createdAt }) => shortMoment(createdAt), ({ createdAt }) => moment(createdAt)],
  ["Id", (instance) => instance.id],
];
const ALWAYS = new Set(["Connection", "Readiness", "Process", "Last seen", "Created", "Id"]);

function players(detail) {
  if (detail?.online === undefined || detail.online === null) return "–";
  return detail.max ? `${detail.online} of ${detail.max}` : String(detail.online);
}

function share(detail) {
  if (!detail?.usedBytes) return "–";
  return detail.limitBytes ? `${bytes(detail.usedBytes)} of ${bytes(detail.limitBytes)}` : bytes(detail.usedBytes);
}

// What moves all the time is worth nothing once it is old.
function load(state, text) {
  return state.stale || state.process === "stopped" || state.process === "crashed" ? "–" : text;
}

export class Facts {
  #rows;

  constructor() {
    this.#rows = ROWS.map(([label, value, whole]) => {
      const text = h("dd", { class: label === "Id" ? "mono" : null });
      const row = h("div", { class: "fact" }, h("dt", {}, label), text);
      return { label, value, whole, text, row };
    });
    this.element = h(
      "aside",
      { class: "panel facts", "aria-label": "Details" },
      h("h2", {}, "Details"),
      h("dl", {}, ...this.#rows.map(({ row }) => row)),
    );
  }

  update(instance) {
    for (const { label, value, whole, text, row } of this.#rows) {
      const said = value(instance);
      setText(text, said);
      if (whole) setAttribute(text, "title", whole(instance));
      row.hidden = said === "–" && !ALWAYS.has(label);
    }
  }
}
