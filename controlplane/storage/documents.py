"""Small pieces of records as BSON. Free-form details are kept as JSON text.

As text nothing in them is taken for an operator, and no key or number is beyond what BSON holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from controlplane.models import Suspension
from controlplane.storage.database import Document

_Scalar = TypeVar("_Scalar", str, int)


def exact(value: _Scalar) -> _Scalar:
    """A value that a filter compares by equality. Raises TypeError for anything that could be an operator."""
    if not isinstance(value, (str, int)):
        raise TypeError(f"a filter takes text or a number here, not {type(value).__name__}")
    return value


def from_detail(detail: Mapping[str, Any]) -> str:
    return json.dumps(dict(detail), separators=(",", ":"))


def to_detail(text: str) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(text)
    return detail


def from_suspension(suspension: Suspension | None) -> Document | None:
    return None if suspension is None else {"reason": suspension.reason, "since": suspension.since}


def to_suspension(document: Document | None) -> Suspension | None:
    return None if document is None else Suspension(document["reason"], document["since"])
