// Names of channels, and the dialect they are spoken with: where the page finds them, how they become addresses, which
// were used lately.
// Knows no socket and builds no DOM.

export const DEFAULT_CHANNEL = "main";
const REMEMBERED = 8;
const STORAGE_KEY = "stentor.channels";
// At the end alone, and only with a dialect that there is: any other & is the channel's.
const DIALECT = /&dialect=(raw|centrifuge)$/;

/** The channel a location asks for: its fragment (`#ops`), else `?channel=ops`, else `main`. */
export function channelOf(location) {
  return decoded(location.hash.slice(1).replace(DIALECT, "")) || new URLSearchParams(location.search).get("channel") || DEFAULT_CHANNEL;
}

/** The dialect a location asks for: `#ops&dialect=centrifuge`, else `raw`. */
export function dialectOf(location) {
  return DIALECT.exec(location.hash)?.[1] ?? "raw";
}

/** Why a name cannot be a channel's, in words; null if it can. */
export function objectionTo(channel) {
  if (channel === "") return "A channel needs a name.";
  // A browser resolves these as steps in the path, however they are escaped.
  if (channel === "." || channel === "..") return "A path cannot hold this name.";
  if (!isWellFormed(channel)) return "This name holds half a character.";
  return null;
}

export function fragmentOf(channel, dialect = "raw") {
  return "#" + encodeURIComponent(channel) + (dialect === "raw" ? "" : `&dialect=${dialect}`);
}

/** The raw dialect's address of a channel on the host that served the page. */
export function rawAddress(location, channel, token = "") {
  const query = token ? "?token=" + encodeURIComponent(token) : "";
  return `${socketOrigin(location)}/ws/${encodeURIComponent(channel)}${query}`;
}

/** The Centrifuge dialect's address, the same for all channels. */
export function centrifugeAddress(location) {
  return socketOrigin(location) + "/connection/websocket";
}

/** The command line that publishes on a channel of the host that served the page. */
export function shellCommand(location, channel) {
  const url = isUsualHost(location) ? "" : ` --url ${socketOrigin(location)}`;
  return `vmstat 1 | stentor publish --channel ${shellWord(channel)}${url}`;
}

function socketOrigin({ protocol, host }) {
  return `${protocol === "https:" ? "wss" : "ws"}://${host}`;
}

// Where `stentor publish` looks if it is not told.
function isUsualHost({ protocol, host }) {
  return protocol === "http:" && (host === "127.0.0.1:8000" || host === "localhost:8000");
}

/** A word as a POSIX shell reads it back unchanged. */
export function shellWord(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
}

/** The channels joined lately, the latest first. A browser that forbids storage remembers none. */
export function recentChannels(storage) {
  try {
    const names = JSON.parse(storage.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(names) ? names.filter((name) => typeof name === "string").slice(0, REMEMBERED) : [];
  } catch {
    return [];
  }
}

export function rememberChannel(storage, channel) {
  const names = [channel, ...recentChannels(storage).filter((name) => name !== channel)].slice(0, REMEMBERED);
  try {
    storage.setItem(STORAGE_KEY, JSON.stringify(names));
  } catch {
    // Private windows and full disks refuse: the page works without.
  }
  return names;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function isWellFormed(text) {
  try {
    encodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}
