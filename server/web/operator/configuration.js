// The configuration in force: what was set, and, if asked for, what is at its default.

/** @param {{list: HTMLElement, none: HTMLElement, all: HTMLInputElement}} parts */
export class Configuration {
  #parts;
  #groups = [];

  constructor(parts) {
    this.#parts = parts;
    parts.all.addEventListener("change", () => this.#draw());
  }

  show(groups) {
    this.#groups = groups;
    this.#draw();
  }

  #draw() {
    const { list, none, all } = this.#parts;
    const groups = this.#groups
      .map(({ group, options }) => ({ group, options: options.filter((option) => all.checked || !option.is_default) }))
      .filter(({ options }) => options.length > 0);
    none.hidden = groups.length > 0;
    list.replaceChildren(...groups.map(({ group, options }) => sectionOf(group, options)));
  }
}

function sectionOf(group, options) {
  const section = document.createElement("section");
  const title = document.createElement("h3");
  const list = document.createElement("dl");
  title.textContent = group;
  for (const { key, value, is_default: isDefault } of options) {
    const line = document.createElement("div");
    const name = document.createElement("dt");
    const text = document.createElement("dd");
    name.textContent = key;
    text.textContent = value ?? "not set";
    line.classList.toggle("is-set", !isDefault);
    line.append(name, text);
    list.append(line);
  }
  section.append(title, list);
  return section;
}
