// Elements without HTML strings: text goes in as text, so nothing that a server says can become markup.

const SVG = "http://www.w3.org/2000/svg";

// Keys that begin with "on" are listeners; true sets an empty attribute; false, null and undefined leave it out.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const ICONS = {
  play: "M8 5.500v13l11-6.500z",
  stop: "M7 7h10v10H7z",
  restart: "M19 12a7 7 0 1 1-2.100-5M19 4v4h-4",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500 20 20",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  left: "M15 6l-6 6 6 6",
  right: "M9 6l6 6-6 6",
  close: "M6 6l12 12M18 6 6 18",
  clock: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 8v4.500l3 2",
  erase: "M5 19h14M8 15l7-9 4 3-5 6z",
  upload: "M12 16V5M7 10l5-5 5 5M5 19h14",
  archive: "M4 5h16v4H4zM6 9v10h12V9M10 13h4",
  warning: "M12 4 3 19h18zM12 10v4M12 16.500v.1",
  check: "M5 12.500l4.500 4.500L19 7.500",
  game: "M4 6h16v5H4zM4 13h16v5H4zM8 8.500h.1M8 15.500h.1",
  dev: "M9 8l-4 4 4 4M15 8l4 4-4 4",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

// Touches the document only where the text differs, so that selections and screen readers are left alone.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A button that is switched off by `disabled` drops the focus; this one only says so, and main.js lets no click through.
export function setEnabled(button, isEnabled) {
  setAttribute(button, "aria-disabled", isEnabled ? null : "true");
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}
