"""WebSocket frames (RFC 6455 section 5) and the compression of whole messages (RFC 7692). Pure: bytes in, bytes out.

Connections and their order of events are `websocket.py`'s.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from enum import IntEnum
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
CONTROL_LIMIT_BYTES = 125
DEFLATE_EXTENSION = "permessage-deflate"
DEFLATE_ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""Without context takeover a message compressed once serves every viewer, and no window is kept for any."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DEFLATE_TAIL = b"\x00\x00\xff\xff"


class CloseCode(IntEnum):
    """RFC 6455 section 7.4, and this service's own (docs/api.md, "Console websocket")."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    RESTARTING = 1012
    AGENT_UNAVAILABLE = 1013
    NOT_AUTHENTICATED = 4401
    NOT_PERMITTED = 4403
    TOO_SLOW = 4408
    SUSPENDED = 4409
    TOO_MANY = 4429


class ProtocolViolation(Exception):
    """The peer broke the protocol; `code` is what the connection is closed with."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """`end` is where the next frame begins in the buffer. `payload` is unmasked."""

    is_final: bool
    is_compressed: bool
    opcode: int
    payload: bytes
    end: int

    @property
    def is_control(self) -> bool:
        return self.opcode >= CLOSE


def parse_frame(data: bytes | bytearray, at: int, *, masked: bool, limit_bytes: int) -> Frame | None:
    """The frame that begins at `at`, or None while it is incomplete. Raises ProtocolViolation.

    `masked` is whether the peer must mask: a client does, a server does not (section 5.1).
    """
    if len(data) - at < 2:
        return None
    first, second = data[at], data[at + 1]
    opcode = first & 0x0F
    is_final = bool(first & 0x80)
    if first & 0x30 or opcode not in _KNOWN:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "reserved bits or an unknown opcode")
    if bool(second & 0x80) != masked:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "frames are masked by clients, and by them alone")
    header = _parse_length(data, at, second & 0x7F)
    if header is None:
        return None
    length, start = header
    if opcode >= CLOSE and (length > CONTROL_LIMIT_BYTES or not is_final or first & 0x40):
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a control frame is short, whole and not compressed")
    if length > limit_bytes:
        raise ProtocolViolation(CloseCode.TOO_BIG, f"a message may have {limit_bytes} bytes")
    key = b""
    if masked:
        key = bytes(data[start : start + 4])
        start += 4
    end = start + length
    if len(data) < end:
        return None
    payload = bytes(data[start:end])
    return Frame(is_final, bool(first & 0x40), opcode, mask(payload, key) if masked else payload, end)


def _parse_length(data: bytes | bytearray, at: int, short: int) -> tuple[int, int] | None:
    """The payload's length and where the header goes on; None while that is incomplete."""
    if short < 126:
        return short, at + 2
    size = 2 if short == 126 else 8
    if len(data) - at < 2 + size:
        return None
    length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
    if length >> 63:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "the length has its highest bit set")
    return length, at + 2 + size


def mask(payload: bytes, key: bytes) -> bytes:
    """XOR with the repeated key (section 5.3); its own inverse."""
    size = len(payload)
    repeated = key * (size // 4 + 1)
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated[:size], "little")).to_bytes(size, "little")


def build_frame(opcode: int, payload: bytes, *, key: bytes | None = None, is_compressed: bool = False) -> bytes:
    """One whole frame. `key` masks it, as a client must."""
    first = 0x80 | opcode | (0x40 if is_compressed else 0)
    bit = 0 if key is None else 0x80
    size = len(payload)
    if size < 126:
        header = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        header = struct.pack("!BBH", first, bit | 126, size)
    else:
        header = struct.pack("!BBQ", first, bit | 127, size)
    return header + payload if key is None else header + key + mask(payload, key)


def close_payload(code: int, reason: str) -> bytes:
    return struct.pack("!H", code) + reason.encode()[: CONTROL_LIMIT_BYTES - 2].decode("utf-8", "ignore").encode()


def parse_close(payload: bytes) -> int:
    """The peer's close code. Raises ProtocolViolation for one that may not be sent (section 7.4)."""
    if not payload:
        return CloseCode.NO_STATUS
    if len(payload) == 1:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a close code has two bytes")
    (code,) = struct.unpack("!H", payload[:2])
    if code < 1000 or code in (1004, 1005, 1006, 1015) or 1016 <= code < 3000 or code >= 5000:
        raise ProtocolViolation(CloseCode.PROTOCOL_ERROR, f"{code} is no close code")
    return int(code)


def accept_value(key: str) -> str:
    """`Sec-WebSocket-Accept` for a client's key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


def deflate(payload: bytes) -> bytes:
    """RFC 7692 section 7.2.1, with no context before it."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_DEFLATE_TAIL)


def inflate(payload: bytes, limit_bytes: int) -> bytes:
    """Raises ProtocolViolation for what is no deflate stream, or grows beyond the limit."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = decompressor.decompress(payload + _DEFLATE_TAIL, limit_bytes + 1)
    except zlib.error as error:
        raise ProtocolViolation(CloseCode.INVALID_TEXT, "the compressed message cannot be read") from error
    if len(data) > limit_bytes:
        raise ProtocolViolation(CloseCode.TOO_BIG, f"a message may have {limit_bytes} bytes")
    return data


def accepts_deflate(offers: str) -> bool:
    """Whether the client's `Sec-WebSocket-Extensions` holds an offer that DEFLATE_ANSWER may answer.

    RFC 7692 section 7.1: an offer that limits the server's window could not be honoured by zlib at 8 bits, and is left.
    """
    for offer in offers.split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        if name == DEFLATE_EXTENSION and not any(each.startswith("server_max_window_bits") for each in parameters):
            return True
    return False
