"""Header fields on their way between a browser and a web app in a workspace, cleaned in both directions. Pure.

The app is code of a customer: it must see none of our secrets (it may hand them on), and must not speak for the origin
that it shares with others. What it says about its own content (validators, encodings, caching) is left alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from controlplane.auth.authenticator import API_KEY_PREFIX
from controlplane.auth.tokens import ISSUER
from controlplane.ide.cookies import TOKEN_PARAMETER, is_own_cookie, take_token, without_own_cookies

Fields = Iterable[tuple[str, str]]

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-authentication-info",
     "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)  # fmt: skip
"""RFC 9110 section 7.6.1, and what was called so before it."""

_NOT_TO_THE_APP = HOP_BY_HOP | {"host", "content-length", "expect", "forwarded", "x-real-ip", "x-request-id"}
_NOT_FROM_THE_APP = HOP_BY_HOP | {"alt-svc", "x-sendfile"}
_ORIGIN_WIDE = frozenset(
    ("clear-site-data", "strict-transport-security", "public-key-pins", "public-key-pins-report-only", "report-to",
     "reporting-endpoints", "nel", "origin-agent-cluster", "accept-ch", "critical-ch", "expect-ct")
)  # fmt: skip
"""What speaks for a whole origin; in path mode that origin is the API's."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Route:
    """How one request comes and goes. `host` is the browser's Host exactly, `prefix` the path before the app's own
    (empty in host mode), `client` the address of whoever asks."""

    scheme: str
    host: str
    prefix: str
    client: str
    request_id: str


def request_head(method: str, target: str, fields: Fields, route: Route, framing: str) -> bytes:
    """The head of the request to the app. `framing` is what else stands in it: of a body or of an upgrade, with CR LF.

    No `Forwarded`: code-server reads its `host=` without taking off the quotes that a port makes necessary.
    """
    given = list(fields)
    dropped = _NOT_TO_THE_APP | _nominated(given)
    lines = [f"{method} {target} HTTP/1.1", f"Host: {route.host}"]
    for name, value in given:
        lower = name.lower()
        if lower in dropped or lower.startswith("x-forwarded-"):
            continue
        kept = _kept_value(lower, value)
        if kept is not None:
            lines.append(f"{name}: {kept}")
    lines += [
        f"X-Forwarded-For: {route.client}",
        f"X-Forwarded-Host: {route.host}",
        f"X-Forwarded-Proto: {route.scheme}",
        f"X-Request-Id: {route.request_id}",
    ]
    if route.prefix:
        lines.append(f"X-Forwarded-Prefix: {route.prefix}")
    return ("\r\n".join(lines) + "\r\n" + framing + "\r\n").encode("latin-1")


def _kept_value(name: str, value: str) -> str | None:
    if name == "cookie":
        return without_own_cookies(value) or None
    if name == "authorization":
        return None if is_own_credential(value) else value
    if name == "referer" and TOKEN_PARAMETER in value:
        return take_token(value)[1]
    return value


def is_own_credential(authorization: str) -> bool:
    """An API key or an access token of ours, valid or not. The app's own credentials pass."""
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer":
        return False
    if token.startswith(API_KEY_PREFIX):
        return True
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(claims, dict) and claims.get("iss") == ISSUER


def response_fields(fields: Fields, route: Route) -> list[tuple[str, str]]:
    """The app's answer as the browser may see it. Framing and connection are the server's own."""
    given = list(fields)
    dropped = _NOT_FROM_THE_APP | (_nominated(given) - {"content-length"})
    if route.prefix:
        dropped |= _ORIGIN_WIDE
    kept: list[tuple[str, str]] = []
    for name, value in given:
        lower = name.lower()
        if lower in dropped or lower.startswith(("access-control-", "x-accel-")) or _CONTROL.search(value):
            continue
        seen = _seen_value(lower, value, route)
        if seen is not None:
            kept.append((name, seen))
    kept.append(("Content-Security-Policy", "frame-ancestors 'self'"))  # beside the app's own: both must hold
    return kept


def _seen_value(name: str, value: str, route: Route) -> str | None:
    if name == "set-cookie":
        return rewritten_cookie(value, route.prefix)
    if name in ("location", "content-location") and route.prefix:
        return rewritten_location(value, route)
    if name == "service-worker-allowed" and route.prefix:
        return f"{route.prefix}/"  # never a path of the app's: one with dots in it leads out
    return value


def rewritten_cookie(value: str, prefix: str) -> str | None:
    """Without Domain, and with its Path below the prefix. None for a cookie that would take the place of ours."""
    pair, *attributes = value.split(";")
    name, equals, _ = pair.partition("=")
    # Without a "=" the whole is the value of a cookie without a name, which servers read as that cookie all the same.
    if is_own_cookie(name if equals else pair) or (not name.strip() and is_own_cookie(pair.lstrip(" =").split("=")[0])):
        return None
    kept = [pair]
    for attribute in attributes:
        key, _, given = attribute.partition("=")
        lower = key.strip().lower()
        if lower == "domain":
            continue
        if lower == "path" and prefix:
            attribute = f" Path={_below(given.strip(), prefix)}"
        kept.append(attribute)
    return ";".join(kept)


def rewritten_location(value: str, route: Route) -> str:
    """In path mode: a path of the app's origin lies below the prefix. Relative ones are right as they are."""
    if value.startswith("/") and not value.startswith("//"):
        return _below(value, route.prefix)
    try:
        parts = urlsplit(value)
    except ValueError:
        return value
    if parts.scheme in ("http", "https") and parts.netloc.lower() == route.host.lower():
        rest = value.partition("://")[2][len(parts.netloc) :]
        return _below(rest if rest.startswith("/") else f"/{rest}", route.prefix)
    return value


def _below(path: str, prefix: str) -> str:
    if path == prefix or path.startswith((f"{prefix}/", f"{prefix}?", f"{prefix}#")):
        return path
    return prefix + (path if path.startswith("/") else "/")


def _nominated(fields: Fields) -> set[str]:
    """What Connection names is for this hop alone, except what says whose request it is."""
    named = {
        token.strip().lower() for name, value in fields if name.lower() == "connection" for token in value.split(",")
    }
    return named - {"cookie", "origin", "set-cookie", "content-security-policy"}
