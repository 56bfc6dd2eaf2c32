from __future__ import annotations

from typing import Any

import pytest

from loadtest.judge import Limits, account_of_server, account_of_whole, judge
from loadtest.ledger import Sums
from loadtest.result import Result, Verdict
from tests import loadtest_samples
from tests.loadtest_samples import counters

LIMITS = Limits()


@pytest.fixture
def made() -> Any:
    made: Any = loadtest_samples.result()
    made["ledger"].setdefault("overdue", 0)
    return made


def told(result: Result, **how: Any) -> tuple[str, str]:
    verdict: Verdict = judge(result, LIMITS, **how)
    return verdict["verdict"], " ".join(verdict["reasons"])


def lose(made: Any, name: str, count: int) -> None:
    made["ledger"][name] += count
    if name in ("lost", "declared", "overdue"):
        made["ledger"]["delivered"] -= count


def test_a_good_run_passes(made: Any) -> None:
    verdict, why = told(made)
    assert verdict == "pass"
    assert "none lost, doubled, reordered or foreign" in why


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lost", "3 messages were lost without a word."),
        ("duplicated", "3 messages were delivered twice."),
        ("reordered", "3 messages were delivered out of order."),
        ("unexpected", "3 messages were unexpected: foreign, on the wrong channel, or never sent."),
    ],
)
def test_a_broken_promise_fails(made: Any, name: str, why: str) -> None:
    lose(made, name, 3)
    assert told(made) == ("fail", why)


def test_a_declared_drop_passes_with_a_note(made: Any) -> None:
    lose(made, "declared", 3)
    verdict = judge(made, LIMITS)
    assert verdict["verdict"] == "pass"
    assert verdict["notes"][0].startswith("3 of ")


def test_a_ledger_that_does_not_add_up_fails(made: Any) -> None:
    made["ledger"]["delivered"] -= 1
    assert told(made)[0] == "fail"
    assert "does not add up" in told(made)[1]


def test_what_had_not_arrived_in_time_fails(made: Any) -> None:
    lose(made, "overdue", 5)
    made["ledger"]["barrier_missing"] = 2
    verdict, why = told(made)
    assert verdict == "fail"
    assert why.endswith(
        "had not arrived when the barrier gave up: 2 subscriptions did not see the final markers in time."
    )


def test_healthy_clients_that_are_thrown_out_fail(made: Any) -> None:
    made["clients"]["closes"] = {"1013": 2, "1006": 1}
    assert told(made) == ("fail", "The server closed 3 healthy clients (1006: 1, 1013: 2).")


@pytest.mark.parametrize("busy", [{"cpu_sustained": 91.0}, {"lag_p99_ms": 101.0}])
def test_a_generator_at_its_limit_proves_nothing(made: Any, busy: dict[str, float]) -> None:
    made["generator"][0] |= busy
    verdict, why = told(made)
    assert verdict == "unknown"
    assert why.startswith("Generator process 0")
    made["clients"]["closes"] = {"1013": 2}
    lose(made, "overdue", 5)
    assert told(made)[0] == "unknown", "it may have been too slow to read"
    lose(made, "lost", 1)
    assert told(made)[0] == "fail", "but nothing excuses a gap"


@pytest.mark.parametrize(
    ("part", "changes", "why"),
    [
        ("publications", {"attempted": 395}, "395 of 400 planned publications were attempted."),
        (
            "clients", {"connected": 199, "failed": {"HTTP 503": 1}},
            "199 of 200 subscribers connected, HTTP 503: 1.",
        ),
        (
            "publishers", {"connected": 0, "failed": {"refused": 1}},
            "0 of 1 publishers' connections were opened, refused: 1.",
        ),
        (
            "publishers", {"closes": {"1008": 1}},
            "The server closed 1 publisher (1008: 1): what it had received of them is not known.",
        ),
        ("ledger", {"silent_clients": 1}, "1 healthy subscriptions got nothing at all."),
        ("ledger", {"barrier_missing": 2}, "2 healthy subscriptions did not see the final markers in time."),
        (
            "troublemakers", {"stalled_asked": 5, "stalled_observed": 4},
            "5 stalled clients were asked for, 4 were seen to be stalled.",
        ),
        (
            "troublemakers", {"slow_asked": 5, "slow_observed": 4},
            "5 slow clients were asked for, 4 were seen to be slow.",
        ),
        (
            "troublemakers", {"flapping_asked": 50, "flapping_done": 20},
            "50 reconnects were asked for, 20 happened.",
        ),
    ],
)  # fmt: skip
def test_a_run_that_shows_nothing_is_unknown(made: Any, part: str, changes: dict[str, Any], why: str) -> None:
    made["plan"]["flapping"] = 5.0
    made[part] |= changes
    assert told(made) == ("unknown", why)


def test_nobody_owed_anything_is_unknown(made: Any) -> None:
    made["ledger"] |= {"expected": 0, "delivered": 0}
    assert told(made) == ("unknown", "Nobody was owed anything.")


def test_ninety_nine_percent_of_the_plan_is_enough(made: Any) -> None:
    made["publications"]["attempted"] = 396
    assert told(made)[0] == "pass"


def test_refused_publications_are_noted(made: Any) -> None:
    made["publications"]["refused"] = {"error 108 not available": 2, "error 100 internal server error": 1}
    assert judge(made, Limits())["notes"][0] == (
        "The server refused publications (error 100 internal server error: 1, error 108 not available: 2): "
        "nobody was owed them."
    )


def test_a_run_that_was_stopped_is_unknown_but_a_seen_fault_stays_one(made: Any) -> None:
    assert told(made, stopped="Interrupted.") == ("unknown", "Interrupted.")
    lose(made, "lost", 1)
    assert told(made, stopped="Interrupted.") == ("fail", "1 message was lost without a word. Interrupted.")


def test_a_run_that_never_began_has_one_reason() -> None:
    made: Any = loadtest_samples.unmeasured()
    assert told(made, stopped="ws://h cannot be reached: refused.") == ("unknown", "ws://h cannot be reached: refused.")


def test_closes_are_no_fault_when_the_server_went_away(made: Any) -> None:
    made["clients"]["closes"] = {"1006": 200}
    made["publishers"]["closes"] = {"1006": 1}
    assert told(made, stopped="The server went away.", gone=True) == ("unknown", "The server went away.")


def test_counters_that_disagree_fail(made: Any) -> None:
    made["ledger"]["server"] |= {"agrees": False, "differences": ["The server counts 2 sent, the clients 1."]}
    assert told(made) == ("fail", "The server counts 2 sent, the clients 1.")
    made["ledger"]["server"] |= {"balanced": False, "agrees": True, "differences": []}
    assert told(made) == ("fail", "The server's account does not balance: offered is not sent + dropped + queued.")


def test_without_metrics_the_clients_proof_stands_alone(made: Any) -> None:
    made["ledger"]["server"] = loadtest_samples.unmeasured()["ledger"]["server"]
    verdict = judge(made, LIMITS)
    assert verdict["verdict"] == "pass"
    assert verdict["notes"] == ["The server's counters were not read: the proof is the clients' alone."]


def account(made: Any, delta: Any, *, undisturbed: bool = True, ours: int = 201) -> Any:
    return account_of_server(counters(), delta, delta, sums(made), 401, undisturbed, ours)


def sums(made: Any) -> Sums:
    return Sums(**{key: made["ledger"][key] for key in ("expected", "delivered", "declared", "duplicated")})


def exact(made: Any, **changes: Any) -> Any:
    expected = made["ledger"]["expected"]
    return counters(expected, 401) | {"offered": expected, "sent": expected, "received": 401, "opened": 201} | changes


def test_with_healthy_clients_alone_equality_is_demanded(made: Any) -> None:
    found = account(made, exact(made))
    assert (found["mode"], found["agrees"], found["differences"]) == ("equality", True, [])
    for name in ("offered", "sent", "received"):
        for error in (-1, 1):
            wrong = exact(made)
            wrong[name] += error
            assert account(made, wrong)["agrees"] is False, name
    assert account(made, exact(made, dropped={"queue_full": 1}))["agrees"] is False


def test_declared_drops_are_part_of_the_equality(made: Any) -> None:
    lose(made, "declared", 4)
    delta = exact(made, dropped={"queue_full": 3, "conflated": 1})
    delta["sent"] -= 4
    found = account(made, delta)
    assert (found["mode"], found["agrees"]) == ("equality", True)


@pytest.mark.parametrize("how", [{"undisturbed": False}, {"ours": 200}])
def test_otherwise_the_server_may_count_more_but_not_less(made: Any, how: dict[str, Any]) -> None:
    more = exact(made)
    more["offered"] += 100
    more["sent"] += 100
    assert (account(made, more, **how)["mode"], account(made, more, **how)["agrees"]) == ("inequality", True)
    less = exact(made)
    less["sent"] -= 1
    assert account(made, less, **how)["agrees"] is False


def test_an_account_out_of_balance_is_seen(made: Any) -> None:
    assert account(made, exact(made, dropped={"queue_full": 1}))["balanced"] is False
    assert account(made, exact(made))["balanced"] is True
    assert account_of_server(None, None, None, sums(made), 1, True, 1)["mode"] == "none"


def test_what_one_node_counts_too_much_is_not_made_up_for_by_another(made: Any) -> None:
    good = account(made, exact(made))
    assert account_of_whole([good]) is good
    whole = account_of_whole([good, good])
    assert (whole["mode"], whole["agrees"], whole["balanced"]) == ("equality", True, True)
    assert whole["delta"]["offered"] == 2 * made["ledger"]["expected"]
    more, less = exact(made), exact(made)
    more["sent"] += 1
    less["sent"] -= 1
    whole = account_of_whole([account(made, more), account(made, less)])
    assert (whole["agrees"], whole["balanced"]) == (False, False)
    assert [sentence[:7] for sentence in whole["differences"]] == ["Node 1:", "Node 2:"]
    assert whole["delta"]["offered"] == whole["delta"]["sent"], "in the sum nothing is to be seen"


def test_the_account_of_a_node_that_told_nothing_is_nobodys(made: Any) -> None:
    nothing = account_of_server(None, None, None, sums(made), 1, True, 1)
    whole = account_of_whole([account(made, exact(made)), nothing])
    assert (whole["mode"], whole["agrees"], whole["before"], whole["delta"]) == ("none", None, None, None)
