"""Where agents may live. Registering an instance must not turn the control plane into a probe of its own network.

Addresses are IP literals, so that what was checked is what is dialled: no name can resolve to something else later.
Checked when an instance is registered and again when its agent is dialled. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from controlplane.errors import InvalidInput
from controlplane.settings import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services outside the link-local ranges: AWS over IPv6, Alibaba Cloud, Oracle Cloud.
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052


def check_agent_address(address: str, networks: Sequence[Network]) -> None:
    """Raises InvalidInput on the field `address`. Link-local and metadata addresses are refused in any network."""
    problem = _problem(address, networks)
    if problem is not None:
        raise InvalidInput({"address": [problem]}, f"No agent may live at {address[:64]}: {problem}.")


def _problem(address: str, networks: Sequence[Network]) -> str | None:
    try:
        parsed: Address = ipaddress.ip_address(address)
    except ValueError:
        return "must be an IP address, not a name"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None:
        return "must not have a zone"
    reached = _unwrapped(parsed)
    if reached.is_link_local or reached in _METADATA_ADDRESSES:
        return "link-local and metadata addresses are never agents"
    if reached.is_unspecified or reached.is_multicast or reached == ipaddress.ip_address("255.255.255.255"):
        return "must be the address of one host"
    if not any(reached in network for network in networks):
        return "is outside AGENT_NETWORKS"
    return None


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 form of it reaches."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
