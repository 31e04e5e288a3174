// A state as a chip: a shape, a word, and only then a colour.

import { h, setAttribute, setText } from "./dom.js";

const SHAPES = { ok: "●", busy: "◐", warn: "▲", bad: "■", idle: "○" };

export class Chip {
  constructor() {
    this.shape = h("span", { class: "chip-shape", "aria-hidden": "true" });
    this.word = h("span", {});
    this.element = h("span", { class: "chip" }, this.shape, this.word);
  }

  update({ tone, word }) {
    setAttribute(this.element, "class", `chip tone-${tone}`);
    setText(this.shape, SHAPES[tone]);
    setText(this.word, word);
  }
}
