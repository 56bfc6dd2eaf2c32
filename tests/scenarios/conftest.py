"""Room for the crowds: a thousand clients have a thousand sockets here, and as many in the server."""

import resource

import pytest

DESCRIPTORS = 8192


@pytest.fixture(scope="session", autouse=True)
def _room_for_crowds() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        # The server inherits it, and takes its ceiling of connections from it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
