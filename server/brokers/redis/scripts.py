"""What Redis does for us in one step: Lua, run by its digest, and the keys it works on.

A channel's *meta* hash has its epoch (e), its offset (o), the incarnation of Redis that it began in (r), and the last
version (v, w). Its *stream* has what is kept, each entry under its offset. Laws: offset and epoch are assigned, the
publication is kept and published in one step, so that what is heard is in the order of the offsets; a stream that was
begun in another incarnation of Redis starts afresh with another epoch, because a Redis that was started again may have
come up with less than it had acknowledged.

In a Redis Cluster the incarnation is not what the asker last saw of it but the primary's replication id, which is new
when it was started or promoted: a replica that was promoted may lack what was acknowledged. A stream of another one is
taken on if it was moved here from one of the primaries that the asker knows (`trusted`).

The names of a channel's keys have it for a hash tag: they are in one slot of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha1
from typing import Final

# A stream that nobody published to or asked about is forgotten after so many times its retention, or this if longer …
META_TTLS: Final = 10
META_TTL: Final = 3600.0
# … and, in a database of so many keys, one on which nothing was ever published after this: whoever invents names must
# not fill Redis with them.
MANY: Final = 100_000
UNUSED_TTL: Final = 300.0

# Channels whose names are remembered.
_NAMES: Final = 4096


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the digest that it is called by."""

    source: bytes
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.source, usedforsecurity=False).hexdigest().encode())


# The epoch of the stream, made if there is none of this incarnation.
_EPOCH_OF: Final = b"""
local function epoch_of(meta, stream, fresh, incarnation)
  local known = redis.call('HMGET', meta, 'e', 'r')
  if known[1] and known[2] == incarnation then return known[1] end
  redis.call('DEL', meta, stream)
  redis.call('HSET', meta, 'e', fresh, 'r', incarnation)
  return fresh
end
"""

_EPOCH_OF_CLUSTER: Final = b"""
local function epoch_of(meta, stream, fresh, trusted)
  local known = redis.call('HMGET', meta, 'e', 'r')
  local info = redis.call('INFO', 'replication')
  if known[1] and known[2] and string.find(info, 'master_replid:' .. known[2], 1, true) then return known[1] end
  local own = string.match(info, 'master_replid:(%x%x%x%x%x%x%x%x)')
  if known[1] and known[2] and string.find(trusted, known[2], 1, true) then
    redis.call('HSET', meta, 'r', own)
    return known[1]
  end
  redis.call('DEL', meta, stream)
  redis.call('HSET', meta, 'e', fresh, 'r', own)
  return fresh
end
"""

# KEYS meta, stream[, idempotency key]. ARGV 1 name of the channel, 2 body, 3 size, 4 ttl, 5 ttl of the meta hash (ms),
# 6 a fresh epoch, 7 incarnation (in a cluster: the trusted ones), 8 version, 9 epoch of the version, 10 ttl of the
# idempotency key (ms). Returns offset, epoch, 1 if it was not published.
_PUBLISH: Final = b"""
if KEYS[3] then
  local answer = redis.call('GET', KEYS[3])
  if answer then return {string.match(answer, '%d+') or 0, string.sub(answer, -8), 1} end
end
local epoch = epoch_of(KEYS[1], KEYS[2], ARGV[6], ARGV[7])
if ARGV[8] ~= '0' then
  local version = ARGV[8]
  local last = redis.call('HMGET', KEYS[1], 'v', 'w', 'o')
  local is_above = not last[1] or #version > #last[1] or (#version == #last[1] and version > last[1])
  if not is_above and (ARGV[9] == '' or ARGV[9] == last[2]) then return {last[3] or 0, epoch, 1} end
  redis.call('HSET', KEYS[1], 'v', version, 'w', ARGV[9])
end
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
local text = string.format('%.0f', offset)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], text .. '-0', 'b', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if KEYS[3] then redis.call('SET', KEYS[3], text .. ' ' .. epoch, 'PX', ARGV[10]) end
redis.call('PUBLISH', ARGV[1], struct.pack('>I8', offset) .. epoch .. ARGV[2])
return {offset, epoch, 0}
"""

# KEYS idempotency key. ARGV 1 name of the channel, 2 message, 3 ttl of the key (ms). Returns 1 if not published.
_PUBLISH_ONCE: Final = b"""
if not redis.call('SET', KEYS[1], '', 'PX', ARGV[3], 'NX') then return 1 end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 0
"""

# KEYS meta, stream. ARGV 1 first offset, 2 last offset ("": the top), 3 limit ("": all), 4 "1" for newest first, 5 how
# many of the latest may be read (0: all), 6 ttl of the meta hash (ms), 7 its ttl among MANY keys if nothing was
# published, 8 most bytes ("": all), 9 a fresh epoch, 10 incarnation. Returns offset, epoch, entries: the first that fit
# into the bytes, but one at least. They are read by the piece, lest a whole stream is read that does not go out. That
# it is remembered for longer may be refused: it is read.
_HISTORY: Final = b"""
local epoch = epoch_of(KEYS[1], KEYS[2], ARGV[9], ARGV[10])
local offset = redis.call('HGET', KEYS[1], 'o')
local ttl = (offset or redis.call('DBSIZE') <= MANY) and ARGV[6] or ARGV[7]
if redis.call('PTTL', KEYS[1]) < tonumber(ttl) then redis.pcall('PEXPIRE', KEYS[1], ttl) end
offset = offset or 0
if ARGV[3] == '0' then return {offset, epoch, {}} end
local first = tonumber(ARGV[1])
if ARGV[5] ~= '0' then first = math.max(first, offset - ARGV[5] + 1) end
local from, to = string.format('%.0f-0', first), ARGV[2] == '' and '+' or ARGV[2] .. '-0'
local left, room, entries = tonumber(ARGV[3]) or math.huge, tonumber(ARGV[8]) or math.huge, {}
while left > 0 do
  local wanted = math.min(left, 64)
  local piece
  if ARGV[4] == '1' then
    piece = redis.call('XREVRANGE', KEYS[2], to, from, 'COUNT', wanted)
  else
    piece = redis.call('XRANGE', KEYS[2], from, to, 'COUNT', wanted)
  end
  for _, entry in ipairs(piece) do
    room = room - #entry[2][2]
    if room < 0 and #entries > 0 then return {offset, epoch, entries} end
    entries[#entries + 1] = entry
  end
  if #piece < wanted then break end
  left = left - wanted
  local last = tonumber(string.match(piece[wanted][1], '%d+'))
  if ARGV[4] == '1' then
    to = string.format('%.0f-0', last - 1)
  else
    from = string.format('%.0f-0', last + 1)
  end
end
return {offset, epoch, entries}
""".replace(b"MANY", str(MANY).encode())

_NOW: Final = b"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS presence hash. ARGV 1 ttl (ms), then client and info, as often as wanted.
PRESENT: Final = Script(
    _NOW
    + b"""
local due = struct.pack('>I8', now + ARGV[1])
for field = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[field], due .. ARGV[field + 1]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
)

# KEYS presence hash. ARGV 1 "1" to return everyone's info; else the numbers of clients and users are returned.
WHO: Final = Script(
    _NOW
    + b"""
local all = redis.call('HGETALL', KEYS[1])
local infos, users, clients, people = {}, {}, 0, 0
for field = 1, #all, 2 do
  local value = all[field + 1]
  if #value < 24 or struct.unpack('>I8', value) <= now then
    redis.call('HDEL', KEYS[1], all[field])
  elseif ARGV[1] == '1' then
    infos[#infos + 1] = string.sub(value, 9)
  else
    local user = string.sub(value, 25, 24 + struct.unpack('>I4', value, 9))
    clients = clients + 1
    if not users[user] then users[user] = true; people = people + 1 end
  end
end
if ARGV[1] == '1' then return infos end
return {clients, people}
"""
)


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts for one kind of Redis, and how a message is published there."""

    publish: Script
    publish_once: Script
    history: Script
    verb: str

    @property
    def all(self) -> tuple[Script, ...]:
        return self.publish, self.publish_once, self.history, PRESENT, WHO


def _scripts(epoch_of: bytes, verb: str) -> Scripts:
    publish, publish_once = (source.replace(b"'PUBLISH'", f"'{verb}'".encode()) for source in (_PUBLISH, _PUBLISH_ONCE))
    return Scripts(Script(epoch_of + publish), Script(publish_once), Script(epoch_of + _HISTORY), verb)


ORDINARY: Final = _scripts(_EPOCH_OF, "PUBLISH")
CLUSTER: Final = _scripts(_EPOCH_OF_CLUSTER, "SPUBLISH")


class Names:
    """The names of keys and channels under a prefix."""

    __slots__ = ("_channels", "_prefix", "kept")

    def __init__(self, prefix: str, db: int = 0) -> None:
        self._prefix = prefix
        # The same channels are published to again and again.
        self.kept = lru_cache(_NAMES)(self._kept)
        # Redis keeps keys apart by database, but not channels.
        self._channels = f"{prefix}:db{db}:c" if db else f"{prefix}:c"

    def channel(self, channel: str) -> bytes:
        return f"{self._channels}:{_tagged(channel)}".encode()

    def probe(self, tag: str) -> tuple[bytes, bytes, bytes]:
        """Return the names of a probe's channel, meta hash and stream."""
        channel, meta, stream = (f"{self._prefix}:probe{kind}:{{{tag}}}".encode() for kind in ("", ":m", ":s"))
        return channel, meta, stream

    def _kept(self, channel: str) -> tuple[bytes, bytes, bytes]:
        """Return the names of a channel, its meta hash and its stream."""
        return self.channel(channel), self.meta(channel), self.stream(channel)

    def meta(self, channel: str) -> bytes:
        return f"{self._prefix}:m:{_tagged(channel)}".encode()

    def stream(self, channel: str) -> bytes:
        return f"{self._prefix}:s:{_tagged(channel)}".encode()

    def presence(self, channel: str) -> bytes:
        return f"{self._prefix}:p:{_tagged(channel)}".encode()

    def key(self, channel: str, key: str) -> bytes:
        return f"{self._prefix}:i:{_tagged(channel)}:{key}".encode()


def is_for_nodes(channel: str) -> bool:
    """Tell if a channel is the nodes' own: it has a space, which no client's channel has."""
    return " " in channel


def _tagged(channel: str) -> str:
    """Write a channel as a hash tag. One that begins with a } would be an empty tag: its names get another one."""
    return f"{{{channel}}}" if channel[:1] != "}" else f":{{-}}{channel}"
