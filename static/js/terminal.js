// xterm.js as a screen that is only read. What it shows comes from a process that nobody vouches for: nothing that the
// output asks for is done (links, clipboard, titles, replies), it is only drawn.

import { FitAddon } from "../vendor/xterm/addon-fit.mjs";
import { SearchAddon } from "../vendor/xterm/addon-search.mjs";
import { Terminal as Xterm } from "../vendor/xterm/xterm.mjs";
import { keepStylesOutOfTheMarkup } from "./terminal-styles.js";

const SCROLLBACK_LINES = 10000;
const PENDING_LIMIT = 4 << 20; // characters that wait to be drawn; beyond that, output is left out and said so
const MARK = "\x1b[0;33m";
const ECHO = "\x1b[0;36m";
const PLAIN = "\x1b[0m";
const DECORATIONS = {
  matchBackground: "#5b4a12",
  matchOverviewRuler: "#d9a400",
  activeMatchBackground: "#a06a00",
  activeMatchColorOverviewRuler: "#ffd45e",
};

const THEME = {
  background: "#12161c",
  foreground: "#dde3ea",
  cursor: "#12161c",
  cursorAccent: "#12161c",
  selectionBackground: "#35507a",
  black: "#1c222b",
  red: "#f0787a",
  green: "#7cc78b",
  yellow: "#e3b964",
  blue: "#7aa7f0",
  magenta: "#c792ea",
  cyan: "#6fc3d0",
  white: "#dde3ea",
  brightBlack: "#7b8796",
  brightRed: "#ff9a9b",
  brightGreen: "#9be0a8",
  brightYellow: "#f5d186",
  brightBlue: "#9cc0ff",
  brightMagenta: "#dcb1f7",
  brightCyan: "#93dde8",
  brightWhite: "#ffffff",
};

const SCROLLS = {
  PageUp: (screen) => screen.scrollPages(-1),
  PageDown: (screen) => screen.scrollPages(1),
  Home: (screen) => screen.scrollToTop(),
  End: (screen) => screen.scrollToBottom(),
  ArrowUp: (screen) => screen.scrollLines(-1),
  ArrowDown: (screen) => screen.scrollLines(1),
};

export class Terminal {
  #screen;
  #fit = new FitAddon();
  #search = new SearchAddon({ highlightLimit: 1000 });
  #observer;
  #pending = 0;
  #isEmpty = true;

  // `onScroll(isAtEnd)`; `onFound({index, count})`, with an index of -1 where nothing is chosen.
  constructor(container, { onScroll, onFound }) {
    keepStylesOutOfTheMarkup();
    const screen = new Xterm({
      allowProposedApi: true, // the search marks its finds with decorations, which are one
      convertEol: true,
      cursorBlink: false,
      cursorInactiveStyle: "none",
      disableStdin: true,
      fontFamily: "ui-monospace, 'Cascadia Mono', 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace",
      fontSize: 13,
      lineHeight: 1.25,
      linkHandler: { activate() {}, allowNonHttpProtocols: false },
      minimumContrastRatio: 4.5,
      screenReaderMode: true,
      scrollback: SCROLLBACK_LINES,
      theme: THEME,
    });
    this.#screen = screen;
    screen.loadAddon(this.#fit);
    screen.loadAddon(this.#search);
    screen.open(container);
    container.querySelector(".live-region")?.setAttribute("aria-live", "polite"); // a server that talks does not interrupt
    screen.attachCustomKeyEventHandler((event) => this.#key(event));
    screen.textarea.setAttribute("aria-label", "Console output; the arrow and page keys scroll");
    const tellScroll = () => onScroll(screen.buffer.active.viewportY >= screen.buffer.active.baseY);
    screen.onScroll(tellScroll);
    screen.onRender(tellScroll);
    this.#search.onDidChangeResults(({ resultIndex, resultCount }) => onFound({ index: resultIndex, count: resultCount }));
    this.#observer = new ResizeObserver(() => this.#fit.fit());
    this.#observer.observe(container);
  }

  // Whole lines, without the last line end. False where they were left out since too much waits already.
  write(lines) {
    if (this.#pending + lines.length > PENDING_LIMIT) return false;
    this.#put(lines);
    return true;
  }

  get hasRoom() {
    return this.#pending < PENDING_LIMIT / 4;
  }

  // A line of the page's own among the output.
  mark(sentence) {
    this.#put(`${MARK}── ${sentence} ──${PLAIN}`);
  }

  echo(command) {
    this.#put(`${ECHO}› ${command}${PLAIN}`);
  }

  clear() {
    this.#screen.reset();
    this.#isEmpty = true;
  }

  toEnd() {
    this.#screen.scrollToBottom();
  }

  findLatest(text) {
    this.#screen.clearSelection(); // the search goes on from what is selected, or else from the end
    this.find(text, -1);
  }

  // `direction` below zero goes to what is older.
  find(text, direction) {
    if (!text) this.#search.clearDecorations();
    else if (direction < 0) this.#search.findPrevious(text, { decorations: DECORATIONS });
    else this.#search.findNext(text, { decorations: DECORATIONS });
  }

  endSearch() {
    this.#search.clearDecorations();
    this.#screen.clearSelection();
  }

  destroy() {
    this.#observer.disconnect();
    this.#screen.dispose();
  }

  // The line end goes before each line but the first, so that the last line stands at the bottom.
  #put(text) {
    const data = this.#isEmpty ? text : `\n${text}`;
    this.#isEmpty = false;
    this.#pending += data.length;
    this.#screen.write(data, () => {
      this.#pending -= data.length;
    });
  }

  // Keys scroll, or belong to the browser (Tab must leave, Ctrl+C must copy).
  #key(event) {
    const scroll = SCROLLS[event.key];
    if (event.type === "keydown" && scroll && !event.ctrlKey && !event.altKey && !event.metaKey) {
      scroll(this.#screen);
      event.preventDefault();
    }
    return false;
  }
}
