"""docs/protocol.md and docs/asyncapi.yaml say what the server does: each exchange is tried, each example checked."""

from __future__ import annotations

import json
import re
from functools import partial
from itertools import pairwise
from typing import Any, Final

import jsonschema
import pytest
import yaml

from server import __version__
from server.config import OPTIONS
from server.core.publication import ClientInfo, Publication
from server.dialects.centrifuge import codes, json_codec
from server.dialects.centrifuge.json_commands import _BODIES as COMMANDS
from tests import documents
from tests.absence import absent
from tests.backend import Client, api_of, serving
from tests.documents import HOUSES, ME, PROTOCOL, ROOT, Exchange, Likeness

TEXT: Final = PROTOCOL.read_text()
BLOCKS: Final = list(documents.blocks(TEXT))
TOKENS: Final = documents.tokens_of(BLOCKS)
EXCHANGES: Final = [block for block in BLOCKS if block.kind == "text"]
CURLS: Final = [(block, after) for block, after in pairwise(BLOCKS) if block.kind == "sh"]

ASYNCAPI: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
MESSAGES: Final[dict[str, Any]] = ASYNCAPI["components"]["messages"]
# The schema of AsyncAPI documents, from npm's @asyncapi/specs, which is installed with the SDKs for the tests.
SPECIFICATION: Final = ROOT / ".venv-sdk/node_modules/@asyncapi/specs/schemas/3.0.0.json"


@pytest.mark.parametrize("block", EXCHANGES, ids=lambda block: f"line {block.at}")
async def test_an_exchange_goes_as_it_is_written(block: documents.Block) -> None:
    exchange = Exchange.of(block, TOKENS)
    await exchange.run(block.lines)


async def test_the_server_api_answers_as_it_is_written() -> None:
    home = HOUSES["api"]()
    ann = Client.connect(home, "", "chat")
    likeness = Likeness({ME: ann.id})
    tried = set()
    async with serving(home, api_key="k3y") as post:
        for block, after in CURLS:
            assert after.kind == "json", f"line {block.at}: a reply comes after a command"
            try:
                tried.add(await documents.try_curl(block.text, json.loads(after.text), post, likeness, "k3y"))
            except AssertionError as wrong:
                raise AssertionError(f"line {block.at}: {block.text}\n{wrong}") from None
    assert tried == {"", *api_of(home).commands}


def test_no_block_goes_untried() -> None:
    replies = [after for _, after in CURLS]
    claims = [block for block in BLOCKS if block.kind == "json" and block.words]
    rest = [block for block in BLOCKS if block not in (*EXCHANGES, *replies, *claims) and block.kind != "sh"]
    assert [(block.kind, block.words) for block in rest] == [("js", ())]
    assert len(EXCHANGES) > 12
    assert len(TOKENS) == 2


# A checker is tested with a planted lie


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"was_recovering":true', '"was_recovering":false'),
        ('"data":"two","offset":2', '"data":"two","offset":3'),
        ('"recovered":true,"offset":1', '"offset":1,"recovered":true'),
        ('"recoverable":true,', ""),
        ('< {"id":3,"unsubscribe":{}}\n', ""),
        ('"epoch":"Zk2mX0aQ","offset":2', '"epoch":"YYYYYYYY","offset":2'),
        ('< {"id":5,"unsubscribe":{}}', '< {"id":5,"unsubscribe":{}}\n< {"id":5,"unsubscribe":{}}'),
        ('> {"id":3', '* {"id":3'),
    ],
)
async def test_what_is_written_wrongly_is_found(right: str, wrong: str) -> None:
    [block] = [block for block in EXCHANGES if '"forgotten"' in block.text]
    assert right in block.text
    # An epoch is wrong when it is not the one of before: the last time that it is named.
    head, _, tail = block.text.rpartition(right)
    lie = f"{head}{wrong}{tail}".splitlines()
    with pytest.raises(AssertionError):
        await Exchange.of(block, TOKENS).run(tuple(lie))


# Tables


def rows(heading: str) -> list[list[str]]:
    """Read the table under a heading, without its head."""
    section = re.split(r"^#+ ", TEXT.split(f" {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def used(kind: type) -> set[tuple[int, str]]:
    """Find the codes of a kind that the server says somewhere."""
    source = "".join(file.read_text() for file in (ROOT / "server").rglob("*.py") if file.name != "codes.py")
    named = {name: code for name, code in vars(codes).items() if isinstance(code, kind)}
    assert named
    said = {code for name, code in named.items() if re.search(rf"\b{name}\b", source)}
    return {(code.code, getattr(code, "message", None) or code.reason) for code in said}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("heading", "kind", "others"),
    [
        ("Errors", codes.Error, set()),
        ("Unsubscribe codes", codes.Unsubscribe, set()),
        ("Disconnect codes", codes.Disconnect, {(1009, "message too big")}),
    ],
)
def test_every_code_has_its_row(heading: str, kind: type, others: set[tuple[int, str]]) -> None:
    assert {(int(row[0]), row[1]) for row in rows(heading)} - others == used(kind)


def test_who_comes_back_is_told_rightly() -> None:
    for code, reason, _, back in rows("Disconnect codes"):
        if int(code) >= 3000:
            assert back.startswith("yes") == codes.Disconnect(int(code), reason).reconnect, code
    for code, reason, _, back in rows("Unsubscribe codes"):
        assert back.startswith("yes") == codes.Unsubscribe(int(code), reason).resubscribe, code


def test_the_limits_are_those_of_the_options() -> None:
    limits = {row[0].strip("`"): row[1] for row in rows("Limits")}
    assert len(limits) == 12
    for name, default in limits.items():
        assert float(default) == OPTIONS[name].default(), name


def test_every_option_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:[a-z]+_)+[a-z]+)(?: = [^`]*)?`", TEXT))
    assert {"lag_policy", "history_size"} <= named
    fields = {
        "b64data", "b64info", "expire_at", "join_leave", "skip_history", "idempotency_key", "version_epoch",
        "history_remove", "presence_stats", "drop_oldest", "drop_newest", "recover_since", "api_key",
        "stentor_messages_dropped_total", "stentor_messages_refused_total", "force_push_join_leave", "force_recovery",
        "force_positioning", "revoke_token", "invalidate_user_tokens", "issued_before",
    }  # fmt: skip
    assert named - fields <= OPTIONS.keys()


# AsyncAPI


def payload_schema(name: str) -> dict[str, Any]:
    """Return the schema of a message, with all that it refers to."""
    return {**MESSAGES[name]["payload"], "components": ASYNCAPI["components"]}


def examples(name: str) -> list[Any]:
    return [example["payload"] for example in MESSAGES[name].get("examples", ())]


def test_the_description_is_asyncapi() -> None:
    if not SPECIFICATION.exists():
        absent("npm's @asyncapi/specs is not installed, which says what AsyncAPI is: make test installs it")
    jsonschema.validate(ASYNCAPI, json.loads(SPECIFICATION.read_text()), cls=jsonschema.Draft7Validator)


def references(value: Any) -> list[str]:
    """Find every reference in a part of the description."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def test_what_is_referred_to_exists_and_what_exists_is_referred_to() -> None:
    found = references(ASYNCAPI)
    for reference in found:
        place = ASYNCAPI
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step.replace("~1", "/")]
    for group in ("schemas", "messages"):
        for name in ASYNCAPI["components"][group]:
            assert f"#/components/{group}/{name}" in found, name
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert ASYNCAPI["info"]["version"] == __version__
    assert set(ASYNCAPI["channels"]) == {"raw", "echo", "centrifuge"}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_examples_that_are_like_its_schema(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(MESSAGES[name]["payload"])
    assert examples(name), "a message without an example"
    for example in examples(name):
        jsonschema.validate(example, payload_schema(name), cls=jsonschema.Draft7Validator)


async def written() -> list[tuple[str, Any]]:
    """Return what goes over the wire in the document: a direction and a message each."""
    said = []
    for block in EXCHANGES:
        exchange = Exchange.of(block, TOKENS)
        await exchange.run(block.lines)
        said += exchange.messages
    return said


async def test_every_example_is_one_that_was_tried() -> None:
    said = [message for _, message in await written()]
    assert len(said) > 60
    for name in MESSAGES:
        for example in examples(name):
            assert example in said, f"{name}: {example} is not in protocol.md, where it would be tried"


def named(action: str) -> set[str]:
    """Name the messages of all operations of an action; what is a reply is sent."""
    operations = ASYNCAPI["operations"].values()
    found = [references(each["messages"]) for each in operations if each["action"] == action]
    if action == "send":
        found += [references(each["reply"]["messages"]) for each in operations if "reply" in each]
    return {reference.rpartition("/")[2] for group in found for reference in group}


@pytest.mark.parametrize(("mark", "action"), [("<", "send"), (">", "receive")])
async def test_every_message_that_was_tried_is_like_one_of_the_schemas(mark: str, action: str) -> None:
    validators = [jsonschema.Draft7Validator(payload_schema(name)) for name in sorted(named(action))]
    tried = [message for direction, message in await written() if direction == mark]
    assert len(tried) > 30
    assert [each for each in tried if sum(validator.is_valid(each) for validator in validators) != 1] == []


@pytest.mark.parametrize("delta", [False, True])
def test_a_publication_with_all_that_one_may_have_is_like_its_schema(delta: bool) -> None:
    """The examples are of a house without a date."""
    who = ClientInfo("ann", "8a1f6c1e", b'{"name":"Ann"}', b'{"seat":1}')
    publication = Publication(
        b'{"n":1}', offset=7, info=who, tags={"lang": "en"}, published_at=1700000000000, is_json=True
    )
    encode = partial(json_codec.encode_delta_publication, delta=b"1") if delta else json_codec.encode_publication
    told = json.loads(encode("chat", publication))
    assert told["push"]["pub"].keys() == {"data", "offset", "info", "tags", "time", *(("delta",) if delta else ())}
    jsonschema.validate(told, payload_schema("publicationPush"), cls=jsonschema.Draft7Validator)


def test_every_message_is_sent_or_received() -> None:
    assert named("send") | named("receive") == MESSAGES.keys()


def test_every_command_and_push_has_its_message() -> None:
    objects = [each for name in MESSAGES for each in examples(name) if isinstance(each, dict)]
    assert {key for each in objects for key in each} >= COMMANDS.keys()
    pushes = {kind for each in objects for kind in each.get("push", ())}
    assert {"pub", "join", "leave", "subscribe", "unsubscribe", "refresh"} <= pushes
