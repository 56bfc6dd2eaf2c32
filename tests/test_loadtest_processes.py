"""What a run starts is pinned, logged, and gone at the end, whatever it thinks of that."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from loadtest.neighbours import Neighbours
from loadtest.processes import Child, Interrupted, Interrupts, siblings, split

WITHIN = 10.0


class Start(Protocol):
    """Starts a child that runs a few lines of Python."""

    def __call__(self, code: str, cores: set[int] | None = None) -> Child: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def started(code: str, cores: set[int] | None = None) -> Child:
        log = tmp_path / f"log-{len(children)}"
        children.append(Child([sys.executable, "-u", "-c", code], log, cores or set(), dict(os.environ)))
        return children[-1]

    yield started
    for child in children:
        child.stop()


def says(child: Child, words: str) -> str:
    """Wait until the child has printed something."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        text = child.log.read_text()
        if words in text:
            return text
        time.sleep(0.01)
    raise AssertionError(f"{words!r} is not in {text!r}")


def gone(pid: int) -> bool:
    """Whether no process, not even a zombie that nobody waits for, does anything under this number."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state in "ZX"


def test_a_child_is_logged_and_tells_how_it_ended(start: Start) -> None:
    child = start("import sys; print('one'); print('two', file=sys.stderr); print(); sys.exit(3)")
    assert child.wait(WITHIN)
    assert child.ended == 3
    assert child.last_words() == "exit code 3: two"
    child.stop()


def test_the_last_words_of_a_structured_log_are_its_message(start: Start) -> None:
    child = start("""print('{"level":"info","message":"cannot listen"}')""")
    assert child.wait(WITHIN)
    assert child.last_words() == "exit code 0: cannot listen"


def test_who_was_killed_had_no_last_words(start: Start) -> None:
    child = start("import time; print('all is well'); time.sleep(60)")
    says(child, "all is well")
    assert child.last_words() == "still running"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(WITHIN)
    assert child.last_words() == "killed by SIGKILL"
    child.stop()


def test_stop_takes_the_whole_group_even_those_that_will_not_hear(start: Start) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.fork()
os.write(1, f"pid {os.getpid()}\\n".encode())  # at once: three processes write here
time.sleep(60)
"""
    child = start(code)
    deadline = time.monotonic() + WITHIN
    while (text := child.log.read_text()).count("pid") < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    pids = [int(line.split()[1]) for line in text.splitlines()]
    assert len(pids) == 3
    child.stop(within=0.1)
    assert all(gone(pid) for pid in pids)
    child.stop()


def test_stop_reaches_a_process_that_is_itself_stopped(start: Start) -> None:
    child = start("print('here'); import time; time.sleep(60)")
    says(child, "here")
    os.kill(child.pid, signal.SIGSTOP)
    child.stop()
    assert child.ended == -signal.SIGTERM


def test_an_interrupt_reaches_the_child_alone(start: Start) -> None:
    code = "import time\nprint('here')\ntry:\n time.sleep(60)\nexcept KeyboardInterrupt:\n print('in order')"
    child = start(code)
    says(child, "here")
    child.interrupt()
    assert child.wait(WITHIN)
    assert child.last_words() == "exit code 0: in order"
    child.interrupt()  # nobody is there any more, and that is all right


def test_a_child_and_what_it_starts_are_pinned(start: Start) -> None:
    core = max(os.sched_getaffinity(0))
    # Pinned just after its start: it waits for that, and then looks at a child of its own.
    code = """
import os, subprocess, sys, time
while len(os.sched_getaffinity(0)) > 1:
    time.sleep(0.01)
print(subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]), "done")
"""
    child = start(code, {core})
    assert str({core}) in says(child, "done")
    child.stop()


@pytest.mark.parametrize(
    ("cpus", "server", "expected"),
    [
        ([], 1, ([], [])),
        ([3], 1, ([], [])),
        ([0, 1], 1, ([0], [1])),
        ([0, 1], 4, ([0], [1])),
        ([2, 3, 5, 7], 1, ([2], [3, 5, 7])),
        ([2, 3, 5, 7], 2, ([2, 3], [5, 7])),
    ],
)
def test_the_cores_are_divided(cpus: list[int], server: int, expected: tuple[list[int], list[int]]) -> None:
    assert split(cpus, server) == expected


def test_threads_of_one_core_are_known_for_what_they_are(tmp_path: Path) -> None:
    for cpu, pair in ((0, "0-1"), (1, "0-1"), (2, "2,9"), (9, "2,9")):
        directory = tmp_path / f"cpu{cpu}" / "topology"
        directory.mkdir(parents=True)
        (directory / "thread_siblings_list").write_text(pair + "\n")
    assert siblings([0], [1], tmp_path)
    assert siblings([0, 2], [9], tmp_path)
    assert not siblings([0], [2, 9], tmp_path)
    assert not siblings([5], [6], tmp_path)  # nothing is known of them


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_counted_and_heeded_when_it_is_safe(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        interrupts.heed()
        os.kill(os.getpid(), number)
        assert interrupts.count == 1
        with pytest.raises(Interrupted):
            interrupts.heed()
    assert signal.getsignal(number) == before


def test_under_nohup_the_terminal_may_go() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def burn(seconds: float) -> None:
    """Use so much CPU in this process."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_neighbours_are_those_who_are_not_ours(start: Start) -> None:
    """The same work counts as a neighbour's or not, depending on whose it is."""
    code = """
import time
print("go")
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
print("done")
time.sleep(60)
"""
    child = start(code)
    says(child, "go")
    knowing, not_knowing = Neighbours([child.pid]), Neighbours([])
    assert knowing.share is None
    for each in (knowing, not_knowing):
        each.look()
        assert each.share is None
    says(child, "done")
    for each in (knowing, not_knowing):
        each.look()
    assert knowing.share is not None
    assert not_knowing.share is not None
    assert 0 <= knowing.share < not_knowing.share <= 1
    child.stop()


def test_a_process_that_is_gone_does_not_stop_the_looking() -> None:
    neighbours = Neighbours([2**22 - 1])
    neighbours.look()
    burn(0.05)
    neighbours.look()
    assert neighbours.share is not None
