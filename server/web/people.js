// The line that shows who is on the channel: how many, and their ids, short, one's own first.

import { wholeNumber } from "./scale.js";

const MOST_SHOWN = 40;
const SHORT = 4;

/** The beginning of a client id: enough to tell the few apart that talk at one time. */
export function shortId(client) {
  return client.slice(0, SHORT);
}

export class People {
  #parts;
  #shown = "";

  /** @param {{line: HTMLElement, count: HTMLElement, list: HTMLElement}} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  hide() {
    this.#parts.line.hidden = true;
    this.#shown = "";
  }

  /**
   * @param {string[]} clients
   * @param {string} own
   */
  show(clients, own) {
    const { line, count, list } = this.#parts;
    const ordered = [...clients.filter((client) => client === own), ...clients.filter((client) => client !== own)];
    const shown = JSON.stringify([own, ordered.length, ordered.slice(0, MOST_SHOWN)]);
    line.hidden = false;
    if (shown === this.#shown) return;
    this.#shown = shown;
    count.textContent = `${wholeNumber(ordered.length)} here`;
    const items = ordered.slice(0, MOST_SHOWN).map((client) => itemFor(client, client === own));
    if (ordered.length > MOST_SHOWN) items.push(itemOf(`and ${wholeNumber(ordered.length - MOST_SHOWN)} more`, "rest"));
    list.replaceChildren(...items);
  }
}

function itemFor(client, isOwn) {
  const item = itemOf(isOwn ? `${shortId(client)} · you` : shortId(client), isOwn ? "own" : "");
  item.title = client;
  return item;
}

function itemOf(text, className) {
  const item = document.createElement("li");
  item.className = className;
  item.textContent = text;
  return item;
}
