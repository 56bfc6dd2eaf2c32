// The page: joins the modules. What comes in goes to the feed and the chart, what is typed goes out.

import { Centrifuge } from "./centrifuge.js";
import { channelOf, dialectOf, fragmentOf, objectionTo, rememberChannel } from "./channels.js";
import { Chart } from "./chart.js";
import { Connection } from "./connection.js";
import { copyText } from "./copying.js";
import { Echoes } from "./echoes.js";
import { showExamples } from "./examples.js";
import { Feed } from "./feed.js";
import { Meter } from "./meter.js";
import { showMissing } from "./missing.js";
import { NumberReader } from "./numbers.js";
import { People, shortId } from "./people.js";
import { Presence } from "./presence.js";
import { Raw } from "./raw.js";
import { showRecent } from "./recent.js";
import { shortSpan } from "./scale.js";
import { Status } from "./status.js";
import { Tabs } from "./tabs.js";
import { Traces } from "./traces.js";

const STEADY = 3;
const ECHO_PATIENCE = 30_000;
const QUIET_RATE = 2;
const DIALECTS = { raw: Raw, centrifuge: Centrifuge };

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
const people = new People({ line: $("people"), count: $("people-count"), list: $("people-list") });
const recentParts = { section: $("recent"), list: $("recent-list"), known: $("known") };
const connection = new Connection({ onState: connectionChanged, isServerUp });

let channel = "";
let dialect = "raw";
let token = "";
let visit = newVisit();
let peopleFrame = 0;

// ---- joining

/** By way of the address, where it changes, so that it can be gone back to. */
function goTo(name, wanted) {
  const fragment = fragmentOf(name, wanted);
  if (objectionTo(name) !== null || fragment === location.hash) join(name, wanted);
  else location.hash = fragment;
}

/** What is known about one stay on one channel. Times are those of `performance.now()`. */
function newVisit() {
  return {
    echoes: new Echoes(), meter: new Meter(), numbers: new NumberReader(), presence: new Presence(),
    numericRun: 0, lag: null, isLive: false, lostAt: null, spoken: null, client: "",
  };
}

function join(name, wanted) {
  const objection = objectionTo(name);
  $("objection").textContent = objection ?? "";
  if (objection !== null) return;
  channel = name;
  dialect = wanted;
  visit = newVisit();
  feed.clear();
  chart.clear();
  people.hide();
  $("missing").hidden = true;
  $("feed-empty").hidden = false;
  $("tab-news").hidden = true;
  if (!tabs.isChosen) tabs.show("feed");
  $("channel").value = channel;
  describeChannel();
  showRecent(recentParts, rememberChannel(localStorageOrNone(), channel), channel, dialect);
  visit.spoken = new DIALECTS[dialect]({ location, channel, token }, eventsOf(visit));
  connection.open(visit.spoken);
}

/** What a dialect tells of; a channel that was left has nothing more to tell. */
function eventsOf(own) {
  const during = (act) => (...told) => {
    if (visit === own) act(...told);
  };
  return {
    heard: during(heard),
    noted: during(note),
    unsaid: during(unsaid),
    asksWho: during(() => own.presence.asked()),
    present: during((clients, client) => {
      own.presence.snapshot(clients);
      own.client = client;
      showPeople();
    }),
    joined: during((client) => {
      own.presence.joined(client);
      showPeople();
    }),
    left: during((client) => {
      own.presence.left(client);
      showPeople();
    }),
    described: during((features) => showMissing($("missing"), $("missing-list"), features)),
  };
}

function describeChannel() {
  document.title = `#${channel} · Stentor`;
  for (const place of document.querySelectorAll(".channel-name")) place.textContent = "#" + channel;
  for (const button of $("dialect").children) {
    button.setAttribute("aria-pressed", String(button.dataset.dialect === dialect));
  }
  $("words").placeholder = `Say something on #${channel}`;
  showExamples({ shell: $("shell-example"), script: $("script-example") }, location, channel, dialect);
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
  if (visit.isLive) returned(state.missed);
  else if (wasLive) lost(state.words);
}

function lost(words) {
  visit.lostAt = performance.now();
  people.hide();
  visit.presence = new Presence();
  note(words);
  // Where what is missed comes later, one's own words may yet be heard.
  if (!visit.spoken.canRecover) noteUnheard(visit.echoes.expire(Infinity, 0));
  traces.gap();
}

function returned(missed) {
  $("refusal").textContent = "";
  if (visit.lostAt === null) return;
  note(`Back after ${shortSpan(performance.now() - visit.lostAt)}. ${missed}`);
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

/** @param {import("./centrifuge.js").Said} said */
function heard({ payload, isOwn, author, origin, time = new Date() }) {
  const now = performance.now();
  const trip = isOwn !== false && typeof payload === "string" ? visit.echoes.heard(payload, now) : null;
  const isLive = origin === "live";
  if (isLive && trip !== null) visit.lag = trip;
  if (origin !== "history") visit.meter.count(now);
  feed.add({
    time, payload, isOwn: isOwn ?? trip !== null, isPast: origin === "history",
    mark: markOf(isOwn ?? trip !== null, author, isLive ? trip : null, origin),
  });
  // Nobody knows when the past was, so it has no place on the chart.
  if (isLive && typeof payload === "string") chartNumbers(payload, now);
}

function markOf(isOwn, author, trip, origin) {
  const who = isOwn ? "you" : shortId(author);
  const how = origin === "live" ? (trip === null ? "" : shortSpan(trip)) : origin;
  return [who, how].filter((part) => part !== "").join(" · ");
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

// ---- who is here

/** Soon, and once for all who come and go meanwhile. */
function showPeople() {
  if (peopleFrame !== 0) return;
  peopleFrame = requestAnimationFrame(() => {
    peopleFrame = 0;
    if (visit.presence.isKnown) people.show(visit.presence.clients, visit.client);
  });
}

// ---- what goes out

function say(event) {
  event.preventDefault();
  const words = $("words");
  const text = wellFormed(words.value);
  if (text === "") return;
  const payload = connection.say(text);
  if (payload === null) {
    $("refusal").textContent = "Not sent: there is no connection. Your words are kept here.";
    return;
  }
  visit.echoes.said(payload, performance.now());
  words.value = "";
  $("refusal").textContent = "";
  words.focus();
}

/** The server did not take what was said. */
function unsaid(payload, why) {
  visit.echoes.heard(payload, performance.now());
  note(`Not delivered: “${payload}”. ${why}`);
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
  goTo($("channel").value.trim(), dialect);
});
$("dialect").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) goTo(channel, button.dataset.dialect);
});
addEventListener("hashchange", () => join(channelOf(location), dialectOf(location)));
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  join(channel, dialect);
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
join(channelOf(location), dialectOf(location));
setInterval(tick, 250);
