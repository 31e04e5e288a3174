"""Who is really calling: the peer, or behind trusted proxies the client that they name. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from controlplane.settings import Network


def client_address(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """The right-most address of `X-Forwarded-For` that is not a trusted proxy, if the peer is one; else the peer.

    What a client wrote itself stands further left and is never believed.
    """
    if not forwarded_for or not _is_trusted(peer, trusted):
        return peer
    for candidate in reversed(forwarded_for.split(",")):
        address = candidate.strip()
        if not _is_address(address):
            return peer
        if not _is_trusted(address, trusted):
            return address
    return peer


def request_scheme(peer: str, forwarded_proto: str | None, trusted: Sequence[Network]) -> str:
    """`https` where a trusted proxy says that it was asked over TLS, else `http`: no TLS is spoken here."""
    is_secure = (forwarded_proto or "").strip().lower() == "https" and _is_trusted(peer, trusted)
    return "https" if is_secure else "http"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, trusted: Sequence[Network]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in trusted)
