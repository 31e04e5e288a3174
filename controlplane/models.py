"""Frozen records that flow between storage, services and handlers. No I/O, no behaviour beyond trivial predicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    CUSTOMER = "customer"
    ADMIN = "admin"


class InstanceKind(StrEnum):
    GAME = "game"
    DEV = "dev"


class Connection(StrEnum):
    """Liveness, from `/health`."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class Readiness(StrEnum):
    """Semantic readiness, from `/ready`."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"


class Process(StrEnum):
    """What the supervised process does, from `/status`."""

    UNKNOWN = "unknown"
    INSTALLING = "installing"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why and since when a user or an instance may not be used."""

    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` is stored normalized (see `auth.sessions.normalize_email`) and unique."""

    id: str
    email: str
    password_hash: str = field(repr=False)
    role: Role
    created_at: datetime
    password_changed_at: datetime
    suspension: Suspension | None = None

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN


@dataclass(frozen=True, slots=True)
class Session:
    """One login: a family of refresh tokens. `refresh_hash` is SHA-256 of the newest refresh token, in hex.

    `previous_refresh_hash` is its immediate predecessor, kept for the ten seconds of grace after `rotated_at`.
    """

    id: str
    user_id: str
    refresh_hash: str = field(repr=False)
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str
    previous_refresh_hash: str | None = field(default=None, repr=False)
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A long-lived credential of one user. `secret_hash` is SHA-256 in hex; the secret is shown once, at creation."""

    id: str
    user_id: str
    name: str
    secret_hash: str = field(repr=False)
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ResetToken:
    """A password reset. `token_hash` is SHA-256 in hex; consumed once, atomically."""

    token_hash: str = field(repr=False)
    user_id: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """How to reach one agent. `address` is an IP literal, `token` the bearer secret of that one instance."""

    address: str
    port: int
    token: str = field(repr=False)
    https: bool = False

    @property
    def authority(self) -> str:
        """What a Host header says (RFC 9110 section 7.2)."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance that a customer has, or is having made, as far as a plan limits it. `memory_mib` is None where
    nobody here knows it."""

    kind: InstanceKind
    name: str
    memory_mib: int | None


@dataclass(frozen=True, slots=True)
class Instance:
    """A game server or dev container. `revision` grows with each write and guards compare-and-set.

    `sealed_token` is the agent's bearer secret encrypted by `secretbox`; it is opened only to talk to the agent.
    `deleted_at` marks a tombstone: kept a while so that every process sees the removal. `published` says whether the
    edge may lead to it; `game_port` is where players connect, None where there is no such port.
    `provider` and `operation_id` say who made its machine and under which mark, `memory_mib` how large it was made; all
    are None where an administrator registered a container that existed already.
    """

    id: str
    kind: InstanceKind
    vmid: int
    name: str
    owner_id: str
    address: str
    port: int
    sealed_token: bytes = field(repr=False)
    created_at: datetime
    https: bool = False
    ide_port: int = 8080
    suspension: Suspension | None = None
    revision: int = 1
    deleted_at: datetime | None = None
    game_port: int | None = None
    published: bool = True
    provider: str | None = None
    operation_id: str | None = None
    memory_mib: int | None = None

    @property
    def holding(self) -> Holding:
        return Holding(self.kind, self.name, self.memory_mib)


@dataclass(frozen=True, slots=True)
class AgentState:
    """The normalized state of one agent, without what depends on the moment of reading (`ageMs`, `stale`).

    `confirmed` is true when the latest poll reached the agent in this process's lifetime; a state loaded from
    storage, or kept after a failed poll, is unconfirmed and so is served as stale.
    `observed_at` is when the agent's answers were last taken in; `revision` grows with every visible change.
    """

    instance_id: str
    connection: Connection = Connection.CONNECTING
    readiness: Readiness = Readiness.UNKNOWN
    ready: bool = False
    process: Process = Process.UNKNOWN
    healthy: bool = False
    reason: str = "not_observed"
    message: str = "The agent has not been observed yet."
    confirmed: bool = False
    consecutive_failures: int = 0
    observed_at: datetime | None = None
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    last_ready_at: datetime | None = None
    changed_at: datetime | None = None
    revision: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """Exclusive right to act, until `expires_at`. `fence` grows with each take-over: check it before destroying."""

    name: str
    owner: str
    fence: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, after authentication. `scopes` is None for a login session: everything its role may do.

    `session_id` is None for an API key, `api_key_id` None for a session.
    """

    user_id: str
    email: str
    role: Role
    session_id: str | None
    api_key_id: str | None = None
    scopes: frozenset[str] | None = None

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def credential_id(self) -> str:
        """The session's id, or the API key's."""
        return self.session_id or self.api_key_id or ""

    def may(self, scope: str) -> bool:
        return self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class ConsoleTicket:
    """Opens one console once, in the place of an access token. `ticket_hash` is SHA-256 in hex.

    `credential_expires_at` is when the token that it was made with expires; None for a key without an end.
    """

    ticket_hash: str = field(repr=False)
    instance_id: str
    principal: Principal
    credential_expires_at: datetime | None
    expires_at: datetime


class IdeMode(StrEnum):
    """How an IDE is reached: below a path of the API's host, or on a host of its own."""

    PATH = "path"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class IdeToken:
    """Opens one IDE session, once. `token_hash` is SHA-256 in hex. `owner_id` is the instance's owner at that time."""

    token_hash: str = field(repr=False)
    principal: Principal
    instance_id: str
    owner_id: str
    mode: IdeMode
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class IdeSession:
    """What an IDE's cookie stands for. `cookie_hash` is SHA-256 in hex.

    It is over at `idle_until`, which moves on while it is used, and at `ends_at` in any case.
    """

    cookie_hash: str = field(repr=False)
    principal: Principal
    instance_id: str
    owner_id: str
    mode: IdeMode
    created_at: datetime
    idle_until: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer given under an idempotency key. `request_hash` is SHA-256 over method, path and body, in hex."""

    request_hash: str
    status: int
    sealed_body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action that changed something, for an operator to read later. Never holds secrets."""

    at: datetime
    actor_id: str
    action: str
    subject: str
    request_id: str
    address: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class OperationKind(StrEnum):
    """What is done to an instance in several steps, each stored before its side effect."""

    PROVISION = "provision"
    DELETE = "delete"
    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a customer may have. `instances` is a limit for each kind; `memory_mib` is for one instance."""

    instances: Mapping[InstanceKind, int]
    memory_mib: int
    backups: int
    ide: bool


@dataclass(frozen=True, slots=True)
class ComingEntitlement:
    """What a customer will have from `at` on, by the plan that is called `plan`."""

    entitlement: Entitlement
    plan: str
    at: datetime


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What a provider is to make. `operation_id` is written on the machine: it tells ours from a neighbour's.

    `hostname` is a DNS label. `agent_token` is the bearer secret that the agent inside must be given.
    """

    vmid: int
    operation_id: str
    kind: InstanceKind
    hostname: str
    cores: int
    memory_mib: int
    disk_gib: int
    agent_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a provider sees under a vmid. `operation_id` is None where the machine carries no mark of ours.

    `is_complete` is False for one of ours whose making was interrupted: `create` with the same mark finishes it.
    """

    vmid: int
    operation_id: str | None
    is_running: bool
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class MachineAddress:
    """Where the agent of a machine can be reached. `address` is an IP literal.

    `agent_token` is the agent's own secret where the provider could not give it the one of the MachineSpec.
    """

    address: str
    port: int
    ide_port: int
    https: bool = False
    game_port: int | None = None
    agent_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StaticClaim:
    """That a host of the static pool has a vmid. `is_started` is whether its workload was told to run."""

    host: str
    vmid: int
    operation_id: str
    is_started: bool


class WebhookEvent(StrEnum):
    """What other systems are told of an instance."""

    READY = "instance.ready"
    WITHDRAWN = "instance.withdrawn"
    DELETED = "instance.deleted"


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that is told of events. `disabled_at` is set when it answered 410, or an administrator removed it."""

    id: str
    url: str
    events: frozenset[WebhookEvent]
    sealed_secret: bytes = field(repr=False)
    created_at: datetime
    disabled_at: datetime | None = None


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One event for one endpoint. `attempts` counts those that ended; `outcome` is the latest in words."""

    id: str
    endpoint_id: str
    event_id: str
    event: WebhookEvent
    body: bytes
    created_at: datetime
    next_attempt_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    outcome: str | None = None


class Phase(StrEnum):
    """Where an operation is. What leads where is in `provisioning.machine`; the words are those of the API."""

    REQUESTED = "requested"
    RESERVED = "reserved"
    CREATING = "creating"
    BOOTING = "booting"
    AGENT_CONNECTED = "agentConnected"
    READY_CHECK = "readyCheck"
    PERSISTING = "persisting"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    COMPENSATING = "compensating"
    ROLLED_BACK = "rolledBack"
    ROLLBACK_FAILED = "rollbackFailed"
    CANCELING = "canceling"
    CANCELED = "canceled"
    UNPUBLISHING = "unpublishing"
    STOPPING = "stopping"
    DESTROYING = "destroying"
    DELETED = "deleted"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    STARTING = "starting"
    LIFTING = "lifting"
    UNSUSPENDED = "unsuspended"
    FAILED = "failed"
    FORGOTTEN = "forgotten"


FINISHED_PHASES = frozenset(
    {
        Phase.SUCCEEDED,
        Phase.ROLLED_BACK,
        Phase.ROLLBACK_FAILED,
        Phase.CANCELED,
        Phase.DELETED,
        Phase.SUSPENDED,
        Phase.UNSUSPENDED,
        Phase.FAILED,
        Phase.FORGOTTEN,
    }
)
"""No runner has anything to do in these."""


class StepState(StrEnum):
    """How far one step is; a step that was not begun has no record."""

    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undoFailed"


@dataclass(frozen=True, slots=True)
class OperationError:
    """What went wrong in `phase`. `message` is for the customer, `operator_message` says what to act on."""

    phase: Phase
    code: str
    message: str
    operator_message: str


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step that was begun. `attempts` counts its tries, or those of taking it back once that has begun."""

    phase: Phase
    state: StepState
    attempts: int
    started_at: datetime
    ended_at: datetime | None = None
    error: OperationError | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Something done to one instance in several steps, each stored before its side effect.

    `owner_id` is the customer whose instance it is, `requested_by` who asked. `mark` is what its machine carries: for a
    provisioning its own id, else that of the operation that made the machine; None where no provider made it.
    `key` is unique among operations: a repeated request finds the first one's operation. `left_behind` says, for an
    operator, what may still be where. It is looked at again at `due_at`. `runner` and `fence` are its lease's: who may
    act, and how often that changed. `revision` grows with each write and guards compare-and-set.
    """

    id: str
    kind: OperationKind
    phase: Phase
    instance_id: str
    instance_kind: InstanceKind
    owner_id: str
    requested_by: str
    name: str
    created_at: datetime
    updated_at: datetime
    due_at: datetime
    plan: str | None = None
    provider: str | None = None
    mark: str | None = None
    vmid: int | None = None
    sealed_token: bytes | None = field(default=None, repr=False)
    address: MachineAddress | None = None
    reason: str | None = None
    key: str | None = None
    request_hash: str | None = None
    steps: tuple[StepRecord, ...] = ()
    error: OperationError | None = None
    left_behind: tuple[str, ...] = ()
    is_cancel_requested: bool = False
    finished_at: datetime | None = None
    revision: int = 1
    fence: int = 0
    runner: str | None = None

    @property
    def is_finished(self) -> bool:
        return self.phase in FINISHED_PHASES

    def step(self, phase: Phase) -> StepRecord | None:
        """The record of a step that was begun."""
        return next((step for step in self.steps if step.phase is phase), None)
