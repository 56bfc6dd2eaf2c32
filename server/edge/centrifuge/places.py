"""The channels of one client: how it comes to each, and how it leaves.

Laws:
- a client is on a channel once; whoever asks again is told so.
- whatever way a client leaves a channel, it is off the hub before it is told, and others see it leave once.
- a client on one channel is written to directly; on several, a turn of the event loop is one write.
- a client that leaves a channel on its way there gets to the end of the way first: it cannot come twice at once.
- what a client may not ask for it does not get by subscribing either: who comes and goes where it may not ask who is
  there (`read_presence`), what it missed where it may not read the history (`read_history`); unless the application,
  which signs the token, or the namespace (`allow_recovery`) wants it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from server.brokers.base import BrokerError
from server.core.history import Position
from server.core.names import name_fault
from server.core.publication import ClientInfo
from server.core.revocations import Token
from server.core.subscription import Subscription
from server.dialects.centrifuge import codes, commands
from server.dialects.centrifuge.replies import Subscribed, SubscribeResult
from server.edge.credentials import Expired, Foreign, Grant, Identity, Refused, ServerSubscription
from server.node.audience import Reading
from server.node.node import Seat, Unrecovered, Wish

if TYPE_CHECKING:
    from server.edge.centrifuge.session import CentrifugeSession

FOSSIL: Final = "fossil"
PLAIN: Final = ServerSubscription()

Entered = Callable[["Place", "SubscribeResult | codes.Error"], object]


class Place:
    """A client on a channel, or on its way there: then it has no subscription yet."""

    __slots__ = (
        "chan_info", "channel", "data", "expires", "has_left", "is_by_identity", "is_server_side", "may_recover",
        "options", "places", "reading", "shows_joins", "shows_presence", "subscription", "token",
    )  # fmt: skip

    def __init__(self, places: Places, channel: str, reading: Reading, *, is_server_side: bool) -> None:
        self.places = places
        self.channel = channel
        self.options = options = places.service.node.namespaces.of(channel)
        self.shows_presence = options.presence
        self.shows_joins = options.join_leave
        self.may_recover = options.read_history or options.allow_recovery
        self.reading = reading
        self.is_server_side = is_server_side
        self.is_by_identity = False  # nothing but the connection token opens the channel, or has put the client there
        self.subscription: Subscription | None = None
        self.has_left = False  # before it was there
        self.chan_info = b""
        self.data: bytes | None = None
        self.expires: float | None = None  # Unix time
        self.token: Token | None = None  # that it lives by, beside the connection's

    def allow(self, given: Grant | ServerSubscription) -> None:
        """Take over what a token says of this subscription."""
        self.chan_info, self.data = given.info, given.data
        overrides = given.overrides
        if overrides.presence is not None:
            self.shows_presence = overrides.presence
        if overrides.join_leave is not None:
            self.shows_joins = overrides.join_leave
        if overrides.recover:
            self.may_recover = True
        # What a client has asked for itself, and may, no token takes from it.
        if overrides.push_joins or (overrides.push_joins is False and self.is_server_side):
            self.reading = self.reading._replace(joins=overrides.push_joins)

    @property
    def info(self) -> ClientInfo:
        session = self.places.session
        return ClientInfo(session.user, session.client, session.identity.info, self.chan_info)

    def expire(self) -> None:
        """End a subscription whose token has run out; a client-side one can come back with a new token."""
        if self.is_server_side:
            self.places.session.end(codes.DISCONNECT_SUBSCRIPTION_EXPIRED)
        else:
            self.places.throw_out(self.channel, codes.UNSUBSCRIBE_EXPIRED)


class Places:
    """A client's channels, by name."""

    __slots__ = ("_by_channel", "_has_tokens", "service", "session")

    def __init__(self, session: CentrifugeSession) -> None:
        self.session = session
        self.service = session.service
        self._by_channel: dict[str, Place] = {}
        self._has_tokens = False  # or has had one for a channel, which few clients have

    def __len__(self) -> int:
        return len(self._by_channel)

    def __iter__(self) -> Iterator[Place]:
        return iter(list(self._by_channel.values()))

    def get(self, channel: str) -> Place | None:
        """Return the client's place on a channel, once it is there."""
        place = self._by_channel.get(channel)
        return place if place is not None and place.subscription is not None else None

    def may_hear(self, channel: str) -> bool:
        """Tell if the client is on a channel, or could be without a token for it."""
        session = self.session
        return channel in self._by_channel or self.service.permissions.may_subscribe(
            session.user, channel, session.identity.granted
        )

    # Coming

    def subscribe(self, command: commands.Subscribe, entered: Entered) -> codes.Error | codes.Disconnect | None:
        """Take the client to a channel because it asks; return why not, or call `entered` once it is there."""
        channel = command.channel
        fault: codes.Error | codes.Disconnect | None = self._fault(channel)
        if fault is None and command.type:
            fault = codes.ERROR_NOT_AVAILABLE
        if fault is None and command.filtered:
            fault = codes.ERROR_BAD_REQUEST
        if fault is not None:
            return fault
        options = self.service.node.namespaces.of(channel)
        reading = Reading(
            self.session.codec.name,
            delta=command.delta == FOSSIL and options.delta and not options.loses_in_silence,
            joins=command.join_leave and options.shows_joins,
        )
        place = Place(self, channel, reading, is_server_side=False)
        fault = self._present(place, command.token)
        if fault is None:
            self._enter(place, command, entered)
        return fault

    def enter(
        self,
        channel: str,
        entered: Entered,
        *,
        resumed: commands.Subscribe | None = None,
        given: ServerSubscription = PLAIN,
        expires: float | None = None,
        is_by_identity: bool = False,
    ) -> codes.Error | None:
        """Put the client on a channel because the server wants so; `resumed` says where the client was before."""
        fault = self._fault(channel)
        if fault is not None:
            return fault
        options = self.service.node.namespaces.of(channel)
        place = Place(self, channel, Reading(self.session.codec.name, joins=options.shows_joins), is_server_side=True)
        place.allow(given)
        place.expires = expires
        place.is_by_identity = is_by_identity
        self._enter(place, resumed or commands.Subscribe(channel), entered)
        return None

    def _fault(self, channel: str) -> codes.Error | None:
        if not channel or name_fault(channel, self.service.max_channel_length):
            return codes.ERROR_BAD_REQUEST
        place = self._by_channel.get(channel)
        if place is not None:
            # The temporary one: an SDK tries again.
            return codes.ERROR_TOO_MANY_REQUESTS if place.has_left else codes.ERROR_ALREADY_SUBSCRIBED
        if len(self._by_channel) >= self.service.max_channels:
            return codes.ERROR_LIMIT_EXCEEDED
        return None

    def _present(self, place: Place, token: str) -> codes.Error | codes.Disconnect | None:
        """Check what opens the channel to the client: a token for it, the rules, or its connection token."""
        if not token:
            place.is_by_identity = not self.service.permissions.may_subscribe(self.session.user, place.channel)
            return None if self.may_hear(place.channel) else codes.ERROR_PERMISSION_DENIED
        try:
            grant = self.service.subscription_tokens.check(token, channel=place.channel, user=self.session.user)
        except Expired:
            return codes.ERROR_TOKEN_EXPIRED
        except Foreign:
            return codes.DISCONNECT_INVALID_TOKEN
        except Refused:
            return codes.ERROR_PERMISSION_DENIED
        place.allow(grant)
        place.expires = grant.expires
        self.live_by(place, grant.token)
        return None

    def _enter(self, place: Place, command: commands.Subscribe, entered: Entered) -> None:
        self._by_channel[place.channel] = place
        wish = Wish(
            place.channel,
            place.reading,
            self.session.outbox,
            self.session.write,
            since=command.position if command.recover and place.may_recover else None,
            most_bytes=place.options.lag.bytes,
            needs_recovery=command.recover and command.reject_unrecovered,
        )

        def seated(answer: Seat | BrokerError | Unrecovered) -> None:
            self._seated(place, command, answer, entered)

        self.service.node.subscribe(wish, seated)

    def _seated(
        self, place: Place, command: commands.Subscribe, answer: Seat | BrokerError | Unrecovered, entered: Entered
    ) -> None:
        is_wanted = self._by_channel.get(place.channel) is place
        if place.has_left or not is_wanted:  # the channel, or altogether
            if isinstance(answer, Seat):
                self.service.node.unsubscribe(answer.subscription)
            if is_wanted:
                del self._by_channel[place.channel]
                entered(place, codes.ERROR_TOO_MANY_REQUESTS)
            return
        if not isinstance(answer, Seat):
            del self._by_channel[place.channel]
            is_lost = isinstance(answer, Unrecovered)
            entered(place, codes.ERROR_UNRECOVERABLE_POSITION if is_lost else codes.ERROR_INTERNAL)
            return
        place.subscription = answer.subscription
        if self.session.is_paused:
            answer.subscription.pause()
        self._write_as_one()
        node, service = self.service.node, self.service
        if place.expires is not None:
            self.prolong(place, place.expires)
        if place.shows_presence:
            node.broker.add_presence(place.channel, place.info, _ignore)
        if place.shows_joins:
            # It goes out after what is answered now; later, the client may have left again.
            node.broker.publish_join(place.channel, place.info)
        entered(place, _result(place, command, answer, service.ttl))

    def live_by(self, place: Place, token: Token | None) -> None:
        """Let a subscription live by a token: if that is revoked, it ends."""
        place.token = token
        self._has_tokens = True

    def prolong(self, place: Place, expires: float | None) -> None:
        """Let a subscription last until `expires` (Unix time); for ever if None."""
        service = self.service
        place.expires = expires
        if expires is None:
            service.expiring.pop(place, None)
        else:
            service.expiring[place] = service.deadline(expires)

    def suit(self, identity: Identity) -> bool:
        """Tell if the client is on every channel that `identity` names, and on none that only another one opened."""
        granted, here = identity.granted, [place for place in self if not place.has_left]
        return granted <= {place.channel for place in here} and all(
            place.channel in granted for place in here if place.is_by_identity
        )

    def show_anew(self, *places: Place) -> None:
        """Say on `places` (none: on all) what is now to be seen of the client there."""
        for place in places or self:
            if place.shows_presence and place.subscription is not None:
                self.service.node.broker.add_presence(place.channel, place.info, _ignore)

    # Leaving

    def leave(self, channel: str) -> bool:
        """Take the client off a channel; false if it was not there."""
        place = self._by_channel.get(channel)
        if place is None or place.has_left:
            return False
        if place.subscription is None:
            place.has_left = True
            return True
        del self._by_channel[channel]
        self.service.node.unsubscribe(place.subscription)
        self._farewell(place)
        self._write_as_one()
        return True

    def throw_out(self, channel: str, why: codes.Unsubscribe) -> bool:
        """Take the client off a channel, and tell it why; false if it was not there."""
        if not self.leave(channel):
            return False
        self.session.push(channel, why)
        return True

    def drop_revoked(self, is_revoked: Callable[[Token], bool]) -> None:
        """Take the client off the channels that it is on by a token that was revoked; it need not come back with it."""
        if not self._has_tokens:
            return
        places = self._by_channel.values()
        for place in [place for place in places if place.token is not None and is_revoked(place.token)]:
            self.throw_out(place.channel, codes.UNSUBSCRIBE_BY_SERVER)

    def lose_position(self, channel: str) -> None:
        """Tell the client that the channel's stream has a gap for it; it is off the hub already."""
        place = self._by_channel.pop(channel, None)
        if place is None:
            return
        self._farewell(place)
        self._write_as_one()
        if place.is_server_side:
            # It cannot subscribe by itself; when it comes back, the connect command recovers.
            self.session.end(codes.DISCONNECT_INSUFFICIENT_STATE)
        else:
            self.session.push(channel, codes.UNSUBSCRIBE_INSUFFICIENT_STATE)

    def leave_hub(self) -> None:
        """Take no more part, for ever; what is queued may still go out. Comes once."""
        places, self._by_channel = self._by_channel, {}
        for place in places.values():
            if place.subscription is not None:
                self.service.node.leave(place.subscription)
                self._farewell(place)
        # The session holds this: a cycle would be left to the garbage collector.
        del self.session

    def _farewell(self, place: Place) -> None:
        self.service.expiring.pop(place, None)
        broker = self.service.node.broker
        if place.shows_presence:
            broker.remove_presence(place.channel, place.info)
        if place.shows_joins:
            broker.publish_leave(place.channel, place.info)

    # Flow

    def pause(self) -> None:
        for place in self._by_channel.values():
            if place.subscription is not None:
                place.subscription.pause()

    def resume(self) -> None:
        for place in self._by_channel.values():
            if place.subscription is not None:
                place.subscription.resume()

    def _write_as_one(self) -> None:
        """Choose how the client is written to, after its channels have become more or fewer."""
        seated = [place.subscription for place in self._by_channel.values() if place.subscription is not None]
        if len(seated) > 1:
            for subscription in seated:
                subscription.gather()
        elif seated and self.session.outbox.is_empty:
            seated[0].write_through()


def _result(place: Place, command: commands.Subscribe, seat: Seat, ttl: Callable[[float], int]) -> SubscribeResult:
    top, recovery = seat.top, seat.recovery
    is_positioned = place.options.is_positioned
    has_recovered = recovery is not None and recovery.recovered
    return SubscribeResult(
        recoverable=is_positioned and place.may_recover,
        positioned=is_positioned,
        epoch=top.epoch if is_positioned else "",
        offset=_offset(command.position, top, has_recovered=has_recovered) if is_positioned else 0,
        publications=recovery.publications if recovery is not None else (),
        recovered=has_recovered,
        was_recovering=command.recover,
        data=place.data,
        delta=place.reading.delta,
        expires=place.expires is not None,
        ttl=ttl(place.expires) if place.expires is not None else 0,
    )


def _offset(since: Position, top: Position, *, has_recovered: bool) -> int:
    # A client counts on from its own offset over what it recovers; else it starts at the top.
    return since.offset if has_recovered else top.offset


def subscribed_push(result: SubscribeResult) -> Subscribed:
    """Say of a subscription that the server made what a subscribe reply would have said."""
    return Subscribed(result.recoverable, result.epoch, result.offset, result.positioned, result.data)


def _ignore(answer: object) -> None:
    """Take no note: who is not seen on a channel is on it all the same."""
