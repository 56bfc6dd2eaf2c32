"""Axes end on round numbers and say them as a person would; charts are well-formed, escaped and readable aloud."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from loadtest import axes
from loadtest.axes import Axis, scaled
from loadtest.charts import HEIGHT, STYLE, WIDTH, Band, Chart, Mark, Series, sheet, svg, thin

NAN = math.nan


def chart(*series: Series, **changes) -> Chart:
    """A chart of seconds against milliseconds."""
    given = {
        "name": "it",
        "title": "Latency",
        "description": "How it went",
        "x": Axis("time", axes.seconds, low=0),
        "y": Axis("latency", axes.milliseconds),
        "series": series,
    }
    return Chart(**(given | changes))


def texts(picture: str) -> list[str]:
    """Every word in the picture."""
    return [node.text or "" for node in ElementTree.fromstring(picture).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize(
    ("say", "value", "said"),
    [
        (axes.plain, 0, "0"),
        (axes.plain, 1234.5, "1,234"),
        (axes.plain, 0.012345, "0.0123"),
        (axes.plain, -2.5, "-2.5"),
        (axes.plain, 100.0, "100"),
        (axes.plain, NAN, axes.NOTHING),
        (axes.count, 950, "950"),
        (axes.count, 12_500, "12.5 k"),
        (axes.count, 999_600, "1 M"),
        (axes.count, 3_000_000, "3 M"),
        (axes.size, 128, "128 B"),
        (axes.size, 1536, "1.5 KiB"),
        (axes.size, 3 << 30, "3 GiB"),
        (axes.milliseconds, 0, "0"),
        (axes.microseconds, 0.00065, "0.65 ns"),
        (axes.microseconds, 0.5, "0.5 µs"),
        (axes.microseconds, 6.51, "6.51 µs"),
        (axes.microseconds, 2_500_000, "2.5 s"),
        (axes.milliseconds, 0.42, "420 µs"),
        (axes.milliseconds, 12.34, "12.3 ms"),
        (axes.milliseconds, 1250, "1.25 s"),
        (axes.milliseconds, math.inf, axes.NOTHING),
        (axes.seconds, 45, "45 s"),
        (axes.seconds, 600, "10 min"),
        (axes.seconds, 9000, "2.5 h"),
        (axes.percent, 0.125, "12.5 %"),
        (axes.nines, 0, "0 %"),
        (axes.nines, 0.5, "50 %"),
        (axes.nines, 0.9, "90 %"),
        (axes.nines, 0.99, "99 %"),
        (axes.nines, 0.9999, "99.99 %"),
        (axes.nines, 1, "100 %"),
    ],
)
def test_numbers_are_said_as_a_person_would(say: axes.Format, value: float, said: str) -> None:
    assert say(value) == said


def test_many_has_its_plural() -> None:
    assert [axes.many(n, "channel") for n in (0, 1, 2000)] == ["0 channels", "1 channel", "2,000 channels"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 9.3], (0, 2, 4, 6, 8, 10)),
        ([3, 97], (0, 20, 40, 60, 80, 100)),
        ([0, 0.0031], (0, 0.001, 0.002, 0.003, 0.004)),
        ([-1, 1], (-1, -0.5, 0, 0.5, 1)),
        ([7], (0, 2, 4, 6, 8)),
        ([0], (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([], (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([NAN, 5, math.inf], (0, 1, 2, 3, 4, 5)),
    ],
)
def test_linear_ticks_are_round_and_hold_every_value(values: list[float], ticks: tuple[float, ...]) -> None:
    assert scaled(Axis("x"), values, most=5).ticks == pytest.approx(ticks)


def test_bytes_have_ticks_at_powers_of_two() -> None:
    assert [axes.size(t) for t in scaled(Axis("x", kind="bytes", low=0), [4700.0], most=5).ticks] == [
        "0 B",
        "1 KiB",
        "2 KiB",
        "3 KiB",
        "4 KiB",
        "5 KiB",
    ]


def test_whole_things_have_no_ticks_between_them() -> None:
    assert scaled(Axis("clients", low=0, least=1), [2.0]).ticks == (0, 1, 2)


def test_an_axis_reaches_at_least_where_it_was_told_to() -> None:
    scale = scaled(Axis("x", low=0, high=100), [40.0, 41.0])
    assert (scale.low, scale.high) == (0, 100)


@pytest.mark.parametrize(
    ("values", "ends", "ticks"),
    [
        ([0.9, 30], (0.5, 50), (0.5, 1, 2, 5, 10, 20, 50)),
        ([1, 1_000_000], (1, 1_000_000), (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)),
        ([2], (2, 5), (2, 5)),
        ([], (1, 10), (1, 2, 5, 10)),
        ([0, -1, 5], (5, 10), (5, 10)),
    ],
)
def test_log_ticks_are_round(values: list[float], ends: tuple[float, float], ticks: tuple[float, ...]) -> None:
    scale = scaled(Axis("x", kind="log"), values, most=5)
    assert (scale.low, scale.high) == pytest.approx(ends)
    assert scale.ticks == pytest.approx(ticks)


def test_each_further_nine_has_the_same_width() -> None:
    scale = scaled(Axis("x", axes.nines, "nines"), [0.0, 1 - 1e-4])
    assert [axes.nines(t) for t in scale.ticks] == ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert [scale.at(v) for v in (0, 0.9, 0.99, 0.999, 0.9999)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("kind", ["linear", "bytes", "log", "nines"])
def test_a_scale_keeps_order_and_bounds(kind) -> None:
    values = [0.1, 0.3, 0.5, 0.97]
    scale = scaled(Axis("x", kind=kind), values)
    places = [scale.at(v) for v in values]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)
    assert scale.at(-5) == 0


def test_a_chart_is_well_formed_and_named_for_those_who_do_not_see_it() -> None:
    picture = svg(chart(Series("p50", [(0, 1), (1, 2)])))
    root = ElementTree.fromstring(picture)
    title, description = root.find("title"), root.find("desc")
    assert title is not None
    assert description is not None
    assert (title.text, description.text) == ("Latency", "How it went")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert {"time", "latency"} <= set(texts(picture))


def test_every_word_from_outside_is_escaped() -> None:
    evil = '</title><script>alert("1")</script>'
    picture = svg(
        chart(
            Series(evil, [(0, 1), (1, 2)]),
            Series("other", [(0, 1)]),
            title=evil,
            description=evil,
            name='"><script>',
            x=Axis(evil, axes.seconds),
            y=Axis(evil),
            marks=(Mark(evil, 1),),
            bands=(Band(evil, 0, 1),),
        )
    )
    assert "<script" not in picture
    ElementTree.fromstring(picture)
    ElementTree.fromstring(svg(chart(empty=evil)))
    assert "<script" not in sheet([chart(title=evil)], evil)


def test_a_missing_value_is_a_gap_and_a_lone_one_still_shows() -> None:
    picture = svg(chart(Series("p50", [(0, 1), (1, 2), (2, NAN), (3, 4)])))
    lines = re.findall(r'class="line"[^>]* d="([^"]*)"', picture)
    assert [path.count("L") for path in lines] == [1, 1]
    assert lines[1][1:].split("L")[0] == lines[1].split("L")[1]


def test_a_chart_without_a_single_value_says_why() -> None:
    picture = svg(chart(Series("p50", [(0, NAN)]), empty="not measured"))
    assert "not measured" in texts(picture)
    assert 'class="line"' not in picture


def test_one_series_needs_no_legend_and_many_wrap() -> None:
    assert "alone" not in texts(svg(chart(Series("alone", [(0, 1)]))))
    names = [f"a series with a long name {i}" for i in range(6)]
    picture = svg(chart(*(Series(name, [(0, 1)], i) for i, name in enumerate(names))))
    assert set(names) <= set(texts(picture))
    places = [float(x) for x in re.findall(r'class="key" x="(\d+)"', picture)]
    assert len(set(places)) < len(places)  # more than one line of names
    assert max(places) < WIDTH / 2 + 40


def test_series_differ_in_dash_as_well_as_in_colour() -> None:
    picture = svg(chart(Series("a", [(0, 1), (1, 1)], 0), Series("b", [(0, 2), (1, 2)], 1)))
    strokes = set(re.findall(r'class="line" style="stroke:(var\(--tone\d\))"( stroke-dasharray="[^"]*")?', picture))
    assert len(strokes) == 2
    assert len({dash for _, dash in strokes}) == 2


def test_marks_bands_whiskers_and_hollow_points_are_drawn() -> None:
    measured = Series("measured", [(1, 5), (2, 6)], 0, "both", whiskers=[(4, 7), (NAN, NAN)])
    unknown = Series("unknown", [(2, 9)], 5, "dots", hollow=True)
    picture = svg(chart(measured, unknown, marks=(Mark("promise", 8), Mark("knee", 2, "x")), bands=(Band("w", 0, 1),)))
    assert picture.count('class="mark"') == 2
    assert picture.count('class="band"') == 1
    assert picture.count('class="whisker"') == 1
    assert picture.count("hollow") == 2  # the point, and its sample in the legend
    assert {"promise", "knee", "w"} <= set(texts(picture))


def test_everything_stays_inside_the_picture() -> None:
    points = [(float(i), math.exp(i / 3)) for i in range(40)]
    picture = svg(chart(Series("a", points), Series("b", points, 1), y=Axis("y", kind="log"), marks=(Mark("m", 1e9),)))
    for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", picture):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_labels_that_would_touch_are_left_out() -> None:
    words = texts(svg(chart(Series("a", [(0, 1), (1 - 1e-5, 2)]), x=Axis("p", axes.nines, "nines"))))
    assert "90 %" in words
    assert not {"0 %", "50 %"} <= set(words)


def test_thinning_keeps_the_worst_second() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[7_777] = (7_777.0, 99.0)
    points[3_333] = (3_333.0, NAN)
    kept = thin(points)
    assert len(kept) <= 480
    assert (7_777.0, 99.0) in kept
    assert kept == sorted(kept)
    assert thin(points[:100]) == points[:100]


def test_thinning_keeps_a_long_gap() -> None:
    points = [(float(i), NAN if 2000 < i < 6000 else 1.0) for i in range(10_000)]
    assert any(math.isnan(y) for _, y in thin(points))


def test_a_sheet_is_one_file_with_its_style_inside() -> None:
    picture = sheet([chart(name="a"), chart(name="b"), chart(name="c")], "Three")
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.count("<svg") == 7
    assert STYLE in picture
    assert "prefers-color-scheme:dark" in STYLE
    assert not re.search(r"(href|src|url\()", picture)
