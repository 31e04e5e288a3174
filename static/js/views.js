// Every view of the page. A new one is a file of its own and a line here.
//
// `paths` are addresses after the "#"; ":word" takes one segment. `make(context)` gets what main.js builds (api, events,
// session, store, uploads) and `parameters`, the words of the path; it returns
//   element, title      what is shown, with an <h1 tabindex="-1"> that takes the focus, or an input with `data-focus`
//   destroy()           ends timers and listeners
//   take(parameters)    optional: true where it could follow to another address of its own without being made anew
// `bar` puts a link with that label into the bar; `isForGuests` means for those who are not signed in.

import { billingView } from "./billing.js";
import { fleetView } from "./fleet.js";
import { instanceView } from "./instance.js";
import { forgottenView, signInView } from "./sign-in.js";

export const VIEWS = [
  { paths: ["/"], make: fleetView, bar: "Fleet" },
  { paths: ["/instances/:id", "/instances/:id/:panel"], make: instanceView },
  { paths: ["/billing", "/billing/:outcome"], make: billingView, bar: "Billing" },
  { paths: ["/sign-in"], make: signInView, isForGuests: true },
  { paths: ["/forgotten"], make: forgottenView, isForGuests: true },
];
