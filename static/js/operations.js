// What is made and unmade at the moment: the operations of the account, kept up to date by events.

const KEPT = 20;
const REMEMBERED = 100; // more than end while one list is on its way

export const STEPS = {
  requested: "Reserving a place",
  reserved: "Checking the place",
  creating: "Making the machine",
  booting: "Starting it",
  agentConnected: "Recognising it",
  readyCheck: "Waiting until it is ready",
  persisting: "Handing it over",
  publishing: "Opening its routes",
  compensating: "Taking it back",
  canceling: "Canceling",
  unpublishing: "Closing its routes",
  stopping: "Stopping it",
  destroying: "Removing it",
  suspending: "Suspending it",
  starting: "Starting it",
  lifting: "Giving access again",
};

const ENDS = {
  succeeded: "is ready.",
  rolledBack: "could not be made.",
  rollbackFailed: "could not be made.",
  canceled: "was canceled.",
  deleted: "was deleted.",
  suspended: "was suspended.",
  unsuspended: "is no longer suspended.",
  failed: "could not be finished; the operator was told.",
  forgotten: "was given up by the operator.",
};

// A sentence for its end.
export function ending(operation) {
  const why = operation.error === null ? "" : ` ${operation.error.message}`;
  return `${operation.name} ${ENDS[operation.state] ?? operation.state}${why}`;
}

export function isGood(operation) {
  return ["succeeded", "deleted", "canceled", "suspended", "unsuspended"].includes(operation.state);
}

// Those under way, and those that failed while one watched. `listener(operation)` hears of each change; null after a list
// was read.
export class Operations {
  #shown = new Map();
  #over = new Map(); // when each that ended did: a list that was asked for before may come later
  #stops;

  constructor({ api, events }, listener) {
    this.api = api;
    this.listener = listener;
    this.#stops = [events.on("operation", (operation) => this.take(operation)), events.on("snapshot", () => this.read())];
    this.read();
  }

  all() {
    return [...this.#shown.values()].sort((left, right) => (left.id < right.id ? 1 : -1));
  }

  take(operation) {
    const known = this.#shown.get(operation.id);
    if (known !== undefined && known.updatedAt > operation.updatedAt) return;
    if (this.#over.has(operation.id) && this.#over.get(operation.id) > operation.updatedAt) return;
    if (operation.finished) this.#remember(operation);
    if (operation.finished && (isGood(operation) || known === undefined)) this.#shown.delete(operation.id);
    else this.#shown.set(operation.id, operation);
    this.listener(operation);
  }

  dismiss(operation) {
    this.#shown.delete(operation.id);
    this.listener(operation);
  }

  async read() {
    let answer;
    try {
      answer = await this.api.get(`/api/operations?limit=${KEPT}`);
    } catch {
      return; // how the link is, the shell says
    }
    for (const operation of answer.items) {
      if (!operation.finished || this.#shown.has(operation.id)) this.take(operation);
    }
    this.listener(null);
  }

  destroy() {
    for (const stop of this.#stops) stop();
  }

  #remember({ id, updatedAt }) {
    this.#over.delete(id);
    this.#over.set(id, updatedAt);
    if (this.#over.size > REMEMBERED) this.#over.delete(this.#over.keys().next().value);
  }
}
