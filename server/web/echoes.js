// What this page has said and not yet heard back: how one's own messages are known, and one's own lag is measured.
//
// The raw dialect carries no sender, so a message is taken for one's own when it equals one that is still awaited.
// Another's equal words may so be taken for one's own; what is never heard again is given up with `expire`.
// Pure: time is an argument, in ms.

export class Echoes {
  #awaited = [];

  said(payload, now) {
    this.#awaited.push({ payload, at: now });
  }

  /** The round trip in ms if this payload is awaited here, else null. */
  heard(payload, now) {
    const index = this.#awaited.findIndex((own) => own.payload === payload);
    return index < 0 ? null : now - this.#awaited.splice(index, 1)[0].at;
  }

  /** How long the oldest awaited echo has been on its way, in ms; null if none is. */
  waiting(now) {
    return this.#awaited.length === 0 ? null : now - this.#awaited[0].at;
  }

  /** Give up on what was said more than `age` ms ago, and return it. */
  expire(now, age) {
    const fresh = this.#awaited.findIndex((own) => now - own.at <= age);
    return this.#awaited.splice(0, fresh < 0 ? this.#awaited.length : fresh).map((own) => own.payload);
  }
}
