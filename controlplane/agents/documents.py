"""What an agent's JSON is allowed to become: strict to parse, bounded in size and depth, safe to store. Pure.

Agents are not trusted: a customer may own the machine that one runs in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

MAX_DEPTH = 4
MAX_KEYS = 64
MAX_ITEMS = 64
MAX_KEY_CHARACTERS = 64
MAX_STRING_CHARACTERS = 500
DETAIL_LIMIT_BYTES = 8 << 10
_SAFE_INTEGER = 2**53  # RFC 8259 section 6: beyond it JSON readers disagree; BSON ends at 2**63


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body`; None for anything else: HTML, half a document, a list, NaN, other charsets."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def bounded_detail(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that is fit to store and to show: finite numbers, printable bounded keys and strings, bounded depth.

    Keys are taken in order until DETAIL_LIMIT_BYTES are used; what was left out is said by `truncated: true`.
    """
    kept: dict[str, Any] = {}
    used = 0
    for key, value in document.items():
        name = bounded_key(key)
        safe = bounded_value(value)
        used += len(name) + len(orjson.dumps(safe)) + 4
        if used > DETAIL_LIMIT_BYTES or len(kept) >= MAX_KEYS:
            kept["truncated"] = True
            break
        kept[name] = safe
    return kept


def bounded_value(value: Any, depth: int = 1) -> Any:
    if isinstance(value, str):
        return bounded_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return bounded_number(value)
    if depth >= MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [bounded_value(item, depth + 1) for item in value[:MAX_ITEMS]]
    if isinstance(value, dict):
        items = list(value.items())[:MAX_KEYS]
        return {bounded_key(key): bounded_value(item, depth + 1) for key, item in items}
    return None


def bounded_number(value: float) -> float | None:
    """None for what is not finite; integers that not every reader holds exactly become floats."""
    if isinstance(value, int):
        return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else float(value)
    return value if math.isfinite(value) else None


def bounded_text(text: str, limit: int = MAX_STRING_CHARACTERS) -> str:
    """One printable line."""
    if len(text) <= limit and text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text[:limit]).strip()


def bounded_key(key: str) -> str:
    """A key that a document database takes for a plain field: no operators, no paths, no NUL."""
    return bounded_text(key, MAX_KEY_CHARACTERS).replace(".", "_").replace("$", "_") or "_"
