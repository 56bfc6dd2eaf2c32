from __future__ import annotations

import time
from importlib.metadata import version

from loadtest.watch import Watch, boot_id, environment, file_limits, raise_file_limit
from tests.test_loadtest_swarm import turn


def test_a_loop_that_hangs_is_seen_as_lag_for_as_long_as_it_hangs() -> None:
    watch = Watch()
    watch.begin()
    watch.begin()
    turn(lambda: watch.lags.count >= 2)
    watch.reset()
    time.sleep(0.2)  # the very thing that is to be noticed: the loop does not turn meanwhile
    assert watch.take()[1] >= 150, "also before the timer has fired"
    turn(lambda: watch.lags.count >= 9)
    assert watch.lags.maximum is not None
    assert watch.lags.maximum >= 150_000_000
    assert watch.lags.percentile(50) is not None
    watch.stop()
    watch.stop()


def test_a_second_of_work_is_cpu() -> None:
    watch = Watch()
    watch.begin()
    until = time.monotonic() + 0.25
    while time.monotonic() < until:
        pass
    cpu, _ = watch.take()
    assert cpu > 1
    assert watch.take()[0] == cpu, "a moment later there is nothing new to say"
    watch.stop()


def test_the_machine_is_described() -> None:
    machine = environment()
    assert machine["locust"] == version("locust")
    assert machine["cpus"] >= 1
    assert machine["memory_bytes"] > 1 << 20
    assert machine["cpu_model"]
    assert machine["file_limits"] == file_limits()
    assert machine["file_limits"]["soft"] <= machine["file_limits"]["hard"]


def test_a_machine_knows_itself_again() -> None:
    assert boot_id() == boot_id() != ""


def test_the_file_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = raise_file_limit()
    assert soft == hard
