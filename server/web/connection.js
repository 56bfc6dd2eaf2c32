// One channel's socket, kept alive: connect, listen, come back with jitter, and say at every moment how things stand.
//
// Laws: there is at most one socket; what an abandoned one still says is ignored; `send` refuses rather than queues;
// only a connection that has stayed up for a while earns a fresh start of the backoff.
// Knows no DOM, no channel and no payload.

import { backoff, verdictOn } from "./closing.js";

const CONNECT_TIMEOUT = 10_000;
const SETTLED_AFTER = 10_000;

/**
 * @typedef {{name: "connecting" | "live" | "waiting" | "refused" | "idle", words: string, until: number}} State
 *   `words` tell how the last connection ended, "" if none has; `until` is when the next attempt begins, on the
 *   clock of `performance.now()`.
 */
export class Connection {
  #address = "";
  #socket = null;
  #timer = 0;
  #attempt = 0;
  #liveSince = 0;
  #state = { name: "idle", words: "", until: 0 };
  #onState;
  #onMessage;
  #isServerUp;

  /**
   * @param {{onState: (state: State) => void, onMessage: (payload: string | ArrayBuffer) => void,
   *   isServerUp: () => Promise<boolean>}} hooks `isServerUp` is asked when a handshake fails, because a browser
   *   does not tell a server that refused from one that is not there
   */
  constructor({ onState, onMessage, isServerUp }) {
    this.#onState = onState;
    this.#onMessage = onMessage;
    this.#isServerUp = isServerUp;
  }

  get state() {
    return this.#state;
  }

  /** Leave whatever is open and connect to `address` instead. */
  open(address) {
    this.#address = address;
    this.#attempt = 0;
    this.#connect("");
  }

  /** End a wait, or a refusal, at once. Does nothing while connecting or live. */
  reconnectNow() {
    if (this.#state.name === "waiting" || this.#state.name === "refused") this.#connect(this.#state.words);
  }

  /** Whether the payload was handed to an open socket; nothing is kept for later. */
  send(payload) {
    if (this.#state.name !== "live") return false;
    this.#socket.send(payload);
    return true;
  }

  #connect(words) {
    this.#abandon();
    const socket = new WebSocket(this.#address);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#onMessage(event.data);
    socket.onclose = (event) => this.#closed(event.code, event.reason);
    this.#timer = setTimeout(() => socket.close(), CONNECT_TIMEOUT);
    this.#become("connecting", words);
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#liveSince = performance.now();
    this.#become("live", "");
  }

  #closed(code, reason) {
    const wasLive = this.#state.name === "live";
    if (wasLive && performance.now() - this.#liveSince > SETTLED_AFTER) this.#attempt = 0;
    const { words, comesBack, orderedDelay } = verdictOn(code, reason);
    this.#abandon();
    if (!comesBack) {
      this.#become("refused", words);
    } else if (wasLive) {
      this.#wait(words, orderedDelay ?? backoff(this.#attempt++));
    } else {
      this.#wait("The connection could not be opened.", backoff(this.#attempt++));
      this.#explainHandshake();
    }
  }

  #wait(words, delay) {
    this.#timer = setTimeout(() => this.#connect(words), delay);
    this.#become("waiting", words, performance.now() + delay);
  }

  async #explainHandshake() {
    const asked = this.#state;
    const isUp = await this.#isServerUp();
    if (this.#state !== asked) return;
    const words = isUp
      ? "The server is there but refused the connection: it may want a token, be full, or not allow this channel."
      : "The server cannot be reached.";
    this.#become(asked.name, words, asked.until);
  }

  #abandon() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // To close it while it still connects is no fault, but the browser would call it one on the console.
    if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket.close();
    this.#socket = null;
  }

  #become(name, words, until = 0) {
    this.#state = { name, words, until };
    this.#onState(this.#state);
  }
}
