"""Locust's own table and page, with our figures. In a process of its own: Locust patches whatever imports it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from tests.harness import REPOSITORY

SCRIPT = """
import json
from loadtest import figures
figures.install()
from locust import stats
from locust.env import Environment
from loadtest.histogram import Histogram

def latency(*milliseconds):
    made = Histogram()
    for value in milliseconds:
        made.record(int(value * 1e6))
    return made

shown = stats.RequestStats()
figures.show(shown, "deliver", 300, 128, latency(*[0.25] * 98, 0.75, 12.5), at=1000.5)
figures.show(shown, "deliver", 100, 128, latency(0.5), at=1001.5)
figures.show(shown, "publish", 4, 128, None, at=1001.5)
figures.show(shown, "nothing", 0, 128, None)
entry = shown.entries[("deliver", "WS")]

# From a worker to the master, as Locust does it: stripped, through plain data, and added.
report = [{**each, "response_times": list(each["response_times"].items())} for each in shown.serialize_stats()]
report = json.loads(json.dumps(report))
master = stats.RequestStats()
for data in report:
    data["response_times"] = {float(key): count for key, count in data["response_times"]}
    data["num_reqs_per_sec"] = {int(key): count for key, count in data["num_reqs_per_sec"].items()}
    row = stats.StatsEntry.unserialize(data, master)
    master.entries[(row.name, row.method)].extend(row)
merged = master.entries[("deliver", "WS")]
print(json.dumps({
    "kind": type(shown.total).__name__, "merged_kind": type(merged).__name__,
    "names": sorted(name for name, _ in shown.entries),
    "requests": merged.num_requests, "untimed": merged.num_none_requests,
    "median": merged.median_response_time, "p99": merged.get_response_time_percentile(0.99),
    "dict": merged.to_dict(), "line": merged.to_string(current=False), "percentiles": merged.percentile(),
    "table": stats.get_stats_summary(master, False),
    "rounded": [stats.bucket_response_time(value) for value in (0.12345, 12.345, 1234.5)],
    "per_second": merged.num_reqs_per_sec,
}))
"""


def shown() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_locusts_figures_are_ours_in_fractions_of_a_millisecond() -> None:
    seen = shown()
    assert seen["kind"] == seen["merged_kind"] == "FineStatsEntry"
    assert seen["names"] == ["deliver", "publish"]
    assert (seen["requests"], seen["untimed"]) == (400, 400 - 101)
    assert seen["rounded"] == [0.123, 12.3, 1230.0]
    assert abs(seen["median"] - 0.25) < 0.0025
    assert abs(seen["p99"] - 0.75) < 0.0075
    assert seen["dict"]["min_response_time"] == 0.25
    assert seen["dict"]["max_response_time"] == 12.5
    assert seen["per_second"] == {"1000": 300, "1001": 100}
    assert re.search(r"WS +deliver +400 +0\(0\.00%\) \| +0\.379 +0\.25 +12\.5 +0\.25 \|", seen["line"])
    assert "0.75" in seen["percentiles"]
    assert any("deliver" in line and "12.5" in line for line in seen["table"])
