// Payload -> readings: finds the numbers in what was said.
//
// Read are a JSON number, an object with numeric fields (nested ones by their path), an array of numbers, and lines
// of columns most of which are numeric, as `vmstat 1` prints them; a line of words right above names the columns, and
// a line of dashes above that (`---memory---`) groups them. Anything else has no numbers.
// No DOM, no clock. The reader remembers headers only.

const LONGEST_TEXT = 8192;
const MOST_READINGS = 32;
const DEEPEST = 3;
const MOST_HEADERS = 8;
const NUMBER = /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?$/;
const CLOCK_FIELD = /^(?:t|ts|time|timestamp|date)$/i;

/**
 * @typedef {{key: string, name: string, group: string, value: number}} Reading
 *   `key` stays the same when a header gives the series its name later.
 */
export class NumberReader {
  #headers = new Map();
  #above = [];

  /** @returns {Reading[][]} one list of readings per line that held numbers; [] for text */
  read(text) {
    if (text.length > LONGEST_TEXT) return [];
    const json = parsedJson(text);
    if (json !== undefined) return nonEmpty([readingsOfJson(json)]);
    return nonEmpty(text.split("\n").map((line) => this.#readLine(line)));
  }

  #readLine(line) {
    const words = wordsOf(line);
    if (words.length === 0) return [];
    const numeric = words.filter((word) => NUMBER.test(word.text)).length;
    if (numeric * 2 <= words.length) {
      this.#above = numeric === 0 ? [...this.#above.slice(-1), words] : [];
      return [];
    }
    this.#adoptHeader(words.length);
    return this.#readColumns(words);
  }

  #adoptHeader(columns) {
    const [names, groups] = this.#above.toReversed();
    this.#above = [];
    // `vmstat -t` prints one name over a date and a time, hence the slack.
    if (names === undefined || names.length > columns || names.length < Math.max(2, columns - 2)) return;
    this.#headers.delete(columns);
    this.#headers.set(columns, namedColumns(names, groups ?? []));
    if (this.#headers.size > MOST_HEADERS) this.#headers.delete(this.#headers.keys().next().value);
  }

  #readColumns(words) {
    if (words.length === 1) return [reading("value", "value", "", words[0].text)];
    const header = this.#headers.get(words.length) ?? [];
    return words
      .map((word, index) => {
        const { name, group } = header[index] ?? { name: `column ${index + 1}`, group: "" };
        return NUMBER.test(word.text) ? reading(`columns:${words.length}:${index}`, name, group, word.text) : null;
      })
      .filter((found) => found !== null)
      .slice(0, MOST_READINGS);
  }
}

function reading(key, name, group, value) {
  return { key, name, group, value: typeof value === "string" ? Number.parseFloat(value) : value };
}

function nonEmpty(samples) {
  return samples.filter((sample) => sample.length > 0);
}

function wordsOf(line) {
  return Array.from(line.matchAll(/\S+/g), (match) => ({
    text: match[0],
    from: match.index,
    to: match.index + match[0].length,
  }));
}

function namedColumns(names, groups) {
  const dashed = groups.some((group) => group.text.includes("--")) ? groups : [];
  return names.map((name) => {
    const over = dashed.find((group) => group.from < name.to && name.from < group.to);
    return { name: name.text, group: over ? over.text.replaceAll("-", "") : "" };
  });
}

/** undefined for what is not JSON, or is JSON that can hold no number. */
function parsedJson(text) {
  if (!/^\s*(?:[{[]|-?\d\S*\s*$)/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readingsOfJson(json) {
  if (typeof json === "number") return Number.isFinite(json) ? [reading("value", "value", "", json)] : [];
  const found = [];
  if (Array.isArray(json)) collectArray(json, "array", "", found);
  else if (json !== null) collectFields(json, [], found);
  return found.slice(0, MOST_READINGS);
}

function collectArray(values, key, group, found) {
  if (!values.every((value) => Number.isFinite(value))) return;
  values.slice(0, MOST_READINGS).forEach((value, index) => {
    found.push(reading(`${key}[${index}]`, `[${index}]`, group, value));
  });
}

function collectFields(object, path, found) {
  for (const [field, value] of Object.entries(object)) {
    if (found.length >= MOST_READINGS) return;
    const key = "field:" + JSON.stringify([...path, field]);
    const group = path.join(".");
    // A clock among the fields only ever rises; it says when, not how much.
    if (Number.isFinite(value)) {
      if (!(CLOCK_FIELD.test(field) && value > 1e8)) found.push(reading(key, field, group, value));
    } else if (Array.isArray(value)) {
      collectArray(value, key, [...path, field].join("."), found);
    } else if (value !== null && typeof value === "object" && path.length + 1 < DEEPEST) {
      collectFields(value, [...path, field], found);
    }
  }
}
