"""The page's client of the Centrifuge dialect, by itself: told what a server says, asked what it writes and tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.page.reading import Run

pytestmark = pytest.mark.asyncio(loop_scope="session")

STAGE = """
const log = [], timers = [];
const noted = (name) => (...told) => {
    if (name === "later") timers.push(told[0]);
    if (name === "heard") told = [told[0].payload, told[0].origin, told[0].isOwn];
    const isJson = name === "write" && told[0] !== "{}";
    log.push(name === "later" ? [name, told[1]] : [name, ...(isJson ? [JSON.parse(told[0])] : told)]);
};
const everything = { get: (_, name) => noted(name) };
const place = { location: { protocol: "http:", host: "box" }, channel: "ops", token: "key" };
const client = new m.Centrifuge(place, new Proxy({}, everything));
const open = () => client.opened(new Proxy({}, everything));
const say = (...messages) => client.received(messages.map((one) => JSON.stringify(one)).join("\\n"));
const CONNECTED = { id: 1, connect: { client: "c1", ping: 25, pong: true } };
const POSITIONED = { positioned: true, recoverable: true, epoch: "e", offset: 5 };
const pub = (offset, data, client) => ({ push: { channel: "ops", pub: { data, offset, info: { client } } } });
const names = () => log.map(([name]) => name);
const told = (...wanted) => log.filter(([name]) => wanted.includes(name));
"""


@pytest.fixture
def play(run: Run) -> Run:
    async def play(script: str) -> Any:
        return await run("centrifuge.js", STAGE + script)

    return play


async def test_it_connects_subscribes_and_then_counts_as_live(play: Run) -> None:
    log = await play("""
        log.push([client.address]);
        open(); say(CONNECTED); say({ id: 2, subscribe: POSITIONED }); return log;
    """)
    assert log == [
        ["ws://box/connection/websocket"],
        ["write", {"id": 1, "connect": {"token": "key", "name": "page", "subs": {}}}],
        ["expect", 35_000],
        ["write", {"id": 2, "subscribe": {"channel": "ops", "join_leave": True}}],
        ["ready", ""],
        ["later", 10_000],
        ["write", {"id": 3, "history": {"channel": "ops", "limit": 50, "reverse": True}}],
        ["asksWho"],
        ["write", {"id": 4, "presence": {"channel": "ops"}}],
    ]


async def test_pings_are_answered_if_the_server_wants_pongs(play: Run) -> None:
    pongs = "return log.filter(([name, said]) => name === 'write' && said === '{}').length"
    assert await play(f"open(); client.received('{{}}'); say(CONNECTED); client.received('{{}}'); {pongs}") == 1
    without = "{ id: 1, connect: { client: 'c1', ping: 25 } }"
    assert await play(f"open(); say({without}); client.received('{{}}'); {pongs}") == 0


async def test_live_messages_wait_for_the_history_before_them(play: Run) -> None:
    heard = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: POSITIONED }, pub(6, "six"), pub(7, "seven", "c1"));
        log.push(["nothing yet", told("heard").length]);
        const kept = [6, 5, 4].map((offset) => ({ data: offset, offset }));
        say({ id: 3, history: { publications: kept, epoch: "e", offset: 7 } }, pub(8, "eight"));
        return told("heard", "nothing yet");
    """)
    assert heard == [
        ["nothing yet", 0],
        ["heard", "4", "history", False],
        ["heard", "5", "history", False],
        ["heard", "six", "live", False],
        ["heard", "seven", "live", True],
        ["heard", "eight", "live", False],
    ]


@pytest.mark.parametrize(
    "ending",
    [
        "say({ id: 3, error: { code: 103, message: 'permission denied' } })",
        "client.lost()",
        "say({ push: { channel: 'ops', unsubscribe: { code: 2500, reason: 'insufficient state' } } })",
        "for (let offset = 7; offset < 510; offset++) say(pub(offset, 'flood'))",
    ],
)
async def test_live_messages_do_not_wait_for_ever(play: Run, ending: str) -> None:
    heard = await play(f"""
        open(); say(CONNECTED); say({{ id: 2, subscribe: POSITIONED }}, pub(6, "six")); {ending}; return told("heard");
    """)
    assert heard[0] == ["heard", "six", "live", False]


async def test_it_asks_for_what_it_missed_from_where_it_was(play: Run) -> None:
    log = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: POSITIONED }, { id: 3, history: {} }, pub(6, "six"));
        client.lost(); log.length = 0;
        open(); say({ id: 1, connect: { client: "c2" } });
        const publications = [7, 8].map((offset) => ({ data: offset, offset, info: { client: "c1" } }));
        say({ id: 2, subscribe: { ...POSITIONED, recovered: true, offset: 6, publications } }, pub(9, "nine", "c2"));
        client.lost(); open(); say({ id: 1, connect: { client: "c3" } });
        return log;
    """)
    subscriptions = [entry[1]["subscribe"] for entry in log if is_subscribe(entry)]
    assert [(each["recover"], each["offset"], each["epoch"]) for each in subscriptions] == [
        (True, 6, "e"),
        (True, 9, "e"),
    ]
    assert [entry for entry in log if entry[0] in ("ready", "heard")] == [
        ["ready", "Recovered 2 missed messages."],
        ["heard", "7", "recovered", True],
        ["heard", "8", "recovered", True],
        ["heard", "nine", "live", True],
    ]


def is_subscribe(entry: list[Any]) -> bool:
    return entry[0] == "write" and "subscribe" in entry[1]


@pytest.mark.parametrize(
    ("answer", "words", "is_read_again"),
    [
        ({"positioned": True, "epoch": "e", "offset": 5, "recovered": True}, "Nothing was missed.", False),
        (
            {"positioned": True, "epoch": "e", "offset": 90},
            "Could not recover what was said meanwhile: the channel's history is too short.",
            True,
        ),
        (
            {"positioned": True, "epoch": "f", "offset": 2},
            "Could not recover what was said meanwhile: the channel's history has begun anew.",
            True,
        ),
    ],
)
async def test_it_says_how_the_recovery_went(
    play: Run, answer: dict[str, Any], words: str, is_read_again: bool
) -> None:
    log = await play(f"""
        open(); say(CONNECTED); say({{ id: 2, subscribe: POSITIONED }}); client.lost(); log.length = 0;
        open(); say(CONNECTED); say({{ id: 2, subscribe: {json.dumps(answer)} }}); return log;
    """)
    assert ["ready", words] in log
    assert is_read_again == any(entry[0] == "write" and "history" in entry[1] for entry in log)


async def test_a_subscription_that_is_ended_comes_back_and_recovers(play: Run) -> None:
    log = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: { ...POSITIONED, offset: 0 } });
        log.length = timers.length = 0;
        const cut = { push: { channel: "ops", unsubscribe: { code: 2500, reason: "insufficient state" } } };
        say(cut); timers.pop()();
        const publications = [{ data: "missed", offset: 1 }];
        say({ id: 4, subscribe: { ...POSITIONED, recovered: true, offset: 0, publications } });
        say(cut); return log;
    """)
    again = [entry for entry in log if entry[0] in ("noted", "later", "heard", "ready") or is_subscribe(entry)]
    assert again[:5] == [
        ["noted", "The server ended the subscription: insufficient state. (2500)"],
        ["later", 0],
        [
            "write",
            {"id": 4, "subscribe": {"channel": "ops", "join_leave": True, "recover": True, "offset": 0, "epoch": "e"}},
        ],
        ["noted", "Recovered 1 missed message."],
        ["later", 10_000],
    ]
    assert again[5] == ["heard", "missed", "recovered", False]
    assert again[-1][0] == "later"
    assert 0 < again[-1][1] <= 1000


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"id": 1, "error": {"code": 109, "message": "token expired"}}, ["refuse", "The token has expired. (109)"]),
        (
            {"id": 1, "error": {"code": 100, "message": "internal server error", "temporary": True}},
            ["lose", "The server answers: internal server error. (100)"],
        ),
        ({"push": {"disconnect": {"code": 3503, "reason": "force disconnect"}}}, ["end", 3503, "force disconnect"]),
        (
            {"push": {"channel": "ops", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}},
            ["refuse", "The server took this page off the channel: server unsubscribe. (2000)"],
        ),
    ],
)
async def test_what_ends_a_connection(play: Run, said: dict[str, Any], told: list[Any]) -> None:
    assert (await play(f"open(); say({json.dumps(said)}); return log;"))[-1] == told


async def test_garbage_is_a_reason_to_come_back(play: Run) -> None:
    log = await play("open(); client.received('{oops'); return log;")
    assert log[-1] == ["lose", "The server said something that is not of this dialect."]
    log = await play("open(); client.received(new ArrayBuffer(3)); return log;")
    assert log[-1] == ["lose", "The server said something that is not of this dialect."]


async def test_what_the_server_does_not_take_is_told(play: Run) -> None:
    log = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: {} }); log.length = 0;
        log.push(["said", client.say('{"price": 1.10}')]);
        say({ id: 4, error: { code: 103, message: "permission denied" } }); return log;
    """)
    assert log[0] == ["write", {"id": 4, "publish": {"channel": "ops", "data": {"price": 1.1}}}]
    assert log[1:] == [["said", '{"price":1.1}'], ["unsaid", '{"price":1.1}', "This is not open to this page. (103)"]]


async def test_a_channel_that_the_server_puts_its_clients_on_is_not_subscribed_to(play: Run) -> None:
    log = await play("""
        open(); say({ id: 1, connect: { client: "c1", subs: { ops: POSITIONED } } }); client.lost();
        open(); return log;
    """)
    writes = [entry[1] for entry in log if entry[0] == "write"]
    assert not any("subscribe" in said for said in writes)
    assert writes[-1]["connect"]["subs"] == {"ops": {"recover": True, "offset": 5, "epoch": "e"}}


async def test_it_tells_what_is_on(play: Run) -> None:
    features = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: {} });
        say({ push: { channel: "ops", join: { info: { client: "c1", user: "" } } } });
        say({ id: 3, presence: { presence: { c1: {}, c2: {} } } }); return told("joined", "present", "described");
    """)
    assert features == [
        ["joined", "c1"],
        ["present", ["c1", "c2"], "c1"],
        ["described", {"history": False, "presence": True, "joins": True}],
    ]
    (nothing,) = await play("""
        open(); say(CONNECTED); say({ id: 2, subscribe: {} });
        say({ id: 3, error: { code: 108, message: "not available" } }); return told("present", "described");
    """)
    assert nothing == ["described", {"history": False, "presence": False, "joins": False}]


async def test_joins_without_presence_add_up_to_nothing(play: Run) -> None:
    told = await play("""
        const come = { push: { channel: "ops", join: { info: { client: "c9", user: "" } } } };
        const go = { push: { channel: "ops", leave: { info: { client: "c9", user: "" } } } };
        open(); say(CONNECTED); say({ id: 2, subscribe: {} });
        say(come, go, { id: 3, error: { code: 108, message: "not available" } }, come, go);
        return told("joined", "left");
    """)
    assert told == [["joined", "c9"], ["left", "c9"]]


async def test_what_is_said_on_another_channel_is_passed_over(play: Run) -> None:
    heard = """open(); say(CONNECTED); say({ id: 2, subscribe: {} });
        const other = pub(1, "x"); other.push.channel = CHANNEL; say(other); return told("heard").length;"""
    assert await play(heard.replace("CHANNEL", '"other"')) == 0
    assert await play(heard.replace("CHANNEL", '"ops"')) == 1
