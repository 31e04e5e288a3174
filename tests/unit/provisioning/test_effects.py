"""What machines are called."""

from __future__ import annotations

import re

import pytest

from controlplane.provisioning.effects import hostname
from tests.unit.provisioning.test_machine import operation

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Oakvale", "oakvale-0123456789abcdef"),
        ("  Ada's 2nd Server! ", "ada-s-2nd-server-0123456789abcdef"),
        ("Ærø", "r-0123456789abcdef"),
        ("森の城", "gs-0123456789abcdef"),
        ("-" * 100, "gs-0123456789abcdef"),
        ("x" * 39 + " " + "y" * 60, "x" * 39 + "-0123456789abcdef"),
        ("a.evil.example; rm -rf /", "a-evil-example-rm-rf-0123456789abcdef"),
    ],
)
def test_a_hostname_is_a_label_made_of_the_name_and_unique_by_the_id(name: str, expected: str) -> None:
    made = hostname(operation(name=name, instance_id="gs_0123456789abcdef"))
    assert made == expected
    assert LABEL.fullmatch(made)
