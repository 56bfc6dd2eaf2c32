// The Centrifuge dialect: Centrifugo's client protocol, version 2, as JSON, for one page on one channel.
//
// Laws: it knows its place in the channel's stream over all its connections, and asks for what it missed; live
// publications wait for the history that stands before them; nobody waits for an answer past the end of a connection.
// Knows no socket, no clock and no DOM.

import { centrifugeAddress } from "./channels.js";
import { backoff } from "./closing.js";
import { dataOf, payloadOf } from "./data.js";

const HISTORY = 50;
const MOST_HELD = 500;
const MOST_OWN_IDS = 32;
const PRESENCE_EVERY = 15_000;
// How much later than announced a ping may come.
const PING_SLACK = 10_000;
const RESUBSCRIBE_FROM = 2500;
const SETTLED_AFTER = 10_000;

const ERRORS = {
  101: "The server wants a token.",
  103: "This is not open to this page.",
  107: "The server does not take this name for a channel.",
  109: "The token has expired.",
};

/**
 * @typedef {{payload: string | ArrayBuffer, isOwn: boolean | null, author: string, time?: Date | null,
 *   origin: "live" | "history" | "recovered"}} Said `isOwn` is null where the dialect cannot know; `author` is a client
 *   id, or ""; `time` is when it was said, null if nobody knows, missing if that was now
 * @typedef {{history: boolean, presence: boolean, joins: boolean}} Features what is on for the channel
 */

/** See `Dialect` in connection.js. */
export class Centrifuge {
  canRecover = false;
  #channel;
  #token;
  #events;
  #link = null;
  #isReady = false;
  #id = 0;
  #answers = new Map();
  #client = "";
  #ownIds = [];
  #wantsPongs = false;
  /** @type {{offset: number, epoch: string} | null} */
  #position = null;
  #hasBeenThere = false;
  #isPutThere = false;
  #held = null;
  #attempt = 0;
  #watch = null;
  #hearsJoins = false;

  /**
   * @param {{location: Location, channel: string, token: string}} place
   * @param {{heard: (said: Said) => void, noted: (words: string) => void,
   *   unsaid: (payload: string, why: string) => void, asksWho: () => void,
   *   present: (clients: string[], own: string) => void, joined: (client: string) => void,
   *   left: (client: string) => void, described: (features: Features) => void}} events `unsaid` tells of what `say`
   *   took and the server did not; `asksWho` comes before each `present`, as a snapshot may be older than a join
   */
  constructor({ location, channel, token }, events) {
    this.address = centrifugeAddress(location);
    this.#channel = channel;
    this.#token = token;
    this.#events = events;
  }

  // ---- from the connection

  opened(link) {
    this.#link = link;
    this.#isReady = false;
    this.#wantsPongs = false;
    this.#id = 0;
    this.#attempt = 0;
    // A channel that the server puts its clients on by itself is recovered with the connect command.
    const subs = this.#isPutThere && this.#position ? { [this.#channel]: { recover: true, ...this.#position } } : {};
    this.#ask({ connect: { token: this.#token, name: "page", subs } }, ({ connect }) => this.#connected(connect));
  }

  received(frame) {
    let messages;
    try {
      messages = frame.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
    } catch {
      this.#link.lose("The server said something that is not of this dialect.");
      return;
    }
    for (const message of messages) {
      // What one message leads to may end the connection.
      if (this.#link !== null) this.#take(message);
    }
  }

  lost() {
    this.#link = null;
    this.#watch = null;
    this.#answers.clear();
    this.#release();
  }

  say(text) {
    const data = dataOf(text);
    const payload = payloadOf(JSON.parse(data));
    // Data goes in as it was typed: to read and write it would change the digits of its numbers.
    const command = `"publish":{"channel":${JSON.stringify(this.#channel)},"data":${data}}`;
    this.#askInJson(command, () => {}, (error) => this.#events.unsaid(payload, wordsFor(error)));
    return payload;
  }

  // ---- asking

  #ask(command, done, failed = (error) => this.#refused(error)) {
    this.#askInJson(JSON.stringify(command).slice(1, -1), done, failed);
  }

  #askInJson(member, done, failed) {
    const id = ++this.#id;
    this.#answers.set(id, { done, failed });
    this.#link.write(`{"id":${id},${member}}`);
  }

  #refused(error) {
    if (error.temporary) this.#link.lose(wordsFor(error));
    else this.#link.refuse(wordsFor(error));
  }

  // ---- what comes

  #take(message) {
    if (message.push) this.#takePush(message.push);
    else if (message.id) this.#takeAnswer(message);
    else if (this.#wantsPongs) this.#link.write("{}");
  }

  #takeAnswer(message) {
    const asked = this.#answers.get(message.id);
    this.#answers.delete(message.id);
    if (message.error) asked?.failed(message.error);
    else asked?.done(message);
  }

  #takePush({ channel, pub, join, leave, unsubscribe, disconnect }) {
    if (disconnect) this.#link.end(disconnect.code, disconnect.reason);
    else if (channel !== this.#channel) return;
    else if (pub) this.#publication(pub);
    else if (join) this.#joined(join.info.client);
    else if (leave && this.#countsPeople()) this.#events.left(leave.info.client);
    else if (unsubscribe) this.#thrownOut(unsubscribe);
  }

  #publication(pub) {
    if (this.#held === null) {
      this.#hear(pub, "live");
      return;
    }
    this.#held.push(pub);
    if (this.#held.length > MOST_HELD) this.#release();
  }

  #hear(pub, origin) {
    if (this.#position !== null && pub.offset > this.#position.offset) this.#position.offset = pub.offset;
    const author = pub.info?.client ?? "";
    this.#events.heard({
      payload: payloadOf(pub.data, pub.tags),
      isOwn: this.#ownIds.includes(author),
      author,
      time: origin === "live" ? undefined : pub.time ? new Date(pub.time) : null,
      origin,
    });
  }

  #joined(client) {
    if (client === this.#client && !this.#hearsJoins) {
      this.#hearsJoins = true;
      if (this.#watch?.isAnswered) this.#describe();
    }
    if (this.#countsPeople()) this.#events.joined(client);
  }

  /** Whether it is known who is here, or soon will be: without that, joins and leaves add up to nothing. */
  #countsPeople() {
    return this.#watch !== null && (this.#watch.isOn || !this.#watch.isAnswered);
  }

  // ---- coming to the channel

  #connected({ client, ping = 0, pong = false, subs = {} }) {
    this.#client = client;
    this.#ownIds = [client, ...this.#ownIds].slice(0, MOST_OWN_IDS);
    this.#wantsPongs = pong;
    if (ping > 0) this.#link.expect(ping * 1000 + PING_SLACK);
    this.#isPutThere = this.#channel in subs;
    if (this.#isPutThere) this.#subscribed(subs[this.#channel]);
    else this.#subscribe();
  }

  #subscribe() {
    const place = this.#position === null ? {} : { recover: true, ...this.#position };
    const command = { subscribe: { channel: this.#channel, join_leave: true, ...place } };
    this.#ask(command, ({ subscribe }) => this.#subscribed(subscribe));
  }

  #subscribed({ epoch = "", offset = 0, positioned = false, recovered = false, publications = [] }) {
    const before = this.#position;
    const isSameStream = before?.epoch === epoch;
    const missed = recovered ? publications : [];
    this.#position = positioned ? { offset, epoch } : null;
    this.canRecover = positioned;
    this.#arrive(before === null ? "What was said meanwhile is not shown." : wordsOn(recovered, missed, isSameStream));
    for (const pub of missed) this.#hear(pub, "recovered");
    if (positioned && !recovered) this.#readHistory(isSameStream ? before.offset : 0, offset);
    this.#watchPresence();
  }

  /** Tell that the page is on the channel; and, if it was before, what became of what was said meanwhile. */
  #arrive(words) {
    const said = this.#hasBeenThere ? words : "";
    this.#hasBeenThere = true;
    if (this.#isReady) this.#events.noted(said);
    else this.#link.ready(said);
    this.#isReady = true;
    const attempt = this.#attempt;
    this.#link.later(() => (this.#attempt = this.#attempt === attempt ? 0 : this.#attempt), SETTLED_AFTER);
  }

  /** Read the last of what the channel has kept, after one offset and up to another. */
  #readHistory(after, upTo) {
    if (upTo <= after) return;
    this.#held = [];
    const done = ({ history: { publications = [] } }) => {
      const isWanted = ({ offset }) => offset > after && offset <= upTo;
      for (const pub of publications.filter(isWanted).toReversed()) this.#hear(pub, "history");
      this.#release();
    };
    const command = { history: { channel: this.#channel, limit: HISTORY, reverse: true } };
    this.#ask(command, done, () => this.#release());
  }

  #release() {
    const held = this.#held ?? [];
    this.#held = null;
    for (const pub of held) this.#hear(pub, "live");
  }

  // ---- who is here

  /** Joins and leaves tell of changes, where they are on; asking now and then sets right what they missed. */
  #watchPresence() {
    this.#watch = { isOn: false, isAnswered: false };
    this.#askWho(this.#watch);
  }

  #askWho(watch) {
    if (watch !== this.#watch) return;
    const answered = (isOn) => {
      Object.assign(watch, { isOn, isAnswered: true });
      this.#describe();
    };
    const again = () => this.#link.later(() => this.#askWho(watch), PRESENCE_EVERY);
    const done = ({ presence: { presence } }) => {
      this.#events.present(Object.keys(presence), this.#client);
      answered(true);
      again();
    };
    const failed = (error) => (error.temporary ? again() : answered(false));
    this.#events.asksWho();
    this.#ask({ presence: { channel: this.#channel } }, done, failed);
  }

  #describe() {
    this.#events.described({ history: this.canRecover, presence: this.#watch.isOn, joins: this.#hearsJoins });
  }

  // ---- being taken off it

  #thrownOut({ code, reason }) {
    if (code < RESUBSCRIBE_FROM) {
      this.#link.refuse(`The server took this page off the channel: ${reason}. (${code})`);
      return;
    }
    this.#release();
    this.#watch = null;
    this.#events.noted(`The server ended the subscription: ${reason}. (${code})`);
    // At once the first time; a page that is thrown out again and again takes its time.
    const wait = this.#attempt === 0 ? 0 : backoff(this.#attempt);
    this.#attempt += 1;
    this.#link.later(() => this.#subscribe(), wait);
  }
}

function wordsOn(recovered, missed, isSameStream) {
  if (!recovered) {
    const why = isSameStream ? "the channel's history is too short" : "the channel's history has begun anew";
    return `Could not recover what was said meanwhile: ${why}.`;
  }
  if (missed.length === 0) return "Nothing was missed.";
  return `Recovered ${missed.length} missed ${missed.length === 1 ? "message" : "messages"}.`;
}

function wordsFor({ code, message }) {
  return `${ERRORS[code] ?? `The server answers: ${message}.`} (${code})`;
}
