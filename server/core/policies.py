"""What each lag policy does with a batch that a client who lags is offered. ``lag`` says what they are for.

Law: after each of them, what waits under the batch's limits is within them, and whatever is not kept is counted.

In a brown-out others take their places, `SPARING`: as `conflate`, where a client is told of the gap (and has the
history to fill it) or its policy lets it miss parts anyway. Elsewhere `disconnect` stays: nobody gets a silent hole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from server.core.batch import NEWEST, OLDEST
from server.core.counters import Drop
from server.core.lag import LagPolicy

if TYPE_CHECKING:
    from server.core.batch import Batch
    from server.core.outbox import Outbox


def disconnect(outbox: Outbox, batch: Batch) -> None:
    outbox.push(batch)
    held = outbox.held(batch.lag)
    if not batch.lag.admit(held.messages, held.bytes):
        outbox.overflow()


def drop_oldest(outbox: Outbox, batch: Batch) -> None:
    outbox.push(batch)
    outbox.cut(batch.lag, Drop.QUEUE_FULL, OLDEST)


def drop_newest(outbox: Outbox, batch: Batch) -> None:
    outbox.push(batch)
    outbox.cut(batch.lag, Drop.QUEUE_FULL, NEWEST)


def conflate(outbox: Outbox, batch: Batch) -> None:
    outbox.push(batch)
    outbox.keep_latest(batch.channel, Drop.CONFLATED)
    # The limits are for all channels together: the newest goes, so that each keeps its latest in order.
    outbox.cut(batch.lag, Drop.QUEUE_FULL, NEWEST)


def disconnect_or_declare(outbox: Outbox, batch: Batch) -> None:
    (conflate if batch.channel.terms.declares_gaps else disconnect)(outbox, batch)


Policies = dict[LagPolicy, Callable[["Outbox", "Batch"], None]]

POLICIES: Final[Policies] = {
    LagPolicy.DISCONNECT: disconnect,
    LagPolicy.DROP_OLDEST: drop_oldest,
    LagPolicy.DROP_NEWEST: drop_newest,
    LagPolicy.CONFLATE: conflate,
}
SPARING: Final[Policies] = {**dict.fromkeys(LagPolicy, conflate), LagPolicy.DISCONNECT: disconnect_or_declare}
