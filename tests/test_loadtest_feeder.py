from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from loadtest.feeder import Taken, feeding
from tests.harness import REPOSITORY, wait_until

ORPHANING = """
import os, psutil, sys
from loadtest.feeder import feeding
with feeding(connections=1, batch=1, shared=True):
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    sys.stdin.read()
"""


def test_a_feeder_is_gone_when_the_block_ends() -> None:
    others = psutil.Process().children()  # of tests that ran before
    with feeding(connections=1, batch=1, shared=True):
        (child,) = [child for child in psutil.Process().children() if child not in others]
    assert not child.is_running()


def test_the_number_is_seen_by_both() -> None:
    memory = os.memfd_create("taken")
    os.ftruncate(memory, 4096)
    ours, theirs = Taken(memory), Taken(memory)
    ours.value = 2**40
    assert theirs.value == 2**40
    os.close(memory)


def test_a_feeder_does_not_outlive_a_receiver_that_is_killed() -> None:
    """It is connected and waits for its messages to be taken, when nobody is there any more."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANING], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        feeder = psutil.Process(int(receiver.stdout.readline()))
        wait_until(lambda: feeder.net_connections("tcp"))
        receiver.send_signal(signal.SIGKILL)
        receiver.wait(10)
    wait_until(lambda: not feeder.is_running() or feeder.status() == psutil.STATUS_ZOMBIE, within=20)
