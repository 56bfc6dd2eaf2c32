// The raw dialect: a socket per channel, no envelope. Live as soon as the socket is open; what is missed stays missed.

import { rawAddress } from "./channels.js";

/** See `Dialect` in connection.js. */
export class Raw {
  canRecover = false;
  #heard;
  #link = null;
  #isBack = false;

  /**
   * @param {{location: Location, channel: string, token: string}} place
   * @param {{heard: (said: import("./centrifuge.js").Said) => void}} events
   */
  constructor({ location, channel, token }, { heard }) {
    this.address = rawAddress(location, channel, token);
    this.#heard = heard;
  }

  opened(link) {
    this.#link = link;
    link.ready(this.#isBack ? "What was said meanwhile is not shown." : "");
    this.#isBack = true;
  }

  received(payload) {
    this.#heard({ payload, isOwn: null, author: "", origin: "live" });
  }

  lost() {
    this.#link = null;
  }

  say(text) {
    this.#link.write(text);
    return text;
  }
}
