// The feed: what was said, newest last. Rows come in animation frames, many at once, and stay at most 500.
//
// Laws: everything heard is text, never markup; while the user reads further up nothing moves and what comes is held
// back, the latest 500 of it; a hidden page holds no more than that either; rows take a quarter of the page's time at
// most, so that in a torrent there are fewer and larger steps, not a frozen page.

import { clockTime, wholeNumber } from "./scale.js";

export const MOST_ROWS = 500;
const LONGEST_TEXT = 2000;
const MOST_BYTES = 24;
const NEAR_END = 32;
const HAND_LASTS = 400;
const REST = 3;
const REST_PER_ROW = 0.5;

/**
 * @typedef {{time: Date | null, payload: string | ArrayBuffer, mark: string, isOwn: boolean, isPast: boolean}} Said
 *   `time` is null when nobody knows it; `mark` is what stands beside; what `isPast` was said while one was not there
 * @typedef {{time: Date, notice: string}} Notice something the page itself has to tell
 */
export class Feed {
  #list;
  #newer;
  #onRows;
  #held = [];
  #unseen = 0;
  #isFollowing = true;
  #frame = 0;
  #restUntil = 0;
  #seenHeights = "";
  #handAt = -Infinity;

  /**
   * @param {HTMLElement} list scrolls
   * @param {HTMLButtonElement} newer shown while messages are held back
   * @param {() => void} onRows called when the first rows are in
   */
  constructor(list, newer, onRows) {
    this.#list = list;
    this.#newer = newer;
    this.#onRows = onRows;
    list.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    for (const input of ["wheel", "touchmove", "mousedown", "keydown"]) {
      list.addEventListener(input, () => (this.#handAt = performance.now()), { passive: true });
    }
    newer.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#isFollowing && this.#scrollToEnd()).observe(list);
  }

  /** @param {Said | Notice} entry */
  add(entry) {
    this.#held.push(entry);
    if (entry.notice === undefined) this.#unseen += 1;
    // Trimmed in steps: dropping one from the front for each that comes would cost as much as showing it.
    if (this.#held.length > 2 * MOST_ROWS) this.#held.splice(0, this.#held.length - MOST_ROWS);
    this.#refresh();
  }

  clear() {
    this.#held = [];
    this.#unseen = 0;
    this.#list.replaceChildren();
    this.#newer.hidden = true;
    this.#isFollowing = true;
  }

  /** The rows came into view, and only now have their true height. */
  shown() {
    if (this.#isFollowing) this.#scrollToEnd();
  }

  toEnd() {
    this.#isFollowing = true;
    this.#flush();
    this.#list.focus({ preventScroll: true });
  }

  #refresh() {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (performance.now() < this.#restUntil) this.#refresh();
      else if (this.#isFollowing) this.#flush();
      else this.#countNewer();
    });
  }

  #flush() {
    const start = performance.now();
    const added = this.#addRows();
    this.#unseen = 0;
    this.#newer.hidden = true;
    // Asking for the height has the rows laid out here and now, so that what they cost is seen.
    this.#scrollToEnd();
    requestAnimationFrame(() => this.shown());
    const end = performance.now();
    this.#restUntil = end + Math.max(REST * (end - start), REST_PER_ROW * added);
  }

  #addRows() {
    if (this.#held.length === 0) return 0;
    if (this.#list.childElementCount === 0) this.#onRows();
    const rows = this.#held.slice(-MOST_ROWS).map((entry) => rowOf(entry));
    const surplus = this.#list.childElementCount + rows.length - MOST_ROWS;
    for (let index = 0; index < surplus; index++) this.#list.firstElementChild.remove();
    this.#list.append(...rows);
    this.#held = [];
    return rows.length;
  }

  #countNewer() {
    this.#newer.hidden = this.#unseen === 0;
    this.#newer.textContent = `${wholeNumber(this.#unseen)} new ↓`;
  }

  #scrollToEnd() {
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#seenHeights = this.#heights();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    // A panel that is not shown measures nothing, which is no reason to follow or to stop.
    if (clientHeight === 0) return;
    const wasFollowing = this.#isFollowing;
    const isByHand = performance.now() - this.#handAt < HAND_LASTS;
    const isRelaid = this.#heights() !== this.#seenHeights;
    this.#seenHeights = this.#heights();
    // The end also moves away as rows get their true height, or the feed a smaller room; only a hand means to leave it,
    // and then its first small step counts, or the next rows would pull it back.
    if (scrollHeight - scrollTop - clientHeight < (isByHand ? 2 : NEAR_END)) this.#isFollowing = true;
    else if (isByHand || !isRelaid) this.#isFollowing = false;
    else if (wasFollowing) this.#scrollToEnd();
    if (this.#isFollowing && !wasFollowing && this.#held.length > 0) this.#refresh();
  }

  #heights() {
    return `${this.#list.scrollHeight} ${this.#list.clientHeight}`;
  }
}

function rowOf(entry) {
  const row = document.createElement("li");
  const time = document.createElement("time");
  const body = document.createElement("span");
  body.className = "body";
  if (entry.time === null) {
    time.textContent = "earlier";
  } else {
    time.dateTime = entry.time.toISOString();
    time.textContent = clockTime(entry.time);
  }
  row.append(time, body);
  if (entry.notice !== undefined) {
    row.className = "notice";
    body.textContent = entry.notice;
    return row;
  }
  if (typeof entry.payload === "string") writeText(row, body, entry.payload);
  else writeBytes(row, body, entry.payload);
  row.classList.toggle("own", entry.isOwn);
  row.classList.toggle("past", entry.isPast);
  if (entry.mark) addMark(row, entry.mark);
  return row;
}

function writeText(row, body, text) {
  body.textContent = text.length > LONGEST_TEXT ? text.slice(0, LONGEST_TEXT) + "…" : text;
  if (isTabular(text)) row.classList.add("data");
  if (text.length > LONGEST_TEXT) body.append(remark(`${wholeNumber(text.length)} characters in all`));
  else if (text === "") body.append(remark("an empty message"));
}

function writeBytes(row, body, buffer) {
  const bytes = Array.from(new Uint8Array(buffer, 0, Math.min(buffer.byteLength, MOST_BYTES)));
  const hex = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  row.classList.add("data", "binary");
  body.append(remark(`${wholeNumber(buffer.byteLength)} ${buffer.byteLength === 1 ? "byte" : "bytes"}`));
  body.append(hex + (buffer.byteLength > MOST_BYTES ? " …" : ""));
}

/** Whether a text reads better with every sign as wide as the next: columns, JSON, bare numbers. */
function isTabular(text) {
  return /^\s*(?:[{[]|[-+]?[\d.]+\s*$)|\S {3,}\S|-{4,}/.test(text.slice(0, LONGEST_TEXT));
}

function addMark(row, mark) {
  const badge = document.createElement("span");
  badge.className = "mark";
  badge.textContent = mark;
  row.append(badge);
}

function remark(text) {
  const made = document.createElement("span");
  made.className = "remark";
  made.textContent = text;
  return made;
}
