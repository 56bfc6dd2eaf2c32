"""The Python SDK, told what to do: orders come in on standard input and what happens goes out, a JSON object a line.

An order is `{"id", "client", "do", …}` and gets one answer, `{"id", "result"}` or `{"id", "error"}`. What a client
lives to see is `{"of", "event", …}`. With the argument `protobuf` the SDK speaks Protobuf; payloads are JSON in
either case. The words are those of client.js.
"""

import asyncio
import json
import sys
from functools import partial

from centrifuge import (
    Client,
    ClientEventHandler,
    DeltaType,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

PROTOBUF = "protobuf" in sys.argv[1:]
ATTRIBUTES = ("channel", "code", "reason", "recovered", "was_recovering")


def say(**what):
    print(json.dumps(what), flush=True)


def encoded(value):
    return json.dumps(value).encode() if PROTOBUF else value


def decoded(data):
    return (json.loads(data) if data else None) if PROTOBUF else data


def person(info):
    return {
        "client": info.client,
        "user": info.user,
        "conn_info": decoded(info.conn_info),
        "chan_info": decoded(info.chan_info),
    }


def publication(pub):
    said = {"data": decoded(pub.data), "offset": pub.offset, "tags": dict(pub.tags or {})}
    return said | ({"info": person(pub.info)} if pub.info else {})


def described(context):
    said = {name: getattr(context, name) for name in ATTRIBUTES if hasattr(context, name)}
    if hasattr(context, "client"):
        said["client"] = context.client
    if hasattr(context, "error"):
        said["code"] = getattr(context.error, "code", context.code)
    if getattr(context, "stream_position", None):
        said |= {"offset": context.stream_position.offset, "epoch": context.stream_position.epoch}
    if hasattr(context, "pub"):
        said |= publication(context.pub)
    if hasattr(context, "info"):
        said |= person(context.info)
    if hasattr(context, "data"):
        said["data"] = decoded(context.data)
    return said


class Person:
    """One client, and the orders that it takes."""

    def __init__(self, name, order):
        self.name = name
        self.deltas = 0
        self.client = Client(
            order["url"],
            self.ears(ClientEventHandler()),
            token=order.get("token", ""),
            get_token=self.giver(order.get("tokens")),
            use_protobuf=PROTOBUF,
            max_server_ping_delay=order.get("ping_delay", 10),
            min_reconnect_delay=order.get("reconnect_delay", 0.05),
            max_reconnect_delay=2 * order.get("reconnect_delay", 0.1),
            proxy=None,
        )

    def ears(self, handler, **known):
        """Make a handler tell of everything that it is called for."""
        for name in [name for name in dir(handler) if name.startswith("on_")]:
            setattr(handler, name, partial(self.hear, name.removeprefix("on_"), known))
        return handler

    async def hear(self, event, known, context):
        if event == "publication":
            self.deltas += context.pub.delta
        say(of=self.name, event=event, **known | described(context))

    def giver(self, tokens, **known):
        """Hand out `tokens`, one each time the SDK asks for one."""
        if tokens is None:
            return None

        async def give(*_):
            say(of=self.name, event="token wanted", **known)
            return tokens.pop(0)

        return give

    async def connect(self, order):
        await self.client.connect()

    async def disconnect(self, order):
        await self.client.disconnect()

    async def subscribe(self, order):
        channel = order["channel"]
        subscription = self.client.get_subscription(channel) or self.client.new_subscription(
            channel,
            self.ears(SubscriptionEventHandler(), channel=channel),
            token=order.get("token", ""),
            get_token=self.giver(order.get("tokens"), channel=channel),
            join_leave=order.get("join_leave", False),
            delta=DeltaType.FOSSIL if order.get("delta") else None,
            max_resubscribe_delay=0.2,
        )
        await subscription.subscribe()

    async def unsubscribe(self, order):
        await self.client.get_subscription(order["channel"]).unsubscribe()

    async def publish(self, order):
        await self.client.publish(order["channel"], encoded(order["data"]))

    async def presence(self, order):
        present = await self.client.presence(order["channel"])
        return {client: person(info) for client, info in present.clients.items()}

    async def presence_stats(self, order):
        stats = await self.client.presence_stats(order["channel"])
        return {"clients": stats.num_clients, "users": stats.num_users}

    async def history(self, order):
        since = StreamPosition(**order["since"]) if order.get("since") else None
        stream = await self.client.history(order["channel"], order["limit"], since, order["reverse"])
        publications = [publication(pub) for pub in stream.publications]
        return {"offset": stream.offset, "epoch": stream.epoch, "publications": publications}

    async def rpc(self, order):
        return decoded((await self.client.rpc(order["method"], encoded(order["data"]))).data)

    async def count_deltas(self, order):
        return self.deltas


async def obey(people, order):
    name, wanted = order["client"], order["do"]
    if wanted == "connect" and name not in people:
        people[name] = Person(name, order)
    try:
        result = await getattr(people[name], wanted)(order)
        say(id=order["id"], result=result)
    except ReplyError as error:
        say(id=order["id"], error=error.code)
    except Exception as error:  # whatever it is, a test waits for the answer
        say(id=order["id"], error=repr(error))


async def main():
    people, tasks = {}, set()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = asyncio.create_task(obey(people, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
