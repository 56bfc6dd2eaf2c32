"""The raw dialect: what a client sends is broadcast, byte for byte; text stays text, binary stays binary.

No envelope, no commands, one channel per connection. Knows neither sockets nor channels.
"""


def is_text(payload: bytes | bytearray) -> bool:
    """Tell if a text message is what RFC 6455, section 8.1, lets it be: valid UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
