"""The configuration in force, as the operator's page shows it."""

from __future__ import annotations

import orjson

from server.admin.configuration import in_force
from server.config import OPTIONS, Settings


def rows(settings: Settings) -> dict[str, dict[str, tuple[str | None, bool]]]:
    groups = in_force(settings)
    orjson.dumps(groups)
    return {
        group["group"]: {option["key"]: (option["value"], option["is_default"]) for option in group["options"]}
        for group in groups
    }


def test_every_option_is_there_in_its_group() -> None:
    found = rows(Settings())
    assert [key for group in found.values() for key in group] == list(OPTIONS)
    assert found["listen"]["port"] == ("8000", True)
    assert found["listen"]["tls_cert"] == (None, True)
    assert all(is_default for group in found.values() for _, is_default in group.values())


def test_what_was_set_stands_out_and_secrets_are_masked() -> None:
    settings = Settings(port=81, api_key="s3cret-key", broker="redis://:pa55@127.0.0.1", tokens=("t0ken",))  # type: ignore[arg-type]
    found = rows(settings)
    assert found["listen"]["port"] == ("81", False)
    assert found["access"]["api_key"] == ('"********"', False)
    text = str(found)
    assert "s3cret" not in text
    assert "pa55" not in text
    assert "t0ken" not in text


def test_a_namespace_is_a_group_that_is_compared_with_what_holds_outside() -> None:
    settings = Settings(history_size=5, namespaces={"chat": {"history_size": 50}})  # type: ignore[dict-item]
    chat = rows(settings)["namespaces.chat"]
    assert chat["history_size"] == ("50", False)
    assert chat["presence"] == ("false", True)
