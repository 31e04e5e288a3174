"""What a request's host and path lead to: the API, an instance's IDE, or nothing of ours. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from urllib.parse import urlsplit

from controlplane.models import IdeMode
from controlplane.settings import Settings

PATH_ROOT = "/__ide/"
HOST_LIMIT = 300
"""Characters of a Host: a name has 253 (RFC 1035 section 2.3.4)."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_REFERENCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Elsewhere(Enum):
    """Where a request leads that is for no IDE. `UNKNOWN` is a host that is not ours: 421, and never the API."""

    API = "api"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class IdeTarget:
    """`reference` is an instance's id or vmid, as it stands in the address. `prefix` is the path before the IDE's own,
    empty in host mode. `path` is what the app is asked for, query included; None for a prefix without its slash."""

    mode: IdeMode
    reference: str
    prefix: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Hosts:
    """Which hosts are ours. `api_hosts` are names in lower case, `suffix` is what IDE hosts end with, without a dot."""

    api_hosts: frozenset[str]
    suffix: str | None
    path_mode: bool

    @classmethod
    def of(cls, settings: Settings) -> Hosts:
        named = {urlsplit(url).hostname or "" for url in (settings.public_url, settings.edge_control_plane_url)}
        return cls(
            api_hosts=frozenset({"localhost", *named, *settings.api_hosts}),
            suffix=settings.dev_ide_host_suffix,
            path_mode=settings.dev_ide_path_mode_enabled,
        )

    def find(self, host: str | None, target: str) -> IdeTarget | Elsewhere:
        """`host` is the request's Host (None where HTTP/1.0 sent none), `target` its path with the query.

        An address is the API's whichever it is: health checks come by it, and no page of another name can.
        """
        if host is None:
            return self._by_path(target)
        name = host_name(host)
        if name is None:
            return Elsewhere.UNKNOWN
        if name in self.api_hosts or _address(name) is not None:
            return self._by_path(target)
        vmid = self._vmid(name)
        return Elsewhere.UNKNOWN if vmid is None else IdeTarget(IdeMode.HOST, vmid, "", target)

    def _vmid(self, name: str) -> str | None:
        if self.suffix is None or not name.startswith("dev-") or not name.endswith(f".{self.suffix}"):
            return None
        vmid = name[len("dev-") : -len(self.suffix) - 1]
        is_number = vmid.isascii() and vmid.isdigit() and not vmid.startswith("0") and len(vmid) < 11
        return vmid if is_number else None

    def _by_path(self, target: str) -> IdeTarget | Elsewhere:
        if not self.path_mode or not target.startswith(PATH_ROOT):
            return Elsewhere.API
        path, question, query = target.partition("?")
        reference, slash, rest = path[len(PATH_ROOT) :].partition("/")
        if not _REFERENCE.fullmatch(reference):
            return Elsewhere.API
        own = f"/{rest}{question}{query}" if slash else None
        return IdeTarget(IdeMode.PATH, reference, PATH_ROOT + reference, own)


def host_name(host: str) -> str | None:
    """A Host header's name in lower case, without its port; an IPv6 address without brackets. None if unreadable."""
    match = _AUTHORITY.fullmatch(host)
    if match is None or int(match[2] or 0) > 65535 or len(host) > HOST_LIMIT:
        return None
    return match[1].strip("[]").lower()


def host_port(host: str) -> int | None:
    match = _AUTHORITY.fullmatch(host)
    return int(match[2]) if match is not None and match[2] else None


def is_loopback(name: str) -> bool:
    """Whether a host's name leads to the machine itself (RFC 6761 section 6.3 for `localhost` and all below it)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name. Remembered, since each request asks several times for the same few."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
