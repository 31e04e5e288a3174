// The console of one instance: output with scrollback and search, what is missing in it, and the command line.

import { CommandLine } from "./command-line.js";
import { ConsoleSocket } from "./console-socket.js";
import { h, icon, setText } from "./dom.js";
import { plural } from "./format.js";
import { announce } from "./notices.js";
import { Terminal } from "./terminal.js";
import { closing, gap, refusal, upstreamTrouble } from "./words.js";

const TICK = 1000;

export function consolePanel({ instance, session, store }) {
  const status = h("p", { class: "console-status" });
  const again = h("button", { type: "button", class: "quiet small", hidden: true, onclick: () => socket.connect() }, "Connect now");
  const toEnd = h("button", { type: "button", class: "to-end", hidden: true, onclick: () => terminal.toEnd() }, icon("down"), "Latest output");
  const found = h("span", { class: "found", role: "status" });
  const searchInput = h("input", {
    type: "search",
    "aria-label": "Search the output",
    placeholder: "Search the output",
    oninput: () => terminal.findLatest(searchInput.value),
    onkeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      terminal.find(searchInput.value, event.shiftKey ? 1 : -1);
    },
  });
  const searchBar = h(
    "div",
    { class: "console-search", role: "search", "aria-label": "The output", hidden: true },
    searchInput,
    found,
    tool("up", "Previous find", () => terminal.find(searchInput.value, -1)),
    tool("down", "Next find", () => terminal.find(searchInput.value, 1)),
    tool("close", "Close the search", () => showSearch(false)),
  );
  const searchToggle = tool("search", "Search the output (Ctrl+F)", () => showSearch(searchBar.hidden));
  const screen = h("div", { class: "screen" });
  const commands = new CommandLine(instance.id, send);
  const element = h(
    "section",
    { class: "console", "aria-label": "Console", onkeydown: keys },
    h("div", { class: "console-bar" }, status, again, h("div", { class: "console-tools" }, searchToggle, tool("erase", "Clear what is shown here", clear))),
    searchBar,
    h("div", { class: "screen-frame" }, screen, toEnd),
    commands.element,
  );

  const terminal = new Terminal(screen, {
    onScroll: (isAtEnd) => {
      toEnd.hidden = isAtEnd;
    },
    onFound: ({ index, count }) => {
      if (!searchInput.value) setText(found, "");
      else if (!count) setText(found, "Nothing found");
      else setText(found, index < 0 ? `${count} found` : `${index + 1} of ${count}`);
    },
  });

  let link = { phase: "connecting" };
  let upstream; // what is wrong with the agent's console, or null; not known before it was told
  let marked = null; // the close code that the output tells of: a try that was in vain is not told again
  let left = null;

  const socket = new ConsoleSocket(instance, session, {
    output: (lines, seq) => {
      if (left === null && terminal.write(lines)) return;
      left = { from: left?.from ?? seq, to: seq, reason: "too_much" };
    },
    gap: (missing) => terminal.mark(gap(missing)),
    began: () => terminal.clear(), // that it began anew is said by the gap that follows
    upstream: (state) => {
      upstream = state.connected ? null : { reason: state.reason, retryAt: Date.now() + (state.retryInSeconds ?? 0) * 1000 };
      draw();
    },
    link: (next) => {
      if (next.phase !== "open") upstream = undefined;
      if (next.phase === "open") marked = null;
      if (next.phase === "waiting" && next.code && next.code !== marked) {
        marked = next.code;
        terminal.mark(closing(next.code));
      }
      if (next.phase === "ended") terminal.mark(closing(next.code));
      if (next.phase === "open" && link.phase !== "open" && element.isConnected) announce("The console is live.");
      if (next.phase === "ended") announce(closing(next.code));
      link = next;
      draw();
    },
    error: (sentence) => terminal.mark(sentence),
  });

  function sayWhatWasLeftOut() {
    if (left === null || !terminal.hasRoom) return;
    terminal.mark(gap(left));
    left = null;
  }

  async function send(command) {
    terminal.echo(command);
    const code = await socket.command(command);
    if (code !== null) terminal.mark(refusal(code));
    terminal.toEnd();
    return code === null ? null : refusal(code);
  }

  function clear() {
    terminal.clear();
    commands.input.focus();
  }

  function showSearch(isShown) {
    searchBar.hidden = !isShown;
    if (isShown) {
      searchInput.focus();
      searchInput.select();
    } else {
      terminal.endSearch();
      setText(found, "");
      commands.input.focus();
    }
  }

  function keys(event) {
    if (event.key === "f" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      showSearch(true);
    } else if (event.key === "Escape" && !searchBar.hidden && searchBar.contains(event.target)) {
      showSearch(false);
    }
  }

  function draw() {
    const { tone, sentence } = describe(link, upstream);
    setText(status, sentence);
    status.className = `console-status tone-${tone}`;
    again.hidden = link.phase !== "waiting" && link.phase !== "ended";
  }

  // What was suspended, or belonged to somebody else, may be open again.
  const stop = store.onChange(({ before, after }) => {
    if (after?.id !== instance.id || link.phase !== "ended" || link.code !== 4409) return;
    if (before?.state.suspension && !after.state.suspension) socket.connect();
  });
  const ticking = setInterval(() => {
    sayWhatWasLeftOut();
    draw();
  }, TICK);
  draw();
  return {
    element,
    destroy() {
      stop();
      clearInterval(ticking);
      socket.destroy();
      terminal.destroy();
    },
  };
}

function tool(name, label, onclick) {
  return h("button", { type: "button", class: "quiet icon-only", "aria-label": label, title: label, onclick }, icon(name));
}

function describe(link, upstream) {
  if (link.phase === "connecting") return { tone: "busy", sentence: "Connecting …" };
  if (link.phase === "ended") return { tone: "bad", sentence: closing(link.code) };
  if (link.phase === "waiting") return { tone: "warn", sentence: `${closing(link.code)} ${retry(link.retryAt)}` };
  if (upstream === undefined) return { tone: "busy", sentence: "Connecting …" };
  if (upstream !== null) return { tone: "warn", sentence: `${upstreamTrouble(upstream.reason)}. ${retry(upstream.retryAt)}` };
  return { tone: "ok", sentence: "Live" };
}

function retry(at) {
  const seconds = Math.ceil((at - Date.now()) / 1000);
  return seconds > 0 ? `Trying again in ${plural(seconds, "second", "seconds")}.` : "Trying again …";
}
