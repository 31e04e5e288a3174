"""Every setting, read once from the environment at start. Nothing else reads `os.environ`.

`conf/controlplane.env.example` documents each one for operators; a test holds the two together.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from controlplane.errors import ConfigurationError
from controlplane.provider_settings import (
    LxdSettings,
    ProxmoxSettings,
    StaticSettings,
    provider_setting_names,
    read_lxd,
    read_proxmox,
    read_static,
)
from controlplane.secretbox import KEY_BYTES

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Private (RFC 1918, RFC 4193) and loopback. Not `is_private`: that includes link-local, where metadata services live.
DEFAULT_AGENT_NETWORKS = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.0/8,::1/128,fc00::/7"
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*")
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is at least as long as the hash


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Where mail goes. `url` is smtp://, smtp+starttls:// or smtps://[user:password@]host:port."""

    url: str = field(repr=False)
    sender: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """Only where STRIPE_SECRET_KEY is set. Days count from the first unpaid invoice."""

    stripe_secret_key: str = field(repr=False)
    stripe_webhook_secret: str = field(repr=False)
    stripe_api_base: str
    stripe_timeout_seconds: float
    billing_plans_file: Path
    billing_mail_dir: Path | None
    billing_grace_days: int
    billing_termination_enabled: bool
    billing_termination_days: int
    billing_actions_per_run: int
    billing_schedule_interval_seconds: float
    billing_reconcile_interval_seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. Secrets do not show in `repr`."""

    http_address: str
    http_port: int
    public_url: str
    trusted_proxies: tuple[Network, ...]
    cors_origins: frozenset[str]
    jwt_secret: str = field(repr=False)
    jwt_previous_secret: str | None = field(repr=False)
    credentials_key: bytes = field(repr=False)
    metrics_token: str | None = field(repr=False)
    mongodb_uri: str | None = field(repr=False)
    mongodb_database: str
    mongodb_timeout_seconds: float
    data_dir: Path
    registration_enabled: bool
    access_token_seconds: int
    session_max_days: int
    reset_token_minutes: int
    bcrypt_cost: int
    agent_networks: tuple[Network, ...]
    agent_timeout_seconds: float
    agent_action_timeout_seconds: float
    agent_backup_timeout_seconds: float
    agent_poll_interval_seconds: float
    agent_poll_concurrency: int
    agent_body_limit_bytes: int
    agent_ca_file: Path | None
    request_body_limit_bytes: int
    request_head_seconds: float
    request_body_seconds: float
    client_idle_seconds: float
    upload_limit_bytes: int
    uploads_per_user: int
    upload_idle_seconds: float
    drain_seconds: float
    edge_token: str | None = field(repr=False)
    edge_control_plane_url: str
    edge_ide_entry_points: tuple[str, ...]
    edge_ide_tls: bool
    api_hosts: frozenset[str]
    dev_ide_host_suffix: str | None
    dev_ide_return_hosted_url: bool
    dev_ide_path_mode_enabled: bool
    dev_ide_token_seconds: int
    dev_ide_session_idle_seconds: int
    dev_ide_session_max_seconds: int
    dev_ide_socket_idle_seconds: float
    smtp: SmtpSettings | None
    proxmox: ProxmoxSettings | None
    lxd: LxdSettings | None
    static: StaticSettings | None
    billing: BillingSettings | None
    log_level: str
    access_log: str
    # Provisioning
    provider: str
    vmid_first: int
    vmid_last: int
    provision_attempts: int
    provision_undo_attempts: int
    provision_retry_seconds: float
    provision_step_seconds: float
    provision_boot_seconds: float
    provision_ready_seconds: float
    provision_ready_checks: int
    provision_ready_interval_seconds: float
    operation_lease_seconds: float
    operation_concurrency: int
    operations_per_user: int
    quota_game_servers: int
    quota_dev_containers: int
    quota_memory_mib: int
    quota_backups: int
    orphan_sweep_seconds: float
    orphan_grace_seconds: float
    local_provider_dir: Path

    @property
    def agent_stale_after_seconds(self) -> float:
        """A state that was not confirmed for three intervals (and the time a poll may take) is served as stale."""
        return 3 * self.agent_poll_interval_seconds + self.agent_timeout_seconds

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises ConfigurationError that names the variable at fault."""
        reader = _Reader(env)
        port = reader.integer("HTTP_PORT", 8080, low=0, high=65535)
        return cls(
            http_address=reader.address("HTTP_ADDRESS", "127.0.0.1"),
            http_port=port,
            public_url=reader.url("PUBLIC_URL", f"http://127.0.0.1:{port}"),
            trusted_proxies=reader.networks("TRUSTED_PROXIES", ""),
            cors_origins=reader.origins("CORS_ORIGINS"),
            jwt_secret=reader.secret("JWT_SECRET"),
            jwt_previous_secret=reader.secret("JWT_PREVIOUS_SECRET") if env.get("JWT_PREVIOUS_SECRET") else None,
            credentials_key=reader.key("CREDENTIALS_KEY"),
            metrics_token=reader.secret("METRICS_TOKEN") if env.get("METRICS_TOKEN") else None,
            mongodb_uri=reader.mongodb_uri("MONGODB_URI"),
            mongodb_database=reader.text("MONGODB_DATABASE", "controlplane"),
            mongodb_timeout_seconds=reader.number("MONGODB_TIMEOUT_SECONDS", 3.0, low=0.1, high=60),
            data_dir=Path(reader.text("DATA_DIR", "data")),
            registration_enabled=reader.flag("REGISTRATION_ENABLED", False),
            access_token_seconds=reader.integer("ACCESS_TOKEN_SECONDS", 900, low=30, high=3600),
            session_max_days=reader.integer("SESSION_MAX_DAYS", 30, low=1, high=365),
            reset_token_minutes=reader.integer("RESET_TOKEN_MINUTES", 30, low=1, high=60),
            bcrypt_cost=reader.integer("BCRYPT_COST", 12, low=4, high=16),
            agent_networks=reader.networks("AGENT_NETWORKS", DEFAULT_AGENT_NETWORKS),
            agent_timeout_seconds=reader.number("AGENT_TIMEOUT_SECONDS", 5.0, low=0.1, high=60),
            agent_action_timeout_seconds=reader.number("AGENT_ACTION_TIMEOUT_SECONDS", 30.0, low=0.1, high=600),
            agent_backup_timeout_seconds=reader.number("AGENT_BACKUP_TIMEOUT_SECONDS", 1800.0, low=0.1, high=86_400),
            agent_poll_interval_seconds=reader.number("AGENT_POLL_INTERVAL_SECONDS", 10.0, low=0.1, high=3600),
            agent_poll_concurrency=reader.integer("AGENT_POLL_CONCURRENCY", 256, low=1, high=10_000),
            agent_body_limit_bytes=reader.integer("AGENT_BODY_LIMIT_BYTES", 1 << 20, low=1024, high=1 << 26),
            agent_ca_file=reader.file("AGENT_CA_FILE"),
            request_body_limit_bytes=reader.integer("REQUEST_BODY_LIMIT_BYTES", 64 << 10, low=1024, high=16 << 20),
            request_head_seconds=reader.number("REQUEST_HEAD_SECONDS", 75.0, low=0.1, high=3600),
            request_body_seconds=reader.number("REQUEST_BODY_SECONDS", 30.0, low=0.1, high=3600),
            client_idle_seconds=reader.number("CLIENT_IDLE_SECONDS", 60.0, low=0.1, high=3600),
            upload_limit_bytes=reader.integer("UPLOAD_LIMIT_BYTES", 64 << 30, low=1, high=1 << 50),
            uploads_per_user=reader.integer("UPLOADS_PER_USER", 4, low=1, high=100),
            upload_idle_seconds=reader.number("UPLOAD_IDLE_SECONDS", 60.0, low=0.1, high=3600),
            drain_seconds=reader.number("DRAIN_SECONDS", 10.0, low=0, high=300),
            edge_token=reader.secret("EDGE_TOKEN") if env.get("EDGE_TOKEN") else None,
            edge_control_plane_url=reader.url("EDGE_CONTROL_PLANE_URL", f"http://127.0.0.1:{port}"),
            edge_ide_entry_points=reader.words("EDGE_IDE_ENTRY_POINTS", "websecure"),
            edge_ide_tls=reader.flag("EDGE_IDE_TLS", True),
            api_hosts=frozenset(reader.host_name("API_HOSTS", each) for each in reader.words("API_HOSTS", "")),
            dev_ide_host_suffix=reader.ide_host_suffix("DEV_IDE_HOST_SUFFIX"),
            dev_ide_return_hosted_url=reader.hosted_url_flag("DEV_IDE_RETURN_HOSTED_URL"),
            dev_ide_path_mode_enabled=reader.flag("DEV_IDE_PATH_MODE_ENABLED", True),
            dev_ide_token_seconds=reader.integer("DEV_IDE_TOKEN_SECONDS", 60, low=5, high=600),
            dev_ide_session_idle_seconds=reader.integer("DEV_IDE_SESSION_IDLE_SECONDS", 14_400, low=60, high=604_800),
            dev_ide_session_max_seconds=reader.integer("DEV_IDE_SESSION_MAX_SECONDS", 86_400, low=60, high=2_592_000),
            dev_ide_socket_idle_seconds=reader.number("DEV_IDE_SOCKET_IDLE_SECONDS", 3600.0, low=60, high=86_400),
            smtp=reader.smtp(),
            proxmox=read_proxmox(reader),
            lxd=read_lxd(reader),
            static=read_static(reader),
            billing=reader.billing(),
            log_level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
            access_log=reader.choice("ACCESS_LOG", "all", ("all", "errors")),
            # Provisioning
            provider=reader.choice("PROVIDER", "none", ("none", "local", "proxmox", "lxd", "static")),
            vmid_first=reader.integer("VMID_FIRST", 10_000, low=100, high=999_999_999),
            vmid_last=reader.last_vmid("VMID_LAST", 19_999, first=reader.text("VMID_FIRST", "10000")),
            provision_attempts=reader.integer("PROVISION_ATTEMPTS", 5, low=1, high=100),
            provision_undo_attempts=reader.integer("PROVISION_UNDO_ATTEMPTS", 10, low=1, high=100),
            provision_retry_seconds=reader.number("PROVISION_RETRY_SECONDS", 2.0, low=0.01, high=600),
            provision_step_seconds=reader.number("PROVISION_STEP_SECONDS", 1800.0, low=1, high=86_400),
            provision_boot_seconds=reader.number("PROVISION_BOOT_SECONDS", 120.0, low=0.1, high=3600),
            provision_ready_seconds=reader.number("PROVISION_READY_SECONDS", 300.0, low=0.1, high=7200),
            provision_ready_checks=reader.integer("PROVISION_READY_CHECKS", 3, low=1, high=100),
            provision_ready_interval_seconds=reader.number("PROVISION_READY_INTERVAL_SECONDS", 1.0, low=0.01, high=60),
            operation_lease_seconds=reader.number("OPERATION_LEASE_SECONDS", 15.0, low=0.5, high=300),
            operation_concurrency=reader.integer("OPERATION_CONCURRENCY", 16, low=1, high=1000),
            operations_per_user=reader.integer("OPERATIONS_PER_USER", 5, low=1, high=1000),
            quota_game_servers=reader.integer("QUOTA_GAME_SERVERS", 5, low=0, high=10_000),
            quota_dev_containers=reader.integer("QUOTA_DEV_CONTAINERS", 5, low=0, high=10_000),
            quota_memory_mib=reader.integer("QUOTA_MEMORY_MIB", 4096, low=0, high=1 << 20),
            quota_backups=reader.integer("QUOTA_BACKUPS", 10, low=0, high=10_000),
            orphan_sweep_seconds=reader.number("ORPHAN_SWEEP_SECONDS", 60.0, low=0.1, high=86_400),
            orphan_grace_seconds=reader.number("ORPHAN_GRACE_SECONDS", 600.0, low=0, high=86_400),
            local_provider_dir=Path(reader.text("LOCAL_PROVIDER_DIR", "machines")),
        )


def setting_names() -> frozenset[str]:
    """Every environment variable that is read."""
    parts = {"SMTP", "PROXMOX", "LXD", "STATIC", "BILLING"}
    names = {f.name.upper() for f in (*fields(Settings), *fields(BillingSettings))} - parts
    return frozenset(names | {"SMTP_URL", "SMTP_SENDER", "SMTP_TIMEOUT_SECONDS"} | provider_setting_names())


class _Reader:
    """Typed access to the environment; each refusal names the variable and what it may be."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        return self._env.get(name, "").strip() or default

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        raw = self.text(name, str(default))
        try:
            value = float(raw)
        except ValueError:
            raise ConfigurationError(name, f"{raw!r} is not a number") from None
        if not low <= value <= high:
            raise ConfigurationError(name, f"{raw} is outside {low:g} to {high:g}")
        return value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        raw = self.text(name, str(default))
        try:
            value = int(raw)
        except ValueError:
            raise ConfigurationError(name, f"{raw!r} is not a whole number") from None
        if not low <= value <= high:
            raise ConfigurationError(name, f"{value} is outside {low} to {high}")
        return value

    def last_vmid(self, name: str, default: int, *, first: str) -> int:
        """`first` is VMID_FIRST as it was given: it was read before."""
        return self.integer(name, max(default, int(first)), low=int(first), high=999_999_999)

    def flag(self, name: str, default: bool) -> bool:
        return self.choice(name, "true" if default else "false", ("true", "false")) == "true"

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in allowed:
            raise ConfigurationError(name, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def words(self, name: str, default: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name, default).split(",") if part.strip())

    def address(self, name: str, default: str) -> str:
        value = self.text(name, default)
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ConfigurationError(name, f"{value!r} is not an IP address") from None

    def networks(self, name: str, default: str) -> tuple[Network, ...]:
        parts = [part.strip() for part in self.text(name, default).split(",") if part.strip()]
        try:
            return tuple(ipaddress.ip_network(part) for part in parts)
        except ValueError as error:
            raise ConfigurationError(name, f"not a comma-separated list of networks in CIDR form: {error}") from None

    def url(self, name: str, default: str) -> str:
        value = self.text(name, default).rstrip("/")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(name, f"{value!r} is not an http or https URL")
        return value

    def host_name(self, name: str, value: str) -> str:
        lower = value.lower()
        if _HOST_NAME.fullmatch(lower) is None:
            raise ConfigurationError(name, f"{value!r} is not a host's name such as ide.example.org, without a port")
        return lower

    def ide_host_suffix(self, name: str) -> str | None:
        value = self.text(name, "")
        return self.host_name(name, value) if value else None

    def hosted_url_flag(self, name: str) -> bool:
        wanted = self.flag(name, False)
        if wanted and not self.text("DEV_IDE_HOST_SUFFIX", ""):
            raise ConfigurationError(name, "DEV_IDE_HOST_SUFFIX is needed beside it")
        return wanted

    def origins(self, name: str) -> frozenset[str]:
        origins = frozenset(part.strip() for part in self.text(name, "").split(",") if part.strip())
        for origin in origins:
            parts = urlsplit(origin)
            if (
                parts.scheme not in ("http", "https")
                or not parts.netloc
                or origin != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ConfigurationError(name, f"{origin!r} is not an exact origin such as https://portal.example")
        return origins

    def secret(self, name: str) -> str:
        value = self._env.get(name, "").strip()
        if not value:
            raise ConfigurationError(name, f"is missing; make one with: openssl rand -base64 {MIN_SECRET_BYTES}")
        if len(value.encode()) < MIN_SECRET_BYTES or len(set(value)) < 10:
            raise ConfigurationError(
                name, f"is too weak: {MIN_SECRET_BYTES} random bytes or more are needed (openssl rand -base64 32)"
            )
        return value

    def key(self, name: str) -> bytes:
        value = self.secret(name)
        try:
            key = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ConfigurationError(name, "is not base64; make one with: openssl rand -base64 32") from None
        if len(key) != KEY_BYTES:
            raise ConfigurationError(name, f"holds {len(key)} bytes, not {KEY_BYTES} (openssl rand -base64 32)")
        return key

    def mongodb_uri(self, name: str) -> str | None:
        value = self.text(name, "")
        if not value:
            return None
        if not value.startswith(("mongodb://", "mongodb+srv://")):
            raise ConfigurationError(name, "does not begin with mongodb:// or mongodb+srv://")
        return value

    def file(self, name: str) -> Path | None:
        value = self.text(name, "")
        if not value:
            return None
        if not Path(value).is_file():
            raise ConfigurationError(name, f"there is no file {value}")
        return Path(value)

    def folder(self, name: str) -> Path | None:
        value = self.text(name, "")
        if not value:
            return None
        if not Path(value).is_dir():
            raise ConfigurationError(name, f"there is no folder {value}")
        return Path(value)

    def smtp(self) -> SmtpSettings | None:
        url = self.text("SMTP_URL", "")
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtp+starttls", "smtps") or not parts.hostname:
            raise ConfigurationError(
                "SMTP_URL", "is not smtp://, smtp+starttls:// or smtps://[user:password@]host:port"
            )
        sender = self.text("SMTP_SENDER", "")
        if "@" not in sender:
            raise ConfigurationError("SMTP_SENDER", "an address such as service@example.org is needed beside SMTP_URL")
        timeout = self.number("SMTP_TIMEOUT_SECONDS", 10.0, low=1, high=120)
        return SmtpSettings(url=url, sender=sender, timeout_seconds=timeout)

    def billing(self) -> BillingSettings | None:
        """None without a key: billing is off. What else is set is then not looked at."""
        key = self.text("STRIPE_SECRET_KEY", "")
        if not key:
            return None
        if not key.startswith(("sk_", "rk_")) or not key.isascii() or not key.isprintable():
            raise ConfigurationError("STRIPE_SECRET_KEY", "is not a secret or restricted key (sk_… or rk_…)")
        webhook_secret = self.text("STRIPE_WEBHOOK_SECRET", "")
        if not webhook_secret.startswith("whsec_"):
            raise ConfigurationError(
                "STRIPE_WEBHOOK_SECRET", "the signing secret of the webhook endpoint (whsec_…) is needed beside the key"
            )
        plans = self.file("BILLING_PLANS_FILE")
        if plans is None:
            raise ConfigurationError("BILLING_PLANS_FILE", "a file of plans is needed (conf/plans.toml is an example)")
        grace_days = self.integer("BILLING_GRACE_DAYS", 10, low=8, high=90)
        return BillingSettings(
            stripe_secret_key=key,
            stripe_webhook_secret=webhook_secret,
            stripe_api_base=self.url("STRIPE_API_BASE", "https://api.stripe.com"),
            stripe_timeout_seconds=self.number("STRIPE_TIMEOUT_SECONDS", 20.0, low=1, high=80),
            billing_plans_file=plans,
            billing_mail_dir=self.folder("BILLING_MAIL_DIR"),
            billing_grace_days=grace_days,
            billing_termination_enabled=self.flag("BILLING_TERMINATION_ENABLED", False),
            billing_termination_days=self.integer(
                "BILLING_TERMINATION_DAYS", max(30, grace_days + 7), low=grace_days + 7, high=3650
            ),
            billing_actions_per_run=self.integer("BILLING_ACTIONS_PER_RUN", 20, low=1, high=10_000),
            billing_schedule_interval_seconds=self.number(
                "BILLING_SCHEDULE_INTERVAL_SECONDS", 60.0, low=0.1, high=86_400
            ),
            billing_reconcile_interval_seconds=self.number(
                "BILLING_RECONCILE_INTERVAL_SECONDS", 3600.0, low=0.1, high=86_400
            ),
        )
