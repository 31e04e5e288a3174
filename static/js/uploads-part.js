// The uploads under way, for whoever went back to the fleet meanwhile.

import { h, icon, setText } from "./dom.js";
import { percent } from "./format.js";
import { instanceAddress } from "./router.js";

export function uploadsPart({ uploads }) {
  const where = h("a", {});
  const far = h("span", {});
  const element = h("p", { class: "panel-note tone-busy", hidden: true }, icon("upload"), h("span", {}, "Uploading to ", where, far));

  function draw() {
    const busy = uploads.busy;
    element.hidden = !busy.length;
    if (!busy.length) return;
    const { instance } = busy[0];
    const total = busy.reduce((sum, { file }) => sum + file.size, 0);
    const sent = busy.reduce((sum, item) => sum + item.sent, 0);
    const rest = busy.length > 1 ? ` (${busy.length} files to go)` : "";
    setText(where, instance.name);
    where.href = instanceAddress(instance.id, "files");
    setText(far, `: ${percent(total ? (100 * sent) / total : 100)}${rest}`);
  }

  const stop = uploads.onChange(draw);
  draw();
  return { element, destroy: stop };
}
