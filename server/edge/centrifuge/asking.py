"""What a client may ask of a channel, beside listening: publish, history, presence. Each gives one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from server.brokers.base import Attendance, BrokerError, Published, Slice, Stream
from server.core.history import first_that_fit
from server.core.publication import ClientInfo
from server.dialects.centrifuge import codes, commands, replies
from server.dialects.centrifuge.codes import Error
from server.dialects.centrifuge.data import to_publication
from server.node.namespaces import ChannelOptions

if TYPE_CHECKING:
    from server.edge.centrifuge.session import CentrifugeSession

Answer = Callable[[replies.Result | Error], object]


def publish(session: CentrifugeSession, command: commands.Publish, answer: Answer) -> None:
    """Say something on a channel, in the client's own name."""
    node, places, channel = session.service.node, session.places, command.channel
    if command.data is None:
        answer(codes.ERROR_BAD_REQUEST)
        return
    if command.type:
        answer(codes.ERROR_NOT_AVAILABLE)
        return
    if not node.namespaces.of(channel).publish or not places.may_hear(channel):
        answer(codes.ERROR_PERMISSION_DENIED)
        return
    place = places.get(channel)
    info = place.info if place is not None else ClientInfo(session.user, session.client, session.identity.info)

    def done(result: Published | BrokerError) -> None:
        session.broker_answered()
        if isinstance(result, BrokerError):
            answer(codes.ERROR_INTERNAL)
            return
        answer(replies.PublishResult())
        if not result.keeps_up:
            session.hold_until_relief(channel)

    session.asks_broker()
    node.publish(channel, to_publication(command.data, info=info), done)


def history(session: CentrifugeSession, command: commands.History, answer: Answer) -> None:
    """Read what a channel has kept: so much of it as one answer may hold, in number and in bytes."""
    options = _options(session, command.channel)
    if not options.is_positioned:
        answer(codes.ERROR_NOT_AVAILABLE)
        return
    if not (options.read_history and session.places.may_hear(command.channel)):
        answer(codes.ERROR_PERMISSION_DENIED)
        return
    since = command.since

    def done(stream: Stream | BrokerError) -> None:
        if isinstance(stream, BrokerError):
            answer(codes.ERROR_INTERNAL)
        elif since is not None and since.epoch and since.epoch != stream.top.epoch:
            answer(codes.ERROR_UNRECOVERABLE_POSITION)
        else:
            publications = first_that_fit(stream.publications, most_bytes, session.codec.sizes)
            answer(replies.HistoryResult(publications, stream.top.epoch, stream.top.offset))

    most_bytes = options.lag.bytes
    wanted = Slice(_limit(command.limit, options.history_limit), since, command.reverse, most_bytes)
    session.service.node.broker.history(command.channel, options.retention, wanted, done)


def presence(session: CentrifugeSession, command: commands.Presence, answer: Answer) -> None:
    """Tell who is on a channel."""

    def done(present: Mapping[str, ClientInfo] | BrokerError) -> None:
        answer(codes.ERROR_INTERNAL if isinstance(present, BrokerError) else replies.PresenceResult(present))

    if fault := _presence_fault(session, command.channel):
        answer(fault)
    else:
        session.service.node.broker.presence(command.channel, done)


def presence_stats(session: CentrifugeSession, command: commands.PresenceStats, answer: Answer) -> None:
    """Tell how many are on a channel."""

    def done(present: Attendance | BrokerError) -> None:
        if isinstance(present, BrokerError):
            answer(codes.ERROR_INTERNAL)
        else:
            answer(replies.PresenceStatsResult(present.clients, present.users))

    if fault := _presence_fault(session, command.channel):
        answer(fault)
    else:
        session.service.node.broker.presence_stats(command.channel, done)


def _presence_fault(session: CentrifugeSession, channel: str) -> Error | None:
    options = _options(session, channel)
    if not options.presence:
        return codes.ERROR_NOT_AVAILABLE
    if not (options.read_presence and session.places.may_hear(channel)):
        return codes.ERROR_PERMISSION_DENIED
    return None


def _limit(wanted: int, most: int | None) -> int | None:
    """Tell how many publications are read: no more than `most`, which is also what a client gets without a limit."""
    if most is None:
        return wanted if wanted >= 0 else None
    return wanted if 0 <= wanted <= most else most


def _options(session: CentrifugeSession, channel: str) -> ChannelOptions:
    return session.service.node.namespaces.of(channel)
