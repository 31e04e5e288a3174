"""What an agent's JSON may become: bounded, finite, printable, storable."""

from __future__ import annotations

import orjson
import pytest

from controlplane.agents.documents import DETAIL_LIMIT_BYTES, MAX_KEYS, bounded_detail, parse_object


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'"x"', b"1", b"null", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff{}",
     b'{"a": "\\ud800"}', '{"a": 1}'.encode("utf-16"), b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000],
)  # fmt: skip
def test_what_is_not_a_json_object_is_none(body: bytes) -> None:
    assert parse_object(body) is None


def test_keys_that_a_database_would_take_for_operators_are_renamed() -> None:
    assert bounded_detail({"$where": 1, "a.b": 2, "c\0d": 3, "": 4}) == {"_where": 1, "a_b": 2, "c d": 3, "_": 4}


def test_numbers_are_finite_and_exact_or_floats() -> None:
    detail = bounded_detail({"big": 2**63, "small": -(2**60), "fine": 2**53, "inf": float("inf"), "yes": True})
    assert detail == {"big": float(2**63), "small": float(-(2**60)), "fine": 2**53, "inf": None, "yes": True}
    assert isinstance(detail["big"], float)


def test_strings_are_one_printable_bounded_line() -> None:
    detail = bounded_detail({"motd": "a\x1b[31mred\r\nb" + "x" * 1000})
    assert detail["motd"].isprintable()
    assert len(detail["motd"]) <= 500


def test_depth_and_width_are_bounded() -> None:
    detail = bounded_detail({"deep": {"a": {"b": {"c": {"d": 1}}}}, "wide": list(range(1000))})
    assert detail["deep"] == {"a": {"b": {"c": None}}}
    assert len(detail["wide"]) == 64


def test_what_is_left_out_is_said() -> None:
    by_size = bounded_detail({f"k{number}": "x" * 400 for number in range(60)})
    assert by_size["truncated"] is True
    assert len(orjson.dumps(by_size)) <= DETAIL_LIMIT_BYTES + 20
    by_number = bounded_detail({f"k{number}": number for number in range(1000)})
    assert by_number["truncated"] is True
    assert len(by_number) == MAX_KEYS + 1
