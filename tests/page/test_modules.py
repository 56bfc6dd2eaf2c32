"""The page's modules that are pure, one by one, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.reading import VMSTAT, VMSTAT_COLUMNS, Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

# ---- closing.js


async def test_backoff_is_full_jitter_below_a_ceiling_that_doubles(run: Run) -> None:
    highest = await run("closing.js", "return [0, 1, 2, 3, 4, 5, 6, 7, 40, 4000].map((n) => m.backoff(n, () => 1))")
    assert highest == [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]
    assert await run("closing.js", "return [0, 9].map((n) => m.backoff(n, () => 0))") == [0, 0]
    assert await run("closing.js", "return [0, 9].map((n) => m.backoff(n, () => 0.25))") == [125, 7500]


async def test_backoff_draws_anew_each_time(run: Run) -> None:
    draws = await run("closing.js", "return Array.from({ length: 200 }, () => m.backoff(6))")
    assert len(set(draws)) > 150
    assert min(draws) < 6000 < 24000 < max(draws) <= 30000


@pytest.mark.parametrize(
    ("code", "reason", "comes_back", "delay"),
    [
        (1000, "", True, None),
        (1001, "", True, None),
        (1006, "", True, None),
        (1008, "", False, None),
        (1009, "", False, None),
        (1011, "", True, None),
        (1012, "", True, None),
        (1012, "reconnect_after_ms=1500", True, 1500),
        (1012, '{"reconnect_after_ms": 0}', True, 0),
        (1012, "restart; reconnect_after_ms: 250", True, 250),
        (1012, "reconnect_after_ms=soon", True, None),
        (1012, "reconnect_after_ms=99999999999", True, 600_000),
        (1001, "server shutting down, reconnect_after_ms=700", True, 700),
        (1013, "", True, None),
        (3001, "", True, None),
        (3012, "", True, None),
        (3499, "", True, None),
        (3500, "", False, None),
        (3500, "reconnect_after_ms=10", False, None),
        (3999, "", False, None),
        (4000, "", True, None),
        (4499, "", True, None),
        (4500, "", False, None),
        (4999, "", False, None),
    ],
)
async def test_the_verdict_on_a_close(run: Run, code: int, reason: str, comes_back: bool, delay: int | None) -> None:
    verdict = await run("closing.js", "return m.verdictOn(...arg)", [code, reason])
    assert verdict["comesBack"] is comes_back
    assert verdict["orderedDelay"] == delay
    assert verdict["words"].endswith(f" ({code})")


async def test_the_usual_words_beside_a_code_are_not_repeated(run: Run) -> None:
    said = await run("closing.js", "return arg.map((one) => m.verdictOn(...one).words)", [
        [3001, "shutdown"], [3001, "back at noon"], [4600, "shutdown"],
    ])  # fmt: skip
    assert said == [
        "The server is shutting down. (3001)",
        "The server is shutting down. It says: “back at noon”. (3001)",
        "The connection was closed. It says: “shutdown”. (4600)",
    ]


# ---- numbers.js

READ = """
const reader = new m.NumberReader();
const brief = ({ name, group, value }) => [name, group, value];
return arg.map((text) => reader.read(text).map((sample) => sample.map(brief)));
"""


@pytest.mark.parametrize(
    ("payload", "readings"),
    [
        ("42", [["value", "", 42]]),
        (" -1.5e3\n", [["value", "", -1500]]),
        ("97.5%", [["value", "", 97.5]]),
        ("[1, 2.5]", [["[0]", "", 1], ["[1]", "", 2.5]]),
        ('{"a": 1, "b": "2", "c": null, "d": true}', [["a", "", 1]]),
        (
            '{"cpu": {"user": 3, "load": [0.5, 1]}}',
            [["user", "cpu", 3], ["[0]", "cpu.load", 0.5], ["[1]", "cpu.load", 1]],
        ),
        ('{"ts": 1795386000123, "v": 7}', [["v", "", 7]]),
        ('{"time": 12.5}', [["time", "", 12.5]]),
        ("0.1 0.2 up", [["column 1", "", 0.1], ["column 2", "", 0.2]]),
    ],
)
async def test_numbers_are_found(run: Run, payload: str, readings: list[Any]) -> None:
    assert await run("numbers.js", READ, [payload]) == [[readings]]


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " ",
        "hello",
        "see you at 5",
        "load 7",
        '"42"',
        "true",
        "null",
        "[]",
        "{}",
        "[1, null]",
        '["a"]',
        '{"a": "1"}',
        "{1}",
        "1e999",
        "0x10",
        "1,5",
        "NaN",
        "Infinity",
        "- -- ---",
        "[" * 4000,
        "9 " * 5000,
    ],
)
async def test_what_is_not_numbers_is_left_alone(run: Run, payload: str) -> None:
    assert await run("numbers.js", READ, [payload]) == [[]]


async def test_a_header_names_the_columns_and_groups_them(run: Run) -> None:
    *headers, first, second = await run("numbers.js", READ, VMSTAT[:4])
    assert headers == [[], []]
    assert [name for name, _, _ in first[0]] == VMSTAT_COLUMNS
    assert [group for _, group, _ in first[0]] == (
        ["procs"] * 2 + ["memory"] * 4 + ["swap"] * 2 + ["io"] * 2 + ["system"] * 2 + ["cpu"] * 5
    )
    assert [value for _, _, value in second[0]] == [float(word) for word in VMSTAT[3].split()]


async def test_a_header_may_come_late_or_in_one_message_with_its_rows(run: Run) -> None:
    readings = "const r = new m.NumberReader(); return arg.map((text) => r.read(text).map((sample) => sample[3]))"
    late, _, _, named = await run("numbers.js", readings, [VMSTAT[2], VMSTAT[0], VMSTAT[1], VMSTAT[3]])
    assert (late[0]["name"], named[0]["name"]) == ("column 4", "free")
    assert late[0]["key"] == named[0]["key"]
    (together,) = await run("numbers.js", readings, ["\n".join(VMSTAT)])
    assert [sample["name"] for sample in together] == ["free"] * 3


async def test_a_timestamp_column_does_not_shift_the_names(run: Run) -> None:
    stamped = [
        VMSTAT[0] + " -----timestamp-----",
        VMSTAT[1] + "                 UTC",
        VMSTAT[2] + " 2026-11-22 22:26:58",
    ]
    *_, (row,) = await run("numbers.js", READ, stamped)
    assert [name for name, _, _ in row] == VMSTAT_COLUMNS


async def test_words_that_merely_stand_above_numbers_name_nothing(run: Run) -> None:
    *_, (row,) = await run("numbers.js", READ, ["shall we begin with it", "1 2 3"])
    assert [name for name, _, _ in row] == ["column 1", "column 2", "column 3"]


async def test_readings_are_bounded(run: Run) -> None:
    wide = "[" + ",".join(["1"] * 100) + "]"
    fields = "{" + ",".join(f'"f{n}": {n}' for n in range(100)) + "}"
    columns = " ".join(["1"] * 100)
    assert [len(sample[0]) for sample in await run("numbers.js", READ, [wide, fields, columns])] == [32, 32, 32]


# ---- traces.js


async def test_a_trace_is_bounded_and_keeps_every_peak(run: Run) -> None:
    found = await run(
        "traces.js",
        """
        const traces = new m.Traces();
        const valueOf = (n) => (n === 31234 ? 999 : n === 7777 ? -999 : n % 10);
        for (let n = 0; n < 50000; n++) traces.add(n * 2, [{ key: "k", name: "k", group: "", value: valueOf(n) }]);
        const [trace] = traces.list;
        const { points } = trace;
        return { length: points.length, value: trace.value, first: points[0].time, last: points.at(-1).time,
            high: Math.max(...points.map((p) => p.high)), low: Math.min(...points.map((p) => p.low)),
            count: points.reduce((sum, p) => sum + p.count, 0),
            total: points.reduce((sum, p) => sum + p.count * p.mean, 0) };
        """,
    )
    assert 100 <= found["length"] <= 300
    assert (found["first"], found["value"], found["high"], found["low"]) == (0, 9, 999, -999)
    assert found["last"] > 98_000
    assert found["count"] == 50_000
    assert found["total"] == pytest.approx(225_000 - 4 + 999 - 7 - 999, rel=1e-6)


async def test_a_trace_forgets_after_two_minutes_and_a_silent_series_goes(run: Run) -> None:
    found = await run(
        "traces.js",
        """
        const traces = new m.Traces();
        const reading = (key, value) => ({ key, name: key, group: "", value });
        traces.add(0, [reading("silent", 1)]);
        for (let second = 0; second <= 300; second++) traces.add(second * 1000, [reading("k", second)]);
        return traces.list.map((trace) => [trace.key, trace.points[0].time, trace.points.length]);
        """,
    )
    assert found == [["k", 180_000, 121]]


async def test_series_are_bounded_and_the_stalest_goes_first(run: Run) -> None:
    found = await run(
        "traces.js",
        """
        const traces = new m.Traces();
        for (let n = 0; n < 60; n++) traces.add(n, [{ key: `k${n}`, name: "", group: "", value: n }]);
        return traces.list.map((trace) => trace.key);
        """,
    )
    assert found == [f"k{n}" for n in range(12, 60)]


async def test_a_gap_breaks_every_line_once(run: Run) -> None:
    found = await run(
        "traces.js",
        """
        const traces = new m.Traces();
        const say = (time) => traces.add(time, ["a", "b"].map((key) => ({ key, name: key, group: "", value: 1 })));
        [1, 2].forEach(say); traces.gap(); [3, 4].forEach(say);
        return traces.list.map((trace) => trace.points.map((point) => point.afterGap));
        """,
    )
    assert found == [[False, False, True, False]] * 2


# ---- scale.js


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (3, 97, [0, 20, 40, 60, 80, 100]),
        (9_123, 9_187, [9120, 9140, 9160, 9180, 9200]),
        (-4, 4, [-4, -2, 0, 2, 4]),
        (-90, -20, [-100, -80, -60, -40, -20, 0]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [0, 2, 4, 6, 8, 10]),
        (0.001, 0.0042, [0, 0.001, 0.002, 0.003, 0.004, 0.005]),
    ],
)
async def test_axes_end_on_round_numbers(run: Run, low: float, high: float, ticks: list[float]) -> None:
    axis = await run("scale.js", "return m.valueAxis(...arg)", [low, high])
    assert axis["ticks"] == pytest.approx(ticks)
    assert (axis["from"], axis["to"]) == (pytest.approx(ticks[0]), pytest.approx(ticks[-1]))
    assert axis["from"] <= low <= high <= axis["to"]


async def test_figures_are_short(run: Run) -> None:
    numbers = {0: "0", 7: "7", 7.25: "7.25", -0.03125: "-0.0313", 999.6: "1000", 1234: "1,234", 48_249: "48.2k"}
    numbers |= {5_123_456: "5.12M", 2.5e9: "2.5G", -3e12: "-3T", 1e18: "1.00e+18", 1e-7: "1.00e-7"}
    assert await run("scale.js", "return arg.map(m.shortNumber)", list(numbers)) == list(numbers.values())
    spans = {0.26: "0.3 ms", 12.34: "12.3 ms", 99.96: "100 ms", 250.4: "250 ms", 999.7: "1.0 s", 61_250: "61.3 s"}
    assert await run("scale.js", "return arg.map(m.shortSpan)", list(spans)) == list(spans.values())


async def test_clock_ticks_are_whole_and_few(run: Run) -> None:
    for seconds in (1, 7, 59, 120):
        ticks = await run("scale.js", "return m.timeTicks(1000.5, 1000.5 + arg, 8)", seconds * 1000)
        assert 1 <= len(ticks) <= 9
        assert all(tick % 1000 == 0 for tick in ticks)


# ---- meter.js, echoes.js, channels.js


async def test_the_rate_is_that_of_the_last_seconds(run: Run) -> None:
    found = await run(
        "meter.js",
        """
        const meter = new m.Meter();
        const rates = [meter.rate(0)];
        for (let n = 0; n < 5000; n++) meter.count(1000 + n);
        rates.push(meter.rate(5999), meter.rate(7500), meter.rate(60000), meter.total);
        return rates;
        """,
    )
    assert found[0] == 0
    assert found[1] == pytest.approx(1000, rel=0.1)
    assert found[2] == pytest.approx(500, rel=0.2)
    assert found[3:] == [0, 5000]


async def test_echoes_are_matched_once_each_and_given_up_in_time(run: Run) -> None:
    found = await run(
        "echoes.js",
        """
        const echoes = new m.Echoes();
        echoes.said("a", 0); echoes.said("b", 10); echoes.said("a", 20); echoes.said("c", 30);
        return [echoes.heard("x", 40), echoes.heard("a", 41), echoes.waiting(50), echoes.heard("a", 60),
            echoes.heard("a", 61), echoes.expire(60, 40), echoes.waiting(70), echoes.heard("b", 80),
            echoes.expire(Infinity, 0), echoes.waiting(90)];
        """,
    )
    assert found == [None, 41, 40, 40, None, ["b"], 40, None, ["c"], None]


async def test_the_dialect_stands_behind_the_channel(run: Run) -> None:
    fragments = {
        "": ["main", "raw"],
        "#ops": ["ops", "raw"],
        "#ops&dialect=centrifuge": ["ops", "centrifuge"],
        "#ops&dialect=raw": ["ops", "raw"],
        "#&dialect=centrifuge": ["main", "centrifuge"],
        "#R&D": ["R&D", "raw"],
        "#R&D&dialect=smtp": ["R&D&dialect=smtp", "raw"],
        "#a%26dialect%3Dcentrifuge": ["a&dialect=centrifuge", "raw"],
    }
    read = "return arg.map((hash) => [m.channelOf({ hash, search: '' }), m.dialectOf({ hash })])"
    assert await run("channels.js", read, list(fragments)) == list(fragments.values())
    names = ["ops", "R&D", "a&dialect=centrifuge", "ü/#"]
    there_and_back = """return arg.flatMap((name) => ["raw", "centrifuge"].map((dialect) => {
        const hash = m.fragmentOf(name, dialect);
        return m.channelOf({ hash, search: "" }) === name && m.dialectOf({ hash }) === dialect; }))"""
    assert await run("channels.js", there_and_back, names) == [True] * 8


async def test_a_shell_reads_the_example_back(run: Run) -> None:
    words = {"main": "main", "ops:eu-1": "ops:eu-1", "a b": "'a b'", "it's": "'it'\\''s'", "$(x)": "'$(x)'"}
    assert await run("channels.js", "return arg.map(m.shellWord)", list(words)) == list(words.values())


async def test_the_command_names_the_server_unless_it_is_the_usual_one(run: Run) -> None:
    hosts = [["http:", "127.0.0.1:8000"], ["http:", "localhost:8000"], ["http:", "box:8000"], ["https:", "live.test"]]
    commands = await run(
        "channels.js", "return arg.map(([protocol, host]) => m.shellCommand({ protocol, host }, 'ops'))", hosts
    )
    usual = "vmstat 1 | stentor publish --channel ops"
    assert commands == [usual, usual, f"{usual} --url ws://box:8000", f"{usual} --url wss://live.test"]


async def test_a_browser_without_storage_remembers_nothing(run: Run) -> None:
    found = await run(
        "channels.js",
        """
        const broken = { getItem() { throw new Error("no") }, setItem() { throw new Error("no") } };
        const odd = { getItem: () => '{"not": "a list"}', setItem() {} };
        return [broken, null, odd].flatMap((storage) => [m.recentChannels(storage), m.rememberChannel(storage, "x")]);
        """,
    )
    assert found == [[], ["x"]] * 3


async def test_names_that_no_path_can_hold_are_objected_to(run: Run) -> None:
    objections = await run("channels.js", "return ['', '.', '..', '\\ud800', 'a', '...', '/', 'ü'].map(m.objectionTo)")
    assert [objection is None for objection in objections] == [False] * 4 + [True] * 4


# ---- data.js, presence.js


@pytest.mark.parametrize(
    ("typed", "data", "heard"),
    [
        ("hello", '"hello"', "hello"),
        ("42", '"42"', "42"),
        ('"quoted"', '"\\"quoted\\""', '"quoted"'),
        ("two\nlines", '"two\\nlines"', "two\nlines"),
        ('{"price": 1.10,\r\n "id": 9007199254740993}', '{"price": 1.10,   "id": 9007199254740993}', None),
        ("[1, 2]", "[1, 2]", "[1,2]"),
        ("{not json}", '"{not json}"', "{not json}"),
        ("[1e999]", '"[1e999]"', "[1e999]"),
        ('["\\ud800"]', '"[\\"\\\\ud800\\"]"', '["\\ud800"]'),
        ("[" * 32 + "]" * 32, "[" * 32 + "]" * 32, "[" * 32 + "]" * 32),
        ("[" * 33 + "]" * 33, '"' + "[" * 33 + "]" * 33 + '"', "[" * 33 + "]" * 33),
    ],
)
async def test_what_is_typed_becomes_json_that_the_server_takes(
    run: Run, typed: str, data: str, heard: str | None
) -> None:
    found = await run("data.js", "const data = m.dataOf(arg); return [data, m.payloadOf(JSON.parse(data))]", typed)
    assert found[0] == data
    if heard is not None:
        assert found[1] == heard


async def test_data_is_shown_as_what_was_said(run: Run) -> None:
    shown = await run(
        "data.js",
        """
        const bytes = (payload) => payload instanceof ArrayBuffer ? [...new Uint8Array(payload)] : payload;
        return arg.map(([data, tags]) => bytes(m.payloadOf(data, tags)));
        """,
        [
            ["text"], [7], [None], [{"a": [1]}], ["AAH+/w==", {"encoding": "base64"}], ["AAH+/w==", {"key": "x"}],
            ["not base64!", {"encoding": "base64"}],
        ],
    )  # fmt: skip
    assert shown == ["text", "7", "null", '{"a":[1]}', [0, 1, 254, 255], "AAH+/w==", "not base64!"]


async def test_who_joins_or_leaves_while_a_snapshot_is_on_its_way_is_not_forgotten(run: Run) -> None:
    found = await run(
        "presence.js",
        """
        const presence = new m.Presence();
        const steps = [[presence.isKnown, presence.clients]];
        presence.asked(); presence.joined("b"); presence.left("a"); presence.snapshot(["a", "c"]);
        steps.push([presence.isKnown, presence.clients]);
        presence.joined("d"); presence.joined("d"); presence.left("nobody");
        steps.push(presence.clients);
        presence.asked(); presence.snapshot(["d", "e", "c"]);
        steps.push(presence.clients);
        return steps;
        """,
    )
    assert found == [[False, []], [True, ["c", "b"]], ["c", "b", "d"], ["c", "d", "e"]]
