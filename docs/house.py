"""`make docs`: draw docs/pictures/house.svg, the rooms of the server and who stands on whom.

    python docs/house.py

The floors are those that tests/test_layers.py holds the imports to; the words are this file's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/pictures/house.svg"

WORDS = {
    "__main__": "finds the command",
    "commands": "serve, check, doctor, token, publish, listen",
    "doctor": "what this machine holds",
    "supervisor": "several workers, and their broker",
    "worker": "one process",
    "blueprint": "settings to parts",
    "admin": "the internal port: metrics, health, API, page",
    "edge": "sockets: gate, connections, sessions, drain",
    "node": "who listens, in which encoding, under which rules",
    "dialects": "bytes to commands, pushes to bytes",
    "brokers": "order, history, presence",
    "core": "channels, queues, batches, lag policies: decides, and does nothing",
    "config": "every option",
    "logs": "one line per event",
    "notify": "what systemd is told",
    "web": "files of the pages",
}
WIDTH, FLOOR, GAP, SIDE, MARGIN = 600, 46, 8, 190, 20


def picture() -> str:
    """Draw it."""
    sys.path.insert(0, str(ROOT))
    from tests.test_layers import FLOORS, LEAVES, PURE

    floors = [sorted(rooms, reverse=True) for rooms in reversed(FLOORS)]
    height = MARGIN * 2 + len(floors) * (FLOOR + GAP) - GAP
    whole = WIDTH + SIDE + MARGIN * 3
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" width="{whole}" height="{height}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="The rooms of the server">',
        f'<rect width="{whole}" height="{height}" fill="#fbfaf7"/>',
    ]
    for number, rooms in enumerate(floors):
        top = MARGIN + number * (FLOOR + GAP)
        each = (WIDTH - GAP * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(rooms):
            fill = "#dbe8dc" if room in PURE else "#e6e2f0" if room == "edge" else "#ffffff"
            parts += _box(MARGIN + place * (each + GAP), top, each, FLOOR, room, fill)
    left, beside = MARGIN * 2 + WIDTH, [*sorted(LEAVES), "web"]
    tall = (height - MARGIN * 2 - GAP * (len(beside) - 1)) / len(beside)
    for number, room in enumerate(beside):
        parts += _box(left, MARGIN + number * (tall + GAP), SIDE, tall, room, "#f3ead6")
    return "\n".join([*parts, "</svg>", ""])


def _box(x: float, y: float, width: float, height: float, room: str, fill: str) -> Iterator[str]:
    middle, center = x + width / 2, y + height / 2
    yield (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{fill}" stroke="#4a4a4a" '
        'stroke-width="1"/>'
    )
    yield (
        f'<text x="{middle:g}" y="{center - 4:g}" text-anchor="middle" font-size="15" font-weight="600" '
        f'fill="#222">{escape(room)}</text>'
    )
    yield (
        f'<text x="{middle:g}" y="{center + 14:g}" text-anchor="middle" font-size="11.5" '
        f'fill="#444">{escape(WORDS[room])}</text>'
    )


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
