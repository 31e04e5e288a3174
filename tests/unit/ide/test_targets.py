"""Where a host and a path lead."""

from __future__ import annotations

import pytest

from controlplane.ide.targets import Elsewhere, Hosts, IdeTarget, host_name, host_port, is_loopback
from controlplane.models import IdeMode

HOSTS = Hosts(frozenset({"localhost", "control.example.org"}), "ide.example.org", path_mode=True)


@pytest.mark.parametrize(
    "host",
    [
        "control.example.org",
        "Control.Example.ORG:8443",
        "localhost",
        "localhost:1",
        "127.0.0.1",
        "10.0.0.5:8080",
        "[::1]:8080",
        None,
    ],
)
def test_our_names_and_addresses_lead_to_the_api(host: str | None) -> None:
    assert HOSTS.find(host, "/api/auth/me") is Elsewhere.API


@pytest.mark.parametrize(
    "host", ["dev-201.ide.example.org", "DEV-201.IDE.example.org:8443", "dev-201.ide.example.org:1"]
)
def test_an_ides_host_leads_to_it_whatever_the_path_and_the_port(host: str) -> None:
    for path in ("/", "/api/auth/me", "/__ide/dev_1/", "/healthz?x"):
        assert HOSTS.find(host, path) == IdeTarget(IdeMode.HOST, "201", "", path)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "ide.example.org",
        "dev-.ide.example.org",
        "dev-x.ide.example.org",
        "dev-0.ide.example.org",
        "dev-01.ide.example.org",
        "dev-99999999999.ide.example.org",
        "a.dev-201.ide.example.org",
        "dev-201.ide.example.org.",
        "dev-201.ide.example.org.evil.example",
        "dev-201ide.example.org",
        "xdev-201.ide.example.org",
        "control.example.org.",
        "control.example.org, control.example.org",
        "user@control.example.org",
        "control.example.org/x",
        "localhost:99999",
        "localhost:",
        "localhost:8080x",
        "dev-\u0662.ide.example.org",
    ],
)
def test_any_other_host_is_nobodys(host: str) -> None:
    assert HOSTS.find(host, "/") is Elsewhere.UNKNOWN


def test_without_a_suffix_there_are_no_hosts_for_ides() -> None:
    assert Hosts(frozenset({"localhost"}), None, path_mode=True).find("dev-201.localhost", "/") is Elsewhere.UNKNOWN


@pytest.mark.parametrize(
    ("target", "reference", "path"),
    [
        ("/__ide/dev_1/", "dev_1", "/"),
        ("/__ide/201/a/b?c=/d", "201", "/a/b?c=/d"),
        ("/__ide/dev_1", "dev_1", None),
        ("/__ide/dev_1?a=1", "dev_1", None),
        ("/__ide/dev_1//x", "dev_1", "//x"),
        ("/__ide/dev_1/../../api", "dev_1", "/../../api"),
    ],
)
def test_a_prefix_leads_to_an_ide(target: str, reference: str, path: str | None) -> None:
    assert HOSTS.find("localhost", target) == IdeTarget(IdeMode.PATH, reference, f"/__ide/{reference}", path)


@pytest.mark.parametrize(
    "target", ["/__ide", "/__ide/", "/__ide//x", "/__ide/a.b/", "/__ide/%64ev_1/", "/x/__ide/dev_1/"]
)
def test_what_names_no_instance_is_the_apis(target: str) -> None:
    assert HOSTS.find("localhost", target) is Elsewhere.API


def test_path_mode_can_be_off() -> None:
    hosts = Hosts(frozenset({"localhost"}), "ide.example.org", path_mode=False)
    assert hosts.find("localhost", "/__ide/dev_1/") is Elsewhere.API


def test_hosts_are_read_with_their_ports() -> None:
    assert (host_name("[::1]:80"), host_port("[::1]:80")) == ("::1", 80)
    assert (host_name("LOCALHOST"), host_port("localhost")) == ("localhost", None)


def test_loopback_is_told_by_name_and_by_address() -> None:
    assert all(is_loopback(name) for name in ("localhost", "dev-1.localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(name) for name in ("", "10.0.0.1", "notlocalhost", "localhost.example"))
