"""Bytes become documents, or an error that names what was wrong."""

from __future__ import annotations

import pytest

from controlplane.errors import InvalidInput, MalformedRequest
from handlers.schemas import CREDENTIALS, INSTANCE_LIST, INSTANCE_REGISTRATION
from handlers.validation import parse_json_object

REGISTRATION = {
    "kind": "game",
    "name": "Oakvale",
    "vmid": 101,
    "address": "127.0.0.1",
    "port": 9000,
    "token": "0123456789abcdef",
    "ownerId": "usr_1",
}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff\xfe", "not_utf8"),
        (b'{"a": "\xc3"}', "not_utf8"),
        (b"{", "not_json"),
        (b"NaN", "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
def test_what_is_not_a_json_object_is_malformed(raw: bytes, code: str) -> None:
    with pytest.raises(MalformedRequest) as refused:
        parse_json_object(raw)
    assert refused.value.stable_code == code


@pytest.mark.parametrize("value", [{"$gt": ""}, ["a@b"], 1, True, None])
def test_what_is_no_string_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        CREDENTIALS.validate({"email": value, "password": "p"})
    assert set(refused.value.fields) == {"email"}


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        CREDENTIALS.validate({"email": "a@b", "admin": True})
    assert refused.value.fields == {"admin": ["unknown field"], "password": ["required field"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vmid", 99),
        ("vmid", True),
        ("vmid", "101"),
        ("vmid", 101.5),
        ("port", 0),
        ("port", 65536),
        ("kind", "vm"),
        ("name", ""),
        ("name", "   "),
        ("name", "a\nb"),
        ("token", "short"),
        ("token", "with spaces in it, and long"),
        ("token", "unprintable\r\n0123456789"),
        ("https", "true"),
    ],
)
def test_a_registration_with_a_wrong_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        INSTANCE_REGISTRATION.validate({**REGISTRATION, field: value})
    assert set(refused.value.fields) == {field}


def test_defaults_are_filled_in() -> None:
    document = INSTANCE_REGISTRATION.validate(REGISTRATION)
    assert (document["https"], document["idePort"]) == (False, 8080)


def test_query_arguments_are_read_by_their_schema() -> None:
    assert INSTANCE_LIST.parse({"limit": [b"7"], "ready": [b"true"]}) == {"limit": 7, "ready": "true"}
    assert INSTANCE_LIST.parse({}) == {"limit": 50}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": [b"many"]}, "limit"),
        ({"limit": [b"0"]}, "limit"),
        ({"limit": [b"201"]}, "limit"),
        ({"limit": [b"1", b"2"]}, "limit"),
        ({"ready": [b"maybe"]}, "ready"),
        ({"after": [b"\xff"]}, "after"),
        ({"sort": [b"name"]}, "sort"),
    ],
)
def test_a_wrong_query_argument_is_refused_by_name(arguments: dict[str, list[bytes]], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        INSTANCE_LIST.parse(arguments)
    assert set(refused.value.fields) == {field}
