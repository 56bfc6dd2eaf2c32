// What a close code means for the one who was closed: in words, and whether and when to come back. Pure.

const BASE_DELAY = 500;
const LONGEST_DELAY = 30_000;
const LONGEST_ORDER = 600_000;

const WORDS = {
  1000: "The server closed the connection.",
  1001: "The server is shutting down.",
  1005: "The connection was closed without a reason.",
  1006: "The connection was lost.",
  1008: "The server refused the credentials: missing, wrong or expired.",
  1009: "A message was larger than the server takes; it was not delivered.",
  1011: "The server ran into a fault of its own.",
  1012: "The server is restarting.",
  1013: "This page was too slow: messages came faster than it could take them.",
  3001: "The server is shutting down.",
  3004: "The server ran into a fault of its own.",
  3005: "The credentials of this connection have expired.",
  3008: "This page was too slow: messages came faster than it could take them.",
  3010: "The stream has a gap for this page.",
  3011: "The server asks this page to connect anew.",
  3012: "The server heard no pong from this page.",
  3013: "This page sent too many messages.",
  3500: "The server refused the credentials: missing, wrong or expired.",
  3501: "The server found a request of this page faulty.",
  3503: "The server has thrown this page out.",
};

// What the Centrifuge dialect always writes beside a code says no more than the code.
const USUAL = {
  3001: "shutdown", 3004: "internal server error", 3005: "connection expired", 3008: "slow", 3010: "insufficient state",
  3011: "force reconnect", 3012: "no pong", 3013: "too many requests", 3500: "invalid token", 3501: "bad request",
  3503: "force disconnect",
};

/**
 * The verdict on a close.
 * @param {number} code the close code (RFC 6455, 7.4)
 * @param {string} reason what the server wrote beside it
 * @returns {{words: string, comesBack: boolean, orderedDelay: number | null}} `orderedDelay` in ms, when the
 *   server said when to come back
 */
export function verdictOn(code, reason = "") {
  const order = /reconnect_after_ms\D{0,4}(\d+)/.exec(reason);
  const isFinal = (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);
  const comesBack = code !== 1008 && code !== 1009 && !isFinal;
  const known = WORDS[code] ?? "The connection was closed.";
  const said = reason && !order && reason !== USUAL[code] ? ` It says: “${reason}”.` : "";
  return {
    words: `${known}${said} (${code})`,
    comesBack,
    orderedDelay: order && comesBack ? Math.min(Number(order[1]), LONGEST_ORDER) : null,
  };
}

/** Exponential backoff with full jitter: anything between now and a ceiling that doubles, in ms. */
export function backoff(attempt, random = Math.random) {
  return random() * Math.min(LONGEST_DELAY, BASE_DELAY * 2 ** Math.min(attempt, 16));
}
