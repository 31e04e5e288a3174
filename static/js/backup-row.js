// One backup in the list. It stays the same element while its backup changes, so that the focus stays where it is.

import { h, icon, setAttribute, setEnabled, setText } from "./dom.js";
import { bytes, moment } from "./format.js";

const WHOLE = new Set(["completed", "complete", "done", "ready", "ok", "finished"]);

export class BackupRow {
  constructor(backup, { onRestore, onDelete }) {
    this.backup = backup;
    this.name = h("h3", {});
    this.facts = h("p", { class: "quiet-text" });
    this.restore = h("button", { type: "button", onclick: () => onRestore(this.backup) }, "Restore");
    this.delete = h("button", { type: "button", class: "quiet danger-text", onclick: () => onDelete(this.backup) }, "Delete");
    this.element = h(
      "li",
      { class: "backup" },
      h("span", { class: "backup-icon" }, icon("archive")),
      h("div", { class: "backup-text" }, this.name, this.facts),
      h("div", { class: "backup-buttons" }, this.restore, this.delete),
    );
  }

  update(backup, isBusy) {
    this.backup = backup;
    const isWhole = backup.state === null || WHOLE.has(backup.state.toLowerCase());
    const facts = [
      moment(backup.createdAt),
      backup.sizeBytes === null ? null : bytes(backup.sizeBytes),
      backup.locked ? "locked" : null,
      isWhole ? null : backup.state,
    ];
    setText(this.name, backup.name);
    setText(this.facts, facts.filter(Boolean).join(" · "));
    setAttribute(this.restore, "aria-label", `Restore ${backup.name}`);
    setAttribute(this.delete, "aria-label", `Delete ${backup.name}`);
    setEnabled(this.restore, !isBusy && isWhole);
    setEnabled(this.delete, !isBusy && backup.locked !== true);
  }
}
