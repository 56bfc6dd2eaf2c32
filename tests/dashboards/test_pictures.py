"""The pictures in the documents: every panel is drawn from real data, numbers are readable, files are whole."""

from __future__ import annotations

import json
import re
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest

from dashboards import png
from dashboards.build import DASHBOARDS, FOLDER
from dashboards.curves import named
from dashboards.drawing import draw
from dashboards.pictures import LABEL, PICTURES, page
from dashboards.units import shown, steps
from tests.dashboards.linter import panels_of
from tests.harness import wait_until
from tests.observatory import Observatory


def read(uid: str) -> Any:
    return json.loads((FOLDER / f"{uid}.json").read_text())


@pytest.mark.parametrize("uid", [dashboard.uid for dashboard in DASHBOARDS])
def test_every_panel_is_drawn(on: Observatory, uid: str) -> None:
    dashboard = read(uid)
    began = time.time() - 60

    def drawn() -> str:
        text = page(dashboard, on.prometheus, began)
        return "" if "No data" in text else text

    text = wait_until(drawn, 30, "data for every panel")
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [panel["title"] for panel in panels_of(dashboard)]
    assert LABEL in text
    assert "nan" not in re.sub(r"<[^>]*>", "", text)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', text), "a place that is none"
    assert "{{" not in text


@pytest.mark.parametrize("uid", [dashboard.uid for dashboard in DASHBOARDS])
def test_the_documents_have_the_picture(uid: str) -> None:
    data = (PICTURES / f"{uid}.png").read_bytes()
    assert len(data) <= 400 * 1024
    assert data.startswith(b"\x89PNG\r\n\x1a\n")


def panel_named(title: str) -> Any:
    return next(panel for panel in panels_of(read("stentor-overview")) if panel["title"] == title)


def test_what_has_no_data_says_so_and_what_needs_none_says_why() -> None:
    assert "No data" in draw(panel_named("Said"), [], (0, 60), 300, 200)
    assert "in process" in draw(panel_named("Broker: answer p99"), [], (0, 60), 300, 200)


@pytest.mark.parametrize(
    ("value", "text", "color"),
    [(0.0, "DEAF", "#f2495c"), (1.0, "in contact", "#73bf69"), (2.0, "in process", "#5794f2")],
)
def test_a_state_has_its_name_and_colour(value: float, text: str, color: str) -> None:
    drawn = draw(panel_named("Broker"), [named(0, "", {}, [(0.0, 1.0), (1.0, value)])], (0, 1), 150, 90)
    assert text in drawn
    assert color in drawn


def test_a_number_that_is_none_is_idle() -> None:
    drawn = draw(panel_named("Delivery p99"), [named(0, "", {}, [(0.0, float("nan"))])], (0, 1), 150, 90)
    assert "idle" in drawn


def test_a_line_is_broken_where_there_is_no_number() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, float("nan")), (3.0, 4.0), (4.0, 3.0), (9.0, 1.0), (10.0, 1.0)]
    drawn = draw(panel_named("Bytes"), [named(0, "out", {}, points)], (0, 10), 300, 200)
    assert len(re.findall(r'fill="none" stroke="#73bf69"', drawn)) == 3


def test_buckets_are_drawn_as_what_is_in_them_alone() -> None:
    counts = {"0.1": 0.0, "1.0": 5.0, "+Inf": 5.0}
    lines = [named(0, "", {"le": le}, [(0.0, count), (1.0, count)]) for le, count in counts.items()]
    drawn = draw(panel_named("Delivery: spread"), lines, (0, 2), 300, 200)
    assert drawn.count("<rect") == 2  # one bucket, at two times
    lines = [named(0, "", {"le": "+Inf"}, [(0.0, 0.0)])]
    assert "none in this time" in draw(panel_named("Delivery: spread"), lines, (0, 2), 300, 200)


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.0000123, "s", None, "12.3 µs"), (0.25, "s", None, "250 ms"), (0, "s", None, "0 s"),
        (90, "s", None, "1.5 min"),
        (86400 * 2, "s", 1, "2.0 d"), (1536, "bytes", None, "1.5 KiB"), (3 * 1024**2, "Bps", None, "3 MiB/s"),
        (1234, "short", None, "1.23 K"), (12, "short", None, "12"), (5170.4, "mps", None, "5.17 K msg/s"),
        (0.034, "percentunit", 0, "3 %"), (0.0004, "cps", None, "0.0004 c/s"), (0.00001, "cps", None, "0.00001 c/s"),
        (999.96, "short", None, "1 K"), (float("nan"), "s", None, "-"),
    ],
)  # fmt: skip
def test_numbers_read_as_in_grafana(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert shown(value, unit, decimals) == text


@pytest.mark.parametrize(
    ("high", "unit", "marks"),
    [(10, "short", [0, 2.5, 5, 7.5, 10]), (130, "short", [0, 50, 100]), (4096, "bytes", [0, 1024, 2048, 3072, 4096])],
)
def test_an_axis_has_round_numbers(high: float, unit: str, marks: list[float]) -> None:
    assert steps(0, high, unit) == marks


def test_a_picture_of_few_colours_is_kept_as_it_is() -> None:
    pixels = np.zeros((3, 5, 4), np.uint8)
    pixels[0, :, 0], pixels[1, :, 1], pixels[2, 2] = 255, 128, (16, 32, 64, 255)
    data = png.encode(pixels)
    chunks, at = {}, 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name] = body
        at += 12 + length
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (5, 3, 8, 3, 0, 0, 0)
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(3, 6)
    assert not rows[:, 0].any()
    assert (palette[rows[:, 1:]] == pixels[:, :, :3]).all()


def test_of_too_many_colours_a_rare_one_is_shown_as_the_nearest() -> None:
    used = [
        (red, green, blue) for red in range(0, 256, 32) for green in range(0, 256, 32) for blue in range(0, 256, 64)
    ]
    assert len(used) == png.COLORS
    pixels = np.array([*used, *used, (40, 0, 0)], np.uint8).reshape(1, -1, 3)
    palette, indices = png._reduced(pixels)
    assert palette[indices][0, -1].tolist() == [32, 0, 0]
    assert (palette[indices][0, :-1] == pixels[0, :-1]).all()
