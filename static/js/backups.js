// The backups of one game server: the list, and making, restoring and deleting with their progress.

import { ApiError, instancePath, randomKey } from "./api.js";
import { ask } from "./dialog.js";
import { BackupRow } from "./backup-row.js";
import { h, icon, setEnabled, setText } from "./dom.js";
import { moment, plural, stopwatch } from "./format.js";
import { complain, errorPanel, notify } from "./notices.js";

const TICK = 1000;
const LOOK_AGAIN = 3000;

// What is under way, by instance, for as long as the page lives: it goes on while one looks elsewhere.
const underWay = new Map();
const watchers = new Set();

function begin(instance, what) {
  underWay.set(instance.id, { what, since: Date.now() });
  watchers.forEach((watch) => watch());
}

function end(instance) {
  underWay.delete(instance.id);
  watchers.forEach((watch) => watch());
}

export function backupsPanel({ instance, api, events }) {
  const path = `${instancePath(instance)}/backups`;
  const list = h("ul", { class: "backup-list" });
  const note = h("div", {});
  const progress = h("div", { class: "progress-note", hidden: true, role: "status" });
  const clock = h("span", { class: "stopwatch", "aria-hidden": "true" });
  const doing = h("span", {});
  progress.append(h("span", { class: "spinner", "aria-hidden": "true" }), doing, clock);
  const create = h("button", { type: "button", class: "primary", onclick: make }, icon("archive"), "Create a backup");
  const element = h(
    "section",
    { class: "panel", "aria-label": "Backups" },
    h("div", { class: "panel-head" }, h("div", {}, h("h2", {}, "Backups"), h("p", { class: "quiet-text" }, "Archives of the server's files, kept beside it by its agent.")), create),
    progress,
    note,
    list,
  );
  const empty = h("div", { class: "empty" });
  element.append(empty);
  const reading = new AbortController();
  const rows = new Map();
  let isBusy = underWay.has(instance.id);
  let backups = null;
  let again = 0;
  let asked = 0;

  async function load() {
    clearTimeout(again);
    const number = ++asked;
    if (backups === null) list.replaceChildren(...[1, 2].map(() => h("li", { class: "skeleton backup-skeleton" })));
    try {
      const answer = await api.get(`${path}?view=normalized`, { signal: reading.signal });
      if (number !== asked) return; // it may be older than what a later one says
      backups = answer.backups;
      note.replaceChildren(...unreadable(answer.unreadable));
      draw();
    } catch (error) {
      if (!(error instanceof ApiError) || number !== asked) return;
      if (backups === null) list.replaceChildren();
      note.replaceChildren(errorPanel("The backups could not be read.", error, load));
    }
  }

  function draw() {
    const busy = underWay.get(instance.id);
    setEnabled(create, busy === undefined);
    progress.hidden = busy === undefined;
    if (busy) setText(doing, busy.what);
    tick();
    if (backups === null) return;
    drawRows(busy !== undefined);
    empty.replaceChildren(...(backups.length ? [] : [h("h3", {}, "No backups yet"), h("p", {}, "Make one before you change something that you may want back.")]));
    clearTimeout(again);
    if (backups.some((backup) => backup.state === "creating")) again = setTimeout(load, LOOK_AGAIN);
  }

  function drawRows(isBusy) {
    const hadFocus = list.contains(document.activeElement);
    const fresh = backups.map((backup) => {
      const row = rows.get(backup.id) ?? new BackupRow(backup, { onRestore: restore, onDelete: remove });
      row.update(backup, isBusy);
      return row;
    });
    rows.clear();
    for (const row of fresh) rows.set(row.backup.id, row);
    const elements = fresh.map((row) => row.element);
    for (const element of [...list.children]) if (!elements.includes(element)) element.remove();
    for (const [index, element] of elements.entries()) {
      if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
    }
    if (hadFocus && !list.contains(document.activeElement)) create.focus();
  }

  async function make() {
    const field = h("label", { class: "field" }, h("span", {}, "Name"), h("input", { name: "name", maxlength: 100, placeholder: "Optional", autocomplete: "off", "data-focus": true }));
    const answer = await ask({
      title: "Create a backup",
      body: [`The files of ${instance.name} are read as they are. The server goes on meanwhile.`],
      confirm: "Create it",
      fields: [field],
    });
    if (answer === null) return;
    const name = answer.name.trim();
    await run("Making a backup", "The backup is made.", "The backup could not be made.", () =>
      api.post(path, { body: name ? { name } : {}, headers: { "Idempotency-Key": randomKey() } }),
    );
  }

  async function restore(backup) {
    const answer = await ask({
      title: `Restore “${backup.name}”?`,
      body: [
        `Every file of ${instance.name} is replaced by what was kept on ${moment(backup.createdAt)}. What was added or changed since then is gone for good.`,
        "The server is stopped for it, and started again if it was running.",
      ],
      confirm: "Replace the files",
      tone: "danger",
      typed: instance.name,
    });
    if (answer === null) return;
    await run(`Restoring “${backup.name}”`, `“${backup.name}” is restored.`, "The backup was not restored.", () =>
      api.post(`${path}/restore?id=${encodeURIComponent(backup.id)}`),
    );
  }

  async function remove(backup) {
    const answer = await ask({
      title: `Delete “${backup.name}”?`,
      body: [`The backup of ${moment(backup.createdAt)} is deleted for good. The server's files stay as they are.`],
      confirm: "Delete it",
      tone: "danger",
    });
    if (answer === null) return;
    await run(`Deleting “${backup.name}”`, `“${backup.name}” is deleted.`, "The backup was not deleted.", () =>
      api.delete(`${path}/${encodeURIComponent(backup.id)}`),
    );
  }

  async function run(doing, done, failed, call) {
    begin(instance, doing);
    try {
      await call();
      notify(done);
    } catch (error) {
      complain(error, failed);
    } finally {
      end(instance);
    }
  }

  // What began in this panel may end in its successor, which knows of it by this alone.
  function changed() {
    const hasEnded = isBusy && !underWay.has(instance.id);
    isBusy = underWay.has(instance.id);
    draw();
    if (hasEnded) load();
  }

  function tick() {
    const busy = underWay.get(instance.id);
    if (busy) setText(clock, stopwatch(Date.now() - busy.since));
  }

  const stopEvents = events.on("backup", ({ instanceId }) => {
    if (instanceId === instance.id && !underWay.has(instance.id)) load();
  });
  watchers.add(changed);
  const ticking = setInterval(tick, TICK);
  draw();
  load();
  return {
    element,
    destroy() {
      reading.abort();
      stopEvents();
      watchers.delete(changed);
      clearInterval(ticking);
      clearTimeout(again);
    },
  };
}

function unreadable(entries) {
  if (!entries.length) return [];
  const fields = [...new Set(entries.flatMap((entry) => entry.fields))].join(", ");
  return [
    h(
      "div",
      { class: "panel-note tone-warn" },
      icon("warning"),
      h("p", {}, `The agent listed ${plural(entries.length, "entry", "entries")} that could not be read in full (${fields}).`),
    ),
  ];
}
