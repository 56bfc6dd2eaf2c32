"""The options: their defaults, what each takes, and what holds between them."""

from __future__ import annotations

import datetime
import resource
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr, ValidationError

from server import blueprint
from server.config import OPTIONS, LagPolicy, Namespace, Option, Settings, is_loopback
from server.config.options import as_toml
from server.core import lag
from tests.keyring import certificate, ec_key, key_set, private_pem, public_pem, rsa_key

DEFAULTS = {
    "workers": 1,
    "broker": "memory",
    "host": "127.0.0.1",
    "port": 8000,
    "internal_host": "127.0.0.1",
    "internal_port": 9000,
    "backlog": 4096,
    "tls_cert": None,
    "tls_key": None,
    "trusted_proxies": (),
    "allowed_origins": "same-origin",
    "auth": "none",
    "tokens": (),
    "jwt_secret": None,
    "jwt_public_key": None,
    "jwt_jwks_file": None,
    "jwt_algorithm": "HS256",
    "jwt_audience": None,
    "jwt_issuer": None,
    "jwt_require_exp": True,
    "api_key": None,
    "publish": True,
    "subscribe": True,
    "anonymous": True,
    "read_history": True,
    "allow_recovery": False,
    "read_presence": True,
    "max_connections_per_ip": 0,
    "connect_rate": 0,
    "message_rate": 1000,
    "max_message_size": 65536,
    "max_channels_per_client": 128,
    "max_channel_length": 128,
    "history_max_publication_limit": 300,
    "recovery_max_publication_limit": 0,
    "open_timeout": 5,
    "queue_messages": 256,
    "queue_bytes": 1048576,
    "lag_policy": "disconnect",
    "write_timeout": 10,
    "node_queue_bytes": 268435456,
    "brownout": True,
    "lag_policy_mode": "enforce",
    "ping_interval": 25,
    "pong_timeout": 10,
    "batch_delay": 0,
    "fanout_slice": 512,
    "history_size": 0,
    "history_ttl": 300,
    "recovery_mode": "stream",
    "delta": False,
    "presence": False,
    "join_leave": False,
    "personal_channels": False,
    "drain_timeout": 30,
    "drain_rate": 0,
    "latency_sample": 0.01,
    "log_level": "info",
    "log_format": "auto",
    "namespaces": {},
}
SECRET = "0123456789abcdef0123456789abcdef"


def fault(**values: Any) -> str:
    """The one fault that these values have."""
    with pytest.raises(ValidationError) as caught:
        Settings(**values)
    (entry,) = caught.value.errors()
    cause = entry.get("ctx", {}).get("error")
    return str(cause) if cause else OPTIONS[str(entry["loc"][0])].allowed


def test_defaults_are_those_of_the_contract() -> None:
    values = Settings().model_dump()
    assert values.pop("max_connections") > 0
    assert values == DEFAULTS
    assert Settings().warnings() == []


def test_defaults_satisfy_their_own_declarations() -> None:
    defaults = Settings().model_dump()
    assert Settings.model_validate(defaults).model_dump() == defaults


def test_the_groups_are_those_of_the_contract_and_in_one_piece_each() -> None:
    groups = [group for group, _ in groupby(OPTIONS.values(), key=lambda option: option.group)]
    assert groups == [
        "listen",
        "access",
        "limits",
        "backpressure",
        "heartbeat",
        "fan-out",
        "history",
        "channels",
        "broker",
        "shutdown",
        "latency",
        "logging",
    ]


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_every_option_explains_itself(option: Option) -> None:
    assert option.sentence[0].isupper()
    assert option.sentence.endswith(".")
    assert option.allowed.startswith("must ")
    if option.kind in ("whole", "number"):
        assert option.high is not None
        assert (option.low is None) != (option.above is None)


@pytest.mark.parametrize(
    ("limit", "ceiling"), [(1024, 960), (65, 1), (64, 1), (10, 1), (resource.RLIM_INFINITY, 2**20 - 64)]
)
def test_max_connections_follows_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, limit: int, ceiling: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (limit, limit))
    assert Settings().max_connections == ceiling
    assert Settings().warnings() == []
    assert Settings(max_connections=ceiling + 1).warnings() == [
        f"max_connections is {ceiling + 1}, but the limit of open files leaves room for {ceiling}: raise it (ulimit -n)"
    ]


def test_settings_are_frozen_and_know_no_other_option() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1
    for key in ("namespace", "latency_samples"):
        with pytest.raises(ValidationError):
            Settings(**{key: 1})


def test_a_secret_is_in_no_text_about_the_settings() -> None:
    settings = Settings(auth="token", tokens=["s3cret"], api_key="s3cret", jwt_secret="s3cret")
    assert settings.tokens == (SecretStr("s3cret"),)
    for text in (repr(settings), str(settings), settings.model_dump_json(), *settings.warnings()):
        assert "s3cret" not in text
    with pytest.raises(ValidationError) as caught:
        Settings(tokens=["s3cret with spaces"])
    assert "s3cret" not in str(caught.value)


def test_the_lag_policies_are_those_of_the_core() -> None:
    assert get_args(LagPolicy) == tuple(lag.LagPolicy)


# Values


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("port", "80", 80),
        ("port", " 80 ", 80),
        ("queue_bytes", "65536", 65536),
        ("queue_bytes", "64KiB", 65536),
        ("queue_bytes", "64 KiB", 65536),
        ("queue_bytes", "1.5MiB", 1572864),
        ("queue_bytes", "2GiB", 2**31),
        ("queue_bytes", "7B", 7),
        ("ping_interval", "25", 25.0),
        ("ping_interval", "0.5", 0.5),
        ("ping_interval", "100ms", 0.1),
        ("ping_interval", "10s", 10.0),
        ("ping_interval", "1.5m", 90.0),
        ("ping_interval", "24h", 86400.0),
        ("ping_interval", 3, 3.0),
        ("batch_delay", "5", 5.0),
        ("batch_delay", "5ms", 5.0),
        ("batch_delay", "0.01s", 10.0),
        ("drain_timeout", "0", 0.0),
        ("history_ttl", "8760h", 365 * 24 * 3600.0),
        ("recovery_mode", "cache", "cache"),
        ("message_rate", "0.5", 0.5),
        ("publish", "false", False),
        ("publish", "true", True),
        ("publish", False, False),
        ("lag_policy", "conflate", "conflate"),
        ("jwt_algorithm", "ES512", "ES512"),
        ("host", "::", "::"),
        ("host", "fe80::1%eth0", "fe80::1%eth0"),
        ("host", "a-1.example.com", "a-1.example.com"),
    ],
)
def test_a_value_is_read(key: str, text: object, value: object) -> None:
    assert getattr(Settings(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        (
            "port",
            ["", "x", "-1", "65536", "80.5", "8e1", 80.5, True, None, [], "²"],
            "must be a whole number from 0 to 65535",
        ),
        ("queue_messages", ["0", "256KiB", "9" * 5000], "must be a whole number from 1 to 2147483647"),
        (
            "queue_bytes",
            ["0", "1.1B", "64KB", "64k", "-1", "2000GiB", {}],
            "must be a size in bytes from 1 to 1099511627776, such as 65536, 64KiB or 1MiB",
        ),
        (
            "ping_interval",
            ["0", "0ms", "ten", "10 min", "1d", "25h", "inf", "nan", float("inf"), float("nan"), "-1", False],
            "must be a time in seconds above 0 and up to 86400, such as 10, 500ms or 1m",
        ),
        ("history_size", ["-1", "ten"], "must be a whole number from 0 to 2147483647"),
        ("history_ttl", ["-1", "8761h"], "must be a time in seconds from 0 to 31536000, such as 10, 500ms or 1m"),
        ("max_channels_per_client", ["0"], "must be a whole number from 1 to 2147483647"),
        ("recovery_mode", ["", "latest"], "must be one of stream, cache"),
        ("drain_timeout", ["-1"], "must be a time in seconds from 0 to 86400, such as 10, 500ms or 1m"),
        ("batch_delay", ["11s", "1m", "-1"], "must be a time in milliseconds from 0 to 10000, such as 5 or 5ms"),
        ("message_rate", ["-1", "x", "10s"], "must be a number per second from 0 to 1000000000"),
        ("publish", ["", "maybe", 2, None], "must be true or false"),
        ("auth", ["", "basic", "NONE", 1, None], "must be one of none, token, jwt"),
        ("jwt_audience", ["", 5], "must be a text that is not empty"),
        ("jwt_secret", ["", 5], "must be a text that is not empty"),
        ("tokens", [5, [5], {"a": 1}], 'must be a list of texts, such as ["a", "b"]'),
        ("tokens", [[""], ["a b"], ["a\n"], ["é"]], "must be printable ASCII without spaces, and not empty"),
        ("api_key", ["a b", "\t"], "must be printable ASCII without spaces, and not empty"),
        (
            "host",
            ["a b", "http://x", "0.0.0.0:8000", "[::1]", "*", "-x", "a..b:"],
            "must be a host name or an address such as 127.0.0.1 or ::1",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(key: str, values: list[object], allowed: str) -> None:
    for value in values:
        assert fault(**{key: value}) == allowed, repr(value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("*", "*"),
        (["*"], "*"),
        ("same-origin", "same-origin"),
        (["same-origin"], "same-origin"),
        ("https://app.example.com", ("https://app.example.com",)),
        (["https://*.Example.com:8443", "http://[::1]:3000"], ("https://*.example.com:8443", "http://[::1]:3000")),
        (["https://a.b:443", "http://a.b:80", "http://a.b:443"], ("https://a.b", "http://a.b", "http://a.b:443")),
        (["capacitor://localhost"], ("capacitor://localhost",)),
    ],
)
def test_origins_are_brought_to_the_form_that_browsers_send(given: object, meant: object) -> None:
    assert Settings(allowed_origins=given).allowed_origins == meant


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://",
        "https://a.b/",
        "https://a.b/path",
        "https://a.b?x",
        "https://u@a.b",
        "https://a.b:99999",
        "https://a.*.b",
        "https://*",
        "https://*a.b",
        "https://a.b:*",
        "https://bücher.example",
        "null",
        "",
        "https://a.b,https://c.d",
        "https://a.b\n",
        "*",
        "same-origin",
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    sentence = "must be same-origin, or *, or a list of scheme://host[:port] such as https://*.example.com; {} is not"
    assert fault(allowed_origins=["https://good.example", origin]) == sentence.format(origin)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("192.0.2.7", ("192.0.2.7",)),
        (["10.0.0.0/8", "2001:DB8:0::/48", "::1"], ("10.0.0.0/8", "2001:db8::/48", "::1")),
        (["10.0.0.0/255.0.0.0", "192.0.2.7/32"], ("10.0.0.0/8", "192.0.2.7/32")),
        ([], ()),
    ],
)
def test_proxies_are_addresses_and_networks_in_one_form(given: object, meant: tuple[str, ...]) -> None:
    settings = Settings(trusted_proxies=given)
    assert settings.trusted_proxies == meant
    assert blueprint.terms(settings).trusted_proxies == meant


@pytest.mark.parametrize(
    "entry", ["", "*", "localhost", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "010.0.0.1", "[::1]", "10.0.0.1:80", "1/2/3"]
)
def test_what_is_no_network_is_refused_as_a_proxy(entry: str) -> None:
    sentence = "must be a list of addresses or networks such as 192.0.2.7 or 10.0.0.0/8; {} is not"
    assert fault(trusted_proxies=["10.0.0.0/8", entry]) == sentence.format(entry)


def test_the_end_of_the_certificate_is_that_of_the_server_s_own(tmp_path: Path) -> None:
    key = ec_key()
    chain, private = tmp_path / "chain.pem", tmp_path / "key.pem"
    private.write_text(private_pem(key))
    chain.write_text(certificate(key) + certificate(ec_key()))
    # A hundred years, without leap days, from 2020 on.
    ends = datetime.datetime(2119, 12, 8, tzinfo=datetime.UTC).timestamp()
    assert blueprint.certificate_expiry(Settings(tls_cert=chain, tls_key=private)) == ends
    assert blueprint.certificate_expiry(Settings()) is None


def test_a_certificate_that_cannot_be_read_is_no_reason_not_to_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = ec_key()
    chain, private = tmp_path / "chain.pem", tmp_path / "key.pem"
    private.write_text(private_pem(key))
    chain.write_text(certificate(key))
    settings = Settings(tls_cert=chain, tls_key=private)
    chain.write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    assert blueprint.certificate_expiry(settings) is None
    assert "when the certificate ends is not to be found out" in caplog.text


def test_a_network_ends_at_its_prefix() -> None:
    assert fault(trusted_proxies=["10.0.0.1/8"]) == (
        "must be a list of addresses or networks such as 192.0.2.7 or 10.0.0.0/8; 10.0.0.1/8 is not; "
        "its network has bits set behind the prefix"
    )


def test_a_file_must_be_readable_and_is_found_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.json").write_text("{}")
    assert Settings(jwt_jwks_file="keys.json").jwt_jwks_file == tmp_path / "keys.json"
    sentence = "must be the path of a file that can be read ({})"
    assert fault(jwt_jwks_file="none.json") == sentence.format("no such file or directory")
    assert fault(jwt_jwks_file=str(tmp_path)) == sentence.format("is a directory")
    assert fault(jwt_jwks_file="a\0b") == sentence.format("not a path")
    assert fault(jwt_jwks_file="") == "must be the path of a file that can be read"
    assert fault(jwt_public_key="none.pem") == sentence.format("no such file or directory")


# Namespaces


def test_a_namespace_is_complete() -> None:
    above = {"publish": False, "queue_bytes": "2KiB", "history_size": 7, "lag_policy": "conflate"}
    settings = Settings(**above, namespaces={"chat": {"publish": True, "batch_delay": "5ms"}, "feed": {}})
    chat, feed = settings.namespaces["chat"], settings.namespaces["feed"]
    assert (chat.publish, chat.batch_delay_seconds) == (True, 0.005)
    assert (chat.queue_bytes, chat.history_size, chat.lag_policy) == (2048, 7, "conflate")
    for key in Namespace.model_fields:
        assert getattr(feed, key) == getattr(settings, key)
        if key not in ("publish", "batch_delay"):
            assert getattr(chat, key) == getattr(settings, key)
    assert Settings.model_validate(settings.model_dump()) == settings


def test_what_channels_may_differ_in_is_what_the_contract_says() -> None:
    assert list(Namespace.model_fields) == [
        "publish",
        "subscribe",
        "anonymous",
        "read_history",
        "allow_recovery",
        "read_presence",
        "queue_messages",
        "queue_bytes",
        "lag_policy",
        "batch_delay",
        "history_size",
        "history_ttl",
        "recovery_mode",
        "delta",
        "presence",
        "join_leave",
    ]
    assert set(Namespace.model_fields) < set(OPTIONS)


@pytest.mark.parametrize("name", ["", ":", "a:", "a:b", "a b", "a\n", "\u2028", "\ud800"])
def test_what_no_channel_can_begin_with_names_no_namespace(name: str) -> None:
    with pytest.raises(ValidationError, match="must be a name without colons, spaces or control characters"):
        Settings(namespaces={name: {}})


@pytest.mark.parametrize("name", ["a", "é", "0", "a.b", "a-b/c", "[key]"])
def test_any_other_name_will_do(name: str) -> None:
    assert list(Settings(namespaces={name: {}}).namespaces) == [name]


@pytest.mark.parametrize("namespaces", [5, "chat", {"chat": 5}, {"chat": {"port": 1}}, {"chat": {"delta": "perhaps"}}])
def test_wrong_namespaces_are_refused(namespaces: object) -> None:
    with pytest.raises(ValidationError):
        Settings(namespaces=namespaces)


def test_namespaces_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings(namespaces={"chat": {}}).namespaces["chat"].publish = False


@pytest.mark.parametrize(("size", "ttl", "keeps"), [(0, 0, False), (0, 1, False), (1, 0, False), (1, "1ms", True)])
def test_both_a_size_and_a_time_make_a_history(size: int, ttl: object, keeps: bool) -> None:
    assert Settings(history_size=size, history_ttl=ttl).keeps_history is keeps


# What holds between options


def test_tls_needs_both_files_and_they_belong_together(tmp_path: Path) -> None:
    key = ec_key()
    files = {
        "cert": certificate(key),
        "key": private_pem(key),
        "other": private_pem(ec_key()),
        "locked": private_pem(key, b"password"),
        "empty": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = {name: str(tmp_path / name) for name in files}
    assert Settings(tls_cert=paths["cert"], tls_key=paths["key"]).tls_key == tmp_path / "key"
    assert fault(tls_cert=paths["cert"]) == "tls_cert needs tls_key too"
    assert fault(tls_key=paths["key"]) == "tls_key needs tls_cert too"
    for name in ("other", "locked", "empty"):
        told = fault(tls_cert=paths["cert"], tls_key=paths[name])
        assert told.startswith("tls_key is not the private key to tls_cert (")
    assert "key values mismatch" in fault(tls_cert=paths["cert"], tls_key=paths["other"])


def test_the_ports_differ() -> None:
    assert fault(port=9000) == "internal_port must differ from port"
    assert Settings(port=0, internal_port=0).port == 0
    assert Settings(port=9000, host="127.0.0.2").port == 9000


def test_tokens_and_secrets_are_needed_where_they_are_asked_for() -> None:
    assert fault(auth="token") == "auth needs at least one entry in tokens"
    assert Settings(auth="token", tokens="t").tokens == (SecretStr("t"),)
    needs = "auth needs exactly one of jwt_secret, jwt_public_key, jwt_jwks_file"
    assert fault(auth="jwt") == needs
    pem = public_pem(ec_key())
    assert (
        fault(auth="jwt", jwt_secret=SECRET, jwt_public_key=pem) == f"{needs}; given are jwt_secret and jwt_public_key"
    )


def test_the_key_fits_the_algorithm(tmp_path: Path) -> None:
    elliptic, longer, rivest = ec_key(), ec_key(ec.SECP384R1()), rsa_key()
    pem = tmp_path / "key.pem"
    pem.write_text(public_pem(elliptic))

    def jwt(**values: Any) -> dict[str, Any]:
        return {"auth": "jwt", **values}

    assert Settings(**jwt(jwt_secret=SECRET)).warnings() == []
    assert Settings(**jwt(jwt_secret=SECRET, jwt_algorithm="HS512")).jwt_algorithm == "HS512"
    assert Settings(**jwt(jwt_public_key=str(pem), jwt_algorithm="ES256")).jwt_public_key == public_pem(elliptic)
    assert Settings(**jwt(jwt_public_key=public_pem(longer), jwt_algorithm="ES384")).auth == "jwt"
    assert Settings(**jwt(jwt_public_key=public_pem(rivest), jwt_algorithm="RS512")).auth == "jwt"

    assert fault(**jwt(jwt_secret=SECRET, jwt_algorithm="RS256")) == (
        "jwt_algorithm does not fit jwt_secret, which goes with HS256, HS384 or HS512"
    )
    # The confusion of RFC 8725, section 2.1: a public key is no HMAC secret.
    assert fault(**jwt(jwt_public_key=str(pem))) == (
        "jwt_algorithm does not fit jwt_public_key, which goes with RS256, RS384, RS512, ES256, ES384 or ES512"
    )
    for key, algorithm, family in (
        (elliptic, "RS256", "RSA"),
        (elliptic, "ES384", "EC (P-384)"),
        (rivest, "ES256", "EC (P-256)"),
    ):
        assert fault(**jwt(jwt_public_key=public_pem(key), jwt_algorithm=algorithm)) == (
            f"jwt_public_key must be a public {family} key in PEM to verify {algorithm}"
        )
    for text in (certificate(elliptic), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"):
        assert fault(**jwt(jwt_public_key=text, jwt_algorithm="ES256")) == (
            "jwt_public_key must be a public EC (P-256) key in PEM to verify ES256"
        )
    assert fault(**jwt(jwt_public_key=private_pem(elliptic), jwt_algorithm="ES256")) == (
        "jwt_public_key must be a public key; this is a private one"
    )


def test_a_key_set_has_a_key_for_the_algorithm(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    values: dict[str, Any] = {"auth": "jwt", "jwt_jwks_file": str(file), "jwt_algorithm": "ES256"}
    file.write_text(key_set(ec_key(ec.SECP384R1()), ec_key()))
    assert Settings(**values).jwt_jwks_file == file
    file.write_text(key_set(ec_key(ec.SECP384R1())))
    assert fault(**values) == "jwt_jwks_file has no EC (P-256) key to verify ES256"
    for text in ("", "{", "[]", "{}", '{"keys": 1}', '{"keys": []}', '{"keys": [{"kty": "?"}]}', "null", "\xff"):
        file.write_text(text, encoding="latin-1")
        assert fault(**values) == "jwt_jwks_file must be a JSON Web Key Set with at least one usable key", text


def test_contradictions_are_all_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(auth="token", port=9000)
    assert "internal_port must differ from port; auth needs at least one entry in tokens" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "warnings"),
    [
        ({"auth": "jwt", "jwt_secret": SECRET}, []),
        (
            {"auth": "jwt", "jwt_secret": SECRET[1:]},
            ["jwt_secret has 31 bytes: under 32 bytes a key can be guessed from one token"],
        ),
        (
            {"internal_host": "0.0.0.0"},
            [
                "internal_host is 0.0.0.0, which others can reach, and api_key is not set: "
                "the internal HTTP API will refuse every call"
            ],
        ),
        ({"internal_host": "0.0.0.0", "api_key": "k"}, []),
        (
            {"jwt_audience": "a", "jwt_issuer": "b"},
            [
                'jwt_audience has no effect: auth is "none", not "jwt"',
                'jwt_issuer has no effect: auth is "none", not "jwt"',
            ],
        ),
        ({"tokens": "t"}, ['tokens has no effect: auth is "none", not "token"']),
        (
            {"personal_channels": True},
            ['personal_channels has no effect: auth is "none", so no client has a user'],
        ),
        (
            {"anonymous": False},
            ['anonymous is false, and auth is "none": no client has a user, so none can subscribe'],
        ),
        ({"auth": "jwt", "jwt_secret": SECRET, "anonymous": False, "personal_channels": True}, []),
        ({"history_size": 10}, []),
        ({"history_size": 10, "history_ttl": 0}, ["history_size has no effect: history_ttl is 0"]),
        ({"history_ttl": 60}, ["history_ttl has no effect: history_size is 0"]),
        ({"recovery_mode": "cache"}, ["recovery_mode has no effect: there is no history"]),
        ({"recovery_mode": "cache", "history_size": 1}, []),
        ({"delta": True}, []),
        ({"delta": True, "lag_policy": "conflate", "history_size": 1}, []),
        (
            {"delta": True, "lag_policy": "conflate"},
            ["delta has no effect: lag_policy is conflate, and without a history nobody would notice what it left out"],
        ),
        # In a namespace only what it has set itself is looked at.
        ({"history_ttl": 60, "namespaces": {"chat": {"history_size": 10}}}, []),
        ({"history_size": 10, "recovery_mode": "cache", "namespaces": {"chat": {"history_size": 0}}}, []),
        ({"history_size": 10, "namespaces": {"chat": {"history_ttl": 0}}}, []),
        (
            {"recovery_mode": "cache", "namespaces": {"chat": {}}},
            ["recovery_mode has no effect: there is no history"],
        ),
        (
            {"namespaces": {"chat": {"history_ttl": 60, "recovery_mode": "cache", "anonymous": False}}},
            [
                'namespaces.chat.anonymous is false, and auth is "none": no client has a user, so none can subscribe',
                "namespaces.chat.recovery_mode has no effect: there is no history",
                "namespaces.chat.history_ttl has no effect: history_size is 0",
            ],
        ),
        (
            {"namespaces": {"chat": {"delta": True, "lag_policy": "drop_oldest"}}},
            [
                "namespaces.chat.delta has no effect: lag_policy is drop_oldest, and without a history nobody "
                "would notice what it left out"
            ],
        ),
        (
            {"history_ttl": 0, "namespaces": {"chat": {"history_size": 5}}},
            ["namespaces.chat.history_size has no effect: history_ttl is 0"],
        ),
        (
            {"max_channel_length": 4, "namespaces": {"chat": {}, "cat": {}}},
            ["namespaces.chat has no effect: max_channel_length is 4"],
        ),
    ],
)
def test_warnings(values: dict[str, Any], warnings: list[str]) -> None:
    assert Settings(**values).warnings() == warnings


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert Settings(internal_host=host).internal_is_loopback is expected


def test_batch_delay_in_the_unit_of_timers() -> None:
    assert Settings(batch_delay="5ms").batch_delay_seconds == 0.005


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (25.0, "25"),
        (0.5, "0.5"),
        (7, "7"),
        ('a "b"\n\x7f\u2028é', '"a \\"b\\"\\n\\u007f\u2028é"'),
        (Path("/a b"), '"/a b"'),
        (("a", "b"), '["a", "b"]'),
        (SecretStr("x"), '"********"'),
        ((SecretStr("x"), SecretStr("y")), '["********", "********"]'),
    ],
)
def test_values_as_toml(value: object, text: str) -> None:
    assert as_toml(value) == text
