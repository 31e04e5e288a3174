// Lets xterm.js live under `style-src 'self'`. It writes its theme into <style> elements and some colours into style
// attributes; a strict policy ignores both, and rightly so. What code that runs already may do is construct sheets and
// set properties, so these two do that with the same text. Nothing else on the page makes either.

class AdoptedStyle extends HTMLElement {
  #sheet = new CSSStyleSheet();

  connectedCallback() {
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.#sheet];
  }

  disconnectedCallback() {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }

  get textContent() {
    return "";
  }

  set textContent(css) {
    this.#sheet.replaceSync(css);
  }
}

export function keepStylesOutOfTheMarkup() {
  if (customElements.get("adopted-style")) return;
  customElements.define("adopted-style", AdoptedStyle);
  const { createElement } = Document.prototype;
  document.createElement = (name, options) =>
    createElement.call(document, name === "style" ? "adopted-style" : name, options);
  HTMLSpanElement.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else Element.prototype.setAttribute.call(this, name, value);
  };
}
