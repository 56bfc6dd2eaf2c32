"""The demo page's files: read once at the start, answered from memory.

Laws: only what was in the folder at the start is ever served, looked up by its exact name, so no path can lead
out of it; every asset carries the same strict headers, under which the page can run and load nothing but its own
files; a file of a kind that is not listed in `CONTENT_TYPES` is not served.

It knows nothing of sockets or of requests: whoever answers a request asks `lookup` and sends what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # 'self' covers ws: and wss: in today's browsers only.
        "connect-src 'self' ws: wss:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to be sent.

    `headers` says everything about the body (type, length, tag) and what a browser may do with it.
    """

    content_type: str
    body: bytes
    etag: str

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("ETag", self.etag),
            ("Cache-Control", "no-cache"),
            ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        )

    def is_fresh(self, if_none_match: str | None) -> bool:
        """Whether the client holds this very body already, so that 304 is the answer (RFC 9110, 13.1.2).

        `if_none_match` is the header's value: `*`, or tags with commas between them, compared weakly.
        """
        if if_none_match is None:
            return False
        tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
        return any(tag in ("*", self.etag) for tag in tags)


class StaticFiles:
    """The folder of the page, by the paths under which a browser asks for it."""

    __slots__ = ("_assets",)

    def __init__(self, folder: Traversable | None = None) -> None:
        """Read every file of `folder`, by default the package's own page.

        Raises OSError if one cannot be read.
        """
        assets = _read(folder if folder is not None else files("server") / "web")
        self._assets = {f"/assets/{name}": asset for name, asset in assets.items()}
        for path, name in (
            ("/", "index.html"),
            ("/favicon.svg", "favicon.svg"),
            ("/favicon.ico", "favicon.svg"),
        ):
            if name in assets:
                self._assets[path] = assets[name]

    def lookup(self, path: str) -> Asset | None:
        """The asset behind a request's path, or None. A query (`/?channel=main`) is looked past."""
        return self._assets.get(path.partition("?")[0])

    def paths(self) -> frozenset[str]:
        """Every path that `lookup` answers."""
        return frozenset(self._assets)


def _read(folder: Traversable) -> dict[str, Asset]:
    assets = {}
    for file in folder.iterdir():
        content_type = CONTENT_TYPES.get(PurePosixPath(file.name).suffix)
        if content_type is None or not file.is_file():
            continue
        body = file.read_bytes()
        assets[file.name] = Asset(content_type, body, f'"{sha256(body).hexdigest()[:32]}"')
    return assets
