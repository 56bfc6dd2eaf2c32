"""The broker between machines, over one Redis or several (6.2 or later), or a Redis Cluster (7 or later)."""

from server.brokers.redis.address import Address, AddressError, parse
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.link import Backoff
from server.brokers.redis.shard import Pace

__all__ = ["Address", "AddressError", "Backoff", "Pace", "RedisBroker", "parse"]
