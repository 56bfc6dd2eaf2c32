// The links to the channels that were joined lately, and the names that the channel's field offers.

import { fragmentOf } from "./channels.js";

/**
 * @param {{section: HTMLElement, list: HTMLElement, known: HTMLElement}} parts
 * @param {string[]} names the latest first
 * @param {string} channel the one that is open
 * @param {string} dialect stays when a link is followed
 */
export function showRecent({ section, list, known }, names, channel, dialect) {
  section.hidden = names.length < 2;
  list.replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = fragmentOf(name, dialect);
    link.textContent = "#" + name;
    if (name === channel) link.setAttribute("aria-current", "true");
    item.append(link);
    return item;
  }));
  known.replaceChildren(...names.map((name) => new Option(name)));
}
