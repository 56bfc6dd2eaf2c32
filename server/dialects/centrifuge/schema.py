"""The protocol's Protobuf messages, built when this module is loaded.

The names, numbers and types are those of client.proto (centrifugal/protocol), which are what the wire is made of.
Fields that we neither read nor write are left out: the Protobuf runtime skips what it does not know. The package's name
is ours: it is not on the wire.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

__all__ = ["Command", "DecodeError", "Publication", "Reply"]

_PACKAGE: Final = "stentor.centrifuge"

# A line per message: its name, then `field:type=number`. A type in [] is a map from strings, one with * is repeated.
_MESSAGES: Final = """
Error                code:uint32=1 message:string=2 temporary:bool=3
Command              id:uint32=1 connect:ConnectRequest=4 subscribe:SubscribeRequest=5 unsubscribe:UnsubscribeRequest=6
                     publish:PublishRequest=7 presence:PresenceRequest=8 presence_stats:PresenceStatsRequest=9
                     history:HistoryRequest=10 ping:PingRequest=11 send:SendRequest=12 rpc:RPCRequest=13
                     refresh:RefreshRequest=14 sub_refresh:SubRefreshRequest=15
Reply                id:uint32=1 error:Error=2 push:Push=4 connect:ConnectResult=5 subscribe:SubscribeResult=6
                     unsubscribe:UnsubscribeResult=7 publish:PublishResult=8 presence:PresenceResult=9
                     presence_stats:PresenceStatsResult=10 history:HistoryResult=11 ping:PingResult=12
                     rpc:RPCResult=13 refresh:RefreshResult=14 sub_refresh:SubRefreshResult=15
Push                 channel:string=2 pub:Publication=4 join:Join=5 leave:Leave=6 unsubscribe:Unsubscribe=7
                     message:Message=8 subscribe:Subscribe=9 connect:ConnectResult=10 disconnect:Disconnect=11
                     refresh:Refresh=12
ClientInfo           user:string=1 client:string=2 conn_info:bytes=3 chan_info:bytes=4
Publication          data:bytes=4 info:ClientInfo=5 offset:uint64=6 tags:[string]=7 delta:bool=8 time:int64=9
Join                 info:ClientInfo=1
Leave                info:ClientInfo=1
Unsubscribe          code:uint32=2 reason:string=3
Subscribe            recoverable:bool=1 epoch:string=4 offset:uint64=5 positioned:bool=6 data:bytes=7
Message              data:bytes=1
Disconnect           code:uint32=1 reason:string=2 reconnect:bool=3
Refresh              expires:bool=1 ttl:uint32=2
ConnectRequest       token:string=1 data:bytes=2 subs:[SubscribeRequest]=3 name:string=4 version:string=5
                     headers:[string]=6
ConnectResult        client:string=1 version:string=2 expires:bool=3 ttl:uint32=4 data:bytes=5 subs:[SubscribeResult]=6
                     ping:uint32=7 pong:bool=8 session:string=9 node:string=10 time:int64=11
RefreshRequest       token:string=1
RefreshResult        client:string=1 version:string=2 expires:bool=3 ttl:uint32=4
SubscribeRequest     channel:string=1 token:string=2 recover:bool=3 epoch:string=6 offset:uint64=7 data:bytes=8
                     positioned:bool=9 recoverable:bool=10 join_leave:bool=11 delta:string=12 tf:FilterNode=13
                     flag:int64=14 type:int32=15
SubscribeResult      expires:bool=1 ttl:uint32=2 recoverable:bool=3 epoch:string=6 publications:Publication*=7
                     recovered:bool=8 offset:uint64=9 positioned:bool=10 data:bytes=11 was_recovering:bool=12
                     delta:bool=13
SubRefreshRequest    channel:string=1 token:string=2 type:int32=3
SubRefreshResult     expires:bool=1 ttl:uint32=2
UnsubscribeRequest   channel:string=1
UnsubscribeResult
PublishRequest       channel:string=1 data:bytes=2 type:int32=3
PublishResult
PresenceRequest      channel:string=1
PresenceResult       presence:[ClientInfo]=1
PresenceStatsRequest channel:string=1
PresenceStatsResult  num_clients:uint32=1 num_users:uint32=2
StreamPosition       offset:uint64=1 epoch:string=2
HistoryRequest       channel:string=1 limit:int32=7 since:StreamPosition=8 reverse:bool=9
HistoryResult        publications:Publication*=1 epoch:string=2 offset:uint64=3
PingRequest
PingResult
RPCRequest           data:bytes=1 method:string=2
RPCResult            data:bytes=1
SendRequest          data:bytes=1
FilterNode
"""

_Field = descriptor_pb2.FieldDescriptorProto


def _file() -> Any:
    """Return the table above as what a Protobuf compiler would have made of client.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="stentor/centrifuge.proto", package=_PACKAGE, syntax="proto3")
    message = None
    for line in _MESSAGES.splitlines():
        words = line.split()
        if words and not line.startswith(" "):
            message = file.message_type.add(name=words.pop(0))
        for word in words:
            _add_field(message, word)
    return file


def _add_field(message: Any, word: str) -> None:
    name, _, rest = word.partition(":")
    kind, _, number = rest.partition("=")
    if kind.startswith("["):
        entry = message.nested_type.add(name=name.title().replace("_", "") + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key:string=1")
        _add_field(entry, f"value:{kind[1:-1]}=2")
        kind = f"{message.name}.{entry.name}*"
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.endswith("*"):
        field.label = _Field.LABEL_REPEATED
        kind = kind[:-1]
    if kind.islower():
        field.type = getattr(_Field, "TYPE_" + kind.upper())
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


_pool: Final = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Command: Final = _message("Command")
Reply: Final = _message("Reply")
Publication: Final = _message("Publication")
