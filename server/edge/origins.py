"""Which web pages may connect. RFC 6454; CWE-1385 (cross-site WebSocket hijacking).

Laws: compared as a whole and exactly as written: scheme, host, port, case. A request without Origin comes from no
browser and passes; one with two has been tampered with and does not.
"""

import re
from collections.abc import Sequence


class Origins:
    """Allowed origins: ``same-origin``, ``*``, or a list in which ``*`` stands for one or more labels of the host."""

    def __init__(self, allowed: Sequence[str], *, tls: bool = False) -> None:
        self._any = "*" in allowed
        self._same = "same-origin" in allowed
        # A proxy in front of a plain server may speak TLS to the browser; in front of a TLS server nobody unwraps it.
        self._schemes = ("https",) if tls else ("https", "http")
        self._patterns = [_pattern(origin) for origin in allowed if origin not in ("*", "same-origin")]

    def allow(self, origins: Sequence[str], hosts: Sequence[str], scheme: str | None = None) -> bool:
        """Judge the Origin headers of a request, given its Host headers, and the scheme if a proxy has named it."""
        if not origins or self._any:
            return True
        if len(origins) > 1:
            return False
        origin = origins[0]
        schemes = self._schemes if scheme is None else (scheme,)
        if self._same and len(hosts) == 1 and any(origin == f"{each}://{hosts[0]}" for each in schemes):
            return True
        return any(pattern.fullmatch(origin) for pattern in self._patterns)


def _pattern(origin: str) -> re.Pattern[str]:
    return re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*".join(re.escape(part) for part in origin.split("*")))
