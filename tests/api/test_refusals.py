"""Every route refuses what it must. The tests walk the route table, so that a new route cannot be forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from controlplane.auth.api_keys import Scope
from controlplane.models import InstanceKind, Principal
from controlplane.storage.database import Database
from handlers.app import ROUTES
from handlers.routing import Access, Endpoint, Route
from tests.api_house import JWT_SECRET, Answer, ApiHouse

pytestmark = pytest.mark.timeout(180)

OPERATOR = {"$gt": ""}
SAMPLES: dict[str, Any] = {
    "email": "somebody@example.org",
    "scopes": ["instances:read"],
    "url": "https://hooks.example/in",
    "events": ["instance.ready"],
    "address": "127.0.0.1",
    "token": "a-token-of-sixteen-and-more",
    "command": "help",
    "proratedAt": "2026-01-31T12:00:00Z",
}


def rows() -> Iterator[tuple[Route, str, Endpoint]]:
    for route in ROUTES:
        for method, endpoint in route.endpoints.items():
            yield route, method, endpoint


def paths(route: Route, values: Mapping[str, str]) -> str:
    """The route's path with its parameters filled in, of several words the first, and the query that it needs."""
    segments = []
    for segment in route.template.split("/"):
        name = segment[1:-1] if segment.startswith("{") else None
        words = route.parameters.get(name, ()) if name else ()
        segments.append(segment if name is None else words[0] if words else values.get(name, "missing"))
    needed = {
        name: str(sample_value(name, rule))
        for endpoint in route.endpoints.values()
        for name, rule in endpoint.query.schema.items()
        if rule.get("required")
    }
    return "/".join(segments) + (f"?{urlencode(needed)}" if needed else "")


def sample_value(name: str, rule: Mapping[str, Any]) -> Any:
    if name in SAMPLES:
        return SAMPLES[name]
    if "allowed" in rule:
        return rule["allowed"][0]
    return {
        "string": "x" * max(1, rule.get("minlength", 1)),
        "integer": rule.get("min", 1),
        "boolean": True,
    }[rule["type"]]


def sample(endpoint: Endpoint) -> dict[str, Any] | None:
    """A body that the endpoint's schema allows; None where it takes no body."""
    if not endpoint.body.schema:
        return None
    return {name: sample_value(name, rule) for name, rule in endpoint.body.schema.items()}


def takes_json(method: str, endpoint: Endpoint) -> bool:
    """A file's raw bytes have no form that could be wrong; their limits are in test_uploads.py."""
    return method != "GET" and not endpoint.raw_body


def label(method: str, route: Route) -> str:
    return f"{method} {route.path}"


def caller(house: ApiHouse, endpoint: Endpoint) -> str | None:
    if endpoint.access is Access.PUBLIC:
        return None
    return house.root_token if endpoint.access is Access.ADMIN else house.ada_token


async def assert_all(expected: int, answers: dict[str, Answer], code: str | None = None) -> None:
    wrong = {
        name: (answer.status, answer.raw[:200])
        for name, answer in answers.items()
        if answer.status != expected or (code is not None and answer.code != code)
    }
    assert not wrong
    assert answers, "the walk went past no route"
    for answer in answers.values():
        assert set(answer.body) == {"error", "code", "details", "requestId"}
        assert answer.headers["X-Request-Id"] == answer.body["requestId"]


def bad_tokens() -> dict[str, tuple[str, str]]:
    now = int(time.time())
    good = {
        "iss": "controlplane", "aud": "controlplane-api", "typ": "access", "sub": "usr_1", "sid": "ses_1", "iat": now,
        "exp": now + 3600,
    }  # fmt: skip

    def sign(secret: str = JWT_SECRET, algorithm: str = "HS256", **changes: Any) -> str:
        return jwt.encode({**good, **changes}, secret, algorithm=algorithm)

    return {
        "garbage": ("x.y.z", "token_invalid"),
        "another secret": (sign("q" + JWT_SECRET), "token_invalid"),
        "unsigned": (sign("", "none"), "token_invalid"),
        "of another type": (sign(typ="ide"), "token_invalid"),
        "for somebody else": (sign(aud="elsewhere"), "token_invalid"),
        "expired": (sign(exp=now - 1), "token_expired"),
        "of no session": (sign(), "session_revoked"),
        "an unknown API key": ("cpk_" + "a" * 43, "token_invalid"),
    }


@pytest.mark.gen_test(timeout=120)
async def test_every_route_that_is_not_public_wants_a_valid_token(database: Database) -> None:
    async with ApiHouse(database) as house:
        guarded = [row for row in rows() if row[2].access is not Access.PUBLIC]
        answers = {
            label(method, route): await house.call(method, paths(route, {}), sample(endpoint))
            for route, method, endpoint in guarded
        }
        await assert_all(401, answers, "token_missing")
        assert all(answer.headers["WWW-Authenticate"] == "Bearer" for answer in answers.values())
        for name, (token, code) in bad_tokens().items():
            answers = {
                f"{label(method, route)} with a token {name}": await house.call(
                    method, paths(route, {}), sample(endpoint), token=token
                )
                for route, method, endpoint in guarded
            }
            await assert_all(401, answers, code)


@pytest.mark.gen_test(timeout=60)
async def test_other_schemes_are_no_bearer_token(database: Database) -> None:
    async with ApiHouse(database) as house:
        for value in (f"Basic {house.ada_token}", house.ada_token, "Bearer", "Bearer ", "Bearer \xe4"):
            answer = await house.call("GET", "/api/auth/me", headers={"Authorization": value})
            assert answer.status == 401, value


@pytest.mark.gen_test(timeout=60)
async def test_admin_routes_refuse_customers(database: Database) -> None:
    async with ApiHouse(database) as house:
        answers = {
            label(method, route): await house.call(method, paths(route, {}), sample(endpoint), token=house.ada_token)
            for route, method, endpoint in rows()
            if endpoint.access is Access.ADMIN
        }
        await assert_all(403, answers, "forbidden")


@pytest.mark.gen_test(timeout=60)
async def test_a_foreign_instance_looks_exactly_like_a_missing_one(database: Database) -> None:
    async with ApiHouse(database) as house:
        foreign = {
            InstanceKind.GAME: await house.instance(house.bob),
            InstanceKind.DEV: await house.instance(house.bob, kind=InstanceKind.DEV),
        }
        seen: dict[str, Answer] = {}
        for route, method, endpoint in rows():
            if endpoint.access is not Access.ACCOUNT or "instance_id" not in route.parameters:
                continue
            kind = InstanceKind.DEV if route.path.startswith("/api/dev") else InstanceKind.GAME
            answers = []
            for reference in (foreign[kind].id, str(foreign[kind].vmid), "gs_0000000000000000", "999"):
                answer = await house.call(
                    method,
                    paths(route, {"instance_id": reference}),
                    sample(endpoint),
                    token=house.ada_token,
                    headers={"X-Request-Id": "same"},
                )
                seen[f"{label(method, route)} {reference}"] = answer
                answers.append(answer.raw)
            assert len(set(answers)) == 1, route.path
        await assert_all(404, seen, "not_found")


@pytest.mark.gen_test(timeout=60)
async def test_an_instance_of_the_other_kind_is_missing(database: Database) -> None:
    async with ApiHouse(database) as house:
        game = await house.instance(house.ada)
        dev = await house.instance(house.ada, kind=InstanceKind.DEV)
        assert (await house.call("GET", f"/api/dev/{game.id}", token=house.ada_token)).status == 404
        assert (await house.call("GET", f"/api/game/servers/{dev.vmid}", token=house.ada_token)).status == 404
        assert (await house.call("GET", f"/api/dev/{dev.vmid}", token=house.ada_token)).status == 200


@pytest.mark.gen_test(timeout=60)
async def test_foreign_sessions_and_keys_are_missing(database: Database) -> None:
    async with ApiHouse(database) as house:
        session = (await house.call("GET", "/api/auth/sessions", token=house.bob_token)).body["items"][0]
        body = {"name": "ci", "scopes": ["instances:read"]}
        key = (await house.call("POST", "/api/auth/api-keys", body, token=house.bob_token)).body
        for target in (f"/api/auth/sessions/{session['id']}", f"/api/auth/api-keys/{key['id']}"):
            assert (await house.call("DELETE", target, token=house.ada_token)).code == "not_found"
            assert (await house.call("DELETE", target + "x", token=house.ada_token)).code == "not_found"
        assert (await house.call("GET", "/api/game/servers", token=key["secret"])).status == 200


@pytest.mark.gen_test(timeout=120)
async def test_every_body_refuses_unknown_keys_wrong_types_and_operators(database: Database) -> None:
    async with ApiHouse(database) as house:
        unknown: dict[str, Answer] = {}
        wrong: dict[str, Answer] = {}
        missing: dict[str, Answer] = {}
        for route, method, endpoint in rows():
            if not takes_json(method, endpoint):
                continue
            target, token = paths(route, {}), caller(house, endpoint)
            name = label(method, route)
            body = sample(endpoint) or {}
            answer = await house.call(method, target, {**body, "surprise": 1}, token=token)
            unknown[name] = answer
            assert answer.body["details"]["fields"] == {"surprise": ["unknown field"]}, name
            for field, rule in endpoint.body.schema.items():
                for value in _wrong_values(rule):
                    answer = await house.call(method, target, {**body, field: value}, token=token)
                    wrong[f"{name} {field}={value!r}"] = answer
                    assert any(each.split(".")[0] == field for each in answer.body["details"]["fields"]), name
                if rule.get("required"):
                    short = {key: value for key, value in body.items() if key != field}
                    missing[f"{name} without {field}"] = await house.call(method, target, short, token=token)
        await assert_all(422, unknown, "validation_failed")
        await assert_all(422, wrong, "validation_failed")
        await assert_all(422, missing, "validation_failed")


def _wrong_values(rule: Mapping[str, Any]) -> list[Any]:
    wrong: list[Any] = [OPERATOR, [OPERATOR], 1.5]
    if not rule.get("nullable"):
        wrong.append(None)
    if rule["type"] != "boolean":
        wrong.append(True)
    if rule["type"] != "integer":
        wrong.append(7)
    if rule["type"] != "string":
        wrong.append("text")
    else:
        wrong += ["", "x" * 5000]
    return wrong


@pytest.mark.gen_test(timeout=60)
async def test_every_body_refuses_what_cannot_be_read(database: Database) -> None:
    unreadable = {
        "not UTF-8": (b'{"a": "\xff"}', "not_utf8"),
        "not JSON": (b'{"a": 1', "not_json"),
        "NaN": (b'{"a": NaN}', "not_json"),
        "half a surrogate": (b'{"a": "\\ud800"}', "not_json"),
        "nested": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not_json"),
        "a list": (b"[]", "not_an_object"),
        "a string": (b'"x"', "not_an_object"),
    }
    async with ApiHouse(database) as house:
        for name, (raw, code) in unreadable.items():
            answers = {
                f"{label(method, route)} with {name}": await house.call(
                    method, paths(route, {}), raw=raw, token=caller(house, endpoint)
                )
                for route, method, endpoint in rows()
                if takes_json(method, endpoint)
            }
            await assert_all(400, answers, code)


@pytest.mark.gen_test(timeout=60)
async def test_every_body_refuses_other_media_types_and_absence(database: Database) -> None:
    async with ApiHouse(database) as house:
        form: dict[str, Answer] = {}
        absent: dict[str, Answer] = {}
        for route, method, endpoint in rows():
            if not takes_json(method, endpoint):
                continue
            target, token = paths(route, {}), caller(house, endpoint)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            form[label(method, route)] = await house.call(method, target, raw=b"a=1", token=token, headers=headers)
            if endpoint.body.schema and not endpoint.body.empty:
                absent[label(method, route)] = await house.call(method, target, token=token)
        await assert_all(415, form, "unsupported_media_type")
        await assert_all(400, absent, "body_missing")


@pytest.mark.gen_test(timeout=120)
async def test_every_route_refuses_an_oversized_body(database: Database) -> None:
    raw = b'{"a": "' + b"x" * (1 << 20) + b'"}'
    async with ApiHouse(database) as house:
        answers = {
            label(method, route): await house.call(method, paths(route, {}), raw=raw, token=caller(house, endpoint))
            for route, method, endpoint in rows()
            if takes_json(method, endpoint)
        }
        await assert_all(413, answers, "payload_too_large")


@pytest.mark.gen_test(timeout=60)
async def test_every_route_refuses_unknown_and_repeated_query_arguments(database: Database) -> None:
    async with ApiHouse(database) as house:
        answers = {}
        for route, method, endpoint in rows():
            path = paths(route, {})
            for query in ("surprise=1", "limit=1&limit=2", "limit=%ff", "limit[$gt]="):
                answers[f"{label(method, route)} {query}"] = await house.call(
                    method,
                    f"{path}{'&' if '?' in path else '?'}{query}",
                    sample(endpoint),
                    token=caller(house, endpoint),
                )
        await assert_all(422, answers, "validation_failed")


@pytest.mark.gen_test(timeout=60)
async def test_every_route_names_the_methods_it_has(database: Database) -> None:
    async with ApiHouse(database) as house:
        for route in ROUTES:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "PROPFIND"):
                if method in route.endpoints:
                    continue
                answer = await house.call(method, paths(route, {}))
                assert answer.status == 405, (method, route.path, answer.status)
                if method in ("PUT", "PATCH"):
                    assert set(answer.headers["Allow"].split(", ")) == {*route.endpoints, "OPTIONS"}


@pytest.mark.gen_test(timeout=60)
async def test_an_api_key_does_what_its_scope_says_and_nothing_else(database: Database) -> None:
    async with ApiHouse(database) as house:
        root = Principal(house.root.id, house.root.email, house.root.role, "ses_1")
        created = await house.services.api_keys.create(root, "ci", [Scope.ACCOUNT_READ], expires_in_days=1)
        seen: dict[str, str] = {}
        for route, method, endpoint in rows():
            if endpoint.access is Access.PUBLIC or endpoint.scope is Scope.ACCOUNT_READ:
                continue
            answer = await house.call(method, paths(route, {}), sample(endpoint), token=created.secret)
            assert answer.status == 403, label(method, route)
            seen[label(method, route)] = answer.code
            assert answer.code == ("session_required" if endpoint.scope is None else "scope_missing")
        assert {"session_required", "scope_missing"} == set(seen.values())
        assert (await house.call("GET", "/api/auth/me", token=created.secret)).status == 200


@pytest.mark.gen_test(timeout=60)
async def test_unknown_paths_are_not_found_in_the_envelope(database: Database) -> None:
    async with ApiHouse(database) as house:
        for target in ("/api", "/api/game/servers/", "/api/game/servers/x/explode", "/%2e%2e/etc/passwd", "/api/%00"):
            answer = await house.call("GET", target, token=house.ada_token)
            await assert_all(404, {target: answer}, "not_found")


def test_every_route_has_a_row_that_says_who_may_call() -> None:
    for route, method, endpoint in rows():
        assert endpoint.summary, label(method, route)
        assert method in ("GET", "POST", "PATCH", "DELETE")
        if method == "GET":
            assert not endpoint.body.schema
