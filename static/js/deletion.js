// The end of an instance: asked for twice, since nothing brings it back.

import { instancePath } from "./api.js";
import { ask } from "./dialog.js";
import { h } from "./dom.js";
import { complain, notify } from "./notices.js";

const HOME = "#/";

export function deleteButton(id, { api, store }) {
  return h("button", { type: "button", class: "quiet danger-text", onclick: remove }, "Delete");

  async function remove() {
    const instance = store.get(id);
    if (instance === null) return;
    const answer = await ask({
      title: `Delete ${instance.name}?`,
      body: ["It is stopped and removed with all its files and backups. This cannot be undone."],
      confirm: "Delete it for good",
      tone: "danger",
      typed: instance.name,
    });
    if (answer === null) return;
    try {
      await api.delete(instancePath(instance));
      notify(`${instance.name} is being deleted.`);
      location.hash = HOME;
    } catch (error) {
      complain(error, `${instance.name} cannot be deleted.`);
    }
  }
}
