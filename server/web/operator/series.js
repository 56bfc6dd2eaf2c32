// What the charts remember: a series of readings over the last five minutes. Pure: time is an argument, in ms.
//
// Laws: bounded in time, and so in points, since one comes a second; where nothing was read, the line is broken.

export const SPAN = 300_000;
const LONGEST_STEP = 3500;

export class Series {
  /** As `plot.js` draws them. */
  points = [];

  get value() {
    return this.points.at(-1)?.mean ?? null;
  }

  /** @param {number | null} value null: nothing could be read */
  add(time, value) {
    this.forget(time - SPAN);
    if (value === null) return;
    const last = this.points.at(-1);
    if (last !== undefined && time <= last.time) return;
    const afterGap = last !== undefined && time - last.time > LONGEST_STEP;
    // From nothing up: none of these figures may look large for want of a zero.
    this.points.push({ time, low: 0, high: value, mean: value, count: 1, afterGap });
  }

  forget(before) {
    let old = 0;
    while (old < this.points.length && this.points[old].time < before) old++;
    if (old > 0) this.points.splice(0, old);
  }

  /** The middle of all readings older than `time`; null when there are fewer than `least`. */
  usual(time, least) {
    const values = this.points.filter((point) => point.time < time).map((point) => point.mean);
    if (values.length < least) return null;
    values.sort((one, other) => one - other);
    return values[values.length >> 1];
  }
}
