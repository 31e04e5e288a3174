"""Who may open a websocket: the rule of code-server, which a proxy has to satisfy.

Host and port of `Origin` must be those that the browser asked for: of `Forwarded: host=` where there is one, else the
first of `X-Forwarded-Host`, else `Host`. The scheme does not count, a missing Origin passes, `null` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit


def is_same_origin(headers: Mapping[str, str]) -> bool:
    origin = headers.get("Origin")
    if origin is None:
        return True
    return urlsplit(origin).netloc.lower() == asked_host(headers).lower()


def asked_host(headers: Mapping[str, str]) -> str:
    for element in headers.get("Forwarded", "").split(",")[0].split(";"):
        name, _, value = element.partition("=")
        if name.strip().lower() == "host":
            return value.strip().strip('"')
    return headers.get("X-Forwarded-Host", "").split(",")[0].strip() or headers.get("Host", "")
