// How things stand, always in sight: the connection's state, the countdown to the next attempt, lag, rate and total.

import { shortNumber, shortSpan, wholeNumber } from "./scale.js";

const WORDS = { idle: "Not connected", connecting: "Connecting", live: "Live", waiting: "Reconnecting", refused: "Refused" };
const OVERDUE = 1000;

export class Status {
  #parts;
  #state = { name: "idle", words: "", until: 0 };

  /** @param {Record<"state" | "word" | "countdown" | "banner" | "words" | "lag" | "rate" | "total", HTMLElement>} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** @param {import("./connection.js").State} state */
  showConnection(state) {
    const { state: chip, word, banner, words } = this.#parts;
    this.#state = state;
    chip.dataset.state = state.name;
    write(word, WORDS[state.name]);
    // A new attempt keeps the words of the last failure, so that the banner does not come and go.
    banner.hidden = state.words === "";
    banner.dataset.state = state.name;
    write(words, state.words);
    this.tick(performance.now());
  }

  /** The countdown stands outside the live region: a screen reader should not count along. */
  tick(now) {
    const seconds = Math.max(0, Math.ceil((this.#state.until - now) / 1000));
    write(this.#parts.countdown, this.#state.name === "waiting" ? `in ${seconds} s` : "");
  }

  /**
   * @param {number | null} lag the last round trip in ms
   * @param {number | null} waiting how long the oldest echo has been awaited, in ms
   */
  showLag(lag, waiting) {
    const isOverdue = waiting !== null && waiting > Math.max(OVERDUE, lag ?? 0);
    write(this.#parts.lag, isOverdue ? `> ${Math.floor(waiting / 1000)} s` : lag === null ? "–" : shortSpan(lag));
    this.#parts.lag.classList.toggle("overdue", isOverdue);
  }

  showRate(rate, total) {
    write(this.#parts.rate, `${rate < 10 ? shortNumber(Math.round(rate * 10) / 10) : wholeNumber(rate)}/s`);
    write(this.#parts.total, wholeNumber(total));
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
