"""Rates and ceilings. Time is an argument, in seconds of any monotonic clock."""

from collections import Counter
from ipaddress import IPv6Address, ip_address


class TokenBucket:
    """Lets `rate` events a second pass, and `burst` at once: by default what one second allows, and at least one."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, now: float, burst: float = 0.0) -> None:
        self.rate = rate
        self.burst = burst or max(rate, 1.0)
        self._tokens = self.burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token; false when there is none."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class AddressCeiling:
    """At most `limit` at a time from one address; a whole /64 counts as one address in IPv6. 0 means no limit."""

    __slots__ = ("_open", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: Counter[str] = Counter()

    def full(self, address: str) -> bool:
        return bool(self.limit) and self._open[address_key(address)] >= self.limit

    def enter(self, address: str) -> None:
        if self.limit:
            self._open[address_key(address)] += 1

    def leave(self, address: str) -> None:
        if not self.limit:
            return
        key = address_key(address)
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def __len__(self) -> int:
        return len(self._open)


def address_key(address: str) -> str:
    """Name what one subscriber line owns: the IPv4 address, or the /64 of the IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
