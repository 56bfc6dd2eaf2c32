"""A report says what its result says, escapes every word of it, and needs nothing but itself."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

from loadtest import axes, report, report_charts, report_tables
from loadtest.report import headline, render
from loadtest.result import Result, write
from tests.browser import launch_chromium
from tests.loadtest_samples import counters, result, row, unmeasured

AROUND: report_tables.Surroundings = {
    "command": "make loadtest USERS=200",
    "server_command": "python -m server --port 0",
    "server_cores": [0],
    "generator_cores": [1, 2],
    "shared_core": False,
    "neighbours": 0.25,
}
VOID = {"meta", "br", "link", "img"}


class Words(HTMLParser):
    """The words of a page, and proof that its tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_pass_says_what_was_proved() -> None:
    page = Words(render(result(200, 50, 8), AROUND))
    assert (
        "PASS 200 subscribers at 50 publications/s of 128 B: all 80,601 deliveries arrived, once and in order"
        in page.text
    )
    for words in (
        "make loadtest USERS=200",
        "python -m server --port 0",
        "server on core 0, generator on cores 1, 2",
        "25 % of the machine",
    ):
        assert words in page.text
    titles = ["Latency", "Throughput", "Load on both sides", "The server", "The ledger", "Connections and closes"]
    assert re.findall("|".join(titles), " ".join(page.words)) != []
    headings = [words for words in page.words if words in (*titles, "Environment", "Exact command")]
    assert headings == [*titles, "Environment", "Exact command"]


def test_declared_drops_are_in_the_headline() -> None:
    made = result()
    made["ledger"]["declared"] = 1_000
    made["ledger"]["delivered"] -= 1_000
    assert "of 80,601 deliveries owed, 79,601 arrived" in headline(made)
    assert "declared the other 1,000 dropped" in headline(made)


@pytest.mark.parametrize("verdict", ["fail", "unknown"])
def test_the_worst_reason_is_the_headline_and_the_others_follow(verdict: Any) -> None:
    made = result()
    made["verdict"] = {"verdict": verdict, "reasons": ["Seven were lost.", "It was slow."], "notes": ["And a note."]}
    page = Words(render(made))
    start = "FAIL Seven were lost." if verdict == "fail" else "UNKNOWN This run proves nothing: Seven were lost."
    assert start in page.text
    assert page.words.index("It was slow.") < page.words.index("And a note.")


def test_a_run_that_never_began_is_told_without_pictures_or_invented_figures() -> None:
    page = Words(render(unmeasured()))
    assert "UNKNOWN This run proves nothing: ws://127.0.0.1:9: refused." in page.text
    assert "200 subscribers could not connect: refused." in page.text
    assert "no /metrics address" in page.text
    assert not [tag for tag, _ in page.tags if tag == "svg"]
    assert f"deliveries/s {axes.NOTHING}" in page.text
    assert f"p99 {axes.NOTHING}" in page.text


def test_the_page_needs_nothing_but_itself() -> None:
    html = render(result(), AROUND)
    page = Words(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "a", "base"}
    addresses = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href", "srcset", "data")]
    assert addresses == []
    assert "url(" not in html
    assert "@import" not in html
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def test_every_picture_is_well_formed_and_named() -> None:
    pictures = re.findall(r"<svg.*?</svg>", render(result()), re.DOTALL)
    assert len(pictures) == 10
    ids = []
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        title, description = root.find("title"), root.find("desc")
        assert title is not None
        assert description is not None
        assert title.text
        assert description.text
        ids += [title.get("id"), description.get("id")]
    assert len(set(ids)) == 20


def poisoned(value: Any, word: str) -> Any:
    """The same, with every text in it, keys of free dictionaries included, replaced by `word`."""
    if isinstance(value, str):
        return word
    if isinstance(value, list):
        return [poisoned(v, word) for v in value]
    if isinstance(value, dict):
        return {k: poisoned(v, word) for k, v in value.items()}
    return value


def test_every_word_of_a_result_is_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    made = result()
    made["clients"]["failed"] = {evil: 3}
    made["clients"]["closes"] = {evil: 3}
    made["ledger"]["damaged"] = [evil]
    made["ledger"]["server"]["differences"] = [evil]
    made["ledger"]["server"]["delta"] = counters(5, 5, dropped={evil: 1}, closed={evil: 1})
    made["options"] = {evil: evil}
    made["verdict"] = cast(Any, {"verdict": "fail", "reasons": [evil, evil], "notes": [evil]})
    for second in made["timeline"]:
        second["generator_cpu"] = {evil: 1.0, "b": 2.0}
    html = render(poisoned(made, evil), poisoned(AROUND, evil))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 20
    Words(html)


def test_a_wrong_row_of_the_ledger_stands_out() -> None:
    made = result()
    assert 'class="wrong"' not in render(made)
    made["ledger"]["channels"][0]["lost"] = made["ledger"]["lost"] = 1
    made["ledger"]["damaged"] = ["connection 7 on load:0 lost 1: 12"]
    html = render(made)
    assert html.count('class="wrong"') == 2  # the channel, and the sum
    assert "connection 7 on load:0 lost 1: 12" in html


def test_many_channels_are_cut_and_counted() -> None:
    made = result()
    made["ledger"]["channels"] *= 80
    page = Words(render(made))
    assert "30 channels with nothing wrong are not shown." in page.text


def test_closes_and_drops_are_shown_by_code_and_reason() -> None:
    made = result()
    made["clients"]["closes"] = {"1013": 4, "1006": 1}
    made["ledger"]["server"]["delta"] = counters(100, 10, dropped={"queue_full": 5}, closed={"1013": 4, "1000": 9})
    made["ledger"]["server"]["after"] = made["ledger"]["server"]["delta"]
    text = Words(render(made)).text
    assert "1000 0 0 9 1006 1 0 0 1013 4 0 4" in text
    assert f"dropped queue_full {axes.NOTHING} 5 5" in text


def test_troublemakers_are_shown_when_there_were_any() -> None:
    made = result()
    assert "seen misbehaving" not in render(made)
    made["troublemakers"] |= {"stalled_asked": 50, "stalled_observed": 49, "stalled_evicted": 48}
    made["troublemakers"] |= {"flapping_asked": 25, "flapping_done": 24}
    text = Words(render(made)).text
    assert "stalled 50 49 48" in text
    assert "flapping (reconnects) 25 24" in text
    assert "slow" not in re.findall(r"\bslow \d+", text)


def test_a_server_without_metrics_leaves_gaps_that_say_why() -> None:
    made = result()
    for second in made["timeline"]:
        second.update(queue_bytes=None, lagging_clients=None, server_rss=None, server_cpu=None, server_connections=None)
    assert Words(render(made)).text.count("the server's /metrics address was not known") >= 3


def test_percentile_points_rise_to_the_worst() -> None:
    points = report_charts.percentile_points(result()["latency"])
    assert points[0][0] == 0
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)
    assert points[-1][0] == pytest.approx(1 - 1 / result()["latency"]["count"])
    empty = unmeasured()["latency"]
    assert report_charts.percentile_points(empty) == []


def test_many_generator_processes_become_the_busiest() -> None:
    made = result()
    made["timeline"] = [row(t) for t in range(3)]
    for second in made["timeline"]:
        second["generator_cpu"] = {str(i): 10.0 * i for i in range(6)}
    names = [series.name for series in report_charts.cpu(made).series]
    assert names == ["server, all workers", "generator, busiest of 6"]
    assert [y for _, y in report_charts.cpu(made).series[1].points] == [50.0] * 3


def test_memory_per_connection_counts_everyone_who_stayed() -> None:
    made = result(200)
    assert report.rss_per_connection(made) == pytest.approx(12_000)
    made["troublemakers"] |= {"stalled_observed": 201}
    assert report.rss_per_connection(made) == pytest.approx(6_000)
    made["server"]["rss_before"] = None
    assert report.rss_per_connection(made) is None


def test_a_report_can_be_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(result(), tmp_path)
    (tmp_path / report.RUN_FILE).write_text(json.dumps(AROUND))
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == render(result(), AROUND)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_what_is_no_result_is_refused_in_one_line(content: str | None, tmp_path: Path, capsys) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    assert report.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("loadtest.report: ")
    assert said.count("\n") == 1
    assert report.main([]) == 2


def test_the_sample_has_the_schema() -> None:
    for made in (result(), unmeasured()):
        assert set(made) == set(Result.__annotations__)


async def test_a_browser_shows_it_on_a_phone_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    """In a real browser: no request but its own, no complaint of the content policy, nothing wider than the screen."""
    made = result()
    made["verdict"]["notes"] = ["A note with a long_word_that_has_no_place_to_break_" * 4]
    made["options"]["metrics"] = "http://an.address.of.some.length:9000/metrics"
    path = tmp_path / "report.html"
    path.write_text(render(made, AROUND))
    seen: list[str] = []
    async with launch_chromium() as browser:
        for width, scheme in ((320, "dark"), (390, "light"), (1100, "light")):
            tab = await browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            tab.on("request", lambda request: seen.append(request.url))
            tab.on("console", lambda message: seen.append(message.text))
            await tab.goto(path.as_uri())
            assert await tab.evaluate("document.documentElement.scrollWidth") == width
            assert await tab.locator("svg[role=img]").count() == 10
            await tab.close()
    assert seen == [path.as_uri()] * 3
