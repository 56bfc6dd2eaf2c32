"""The page's files as they are served: which paths exist, and under which headers."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest

from server.edge.static import StaticFiles

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_bytes(b"<!doctype html><p>\xc3\xa9")
    (tmp_path / "page.css").write_bytes(b"p{}")
    (tmp_path / "page.js").write_bytes(b"1")
    (tmp_path / "favicon.svg").write_bytes(b"<svg/>")
    (tmp_path / "notes.txt").write_bytes(b"not for the world")
    (tmp_path / "inner.js").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html><p>\xc3\xa9"),
        ("/?channel=main&x=%2F", "text/html; charset=utf-8", b"<!doctype html><p>\xc3\xa9"),
        ("/assets/page.css", "text/css; charset=utf-8", b"p{}"),
        ("/assets/page.js", "text/javascript; charset=utf-8", b"1"),
        ("/favicon.svg", "image/svg+xml; charset=utf-8", b"<svg/>"),
        ("/favicon.ico", "image/svg+xml; charset=utf-8", b"<svg/>"),
    ],
)
def test_a_file_of_the_page_is_found(folder: Path, path: str, content_type: str, body: bytes) -> None:
    asset = StaticFiles(folder).lookup(path)
    assert asset is not None
    assert asset.content_type == content_type
    assert asset.body == body


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/index.html",
        "/assets/",
        "/assets/notes.txt",
        "/assets/inner.js",
        "/assets/PAGE.js",
        "/assets/../static.py",
        "/assets/%2e%2e/static.py",
        "/assets/page.js/",
        "/assets//etc/passwd",
        "/assets/page.js\x00",
    ],
)
def test_nothing_else_is(folder: Path, path: str) -> None:
    assert StaticFiles(folder).lookup(path) is None


def test_every_asset_is_under_the_same_law(folder: Path) -> None:
    static = StaticFiles(folder)
    assert len(static.paths()) == 7
    for path in static.paths():
        asset = static.lookup(path)
        assert asset is not None
        assert dict(asset.headers) == {
            "Content-Type": asset.content_type,
            "Content-Length": str(len(asset.body)),
            "ETag": f'"{sha256(asset.body).hexdigest()[:32]}"',
            "Cache-Control": "no-cache",
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }


def test_files_are_read_at_the_start_and_never_again(folder: Path) -> None:
    static = StaticFiles(folder)
    (folder / "page.js").write_bytes(b"2")
    (folder / "late.js").write_bytes(b"3")
    asset = static.lookup("/assets/page.js")
    assert asset is not None
    assert asset.body == b"1"
    assert static.lookup("/assets/late.js") is None


def test_a_body_that_the_client_holds_is_fresh(folder: Path) -> None:
    asset = StaticFiles(folder).lookup("/")
    assert asset is not None
    assert asset.is_fresh(asset.etag)
    assert asset.is_fresh(f'"other", W/{asset.etag}')
    assert asset.is_fresh("*")
    assert not asset.is_fresh(None)
    assert not asset.is_fresh("")
    assert not asset.is_fresh('"other"')
    assert not asset.is_fresh(asset.etag.strip('"'))


def test_the_package_brings_its_page_whole() -> None:
    static = StaticFiles()
    names = {file.name for file in (files("server") / "web").iterdir() if file.is_file()}
    assert {"index.html", "favicon.svg"} <= names
    assert {f"/assets/{name}" for name in names} == static.paths() - {"/", "/favicon.svg", "/favicon.ico"}


def test_what_the_page_names_is_there() -> None:
    static = StaticFiles()
    index = static.lookup("/")
    assert index is not None
    named = re.findall(r'(?:src|href)="(/[^"#]*)"', index.body.decode())
    assert any(name.endswith(".js") for name in named)
    assert any(name.endswith(".css") for name in named)
    for path in sorted(static.paths()):
        asset = static.lookup(path)
        assert asset is not None
        if path.endswith(".js"):
            named += [f"/assets/{name}" for name in re.findall(r'from "\./([^"]+)"', asset.body.decode())]
    assert [name for name in named if static.lookup(name) is None] == []


def test_the_page_needs_no_exception_from_its_policy() -> None:
    index = StaticFiles().lookup("/")
    assert index is not None
    text = index.body.decode()
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    assert re.findall(r"https?://", text) == []
