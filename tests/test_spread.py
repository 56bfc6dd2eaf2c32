"""Who gets new connections: the arithmetic, the filter, and the kernel that runs it."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from server.supervisor.spread import Order, attach, program, shares


@pytest.mark.parametrize(
    ("connections", "parts"),
    [
        ([0, 0], None),
        ([5, 0], None),  # too few to tell
        ([100, 100], None),
        ([124, 100], None),
        ([100], None),
        ([100, 0], [0.0, 1.0]),
        ([200, 100], [0.0, 1.0]),
        ([100, 50, 0], [0.0, 0.35, 0.65]),
    ],
)
def test_the_emptier_get_what_they_lack(connections: list[int], parts: list[float] | None) -> None:
    assert shares(connections) == parts


def run(steps: list[tuple[int, int, int, int]], drawn: int) -> int:
    """Run a filter as the kernel would."""
    at = 1  # after the load
    while True:
        code, if_so, if_not, number = steps[at]
        if code == 0x06:
            return number
        at += 1 + (if_so if drawn >= number else if_not)


def test_the_filter_returns_each_index_as_often_as_it_should() -> None:
    steps = program([0.25, 0.0, 0.75])
    drawn = [run(steps, number * 2**32 // 1000) for number in range(1000)]
    assert Counter(drawn) == {0: 250, 2: 750}
    assert run(program([1.0, 0.0]), 2**32 - 2) == 0


def test_the_kernel_obeys_and_can_be_left_alone_again() -> None:
    listeners, port = [], 0
    for _ in range(3):
        sock = socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=512)
        sock.setblocking(False)
        listeners.append(sock)
        port = sock.getsockname()[1]

    def accepted(connections: int) -> list[int]:
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        counts = []
        for listener in listeners:
            counts.append(0)
            while True:
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    break
                counts[-1] += 1
        for client in clients:
            client.close()
        return counts

    try:
        attach(listeners[0], [0.0, 1.0, 0.0])
        assert accepted(60) == [0, 60, 0]
        attach(listeners[2], [0.5, 0.0, 0.5])
        first, second, third = accepted(200)
        assert second == 0
        assert first > 50
        assert third > 50
        attach(listeners[0], None)
        attach(listeners[0], None)
        assert min(accepted(300)) > 30
    finally:
        for listener in listeners:
            listener.close()


def test_the_order_is_the_kernel_s_where_one_leaves_the_last_takes_its_place() -> None:
    order = Order()
    for name in "abcd":
        order.enter(name)
    order.leave("b")
    assert order.workers == ["a", "d", "c"]
    order.leave("c")
    order.leave("c")
    assert order.workers == ["a", "d"]


def test_the_kernel_keeps_that_order() -> None:
    port, listeners = 0, {}
    for name in "abcd":
        sock = listeners[name] = socket.create_server(("127.0.0.1", port), reuse_port=True)
        sock.setblocking(False)
        port = sock.getsockname()[1]
    order = Order()
    for name in listeners:
        order.enter(name)
    try:
        listeners.pop("b").close()
        order.leave("b")
        for index, name in enumerate(order.workers):
            parts = [0.0] * len(order.workers)
            parts[index] = 1.0
            attach(listeners["a"], parts)
            with socket.create_connection(("127.0.0.1", port)):
                listeners[str(name)].accept()[0].close()
    finally:
        for sock in listeners.values():
            sock.close()
