// What stays around the views: the bar on top, with the ways to the views, how the link to the control plane is, and who
// is signed in.

import { h, setAttribute, setText } from "./dom.js";

export class Shell {
  #links;

  // `views` is views.js's list: those with a `bar` get a link.
  constructor({ views, onSignOut }) {
    this.#links = views
      .filter(({ bar }) => bar !== undefined)
      .map((view) => ({ view, link: h("a", { href: `#${view.paths[0]}` }, view.bar) }));
    this.link = h("span", { class: "link-state", role: "status" });
    this.who = h("span", { class: "who" });
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
      this.main,
    );
    this.showLink(false);
  }

  showPlace(shown) {
    for (const { view, link } of this.#links) setAttribute(link, "aria-current", view === shown ? "page" : null);
  }

  showLink(isLive) {
    setText(this.link, isLive ? "Live" : "Reconnecting …");
    setAttribute(this.link, "class", `link-state ${isLive ? "tone-ok" : "tone-warn"}`);
  }

  showUser(user) {
    setText(this.who, user.role === "admin" ? `${user.email} (administrator)` : user.email);
  }
}
