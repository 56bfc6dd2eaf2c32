"""The raw dialect: what a client sends is broadcast, byte for byte; text stays text, binary stays binary.

No envelope, no commands, one channel per connection. Knows neither sockets nor channels.
"""

import orjson

from server.core.frames import BINARY, TEXT, encode_frame


def is_text(payload: bytes | bytearray) -> bool:
    """Tell if a text message is what RFC 6455, section 8.1, lets it be: valid UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def encode_data(data: object) -> bytes:
    """Encode what the server API was given as ``data`` (any JSON value) into the frame that raw subscribers get.

    A JSON string reaches them as its text, any other value as its JSON. Raises TypeError for what JSON can't hold.
    """
    return encode_frame(TEXT, data.encode() if isinstance(data, str) else orjson.dumps(data))


def encode_binary(data: bytes) -> bytes:
    """Encode what the server API was given as ``b64data``, decoded, into a binary frame."""
    return encode_frame(BINARY, data)
