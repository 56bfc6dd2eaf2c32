// Draws traces on one canvas. Knows nothing of where they come from; colours and range are arguments.

import { clockTime, shortNumber, timeTicks, valueAxis } from "./scale.js";

const FONT = "11px system-ui, sans-serif";
const BOLD = "600 12px system-ui, sans-serif";
const LABEL_HEIGHT = 14;
const FEW_POINTS = 40;

/**
 * @typedef {{from: number, to: number, cursor: number | null}} View times in ms on `performance.now()`'s clock
 * @typedef {{ink: string, soft: string, line: string, paper: string, series: (trace: object) => string}} Colours
 * @param {HTMLCanvasElement} canvas
 * @param {object[]} traces
 * @param {View} view
 * @param {Colours} colours
 * @param {boolean} isSmall one of many: no clock, only the two ends of the scale
 */
export function drawPlot(canvas, traces, view, colours, isSmall) {
  const { context, width, height } = prepare(canvas);
  if (width === 0 || height === 0) return;
  const axis = axisOf(traces, view, isSmall ? 2 : Math.max(2, Math.floor(height / 56)));
  const area = areaOf(context, axis, width, height, isSmall);
  const x = (time) => area.left + ((time - view.from) / (view.to - view.from)) * (area.right - area.left);
  const y = (value) => area.bottom - ((value - axis.from) / (axis.to - axis.from)) * (area.bottom - area.top);
  drawValueAxis(context, axis, area, y, colours, isSmall);
  if (!isSmall) drawTimeAxis(context, area, view, x, colours);
  for (const trace of traces) drawTrace(context, trace, view, x, y, colours.series(trace), isSmall ? area.bottom : null);
  if (view.cursor === null) return;
  drawCursor(context, traces, view.cursor, area, x, y, colours);
  if (!isSmall) labelCursor(context, traces, view.cursor, area, x, y, colours);
}

/** The point of a trace nearest to a time; undefined if it has none. */
export function nearestPoint(trace, time) {
  const { points } = trace;
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].time < time) low = middle + 1;
    else high = middle;
  }
  const before = points[low - 1];
  return before !== undefined && time - before.time < points[low].time - time ? before : points[low];
}

/** The time under a position on a canvas drawn by `drawPlot`; it must know the same gutters. */
export function timeAt(canvas, offset, view) {
  const left = Number(canvas.dataset.left ?? 0);
  const right = Number(canvas.dataset.right ?? canvas.clientWidth);
  const share = Math.min(1, Math.max(0, (offset - left) / Math.max(1, right - left)));
  return view.from + share * (view.to - view.from);
}

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const pixels = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) [canvas.width, canvas.height] = pixels;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.lineJoin = context.lineCap = "round";
  return { context, width, height };
}

function axisOf(traces, view, ticks) {
  let low = Infinity;
  let high = -Infinity;
  for (const trace of traces) {
    for (const point of trace.points) {
      if (point.time < view.from) continue;
      low = Math.min(low, point.low);
      high = Math.max(high, point.high);
    }
  }
  return low <= high ? valueAxis(low, high, ticks) : valueAxis(0, 1, ticks);
}

function areaOf(context, axis, width, height, isSmall) {
  const shown = isSmall ? [axis.from, axis.to] : axis.ticks;
  const labels = Math.max(...shown.map((tick) => context.measureText(shortNumber(tick)).width));
  const area = isSmall
    ? { left: 8, right: width - Math.max(28, Math.ceil(labels)) - 16, top: 8, bottom: height - 9 }
    : { left: Math.ceil(labels) + 12, right: width - 10, top: 12, bottom: height - 24 };
  // Left for `timeAt`, which runs on pointer events and must not measure again.
  context.canvas.dataset.left = String(area.left);
  context.canvas.dataset.right = String(area.right);
  return area;
}

function drawValueAxis(context, axis, area, y, colours, isSmall) {
  context.strokeStyle = colours.line;
  context.fillStyle = colours.soft;
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = isSmall ? "left" : "right";
  for (const tick of isSmall ? [axis.from, axis.to] : axis.ticks) {
    const level = Math.round(y(tick)) + 0.5;
    context.beginPath();
    context.moveTo(area.left, level);
    context.lineTo(area.right, level);
    context.stroke();
    context.fillText(shortNumber(tick), isSmall ? area.right + 8 : area.left - 8, level);
  }
}

function drawTimeAxis(context, area, view, x, colours) {
  const most = Math.max(1, Math.floor((area.right - area.left) / 96));
  const origin = performance.timeOrigin;
  context.fillStyle = colours.soft;
  context.textBaseline = "alphabetic";
  context.textAlign = "center";
  for (const tick of timeTicks(view.from + origin, view.to + origin, most)) {
    const at = Math.min(area.right - 22, Math.max(area.left + 22, x(tick - origin)));
    context.fillText(clockTime(new Date(tick)), at, area.bottom + 17);
  }
}

function drawTrace(context, trace, view, x, y, colour, floor) {
  const points = trace.points.filter((point) => point.time >= view.from);
  if (points.length === 0) return;
  context.strokeStyle = context.fillStyle = colour;
  for (const run of runsOf(points)) {
    if (floor !== null) fillBetween(context, run, x, y, () => floor, "mean");
    fillBetween(context, run, x, y, (point) => y(point.low), "high");
    context.lineWidth = 1.75;
    context.beginPath();
    for (const point of run) context.lineTo(x(point.time), y(point.mean));
    context.stroke();
  }
  if (floor === null && points.length <= FEW_POINTS) for (const point of points) dot(context, x(point.time), y(point.mean), 2.25);
  dot(context, x(points.at(-1).time), y(points.at(-1).mean), 3);
}

function fillBetween(context, run, x, y, lower, upper) {
  context.globalAlpha = 0.13;
  context.beginPath();
  for (const point of run) context.lineTo(x(point.time), y(point[upper]));
  for (const point of run.toReversed()) context.lineTo(x(point.time), lower(point));
  context.fill();
  context.globalAlpha = 1;
}

function runsOf(points) {
  const runs = [];
  for (const point of points) {
    if (point.afterGap || runs.length === 0) runs.push([]);
    runs.at(-1).push(point);
  }
  return runs;
}

function dot(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function drawCursor(context, traces, cursor, area, x, y, colours) {
  context.strokeStyle = colours.soft;
  context.lineWidth = 1;
  context.setLineDash([3, 3]);
  context.beginPath();
  context.moveTo(x(cursor), area.top - 4);
  context.lineTo(x(cursor), area.bottom);
  context.stroke();
  context.setLineDash([]);
  for (const trace of traces) {
    const point = nearestPoint(trace, cursor);
    if (point === undefined) continue;
    context.fillStyle = colours.paper;
    dot(context, x(point.time), y(point.mean), 5.5);
    context.fillStyle = colours.series(trace);
    dot(context, x(point.time), y(point.mean), 3.5);
  }
}

/** The values at the cursor, beside their points and clear of one another. */
function labelCursor(context, traces, cursor, area, x, y, colours) {
  const labels = traces
    .map((trace) => ({ trace, point: nearestPoint(trace, cursor) }))
    .filter(({ point }) => point !== undefined)
    .map(({ trace, point }) => ({ text: shortNumber(point.mean), colour: colours.series(trace), at: y(point.mean) }))
    .sort((one, other) => one.at - other.at);
  const isLeft = x(cursor) > area.right - 80;
  let above = area.top - LABEL_HEIGHT;
  context.font = BOLD;
  context.textBaseline = "middle";
  context.textAlign = isLeft ? "right" : "left";
  context.lineWidth = 4;
  context.strokeStyle = colours.paper;
  for (const label of labels) {
    above = Math.max(label.at, above + LABEL_HEIGHT);
    context.fillStyle = label.colour;
    context.strokeText(label.text, x(cursor) + (isLeft ? -10 : 10), above);
    context.fillText(label.text, x(cursor) + (isLeft ? -10 : 10), above);
  }
}
