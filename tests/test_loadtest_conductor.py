"""Whole runs of the engine against the real server, and against one that is made to break its promises."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from loadtest import result as schema
from loadtest.result import Result
from tests.engine import run
from tests.harness import Server, serve
from tests.relay import Fault, Relay, corrupt_every, double_every, drop_every, faithful, swap_every


@pytest.fixture(scope="module")
def server() -> Any:
    with serve("--message-rate", "0") as server:
        yield server


def relayed(server: Server, fault: Fault, **options: Any) -> tuple[Result, int]:
    with Relay(server.port, fault) as relay:
        result = run(
            f"ws://127.0.0.1:{relay.port}", subscribers=100, rate=100.0, publish_time="1.2s", barrier=2.0, **options
        )
        return result, relay.spoilt


def verdict(result: Result) -> tuple[str, str]:
    return result["verdict"]["verdict"], " ".join(result["verdict"]["reasons"])


def test_a_good_server_passes_and_its_counters_equal_the_clients_sums(server: Server, tmp_path: Path) -> None:
    result = run(
        server.websocket_url, tmp_path, metrics=f"{server.internal_url}/metrics", server_pid=server.pid,
        subscribers=20, channels=3, per_client=2, publishers=2, rate=60.0, publish_time="1s",
    )  # fmt: skip
    assert verdict(result)[0] == "pass", verdict(result)
    ledger = result["ledger"]
    # 20 subscribers on 2 of 3 channels each, and a publisher's connection per channel; 60 publications and 3 markers.
    assert sum(row["subscribers"] for row in ledger["channels"]) == 43
    assert sum(row["publications"] for row in ledger["channels"]) == 63
    assert ledger["delivered"] == ledger["expected"] == sum(
        row["publications"] * row["subscribers"] for row in ledger["channels"]
    )  # fmt: skip
    assert ledger["server"]["mode"] == "equality"
    assert ledger["server"]["agrees"] is True
    assert ledger["server"]["balanced"] is True
    assert ledger["server"]["delta"] is not None
    assert ledger["server"]["delta"]["offered"] == ledger["expected"]
    assert result["publications"]["planned"] == result["publications"]["attempted"] == 60
    assert result["publications"]["acknowledged"] == 60
    assert result["latency"]["count"] == ledger["delivered"]
    assert sum(row["delivered"] for row in result["timeline"]) == ledger["delivered"]
    assert result["server"]["pids"] == [server.pid]
    assert schema.read(tmp_path / schema.RESULT_FILE) == json.loads(json.dumps(result))
    lines = [json.loads(line) for line in (tmp_path / schema.PROGRESS_FILE).read_text().splitlines()]
    assert lines[-1]["phase"] == "done"
    assert (tmp_path / schema.HGRM_FILE).read_text().startswith("       Value     Percentile")


def test_a_relay_that_breaks_nothing_passes(server: Server) -> None:
    result, spoilt = relayed(server, faithful)
    assert (verdict(result)[0], spoilt) == ("pass", 0), verdict(result)


def test_one_message_in_ten_thousand_that_is_lost_is_found(server: Server) -> None:
    result, spoilt = relayed(server, drop_every(10_000))
    assert spoilt == 1
    assert verdict(result) == ("fail", "1 message was lost without a word.")
    assert result["ledger"]["lost"] == 1
    assert result["ledger"]["delivered"] == result["ledger"]["expected"] - 1
    assert re.search(r"1 (missing|absent)", result["ledger"]["damaged"][0])


def test_two_messages_that_are_swapped_are_found(server: Server) -> None:
    result, spoilt = relayed(server, swap_every(10_000))
    assert spoilt == 2
    assert verdict(result) == ("fail", "1 message was delivered out of order.")
    assert (result["ledger"]["lost"], result["ledger"]["duplicated"]) == (0, 0)


def test_one_message_that_is_doubled_is_found(server: Server) -> None:
    result, spoilt = relayed(server, double_every(10_000))
    assert spoilt == 1
    assert verdict(result) == ("fail", "1 message was delivered twice.")
    assert result["ledger"]["delivered"] == result["ledger"]["expected"]


def test_one_message_that_is_changed_is_found(server: Server) -> None:
    result, spoilt = relayed(server, corrupt_every(10_000))
    assert spoilt == 1
    assert verdict(result)[0] == "fail"
    assert result["ledger"]["unexpected"] == 1
    assert result["ledger"]["lost"] == 1


def test_the_server_counts_what_the_relay_loses(server: Server) -> None:
    """The clients' sums and the server's counters disagree by exactly what was lost on the way."""
    result, _ = relayed(server, drop_every(1_000), metrics=f"{server.internal_url}/metrics")
    account = result["ledger"]["server"]
    assert account["mode"] == "equality"
    assert account["agrees"] is False
    assert account["delta"] is not None
    assert account["delta"]["sent"] - result["ledger"]["delivered"] == result["ledger"]["lost"] == 12


def test_troublemakers_are_seen_and_the_ledger_still_balances(server: Server) -> None:
    result = run(
        server.websocket_url, metrics=f"{server.internal_url}/metrics",
        subscribers=20, rate=200.0, publish_time="2s", size=1024, stalled=3, slow=3, flapping=5.0,
    )  # fmt: skip
    assert verdict(result)[0] == "pass", verdict(result)
    account = result["ledger"]["server"]
    assert (account["mode"], account["balanced"], account["agrees"]) == ("inequality", True, True)
    assert account["delta"] is not None
    assert account["delta"]["offered"] > result["ledger"]["expected"]
    trouble = result["troublemakers"]
    assert (trouble["stalled_observed"], trouble["slow_observed"]) == (3, 3)
    assert trouble["flapping_done"] >= 5


def test_drops_that_the_server_declares_are_no_loss() -> None:
    """Clients that stand still for a while under a lag policy lose messages, and the server says how many."""
    with serve("--message-rate", "0", "--queue-messages", "4", "--lag-policy", "drop_oldest") as server:
        result = run(
            server.websocket_url, metrics=f"{server.internal_url}/metrics",
            subscribers=10, rate=400.0, publish_time="1s", size=1024, slow=4,
        )  # fmt: skip
    account = result["ledger"]["server"]
    assert account["delta"] is not None
    assert sum(account["delta"]["dropped"].values()) > 0
    assert account["balanced"] is True
    assert result["ledger"]["lost"] == 0
    assert verdict(result)[0] == "pass", verdict(result)


def test_somebody_else_on_the_server_makes_equality_impossible(server: Server) -> None:
    def visit() -> None:
        with connect(f"{server.websocket_url}/ws/elsewhere") as visitor:
            visitor.send("hello")
            visitor.recv()

    visitor = threading.Timer(1.0, visit)
    visitor.start()
    result = run(
        server.websocket_url, metrics=f"{server.internal_url}/metrics", subscribers=5, rate=50.0, publish_time="1.5s"
    )
    visitor.join()
    account = result["ledger"]["server"]
    assert (account["mode"], account["agrees"]) == ("inequality", True)
    assert account["delta"] is not None
    assert account["delta"]["offered"] == result["ledger"]["expected"] + 1
    assert verdict(result)[0] == "pass", verdict(result)


def test_nobody_listening_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = run(f"ws://127.0.0.1:{port}", tmp_path)
    assert verdict(result) == ("unknown", f"ws://127.0.0.1:{port}/ws/{{channel}} cannot be reached: refused.")
    assert schema.read(tmp_path / schema.RESULT_FILE)["ledger"]["expected"] == 0


def test_a_server_of_the_wrong_kind_is_one_sentence(server: Server) -> None:
    result = run(f"ws://127.0.0.1:{server.internal_port}")
    assert verdict(result) == (
        "unknown",
        f"ws://127.0.0.1:{server.internal_port}/ws/{{channel}} refuses the WebSocket handshake: HTTP 404.",
    )


def test_a_server_that_dies_midway_makes_the_run_unknown() -> None:
    with serve("--message-rate", "0") as server:
        killer = threading.Timer(1.5, server.process.kill)
        killer.start()
        result = run(server.websocket_url, subscribers=10, rate=50.0, publish_time="30s")
        killer.join()
    assert verdict(result)[0] == "unknown", verdict(result)
    assert re.match(r"The server went away \d+\.\d s after the first publication\.", verdict(result)[1])


def test_clients_that_the_server_turns_away_are_counted_by_reason() -> None:
    with serve("--message-rate", "0", "--max-connections", "8") as server:
        result = run(server.websocket_url, subscribers=10, rate=50.0, publish_time="1s")
    assert verdict(result)[0] == "unknown"
    assert result["clients"]["failed"] == {"HTTP 503": 2}
    assert "No publisher could connect, HTTP 503: 1." in verdict(result)[1]
