"""Which of a browser's requests an IDE may be asked, cookie or not. Pure.

Sibling IDEs are same-site, so that SameSite does not tell them apart, and below the API's host they even share an
origin: what a page may do to another IDE is decided by exact Origin and by what the browser says of its request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.errors import Forbidden
from controlplane.ide.targets import host_name, is_loopback

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class Approach:
    """How a request comes. `scheme` and `host` are what the browser has in its address bar."""

    method: str
    scheme: str
    host: str
    is_upgrade: bool
    headers: Mapping[str, str]

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def is_navigation(self) -> bool:
        """A page is being opened: only then is there somebody to read one. Old browsers say so by Accept alone."""
        if self.method != "GET" or self.is_upgrade:
            return False
        mode = self.headers.get("Sec-Fetch-Mode")
        return mode == "navigate" or (mode is None and "text/html" in self.headers.get("Accept", ""))

    @property
    def may_exchange(self) -> bool:
        """Tokens are exchanged where an address is opened, and never by a script, a resource or a websocket."""
        is_opened = self.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        return self.method == "GET" and not self.is_upgrade and is_opened


def check_approach(approach: Approach) -> None:
    """Raises Forbidden: `https_required`, `origin_refused` or `cross_site_refused`."""
    if not approach.is_secure and not is_loopback(host_name(approach.host) or ""):
        raise Forbidden(
            "An IDE is served over HTTPS. If a proxy in between speaks it, it must say so (TRUSTED_PROXIES, "
            "X-Forwarded-Proto).",
            code="https_required",
        )
    headers = approach.headers
    if approach.is_upgrade or approach.method not in SAFE_METHODS:
        origin = headers.get("Origin")
        if origin is None or origin.lower() != f"{approach.scheme}://{approach.host.lower()}":
            raise Forbidden("This may be asked by a page of this IDE alone.", code="origin_refused")
    if headers.get("Sec-Fetch-Site") in ("same-site", "cross-site") and headers.get("Sec-Fetch-Mode") != "navigate":
        raise Forbidden("This may not be asked by a page of another site.", code="cross_site_refused")
