"""The machine hosts: each provider made from its settings. Which one is used is `PROVIDER`'s affair."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from controlplane.clock import SystemClock
from controlplane.errors import ConfigurationError
from controlplane.ports import StaticClaimRepository
from controlplane.provisioning.lxd import LxdProvider
from controlplane.provisioning.lxd_api import LxdApi
from controlplane.provisioning.proxmox import ProxmoxProvider
from controlplane.provisioning.proxmox_api import ProxmoxApi
from controlplane.provisioning.rest import RestClient, Trust
from controlplane.provisioning.static import Power, StaticProvider
from controlplane.settings import Settings

MAX_CLIENTS = 32  # calls under way to one machine host
BODY_LIMIT_BYTES = 8 << 20  # lists of some ten thousand machines


def make_proxmox(settings: Settings) -> ProxmoxProvider:
    """Raises ConfigurationError without PROXMOX_URL. Close it at the end."""
    proxmox = settings.proxmox
    if proxmox is None:
        raise ConfigurationError("PROXMOX_URL", "is needed for PROVIDER=proxmox")
    client = RestClient(
        proxmox.url,
        max_clients=MAX_CLIENTS,
        body_limit_bytes=BODY_LIMIT_BYTES,
        trust=Trust(authority=_read("PROXMOX_CA_FILE", proxmox.ca_file)),
    )
    api = ProxmoxApi(client, token=proxmox.token, call_seconds=proxmox.call_seconds, task_seconds=proxmox.task_seconds)
    return ProxmoxProvider(api, proxmox, SystemClock())


def make_lxd(settings: Settings) -> LxdProvider:
    """Raises ConfigurationError without LXD_URL. Close it at the end."""
    lxd = settings.lxd
    if lxd is None:
        raise ConfigurationError("LXD_URL", "is needed for PROVIDER=lxd")
    socket = lxd.url.removeprefix("unix://") if lxd.url.startswith("unix://") else None
    client = RestClient(
        "http://lxd" if socket else lxd.url,
        max_clients=MAX_CLIENTS,
        body_limit_bytes=BODY_LIMIT_BYTES,
        trust=Trust(
            authority=_read("LXD_SERVER_CERTIFICATE_FILE", lxd.server_certificate_file),
            pinned=True,
            certificate=_read("LXD_CLIENT_CERTIFICATE_FILE", lxd.client_certificate_file),
            key=_read("LXD_CLIENT_KEY_FILE", lxd.client_key_file),
        ),
        unix_socket=socket,
    )
    api = LxdApi(client, project=lxd.project, call_seconds=lxd.call_seconds)
    return LxdProvider(api, lxd, ThreadPoolExecutor(max_workers=1, thread_name_prefix="seed"))


def make_static(settings: Settings, claims: StaticClaimRepository, power: Power) -> StaticProvider:
    """Raises ConfigurationError without STATIC_HOSTS_FILE."""
    if settings.static is None:
        raise ConfigurationError("STATIC_HOSTS_FILE", "is needed for PROVIDER=static")
    return StaticProvider(claims, power, settings.static)


def _read(setting: str, file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(setting, f"{file} cannot be read: {error.strerror}") from error
