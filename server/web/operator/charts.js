// The charts of the last five minutes: one small plot per figure, one cursor over all of them.

import { bytes, count, duration, perSecond } from "./figures.js";
import { drawPlot, nearestPoint, timeAt } from "./plot.js";
import { clockTime } from "./scale.js";
import { Series, SPAN } from "./series.js";
import { write } from "./table.js";

const NARROW = 230;

/** What is charted, in the order of the history that the feed brings. `scale` brings a reading to the plot's unit. */
const CHARTS = [
  { key: "published", name: "Publications", text: perSecond, colour: 0 },
  { key: "sent", name: "Deliveries", text: perSecond, colour: 2 },
  { key: "dropped", name: "Dropped", text: perSecond, colour: 6 },
  { key: "bytes_sent", name: "Bytes out", text: (value) => (value === null ? bytes(null) : `${bytes(value)}/s`), colour: 5 },
  { key: "connections", name: "Connections", text: count, colour: 7 },
  { key: "queue_bytes", name: "Waiting for clients", text: bytes, colour: 4 },
  { key: "latency", name: "Latency, p99", unit: "ms", text: duration, scale: 1000, colour: 1,
    title: "From publication to the client and back, of the clients that are asked; in the last minute" },
  { key: "loop_lag", name: "Loop late, p99", unit: "ms", text: duration, scale: 1000, colour: 3,
    title: "How late the worst event loop is; in the last ten seconds" },
];

export class Charts {
  #tiles;
  #clock;
  #cursor = null;
  #colours = null;
  #frame = 0;
  #place;

  /** @param {HTMLElement} place @param {HTMLElement} clock where the cursor's time is written */
  constructor(place, clock) {
    this.#place = place;
    this.#clock = clock;
    this.#tiles = CHARTS.map((chart) => tileOf(chart));
    place.append(...this.#tiles.map((tile) => tile.figure));
    place.addEventListener("pointermove", (event) => this.#point(event));
    place.addEventListener("pointerdown", (event) => this.#point(event));
    place.addEventListener("pointerleave", () => this.#moveCursor(null));
    new ResizeObserver(() => this.refresh()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colours = null;
      this.refresh();
    });
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  series(key) {
    return this.#tiles.find((tile) => tile.chart.key === key).series;
  }

  /** @param {Record<string, number | null | undefined>} readings */
  add(time, readings) {
    for (const { chart, series } of this.#tiles) {
      const value = readings[chart.key] ?? null;
      series.add(time, value === null ? null : value * (chart.scale ?? 1));
    }
  }

  /** What was charted before this page was there: lists of a time (ms) and the readings, in the charts' order. */
  addHistory(entries) {
    const firstKnown = Math.min(...this.#tiles.map(({ series }) => series.points[0]?.time ?? Infinity));
    if (Number.isFinite(firstKnown)) return;
    for (const [time, ...values] of entries) {
      this.add(time, Object.fromEntries(CHARTS.map((chart, index) => [chart.key, values[index]])));
    }
  }

  refresh() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #view() {
    const now = performance.now();
    return { from: now - SPAN, to: now, cursor: this.#cursor };
  }

  #draw() {
    this.#frame = 0;
    if (document.hidden) return;
    this.#colours ??= coloursOf(this.#place);
    const view = this.#view();
    if (this.#cursor !== null && this.#cursor < view.from) this.#cursor = view.cursor = null;
    for (const { chart, series, canvas, value } of this.#tiles) {
      drawPlot(canvas, [{ points: series.points, colour: chart.colour }], view, this.#colours, canvas.clientWidth < NARROW);
      const shown = this.#cursor === null ? series.value : nearestPoint(series, this.#cursor)?.mean ?? null;
      write(value, chart.text(shown === null ? null : shown / (chart.scale ?? 1)));
    }
    write(this.#clock, this.#cursor === null ? "" : "at " + clockTime(new Date(this.#cursor + performance.timeOrigin)));
  }

  #point(event) {
    const canvas = event.target.closest("canvas");
    if (!canvas) return;
    this.#moveCursor(timeAt(canvas, event.clientX - canvas.getBoundingClientRect().left, this.#view()));
  }

  #moveCursor(time) {
    const nearest = time === null ? undefined : nearestPoint(this.series("connections"), time);
    this.#cursor = nearest?.time ?? null;
    this.refresh();
  }
}

function tileOf(chart) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  const value = document.createElement("strong");
  const canvas = document.createElement("canvas");
  name.textContent = chart.unit ? `${chart.name} (${chart.unit})` : chart.name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${chart.name} over the last five minutes`);
  value.dataset.figure = chart.key;
  if (chart.title) figure.title = chart.title;
  caption.append(name, value);
  figure.append(caption, canvas);
  return { chart, series: new Series(), figure, canvas, value };
}

function coloursOf(place) {
  const style = getComputedStyle(place);
  const colour = (name) => style.getPropertyValue(name).trim();
  return {
    soft: colour("--soft"),
    line: colour("--line"),
    paper: colour("--surface"),
    series: (trace) => colour(`--series-${trace.colour}`),
  };
}
