// What the chart remembers: the last two minutes of every series, in at most 300 points each.
//
// Laws: bounded in time, points and series, however fast numbers come; when there are more, neighbours are merged and
// keep their lowest, highest and mean, so that no peak vanishes. Pure: time is an argument, in ms.

export const SPAN = 120_000;
const MOST_POINTS = 300;
const MOST_SERIES = 48;

/** @typedef {{time: number, low: number, high: number, mean: number, count: number, afterGap: boolean}} Point */

class Trace {
  /** @type {Point[]} */
  points = [];
  value = NaN;
  isShown = true;
  #width = 0;

  constructor({ key, name, group }, order) {
    Object.assign(this, { key, name, group, order });
  }

  get lastTime() {
    return this.points.at(-1)?.time ?? -Infinity;
  }

  add(time, value, afterGap) {
    this.value = value;
    this.forget(time - SPAN);
    if (this.points.length === 0) this.#width = 0;
    append(this.points, { time, low: value, high: value, mean: value, count: 1, afterGap }, this.#width);
    if (this.points.length > MOST_POINTS) this.#coarsen();
  }

  forget(before) {
    let old = 0;
    while (old < this.points.length && this.points[old].time < before) old++;
    if (old > 0) this.points.splice(0, old);
  }

  #coarsen() {
    const span = this.lastTime - this.points[0].time;
    this.#width = Math.max(this.#width, (2 * span) / MOST_POINTS);
    const merged = [];
    for (const point of this.points) append(merged, point, this.#width);
    // Gaps, and a burst at one instant, leave more than half: then the oldest go.
    this.points = merged.slice(-MOST_POINTS);
  }
}

/** Append a point, or merge it into the last one if that began less than `width` ms ago. */
function append(points, point, width) {
  const last = points.at(-1);
  if (last === undefined || point.afterGap || point.time - last.time >= width) {
    points.push(point);
    return;
  }
  const count = last.count + point.count;
  last.low = Math.min(last.low, point.low);
  last.high = Math.max(last.high, point.high);
  last.mean += ((point.mean - last.mean) * point.count) / count;
  last.count = count;
}

export class Traces {
  #traces = new Map();
  #gapBefore = new Set();
  #made = 0;

  /** All series, in the order in which they first came. */
  get list() {
    return [...this.#traces.values()].sort((one, other) => one.order - other.order);
  }

  get shown() {
    return this.list.filter((trace) => trace.isShown);
  }

  get(key) {
    return this.#traces.get(key);
  }

  add(time, readings) {
    for (const reading of readings) {
      const trace = this.#traces.get(reading.key) ?? this.#make(reading);
      trace.name = reading.name;
      trace.group = reading.group;
      trace.add(time, reading.value, this.#gapBefore.delete(reading.key));
    }
    this.#forget(time);
  }

  /** From here on something may be missing: lines are not drawn across. */
  gap() {
    for (const key of this.#traces.keys()) this.#gapBefore.add(key);
  }

  clear() {
    this.#traces.clear();
    this.#gapBefore.clear();
  }

  #make(reading) {
    const trace = new Trace(reading, this.#made++);
    this.#traces.set(reading.key, trace);
    return trace;
  }

  #forget(now) {
    for (const [key, trace] of this.#traces) {
      trace.forget(now - SPAN);
      if (trace.points.length === 0) this.#drop(key);
    }
    while (this.#traces.size > MOST_SERIES) {
      const stalest = this.list.reduce((one, other) => (other.lastTime < one.lastTime ? other : one));
      this.#drop(stalest.key);
    }
  }

  #drop(key) {
    this.#traces.delete(key);
    this.#gapBefore.delete(key);
  }
}
