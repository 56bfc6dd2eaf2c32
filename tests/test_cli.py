"""The command line: what each command prints, where it prints it, and the code that it ends with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import jwt
import pytest

from server import __version__
from server.__main__ import COMMANDS, main
from server.config import OPTIONS, Namespace, Settings
from server.config.sources import load
from server.edge.credentials import Grant, Identity, JsonWebTokens, Refused, SignedSubscriptionTokens

SECRET = "0123456789abcdef" * 3
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, and no variable, but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("STENTOR_"):
            monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a server was started with, in place of a server."""
    started: list[Settings] = []

    def run(settings: Settings) -> int:
        started.append(settings)
        return 7

    worker = ModuleType("server.worker")
    worker.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "server.worker", worker)
    return started


def program(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        text=True,
        timeout=60,
        check=False,
        **({"capture_output": True} | options),  # type: ignore[call-overload]
    )


# serve


@pytest.mark.parametrize("arguments", [["--port", "9"], ["serve", "--port", "9"], ["serve", "--port=9"]])
def test_serve_is_the_default(served: list[Settings], arguments: list[str]) -> None:
    assert main(arguments) == 7
    assert [settings.port for settings in served] == [9]


def test_serve_takes_lists_flags_and_a_file(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('log_level = "debug"')
    line = (
        "--tokens a --tokens b --no-publish --auth token --jwt-require-exp false --config other.toml --port 1 --port 2"
    )
    assert main(line.split()) == 7
    (settings,) = served
    assert [token.get_secret_value() for token in settings.tokens] == ["a", "b"]
    assert (settings.publish, settings.jwt_require_exp, settings.log_level, settings.port) == (False, False, "debug", 2)
    assert main(["--publish"]) == 7
    assert served[1].publish


def test_serve_says_its_warnings_on_standard_error(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tokens", "s3cret"]) == 7
    assert capsys.readouterr() == ("", 'stentor: warning: tokens has no effect: auth is "none", not "token"\n')


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--prot", "s3cret"], ["--prot (command line): unknown option; the nearest known one is --port"]),
        (["--prot=s3cret"], ["--prot (command line): unknown option; the nearest known one is --port"]),
        (["-x"], ["-x (command line): unknown option; the nearest known one is --help"]),
        (["--port"], ["--port (command line): needs a value"]),
        (["--tokens", "a", "--tokens"], ["--tokens (command line): needs a value"]),
        (["--port", "--host", "x"], ["--port (command line): needs a value"]),
        (["--port", "-1"], ["port = -1 (command line): must be a whole number from 0 to 65535"]),
        (["--publish", "check"], ["publish = check (command line): must be true or false"]),
        (
            ["--tokens", "a", "s3cret"],
            ["argument 3 (command line): belongs to no option; the command comes first, and a list repeats its option"],
        ),
        (
            ["serve", "check"],
            ["argument 1 (command line): belongs to no option; the command comes first, and a list repeats its option"],
        ),
        (["chek"], ["chek (command line): unknown command; the nearest known one is check"]),
        (
            ["--internal-hos", "x"],
            ["--internal-hos (command line): unknown option; the nearest known one is --internal-host"],
        ),
        (
            ["--prot", "1", "--backlog", "--port", "x", "--hots", "y"],
            [
                "--prot (command line): unknown option; the nearest known one is --port",
                "--hots (command line): unknown option; the nearest known one is --host",
                "--backlog (command line): needs a value",
                "port = x (command line): must be a whole number from 0 to 65535",
            ],
        ),
        (["listen"], ["--channel (command line): is needed: the name of the channel"]),
        (
            ["listen", "--channel", "c", "--count", "0"],
            ["count = 0 (command line): must be a whole number of 1 or more"],
        ),
        (
            ["publish", "--channel", "c", "--rate", "fast"],
            ["rate = fast (command line): must be a number of lines per second, 0 or more"],
        ),
        (
            ["publish", "--channel", "c", "--url", "http://x", "--token", "s3 cret"],
            [
                "--token (command line): must be printable ASCII without spaces, and not empty",
                "--url (command line): must be a URL such as ws://127.0.0.1:8000 or wss://example.com",
            ],
        ),
        (
            ["publish", "--channel", "c", "--port", "0"],
            ["--url (command line): the configured port is 0, any free one: give --url"],
        ),
        (
            ["publish", "--chanel", "c", "--port", "x"],
            [
                "--chanel (command line): unknown option; the nearest known one is --channel",
                "--channel (command line): is needed: the name of the channel",
                "port = x (command line): must be a whole number from 0 to 65535",
            ],
        ),
        (["token"], ["jwt_secret is not set: a token is signed with it (stentor.toml or STENTOR_JWT_SECRET)"]),
        (
            ["token", "--jwt-secret", SECRET, "--jwt-algorithm", "ES256"],
            ["jwt_algorithm is ES256: jwt_secret signs HS256, HS384 and HS512 only"],
        ),
        (
            ["token", "--ttl", "0", "--claim", "a=b", "--claim", "a", "--ttll", "1"],
            [
                "--ttll (command line): unknown option; the nearest known one is --ttl",
                "ttl = 0 (command line): must be a time of 1 second or more, such as 90, 15m or 1h",
                "claim = a=b (command line): must be NAME=JSON, such as admin=true or 'role=\"editor\"'",
                "claim = a (command line): must be NAME=JSON, such as admin=true or 'role=\"editor\"'",
            ],
        ),
        (
            ["token", "--subscribe", "a b", "--channel", "", "--channel", "c", "--info", "[1]"],
            [
                "--channel (command line): is for connection tokens, --subscribe makes another kind",
                "channel =  (command line): is empty",
                "subscribe = a b (command line): has spaces or control characters",
                'info = [1] (command line): must be a JSON object, such as \'{"name": "Ann"}\'',
            ],
        ),
        (
            ["token", "--info", "Ann", "--subscribe"],
            [
                "--subscribe (command line): needs a value",
                'info = Ann (command line): must be a JSON object, such as \'{"name": "Ann"}\'',
            ],
        ),
    ],
)
def test_mistakes_end_with_2_and_a_line_each(
    served: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], lines: list[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"stentor: {line}" for line in lines]
    assert "s3cret" not in err
    assert served == []


def test_mistakes_of_all_places_come_together(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("stentor.toml").write_text("prt = 1")
    monkeypatch.setenv("STENTOR_BACKLOG", "0")
    assert main(["check", "--prot", "1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "stentor: --prot (command line): unknown option; the nearest known one is --port",
        "stentor: prt (stentor.toml): unknown option; the nearest known one is port",
        "stentor: backlog = 0 (environment STENTOR_BACKLOG): must be a whole number from 1 to 2147483647",
    ]


# check


def test_check_prints_a_line_per_option_with_its_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("stentor.toml").write_text('queue_bytes = "2MiB"\napi_key = "s3cret"')
    monkeypatch.setenv("STENTOR_TOKENS", '["s3cret", "s3cret"]')
    monkeypatch.setenv("STENTOR_AUTH", "token")
    assert main(["check", "--ping-interval", "500ms"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for line in (
        "queue_bytes = 2097152  # from stentor.toml",
        'api_key = "********"  # from stentor.toml',
        'tokens = ["********", "********"]  # from environment STENTOR_TOKENS',
        'auth = "token"  # from environment STENTOR_AUTH',
        "ping_interval = 0.5  # from command line",
        "port = 8000  # from default",
        "# tls_cert is not set",
        "# backpressure",
    ):
        assert line in lines
    assert "s3cret" not in out
    assert err == ""
    values = tomllib.loads(out)
    not_set = [key for key in OPTIONS if f"# {key} is not set" in lines]
    assert sorted([*values, *not_set]) == sorted(OPTIONS)


def test_what_check_prints_is_a_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--allowed-origins", "https://*.example.com", "--batch-delay", "0.5", "--jwt-audience", 'a "b"\\']
    assert main(["check", *arguments]) == 0
    resolved = capsys.readouterr().out
    Path("stentor.toml").write_text(resolved)
    again = load({}, {}, tmp_path).settings
    assert again.allowed_origins == ("https://*.example.com",)
    assert (again.batch_delay, again.jwt_audience) == (0.5, 'a "b"\\')
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "\n".join(
        line.replace("from default", "from stentor.toml").replace("from command line", "from stentor.toml")
        for line in resolved.split("\n")
    )


def test_check_prints_namespaces_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("stentor.toml").write_text(
        'history_size = 5\n[namespaces.chat]\npublish = false\nqueue_bytes = "2KiB"\n[namespaces."a.b"]'
    )
    assert main(["check", "--batch-delay", "5ms"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    chat, other = (block.splitlines() for block in out.split("\n\n")[-2:])
    assert chat[:2] == ["[namespaces.chat]", "publish = false  # from stentor.toml"]
    assert "queue_bytes = 2048  # from stentor.toml" in chat
    assert "history_size = 5  # as above" in chat
    assert "batch_delay = 5  # as above" in chat
    assert other[0] == '[namespaces."a.b"]'
    assert all(line.endswith("  # as above") for line in other[1:])
    assert len(chat) == len(other) == 1 + len(Namespace.model_fields)
    before = load({"batch_delay": "5ms"}, {}, tmp_path).settings
    Path("stentor.toml").write_text(out)
    assert load({}, {}, tmp_path).settings.namespaces == before.namespaces


def test_check_says_its_warnings_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--auth", "jwt", "--jwt-secret", "short"]) == 0
    out, err = capsys.readouterr()
    assert tomllib.loads(out)["jwt_secret"] == "********"
    assert err == ("stentor: warning: jwt_secret has 5 bytes: under 32 bytes a key can be guessed from one token\n")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:s3cret@h/one", "the database must be a number"),
        ("rediss+cluster://:s3cret@h/1", "a cluster has no databases but 0"),
        ("rediss+cluster://:s3cret@a,b?key=x.pem", "key needs cert, the certificate that it is the key to"),
        ("rediss+cluster://:s3cret@a,b?ca=nowhere.pem", "ca=nowhere.pem: no such file or directory"),
        ("rediss://:s3cret@h?cert=stentor.toml", "cert=stentor.toml: not pem, or an encrypted key"),
    ],
)
def test_check_refuses_a_broker_that_no_server_would_start_with(
    url: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("stentor.toml").write_text(f'broker = "{url}"')
    assert main(["check"]) == 2
    assert capsys.readouterr() == ("", f"stentor: broker (stentor.toml): {why}\n")


def test_check_does_not_ask_redis_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--broker", "redis+cluster://nobody.invalid,b"]) == 0
    assert capsys.readouterr().err == ""


# token


def test_token_signs_what_it_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STENTOR_JWT_SECRET", SECRET)
    Path("stentor.toml").write_text('jwt_audience = "stentor"\njwt_issuer = "tests"\njwt_algorithm = "HS384"')
    monkeypatch.setattr("time.time", lambda: 1_000_000.9)
    arguments = [
        "token",
        "--sub",
        "alice",
        "--ttl",
        "15m",
        "--channel",
        "a",
        "--channel",
        "b",
        "--claim",
        'x={"y": [1]}',
    ]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    claims = jwt.decode(
        out.strip(),
        SECRET,
        ["HS384"],
        audience="stentor",
        issuer="tests",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {
        "sub": "alice",
        "channels": ["a", "b"],
        "iat": 1_000_000,
        "exp": 1_000_900,
        "aud": "stentor",
        "iss": "tests",
        "x": {"y": [1]},
    }


def test_token_names_nobody_and_no_channel_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--jwt-secret", "short", "--claim", "exp=1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    claims = jwt.decode(out.strip(), options={"verify_signature": False})
    assert claims.keys() == {"iat", "exp"}
    assert claims["exp"] == 1


def test_token_makes_what_the_server_takes(capsys: pytest.CaptureFixture[str]) -> None:
    key = ["--jwt-secret", SECRET, "--sub", "alice", "--info", '{"name": "Zoë"}', "--claim", "exp=4000000000"]
    connections, subscriptions = (kind({None: SECRET}, "HS256") for kind in (JsonWebTokens, SignedSubscriptionTokens))

    assert main(["token", *key, "--channel", "news", "--claim", 'meta={"plan": "free"}']) == 0
    connection = capsys.readouterr().out.strip()
    info = '{"name":"Zoë"}'.encode()
    assert connections.check(connection) == Identity("alice", 4e9, info, {"plan": "free"}, ("news",))
    with pytest.raises(Refused):
        subscriptions.check(connection, channel="news", user="alice")

    assert main(["token", *key, "--subscribe", "news"]) == 0
    subscription = capsys.readouterr().out.strip()
    assert subscriptions.check(subscription, channel="news", user="alice") == Grant(4e9, info)
    with pytest.raises(Refused):
        connections.check(subscription)


def test_token_makes_none_that_the_server_would_find_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--jwt-secret", SECRET, "--sub", "a" * 9000]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"stentor: the token has 12\d{3} characters: the server takes 8192 at most\n", err)


# Help


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "-h"], ["check", "--help"]])
def test_help_has_every_option_with_its_default_in_80_columns(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) < 80
    words = " ".join(out.split())
    for option in OPTIONS.values():
        assert f" {option.flag} " in words
        assert option.sentence in words
        assert f"\n{option.group}:\n" in out
        if option.kind == "flag":
            assert f" {option.flag.replace('--', '--no-')} " in words
    for default in (
        "(default: 65536 bytes)",
        "(default: 25 seconds)",
        "(default: 0 milliseconds)",
        "(default: 1000 per second)",
    ):
        assert default in words
    assert words.count("(default: ") == len(OPTIONS) + 1


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_in_80_columns(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: stentor {command} [options]\n")
    assert max(map(len, out.splitlines())) < 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stentor {__version__}\n"


# A process of its own


def test_the_module_is_the_program() -> None:
    done = program("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"stentor {__version__}\n", "")


def test_a_mistake_leaves_no_traceback() -> None:
    Path("stentor.toml").write_text("port = ")
    done = program("check", "--port", "\udcff")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "stentor: stentor.toml, line 1: not TOML: Invalid value",
        r'stentor: port = "\udcff" (command line): must be a whole number from 0 to 65535',
    ]


def test_only_serve_needs_the_server() -> None:
    check = (
        "import sys; from server.__main__ import main; code = main(['check']); "
        "print(code, {'uvloop', 'websockets', 'aiohttp', 'jwt'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_a_closed_output_is_no_fault() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = program("check", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = program("check", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "stentor: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_fault(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m server check {closed}', sys.executable],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("port = 8000" in done.stdout) is (">&-" not in closed.replace("2>&-", ""))


def test_a_working_directory_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$1"; exec "$0" -m server check', sys.executable, str(gone)],
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
