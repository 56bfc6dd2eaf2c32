// The examples beside the feed: how else one publishes and listens on the channel that is open.

import { centrifugeAddress, rawAddress, shellCommand } from "./channels.js";

/**
 * @param {{shell: HTMLElement, script: HTMLElement}} parts
 * @param {Location} location
 */
export function showExamples(parts, location, channel, dialect) {
  write(parts.shell, [shellCommand(location, channel)]);
  write(parts.script, dialect === "raw" ? rawScript(location, channel) : centrifugeScript(location, channel));
  for (const remark of document.querySelectorAll("[data-for]")) remark.hidden = remark.dataset.for !== dialect;
}

function rawScript(location, channel) {
  return [
    `const ws = new WebSocket(${JSON.stringify(rawAddress(location, channel))});`,
    "ws.onmessage = (m) => console.log(m.data);",
    'ws.onopen = () => ws.send("hello");',
  ];
}

function centrifugeScript(location, channel) {
  return [
    'import { Centrifuge } from "centrifuge";',
    `const client = new Centrifuge(${JSON.stringify(centrifugeAddress(location))});`,
    `const channel = client.newSubscription(${JSON.stringify(channel)});`,
    'channel.on("publication", (m) => console.log(m.data));',
    "channel.subscribe();",
    "client.connect();",
    'channel.publish("hello");',
  ];
}

/** A block for each line, so that one which does not fit goes on indented; copied, they are plain lines again. */
function write(code, lines) {
  code.replaceChildren(...lines.map((line, index) => {
    const block = document.createElement("span");
    block.className = "line";
    block.textContent = index < lines.length - 1 ? line + "\n" : line;
    return block;
  }));
}
