"""Shape at the border: bytes to JSON to a document that a Cerberus schema allows. Invariants belong to the services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import cerberus
import orjson

from controlplane.errors import InvalidInput, MalformedRequest

Schema = Mapping[str, Mapping[str, Any]]


class _Validator(cerberus.Validator):  # type: ignore[misc]
    """Cerberus, with sentences that name what is allowed. Booleans are no integers here.

    Checks are called for values of a wrong type too (the `type` rule reports those), so each passes them over.
    """

    types_mapping: ClassVar[dict[str, cerberus.TypeDefinition]] = {
        **cerberus.Validator.types_mapping,
        "integer": cerberus.TypeDefinition("integer", (int,), (bool,)),
    }

    def _check_with_one_line(self, field: str, value: object) -> None:
        if isinstance(value, str) and any(character in value for character in "\r\n\0"):
            self._error(field, "must be one line, without control characters")

    def _check_with_visible(self, field: str, value: object) -> None:
        if isinstance(value, str) and not (value.strip() and value.isprintable()):
            self._error(field, "must hold visible characters only")

    def _check_with_moment(self, field: str, value: object) -> None:
        """RFC 3339 with its offset."""
        if not isinstance(value, str):
            return
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self._error(field, "must be a time such as 2026-01-31T12:00:00Z")

    def _check_with_header_safe(self, field: str, value: object) -> None:
        if isinstance(value, str) and not (value.isascii() and value.isprintable() and " " not in value):
            self._error(field, "must be ASCII without spaces, since it travels in a header")


class BodySchema:
    """A compiled schema. `empty` allows no body at all, read as `{}`."""

    def __init__(self, schema: Schema, *, empty: bool = False) -> None:
        self.schema = schema
        self.empty = empty
        # Compiled once, since that costs more than the check itself; refuses a schema that is itself wrong, at import.
        self._validator = _Validator(dict(schema), allow_unknown=False)
        self._nulls = [name for name, rule in schema.items() if "default" in rule and not rule.get("nullable")]

    def validate(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The document with defaults filled in. Raises InvalidInput that names each wrong field."""
        # Cerberus would take a null for absence and fill in the default.
        if refused := {name: ["null value not allowed"] for name in self._nulls if document.get(name, ...) is None}:
            raise InvalidInput(refused)
        validator = self._validator
        if not validator.validate(dict(document)):
            raise InvalidInput(_flatten(validator.errors))
        normalized: dict[str, Any] = validator.document
        return normalized


NO_BODY = BodySchema({}, empty=True)


class QuerySchema:
    """A compiled schema for query arguments, whose rules may `coerce`. No arguments at all is the common case."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._body = BodySchema(schema)
        self._needed = {name: ["is needed"] for name, rule in schema.items() if rule.get("required")}
        self._defaults = {} if self._needed else self._body.validate({})

    def parse(self, arguments: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
        """Raises InvalidInput for unknown or repeated names, and for what the schema refuses."""
        if not arguments:
            if self._needed:
                raise InvalidInput(self._needed)
            return dict(self._defaults)
        fields: dict[str, list[str]] = {}
        document: dict[str, Any] = {}
        for name, values in arguments.items():
            if len(values) > 1:
                fields[name] = ["is given more than once"]
                continue
            try:
                document[name] = values[0].decode("utf-8")
            except UnicodeDecodeError:
                fields[name] = ["is not UTF-8"]
        if fields:
            raise InvalidInput(fields)
        return self._body.validate(document)


NO_QUERY = QuerySchema({})


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Raises MalformedRequest for what is not UTF-8, not JSON or not an object."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"The body is not UTF-8: byte {error.start} cannot be read.", code="not_utf8") from error
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(f"The body is not JSON: {error}.", code="not_json") from error
    if not isinstance(document, dict):
        raise MalformedRequest("The body must be a JSON object.", code="not_an_object")
    return document


def _flatten(tree: Mapping[Any, Sequence[Any]], prefix: str = "") -> dict[str, list[str]]:
    flat: dict[str, list[str]] = {}
    for key, problems in tree.items():
        name = f"{prefix}{key}"
        for problem in problems:
            if isinstance(problem, Mapping):
                flat.update(_flatten(problem, f"{name}."))
            else:
                flat.setdefault(name, []).append(str(problem))
    return flat
