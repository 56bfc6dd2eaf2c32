"""Server-to-client WebSocket frames as wire bytes: encoded once per publication, shared by every subscriber.

Laws: what comes out is exactly ``bytes`` (uvloop's fast path takes no subclass), unmasked, unfragmented, with no
extension bits; so one frame is right for every connection, and frames may be joined into one write.
Knows nothing of channels, clients or dialects. RFC 6455, section 5.2.
"""

from struct import pack
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80


def encode_frame(opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
    """Encode one final, unmasked frame.

    `opcode` is one of the constants above; `payload` at most 125 bytes for the control frames. RFC 6455, section 5.2.
    """
    size = len(payload)
    if size < 126:
        header = pack("!BB", _FIN | opcode, size)
    elif size < 65536:
        header = pack("!BBH", _FIN | opcode, 126, size)
    else:
        header = pack("!BBQ", _FIN | opcode, 127, size)
    return header + payload
