"""The Centrifuge dialect against the real server, with its counters."""

from __future__ import annotations

from tests.engine import run
from tests.harness import serve


def test_the_server_passes_and_its_counters_equal_the_clients_sums() -> None:
    with serve("--message-rate", "0") as server:
        result = run(
            server.websocket_url, metrics=f"{server.internal_url}/metrics", dialect="centrifuge",
            subscribers=20, channels=5, per_client=3, publishers=2, rate=200.0, publish_time="1s",
        )  # fmt: skip
    assert result["verdict"]["verdict"] == "pass", result["verdict"]
    ledger = result["ledger"]
    assert ledger["expected"] == ledger["delivered"] == 205 * 12
    assert (ledger["server"]["mode"], ledger["server"]["agrees"], ledger["server"]["balanced"]) == (
        "equality", True, True,
    )  # fmt: skip
    assert result["publications"]["acknowledged"] == 200


def test_a_client_without_a_good_token_is_one_sentence() -> None:
    with serve("--auth", "jwt", "--jwt-secret", "0123456789abcdef0123456789abcdef") as server:
        result = run(server.websocket_url, dialect="centrifuge")
    assert result["verdict"]["verdict"] == "unknown"
    assert result["verdict"]["reasons"] == [
        f"{server.websocket_url}/connection/websocket does not let the client in (centrifuge dialect): "
        "closed with 3500 invalid token."
    ]
