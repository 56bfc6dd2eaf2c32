"""Each option once: the command line beats the environment, which beats the default; what is wrong is one line."""

import re
import shlex
from pathlib import Path

import pytest

from loadtest import line, run
from loadtest.options import OPTIONS, BadOption, Option
from loadtest.report_tables import Surroundings
from loadtest.result import Result
from loadtest.scaling_result import Scaling

ALL = (*OPTIONS, *line.RUN_OPTIONS, *line.SCALING_OPTIONS)


def parse(*arguments: str, **environment: str):
    return line.parse("it", "About it.", arguments, ALL, environment=environment)


def test_the_command_line_beats_the_environment_which_beats_the_default() -> None:
    assert parse().subscribers == 100
    assert parse(USERS="2000").subscribers == 2000
    assert parse("--subscribers", "30", USERS="2000").subscribers == 30
    assert parse(RATE="2.5").rate == 2.5
    assert parse(URL="ws://x").url == "ws://x"


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert parse(USERS="", RATE="", URL="").subscribers == 100


def test_a_command_may_have_defaults_of_its_own() -> None:
    parsed = line.parse("it", "", [], OPTIONS, defaults={"warmup": 2.0}, environment={})
    assert parsed.warmup == 2.0
    assert line.parse("it", "", [], OPTIONS, defaults={"warmup": 2.0}, environment={"WARMUP": "3"}).warmup == 3.0


def test_metrics_may_be_called_what_it_is() -> None:
    assert parse(METRICS_URL="http://x").metrics == "http://x"
    assert parse(METRICS_URL="http://x", METRICS="http://y").metrics == "http://y"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--rate", "fast"], {}, "RATE=fast: a number is needed"),
        ([], {"USERS": "2k"}, "USERS=2k: a whole number is needed"),
        (["--bogus"], {}, "unrecognized arguments: --bogus"),
        (["--rate"], {}, "expected one argument"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], environment: dict[str, str], words: str) -> None:
    with pytest.raises(BadOption, match=words) as raised:
        parse(*arguments, **environment)
    assert "\n" not in str(raised.value)


def test_no_two_options_share_a_flag_or_a_variable() -> None:
    assert len({o.flag for o in ALL}) == len({o.variable for o in ALL}) == len(ALL)


def test_only_what_was_changed_is_handed_on_and_no_secret() -> None:
    parsed = parse("--rate", "2.5", "--token", "hush", USERS="2000", TIME="30s", STALLED="0")
    assert line.given(parsed) == ["--subscribers=2000", "--rate=2.5", "--publish-time=30s"]


def test_large_and_small_numbers_survive_being_handed_on() -> None:
    for text in ("1234567", "0.0012345678", "12.0"):
        again = parse(*line.given(parse(RATE=text)))
        assert again.rate == float(text)


def test_the_command_can_be_typed_again() -> None:
    parsed = parse("--server-args=--lag-policy drop_oldest", "--token=hush", RATE="50", URL="ws://h/{channel}")
    typed = line.typed("make loadtest", parsed, ALL)
    words = shlex.split(typed)
    assert words[:2] == ["make", "loadtest"]
    assert "hush" not in typed
    assert set(words[2:]) == {
        "URL=ws://h/{channel}",
        "TOKEN=***",
        "RATE=50",
        "SERVER_ARGS=--lag-policy drop_oldest",
    }


def test_what_is_no_default_of_the_command_is_typed_even_if_it_is_the_options_own() -> None:
    parsed = line.parse("it", "", [], OPTIONS, defaults={"rate": 20.0, "warmup": 2.0}, environment={"RATE": "10"})
    assert line.typed("make it", parsed, OPTIONS) == "make it RATE=10"
    assert line.given(parsed) == ["--warmup=2"]


def test_our_variables_are_not_handed_on_a_second_time() -> None:
    assert line.without({"USERS": "5", "METRICS_URL": "x", "PATH": "/bin", "TIME": "3s"}) == {"PATH": "/bin"}


def test_help_names_every_option_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for option in ALL:
        assert f"--{option.flag} {option.variable}" in said


README = (Path(__file__).resolve().parent.parent / "loadtest" / "README.md").read_text()


@pytest.mark.parametrize("option", ALL, ids=lambda option: option.variable)
def test_every_option_is_in_the_readme(option: Option) -> None:
    assert re.search(rf"^\| `{option.variable}`.*\| `--{option.flag}` \|", README, re.MULTILINE)


@pytest.mark.parametrize("key", [*Result.__annotations__, *Scaling.__annotations__, *Surroundings.__annotations__])
def test_every_key_of_the_files_is_in_the_readme(key: str) -> None:
    assert f"`{key}`" in README


def test_the_defaults_in_the_readme_are_those_of_the_command() -> None:
    for option in (*OPTIONS, *line.RUN_OPTIONS):
        default = run.DEFAULTS.get(option.key, option.default)
        told = re.search(rf"^\| `{option.variable}`.*\| `--{option.flag}` \| *([^|]*?) *\|", README, re.MULTILINE)
        assert told is not None
        assert told[1] == line.plainly(default)
