"""Where agents may live: an admin's networks, and never a metadata service."""

from __future__ import annotations

import ipaddress

import pytest

from controlplane.agents.addresses import check_agent_address
from controlplane.errors import InvalidInput
from controlplane.settings import DEFAULT_AGENT_NETWORKS

DEFAULT = tuple(ipaddress.ip_network(part) for part in DEFAULT_AGENT_NETWORKS.split(","))
EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.31.0.1", "192.168.1.1", "127.0.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_private_and_loopback_addresses_are_allowed_by_default(address: str) -> None:
    check_agent_address(address, DEFAULT)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "172.32.0.1", "::ffff:8.8.8.8"])
def test_other_networks_are_refused_until_an_admin_names_them(address: str) -> None:
    with pytest.raises(InvalidInput, match="AGENT_NETWORKS"):
        check_agent_address(address, DEFAULT)
    check_agent_address(address, EVERYWHERE)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_link_local_metadata_and_group_addresses_are_refused_in_any_network(address: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_agent_address(address, EVERYWHERE)
    assert set(refused.value.fields) == {"address"}


@pytest.mark.parametrize(
    "address", ["localhost", "agent.internal", "2130706433", "0x7f.1", "127.1", "10.0.0.1:80", "", "10.0.0.1 "]
)
def test_only_ip_literals_are_addresses(address: str) -> None:
    with pytest.raises(InvalidInput):
        check_agent_address(address, EVERYWHERE)
