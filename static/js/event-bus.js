// Hands what the event stream brings to whoever listens for it, by the event's name. Knows no list of names: a kind that
// the control plane begins to send reaches its listeners without a change here.

export class EventBus {
  #listeners = new Map();

  // `listener(data)` for each event of that name, until the returned function is called. After "snapshot" an earlier
  // event may have been missed: who keeps something of his own beside the store reads it anew.
  on(name, listener) {
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    this.#listeners.get(name).add(listener);
    return () => this.#listeners.get(name).delete(listener);
  }

  // One that fails is reported and keeps nothing from the others; the stream would otherwise ask for the event again.
  tell(name, data) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(data);
      } catch (error) {
        reportError(error);
      }
    }
  }
}
