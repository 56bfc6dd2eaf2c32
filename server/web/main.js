// The page: joins the modules. What comes in goes to the feed and the chart, what is typed goes out.

import {
  channelOf, fragmentOf, objectionTo, recentChannels, rememberChannel, shellCommand, socketAddress,
} from "./channels.js";
import { Chart } from "./chart.js";
import { Connection } from "./connection.js";
import { copyText } from "./copying.js";
import { Echoes } from "./echoes.js";
import { Feed } from "./feed.js";
import { Meter } from "./meter.js";
import { NumberReader } from "./numbers.js";
import { shortSpan } from "./scale.js";
import { Status } from "./status.js";
import { Tabs } from "./tabs.js";
import { Traces } from "./traces.js";

const STEADY = 3;
const ECHO_PATIENCE = 30_000;
const QUIET_RATE = 2;

const $ = (id) => document.getElementById(id);

const status = new Status({
  state: $("state"), word: $("state-word"), countdown: $("countdown"), banner: $("banner"), words: $("banner-words"),
  lag: $("lag"), rate: $("rate"), total: $("total"),
});
const feed = new Feed($("feed"), $("newer"), () => ($("feed-empty").hidden = true));
const traces = new Traces();
const chart = new Chart(traces, {
  panel: $("panel-chart"), legend: $("legend"), plots: $("plots"), readout: $("readout"), layout: $("layout"),
  empty: $("chart-empty"),
});
const tabs = new Tabs(
  { feed: [$("tab-feed"), $("panel-feed")], chart: [$("tab-chart"), $("panel-chart")], more: [$("tab-more"), null] },
  viewChanged,
);
const connection = new Connection({ onState: connectionChanged, onMessage: heard, isServerUp });

let channel = "";
let token = "";
let visit = newVisit();

// ---- joining

/** What is known about one stay on one channel. Times are those of `performance.now()`. */
function newVisit() {
  return {
    echoes: new Echoes(), meter: new Meter(), numbers: new NumberReader(),
    numericRun: 0, lag: null, isLive: false, lostAt: null,
  };
}

function join(name) {
  const objection = objectionTo(name);
  $("objection").textContent = objection ?? "";
  if (objection !== null) return;
  channel = name;
  visit = newVisit();
  feed.clear();
  chart.clear();
  $("feed-empty").hidden = false;
  $("tab-news").hidden = true;
  if (!tabs.isChosen) tabs.show("feed");
  $("channel").value = channel;
  describeChannel();
  showRecent(rememberChannel(localStorageOrNone(), channel));
  connection.open(socketAddress(location, channel, token));
}

function describeChannel() {
  const address = socketAddress(location, channel);
  document.title = `#${channel} · Stentor`;
  for (const place of document.querySelectorAll(".channel-name")) place.textContent = "#" + channel;
  $("words").placeholder = `Say something on #${channel}`;
  showExample($("shell-example"), [shellCommand(location, channel)]);
  showExample($("script-example"), [
    `const ws = new WebSocket(${JSON.stringify(address)});`,
    "ws.onmessage = (m) => console.log(m.data);",
    'ws.onopen = () => ws.send("hello");',
  ]);
}

/** A block for each line, so that one which does not fit goes on indented; copied, they are plain lines again. */
function showExample(code, lines) {
  code.replaceChildren(...lines.map((line, index) => {
    const block = document.createElement("span");
    block.className = "line";
    block.textContent = index < lines.length - 1 ? line + "\n" : line;
    return block;
  }));
}

function showRecent(names) {
  $("recent").hidden = names.length < 2;
  $("recent-list").replaceChildren(...names.map((name) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = fragmentOf(name);
    link.textContent = "#" + name;
    if (name === channel) link.setAttribute("aria-current", "true");
    item.append(link);
    return item;
  }));
  $("known").replaceChildren(...names.map((name) => new Option(name)));
}

function localStorageOrNone() {
  try {
    return localStorage;
  } catch {
    // A browser that forbids storage throws at the very name.
    return null;
  }
}

// ---- the connection

function connectionChanged(state) {
  status.showConnection(state);
  const wasLive = visit.isLive;
  visit.isLive = state.name === "live";
  if (visit.isLive) returned();
  else if (wasLive) lost(state.words);
}

function lost(words) {
  visit.lostAt = performance.now();
  note(words);
  noteUnheard(visit.echoes.expire(Infinity, 0));
  traces.gap();
}

function returned() {
  $("refusal").textContent = "";
  if (visit.lostAt === null) return;
  note(`Back after ${shortSpan(performance.now() - visit.lostAt)}. What was said meanwhile is not shown.`);
  visit.lostAt = null;
}

async function isServerUp() {
  try {
    return (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(5000) })).ok;
  } catch {
    return false;
  }
}

// ---- what comes in

function heard(payload) {
  const now = performance.now();
  const own = typeof payload === "string" ? visit.echoes.heard(payload, now) : null;
  visit.meter.count(now);
  if (own !== null) visit.lag = own;
  feed.add({ time: new Date(), payload, mark: own === null ? "" : `you · ${shortSpan(own)}` });
  if (typeof payload === "string") chartNumbers(payload, now);
}

function chartNumbers(text, now) {
  const samples = visit.numbers.read(text);
  visit.numericRun = samples.length > 0 ? visit.numericRun + 1 : 0;
  if (visit.numericRun === 0) return;
  for (const sample of samples) traces.add(now, sample);
  chart.refresh();
  if (visit.numericRun < STEADY || tabs.view === "chart") return;
  if (tabs.isChosen) $("tab-news").hidden = false;
  else tabs.show("chart");
}

function note(text) {
  feed.add({ time: new Date(), notice: text });
}

function noteUnheard(payloads) {
  for (const payload of payloads) note(`Not heard back, so perhaps nobody heard it: “${payload}”`);
}

// ---- what goes out

function say(event) {
  event.preventDefault();
  const words = $("words");
  const text = wellFormed(words.value);
  if (text === "") return;
  if (!connection.send(text)) {
    $("refusal").textContent = "Not sent: there is no connection. Your words are kept here.";
    return;
  }
  visit.echoes.said(text, performance.now());
  words.value = "";
  $("refusal").textContent = "";
  words.focus();
}

/** A socket sends half a character as U+FFFD; what is compared with the echo must be what was sent. */
function wellFormed(text) {
  return new TextDecoder().decode(new TextEncoder().encode(text));
}

// ---- the page

function viewChanged(view) {
  if (view === "chart") {
    $("tab-news").hidden = true;
    chart.refresh();
  } else if (view === "feed") {
    feed.shown();
  }
}

function tick() {
  const now = performance.now();
  const { echoes, meter, lag } = visit;
  noteUnheard(echoes.expire(now, ECHO_PATIENCE));
  const rate = meter.rate(now);
  status.tick(now);
  status.showLag(lag, echoes.waiting(now));
  status.showRate(rate, meter.total);
  // Read aloud what is said now and then; not a torrent.
  $("feed").setAttribute("aria-live", rate <= QUIET_RATE ? "polite" : "off");
}

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("channel").value.trim();
  const objection = objectionTo(name);
  if (objection !== null || fragmentOf(name) === location.hash) join(name);
  else location.hash = fragmentOf(name);
});
addEventListener("hashchange", () => join(channelOf(location)));
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  join(channel);
});
$("reconnect").addEventListener("click", () => connection.reconnectNow());
addEventListener("online", () => connection.reconnectNow());
$("say").addEventListener("submit", say);
$("words").addEventListener("keydown", (event) => {
  // Enter also ends a composition (Japanese, Chinese, Korean): that one is not for us.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) say(event);
});
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", () => copyText($(button.dataset.copies), button));
}

status.showConnection(connection.state);
showRecent(recentChannels(localStorageOrNone()));
join(channelOf(location));
setInterval(tick, 250);
