// How figures are written for the operator. Pure.

import { shortNumber, shortSpan } from "./scale.js";

export const NONE = "–";

/** A number of things, or so many per second. */
export function count(value) {
  return value == null ? NONE : shortNumber(Math.abs(value) < 1e-4 ? 0 : value);
}

export function perSecond(value) {
  return value == null ? NONE : `${count(value)}/s`;
}

export function bytes(value) {
  if (value == null) return NONE;
  for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= unit) return `${Number((value / unit).toPrecision(3))} ${name}`;
  }
  return `${Math.round(value)} B`;
}

/** A duration in seconds: 0.4 ms, 12 s, 3 min, 5 h, 2 d. */
export function duration(seconds) {
  if (seconds == null) return NONE;
  if (seconds < 60) return shortSpan(seconds * 1000);
  for (const [unit, name] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${Number((seconds / unit).toPrecision(2))} ${name}`;
  }
  return NONE;
}

export function percent(share) {
  return share == null ? NONE : `${Math.round(share * 100)} %`;
}

/** One noun or several of them. */
export function noun(number, one, several) {
  return `${count(number)} ${number === 1 ? one : several}`;
}
