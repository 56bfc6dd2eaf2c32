// How fast something happens: events counted in short bins over the last few seconds. Pure: time is an argument, in ms.

const BIN = 250;
const BINS = 12;

export class Meter {
  total = 0;
  #counts = new Array(BINS).fill(0);
  #bin = -1;
  #firstBin = -1;

  count(now) {
    this.#advance(now);
    this.#counts[this.#bin % BINS] += 1;
    this.total += 1;
  }

  /** Events per second over the last three seconds, or since the first one if that is less. */
  rate(now) {
    if (this.#firstBin < 0) return 0;
    this.#advance(now);
    const bins = Math.min(BINS, Math.max(4, this.#bin - this.#firstBin + 1));
    return (this.#counts.reduce((sum, count) => sum + count, 0) * 1000) / (bins * BIN);
  }

  #advance(now) {
    const bin = Math.floor(now / BIN);
    if (this.#firstBin < 0) this.#firstBin = this.#bin = bin;
    if (bin - this.#bin >= BINS) this.#counts.fill(0);
    else for (let next = this.#bin + 1; next <= bin; next++) this.#counts[next % BINS] = 0;
    this.#bin = Math.max(this.#bin, bin);
  }
}
