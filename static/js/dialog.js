// Questions in a modal <dialog>: the browser keeps the focus inside, Escape means no, and the focus returns afterwards.

import { h } from "./dom.js";

let count = 0;

// Resolves to null when it was called off, else to `{name: value}` of the fields.
// `typed` wants a text typed before the button works; `fields` are form rows, one of which has `data-focus`.
export function ask({ title, body, confirm, tone = "primary", typed = null, fields = [] }) {
  const titleId = `dialog-title-${++count}`;
  const button = h("button", { class: tone, type: "submit", value: "yes", disabled: typed !== null }, confirm);
  const proof = typed === null ? null : typedRow(typed, button);
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: titleId }, title),
    ...body.map((part) => (typeof part === "string" ? h("p", {}, part) : part)),
    ...fields,
    proof,
    h(
      "div",
      { class: "dialog-buttons" },
      h("button", { type: "button", onclick: () => dialog.close(""), "data-focus": typed === null && fields.length === 0 }, "Cancel"),
      button,
    ),
  );
  const dialog = h("dialog", { "aria-labelledby": titleId }, form);
  document.body.append(dialog);
  dialog.showModal();
  form.querySelector("[data-focus]").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const answer = dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null;
      dialog.remove();
      resolve(answer);
    });
  });
}

function typedRow(typed, button) {
  const input = h("input", {
    name: "typed",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    "data-focus": true,
    oninput: () => {
      button.disabled = input.value.trim() !== typed;
    },
  });
  return h("label", { class: "field" }, h("span", {}, "Type ", h("code", {}, typed), " to go on"), input);
}
