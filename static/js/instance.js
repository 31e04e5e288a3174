// One instance: what it is and how it is, its power, and its panels (which there are is said in panels.js).

import { ApiError, instancePath } from "./api.js";
import { Chip } from "./chip.js";
import { deleteButton } from "./deletion.js";
import { ask } from "./dialog.js";
import { Facts } from "./facts.js";
import { h, icon, setAttribute, setEnabled, setText } from "./dom.js";
import { ago } from "./format.js";
import { complain } from "./notices.js";
import { PANELS } from "./panels.js";
import { instanceAddress } from "./router.js";
import { KINDS, powerActions, summary } from "./words.js";

const TICK = 1000;
const REFRESH = 5000;
const SETTLES_WITHIN = 60000;

const POWER = {
  start: { label: "Start", doing: "Starting …", icon: "play", until: (state) => state.ready || state.process === "crashed" },
  restart: {
    label: "Restart",
    doing: "Restarting …",
    icon: "restart",
    until: (state, since) => state.ready && state.changedAt > since,
    question: "Whoever uses it is disconnected until it is ready again.",
  },
  stop: {
    label: "Stop",
    doing: "Stopping …",
    icon: "stop",
    until: (state) => state.process === "stopped" || state.process === "crashed",
    question: "Whoever uses it is disconnected. It stays stopped until it is started again.",
  },
};

class PowerButtons {
  #under = null;

  constructor(id, store, api) {
    this.id = id;
    this.store = store;
    this.api = api;
    this.buttons = Object.fromEntries(
      Object.entries(POWER).map(([action, { icon: name, label }]) => [
        action,
        h("button", { type: "button", onclick: () => this.#press(action) }, icon(name), h("span", {}, label)),
      ]),
    );
    this.element = h("div", { class: "power", role: "group", "aria-label": "Power" }, Object.values(this.buttons));
  }

  update(instance) {
    const { state } = instance;
    if (this.#under && (this.#isDone(state) || Date.now() > this.#under.endsAt)) this.#under = null;
    const may = powerActions(instance);
    for (const [action, button] of Object.entries(this.buttons)) {
      const isDoing = this.#under?.action === action;
      setText(button.lastElementChild, isDoing ? POWER[action].doing : POWER[action].label);
      setAttribute(button, "aria-busy", isDoing ? "true" : null);
      setEnabled(button, this.#under === null && may[action]);
      setAttribute(button, "class", action === "start" && may.start && !may.stop ? "primary" : null);
    }
  }

  // Before the answer what is heard, its load for one, is of the time before.
  #isDone(state) {
    const { action, isAnswered, since } = this.#under;
    return isAnswered && POWER[action].until(state, since);
  }

  async #press(action) {
    const instance = this.store.get(this.id);
    if (instance === null) return;
    const { label, question } = POWER[action];
    if (question) {
      const answer = await ask({ title: `${label} ${instance.name}?`, body: [question], confirm: label });
      if (answer === null) return;
    }
    const under = (this.#under = { action, isAnswered: false, since: "", endsAt: Date.now() + SETTLES_WITHIN });
    this.update(instance);
    try {
      await this.api.post(`${instancePath(instance)}/${action}`);
      under.since = this.store.get(this.id)?.state.changedAt ?? "";
      under.isAnswered = true;
    } catch (error) {
      this.#under = null;
      complain(error, `${instance.name}: ${label.toLowerCase()} failed.`);
    }
    const now = this.store.get(this.id);
    if (now !== null) this.update(now);
  }
}

export function instanceView(context) {
  const { store, api, parameters } = context;
  const { id } = parameters;
  let { panel } = parameters;
  const body = h("div", { class: "page" });
  let content = null;

  function draw() {
    const instance = store.get(id);
    if (instance !== null && content === null) {
      content = present(context, instance, panel);
      body.replaceChildren(content.element);
    } else if (instance !== null) {
      content.update(instance);
    } else {
      content?.destroy();
      content = null;
      body.replaceChildren(...(store.isLoaded ? missing() : [h("div", { class: "skeleton page-skeleton", "aria-busy": "true" })]));
    }
  }

  // Events tell of changes; how old the rest is, and the load, has to be asked.
  async function refresh() {
    const instance = store.get(id);
    if (instance === null || document.visibilityState === "hidden") return;
    const asOf = store.now;
    try {
      store.takeState(id, await api.get(`${instancePath(instance)}/state`), asOf);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // how the link is, the shell says
    }
  }

  const stop = store.onChange(({ before, after }) => {
    if ((before ?? after ?? { id }).id === id) draw();
  });
  const refreshing = setInterval(refresh, REFRESH);
  draw();
  refresh();
  return {
    element: body,
    get title() {
      const instance = store.get(id);
      return instance === null ? "Instance" : `${instance.name} – ${summary(instance).word}`;
    },
    take(next) {
      if (next.id !== id) return false;
      panel = next.panel;
      content?.show(panel);
      return true;
    },
    destroy() {
      stop();
      clearInterval(refreshing);
      content?.destroy();
    },
  };
}

function missing() {
  return [
    h("nav", { class: "crumbs", "aria-label": "Where you are" }, h("a", { href: "#/" }, icon("left"), "Fleet")),
    h(
      "div",
      { class: "empty" },
      h("h1", { tabindex: "-1" }, "There is no such instance"),
      h("p", {}, "It may have been removed, or it is not yours."),
    ),
  ];
}

function present(context, instance, panelName) {
  const { store, api } = context;
  const chip = new Chip();
  const name = h("h1", { tabindex: "-1" });
  const meta = h("p", { class: "quiet-text" });
  const reason = h("p", { class: "reason" });
  const fresh = h("span", { class: "row-fresh" });
  const power = new PowerButtons(instance.id, store, api);
  const facts = new Facts();
  const panels = PANELS.filter(({ isFor }) => isFor(instance));
  const tabs = h("nav", { class: "tabs", "aria-label": "Parts of this instance" });
  const links = new Map(
    panels.map(({ name: each, label }) => [each, h("a", { href: instanceAddress(instance.id, each) }, label)]),
  );
  tabs.append(...links.values());
  const place = h("div", { class: "panel-place" });
  let shown = null;

  const element = h(
    "div",
    {},
    h("nav", { class: "crumbs", "aria-label": "Where you are" }, h("a", { href: "#/" }, icon("left"), "Fleet")),
    h(
      "header",
      { class: "page-head instance-head" },
      h("div", { class: "instance-title" }, h("span", { class: `kind kind-${instance.kind}` }, icon(instance.kind)), h("div", {}, name, meta)),
      h("div", { class: "instance-actions" }, power.element, deleteButton(instance.id, context)),
    ),
    h("div", { class: "state-line" }, chip.element, reason, fresh),
    h("div", { class: "instance-body" }, h("div", { class: "instance-main" }, tabs, place), facts.element),
  );

  function show(wanted) {
    const panel = panels.find((each) => each.name === wanted) ?? panels[0];
    for (const [each, link] of links) setAttribute(link, "aria-current", each === panel.name ? "page" : null);
    shown?.destroy();
    shown = panel.make({ ...context, instance: store.get(instance.id) ?? instance });
    place.replaceChildren(shown.element);
  }

  function update(now) {
    const said = summary(now);
    chip.update(said);
    setText(name, now.name);
    setText(meta, `${KINDS[now.kind]} · ${now.vmid}`);
    setText(reason, said.next ? `${said.reason} ${said.next}` : said.reason);
    power.update(now);
    facts.update(now);
    tick();
  }

  function tick() {
    const age = store.age(instance.id);
    setText(fresh, age === null ? "Never seen" : `Seen ${ago(age)}`);
  }

  const ticking = setInterval(() => {
    tick();
    const now = store.get(instance.id);
    if (now !== null) power.update(now);
  }, TICK);
  update(instance);
  show(panelName);
  return {
    element,
    update,
    show,
    destroy() {
      clearInterval(ticking);
      shown?.destroy();
    },
  };
}
