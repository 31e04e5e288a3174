"""What a row of the route table says: the path, the handler, and for each method who may call it with what.

The rows are the single source for authorization, validation, the OpenAPI description and the tests that walk them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import tornado.web

from handlers.validation import NO_BODY, NO_QUERY, BodySchema, QuerySchema


class Access(Enum):
    """Who may call. An API key also needs the endpoint's scope; where there is none, only a login session will do."""

    PUBLIC = "public"
    ACCOUNT = "account"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one route. `idempotent` honours the Idempotency-Key header, `raw_body` is a file's bytes."""

    access: Access
    summary: str
    scope: str | None = None
    body: BodySchema = NO_BODY
    query: QuerySchema = NO_QUERY
    success: int = 200
    idempotent: bool = False
    raw_body: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is written as OpenAPI writes it: `{name}` for one segment, `{name:a|b}` for one of these words.

    `{name:*}` at the end takes all segments that are left.
    """

    path: str
    handler: type[tornado.web.RequestHandler]
    endpoints: Mapping[str, Endpoint]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Bounded label for metrics and logs: the path's template."""
        return self.path

    @property
    def parameters(self) -> dict[str, tuple[str, ...]]:
        """The names of the path's parameters, each with the words it may be (none: any one segment)."""
        found: dict[str, tuple[str, ...]] = {}
        for segment in self.path.split("/"):
            if segment.startswith("{"):
                name, _, words = segment[1:-1].partition(":")
                found[name] = tuple(words.split("|")) if words and words != "*" else ()
        return found

    @property
    def template(self) -> str:
        """The path with plain `{name}` parameters."""
        return "/".join(
            "{" + segment[1:-1].partition(":")[0] + "}" if segment.startswith("{") else segment
            for segment in self.path.split("/")
        )

    @property
    def pattern(self) -> str:
        """The regular expression that Tornado matches."""
        return "/".join(_segment_pattern(segment) for segment in self.path.split("/"))


def _segment_pattern(segment: str) -> str:
    if not segment.startswith("{"):
        return re.escape(segment)
    name, _, words = segment[1:-1].partition(":")
    return f"(?P<{name}>{'.+' if words == '*' else words or '[^/]+'})"
