"""Frames: what is built is parsed again, and what breaks the protocol is named."""

from __future__ import annotations

import pytest

from controlplane.proxying.frames import (
    PING,
    TEXT,
    CloseCode,
    ProtocolViolation,
    accept_value,
    accepts_deflate,
    build_frame,
    close_payload,
    deflate,
    inflate,
    parse_close,
    parse_frame,
)

KEY = b"\x01\x02\x03\x04"


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_frame_is_parsed_as_it_was_built_and_not_before_it_is_whole(size: int, key: bytes | None) -> None:
    payload = bytes(number % 251 for number in range(size))
    data = build_frame(TEXT, payload, key=key)
    for end in {0, 1, len(data) // 2, len(data) - 1}:
        assert parse_frame(data[:end], 0, masked=key is not None, limit_bytes=1 << 20) is None
    frame = parse_frame(b"??" + data + b"more", 2, masked=key is not None, limit_bytes=1 << 20)
    assert frame is not None
    assert (frame.opcode, frame.payload, frame.end) == (TEXT, payload, 2 + len(data))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x91\x00", CloseCode.PROTOCOL_ERROR),  # a reserved bit
        (b"\x83\x00", CloseCode.PROTOCOL_ERROR),  # an unknown opcode
        (b"\x81\x80" + KEY, CloseCode.PROTOCOL_ERROR),  # masked by a server
        (b"\x09\x00", CloseCode.PROTOCOL_ERROR),  # a control frame in parts
        (b"\xc9\x00", CloseCode.PROTOCOL_ERROR),  # a compressed control frame
        (b"\x89\x7e\x00\x80", CloseCode.PROTOCOL_ERROR),  # a long control frame
        (b"\x81\x7f" + b"\xff" * 8, CloseCode.PROTOCOL_ERROR),  # a length beyond 63 bits
        (b"\x81\x7e\x03\xe9", CloseCode.TOO_BIG),  # refused by its header, before a byte of it came
        (b"\x81\x7f" + (5 << 30).to_bytes(8, "big"), CloseCode.TOO_BIG),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_its_code(data: bytes, code: CloseCode) -> None:
    with pytest.raises(ProtocolViolation) as refused:
        parse_frame(data, 0, masked=False, limit_bytes=1000)
    assert refused.value.code is code


def test_an_unmasked_frame_of_a_client_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        parse_frame(build_frame(PING, b""), 0, masked=True, limit_bytes=1000)


@pytest.mark.parametrize("code", [1000, 1003, 1012, 3000, 4408, 4999])
def test_a_close_code_goes_there_and_back(code: int) -> None:
    assert parse_close(close_payload(code, "why")) == code


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed", b"\x03\xee", b"\x07\xd0", b"\x13\x88"])
def test_a_close_code_that_may_not_be_sent_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_close(payload)


def test_a_close_frame_holds_as_much_of_the_reason_as_fits() -> None:
    payload = close_payload(4408, "ü" * 200)
    assert len(payload) <= 125
    assert set(payload[2:].decode()) == {"ü"}


def test_what_was_deflated_is_inflated_up_to_the_limit() -> None:
    payload = b"line\n" * 10_000
    assert len(deflate(payload)) < 1000
    assert inflate(deflate(payload), len(payload)) == payload
    with pytest.raises(ProtocolViolation) as refused:
        inflate(deflate(payload), len(payload) - 1)
    assert refused.value.code is CloseCode.TOO_BIG
    with pytest.raises(ProtocolViolation):
        inflate(b"\xff\xff\xff", 100)


@pytest.mark.parametrize(
    ("offers", "is_accepted"),
    [
        ("permessage-deflate", True),
        ("permessage-deflate; client_max_window_bits", True),
        ("x-other, permessage-deflate; client_max_window_bits=10", True),
        ("permessage-deflate; server_max_window_bits=8", False),
        ("x-webkit-deflate-frame", False),
        ("", False),
    ],
)
def test_an_offer_of_compression_is_taken_where_it_can_be_honoured(offers: str, is_accepted: bool) -> None:
    assert accepts_deflate(offers) is is_accepted


def test_the_example_of_the_rfc() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
