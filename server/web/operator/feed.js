// The live feed: a WebSocket of this port, and how it is found again when it is lost.

import { backoff } from "./closing.js";

/** A server that says nothing for so long, while it should every second, is taken for gone. */
const SILENCE = 8000;

export class Feed {
  #events;
  #socket = null;
  #attempt = 0;
  #timer = 0;

  /** @param {{hello: (said: object) => void, view: (said: object) => void, state: (name: string) => void}} events */
  constructor(events) {
    this.#events = events;
    addEventListener("online", () => this.#connectNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#connectNow());
  }

  open() {
    this.#events.state("connecting");
    const { protocol, host } = location;
    const socket = (this.#socket = new WebSocket(`${protocol === "https:" ? "wss" : "ws"}://${host}/live`));
    this.#await(SILENCE, () => socket.close());
    socket.onmessage = ({ data }) => this.#heard(socket, JSON.parse(data));
    socket.onclose = () => this.#lost(socket);
  }

  #heard(socket, said) {
    if (socket !== this.#socket) return;
    this.#attempt = 0;
    this.#await(SILENCE, () => this.#lost(socket));
    if (said.kind === "hello") this.#events.hello(said);
    if (said.kind === "view") {
      this.#events.state("live");
      this.#events.view(said);
    }
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    socket.close();
    this.#events.state("lost");
    this.#await(backoff(Math.min(this.#attempt++, 4)), () => this.open());
  }

  #connectNow() {
    if (this.#socket === null) this.#await(0, () => this.open());
  }

  #await(milliseconds, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, milliseconds);
  }
}
