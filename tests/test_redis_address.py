"""What a URL says of a Redis, and what it must not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.brokers.redis.address import Address, AddressError, Tls, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address("localhost", 6379)),
        ("redis://example.com", Address("example.com", 6379)),
        ("redis://example.com:7000/3", Address("example.com", 7000, db=3)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://:pass@h", Address("h", password="pass")),
        ("redis://ann:p%40ss%2C%23@h/", Address("h", user="ann", password="p@ss,#")),
        ("redis://h?prefix=a:b", Address("h", prefix="a:b")),
        ("rediss://h", Address("h", tls=Tls())),
        ("rediss://h/1?ca=/ca.pem&cert=/c.pem&key=/k.pem", Address("h", db=1, tls=Tls("/ca.pem", "/c.pem", "/k.pem"))),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        (
            "unix://:pass@/run/my%20redis?db=2&prefix=p",
            Address(path="/run/my redis", password="pass", db=2, prefix="p"),
        ),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    assert parse(url) == (address,)


def test_several_urls_are_several_shards() -> None:
    assert parse("redis://a, redis://:x,y@b:1/2,unix:///s") == (
        Address("a"),
        Address("b", 1, db=2, password="x,y"),
        Address(path="/s"),
    )


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis+cluster://a", [Address("a")]),
        ("redis+cluster://a:7000,b,[::1]:7002", [Address("a", 7000), Address("b"), Address("::1", 7002)]),
        (
            "redis+cluster://ann:p%40,ss@a:1,b:2/0?prefix=p",
            [Address(host, port, user="ann", password="p@,ss", prefix="p") for host, port in (("a", 1), ("b", 2))],
        ),
        ("rediss+cluster://a,b?ca=/ca.pem", [Address("a", tls=Tls("/ca.pem")), Address("b", tls=Tls("/ca.pem"))]),
    ],
)
def test_a_cluster_is_named_by_some_of_its_nodes(url: str, addresses: list[Address]) -> None:
    assert parse(url) == tuple(replace(address, in_cluster=True) for address in addresses)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("unix+cluster:///s", r"redis\+cluster://"),
        ("redis+cluster://a,redis+cluster://b", "one URL"),
        ("redis+cluster://a,redis://b", "one URL"),
        ("redis+cluster://a/1", "databases"),
        ("redis+cluster://a:x", "port"),
        ("redis+cluster://a,a:6379", "twice"),
        ("redis+cluster://a b", "host must be"),
        ("redis+cluster://a?db=0", "db"),
        ("", "redis://host"),
        ("localhost:6379", "redis://host"),
        ("http://h", "redis://host"),
        ("redis://h:port", "port"),
        ("redis://h:70000", "port"),
        ("redis://h/one", "number"),
        ("redis://h/1/2", "number"),
        ("redis://h/-1", "number"),
        ("redis://h/²", "number"),
        ("redis://a#b@h", "%23"),
        ("redis://h?prefix={a}", "prefix"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?prefix=a*", "prefix"),
        ("redis://h?timeout=1", "timeout"),
        ("redis://h?ca=/x", "ca"),
        ("rediss://h?key=/x", "needs cert"),
        ("redis://h?db=1", "db"),
        ("redis://h?prefix", "key=value"),
        ("unix://host/path", "three slashes"),
        ("unix://", "three slashes"),
        ("redis://a,", "host must be"),
        ("redis://a..b:6379", "host is no name"),
        (f"redis://{'x' * 64}:6379", "host is no name"),
        ("redis+cluster://a,.b", "host is no name"),
        ("redis+cluster://a,", "must be hosts"),
        ("redis+cluster://:x@a,,b:1", "must be hosts"),
        ("redis://:a/b@h:1", "%2F"),
        ("redis://:a[b@h:1", "%5B"),
        ("redis://a,b", "host must be"),
        ("redis://a?prefix=x,redis://b?prefix=y", "same prefix"),
        ("redis://a,redis://a:6379/0", "twice"),
    ],
)
def test_what_is_wrong_is_said(url: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        parse(url)


def test_no_password_is_ever_shown() -> None:
    (address,) = parse("rediss://ann:s3cret@h:7/1?prefix=p")
    assert "s3cret" not in repr(address) + str(address)
    assert str(address) == "rediss://h:7/1"
    for url in ("redis://:s3cret@h:port", "redis://:s3cret@h/x", "redis://:s3#cret@h", "redis://:s3cret@h?x=1",
                "redis+cluster://:s3cret@h:x,b", "redis+cluster://:s3cret@h/1"):  # fmt: skip
        with pytest.raises(AddressError) as error:
            parse(url)
        assert "cret" not in str(error.value)


def test_names_of_addresses_tell_them_apart() -> None:
    names = [str(address) for address in parse("redis://h,redis://h/1,redis://h:1,rediss://h,redis://[::1],unix:///h")]
    assert names == [
        "redis://h:6379/0", "redis://h:6379/1", "redis://h:1/0", "rediss://h:6379/0", "redis://[::1]:6379/0",
        "unix:///h?db=0",
    ]  # fmt: skip
