"""The three places of the configuration: which one wins, and what is said about a mistake in any of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.config import OPTIONS, Option
from server.config.options import as_toml
from server.config.sources import ConfigError, Loaded, load
from tests.keyring import certificate, ec_key, private_pem, public_pem

# A value of each kind of option that is not its default; the rest stands in SPECIAL.
BY_KIND: dict[str, object] = {"whole": 77, "number": 7.5, "text": "example"}
SPECIAL: dict[str, object] = {
    "latency_sample": 0.5,
    "allowed_origins": ["https://a.example", "https://b.example"],
    "tokens": ["a", "b"],
    "broker": "redis://127.0.0.1:6379/0",
    "trusted_proxies": ["192.0.2.1", "10.0.0.0/8"],
}


def other_value(option: Option) -> object:
    if option.key in SPECIAL:
        return SPECIAL[option.key]
    match option.kind:
        case "flag":
            return not option.default()
        case "choice":
            return next(choice for choice in option.choices if choice != option.default())
        case "file":
            return "file.pem"
    return BY_KIND[option.kind]


def as_text(value: object) -> str:
    match value:
        case bool() | list():
            return json.dumps(value)
    return str(value)


def mistakes(
    tmp_path: Path, arguments: dict[str, Any] | None = None, environ: dict[str, str] | None = None, toml: str = ""
) -> list[str]:
    if toml:
        (tmp_path / "stentor.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        load(arguments or {}, environ or {}, tmp_path)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert all("\n" not in line for line in caught.value.mistakes)
    return caught.value.mistakes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the files that some options need."""
    key = ec_key()
    (tmp_path / "cert.pem").write_text(certificate(key))
    (tmp_path / "key.pem").write_text(private_pem(key))
    (tmp_path / "public.pem").write_text(public_pem(key))
    (tmp_path / "keys.json").write_text("{}")
    return tmp_path


def company(key: str) -> tuple[object, dict[str, object]]:
    """A value for an option that cannot stand alone, and the options that it needs beside it."""
    match key:
        case "tls_cert":
            return "cert.pem", {"tls_key": "key.pem"}
        case "tls_key":
            return "key.pem", {"tls_cert": "cert.pem"}
        case "jwt_jwks_file":
            return "keys.json", {}
        case "jwt_public_key":
            return "public.pem", {}
        case "auth":
            return "token", {"tokens": ["t"]}
    return other_value(OPTIONS[key]), {}


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_is_reached_in_all_three_places(key: str, folder: Path) -> None:
    option = OPTIONS[key]
    value, beside = company(key)
    places: list[tuple[str, dict[str, object], dict[str, str], str]] = []
    listed = value if option.kind == "list" else as_text(value)
    places.append(("command line", {key: listed, **beside}, {}, ""))
    places.append(
        (
            f"environment {option.variable}",
            {},
            {OPTIONS[name].variable: as_text(text) for name, text in {key: value, **beside}.items()},
            "",
        )
    )
    lines = [f"{name} = {as_toml(text)}" for name, text in {key: value, **beside}.items()]
    places.append(("stentor.toml", {}, {}, "\n".join(lines)))

    found = []
    for place, arguments, environ, toml in places:
        (folder / "stentor.toml").write_text(toml)
        loaded = load(arguments, environ, folder)
        assert loaded.origin.pop(key) == place
        assert {name for name, origin in loaded.origin.items() if origin != "default"} == set(beside)
        found.append(getattr(loaded.settings, key))
    assert found[0] == found[1] == found[2] != option.default()


def origin_and_port(loaded: Loaded) -> tuple[str, int]:
    return loaded.origin["port"], loaded.settings.port


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    assert origin_and_port(load({}, {}, tmp_path)) == ("default", 8000)
    (tmp_path / "stentor.toml").write_text("port = 1")
    assert origin_and_port(load({}, {}, tmp_path)) == ("stentor.toml", 1)
    environ = {"STENTOR_PORT": "2", "PATH": "/bin", "stentor_port": "4"}
    assert origin_and_port(load({}, environ, tmp_path)) == ("environment STENTOR_PORT", 2)
    assert origin_and_port(load({"port": "3"}, environ, tmp_path)) == ("command line", 3)


def test_the_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text("port = 1")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "two.toml").write_text("port = 2")
    (tmp_path / "three.toml").write_text("port = 3")
    environ = {"STENTOR_CONFIG": "conf/two.toml"}
    assert origin_and_port(load({}, environ, tmp_path)) == ("conf/two.toml", 2)
    three = str(tmp_path / "three.toml")
    assert origin_and_port(load({"config": three}, environ, tmp_path)) == (three, 3)


@pytest.mark.parametrize(
    ("name", "arguments", "environ", "line"),
    [
        (
            "none",
            {"config": "no.toml"},
            {},
            "config = no.toml (command line): must be a TOML file that can be read (no such file or directory)",
        ),
        (
            "folder",
            {},
            {"STENTOR_CONFIG": "."},
            "config = . (environment STENTOR_CONFIG): must be a TOML file that can be read (is a directory)",
        ),
        (
            "empty",
            {},
            {"STENTOR_CONFIG": ""},
            'config = "" (environment STENTOR_CONFIG): must be a TOML file that can be read (not a path)',
        ),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, arguments: dict[str, str], environ: dict[str, str], line: str
) -> None:
    assert mistakes(tmp_path, arguments, environ) == [line]


def test_the_default_file_must_be_readable_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").mkdir()
    assert mistakes(tmp_path) == [
        "config = stentor.toml (working directory): must be a TOML file that can be read (is a directory)"
    ]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"port = 1\nhost 2\n", "stentor.toml, line 2: not TOML: Expected '=' after a key in a key/value pair"),
        (b"port = 1\nport = 2\n", "stentor.toml, line 2: not TOML: Cannot overwrite a value"),
        (b"port = 1\n\ntokens = [", "stentor.toml, line 3: not TOML: Invalid value"),
        (b'port = 1\nhost = "\xff"\n', "stentor.toml, line 2: not TOML: not UTF-8"),
        (b"port = \x01", "stentor.toml, line 1: not TOML: Invalid value"),
        (b"tokens = " + b"[" * 100000, "stentor.toml, line 1: not TOML: nested too deeply"),
    ],
)
def test_broken_toml_is_one_line_with_its_number(tmp_path: Path, raw: bytes, line: str) -> None:
    (tmp_path / "stentor.toml").write_bytes(raw)
    assert mistakes(tmp_path) == [line]


@pytest.mark.parametrize(
    ("arguments", "environ", "toml", "line"),
    [
        ({"port": "99999"}, {}, "", "port = 99999 (command line): must be a whole number from 0 to 65535"),
        ({"port": ""}, {}, "", 'port = "" (command line): must be a whole number from 0 to 65535'),
        ({"port": "8\n0"}, {}, "", 'port = "8\\n0" (command line): must be a whole number from 0 to 65535'),
        ({}, {"STENTOR_PORT": "x"}, "", "port = x (environment STENTOR_PORT): must be a whole number from 0 to 65535"),
        ({}, {}, "port = true", "port = true (stentor.toml): must be a whole number from 0 to 65535"),
        ({}, {}, "port = 1979-05-27", "port = 1979-05-27 (stentor.toml): must be a whole number from 0 to 65535"),
        ({}, {}, "[port]\na = 1", "port = {'a': 1} (stentor.toml): must be a whole number from 0 to 65535"),
        (
            {},
            {"STENTOR_OPEN_TIMEOUT": "0s"},
            "",
            "open_timeout = 0s (environment STENTOR_OPEN_TIMEOUT): "
            "must be a time in seconds above 0 and up to 86400, such as 10, 500ms or 1m",
        ),
        (
            {},
            {},
            'lag_policy = "drop"',
            "lag_policy = drop (stentor.toml): must be one of disconnect, drop_oldest, drop_newest, conflate",
        ),
        ({"publish": "perhaps"}, {}, "", "publish = perhaps (command line): must be true or false"),
        (
            {"jwt_audience": "x" * 100, "port": "y"},
            {},
            "",
            "port = y (command line): must be a whole number from 0 to 65535",
        ),
        (
            {"host": "x/" * 50},
            {},
            "",
            f"host = {'x/' * 30}… (command line): must be a host name or an address such as 127.0.0.1 or ::1",
        ),
        (
            {"allowed_origins": ["https://a.example/"]},
            {},
            "",
            "allowed_origins = https://a.example/ (command line): must be same-origin, or *, or a list of "
            "scheme://host[:port] such as https://*.example.com; https://a.example/ is not",
        ),
        (
            {},
            {"STENTOR_ALLOWED_ORIGINS": "https://a.example,https://b.example"},
            "",
            "allowed_origins = https://a.example,https://b.example (environment STENTOR_ALLOWED_ORIGINS): "
            'must be one entry without a comma, or a JSON list such as ["a", "b"]',
        ),
        # A secret is never shown, however it is wrong.
        (
            {"tokens": ["s3cret one"]},
            {},
            "",
            "tokens = ******** (command line): must be printable ASCII without spaces, and not empty",
        ),
        (
            {},
            {"STENTOR_TOKENS": '["s3cret"'},
            "",
            'tokens = ******** (environment STENTOR_TOKENS): must be a JSON list of texts, such as ["a", "b"]',
        ),
        (
            {},
            {"STENTOR_TOKENS": "s3cret,s3cret"},
            "",
            "tokens = ******** (environment STENTOR_TOKENS): must be one entry without a comma, "
            'or a JSON list such as ["a", "b"]',
        ),
        (
            {},
            {"STENTOR_TOKENS": "[1]"},
            "",
            'tokens = ******** (environment STENTOR_TOKENS): must be a list of texts, such as ["a", "b"]',
        ),
        ({}, {}, "jwt_secret = 12345", "jwt_secret = ******** (stentor.toml): must be a text that is not empty"),
        (
            {},
            {"STENTOR_API_KEY": "s3cret s3cret"},
            "",
            "api_key = ******** (environment STENTOR_API_KEY): must be printable ASCII without spaces, and not empty",
        ),
        # What holds between options names the place of the option that it is about.
        (
            {"auth": "token"},
            {},
            "",
            "auth = token (command line): needs at least one entry in tokens",
        ),
        (
            {},
            {"STENTOR_PORT": "9000"},
            "",
            "internal_port = 9000 (default): must differ from port",
        ),
        (
            {},
            {"STENTOR_JWT_ALGORITHM": "RS256"},
            'auth = "jwt"\njwt_secret = "s3cret"',
            "jwt_algorithm = RS256 (environment STENTOR_JWT_ALGORITHM): "
            "does not fit jwt_secret, which goes with HS256, HS384 or HS512",
        ),
        (
            {},
            {},
            'tls_cert = "stentor.toml"',
            "tls_cert = stentor.toml (stentor.toml): needs tls_key too",
        ),
        # Unknown options, in the spelling of their place.
        (
            {"prot": "1"},
            {},
            "",
            "--prot (command line): unknown option; the nearest known one is --port",
        ),
        (
            {},
            {"STENTOR_QUEUE_MESAGES": "s3cret"},
            "",
            "STENTOR_QUEUE_MESAGES (environment): unknown option; the nearest known one is STENTOR_QUEUE_MESSAGES",
        ),
        (
            {},
            {"STENTOR_": "1"},
            "",
            "STENTOR_ (environment): unknown option; the nearest known one is STENTOR_HOST",
        ),
        (
            {},
            {},
            'queue-messages = "s3cret"',
            "queue-messages (stentor.toml): unknown option; the nearest known one is queue_messages",
        ),
        (
            {},
            {},
            "[hosts]\nhost = 1",
            "hosts (stentor.toml): unknown option; the nearest known one is host; "
            "options stand outside of tables, but for [namespaces.NAME]",
        ),
        (
            {},
            {},
            '"por\\nt" = 1',
            '"por\\nt" (stentor.toml): unknown option; the nearest known one is port',
        ),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, arguments: dict[str, Any], environ: dict[str, str], toml: str, line: str
) -> None:
    assert mistakes(tmp_path, arguments, environ, toml) == [line]


# Namespaces


def test_namespaces_are_tables_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text(
        'history_size = 5\n[namespaces.chat]\nhistory_ttl = "1h"\npublish = false\n[namespaces."a.b"]\n'
    )
    loaded = load({"history_size": "6"}, {}, tmp_path)
    assert list(loaded.settings.namespaces) == ["chat", "a.b"]
    chat, other = loaded.settings.namespaces.values()
    assert (chat.history_size, chat.history_ttl, chat.publish) == (6, 3600.0, False)
    assert (other.history_size, other.history_ttl, other.publish) == (6, 300.0, True)
    assert loaded.overridden == {"chat": {"history_ttl": "stentor.toml", "publish": "stentor.toml"}, "a.b": {}}
    assert loaded.origin.keys() == OPTIONS.keys()


def test_namespaces_in_the_environment_take_the_place_of_those_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text("[namespaces.chat]\npublish = false\n[namespaces.feed]\ndelta = -1")
    environ = {"STENTOR_NAMESPACES": '{"chat": {"history_size": 10, "history_ttl": "1h"}}'}
    loaded = load({}, environ, tmp_path)
    assert list(loaded.settings.namespaces) == ["chat"]
    chat = loaded.settings.namespaces["chat"]
    assert (chat.history_size, chat.history_ttl, chat.publish) == (10, 3600.0, True)
    place = "environment STENTOR_NAMESPACES"
    assert loaded.overridden == {"chat": {"history_size": place, "history_ttl": place}}
    assert load({}, {"STENTOR_NAMESPACES": "{}"}, tmp_path).settings.namespaces == {}


@pytest.mark.parametrize(
    ("environ", "toml", "line"),
    [
        (
            {},
            '[namespaces.chat]\nhistory_ttl = "soon"',
            "namespaces.chat.history_ttl = soon (stentor.toml): "
            "must be a time in seconds from 0 to 31536000, such as 10, 500ms or 1m",
        ),
        (
            {"STENTOR_NAMESPACES": '{"chat": {"delta": [1]}}'},
            "",
            "namespaces.chat.delta = 1 (environment STENTOR_NAMESPACES): must be true or false",
        ),
        (
            {},
            '[namespaces."a.b"]\nlag_policy = "drop"',
            'namespaces."a.b".lag_policy = drop (stentor.toml): '
            "must be one of disconnect, drop_oldest, drop_newest, conflate",
        ),
        (
            {},
            "[namespaces.chat]\nhistroy_size = 1",
            "histroy_size (stentor.toml, [namespaces.chat]): unknown option; the nearest known one is history_size",
        ),
        (
            {"STENTOR_NAMESPACES": '{"chat": {"histroy_size": 1}}'},
            "",
            "histroy_size (environment STENTOR_NAMESPACES, [namespaces.chat]): "
            "unknown option; the nearest known one is history_size",
        ),
        (
            {},
            '[namespaces.chat]\ntokens = "s3cret"',
            "tokens (stentor.toml, [namespaces.chat]): holds for all channels; it stands outside of tables",
        ),
        (
            {},
            "[namespaces.chat.deeper]\npublish = true",
            "deeper (stentor.toml, [namespaces.chat]): unknown option; the nearest known one is presence",
        ),
        (
            {},
            "[namespace.chat]\npublish = true",
            "namespace (stentor.toml): unknown option; the nearest known one is namespaces; "
            "options stand outside of tables, but for [namespaces.NAME]",
        ),
        (
            {"STENTOR_NAMESPACE": "{}"},
            "",
            "STENTOR_NAMESPACE (environment): unknown option; the nearest known one is STENTOR_NAMESPACES",
        ),
        (
            {},
            "[namespaces]\nchat = 5",
            "namespaces.chat = 5 (stentor.toml): must be a table of options",
        ),
        (
            {},
            "namespaces = 5",
            "namespaces = 5 (stentor.toml): must be a table of tables, such as [namespaces.chat] in the file, "
            'or {"chat": {"history_size": 100}}',
        ),
        (
            {"STENTOR_NAMESPACES": '{"chat":1'},
            "",
            'namespaces = {"chat":1 (environment STENTOR_NAMESPACES): must be a table of tables, '
            'such as [namespaces.chat] in the file, or {"chat": {"history_size": 100}}',
        ),
        (
            {"STENTOR_NAMESPACES": "[" * 100_000},
            "",
            f"namespaces = {'[' * 60}… (environment STENTOR_NAMESPACES): must be a table of tables, "
            'such as [namespaces.chat] in the file, or {"chat": {"history_size": 100}}',
        ),
        (
            {},
            '[namespaces."a:b"]\npublish = true',
            'namespaces."a:b" (stentor.toml): must be a name without colons, spaces or control characters',
        ),
        (
            {},
            '[namespaces."\\n"]\npublish = true',
            'namespaces."\\n" (stentor.toml): must be a name without colons, spaces or control characters',
        ),
    ],
)
def test_a_mistake_about_a_namespace_is_one_line(tmp_path: Path, environ: dict[str, str], toml: str, line: str) -> None:
    assert mistakes(tmp_path, environ=environ, toml=toml) == [line]


def test_there_are_no_namespaces_on_the_command_line(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, {"namespaces": "{}"})
    assert line.startswith("--namespaces (command line): unknown option; the nearest known one is --")


def test_mistakes_in_namespaces_come_after_those_above(tmp_path: Path) -> None:
    toml = """
        auth = "token"
        history_size = -1
        [namespaces.chat]
        history_size = 5
        presence = "x"
        delta = 7
        [namespaces.":"]
        presence = "x"
        [namespaces.feed]
        queue_bytes = 0
    """
    assert mistakes(tmp_path, toml=toml) == [
        "auth = token (stentor.toml): needs at least one entry in tokens",
        "history_size = -1 (stentor.toml): must be a whole number from 0 to 2147483647",
        "namespaces.chat.presence = x (stentor.toml): must be true or false",
        "namespaces.chat.delta = 7 (stentor.toml): must be true or false",
        'namespaces.":" (stentor.toml): must be a name without colons, spaces or control characters',
        'namespaces.":".presence = x (stentor.toml): must be true or false',
        "namespaces.feed.queue_bytes = 0 (stentor.toml): "
        "must be a size in bytes from 1 to 1099511627776, such as 65536, 64KiB or 1MiB",
    ]


def test_a_wrong_value_above_is_not_reported_again_in_the_namespaces(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, toml='queue_bytes = "x"\n[namespaces.chat]\npublish = false')
    assert line.startswith("queue_bytes = x (stentor.toml)")


def test_all_mistakes_are_reported(tmp_path: Path) -> None:
    lines = mistakes(
        tmp_path,
        {"prot": "1", "backlog": "none"},
        {"STENTOR_HOTS": "x", "STENTOR_AUTH": "nobody", "STENTOR_TLS_CERT": "stentor.toml"},
        "portt = 1\nping_interval = 0\nport = 9000\n",
    )
    assert lines == [
        "portt (stentor.toml): unknown option; the nearest known one is port",
        "STENTOR_HOTS (environment): unknown option; the nearest known one is STENTOR_HOST",
        "--prot (command line): unknown option; the nearest known one is --port",
        "internal_port = 9000 (default): must differ from port",
        "backlog = none (command line): must be a whole number from 1 to 2147483647",
        "tls_cert = stentor.toml (environment STENTOR_TLS_CERT): needs tls_key too",
        "auth = nobody (environment STENTOR_AUTH): must be one of none, token, jwt",
        "ping_interval = 0 (stentor.toml): must be a time in seconds above 0 and up to 86400, such as 10, 500ms or 1m",
    ]


def test_a_wrong_value_is_not_reported_again_as_a_missing_one(tmp_path: Path) -> None:
    lines = mistakes(tmp_path, {"auth": "token", "tokens": [""], "tls_cert": "stentor.toml", "tls_key": "no"}, toml="#")
    assert lines == [
        "tls_key = no (command line): must be the path of a file that can be read (no such file or directory)",
        "tokens = ******** (command line): must be printable ASCII without spaces, and not empty",
    ]


def test_only_the_value_that_wins_is_checked(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text("port = -1")
    assert load({"port": "1"}, {"STENTOR_PORT": "x"}, tmp_path).settings.port == 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("one", ["one"]), ('["one"]', ["one"]), (' ["one", "t,wo"]', ["one", "t,wo"]), ("[]", [])],
)
def test_lists_in_the_environment(tmp_path: Path, text: str, tokens: list[str]) -> None:
    settings = load({}, {"STENTOR_TOKENS": text}, tmp_path).settings
    assert [token.get_secret_value() for token in settings.tokens] == tokens


def test_a_list_in_the_file_may_be_a_single_text(tmp_path: Path) -> None:
    (tmp_path / "stentor.toml").write_text('allowed_origins = "https://a.example"\ntokens = "t"')
    settings = load({}, {}, tmp_path).settings
    assert settings.allowed_origins == ("https://a.example",)
    assert [token.get_secret_value() for token in settings.tokens] == ["t"]


def test_service_links_of_kubernetes_are_nobodys_mistake(tmp_path: Path) -> None:
    links = {
        "STENTOR_SERVICE_HOST": "10.0.0.1",
        "STENTOR_SERVICE_PORT": "8000",
        "STENTOR_SERVICE_PORT_WS": "8000",
        "STENTOR_PORT": "tcp://10.0.0.1:8000",
        "STENTOR_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "STENTOR_PORT_8000_TCP_PROTO": "tcp",
        "STENTOR_PORT_8000_TCP_PORT": "8000",
        "STENTOR_PORT_8000_TCP_ADDR": "10.0.0.1",
        "STENTOR_INTERNAL_SERVICE_HOST": "10.0.0.2",
        "STENTOR_INTERNAL_SERVICE_PORT": "9000",
        "STENTOR_INTERNAL_PORT": "tcp://10.0.0.2:9000",
        "STENTOR_INTERNAL_PORT_9000_TCP": "tcp://10.0.0.2:9000",
    }
    assert set(load({}, links, tmp_path).origin.values()) == {"default"}
    # A port that an operator sets beside them still counts.
    assert origin_and_port(load({}, links | {"STENTOR_PORT": "80"}, tmp_path)) == ("environment STENTOR_PORT", 80)
    # Without a Service there are no links: then it is a mistake.
    assert mistakes(tmp_path, environ={"STENTOR_PORT": "tcp://10.0.0.1:8000"}) == [
        "port = tcp://10.0.0.1:8000 (environment STENTOR_PORT): must be a whole number from 0 to 65535"
    ]
