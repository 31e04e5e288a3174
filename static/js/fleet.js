// The fleet: every instance that one may see, with what matters first where something is wrong.

import { Chip } from "./chip.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { FLEET_PARTS } from "./fleet-parts.js";
import { ago, bytes, percent, plural } from "./format.js";
import { instanceAddress } from "./router.js";
import { KINDS, summary } from "./words.js";

const SHOWN = 200;
const TICK = 1000;
const FILTERS = [
  ["all", "All"],
  ["game", "Game servers"],
  ["dev", "Dev containers"],
  ["attention", "Needs attention"],
];

class Row {
  constructor(instance, store) {
    this.store = store;
    this.id = instance.id;
    this.chip = new Chip();
    this.name = h("span", { class: "row-name" });
    this.meta = h("span", { class: "row-meta" });
    this.reason = h("span", { class: "row-reason" });
    this.fresh = h("span", { class: "row-fresh" });
    this.load = h("span", { class: "row-load" });
    this.element = h(
      "li",
      {},
      h(
        "a",
        { class: "row", href: instanceAddress(instance.id) },
        h("span", { class: `kind kind-${instance.kind}` }, icon(instance.kind)),
        h("span", { class: "row-title" }, this.name, this.meta),
        h("span", { class: "row-state" }, this.chip.element, this.reason),
        this.load,
        this.fresh,
        h("span", { class: "row-go" }, icon("right")),
      ),
    );
    this.update(instance);
  }

  update(instance) {
    const said = summary(instance);
    this.chip.update(said);
    setText(this.name, instance.name);
    setText(this.meta, `${KINDS[instance.kind]} · ${instance.vmid}`);
    setText(this.reason, said.reason);
    setText(this.load, load(instance.state));
    setAttribute(this.element, "class", `tone-${said.tone}`);
    this.tick();
  }

  tick() {
    const age = this.store.age(this.id);
    setText(this.fresh, age === null ? "Never seen" : `Seen ${ago(age)}`);
  }
}

function load({ detail, stale, process }) {
  if (stale || process !== "running") return "";
  const parts = [];
  if (detail.players?.online !== undefined && detail.players?.online !== null) {
    parts.push(plural(detail.players.online, "player", "players"));
  }
  if (detail.cpuPercent !== undefined) parts.push(`${percent(detail.cpuPercent)} CPU`);
  if (detail.memory?.usedBytes) parts.push(bytes(detail.memory.usedBytes));
  return parts.join(" · ");
}

const ATTENTION = new Set(["bad", "warn"]);
const ORDER = { bad: 0, warn: 1, busy: 2, ok: 2, idle: 2 };

export function fleetView(context) {
  const { store } = context;
  const parts = FLEET_PARTS.map((make) => make(context));
  const rows = new Map();
  let filter = "all";
  let words = "";
  const list = h("ul", { class: "rows" });
  const counts = h("p", { class: "counts" });
  const empty = h("div", { class: "empty" });
  const more = h("p", { class: "aside" });
  const search = h("input", {
    type: "search",
    placeholder: "Search by name or number",
    "aria-label": "Search",
    oninput: () => {
      words = search.value.trim().toLowerCase();
      draw();
    },
  });
  const filters = FILTERS.map(([value, label]) =>
    h("button", { type: "button", class: "pill", "aria-pressed": String(value === filter), onclick: () => choose(value) }, label),
  );
  const element = h(
    "div",
    { class: "page" },
    h("header", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Fleet"), counts)),
    h("div", { class: "fleet-parts" }, parts.map((part) => part.element)),
    h("div", { class: "toolbar" }, h("div", { class: "pills", role: "group", "aria-label": "Show" }, filters), h("div", { class: "search" }, icon("search"), search)),
    list,
    empty,
    more,
  );

  function choose(value) {
    filter = value;
    for (const [index, [each]] of FILTERS.entries()) filters[index].setAttribute("aria-pressed", String(each === value));
    draw();
  }

  function isShown(instance) {
    if (filter === "attention" ? !ATTENTION.has(summary(instance).tone) : filter !== "all" && instance.kind !== filter) return false;
    return !words || instance.name.toLowerCase().includes(words) || String(instance.vmid).includes(words) || instance.id === words;
  }

  function rank(left, right) {
    const by = ORDER[summary(left).tone] - ORDER[summary(right).tone];
    return by || left.name.localeCompare(right.name) || left.vmid - right.vmid;
  }

  function draw() {
    const all = store.all();
    const found = all.filter(isShown).sort(rank);
    const shown = found.slice(0, SHOWN);
    for (const [id, row] of rows) {
      if (shown.some((instance) => instance.id === id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    for (const [index, instance] of shown.entries()) place(instance, index);
    setText(counts, store.isLoaded ? tally(all) : "");
    setAttribute(list, "aria-busy", !store.isLoaded);
    setText(more, found.length > SHOWN ? `${found.length - SHOWN} more: narrow the search to see them.` : "");
    drawEmpty(all.length, found.length);
  }

  // Moves a row only when its place changed: an element that is moved loses the focus.
  function place(instance, index) {
    let row = rows.get(instance.id);
    if (row === undefined) rows.set(instance.id, (row = new Row(instance, store)));
    else row.update(instance);
    const there = list.children[index];
    if (there === row.element) return;
    const hadFocus = row.element.contains(document.activeElement);
    list.insertBefore(row.element, there ?? null);
    if (hadFocus) row.element.querySelector("a").focus();
  }

  function drawEmpty(total, found) {
    if (!store.isLoaded) {
      empty.replaceChildren(...Array.from({ length: total ? 0 : 3 }, () => h("div", { class: "skeleton row-skeleton" })));
    } else if (total === 0) {
      empty.replaceChildren(
        h("h2", {}, "No servers yet"),
        h("p", {}, "Make one with the buttons above. Those that belong to your account appear here."),
      );
    } else if (found === 0) {
      empty.replaceChildren(h("p", {}, filter === "attention" && !words ? "Nothing needs attention." : "Nothing here fits the search."));
    } else {
      empty.replaceChildren();
    }
  }

  let frame = 0;
  const stop = store.onChange(() => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  });
  const ticking = setInterval(() => rows.forEach((row) => row.tick()), TICK);
  draw();
  return {
    element,
    title: "Fleet",
    destroy() {
      for (const part of parts) part.destroy();
      stop();
      clearInterval(ticking);
      cancelAnimationFrame(frame);
    },
  };
}

function tally(all) {
  const tones = all.map((instance) => summary(instance));
  const ready = tones.filter(({ word }) => word === "Ready").length;
  const attention = tones.filter(({ tone }) => ATTENTION.has(tone)).length;
  const parts = [plural(all.length, "instance", "instances"), `${ready} ready`];
  if (attention) parts.push(attention === 1 ? "1 needs attention" : `${attention} need attention`);
  return parts.join(" · ");
}
