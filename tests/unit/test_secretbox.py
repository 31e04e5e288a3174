"""Sealed secrets open only with their key, in their place, unchanged."""

from __future__ import annotations

import pytest

from controlplane.errors import StorageDamaged
from controlplane.secretbox import SecretBox

KEY = bytes(range(32))


def test_what_was_sealed_opens_again() -> None:
    box = SecretBox(KEY)
    assert box.open(box.seal(b"agent token", "instance:gs_1"), "instance:gs_1") == b"agent token"


def test_a_sealed_secret_does_not_show_its_text() -> None:
    assert b"agent token" not in SecretBox(KEY).seal(b"agent token", "instance:gs_1")


@pytest.mark.parametrize("place", ["instance:gs_2", ""])
def test_a_secret_copied_to_another_record_does_not_open(place: str) -> None:
    box = SecretBox(KEY)
    with pytest.raises(StorageDamaged):
        box.open(box.seal(b"agent token", "instance:gs_1"), place)


def test_another_key_does_not_open_and_the_setting_is_named() -> None:
    sealed = SecretBox(KEY).seal(b"agent token", "instance:gs_1")
    with pytest.raises(StorageDamaged, match="CREDENTIALS_KEY"):
        SecretBox(bytes(32)).open(sealed, "instance:gs_1")


@pytest.mark.parametrize("sealed", [b"", b"x", b"x" * 12, b"x" * 40])
def test_damaged_ciphertext_is_an_error_of_ours(sealed: bytes) -> None:
    with pytest.raises(StorageDamaged):
        SecretBox(KEY).open(sealed, "instance:gs_1")


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SecretBox(b"short")
