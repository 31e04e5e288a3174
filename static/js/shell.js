// What stays around the views: the bar on top, with how the link to the control plane is and who is signed in.

import { h, setAttribute, setText } from "./dom.js";

export class Shell {
  constructor({ onSignOut }) {
    this.link = h("span", { class: "link-state", role: "status" });
    this.who = h("span", { class: "who" });
    this.main = h("main", { id: "main", tabindex: "-1" });
    this.element = h(
      "div",
      { class: "shell" },
      h(
        "header",
        { class: "bar" },
        h("a", { class: "brand", href: "#/" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), "controlplane"),
        h("div", { class: "bar-end" }, this.link, this.who, h("button", { type: "button", class: "quiet small", onclick: onSignOut }, "Sign out")),
      ),
      this.main,
    );
    this.showLink(false);
  }

  showLink(isLive) {
    setText(this.link, isLive ? "Live" : "Reconnecting …");
    setAttribute(this.link, "class", `link-state ${isLive ? "tone-ok" : "tone-warn"}`);
  }

  showUser(user) {
    setText(this.who, user.role === "admin" ? `${user.email} (administrator)` : user.email);
  }
}
