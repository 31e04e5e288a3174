"""Stripe's request encoding: `items[0][price]=…` in a form or a query becomes nested dicts of strings.

Lists stay dicts keyed by their index (or by position for `expand[]`): only the parameter's declaration knows which of
the two was meant.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import parse_qsl

from controlplane.demo.fake_stripe.faults import StripeFault

Tree: TypeAlias = "dict[str, str | Tree]"

MAX_FIELDS = 1000
MAX_DEPTH = 6
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SEGMENT = re.compile(r"\[([^\[\]]*)\]")


def decode(encoded: str) -> Tree:
    """Raises StripeFault for what is not such a form."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, strict_parsing=bool(encoded), max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise StripeFault("Unable to parse the request's form.") from error
    tree: Tree = {}
    for name, value in pairs:
        _put(tree, name, value)
    return tree


def _put(tree: Tree, name: str, value: str) -> None:
    found = _NAME.fullmatch(name)
    segments = [found[1], *_SEGMENT.findall(found[2])] if found else []
    if not segments or len(segments) > MAX_DEPTH:
        raise StripeFault(f"Invalid parameter name: {name}", param=name)
    place = tree
    for segment in segments[:-1]:
        below = place.setdefault(segment or str(len(place)), {})
        if isinstance(below, str):
            raise StripeFault(f"Invalid hash: {name}", param=name)
        place = below
    last = segments[-1] or str(len(place))
    if last in place:
        raise StripeFault(f"Parameter given twice: {name}", param=name)
    place[last] = value
