// One channel's socket, kept alive: connect, listen, come back with jitter, and say at every moment how things stand.
//
// Laws: there is at most one socket; what an abandoned one still says, and what is said to it, is ignored; `say` refuses
// rather than queues; only a connection that has stayed up for a while earns a fresh start of the backoff.
// Knows no DOM, no channel and no payload: those are the dialect's.

import { backoff, verdictOn } from "./closing.js";

const CONNECT_TIMEOUT = 10_000;
const SETTLED_AFTER = 10_000;

/**
 * @typedef {{name: "connecting" | "live" | "waiting" | "refused" | "idle", words: string, until: number,
 *   missed: string}} State
 *   `words` tell how the last connection ended, "" if none has; `until` is when the next attempt begins, on the
 *   clock of `performance.now()`; `missed` tells, once back, what became of what was said meanwhile
 *
 * @typedef {object} Link what a dialect may do with the open socket; once that is lost all of it does nothing
 * @property {(frame: string) => void} write
 * @property {(missed: string) => void} ready the page is on its channel: the connection counts as live
 * @property {(words: string) => void} lose give the connection up, and come back
 * @property {(words: string) => void} refuse give it up for good
 * @property {(code: number, reason: string) => void} end take it as closed with this code
 * @property {(silence: number) => void} expect give it up when nothing comes for so many ms
 * @property {(callback: () => void, delay: number) => void} later a timer that ends with the socket
 *
 * @typedef {object} Dialect how one channel is spoken with; it outlives its sockets
 * @property {string} address
 * @property {boolean} canRecover whether it is told later what is said while there is no connection
 * @property {(link: Link) => void} opened
 * @property {(frame: string | ArrayBuffer) => void} received
 * @property {() => void} lost
 * @property {(text: string) => string} say only while live; returns what will be heard of it
 */
export class Connection {
  #dialect = null;
  #socket = null;
  #hasOpened = false;
  #timers = new Set();
  #attempt = 0;
  #liveSince = 0;
  #heardAt = 0;
  #state = { name: "idle", words: "", until: 0, missed: "" };
  #onState;
  #isServerUp;

  /**
   * @param {{onState: (state: State) => void, isServerUp: () => Promise<boolean>}} hooks `isServerUp` is asked when a
   *   handshake fails, because a browser does not tell a server that refused from one that is not there
   */
  constructor({ onState, isServerUp }) {
    this.#onState = onState;
    this.#isServerUp = isServerUp;
  }

  get state() {
    return this.#state;
  }

  /** Leave whatever is open and speak `dialect` instead. */
  open(dialect) {
    this.#abandon();
    this.#dialect = dialect;
    this.#attempt = 0;
    this.#connect("");
  }

  /** End a wait, or a refusal, at once. Does nothing while connecting or live. */
  reconnectNow() {
    if (this.#state.name === "waiting" || this.#state.name === "refused") this.#connect(this.#state.words);
  }

  /** Say it; returns what will be heard of it, or null when there is no connection: nothing is kept for later. */
  say(text) {
    return this.#state.name === "live" ? this.#dialect.say(text) : null;
  }

  #connect(words) {
    this.#abandon();
    const socket = new WebSocket(this.#dialect.address);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => this.#opened(socket);
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = (event) => this.#closed(verdictOn(event.code, event.reason));
    this.#hasOpened = false;
    this.#later(() => this.#giveUpConnecting(), CONNECT_TIMEOUT);
    this.#become("connecting", words);
  }

  #giveUpConnecting() {
    if (this.#state.name !== "connecting") return;
    if (this.#hasOpened) this.#closed(lostWith("The server did not answer in time."));
    else this.#socket.close();
  }

  #opened(socket) {
    this.#hasOpened = true;
    this.#dialect.opened(this.#linkTo(socket));
  }

  #linkTo(socket) {
    const whileOpen = (act) => (...args) => {
      if (this.#socket === socket) act(...args);
    };
    return {
      write: whileOpen((frame) => socket.send(frame)),
      ready: whileOpen((missed) => this.#ready(missed)),
      lose: whileOpen((words) => this.#closed(lostWith(words))),
      refuse: whileOpen((words) => this.#closed({ ...lostWith(words), comesBack: false })),
      end: whileOpen((code, reason) => this.#closed(verdictOn(code, reason))),
      expect: whileOpen((silence) => this.#expect(silence)),
      later: whileOpen((callback, delay) => this.#later(callback, delay)),
    };
  }

  #ready(missed) {
    this.#liveSince = performance.now();
    this.#become("live", "", 0, missed);
  }

  #received(frame) {
    this.#heardAt = performance.now();
    this.#dialect.received(frame);
  }

  #expect(silence) {
    const left = this.#heardAt + silence - performance.now();
    if (left > 0) this.#later(() => this.#expect(silence), left);
    else this.#closed(lostWith("The server fell silent."));
  }

  #closed({ words, comesBack, orderedDelay }) {
    const wasLive = this.#state.name === "live";
    if (wasLive && performance.now() - this.#liveSince > SETTLED_AFTER) this.#attempt = 0;
    this.#abandon();
    if (!comesBack) {
      this.#become("refused", words);
    } else if (this.#hasOpened) {
      this.#wait(words, orderedDelay ?? backoff(this.#attempt++));
    } else {
      this.#wait("The connection could not be opened.", backoff(this.#attempt++));
      this.#explainHandshake();
    }
  }

  #wait(words, delay) {
    this.#later(() => this.#connect(words), delay);
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

  #later(callback, delay) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      callback();
    }, delay);
    this.#timers.add(timer);
  }

  #abandon() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // To close it while it still connects is no fault, but the browser would call it one on the console.
    if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket.close();
    this.#dialect.lost();
  }

  #become(name, words, until = 0, missed = "") {
    this.#state = { name, words, until, missed };
    this.#onState(this.#state);
  }
}

/** @returns {ReturnType<typeof verdictOn>} */
function lostWith(words) {
  return { words, comesBack: true, orderedDelay: null };
}
