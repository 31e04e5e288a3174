"""The IDE's cookie and the query parameter that is exchanged for it: their names, and how they are read. Pure.

The parameter is not called `tkn`: VS Code takes that for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote_plus

from controlplane.models import IdeMode

TOKEN_PARAMETER = "ide_token"  # noqa: S105 - a parameter's name
HOST_COOKIE = "__Host-cp-ide"
PATH_COOKIE = "__Secure-cp-ide"
PLAIN_COOKIE = "cp-ide"
COOKIE_NAMES = frozenset({HOST_COOKIE, PATH_COOKIE, PLAIN_COOKIE})
_FOLDED_NAMES = frozenset(name.lower() for name in COOKIE_NAMES)
COOKIES_LOOKED_AT = 4


def cookie_name(mode: IdeMode, *, secure: bool) -> str:
    """Prefixes bind a cookie to TLS and, in host mode, to its host; plain names are for plain HTTP on loopback alone.

    https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis section 4.1.3.
    """
    if not secure:
        return PLAIN_COOKIE
    return HOST_COOKIE if mode is IdeMode.HOST else PATH_COOKIE


def is_own_cookie(name: str) -> bool:
    """Browsers compare the prefixes without regard to case."""
    return name.strip().lower() in _FOLDED_NAMES


def set_cookie(mode: IdeMode, secret: str, prefix: str, *, secure: bool, seconds: int) -> str:
    """The value of Set-Cookie. Lax, since the tab is opened from the dashboard, which may be another site."""
    path = "/" if mode is IdeMode.HOST else f"{prefix}/"
    flags = "; Secure" if secure else ""
    return f"{cookie_name(mode, secure=secure)}={secret}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{flags}"


def read_cookies(header: str, name: str) -> list[str]:
    """Every value under this name, the first few: a page of the workspace can set others beside ours."""
    return [value for each, value in _pairs(header) if each == name][:COOKIES_LOOKED_AT]


def without_own_cookies(header: str) -> str:
    return "; ".join(pair.strip() for pair in header.split(";") if not is_own_cookie(pair.partition("=")[0]))


def take_token(target: str) -> tuple[str | None, str]:
    """The token in a path's query, and the same path and query without it. An encoded name is the same name."""
    path, question, query = target.partition("?")
    if not question:
        return None, target
    token = None
    kept = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if unquote_plus(name) == TOKEN_PARAMETER:
            token = unquote_plus(value)
        else:
            kept.append(part)
    if token is None:
        return None, target
    return token, f"{path}?{'&'.join(kept)}" if any(kept) else path


def _pairs(header: str) -> Iterator[tuple[str, str]]:
    for pair in header.split(";"):
        name, _, value = pair.partition("=")
        yield name.strip(), value.strip()
