// Where commands are typed: a line with a history (arrow keys, and a list for those who prefer to see it).

import { h, icon } from "./dom.js";

const LIMIT = 100;
const MESSAGE_LIMIT = 4096;

// Kept while the page lives and never stored: commands hold passwords.
const histories = new Map();

export class CommandLine {
  #history;
  #at;
  #draft = "";

  // `onSend(command)` resolves to null, or to a sentence that says why it was refused.
  constructor(instanceId, onSend) {
    if (!histories.has(instanceId)) histories.set(instanceId, []);
    this.#history = histories.get(instanceId);
    this.#at = this.#history.length;
    this.onSend = onSend;
    this.input = h("input", {
      class: "command-input",
      name: "command",
      "aria-label": "Command",
      placeholder: "Type a command",
      autocomplete: "off",
      autocapitalize: "off",
      autocorrect: "off",
      spellcheck: "false",
      enterkeyhint: "send",
      maxlength: MESSAGE_LIMIT,
      onkeydown: (event) => this.#key(event),
    });
    this.problem = h("p", { class: "command-problem", role: "alert" });
    this.list = h("ul", { class: "history-list" });
    this.panel = h("div", { class: "history", hidden: true }, h("p", { class: "history-title" }, "Latest commands"), this.list);
    this.toggle = h(
      "button",
      {
        type: "button",
        class: "quiet icon-only",
        title: "Latest commands",
        "aria-label": "Latest commands",
        "aria-expanded": "false",
        onclick: () => this.#show(this.panel.hidden),
      },
      icon("clock"),
    );
    this.element = h(
      "form",
      {
        class: "command-line",
        onsubmit: (event) => {
          event.preventDefault();
          this.#submit();
        },
        onfocusout: ({ relatedTarget }) => {
          if (relatedTarget !== null && !this.panel.contains(relatedTarget) && relatedTarget !== this.toggle) this.#show(false);
        },
        onkeydown: (event) => {
          if (event.key !== "Escape" || this.panel.hidden) return;
          this.#show(false);
          this.toggle.focus();
        },
      },
      this.panel,
      h("div", { class: "command-row" }, h("span", { class: "prompt", "aria-hidden": "true" }, "›"), this.input, this.toggle, h("button", { type: "submit", class: "primary" }, "Send")),
      this.problem,
    );
  }

  async #submit() {
    const command = this.input.value.trim();
    if (!command) return;
    this.problem.textContent = "";
    this.#remember(command);
    this.input.value = "";
    const refused = await this.onSend(command);
    if (refused === null) return;
    this.problem.textContent = refused;
    if (!this.input.value) this.input.value = command;
  }

  #remember(command) {
    if (this.#history.at(-1) !== command) this.#history.push(command);
    if (this.#history.length > LIMIT) this.#history.shift();
    this.#at = this.#history.length;
    this.#draft = "";
    this.#show(false);
  }

  #key(event) {
    if (event.key === "ArrowUp") this.#step(-1);
    else if (event.key === "ArrowDown") this.#step(1);
    else return;
    event.preventDefault();
  }

  #step(by) {
    const to = this.#at + by;
    if (to < 0 || to > this.#history.length) return;
    if (this.#at === this.#history.length) this.#draft = this.input.value;
    this.#at = to;
    this.input.value = this.#history[to] ?? this.#draft;
    this.input.setSelectionRange(this.input.value.length, this.input.value.length);
  }

  #show(isShown) {
    this.panel.hidden = !isShown;
    this.toggle.setAttribute("aria-expanded", String(isShown));
    if (!isShown) return;
    const latest = [...new Set([...this.#history].reverse())].slice(0, 20);
    this.list.replaceChildren(
      ...(latest.length ? latest.map((command) => h("li", {}, this.#pick(command))) : [h("li", { class: "quiet-text" }, "None yet.")]),
    );
    this.list.querySelector("button")?.focus();
  }

  #pick(command) {
    const choose = () => {
      this.#show(false);
      this.input.value = command;
      this.input.focus();
    };
    return h("button", { type: "button", class: "quiet", onclick: choose }, command);
  }
}
