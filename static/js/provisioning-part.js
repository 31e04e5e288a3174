// New game servers and dev containers: asked for here, and watched while they are made.

import { randomKey } from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, setAttribute, setEnabled, setText } from "./dom.js";
import { complain, notify } from "./notices.js";
import { ending, isGood, Operations, STEPS } from "./operations.js";

const MAKERS = [
  { label: "New game server", path: "/api/game/servers", kind: "game" },
  { label: "New dev container", path: "/api/dev", kind: "dev" },
];
const PLANS = [
  ["small", "Small: 1 core, 1 GiB memory, 8 GiB disk"],
  ["standard", "Standard: 2 cores, 2 GiB memory, 16 GiB disk"],
  ["large", "Large: 4 cores, 4 GiB memory, 32 GiB disk"],
];
const DEFAULT_PLAN = "standard";
const NAME_LIMIT = 100;

class Row {
  constructor(operation, { onCancel, onDismiss }) {
    this.operation = operation;
    this.name = h("span", { class: "strong" });
    this.step = h("span", { class: "quiet-text" });
    this.bar = h("progress", { max: 100, "aria-label": `Progress of ${operation.name}` });
    this.cancel = h("button", { type: "button", class: "quiet small", onclick: () => onCancel(this.operation) }, "Cancel");
    this.dismiss = h("button", { type: "button", class: "quiet small", onclick: () => onDismiss(this.operation) }, "Dismiss");
    this.element = h(
      "li",
      { class: "panel-note" },
      icon(operation.instanceKind),
      h("div", { class: "operation-text" }, h("p", {}, this.name, " ", this.step), this.bar),
      this.cancel,
      this.dismiss,
    );
    this.update(operation);
  }

  update(operation) {
    this.operation = operation;
    const isOver = operation.finished;
    setText(this.name, operation.name);
    setText(this.step, isOver ? ending(operation).slice(operation.name.length + 1) : `${STEPS[operation.state] ?? operation.state} …`);
    setAttribute(this.element, "class", `panel-note tone-${isOver ? "bad" : "busy"}`);
    setAttribute(this.bar, "value", operation.progress);
    this.bar.hidden = isOver;
    this.cancel.hidden = isOver || operation.kind !== "provision";
    setEnabled(this.cancel, operation.cancelable);
    this.dismiss.hidden = !isOver;
  }
}

export function provisioningPart(context) {
  const { api } = context;
  const rows = new Map();
  const told = new Set();
  const list = h("ul", { class: "operations", "aria-label": "Under way" });
  const element = h(
    "div",
    { class: "provisioning" },
    h(
      "div",
      { class: "provisioning-buttons" },
      MAKERS.map((maker) => h("button", { type: "button", onclick: () => create(maker) }, maker.label)),
    ),
    list,
  );
  const operations = new Operations(context, (operation) => {
    if (operation?.finished && isGood(operation)) tell(operation);
    draw();
  });
  function tell(operation) {
    if (told.has(operation.id) || !rows.has(operation.id)) return;
    told.add(operation.id);
    notify(ending(operation));
  }

  async function create({ label, path }) {
    const answer = await ask({ title: label, body: [], confirm: "Create it", fields: [nameRow(), planRow()] });
    if (answer === null) return;
    const body = { name: answer.name.trim(), plan: answer.plan };
    const headers = { "Idempotency-Key": randomKey() };
    try {
      operations.take((await api.post(path, { body, headers })).operation);
    } catch (error) {
      complain(error, `${label}:`);
    }
  }

  async function cancel(operation) {
    try {
      operations.take((await api.post(`/api/operations/${encodeURIComponent(operation.id)}/cancel`)).operation);
    } catch (error) {
      complain(error, `${operation.name}:`);
    }
  }

  function draw() {
    const shown = operations.all();
    for (const [id, row] of rows) {
      if (shown.some((operation) => operation.id === id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    for (const operation of shown) {
      const row = rows.get(operation.id);
      if (row !== undefined) row.update(operation);
      else place(operation);
    }
    list.hidden = shown.length === 0;
  }

  function place(operation) {
    const row = new Row(operation, { onCancel: cancel, onDismiss: (each) => operations.dismiss(each) });
    rows.set(operation.id, row);
    list.prepend(row.element);
  }

  draw();
  return { element, destroy: () => operations.destroy() };
}

function nameRow() {
  const input = h("input", { name: "name", required: true, maxlength: NAME_LIMIT, autocomplete: "off", "data-focus": true, pattern: ".*\\S.*" });
  return h("label", { class: "field" }, h("span", {}, "Name"), input);
}

function planRow() {
  const options = PLANS.map(([value, label]) => h("option", { value, selected: value === DEFAULT_PLAN }, label));
  return h("label", { class: "field" }, h("span", {}, "Size"), h("select", { name: "plan" }, options));
}
