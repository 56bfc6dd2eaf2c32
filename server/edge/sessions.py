"""Which session a client gets: by the dialect that the gate found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.dialects.centrifuge import json_codec, protobuf_codec
from server.edge.centrifuge.service import Service
from server.edge.centrifuge.session import CentrifugeSession
from server.edge.credentials import ANONYMOUS
from server.edge.gate import Admission
from server.edge.session import EchoSession, RawSession, Session

if TYPE_CHECKING:
    from server.edge.connection import Connection


class Sessions:
    """Makes the sessions of a listener."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def new(self, connection: Connection, admission: Admission) -> Session:
        """Make the session of a client that was let in."""
        service = self._service
        if admission.dialect == "centrifuge":
            codec = protobuf_codec if admission.is_protobuf else json_codec
            return CentrifugeSession(connection, service, codec, admission.identity)
        identity = admission.identity or ANONYMOUS
        if admission.dialect == "echo":
            return EchoSession(connection, identity.token)
        return RawSession(connection, service, admission.channel, identity.user, identity.token)
