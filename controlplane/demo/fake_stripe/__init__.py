"""A stateful stand-in for Stripe: a separate process for the demo and the tests, where there is no account to talk to.

It speaks the wire format of the pinned API version for the calls that the control plane makes (and for the few that set
the scene): form-encoded requests, Stripe's ids, errors, idempotency, pagination, expansion, signed webhooks. Money is
pretended and time can be moved. It shares no code with the control plane's gateway, so that the two cannot share a
mistake; its requests and answers are compared with Stripe's own description in `tests/contract`.

    python -m controlplane.demo.fake_stripe --port 0 --price price_small=900:eur:month:Small

| file | idea |
|---|---|
| wire, parameters, faults | requests in, refusals out |
| world, calendar | objects, events, what is due when, how long a month is |
| customers, catalog, checkout, portal, invoices, previews, schedules | Stripe's objects |
| subscriptions, subscription_records, changes, prorations, pending | what is rented, and how it changes |
| lifecycle, payments, cards, clock | what time does, and what cards answer |
| routes, api, expansion, listing, idempotency | the `/v1` surface |
| webhooks | signed, at least once, and as unordered as it is told |
| control, mischief | what tests do to it, under `/_control/` |
| pages | where the demo's person pays |
| saved | the account in a file, from one start of the demo to the next |
"""
