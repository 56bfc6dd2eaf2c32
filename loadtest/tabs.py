"""Two tabs on Locust's web page: the ledger and the latencies.

Locust's page takes extra tabs of tables, filled from an extra key in the answer to its regular poll. While a run
lasts the tables show what is known so far; when its books are closed, the ledger and the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Response, request

from loadtest.conductor import Conductor

_PERCENTILES = (50.0, 75.0, 90.0, 99.0, 99.9, 99.99)

Row = dict[str, Any]


def add_tabs(web_ui: Any, conductor: Callable[[], Conductor | None]) -> None:
    """Add the tabs to Locust's page; ``conductor`` gives that of the current or the last run."""
    web_ui.template_args["extended_tabs"] = [
        {"title": "Ledger", "key": "stentor-ledger"},
        {"title": "Latencies", "key": "stentor-latencies"},
    ]
    web_ui.template_args["extended_tables"] = [
        {
            "key": "stentor-ledger",
            "structure": [
                {"key": "entry", "title": "Entry"},
                {"key": "value", "title": "Value"},
                {"key": "note", "title": "Note"},
            ],
        },
        {
            "key": "stentor-latencies",
            "structure": [
                {"key": "figure", "title": "Figure"},
                {"key": "delivery", "title": "Delivery (ms)"},
                {"key": "handshake", "title": "Handshake (ms)"},
            ],
        },
    ]

    def extend(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            current = conductor()
            response.set_data(
                json.dumps(
                    {
                        **(response.json or {}),
                        "extended_stats": [
                            {"key": "stentor-ledger", "data": ledger_rows(current)},
                            {"key": "stentor-latencies", "data": latency_rows(current)},
                        ],
                    }
                )
            )
        return response

    web_ui.app.after_request(extend)


def ledger_rows(conductor: Conductor | None) -> list[Row]:
    """The ledger as a table: so far, or as it was closed."""
    if conductor is None:
        return []
    result = conductor.result
    if result is None:
        return [_row(*line) for line in conductor.so_far()]
    ledger, verdict = result["ledger"], result["verdict"]
    lines: list[tuple[str, object, str]] = [
        ("verdict", verdict["verdict"], " ".join(verdict["reasons"])),
        ("expected", ledger["expected"], "publications x connections that were there"),
        ("delivered", ledger["delivered"], ""),
        ("declared", ledger["declared"], "not delivered, and the server said so"),
        ("lost", ledger["lost"], "not delivered and not declared"),
        ("overdue", ledger["overdue"], "not delivered when the barrier gave up"),
        ("duplicated", ledger["duplicated"], ""),
        ("reordered", ledger["reordered"], ""),
        ("unexpected", ledger["unexpected"], "foreign, wrong channel, or never sent"),
        ("server's account", ledger["server"]["mode"], " ".join(ledger["server"]["differences"])),
    ]
    lines += [(f"closed with {code}", count, "") for code, count in sorted(result["clients"]["closes"].items())]
    lines += [("note", "", note) for note in verdict["notes"]]
    return [_row(*line) for line in lines]


def latency_rows(conductor: Conductor | None) -> list[Row]:
    """The latencies as a table."""
    if conductor is None:
        return []
    delivery, handshake = conductor.books.latency(), conductor.books.handshakes()
    rows: list[Row] = [{"figure": "timed", "delivery": delivery.count, "handshake": handshake.count}]
    for percent in _PERCENTILES:
        rows.append(
            {
                "figure": f"p{percent:g}",
                "delivery": _ms(delivery.percentile(percent)),
                "handshake": _ms(handshake.percentile(percent)),
            }
        )
    rows.append({"figure": "max", "delivery": _ms(delivery.maximum), "handshake": _ms(handshake.maximum)})
    return rows


def _row(entry: str, value: object, note: str) -> Row:
    return {"entry": entry, "value": f"{value:,}" if isinstance(value, int) else str(value), "note": note}


def _ms(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / 1e6:.3f}"
