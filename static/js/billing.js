// The plan: what one has, what will change, what other plans there are and what a change would cost.
// Paying itself is done on pages of the payment provider, to which this one leads.

import { randomKey } from "./api.js";
import { ask } from "./dialog.js";
import { h, icon, setEnabled } from "./dom.js";
import { plural, shortMoment } from "./format.js";
import { complain, errorPanel, notify } from "./notices.js";

const STATUS = {
  trialing: ["ok", "Trial"],
  active: ["ok", "Active"],
  past_due: ["bad", "Payment failed"],
  unpaid: ["bad", "Unpaid"],
  paused: ["warn", "Paused"],
  canceled: ["idle", "Ended"],
  incomplete: ["warn", "Not paid yet"],
  incomplete_expired: ["idle", "Never paid"],
};

export function price({ amount, currency }, interval) {
  const style = { style: "currency", currency: currency.toUpperCase() };
  const format = new Intl.NumberFormat(undefined, style);
  const text = format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
  return interval ? `${text} a ${interval}` : text;
}

// One order, however often the network makes us send it.
function orderKey() {
  return { "Idempotency-Key": randomKey() };
}

export function billingView({ api, events, parameters }) {
  const body = h("div", { class: "billing", "aria-busy": "true" });
  const element = h(
    "div",
    { class: "page" },
    h("header", { class: "page-head" }, h("h1", { tabindex: "-1" }, "Billing")),
    body,
  );
  const ending = new AbortController();
  let state = null;
  let plans = [];
  let interval = "month";
  let isBusy = false;
  let isDrawn = false;
  let actions = []; // the buttons that are shown
  let listed = null; // the invoices, once somebody wanted to see them
  let asked = 0; // how often, and up to which time there is an answer
  let answered = 0;

  async function load() {
    const { signal } = ending;
    const number = ++asked;
    try {
      const [read, offered, paid] = await Promise.all([
        api.get("/api/billing", { signal }),
        api.get("/api/billing/plans", { signal }),
        listed === null ? null : readInvoices(signal),
      ]);
      if (number !== asked) return; // it may be older than what a later one says
      answered = number;
      const before = JSON.stringify([state, plans, listed]);
      state = read;
      plans = offered.items;
      listed = paid ?? listed;
      if (isDrawn && JSON.stringify([state, plans, listed]) === before) return; // a button that is being pressed stays
      draw();
    } catch (error) {
      if (error.name === "AbortError" || number !== asked) return;
      answered = number;
      isDrawn = false;
      body.removeAttribute("aria-busy");
      const isOff = error.code === "billing_disabled";
      body.replaceChildren(isOff ? h("p", { class: "empty" }, "Nothing is billed here.") : errorPanel("Billing cannot be shown.", error, load));
    }
  }

  function draw() {
    actions = [];
    isDrawn = true;
    body.removeAttribute("aria-busy");
    if (state.exempt) {
      body.replaceChildren(h("p", { class: "empty" }, state.message));
      return;
    }
    body.replaceChildren(
      ...[unpaidBanner(state), present(), h("h2", {}, "Plans"), intervals(), offers(), h("h2", {}, "Invoices"), invoices()].filter(Boolean),
    );
  }

  // -- what one has ------------------------------------------------------------------------------------------------

  function present() {
    const hasPlan = state.status !== null;
    const [tone, words] = STATUS[state.status] ?? ["warn", state.status];
    return h(
      "section",
      { class: "card billing-present", "aria-label": "Your plan" },
      h(
        "div",
        { class: "billing-line" },
        h("h2", {}, state.plan?.name ?? "No plan"),
        hasPlan ? h("span", { class: `chip tone-${tone}` }, words) : null,
      ),
      h("p", { class: "quiet-text" }, hasPlan ? sentence() : "Choose a plan below to begin."),
      change(),
      hasPlan && state.status !== "canceled" ? buttons() : null,
    );
  }

  function sentence() {
    const cost = state.price ? price(state.price, state.interval) : "";
    if (state.status === "canceled") return "This plan has ended. Choose one below to come back.";
    if (state.status === "trialing") return `Free until ${shortMoment(state.trialEnd)}, then ${cost}.`;
    if (state.status === "past_due" && state.access === "grace") return `Everything keeps running until ${shortMoment(state.suspensionAt)}.`;
    if (state.access === "none") return "Your servers are stopped; their data is kept.";
    return state.cancelAtPeriodEnd ? cost : `${cost}, next on ${shortMoment(state.periodEnd)}.`;
  }

  function change() {
    const pending = state.pendingChange;
    if (pending === null) return null;
    const name = plans.find((plan) => plan.id === pending.planId)?.name ?? "another plan";
    const at = shortMoment(pending.at);
    const words = {
      end: `Ends on ${at}.`,
      downgrade: `Changes to ${name} on ${at}.`,
      upgrade_awaits_payment: `${name} begins once it is paid; the offer lapses on ${at}.`,
    }[pending.kind];
    const undo = pending.kind === "upgrade_awaits_payment" ? null : action("Take it back", () => order("resume", undefined, "Your plan goes on."));
    return h("p", { class: "billing-change" }, icon("clock"), h("span", {}, words), undo);
  }

  function buttons() {
    const canEnd = !state.cancelAtPeriodEnd;
    return h(
      "div",
      { class: "billing-buttons" },
      action("Cards and invoices", portal),
      canEnd ? action("Cancel plan", cancel, "quiet") : null,
    );
  }

  // -- what one could have -----------------------------------------------------------------------------------------

  function intervals() {
    const choices = [["month", "Monthly"], ["year", "Yearly"]];
    const pills = choices.map(([value, label]) =>
      h("button", { type: "button", class: "pill", "aria-pressed": String(value === interval), onclick: () => choose(value) }, label),
    );
    return h("div", { class: "pills", role: "group", "aria-label": "Paid" }, pills);
  }

  function choose(value) {
    interval = value;
    draw();
    body.querySelector(`.pill[aria-pressed="true"]`)?.focus();
  }

  function offers() {
    return h("ul", { class: "billing-plans" }, plans.filter((plan) => interval in plan.prices).map(offer));
  }

  function offer(plan) {
    const isPresent = plan.id === state.plan?.id && interval === state.interval && state.status !== "canceled";
    const cost = plan.prices[interval];
    const may = plan.entitlements;
    const facts = [
      may.gameServers ? plural(may.gameServers, "game server", "game servers") : null,
      may.devContainers ? plural(may.devContainers, "dev container", "dev containers") : null,
      `${may.memoryMib / 1024} GiB of memory each`,
      plural(may.backups, "backup each", "backups each"),
      may.ide ? "IDE in the browser" : null,
    ];
    return h(
      "li",
      { class: "card billing-plan" },
      h("h3", {}, plan.name),
      h("p", { class: "strong" }, cost ? price(cost, interval) : "Price not known now"),
      h("p", { class: "quiet-text" }, plan.description),
      h("ul", { class: "billing-facts" }, facts.filter(Boolean).map((fact) => h("li", {}, fact))),
      isPresent ? h("p", { class: "quiet-text" }, "Your plan") : action(`Choose ${plan.name}`, () => take(plan), "primary"),
    );
  }

  // -- orders ------------------------------------------------------------------------------------------------------

  function action(label, run, kind = "") {
    const button = h("button", { type: "button", class: kind, onclick: () => once(run) }, label);
    setEnabled(button, !isBusy);
    actions.push(button);
    return button;
  }

  async function once(run) {
    if (isBusy) return;
    isBusy = true;
    try {
      await run();
    } catch (error) {
      complain(error);
    } finally {
      isBusy = false;
      for (const button of actions) setEnabled(button, true); // they may have been drawn meanwhile
    }
  }

  async function take(plan) {
    const wanted = { planId: plan.id, interval };
    if (state.status === null || state.status === "canceled" || state.status === "incomplete_expired") {
      location.assign((await api.post("/api/billing/checkout", { body: wanted, headers: orderKey() })).url);
      return;
    }
    const preview = await api.get(`/api/billing/preview?planId=${encodeURIComponent(plan.id)}&interval=${interval}`);
    if (preview.change === "downgrade") await downgrade(plan, wanted, preview);
    else await upgrade(plan, wanted, preview);
  }

  async function upgrade(plan, wanted, preview) {
    const cost = price({ amount: preview.amountDue, currency: preview.currency });
    const lines = preview.lines.map((line) =>
      h("li", {}, h("span", {}, line.description), h("span", {}, price({ amount: line.amount, currency: preview.currency }))),
    );
    const sure = await ask({
      title: `Upgrade to ${plan.name}?`,
      body: [`It begins at once. You pay ${cost} now, for the rest of this period.`, h("ul", { class: "billing-preview" }, lines)],
      confirm: `Pay ${cost}`,
    });
    if (sure !== null) await order("upgrade", { ...wanted, proratedAt: preview.proratedAt }, `You have ${plan.name} now.`);
  }

  async function downgrade(plan, wanted, preview) {
    const sure = await ask({
      title: `Change to ${plan.name}?`,
      body: [
        `You keep what you have until ${shortMoment(state.periodEnd)}; ${plan.name} begins then. Nothing is charged now.`,
        "What you make until then has to fit into it already.",
        ...preview.consequences,
      ],
      confirm: `Change to ${plan.name}`,
    });
    if (sure !== null) await order("downgrade", wanted, `${plan.name} begins on ${shortMoment(state.periodEnd)}.`);
  }

  async function cancel() {
    const sure = await ask({
      title: "Cancel your plan?",
      body: [`Everything stays as it is until ${shortMoment(state.periodEnd)}. Then your servers are stopped.`],
      confirm: "Cancel plan",
      tone: "danger",
    });
    if (sure !== null) await order("cancel", undefined, "Your plan will end.");
  }

  async function order(name, wanted, done) {
    state = await api.post(`/api/billing/${name}`, { body: wanted, headers: orderKey() });
    isBusy = false;
    draw();
    element.querySelector("h1").focus();
    if (answered !== asked) load(); // that one may tell of how it was before
    notify(state.pendingChange?.kind === "upgrade_awaits_payment" ? "The payment did not go through: pay it to have the plan." : done);
  }

  async function portal() {
    location.assign((await api.post("/api/billing/portal")).url);
  }

  // -- invoices ----------------------------------------------------------------------------------------------------

  async function readInvoices(signal) {
    return (await api.get("/api/billing/invoices?limit=20", { signal })).items;
  }

  async function showInvoices() {
    listed = await readInvoices();
    if (isDrawn) draw();
  }

  function invoices() {
    if (listed === null) return h("div", {}, action("Show invoices", showInvoices));
    if (!listed.length) return h("p", { class: "quiet-text" }, "There are none yet.");
    const rows = listed.map((invoice) =>
      h(
        "li",
        {},
        h("span", {}, shortMoment(invoice.createdAt)),
        h("span", {}, price({ amount: invoice.amountDue, currency: invoice.currency })),
        h("span", { class: "quiet-text" }, invoice.status),
        invoice.url ? h("a", { href: invoice.url, rel: "noreferrer" }, `Invoice ${invoice.number ?? ""}`) : null,
      ),
    );
    return h("ul", { class: "billing-preview" }, rows);
  }

  const stops = ["billing", "snapshot"].map((name) => events.on(name, () => load()));
  if (parameters.outcome === "done") notify("Thank you. The plan appears here as soon as the payment has arrived.");
  load();
  return {
    element,
    title: "Billing",
    destroy() {
      ending.abort();
      for (const stop of stops) stop();
    },
  };
}

// What stands above everything while a payment is open; null while none is.
export function unpaidBanner({ status, payUrl, access, suspensionAt }) {
  if (!payUrl && status !== "past_due") return null;
  const until = access === "grace" && suspensionAt ? ` Your servers are stopped on ${shortMoment(suspensionAt)} unless it is paid.` : "";
  const link = payUrl ? h("a", { class: "button", href: payUrl, rel: "noreferrer" }, "Pay now") : h("a", { href: "#/billing" }, "Billing");
  return h(
    "div",
    { class: "panel-note tone-bad billing-banner", role: "alert" },
    icon("warning"),
    h("p", { class: "strong" }, `A payment did not go through.${until}`),
    link,
  );
}
