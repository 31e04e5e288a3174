"""Declares what a call accepts and reads it: an unknown, missing or ill-typed parameter is refused as Stripe does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.wire import Tree

MAX_TEXT = 5000
MAX_METADATA_KEYS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 50, 40, 500


class Kind(Protocol):
    """One parameter's type: turns what came over the wire into a value."""

    def read(self, given: str | Tree, param: str) -> Any:
        """Raises StripeFault that names `param`."""


@dataclass(frozen=True, slots=True)
class Text:
    def read(self, given: str | Tree, param: str) -> str:
        value = _scalar(given, param)
        if not value:
            raise StripeFault(
                f"You passed an empty string for '{param}', which cannot be unset.",
                code="parameter_invalid_empty",
                param=param,
            )
        if len(value) > MAX_TEXT:
            raise StripeFault(f"Invalid string: {param} is longer than {MAX_TEXT} characters", param=param)
        return value


@dataclass(frozen=True, slots=True)
class Number:
    low: int = -(1 << 62)
    high: int = 1 << 62

    def read(self, given: str | Tree, param: str) -> int:
        value = _scalar(given, param)
        try:
            number = int(value)
        except ValueError:
            raise StripeFault(f"Invalid integer: {value}", code="parameter_invalid_integer", param=param) from None
        if not self.low <= number <= self.high:
            raise StripeFault(f"Invalid {param}: must be between {self.low} and {self.high}", param=param)
        return number


@dataclass(frozen=True, slots=True)
class Flag:
    def read(self, given: str | Tree, param: str) -> bool:
        value = _scalar(given, param)
        if value not in ("true", "false"):
            raise StripeFault(f"Invalid boolean: {value}", param=param)
        return value == "true"


@dataclass(frozen=True, slots=True)
class Choice:
    values: tuple[str, ...]

    def read(self, given: str | Tree, param: str) -> str:
        value = _scalar(given, param)
        if value not in self.values:
            raise StripeFault(f"Invalid {param}: must be one of {', '.join(self.values)}", param=param)
        return value


@dataclass(frozen=True, slots=True)
class Metadata:
    """At most 50 keys of 40 characters with values of 500. An empty value unsets its key, "" for the whole all of them:
    that is read as None, and applied by the caller."""

    def read(self, given: str | Tree, param: str) -> dict[str, str] | None:
        if given == "":
            return None
        if isinstance(given, str):
            raise StripeFault("Invalid hash", param=param)
        pairs = {key: _scalar(value, f"{param}[{key}]") for key, value in given.items()}
        if len(pairs) > MAX_METADATA_KEYS:
            raise StripeFault(f"Metadata can have up to {MAX_METADATA_KEYS} keys.", param=param)
        for key, value in pairs.items():
            if len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
                raise StripeFault(f"Metadata {key!r} is too long.", param=f"{param}[{key}]")
        return pairs


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Kind
    most: int = 100

    def read(self, given: str | Tree, param: str) -> list[Any]:
        if isinstance(given, str) or not all(key.isdigit() for key in given):
            raise StripeFault("Invalid array", param=param)
        if len(given) > self.most:
            raise StripeFault(f"Array {param} exceeded maximum {self.most} allowed elements.", param=param)
        return [self.item.read(given[key], f"{param}[{key}]") for key in sorted(given, key=int)]


@dataclass(frozen=True, slots=True)
class Group:
    fields: Mapping[str, Kind]
    required: frozenset[str] = field(default_factory=frozenset)

    def read(self, given: str | Tree, param: str) -> dict[str, Any]:
        if isinstance(given, str):
            raise StripeFault("Invalid object", param=param)
        return _read(self.fields, self.required, given, param)


@dataclass(frozen=True, slots=True)
class Clearable:
    """An empty string unsets: it is read as None."""

    inner: Kind

    def read(self, given: str | Tree, param: str) -> Any:
        return None if given == "" else self.inner.read(given, param)


@dataclass(frozen=True, slots=True)
class ValueOrGroup:
    """A plain value or a hash, as `created` and `created[gte]`."""

    value: Kind
    group: Group

    def read(self, given: str | Tree, param: str) -> Any:
        return (self.value if isinstance(given, str) else self.group).read(given, param)


def read_parameters(fields: Mapping[str, Kind], required: frozenset[str], given: Tree) -> dict[str, Any]:
    """The parameters of one call; what was not given is not there."""
    return _read(fields, required, given, "")


def _read(fields: Mapping[str, Kind], required: frozenset[str], given: Tree, above: str) -> dict[str, Any]:
    for name in given:
        if name not in fields:
            param = _below(above, name)
            raise StripeFault(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)
    for name in sorted(required - given.keys()):
        param = _below(above, name)
        raise StripeFault(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return {name: fields[name].read(value, _below(above, name)) for name, value in given.items()}


def _below(above: str, name: str) -> str:
    return f"{above}[{name}]" if above else name


def _scalar(given: str | Tree, param: str) -> str:
    if not isinstance(given, str):
        raise StripeFault("Invalid string", param=param)
    return given
