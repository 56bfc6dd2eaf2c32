// The JavaScript SDK, told what to do: in Node by lines of JSON, in a browser by calls. The words are those of client.py.
//
// An order is {id, client, do, …} and gets one answer, {id, result} or {id, error}. What a client lives to see is
// {of, event, …}. With Protobuf payloads are bytes, and hold JSON all the same.
"use strict";

/** Returns what takes an order. `say` gets the answers and the events; `options` are more options for every client. */
function newStage(Centrifuge, { protobuf = false, say, options = {} }) {
  const EVENTS = ["connecting", "connected", "disconnected", "error", "subscribing", "subscribed", "unsubscribed",
    "publication", "join", "leave"];

  const encoded = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
  const decoded = (data) => {
    if (!protobuf || !data) return data ?? null;
    return data.length ? JSON.parse(new TextDecoder().decode(data)) : null;
  };
  const person = (info) => ({
    client: info.client,
    user: info.user,
    conn_info: decoded(info.connInfo),
    chan_info: decoded(info.chanInfo),
  });
  const publication = ({ data, offset, tags, info }) => ({
    data: decoded(data),
    offset: Number(offset ?? 0),
    tags: tags ?? {},
    ...(info ? { info: person(info) } : {}),
  });

  function described(event, context) {
    if (event === "publication") return { channel: context.channel, ...publication(context) };
    if (event === "join" || event === "leave") return { channel: context.channel, ...person(context.info) };
    const { channel, code, reason, recovered, wasRecovering, streamPosition, client, error, data } = context;
    return {
      channel,
      code: error ? error.code : code,
      reason,
      recovered,
      was_recovering: wasRecovering,
      client,
      ...(streamPosition && { offset: streamPosition.offset, epoch: streamPosition.epoch }),
      data: decoded(data),
    };
  }

  class Person {
    constructor(name, order) {
      this.name = name;
      this.client = this.ears(new Centrifuge(order.url, {
        token: order.token ?? "",
        getToken: this.giver(order.tokens),
        maxServerPingDelay: (order.ping_delay ?? 10) * 1000,
        minReconnectDelay: (order.reconnect_delay ?? 0.05) * 1000,
        maxReconnectDelay: (order.reconnect_delay ?? 0.1) * 2000,
        ...options,
      }));
    }

    ears(emitter) {
      for (const event of EVENTS) {
        emitter.on(event, (context) => say({ of: this.name, event, ...described(event, context) }));
      }
      return emitter;
    }

    /** Hands out `tokens`, one each time the SDK asks for one. */
    giver(tokens) {
      if (!tokens) return null;
      return async ({ channel }) => {
        say({ of: this.name, event: "token wanted", channel });
        return tokens.shift();
      };
    }

    connect() {
      this.client.connect();
    }

    disconnect() {
      this.client.disconnect();
    }

    subscribe({ channel, token, tokens, join_leave: joinLeave, delta }) {
      let subscription = this.client.getSubscription(channel);
      if (!subscription) {
        subscription = this.ears(this.client.newSubscription(channel, {
          token: token ?? "",
          getToken: this.giver(tokens),
          joinLeave,
          ...(delta && { delta: "fossil" }),
          maxResubscribeDelay: 200,
        }));
      }
      subscription.subscribe();
    }

    unsubscribe({ channel }) {
      this.client.getSubscription(channel).unsubscribe();
    }

    async publish({ channel, data }) {
      await this.client.publish(channel, encoded(data));
    }

    async presence({ channel }) {
      const { clients } = await this.client.presence(channel);
      return Object.fromEntries(Object.entries(clients).map(([client, info]) => [client, person(info)]));
    }

    async presence_stats({ channel }) {
      const { numClients, numUsers } = await this.client.presenceStats(channel);
      return { clients: numClients, users: numUsers };
    }

    async history({ channel, limit, since, reverse }) {
      const asked = { limit, reverse, ...(since && { since }) };
      const { offset, epoch, publications } = await this.client.history(channel, asked);
      return { offset: Number(offset), epoch, publications: publications.map(publication) };
    }

    async rpc({ method, data }) {
      return decoded((await this.client.rpc(method, encoded(data))).data);
    }

    count_deltas({ channel }) {
      return this.client.getSubscription(channel).deltaStats().numDeltaPayloads;
    }
  }

  const people = new Map();

  return async function obey(order) {
    const { id, client: name, do: wanted } = order;
    if (wanted === "connect" && !people.has(name)) people.set(name, new Person(name, order));
    try {
      const result = await people.get(name)[wanted](order);
      say({ id, result: result ?? null });
    } catch (error) {
      say({ id, error: error.code ?? String(error) });
    }
  };
}

if (typeof process !== "undefined") {
  const protobuf = process.argv.includes("protobuf");
  const { Centrifuge } = require(protobuf ? "centrifuge/build/protobuf" : "centrifuge");
  const obey = newStage(Centrifuge, {
    protobuf,
    say: (what) => process.stdout.write(`${JSON.stringify(what)}\n`),
    options: { websocket: require("ws") },
  });
  const lines = require("node:readline").createInterface({ input: process.stdin });
  lines.on("line", (line) => obey(JSON.parse(line)));
  lines.on("close", () => process.exit());
}
