"""Stripe's description of its API (OpenAPI 3.0), made into JSON Schema that a validator can judge answers with.

OpenAPI 3.0 differs from JSON Schema in `nullable`. A field that can be expanded is described as `anyOf` of an id and of
the object, so both are accepted, each in full: nothing of the description is left out but its prose.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FORM = "application/x-www-form-urlencoded"


class Description:
    def __init__(self, file: Path) -> None:
        self.spec: dict[str, Any] = _with_nulls(json.loads(file.read_text()))

    @cached_property
    def _registry(self) -> Registry[Any]:
        resource = Resource.from_contents(self.spec, default_specification=DRAFT202012)
        registry: Registry[Any] = Registry().with_resource("stripe:spec", resource)
        return registry

    def problem(self, answer: Any, schema: dict[str, Any]) -> str | None:
        """What is wrong with an answer, or None."""
        validator = Draft202012Validator(_absolute(schema), registry=self._registry)
        error: ValidationError | None = best_match(validator.iter_errors(answer))
        return None if error is None else f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"

    def object_schema(self, kind: str, *, deleted: bool = False) -> dict[str, Any]:
        """The schema of an object by its `object` field."""
        name = f"deleted_{kind}" if deleted else kind
        assert name in self.spec["components"]["schemas"], name
        return {"$ref": f"#/components/schemas/{name}"}

    def response_schema(self, method: str, path: str, status: int) -> dict[str, Any]:
        """The schema of the answer to a request for this concrete path."""
        responses = self.spec["paths"][self.template(method, path)][method.lower()]["responses"]
        answer = responses.get(str(status), responses["default"])
        schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
        return schema

    def template(self, method: str, path: str) -> str:
        """The described path that this one is an instance of; one without placeholders is preferred."""
        found = [
            template
            for template, methods in self.spec["paths"].items()
            if method.lower() in methods and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
        ]
        assert found, f"Stripe describes no {method} {path}"
        return str(min(found, key=lambda template: template.count("{")))

    def parameters(self, method: str, template: str) -> dict[str, Any]:
        """The schemas of a call's parameters by name, whether they go into the query or the form."""
        call = self.spec["paths"][template][method.lower()]
        query = {one["name"]: one["schema"] for one in call.get("parameters", []) if one["in"] == "query"}
        form = call.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
        return {**query, **form.get("properties", {})}


def _with_nulls(part: Any) -> Any:
    """`nullable: true` allows null beside what the schema says, also where that is an enum, `anyOf` or a reference."""
    if isinstance(part, list):
        return [_with_nulls(one) for one in part]
    if not isinstance(part, dict):
        return part
    converted = {name: _with_nulls(value) for name, value in part.items() if name != "nullable"}
    return {"anyOf": [converted, {"type": "null"}]} if part.get("nullable") is True else converted


def _absolute(part: Any) -> Any:
    """References of a schema that was cut out of the description lead back into it."""
    if isinstance(part, list):
        return [_absolute(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: f"stripe:spec{value}" if name == "$ref" and isinstance(value, str) else _absolute(value)
        for name, value in part.items()
    }
