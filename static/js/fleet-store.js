// The instances that the caller may see, as last heard: from events, and from the lists that are read now and then for
// what events do not tell (ages, load). Views listen for changes.

export class FleetStore {
  #entries = new Map();
  #listeners = new Set();
  #snapshot = null;
  #clock = 0;

  isLoaded = false;

  // `listener({before, after})` for each document that changed; one of them is null where it came or went.
  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get(id) {
    return this.#entries.get(id)?.document ?? null;
  }

  all() {
    return [...this.#entries.values()].map((entry) => entry.document);
  }

  // How old the state of an instance is by now, in milliseconds; null where it was never observed.
  age(id) {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.document.state.ageMs === null) return null;
    return entry.document.state.ageMs + performance.now() - entry.receivedAt;
  }

  // A connection began: half a snapshot of the one before is worth nothing.
  connected() {
    this.#snapshot = null;
  }

  take(event, data) {
    if (event === "snapshot") this.#takeSnapshot(data);
    else if (event === "state") this.#set(data);
    else if (event === "removed") this.#remove(data.id);
  }

  // To be read before a list is asked for, and handed to `takeList` with the answer.
  get now() {
    return this.#clock;
  }

  // Documents of a list. What an event said since `asOf` is newer than they are.
  takeList(documents, asOf, { isWhole }) {
    const ids = new Set();
    for (const document of documents) {
      ids.add(document.id);
      const entry = this.#entries.get(document.id);
      if (entry === undefined || entry.at <= asOf || document.state.revision > entry.document.state.revision) {
        this.#set(document);
      }
    }
    if (!isWhole) return;
    for (const [id, entry] of [...this.#entries]) if (!ids.has(id) && entry.at <= asOf) this.#remove(id);
    this.#loaded();
  }

  takeState(id, state, asOf) {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.at <= asOf || state.revision > entry.document.state.revision) this.#set({ ...entry.document, state });
  }

  clear() {
    this.#entries.clear();
    this.#snapshot = null;
    this.isLoaded = false;
  }

  #takeSnapshot({ items, complete }) {
    this.#snapshot ??= new Set();
    for (const document of items) {
      this.#snapshot.add(document.id);
      this.#set(document);
    }
    if (!complete) return;
    for (const id of [...this.#entries.keys()]) if (!this.#snapshot.has(id)) this.#remove(id);
    this.#snapshot = null;
    this.#loaded();
  }

  #loaded() {
    if (this.isLoaded) return;
    this.isLoaded = true;
    this.#tell({ before: null, after: null });
  }

  #set(document) {
    const before = this.get(document.id);
    this.#entries.set(document.id, { document, receivedAt: performance.now(), at: ++this.#clock });
    this.#tell({ before, after: document });
  }

  #remove(id) {
    const before = this.get(id);
    if (!this.#entries.delete(id)) return;
    this.#clock += 1;
    this.#tell({ before, after: null });
  }

  #tell(change) {
    for (const listener of [...this.#listeners]) listener(change);
  }
}
