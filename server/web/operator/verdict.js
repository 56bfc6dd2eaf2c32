// Whether it is the server, a client, the broker or the load; and what to do. Pure: a view in, four verdicts out.

import { bytes, count, duration, noun, percent, perSecond } from "./figures.js";

// From here on a loop that is late is felt, and then the server is not keeping up (seconds, p99 of ten seconds).
const LATE = 0.05;
const TOO_LATE = 0.25;
const BUSY = 0.9;
const NEARLY_FULL = 0.9;
const HALF = 0.5;
// Newcomers per second, and as a share of those who are here, that make a storm.
const STORM = 50;
const STORM_SHARE = 0.05;
const SURGE = 3;
const SURGE_RATE = 10;

const ELSEWHERE = "It is not this process that is busy: look what else runs on this machine, or if it is paused.";
const AT_WORK = ["ready", "browned out"];
const BROWNOUT = [
  "", "newcomers are refused", "publications are gathered for longer", "laggards get the latest alone, or recover",
  "the heaviest laggards are thrown out",
];

/**
 * @typedef {"good" | "watch" | "act"} Level
 * @typedef {{who: string, level: Level, words: string, advice: string}} Verdict
 * @param {object} view as the live feed brings it
 * @param {{usual: number | null, gaps: number, restarts: number}} before publications per second as usual; what the
 *   broker's gaps and the restarts were a minute ago
 * @returns {Verdict[]}
 */
export function verdicts(view, before) {
  return [
    { who: "Server", ...server(view, before) },
    { who: "Clients", ...clients(view) },
    { who: "Broker", ...broker(view, before) },
    { who: "Load", ...load(view, before) },
  ];
}

/** @returns {Level} the gravest of them */
export function gravest(all) {
  return ["act", "watch"].find((level) => all.some((verdict) => verdict.level === level)) ?? "good";
}

function server(view, before) {
  const lost = view.workers.filter(({ state, answers }) => state === "silent" || (AT_WORK.includes(state) && !answers));
  if (view.status === "not listening") {
    return act("It does not listen: nobody can connect.", "See its log; if the port is taken, free it, or restart.");
  }
  if (lost.length > 0) {
    return act(`Worker ${lost.map((worker) => worker.index).join(", ")} does not answer.`,
      "It is replaced after seven seconds; its log tells why. If that goes on, restart the server.");
  }
  if (view.brownout > 0) {
    return act(`Brown-out, step ${view.brownout} of 4: ${BROWNOUT[view.brownout]}.`,
      "It protects those who are here. Add workers or nodes, or take load off; it goes back by itself.");
  }
  const late = `The event loop is ${duration(view.loop_lag)} late, at ${percent(view.cpu)} of a core.`;
  const isIdle = view.cpu !== null && view.cpu < HALF;
  if (view.loop_lag >= TOO_LATE) {
    return act(late, isIdle ? ELSEWHERE : "One core is not enough for this: add workers or nodes, or take load off.");
  }
  if (view.status === "draining") return watch("It is draining: newcomers go elsewhere.", "Nothing to do.");
  if (view.restarts > before.restarts) {
    return watch(`${noun(view.restarts - before.restarts, "worker was", "workers were")} replaced in the last minute.`,
      "Its last log lines tell why.");
  }
  if (view.loop_lag >= LATE) {
    return watch(late, isIdle ? ELSEWHERE : "Everyone hears a little later. If it stays, add workers.");
  }
  if (view.cpu >= BUSY) {
    return watch(`A process uses ${percent(view.cpu)} of its core, and is still in time.`, "Add workers before it is late.");
  }
  if (view.loop_lag === null) return good("It answers.");
  return good(`In time: the loop is ${duration(view.loop_lag)} late (p99), at ${percent(view.cpu)} of a core.`);
}

function clients(view) {
  const worst = view.slow[0];
  const whose = worst ? `; the worst, ${worst.address}, by ${bytes(worst.queue_bytes)}, ${duration(worst.queue_age_seconds)} old` : "";
  const { dropped = 0, slow_disconnects: thrownOut = 0 } = view.rates;
  if (view.queue_bytes >= HALF * view.max_queue_bytes) {
    return act(`${bytes(view.queue_bytes)} wait for ${noun(view.lagging, "laggard", "laggards")}: ${percent(view.queue_bytes / view.max_queue_bytes)} of the room.`,
      "At the limit the longest queues are thrown out. Disconnect the worst; if they are many, publish less.");
  }
  if (dropped > 0 || thrownOut > 0) {
    return act(`${perSecond(dropped)} deliveries are dropped; ${noun(view.lagging, "client lags", "clients lag")}${whose}.`,
      "One address: its network, disconnect it. Many: a link that all share, or more messages than they can read.");
  }
  if (view.lagging > 0) {
    return watch(`${noun(view.lagging, "client lags", "clients lag")}${whose}.`, "Nothing is lost yet. See the slow clients below.");
  }
  const everyone = total(view.connections);
  return good(everyone === 0 ? "Nobody is connected." : everyone === 1 ? "The only one keeps up." : `All ${count(everyone)} keep up.`);
}

function broker({ broker }, before) {
  if (broker === null) return watch("No process tells of it.", "");
  if (!broker.is_remote) return good("It is this process itself: nothing is lost on the way.");
  if (!broker.is_up) {
    return act("It is away, or refuses what is written.", "/readyz and the log say which, and why. Clients are told of gaps when it is back.");
  }
  const gaps = broker.gaps - before.gaps;
  if (gaps > 0) {
    return watch(`In contact again; ${noun(gaps, "gap", "gaps")} in the last minute.`, "Clients that missed something were told to recover.");
  }
  return good(broker.gaps > 0 ? `In contact; ${noun(broker.gaps, "gap", "gaps")} since the start.` : "In contact, and without a gap.");
}

function load(view, { usual }) {
  const everyone = total(view.connections);
  const { published = 0, sent = 0, opened = 0, rejected = 0 } = view.rates;
  if (everyone >= NEARLY_FULL * view.max_connections) {
    return act(`${count(everyone)} of ${count(view.max_connections)} connections are taken.`,
      "Newcomers will get 503. Raise max_connections and the open-file limit, or add a node.");
  }
  if (opened >= STORM && opened >= STORM_SHARE * everyone) {
    return watch(`A storm of newcomers: ${perSecond(opened)}.`, "Something sent them here at once. connect_rate bounds it.");
  }
  if (rejected > 0) {
    return watch(`${perSecond(rejected)} are turned away at the door.`, "stentor_connections_rejected_total tells why.");
  }
  if (usual !== null && published >= SURGE_RATE && published >= SURGE * usual) {
    const where = view.busiest[0] ? `, most on ${view.busiest[0].channel}` : "";
    return watch(`${perSecond(published)} are published, where ${perSecond(usual)} are usual${where}.`, "Find who publishes there.");
  }
  return good(`${perSecond(published)} published make ${perSecond(sent)} delivered; ${noun(everyone, "connection", "connections")}.`);
}

function total(counts) {
  return Object.values(counts).reduce((sum, each) => sum + each, 0);
}

const good = (words) => ({ level: "good", words, advice: "" });
const watch = (words, advice) => ({ level: "watch", words, advice });
const act = (words, advice) => ({ level: "act", words, advice });
