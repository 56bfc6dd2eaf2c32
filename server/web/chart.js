// The chart's panel: the legend, the plots it switches, the cursor over them, and when all of it is drawn again.
//
// Series of like size share one plot; where sizes differ too much for one scale, each gets a small plot of its own,
// unless the user has chosen. Drawing happens in animation frames, some ten times a second at most.

import { drawPlot, nearestPoint, timeAt } from "./plot.js";
import { clockTime, shortNumber } from "./scale.js";
import { SPAN } from "./traces.js";

const FRAME_GAP = 90;
const COLOURS = 8;
const MOST_TOGETHER = 8;
const UNLIKE = 20;

export class Chart {
  #traces;
  #parts;
  #chosenLayout = null;
  #isApart = false;
  #shape = "";
  #plots = [];
  #cursor = null;
  #colours = null;
  #frame = 0;
  #drawnAt = 0;

  /**
   * @param {import("./traces.js").Traces} traces
   * @param {{panel: HTMLElement, legend: HTMLElement, plots: HTMLElement, readout: HTMLElement,
   *   layout: HTMLElement, empty: HTMLElement}} parts
   */
  constructor(traces, parts) {
    this.#traces = traces;
    this.#parts = parts;
    parts.legend.addEventListener("click", (event) => this.#switchSeries(event.target.closest("button")));
    parts.layout.addEventListener("click", (event) => this.#chooseLayout(event.target.closest("button")));
    parts.plots.addEventListener("pointermove", (event) => this.#point(event));
    parts.plots.addEventListener("pointerdown", (event) => this.#point(event));
    parts.plots.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#moveCursor(null));
    parts.plots.addEventListener("keydown", (event) => this.#steer(event));
    parts.plots.addEventListener("blur", () => this.#moveCursor(null));
    new ResizeObserver(() => this.refresh()).observe(parts.plots);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colours = null;
      this.refresh();
    });
  }

  /** Something changed: draw soon. Cheap enough to be called for every message. */
  refresh() {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame((now) => this.#draw(now));
  }

  clear() {
    this.#traces.clear();
    this.#cursor = null;
    this.#isApart = false;
    this.refresh();
  }

  #draw(now) {
    this.#frame = 0;
    if (this.#parts.panel.hidden) return;
    if (now - this.#drawnAt < FRAME_GAP) {
      this.refresh();
      return;
    }
    this.#drawnAt = now;
    const shown = this.#traces.shown;
    this.#decideLayout(shown);
    this.#rebuild(shown);
    this.#writeValues(shown);
    const view = this.#view();
    this.#colours ??= coloursOf(this.#parts.panel);
    for (const { canvas, traces } of this.#plots) drawPlot(canvas, traces, view, this.#colours, this.#isApart);
  }

  #view() {
    const list = this.#traces.list;
    const to = Math.max(...list.map((trace) => trace.lastTime), 0);
    const first = Math.min(...list.map((trace) => trace.points[0]?.time ?? to), to);
    const from = Math.min(Math.max(first, to - SPAN), to - 1000);
    if (this.#cursor !== null && this.#cursor < from) this.#cursor = null;
    return { from, to, cursor: this.#cursor };
  }

  #decideLayout(shown) {
    if (this.#chosenLayout !== null) this.#isApart = this.#chosenLayout === "apart";
    // Once apart they stay apart, lest the chart flip to and fro as values change.
    else this.#isApart = shown.length > 1 && (this.#isApart || shown.length > MOST_TOGETHER || areUnlike(shown));
    for (const button of this.#parts.layout.children) {
      button.setAttribute("aria-pressed", String((button.dataset.layout === "apart") === this.#isApart));
    }
  }

  #rebuild(shown) {
    const list = this.#traces.list;
    const shape = JSON.stringify([this.#isApart, list.map(({ key, name, group, isShown }) => [key, name, group, isShown])]);
    if (shape === this.#shape) return;
    this.#shape = shape;
    this.#parts.empty.hidden = list.length > 0;
    this.#parts.legend.hidden = this.#parts.plots.hidden = list.length === 0;
    this.#parts.layout.hidden = list.length < 2;
    this.#colourSeries(list);
    this.#buildLegend(list);
    for (const part of [this.#parts.plots, this.#parts.legend]) part.classList.toggle("apart", this.#isApart);
    this.#plots = this.#isApart ? shown.map((trace) => plotOf([trace])) : shown.length > 0 ? [plotOf(shown)] : [];
    this.#parts.plots.replaceChildren(...this.#plots.map((plot) => plot.figure));
    this.#parts.plots.setAttribute("aria-label", `Chart of ${shown.map(fullName).join(", ") || "nothing"}`);
  }

  // Apart, one colour to a group tells more than a colour that comes round again after eight.
  #colourSeries(list) {
    const groups = [...new Set(list.map((trace) => trace.group))];
    const isGrouped = this.#isApart && groups.length > 1;
    list.forEach((trace, index) => {
      trace.colour = (isGrouped ? groups.indexOf(trace.group) : index) % COLOURS;
    });
  }

  #buildLegend(list) {
    const focused = document.activeElement?.closest?.("#legend button")?.dataset.series;
    const entries = list.map((trace) => legendEntry(trace));
    this.#parts.legend.replaceChildren(...entries);
    entries.find((entry) => entry.dataset.series === focused)?.focus();
  }

  #writeValues(shown) {
    const values = new Map(shown.map((trace) => [trace.key, shortNumber(this.#valueAtCursor(trace))]));
    for (const element of this.#parts.panel.querySelectorAll("[data-value-of]")) {
      const text = values.get(element.dataset.valueOf) ?? "";
      if (element.textContent !== text) element.textContent = text;
    }
    const { readout } = this.#parts;
    readout.textContent =
      this.#cursor === null ? "" : "at " + clockTime(new Date(this.#cursor + performance.timeOrigin));
  }

  #valueAtCursor(trace) {
    return this.#cursor === null ? trace.value : nearestPoint(trace, this.#cursor)?.mean;
  }

  #switchSeries(button) {
    const trace = button && this.#traces.get(button.dataset.series);
    if (!trace) return;
    trace.isShown = !trace.isShown;
    this.refresh();
  }

  #chooseLayout(button) {
    if (!button) return;
    this.#chosenLayout = button.dataset.layout;
    this.refresh();
  }

  #point(event) {
    const canvas = event.target.closest("canvas");
    if (!canvas) return;
    const offset = event.clientX - canvas.getBoundingClientRect().left;
    this.#moveCursor(timeAt(canvas, offset, this.#view()));
  }

  #steer(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === "Escape") this.#moveCursor(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    const longest = this.#traces.shown.reduce((one, other) => (other.points.length > one.points.length ? other : one));
    const { points } = longest;
    const here = this.#cursor === null ? points.length - 1 : points.indexOf(nearestPoint(longest, this.#cursor));
    this.#moveCursor(points[Math.min(points.length - 1, Math.max(0, here + steps[event.key]))].time);
  }

  #moveCursor(time) {
    const traces = this.#traces.shown.filter((trace) => trace.points.length > 0);
    if (time === null || traces.length === 0) this.#cursor = null;
    else this.#cursor = closest(traces.map((trace) => nearestPoint(trace, time).time), time);
    this.#drawnAt = 0;
    this.refresh();
  }
}

function areUnlike(traces) {
  const sizes = traces.map((trace) => Math.max(...trace.points.map((point) => Math.max(Math.abs(point.low), Math.abs(point.high)))));
  const moving = sizes.filter((size) => size > 0);
  return Math.max(...moving) > UNLIKE * Math.min(...moving);
}

function closest(times, time) {
  return times.reduce((one, other) => (Math.abs(other - time) < Math.abs(one - time) ? other : one));
}

function fullName(trace) {
  return trace.group ? `${trace.group} ${trace.name}` : trace.name;
}

function legendEntry(trace) {
  const entry = element("button", "series");
  entry.type = "button";
  entry.dataset.series = trace.key;
  entry.dataset.colour = String(trace.colour);
  entry.setAttribute("aria-pressed", String(trace.isShown));
  entry.title = `${fullName(trace)}: switch ${trace.isShown ? "off" : "on"}`;
  entry.append(element("span", "swatch"), ...nameParts(trace), valueOf(trace));
  return entry;
}

function plotOf(traces) {
  const figure = element("figure", "plot");
  const canvas = document.createElement("canvas");
  if (traces.length === 1) {
    const caption = document.createElement("figcaption");
    const name = element("span", "name");
    name.append(...nameParts(traces[0]));
    caption.append(name, valueOf(traces[0]));
    figure.append(caption);
  }
  figure.append(canvas);
  return { figure, canvas, traces };
}

function nameParts(trace) {
  const group = element("span", "group");
  group.textContent = trace.group;
  const name = document.createElement("span");
  name.textContent = trace.name;
  return [group, name];
}

function valueOf(trace) {
  const value = element("span", "value");
  value.dataset.valueOf = trace.key;
  return value;
}

function element(tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

function coloursOf(panel) {
  const style = getComputedStyle(panel);
  const colour = (name) => style.getPropertyValue(name).trim();
  const series = Array.from({ length: COLOURS }, (_, index) => colour(`--series-${index}`));
  return {
    soft: colour("--soft"),
    line: colour("--line"),
    paper: colour("--surface"),
    series: (trace) => series[trace.colour],
  };
}
