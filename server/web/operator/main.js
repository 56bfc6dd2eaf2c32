// The operator's page: joins the modules. Once a second a view of the server comes in, and is shown.

import { Charts } from "./charts.js";
import { Configuration } from "./configuration.js";
import { Ending } from "./ending.js";
import { Feed } from "./feed.js";
import { bytes, count, duration, noun, percent, perSecond } from "./figures.js";
import { clockTime } from "./scale.js";
import { Series } from "./series.js";
import { Table, write } from "./table.js";
import { gravest, verdicts } from "./verdict.js";

const MINUTE = 60_000;
// How long publications must have been watched before they are called usual or not.
const USUAL_AFTER = 20;
const FEED_WORDS = { connecting: "Connecting", live: "Live", lost: "Lost; trying again" };
const LEVEL_WORDS = { good: "Good", watch: "Watch", act: "Act" };

const $ = (id) => document.getElementById(id);

const charts = new Charts($("chart-list"), $("chart-time"));
const configuration = new Configuration({ list: $("configuration-list"), none: $("configuration-none"), all: $("show-all") });
const ending = new Ending({
  dialog: $("ending"), form: $("ending-form"), client: $("ending-client"), keyLine: $("ending-key"), key: $("key"),
  refusal: $("ending-refusal"), cancel: $("ending-cancel"), button: $("ending-do"),
});
// What only grows, to be compared with what it was a minute ago.
const grown = { gaps: new Series(), restarts: new Series() };
let hasWorkers = false;

// ---- tables

const who = { name: "Client", kind: "name", text: (entry) => entry.address, hint: (entry) => `client ${entry.client}` };
const where = { name: "Channel", kind: "name", text: (entry) => entry.channel || "–" };
const worker = { name: "Worker", text: (entry) => String(entry.worker) };
const how = { name: "Dialect", kind: "words", text: (entry) => entry.dialect || "–" };

const slow = new Table($("slow-table"), "Slow clients", [
  who, where, how, worker,
  { name: "Queue", text: (entry) => `${count(entry.queue_messages)} · ${bytes(entry.queue_bytes)}`, title: "Messages and bytes that wait for it" },
  { name: "Age", text: (entry) => duration(entry.queue_age_seconds), title: "Of the oldest message that waits" },
  { name: "RTT", text: (entry) => (entry.rtt_seconds ? duration(entry.rtt_seconds) : "–"), title: "Of its last ping" },
  { name: "Here for", text: (entry) => duration(entry.connected_seconds) },
  { name: "Why", kind: "words", text: (entry) => entry.why + (entry.would_act ? "; the policy would act" : "") },
], (entry) => entry.client, { name: "Disconnect", label: (entry) => `Disconnect ${entry.address}`, act: askToEnd });

const left = new Table($("left-table"), "Recent disconnects", [
  { name: "At", text: (entry) => clockTime(new Date(entry.at * 1000)), hint: (entry) => new Date(entry.at * 1000).toISOString() },
  who, where, how, worker,
  { name: "Code", text: (entry) => String(entry.code) },
  { name: "Reason", kind: "words", text: (entry) => entry.reason || "–" },
  { name: "Queue", text: (entry) => (entry.queue_messages ? `${count(entry.queue_messages)} · ${bytes(entry.queue_bytes)}` : "–"), title: "What waited for it, and was dropped" },
  { name: "Age", text: (entry) => (entry.queue_messages ? duration(entry.queue_age_seconds) : "–"), title: "Of the oldest message that waited" },
  { name: "RTT", text: (entry) => (entry.rtt_seconds ? duration(entry.rtt_seconds) : "–"), title: "Of its last ping" },
  { name: "Loop late", text: (entry) => duration(entry.loop_lag_seconds), title: "How late the event loop was then" },
  { name: "Was here", text: (entry) => duration(entry.connected_seconds) },
], (entry) => `${entry.client} ${entry.at}`);

const channels = new Table($("channel-table"), "Channels by traffic", [
  { name: "Channel", kind: "name", text: (entry) => entry.channel },
  { name: "Publications", text: (entry) => perSecond(entry.published) },
  { name: "Listeners", text: (entry) => count(entry.listeners) },
  { name: "Deliveries", text: (entry) => perSecond(entry.delivered) },
], (entry) => entry.channel);

const workers = new Table($("worker-table"), "Processes", [
  { name: "Process", text: (entry) => (hasWorkers ? `worker ${entry.index}` : "server"), kind: "words" },
  { name: "PID", text: (entry) => String(entry.pid || "–") },
  { name: "State", kind: "words", text: (entry) => entry.state + (entry.answers ? "" : ", does not answer") },
  { name: "Connections", text: (entry) => count(entry.connections) },
  { name: "Lagging", text: (entry) => count(entry.lagging) },
  { name: "Queued", text: (entry) => bytes(entry.queue_bytes) },
  { name: "Publications", text: (entry) => perSecond(entry.published) },
  { name: "Deliveries", text: (entry) => perSecond(entry.sent) },
  { name: "Loop late", text: (entry) => duration(entry.loop_lag), title: "p99 of ten seconds" },
  { name: "Core", text: (entry) => percent(entry.cpu), title: "How much of one core it uses" },
  { name: "Memory", text: (entry) => bytes(entry.memory) },
], (entry) => `${entry.index} ${entry.pid}`);

function askToEnd(entry) {
  ending.ask(entry, [
    ["Address", entry.address], ["Client", entry.client], ["Channel", entry.channel || "–"],
    ["Queue", `${count(entry.queue_messages)} messages, ${bytes(entry.queue_bytes)}`], ["Why", entry.why],
  ]);
}

// ---- verdicts

const cards = ["Server", "Clients", "Broker", "Load"].map((name) => {
  const card = document.createElement("article");
  const parts = Object.fromEntries(["h3", "p", "small"].map((tag) => [tag, document.createElement(tag)]));
  const mark = document.createElement("span");
  mark.className = "mark";
  const title = document.createElement("span");
  title.textContent = name;
  parts.h3.append(title, mark);
  card.append(...Object.values(parts));
  return { card, mark, words: parts.p, advice: parts.small };
});
$("verdict-list").append(...cards.map(({ card }) => card));

function judge(view, now) {
  const minuteAgo = ({ points }) => (points.findLast((point) => point.time <= now - MINUTE) ?? points[0]).mean;
  grown.gaps.add(now, view.broker?.gaps ?? null);
  grown.restarts.add(now, view.restarts);
  const all = verdicts(view, {
    usual: charts.series("published").usual(now - 5000, USUAL_AFTER),
    gaps: grown.gaps.points.length > 0 ? minuteAgo(grown.gaps) : 0,
    restarts: minuteAgo(grown.restarts),
  });
  all.forEach((verdict, index) => {
    const { card, mark, words, advice } = cards[index];
    card.dataset.level = verdict.level;
    write(mark, LEVEL_WORDS[verdict.level]);
    write(words, verdict.words);
    write(advice, verdict.advice);
  });
  announce(all);
}

/** Aloud, and in the tab's title: only who is in trouble, lest it be said anew with each figure that changes. */
function announce(all) {
  const level = gravest(all);
  const troubled = all.filter((verdict) => verdict.level === level).map((verdict) => verdict.who).join(", ");
  write($("alarm"), level === "good" ? "All is well" : `${LEVEL_WORDS[level]}: ${troubled}`);
  const title = level === "good" ? "Stentor, operator" : `${level === "act" ? "!! " : "! "}${troubled} · Stentor, operator`;
  if (document.title !== title) document.title = title;
}

// ---- the feed

const feed = new Feed({
  hello(said) {
    ending.needsKey = said.needs_key;
    configuration.show(said.configuration);
    const offset = performance.now() - said.now * 1000;
    charts.addHistory(said.history.map(([at, ...values]) => [at * 1000 + offset, ...values]));
  },
  view(said) {
    const now = performance.now();
    const everyone = Object.values(said.connections).reduce((sum, each) => sum + each, 0);
    charts.add(now, { ...said, ...said.rates, connections: everyone });
    charts.refresh();
    judge(said, now);
    showServer(said);
    showLists(said, everyone);
  },
  state(name) {
    $("feed").dataset.state = name;
    write($("feed-words"), FEED_WORDS[name]);
    document.body.classList.toggle("is-stale", name !== "live");
  },
});

function showServer(view) {
  $("server").dataset.state = view.status;
  write($("server-words"), view.status[0].toUpperCase() + view.status.slice(1));
}

function showLists(view, everyone) {
  hasWorkers = view.workers.length > 1 || view.restarts > 0;
  document.body.classList.toggle("has-workers", hasWorkers);
  slow.show(view.slow);
  left.show(view.left);
  channels.show(view.busiest);
  workers.show(view.workers);
  $("slow-none").hidden = view.slow.length > 0;
  $("left-none").hidden = view.left.length > 0;
  $("channel-none").hidden = view.busiest.length > 0;
  write($("slow-count"), view.lagging > 0 ? `${count(view.lagging)} of ${count(everyone)}` : "");
  write($("channel-count"), `${noun(view.channels, "channel", "channels")}, ${noun(view.subscriptions, "subscription", "subscriptions")}`);
  const dialects = Object.entries(view.connections).filter(([, open]) => open > 0).map(([name, open]) => `${count(open)} ${name}`);
  const restarts = view.restarts > 0 ? [noun(view.restarts, "restart", "restarts")] : [];
  write($("worker-count"), [...dialects, ...restarts].join(", "));
}

feed.open();
