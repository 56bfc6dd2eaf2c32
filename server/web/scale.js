// Axes and figures: where ticks go, and how numbers and times are written. Pure.

/**
 * A range with room for the values, ending on round numbers, and its ticks.
 * Zero is part of it unless the values are far from zero for how little they vary.
 */
export function valueAxis(low, high, ticks = 5) {
  if (low === high) {
    const room = Math.abs(low) || 1;
    [low, high] = low < 0 ? [low - room, 0] : [0, low + room];
  }
  if (low > 0 && low < high * 0.6) low = 0;
  if (high < 0 && high > low * 0.6) high = 0;
  const step = roundStep((high - low) / ticks);
  const from = Math.floor(low / step + 1e-9);
  const to = Math.ceil(high / step - 1e-9);
  const marks = Array.from({ length: to - from + 1 }, (_, index) => (from + index) * step);
  return { from: from * step, to: to * step, ticks: marks };
}

/** Whole times between two moments (ms on the wall clock), at most `most` of them. */
export function timeTicks(from, to, most) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300].map((seconds) => seconds * 1000);
  const step = steps.find((wide) => (to - from) / wide <= most) ?? steps.at(-1);
  const first = Math.ceil(from / step);
  const count = Math.max(0, Math.floor(to / step) - first + 1);
  return Array.from({ length: count }, (_, index) => (first + index) * step);
}

/** A number in about four signs: 0.0312, 7.25, 1,234, 48.2k, 5.12M. */
export function shortNumber(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit * (unit === 1e3 ? 10 : 1)) return significant(value / unit, 3) + letter;
  }
  return size >= 1000 ? wholeNumber(value) : significant(value, 3);
}

export function wholeNumber(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** A span of time in ms, in words a person reads at a glance. */
export function shortSpan(milliseconds) {
  if (milliseconds < 99.95) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

/** Hours, minutes and seconds on this machine's clock. */
export function clockTime(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

function significant(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((multiple) => multiple * power >= rough * (1 - 1e-9)) ?? 10;
  return factor * power;
}
