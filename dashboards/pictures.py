"""`make pictures`: draw every panel of the dashboards from real data, and put them into the documents.

    python -m dashboards.pictures [seconds]

Two servers, a load test and a Prometheus that watches them run for some time, as in the tests of the dashboards. Then
each panel's query is asked, and drawn where the panel stands. The pictures say of themselves that they are no
screenshots of Grafana.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
from playwright.sync_api import sync_playwright

from dashboards import png
from dashboards.build import FOLDER
from dashboards.curves import Json, Line, named
from dashboards.drawing import draw
from dashboards.loadtest import LOADTEST
from dashboards.overview import OVERVIEW

# The stage is that of the tests, so that what is drawn is what is tested.
from tests.dashboards.queries import filled_in
from tests.observatory import observatory
from tests.prometheus import Prometheus

PICTURES: Final = Path(__file__).resolve().parent.parent / "docs" / "pictures"
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
LABEL: Final = "drawn by Stentor from Prometheus data; not a screenshot of Grafana"
SECONDS: Final = 90
RISE: Final = 8  # seconds until rates are rates
STEP: Final = 1
WINDOW: Final = "6s"
WIDTH: Final = 1240
UNIT: Final = 30  # pixels of a row of the grid
GAP: Final = 6
_TITLE: Final = 24

_STYLE: Final = """
body { margin: 0; padding: 14px; background: #111217; color: #ccccdc; font: 12px Inter, "DejaVu Sans", sans-serif; }
h1 { font-size: 17px; margin: 0; } header { display: flex; align-items: baseline; justify-content: space-between; }
header span { color: #9fa7b3; } #page { position: relative; margin-top: 10px; }
.panel { position: absolute; box-sizing: border-box; background: #181b1f; border: 1px solid #2a2d33; }
.panel { border-radius: 3px; overflow: hidden; }
.panel h2 { font-size: 12px; font-weight: 600; margin: 0; padding: 5px 8px 3px; white-space: nowrap; }
.row { position: absolute; font-size: 14px; font-weight: 600; } .row::before { content: "⌄ "; color: #9fa7b3; }
.grid { stroke: #2a2d33; } svg { display: block; } svg text { font-size: 10.5px; fill: #9fa7b3; }
svg .legend { fill: #ccccdc; } .end { text-anchor: end; } .right { text-anchor: end; } .middle { text-anchor: middle; }
svg .state { fill: #111217; font-weight: 600; } .nothing { text-align: center; color: #9fa7b3; padding-top: 20px; }
.tile { position: relative; color: #fff; box-shadow: inset 0 0 0 999px #0003; }
.tile { text-shadow: 0 1px 3px #0008; height: 100%; }
.tile b { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 4px 12px; }
tr { border-bottom: 1px solid #2a2d33; } th { color: #8ab8ff; }
"""


def main(arguments: list[str]) -> None:
    seconds = int(arguments[0]) if arguments else SECONDS
    with tempfile.TemporaryDirectory(prefix="stentor-pictures-") as folder:
        with observatory(Path(folder), subscribers=120) as on:
            time.sleep(RISE)
            began = time.time()
            time.sleep(seconds)
            # The load test's is for one server and one load test, as on anyone's page.
            loaded = f"127.0.0.1:({on.cluster.internal_port}|{on.loadtest_port})"
            pages = {
                OVERVIEW.uid: page(_read(OVERVIEW.uid), on.prometheus, began),
                LOADTEST.uid: page(_read(LOADTEST.uid), on.prometheus, began, loaded),
            }
        for uid, text in pages.items():
            _photograph(text, Path(folder, f"{uid}.html"), PICTURES / f"{uid}.png")


def page(dashboard: Json, prometheus: Prometheus, began: float, instance: str = ".+") -> str:
    """A dashboard as an HTML page, drawn from what Prometheus has seen since `began`; collapsed rows are opened.

    Args:
        instance: what is chosen above the dashboard, as a regular expression.
    """
    span = (began, time.time())
    parts, y = [], 0
    for panel, at in _opened(dashboard):
        left, top = at["x"] * WIDTH / 24, at["y"] * UNIT
        y = max(y, top + at["h"] * UNIT)
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="left:4px;top:{top + 7}px">{escape(panel["title"])}</div>')
            continue
        width, height = int(at["w"] * WIDTH / 24 - GAP), at["h"] * UNIT - GAP
        inside = draw(panel, _lines(panel, prometheus, span, instance), span, width - 2, height - _TITLE - 2)
        style = f"left:{left:.0f}px;top:{top}px;width:{width}px;height:{height}px"
        parts.append(f'<div class="panel" style="{style}"><h2>{escape(panel["title"])}</h2>{inside}</div>')
    header = f"<header><h1>{escape(dashboard['title'])}</h1><span>{LABEL}</span></header>"
    body = f'{header}<div id="page" style="width:{WIDTH}px;height:{y}px">{"".join(parts)}</div>'
    return f'<!doctype html><meta charset="utf-8"><title>{dashboard["title"]}</title><style>{_STYLE}</style>{body}'


def _read(uid: str) -> Json:
    found: Json = json.loads((FOLDER / f"{uid}.json").read_text())
    return found


def _opened(dashboard: Json) -> Iterator[tuple[Json, dict[str, int]]]:
    """Panels and rows with their places, as they are when all rows are open."""
    lower = 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        yield panel, {**place, "y": place["y"] + lower}
        inside = panel.get("panels", [])
        for each in inside:
            yield each, {**each["gridPos"], "y": each["gridPos"]["y"] + lower}
        if inside:
            lower += max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in inside) - place["y"] - 1


def _lines(panel: Json, prometheus: Prometheus, span: tuple[float, float], instance: str) -> list[Line]:
    found: list[Line] = []
    for index, target in enumerate(panel["targets"]):
        query = filled_in(target["expr"], {"job": ".+", "instance": instance, "__rate_interval": WINDOW})
        answer: Any = (
            prometheus.query(query, span[1]) if target["instant"] else prometheus.query_range(query, *span, STEP)
        )
        found += [named(index, target.get("legendFormat", ""), each.labels, each.points) for each in answer]
    return found


#: Let the browser, which can, read its own picture: width, height and the four bytes of each pixel.
_PIXELS: Final = """async picture => {
    const image = await createImageBitmap(await (await fetch("data:image/png;base64," + picture)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    const reader = new FileReader();
    const read = new Promise(resolve => reader.onload = resolve);
    reader.readAsDataURL(new Blob([pixels]));
    await read;
    return [image.width, image.height, reader.result.slice(reader.result.indexOf(",") + 1)];
}"""


def _photograph(text: str, file: Path, picture: Path) -> None:
    file.write_text(text, encoding="utf-8")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        sheet = browser.new_page(viewport={"width": WIDTH + 28, "height": 800}, color_scheme="dark")
        sheet.goto(file.as_uri())
        taken = sheet.screenshot(full_page=True)
        width, height, pixels = sheet.evaluate(_PIXELS, base64.b64encode(taken).decode())
        browser.close()
    shape = (height, width, 4)
    picture.write_bytes(png.encode(np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(shape)))
    print(f"{picture} ({picture.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main(sys.argv[1:])
