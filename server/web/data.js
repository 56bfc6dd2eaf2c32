// What is typed <-> JSON data of the Centrifuge dialect <-> what the feed shows. Pure.
//
// As the server maps a raw text: an object or an array is that JSON, anything else is a string. JSON that the server
// would not take as such (nested too deep, half a character, a number beyond a double) goes as a string, too.

const DEEPEST = 32;

/** The JSON text that stands for a typed text; no newline is in it. */
export function dataOf(text) {
  return isSoundJson(text) ? text.replaceAll(/[\r\n]/g, " ") : JSON.stringify(text);
}

/**
 * What a publication's data is to the feed and the chart.
 * @param {unknown} data
 * @param {Record<string, string>} [tags]
 * @returns {string | ArrayBuffer}
 */
export function payloadOf(data, tags) {
  if (typeof data !== "string") return JSON.stringify(data);
  return tags?.encoding === "base64" ? bytesOf(data) : data;
}

function bytesOf(base64) {
  try {
    return Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0)).buffer;
  } catch {
    return base64;
  }
}

function isSoundJson(text) {
  if (!/^\s*[[{]/.test(text) || /\\u[dD][89a-fA-F]/.test(text)) return false;
  let isFinite = true;
  try {
    JSON.parse(text, (_, value) => {
      isFinite &&= typeof value !== "number" || Number.isFinite(value);
      return value;
    });
  } catch {
    return false;
  }
  return isFinite && (text.match(/[[{]/g) ?? []).length <= DEEPEST;
}
