// What stays around the views: the bar on top, with the ways to the views, how the link to the control plane is, and who
// is signed in.

import { h, icon, setAttribute, setText } from "./dom.js";
import { moment } from "./format.js";

export class Shell {
  #links;
  #isLive = false;
  #heardAt = null; // when what is shown was current for the last time

  // `views` is views.js's list: those with a `bar` get a link.
  constructor({ views, onSignOut }) {
    this.#links = views
      .filter(({ bar }) => bar !== undefined)
      .map((view) => ({ view, link: h("a", { href: `#${view.paths[0]}` }, view.bar) }));
    this.link = h("span", { class: "link-state", role: "status" });
    this.who = h("span", { class: "who" });
    this.heard = h("span", {});
    this.old = h(
      "div",
      { class: "old-note tone-warn", hidden: true },
      icon("warning"),
      h("p", {}, h("strong", {}, "Not connected to the control plane."), " ", this.heard, " It is asked again by itself."),
    );
    this.main = h("main", { id: "main", tabindex: "-1" });
    this.element = h(
      "div",
      { class: "shell" },
      h(
        "header",
        { class: "bar" },
        h("span", { class: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), h("span", { class: "brand-name" }, "controlplane")),
        h("nav", { class: "bar-nav", "aria-label": "Main" }, this.#links.map(({ link }) => link)),
        h("div", { class: "bar-end" }, this.link, this.who, h("button", { type: "button", class: "quiet small", onclick: onSignOut }, "Sign out")),
      ),
      this.old,
      this.main,
    );
    this.awaitLink();
  }

  // Somebody signed in: nothing was heard yet, and nothing has failed.
  awaitLink() {
    this.#isLive = false;
    this.#heardAt = null;
    this.#drawLink("Connecting …", "busy", false);
  }

  // True while what is shown is not to be taken for current.
  get isOld() {
    return !this.old.hidden;
  }

  showPlace(shown) {
    for (const { view, link } of this.#links) setAttribute(link, "aria-current", view === shown ? "page" : null);
  }

  // A link that is lost for a moment moves nothing on the page; one that did not come back, or cannot, is said at length.
  showLink(isLive) {
    const isOld = !isLive && (!this.#isLive || !navigator.onLine);
    if (isLive || this.#isLive) this.#heardAt = new Date();
    this.#isLive = isLive;
    if (isLive) this.#drawLink("Live", "ok", false);
    else this.#drawLink("Not live", "warn", isOld);
  }

  #drawLink(word, tone, isOld) {
    setText(this.link, word);
    setAttribute(this.link, "class", `link-state tone-${tone}`);
    setText(this.heard, this.#heardAt === null ? "Nothing was heard from it yet." : `What is shown may have changed since ${moment(this.#heardAt)}.`);
    this.old.hidden = !isOld;
    this.element.classList.toggle("is-old", isOld);
  }

  showUser(user) {
    setText(this.who, user.role === "admin" ? `${user.email} (administrator)` : user.email);
  }
}
