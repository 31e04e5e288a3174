// Signing in, asking for a reset link, and setting a new password with one.

import { request } from "./api.js";
import { h } from "./dom.js";
import { errorPanel } from "./notices.js";

function card(title, ...children) {
  const heading = h("h1", { tabindex: "-1" }, title);
  return h(
    "main",
    { id: "main", class: "sign-in" },
    h("div", { class: "card" }, h("p", { class: "brand" }, h("img", { src: "/static/icon.svg", alt: "", width: 28, height: 28 }), "controlplane"), heading, ...children),
  );
}

function field(label, attributes) {
  return h("label", { class: "field" }, h("span", {}, label), h("input", { required: true, ...attributes }));
}

// A form whose button is busy while `send` runs, and which shows why it failed.
function form(fields, label, lead, send) {
  const problem = h("div", {});
  const button = h("button", { class: "primary wide", type: "submit" }, label);
  return h(
    "form",
    {
      class: "stack",
      onsubmit: async (event) => {
        event.preventDefault();
        const values = Object.fromEntries(new FormData(event.target));
        if (button.getAttribute("aria-busy") === "true") return;
        button.setAttribute("aria-busy", "true");
        problem.replaceChildren();
        try {
          await send(values);
        } catch (error) {
          problem.replaceChildren(errorPanel(lead, error));
          const password = event.target.querySelector("input[type=password]");
          password?.focus();
          password?.select();
        } finally {
          button.removeAttribute("aria-busy");
        }
      },
    },
    ...fields,
    problem,
    button,
  );
}

export function signInView({ session, sentence }) {
  const element = card(
    "Sign in",
    sentence ? h("p", { class: "panel-note", role: "status" }, sentence) : null,
    form(
      [
        field("E-mail address", { type: "email", name: "email", autocomplete: "username", "data-focus": true }),
        field("Password", { type: "password", name: "password", autocomplete: "current-password" }),
      ],
      "Sign in",
      "",
      ({ email, password }) => session.signIn(email, password),
    ),
    h("p", { class: "aside" }, h("a", { href: "#/forgotten" }, "Forgot the password?")),
  );
  return { element, title: "Sign in", destroy() {} };
}

// Asks for the mail with the link, and says in its own place that it is on its way.
function linkForm() {
  const element = form(
    [field("E-mail address", { type: "email", name: "email", autocomplete: "username", "data-focus": true })],
    "Send the link",
    "",
    async ({ email }) => {
      await request("POST", "/api/auth/password/forgot", { body: { email } });
      const said = h("p", { class: "panel-note", role: "status", tabindex: "-1" }, "If there is such an account, the mail is on its way.");
      element.replaceWith(said);
      said.focus();
    },
  );
  return element;
}

export function forgottenView() {
  const element = card(
    "Forgot the password?",
    h("p", {}, "A link to set a new one is sent to your address. It works once, and not for long."),
    linkForm(),
    h("p", { class: "aside" }, h("a", { href: "#/sign-in" }, "Back to sign in")),
  );
  return { element, title: "Forgot the password?", destroy() {} };
}

// `token` came in the link's fragment, which no server sees, and has left the address bar already.
export function resetView({ session, parameters: { token } }) {
  const place = h(
    "div",
    { class: "stack" },
    h("p", {}, "Every session of the account ends; sign in with the new password afterwards."),
    form(
      [field("New password", { type: "password", name: "password", autocomplete: "new-password", "data-focus": true })],
      "Set the password",
      "",
      async ({ password }) => {
        try {
          await request("POST", "/api/auth/password/reset", { body: { token, password } });
        } catch (error) {
          if (!isOfTheLink(error)) throw error;
          offerAnother();
          return;
        }
        session.end("The new password is set. Sign in with it.");
      },
    ),
  );

  function offerAnother() {
    const why = new Error("This link does not work: it was used, is too old, or is not whole.");
    const again = linkForm();
    place.replaceChildren(errorPanel("", why), h("p", {}, "A new link can be sent to your address."), again);
    again.querySelector("input").focus();
  }

  const element = card("Set a new password", place, h("p", { class: "aside" }, h("a", { href: "#/sign-in" }, "Back to sign in")));
  return { element, title: "Set a new password", destroy() {} };
}

// Another password would not help.
function isOfTheLink({ code, details }) {
  return code === "reset_invalid" || details?.fields?.token !== undefined;
}
