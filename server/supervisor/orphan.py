"""What becomes of a worker that hangs when its supervisor dies: it must not keep the port from whoever comes next.

Laws: a worker that turns ends by itself, in order and sooner (`post`); one that was stopped is woken, to do the same;
one that does anything else for `within` seconds is ended as it is. (prctl(2), PR_SET_PDEATHSIG; elsewhere than on Linux
nobody wakes one that was stopped.)
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
FAILED: Final = 1


def end_after_supervisor(within: float) -> None:
    """End this process `within` seconds after the one that started it has ended; only in a child process.

    The thread that started it must live as long as the parent: the kernel wakes us at the end of that thread.
    """
    thread = threading.Thread(target=_wait, args=(within,), name="orphan", daemon=True)
    thread.start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _wait(within: float) -> None:
    # A thread, since the event loop is what may hang. It logs nothing: whoever hangs may hold the lock of the log.
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "workers are child processes"
    supervisor.join()
    time.sleep(within)
    os._exit(FAILED)
