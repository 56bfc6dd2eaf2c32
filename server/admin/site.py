"""The files of the operator's page, as the internal port serves them.

Laws: only what the package brings is served, looked up by its exact name; every file says that the page may load
nothing but these files, and talk to nobody but this port.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

from server.edge.static import Asset, StaticFiles

# What the page shares with the public one.
_SHARED: Final = (
    "/favicon.svg", "/favicon.ico", "/assets/palette.css", "/assets/plot.js", "/assets/scale.js", "/assets/closing.js",
)  # fmt: skip
_CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


class Site:
    """The page and its files; `index` is what a program that is no browser gets at ``/``."""

    def __init__(self, index: str) -> None:
        self._index = index
        own, shared = StaticFiles(files("server") / "web" / "operator"), StaticFiles()
        paths = dict.fromkeys(_SHARED, shared) | dict.fromkeys(own.paths(), own)
        self._assets = {path: asset for path, folder in paths.items() if (asset := folder.lookup(path)) is not None}

    def routes(self) -> list[web.RouteDef]:
        """Make a GET route per file."""
        return [web.get("/", self._front), *(web.get(path, self._file) for path in self._assets if path != "/")]

    async def _front(self, request: web.Request) -> web.Response:
        if "text/html" in request.headers.get("Accept", ""):
            return await self._file(request)
        return web.Response(text=self._index, headers={"Vary": "Accept"})

    async def _file(self, request: web.Request) -> web.Response:
        asset = self._assets[request.path]
        if asset.is_fresh(request.headers.get("If-None-Match")):
            return web.Response(status=304, headers=_headers(asset))
        return web.Response(body=asset.body, headers=_headers(asset))


def _headers(asset: Asset) -> dict[str, str]:
    headers = {name: value for name, value in asset.headers if name != "Content-Length"}
    return headers | {"Content-Security-Policy": _CONTENT_SECURITY_POLICY, "Vary": "Accept"}
