// What a state is called. Pure: a document of the API in, words out. Nothing here is told by colour alone.

// `tone` is one of ok, busy, warn, bad, idle. `reason` is a sentence, `next` what one can do about it (or "").
export function summary(instance) {
  const { state } = instance;
  if (state.operation?.kind === "delete") return say("busy", "Being deleted", "It is stopped and removed with its files.");
  if (state.suspension !== null) {
    return say("bad", "Suspended", state.suspension.reason, "Ask the operator what is needed to lift it.");
  }
  if (state.connection === "connecting") {
    return say("busy", "Connecting", "It was not heard from yet.", "The first answer usually takes a few seconds.");
  }
  if (state.connection === "disconnected") return unreachable(state);
  if (state.stale) {
    return say("warn", "Unconfirmed", unconfirmed(state), "It is asked again by itself.");
  }
  return settled(state);
}

function say(tone, word, reason, next = "") {
  return { tone, word, reason, next };
}

function unreachable(state) {
  const last = state.process === "unknown" ? "" : ` When it was last heard from, its process was ${state.process}.`;
  return say(
    "bad",
    "Unreachable",
    `${REASONS[state.health.reason] ?? state.health.message}${last}`,
    "Its container may be off, or the network to it down. It is asked again by itself.",
  );
}

function unconfirmed(state) {
  if (state.health.healthy) return `This is what was last seen (${state.process}); nothing newer is known.`;
  return `${REASONS[state.health.reason] ?? state.health.message} What is shown was seen before.`;
}

const BUSY = { starting: "Starting", installing: "Installing", stopping: "Stopping" };

function settled(state) {
  const { message } = state.health;
  if (state.ready) return say("ok", "Ready", "It can be used.");
  if (state.process in BUSY) return say("busy", BUSY[state.process], message);
  if (state.process === "stopped") return say("idle", "Stopped", "Its process was stopped.", "Start it to use it.");
  if (state.process === "crashed") {
    return say("bad", "Crashed", message, "Look at the end of its console, then start it again.");
  }
  if (state.process === "running") return say("warn", "Not ready", message, "It may need a moment; its console says more.");
  return say("warn", "Unknown", message);
}

const REASONS = {
  agent_unreachable: "Its agent cannot be reached.",
  agent_timeout: "Its agent does not answer in time.",
  agent_refused: "Its agent refuses to answer.",
  agent_protocol_error: "Its agent answers something that cannot be understood.",
};

export const KINDS = { game: "Game server", dev: "Dev container" };

const AXES = {
  connected: "Connected",
  connecting: "Connecting",
  disconnected: "Disconnected",
  ready: "Ready",
  not_ready: "Not ready",
  starting: "Starting",
  unknown: "Unknown",
  installing: "Installing",
  running: "Running",
  stopping: "Stopping",
  stopped: "Stopped",
  crashed: "Crashed",
};

export function axis(value) {
  return AXES[value] ?? value;
}

// What one may ask of it now. Where little is known, everything may be tried.
export function powerActions(instance) {
  const { state } = instance;
  if (state.suspension !== null || state.operation !== null) return { start: false, stop: false, restart: false };
  if (state.stale || state.process === "unknown") return { start: true, stop: true, restart: true };
  const isUp = ["running", "starting", "installing"].includes(state.process);
  const isDown = ["stopped", "crashed"].includes(state.process);
  return { start: isDown, stop: isUp, restart: isUp };
}

const CLOSINGS = {
  1012: "The control plane restarts.",
  1013: "The agent's console cannot be reached.",
  4401: "The console did not accept the session.",
  4403: "You may not view this console.",
  4408: "This connection was too slow for the console's output.",
  4409: "The instance is suspended.",
  4429: "Too many consoles are open, or too much was sent.",
};

export function closing(code) {
  return CLOSINGS[code] ?? "The connection to the console was lost.";
}

const REFUSALS = {
  validation_failed: "That command is empty or too long (4096 characters at most).",
  not_one_line: "A command is one line without control characters.",
  rate_limited: "That was too fast: wait a moment before the next command.",
  overloaded: "The control plane is busy: try again in a moment.",
  not_connected: "Not sent: this page is not connected to the console.",
  agent_unavailable: "Not sent: the agent's console is not connected.",
  unanswered: "No answer came: it is not known whether the command was sent.",
};

export function refusal(code) {
  return REFUSALS[code] ?? `The command was not accepted (${code}).`;
}

export function upstreamTrouble(reason) {
  if (reason === "connecting") return "Connecting to the agent's console";
  if (reason === "console_closed") return "The agent closed its console";
  if (reason === "agent_timeout") return "The agent's console does not answer";
  return "The agent's console cannot be reached";
}

const GAPS = {
  too_slow: "this connection was too slow",
  expired: "it was too long ago",
  stream_changed: "the console began anew",
  too_much: "there was more than this page can show",
  missing: "it never arrived",
};

export function gap({ from, to, reason }) {
  const why = GAPS[reason] ?? reason;
  if (to === null) return `Output is missing here: ${why}`;
  const count = to - from + 1;
  return `${count === 1 ? "1 message" : `${count} messages`} of output missing here: ${why}`;
}
