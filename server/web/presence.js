// Who is on a channel, by client id: snapshots, and the joins and leaves between them. Pure.
//
// Law: a snapshot may have been taken before a join or leave that is heard first, so that what was heard since it was
// asked for is done to it again.

export class Presence {
  /** Whether anybody is known of: false until the first snapshot. */
  isKnown = false;
  #clients = new Set();
  #since = null;

  /** Everyone, in the order in which they came to be known. */
  get clients() {
    return [...this.#clients];
  }

  /** A snapshot is on its way. */
  asked() {
    this.#since = [];
  }

  /** @param {string[]} clients */
  snapshot(clients) {
    const found = new Set(clients);
    // Those who were known keep their places, so that the list does not jump.
    const staying = this.clients.filter((client) => found.has(client));
    this.#clients = new Set([...staying, ...clients]);
    this.isKnown = true;
    const since = this.#since ?? [];
    this.#since = null;
    for (const { client, isHere } of since) this.#change(client, isHere);
  }

  joined(client) {
    this.#since?.push({ client, isHere: true });
    this.#change(client, true);
  }

  left(client) {
    this.#since?.push({ client, isHere: false });
    this.#change(client, false);
  }

  #change(client, isHere) {
    if (isHere) this.#clients.add(client);
    else this.#clients.delete(client);
  }
}
