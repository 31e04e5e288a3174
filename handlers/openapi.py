"""The OpenAPI 3.1 description, computed from the route table: the table cannot disagree with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane import __version__
from handlers.routing import Access, Endpoint, Route
from handlers.validation import Schema

_TYPES = {"string": "string", "integer": "integer", "boolean": "boolean", "list": "array", "dict": "object"}


@dataclass(frozen=True, slots=True)
class Description:
    document: dict[str, Any]
    json: bytes


def describe(routes: Iterable[Route]) -> Description:
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(route.template, {})
        for method, endpoint in route.endpoints.items():
            operations[method.lower()] = _merge(operations.get(method.lower()), _operation(route, endpoint))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "controlplane",
            "version": __version__,
            "description": "Game servers and dev containers: state, power, console, accounts and administration.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error", "code", "details", "requestId"],
                    "properties": {
                        "error": {"type": "string"},
                        "code": {"type": "string"},
                        "details": {},
                        "requestId": {"type": "string"},
                    },
                }
            },
        },
    }
    return Description(document, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _merge(known: dict[str, Any] | None, operation: dict[str, Any]) -> dict[str, Any]:
    """Two rows may share a template when their words differ (suspend, unsuspend): the words are united."""
    if known is None:
        return operation
    for old, new in zip(known["parameters"], operation["parameters"], strict=True):
        words = old["schema"].get("enum", [])
        old["schema"].update({"enum": words + new["schema"].get("enum", [])} if words else {})
    known["summary"] += f" · {operation['summary']}"
    return known


def _operation(route: Route, endpoint: Endpoint) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", **({"enum": list(words)} if words else {})},
        }
        for name, words in route.parameters.items()
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": _json_schema(rule)}
        for name, rule in endpoint.query.schema.items()
    ]
    if endpoint.idempotent:
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}})
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {
            str(endpoint.success): {"description": "Done"},
            "default": {
                "description": "An error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
        "security": [] if endpoint.access is Access.PUBLIC else [{"bearer": []}],
        "x-access": endpoint.access.value,
    }
    if endpoint.scope is not None:
        operation["x-scope"] = str(endpoint.scope)
    if endpoint.raw_body:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    if endpoint.body.schema:
        operation["requestBody"] = {
            "required": not endpoint.body.empty,
            "content": {"application/json": {"schema": _object_schema(endpoint.body.schema)}},
        }
    return operation


def _object_schema(schema: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, rule in schema.items() if rule.get("required")],
        "properties": {name: _json_schema(rule) for name, rule in schema.items()},
    }


def _json_schema(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON Schema can say of a Cerberus rule."""
    kind = _TYPES[rule["type"]]
    schema: dict[str, Any] = {"type": [kind, "null"] if rule.get("nullable") else kind}
    if "allowed" in rule:
        schema["enum"] = list(rule["allowed"])
    if "default" in rule:
        schema["default"] = rule["default"]
    if "regex" in rule:
        schema["pattern"] = f"^{rule['regex']}$"
    for ours, theirs in (("min", "minimum"), ("max", "maximum")):
        if ours in rule:
            schema[theirs] = rule[ours]
    for ours, theirs in (("minlength", "minItems"), ("maxlength", "maxItems")):
        if ours in rule:
            schema[theirs if kind == "array" else theirs.replace("Items", "Length")] = rule[ours]
    if "schema" in rule:
        schema["items"] = _json_schema(rule["schema"])
    return schema
