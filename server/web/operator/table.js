// A table whose rows are kept as long as what they tell of: what is clicked or focused does not vanish every second.
//
// Law: what is written is text. Names of channels and clients are somebody else's, and never become markup.

import { NONE } from "./figures.js";

/**
 * @typedef {{name: string, text: (entry: object) => string, kind?: "figure" | "name" | "words", title?: string,
 *   hint?: (entry: object) => string}} Column
 */
export class Table {
  #columns;
  #keyOf;
  #action;
  #body;
  #rows = new Map();

  /**
   * @param {HTMLElement} place
   * @param {string} label
   * @param {Column[]} columns
   * @param {(entry: object) => string} keyOf
   * @param {{name: string, label: (entry: object) => string, act: (entry: object) => void}} [action]
   */
  constructor(place, label, columns, keyOf, action) {
    this.#columns = columns;
    this.#keyOf = keyOf;
    this.#action = action;
    const table = document.createElement("table");
    table.setAttribute("aria-label", label);
    const head = table.createTHead().insertRow();
    for (const column of columns) head.append(headOf(column));
    if (action) head.append(headOf({ name: "", label: action.name }));
    this.#body = table.createTBody();
    place.append(table);
  }

  show(entries) {
    const focused = document.activeElement;
    const rows = entries.map((entry) => this.#rowOf(entry));
    const shown = new Set(rows);
    for (const [key, { row }] of this.#rows) {
      if (shown.has(row)) continue;
      row.remove();
      this.#rows.delete(key);
    }
    rows.forEach((row, index) => {
      if (this.#body.children[index] !== row) this.#body.insertBefore(row, this.#body.children[index] ?? null);
    });
    if (focused !== document.activeElement && focused?.isConnected) focused.focus();
  }

  #rowOf(entry) {
    const key = this.#keyOf(entry);
    const made = this.#rows.get(key) ?? this.#make(key);
    made.entry = entry;
    this.#columns.forEach((column, index) => {
      const cell = made.row.cells[index];
      const text = column.text(entry);
      write(cell.firstChild, text);
      cell.classList.toggle("nothing", text === NONE);
      if (column.hint) cell.title = column.hint(entry);
    });
    if (this.#action) made.button.setAttribute("aria-label", this.#action.label(entry));
    return made.row;
  }

  #make(key) {
    const made = { row: document.createElement("tr"), entry: null, button: null };
    for (const column of this.#columns) {
      const cell = made.row.insertCell();
      cell.className = column.kind ?? "figure";
      cell.dataset.label = column.name;
      cell.append(document.createElement("span"));
    }
    if (this.#action) {
      made.button = document.createElement("button");
      made.button.type = "button";
      made.button.textContent = this.#action.name;
      made.button.addEventListener("click", () => this.#action.act(made.entry));
      const cell = made.row.insertCell();
      cell.className = "action";
      cell.append(made.button);
    }
    this.#rows.set(key, made);
    return made;
  }
}

/** Text, where it is not the same already: what is selected stays selected. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function headOf({ name, kind, title, label }) {
  const cell = document.createElement("th");
  cell.scope = "col";
  cell.textContent = name;
  cell.className = kind ?? "figure";
  cell.dataset.label = name;
  if (title) cell.title = title;
  if (label) cell.setAttribute("aria-label", label);
  return cell;
}
