"""Stripe's nested forms, and what is no such form."""

from __future__ import annotations

import pytest

from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.wire import decode


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("items[0][price]=p&items[1][price]=q", {"items": {"0": {"price": "p"}, "1": {"price": "q"}}}),
        ("expand[]=x&expand[]=y", {"expand": {"0": "x", "1": "y"}}),
        ("metadata[a%20b]=%C3%A9+c", {"metadata": {"a b": "é c"}}),
        ("items%5B0%5D%5Bprice%5D=p", {"items": {"0": {"price": "p"}}}),
    ],
)
def test_forms_become_trees(encoded: str, expected: object) -> None:
    assert decode(encoded) == expected


@pytest.mark.parametrize(
    "encoded",
    ["a", "a=1&a=2", "a=1&a[b]=2", "a[b]=1&a=2", "[a]=1", "a[b=1", "a]=1", "a[1][2][3][4][5][6][7]=1", "=1", "a&b"],
)
def test_what_is_no_form_is_refused(encoded: str) -> None:
    with pytest.raises(StripeFault):
        decode(encoded)


def test_a_form_of_too_many_fields_is_refused() -> None:
    with pytest.raises(StripeFault):
        decode("&".join(f"a{number}=1" for number in range(2000)))
