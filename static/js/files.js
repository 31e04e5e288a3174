// Files of one instance: choosing what to upload and where to, and how far it has come.

import { h, icon, setAttribute, setText } from "./dom.js";
import { bytes, duration } from "./format.js";
import { complain, explanation } from "./notices.js";

class Item {
  constructor(item, uploads) {
    this.item = item;
    this.state = h("span", { class: "quiet-text" });
    this.bar = h("progress", { max: 1, "aria-label": `Upload of ${item.path}` });
    this.again = h("button", { type: "button", class: "small", "aria-label": `Try again to upload ${item.path}`, onclick: () => this.#tryAgain(uploads) }, "Try again");
    this.button = h("button", { type: "button", class: "quiet small", onclick: () => this.#press(uploads) });
    this.error = h("div", {});
    this.shownError = null;
    this.element = h(
      "li",
      { class: "upload" },
      h("div", { class: "upload-text" }, h("strong", {}, item.path), this.state),
      h("div", { class: "upload-buttons" }, this.again, this.button),
      this.bar,
      this.error,
    );
    this.update();
  }

  #press(uploads) {
    if (this.#isOver) uploads.dismiss(this.item);
    else uploads.cancel(this.item);
  }

  #tryAgain(uploads) {
    uploads.tryAgain(this.item);
    this.button.focus(); // what was pressed is hidden now
  }

  get #isOver() {
    return !["waiting", "sending"].includes(this.item.phase);
  }

  update() {
    const { item } = this;
    setText(this.state, describe(item));
    setText(this.button, this.#isOver ? "Dismiss" : "Cancel");
    setAttribute(this.button, "aria-label", `${this.#isOver ? "Dismiss" : "Cancel the upload of"} ${item.path}`);
    this.again.hidden = item.phase !== "failed";
    this.bar.hidden = this.#isOver;
    if (item.phase === "sending") this.bar.value = item.file.size ? item.sent / item.file.size : 1;
    setAttribute(this.element, "class", `upload upload-${item.phase}`);
    if (item.error === this.shownError) return;
    this.shownError = item.error;
    this.error.replaceChildren(...(item.error ? [h("p", { class: "strong" }, item.error.message), explanation(item.error)] : []));
  }
}

function describe({ phase, file, sent, rate }) {
  if (phase === "waiting") return `${bytes(file.size)} · waiting`;
  if (phase === "done") return `${bytes(file.size)} · uploaded`;
  if (phase === "cancelled") return "Stopped; nothing was kept";
  if (phase === "failed") return "Not uploaded";
  if (sent >= file.size) return `${bytes(file.size)} · the agent puts it in place`;
  const left = rate ? ` · ${bytes(rate)}/s · ${duration(((file.size - sent) / rate) * 1000)} left` : "";
  return `${bytes(sent)} of ${bytes(file.size)}${left}`;
}

function isFolder(item) {
  return item.webkitGetAsEntry?.()?.isDirectory ?? false;
}

export function filesPanel({ instance, uploads }) {
  const folder = h("input", { name: "folder", placeholder: "The top folder", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
  const chooser = h("input", {
    type: "file",
    multiple: true,
    class: "visually-hidden",
    id: "upload-chooser",
    onchange: () => {
      take(chooser.files);
      chooser.value = "";
    },
  });
  const drop = h(
    "div",
    { class: "drop", ondragover: over, ondragleave: left, ondrop: dropped },
    icon("upload"),
    h("p", {}, h("label", { for: "upload-chooser", class: "button primary" }, "Choose files"), chooser, h("span", { class: "drop-hint" }, " or drop them here")),
  );
  const list = h("ul", { class: "upload-list", "aria-label": "Uploads" });
  const element = h(
    "section",
    { class: "panel", "aria-label": "Files" },
    h("div", { class: "panel-head" }, h("div", {}, h("h2", {}, "Upload files"), h("p", { class: "quiet-text" }, "A file of the same name is replaced, once the new one is there in full."))),
    h("label", { class: "field" }, h("span", {}, "Folder on the server"), folder),
    drop,
    list,
  );
  const items = new Map();

  // Whatever is dropped here is taken, also what is no file: `dropped` says so then.
  function over(event) {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    drop.classList.toggle("is-over", event.dataTransfer.types.includes("Files"));
  }

  function left(event) {
    if (!drop.contains(event.relatedTarget)) drop.classList.remove("is-over");
  }

  function dropped(event) {
    event.preventDefault();
    drop.classList.remove("is-over");
    const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
    const folders = items.filter(isFolder).map((item) => item.getAsFile()?.name ?? "A folder");
    if (folders.length) complain(new Error("Folders are not sent: drop the files that are in them."), `${folders.join(", ")}:`);
    if (!items.length) complain(new Error("Nothing was uploaded: what was dropped is no file."));
    take(items.filter((item) => !isFolder(item)).map((item) => item.getAsFile()));
  }

  function take(files) {
    const base = folder.value.trim().replace(/^\/+|\/+$/g, "");
    for (const file of files) uploads.add(instance, file, base ? `${base}/${file.name}` : file.name);
  }

  function draw() {
    const present = uploads.of(instance.id);
    for (const [item, view] of items) {
      if (present.includes(item)) continue;
      const hadFocus = view.element.contains(document.activeElement);
      view.element.remove();
      items.delete(item);
      if (hadFocus) (list.querySelector("button") ?? chooser).focus();
    }
    for (const item of present) {
      if (items.has(item)) {
        items.get(item).update();
        continue;
      }
      const view = new Item(item, uploads);
      items.set(item, view);
      list.prepend(view.element);
    }
  }

  const stops = [uploads.onChange(draw), uploads.watch(instance.id)];
  draw();
  return { element, destroy: () => stops.forEach((stop) => stop()) };
}
