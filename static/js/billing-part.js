// Above the fleet: that a payment is open. Asks once, and again whenever the account changes.

import { unpaidBanner } from "./billing.js";
import { h } from "./dom.js";

export function billingPart({ api, events }) {
  const element = h("div", { hidden: true });
  const ending = new AbortController();

  async function load() {
    let banner = null;
    try {
      const state = await api.get("/api/billing", { signal: ending.signal });
      banner = state.exempt ? null : unpaidBanner(state);
    } catch {
      // Billing is off, or cannot be read now: the fleet is shown all the same.
    }
    element.hidden = banner === null;
    element.replaceChildren(...(banner === null ? [] : [banner]));
  }

  const stops = ["billing", "snapshot"].map((name) => events.on(name, () => load()));
  load();
  return {
    element,
    destroy() {
      ending.abort();
      for (const stop of stops) stop();
    },
  };
}
