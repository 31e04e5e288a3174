"""What the domain asks of its adapters. Adapters satisfy these structurally; `wiring.py` alone knows which is used.

Every repository method may raise `StorageUnavailable` when the database cannot be reached. Times are aware, in UTC.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controlplane.models import (
    AgentEndpoint,
    AgentState,
    ApiKey,
    AuditEntry,
    ComingEntitlement,
    ConsoleTicket,
    DeliveryState,
    Entitlement,
    Holding,
    IdeSession,
    IdeToken,
    Instance,
    InstanceKind,
    Lease,
    Machine,
    MachineAddress,
    MachineSpec,
    Operation,
    Phase,
    ResetToken,
    Role,
    Session,
    StaticClaim,
    StoredAnswer,
    Suspension,
    User,
    WebhookDelivery,
    WebhookEndpoint,
)


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back, for intervals."""


class UserRepository(Protocol):
    async def add(self, user: User) -> None:
        """Raises Conflict (`email_taken`) when the email is in use."""

    async def get(self, user_id: str) -> User | None: ...

    async def get_many(self, user_ids: Sequence[str]) -> dict[str, User]: ...

    async def find_by_email(self, email: str) -> User | None: ...

    async def set_password(self, user_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        """Compare-and-set on the old hash; False when another writer was first."""

    async def set_suspension(self, user_id: str, suspension: Suspension | None) -> User | None: ...

    async def page(self, *, limit: int, after: str | None) -> list[User]:
        """At most `limit` users in order of id, those with an id greater than `after`."""

    async def count(self, *, role: Role) -> int: ...


class SessionRepository(Protocol):
    async def add(self, session: Session) -> None: ...

    async def get(self, session_id: str) -> Session | None: ...

    async def get_many(self, session_ids: Sequence[str]) -> dict[str, Session]: ...

    async def list_active(self, user_id: str, now: datetime) -> list[Session]:
        """Not revoked and not expired, newest first."""

    async def remember_refresh_hash(self, refresh_hash: str, session_id: str, expires_at: datetime) -> None:
        """Record that this hash belongs to the family, so that its later reuse is recognised. Before `rotate`."""

    async def find_session_id_by_refresh_hash(self, refresh_hash: str) -> str | None:
        """The family a refresh token belongs or belonged to."""

    async def rotate(self, session_id: str, *, expected_hash: str, new_hash: str, at: datetime) -> bool:
        """Compare-and-set of the newest hash on a session that is not revoked; exactly one of many racers gets True."""

    async def revoke(self, session_id: str, *, at: datetime, reason: str) -> bool:
        """True when this call revoked it, False when it was revoked or missing already."""

    async def revoke_all(
        self, user_id: str, *, at: datetime, reason: str, except_session_id: str | None = None
    ) -> list[str]:
        """Revoke every active session of a user; the ids that were revoked."""


class ApiKeyRepository(Protocol):
    async def add(self, key: ApiKey) -> None: ...

    async def get_many(self, key_ids: Sequence[str]) -> dict[str, ApiKey]: ...

    async def find_by_hash(self, secret_hash: str) -> ApiKey | None: ...

    async def list_active(self, user_id: str, now: datetime) -> list[ApiKey]: ...

    async def revoke(self, key_id: str, *, user_id: str, at: datetime) -> bool: ...

    async def touch(self, key_id: str, at: datetime) -> None:
        """Note the last use; coarse, at most once a minute a key."""


class ResetTokenRepository(Protocol):
    async def replace_for_user(self, token: ResetToken) -> None:
        """Store this token and invalidate every earlier one of the same user."""

    async def consume(self, token_hash: str, now: datetime) -> ResetToken | None:
        """Atomically take a token that is unused and unexpired; a second call for the same hash gets None."""


class InstanceRepository(Protocol):
    async def add(self, instance: Instance) -> None:
        """Raises Conflict: `vmid_taken` or `address_taken` (address and port) when a live instance holds it."""

    async def get(self, instance_id: str) -> Instance | None: ...

    async def replace(self, instance: Instance, *, expected_revision: int) -> None:
        """Compare-and-set; `instance.revision` must be `expected_revision + 1`. Raises StaleRevision, or Conflict as
        `add` does."""

    async def load_all(self) -> tuple[list[Instance], datetime]:
        """Every live instance, and the server's time to hand to `changed_since`."""

    async def changed_since(self, since: datetime) -> tuple[list[Instance], datetime]:
        """Instances written (tombstones included) since a moment of the *server's* clock, overlapping enough that
        no write in flight is missed, and the next moment to ask from."""

    async def live_ids_of(self, owner_id: str, kind: InstanceKind) -> set[str]:
        """As the database has it now: what the directory knows may be a second old."""

    async def has_machine(self, operation_id: str) -> bool:
        """Whether a live instance's machine was made by this operation."""


class AgentStateRepository(Protocol):
    async def load_all(self) -> list[AgentState]: ...

    async def save_many(self, states: Sequence[AgentState], *, fence: int) -> None:
        """Unordered bulk upserts. A row written under a higher fence is left alone."""

    async def touch_observed(self, instance_ids: Sequence[str], observed_at: datetime, *, fence: int) -> None:
        """One command: these were observed again, unchanged, no earlier than `observed_at`."""

    async def changed_since(self, since: datetime | None) -> tuple[list[AgentState], datetime]:
        """As `InstanceRepository.changed_since`; None asks for everything."""

    async def remove(self, instance_id: str) -> None: ...


class LeaseRepository(Protocol):
    async def acquire(self, name: str, owner: str, *, ttl_seconds: float) -> Lease | None:
        """Take or renew. None when another owner holds it. `fence` grows by one whenever the owner changes, or when an
        expired lease is taken again. The server's clock decides expiry, so that processes need not agree on time."""

    async def release(self, name: str, owner: str) -> None: ...

    async def is_current(self, name: str, owner: str, fence: int) -> bool:
        """Whether this owner and fence still hold the unexpired lease: ask right before a destructive step."""


class ConsoleTicketRepository(Protocol):
    async def add(self, ticket: ConsoleTicket) -> None: ...

    async def consume(self, ticket_hash: str, now: datetime) -> ConsoleTicket | None:
        """Take it out, atomically; None when there is none, or it has expired."""


class IdeTokenRepository(Protocol):
    async def add(self, token: IdeToken) -> None: ...

    async def consume(self, token_hash: str, now: datetime) -> IdeToken | None:
        """Atomically take a token that has not expired; a second call for the same hash gets None."""


class IdeSessionRepository(Protocol):
    async def add(self, session: IdeSession) -> None: ...

    async def get_many(self, cookie_hashes: Sequence[str]) -> dict[str, IdeSession]:
        """By hash, expired ones included."""

    async def extend(self, cookie_hashes: Sequence[str], idle_until: datetime) -> None:
        """Move `idle_until` on, never back; what is gone stays gone."""

    async def remove_of_instance(self, instance_id: str) -> None:
        """Sessions and unused tokens alike."""


class IdempotencyRepository(Protocol):
    async def begin(self, scope: str, key: str, request_hash: str, *, now: datetime) -> StoredAnswer | None:
        """Claim the key. None: this caller runs the request. A StoredAnswer: it ran before. Raises Conflict:
        `idempotency_key_reused` for another request hash, `idempotency_in_progress` while the first still runs."""

    async def renew(self, claims: Sequence[tuple[str, str]], *, now: datetime) -> None:
        """The requests of these (scope, key) still run: nobody may take their keys over for some time more."""

    async def finish(self, scope: str, key: str, answer: StoredAnswer, *, now: datetime) -> None: ...

    async def abandon(self, scope: str, key: str) -> None:
        """The request failed without an effect: the key is free again."""


class AuditRepository(Protocol):
    async def add(self, entry: AuditEntry) -> None: ...


class StorageProbe(Protocol):
    """Whether the database answers, for `/readyz`."""

    async def ping(self) -> None:
        """Raises StorageUnavailable."""


@dataclass(frozen=True, slots=True)
class AgentResponse:
    """A complete answer of an agent: `headers` has lower-case names, `body` is bounded by the request's limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AgentTransport(Protocol):
    """HTTP/1.1 to an agent: keep-alive, no redirects, no proxy from the environment."""

    def request(
        self,
        endpoint: AgentEndpoint,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        request_id: str | None = None,
        timeout_seconds: float,
        body_limit_bytes: int,
    ) -> Awaitable[AgentResponse]:
        """Under way when this returns, so that two can run side by side. `target` is the path with its query.
        The awaitable raises AgentUnreachable, AgentTimeout or AgentProtocolError."""

    def forget(self, endpoint: AgentEndpoint) -> None:
        """Close what is kept open to this endpoint."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MailMessage:
    """`html` is the same in HTML. `message_id` is the left part of the Message-ID of a mail that may be sent again."""

    to: str
    subject: str
    text: str
    html: str | None = None
    message_id: str | None = None


class Mailer(Protocol):
    async def send(self, message: MailMessage) -> None:
        """Deliver, within a deadline of the adapter's own. Raises Unavailable when the server refuses or is away."""


class StaticClaimRepository(Protocol):
    """Which hosts of the static pool are taken, by whom. A host that was given back is not given out again before its
    generation, which an administrator counts up after wiping it, is higher than the one it was last used in."""

    async def claim(self, host: str, generation: int, vmid: int, operation_id: str) -> bool:
        """Atomically; False when the host is taken, or was used in this generation. Raises Conflict (`vmid_taken`)
        when another host has this vmid."""

    async def find(self, vmid: int) -> StaticClaim | None: ...

    async def load_all(self) -> list[StaticClaim]: ...

    async def set_started(self, vmid: int, operation_id: str, *, is_started: bool) -> None: ...

    async def release(self, vmid: int, operation_id: str) -> None:
        """No error when it was released before."""


class Provider(Protocol):
    """Makes and unmakes the machines that agents live in. `name` is stored with each instance.

    Every method may raise ProviderUnavailable, after which the outcome is unknown: look with `find` before trying
    again; and ProviderRefused, after which nothing was done. A mark on each machine carries the operation that made it.
    """

    name: str

    async def find(self, vmid: int) -> Machine | None:
        """What is there now, whoever made it."""

    async def create(self, spec: MachineSpec) -> None:
        """Make it, with its agent and the agent's secret in it; it need not run yet. One that carries this mark and is
        not complete is finished or made anew. Raises VmidTaken when a machine that carries another mark, or none, has
        this vmid."""

    async def start(self, vmid: int) -> None:
        """No error when it runs already."""

    async def locate(self, vmid: int) -> MachineAddress | None:
        """None while it has no address yet."""

    async def stop(self, vmid: int) -> None:
        """In order where it can, by force after a limit of the adapter's own. No error when it is stopped or gone."""

    async def destroy(self, vmid: int, *, operation_id: str) -> None:
        """Remove it with its disks, running or not. No error when it is gone. Raises ProviderRefused, with nothing
        done, when the machine does not carry this operation's mark."""

    async def list_marked(self) -> list[Machine]:
        """Every machine that carries a mark of ours, to find orphans."""

    async def close(self) -> None: ...


class Publisher(Protocol):
    """Announces to the outside what came and went. Idempotent: the same call twice announces once."""

    async def publish(self, instance: Instance) -> None:
        """It is ready and active: its routes may be served."""

    async def withdraw(self, instance: Instance) -> None:
        """Its routes end before its machine does."""

    async def retire(self, instance: Instance) -> None:
        """Its machine is gone."""


class WebhookEndpointRepository(Protocol):
    async def add(self, endpoint: WebhookEndpoint) -> None: ...

    async def get(self, endpoint_id: str) -> WebhookEndpoint | None: ...

    async def list_enabled(self) -> list[WebhookEndpoint]:
        """In order of id."""

    async def disable(self, endpoint_id: str, at: datetime) -> bool:
        """False when it is missing or was disabled already."""


class WebhookDeliveryRepository(Protocol):
    async def add(self, delivery: WebhookDelivery) -> None:
        """No error when one with this id exists: the event was announced before."""

    async def get(self, delivery_id: str) -> WebhookDelivery | None: ...

    async def due(self, endpoint_id: str, now: datetime, *, limit: int) -> list[WebhookDelivery]:
        """Pending ones whose next attempt is not later than `now`, the longest overdue first."""

    async def replace(self, delivery: WebhookDelivery, *, attempted: WebhookDelivery) -> bool:
        """Compare-and-set on the attempt, by its number and when it was due; False when another process was first, or
        the delivery was restarted meanwhile."""

    async def restart(self, delivery_id: str, now: datetime) -> WebhookDelivery | None:
        """Pending again, from the first attempt on; None when there is none."""

    async def page(self, *, state: DeliveryState | None, limit: int, after: str | None) -> list[WebhookDelivery]:
        """At most `limit` in order of id, behind `after`."""


class WebhookSender(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer; its body is not read beyond a bound. No redirect is followed. Raises Unavailable
        with the reason when there is no answer within the adapter's deadline."""


class Entitlements(Protocol):
    """What customers may have, asked at the moment of each decision. Admins are exempt before this is asked."""

    async def of(self, user_id: str) -> Entitlement | None:
        """None when the customer may have nothing now."""

    async def coming(self, user_id: str) -> ComingEntitlement | None:
        """What will replace it, where a change is ordered already: what is made until then has to fit into both."""


class InstanceEffects(Protocol):
    """What billing and administrators do to instances, each as an operation. `key` makes a repeated call find the
    operation that the first one made. All answer with the operation's id."""

    async def suspend(self, instance_id: str, reason: str, *, key: str) -> str: ...

    async def unsuspend(self, instance_id: str, *, key: str) -> str: ...

    async def unsuspend_again(self, instance_id: str, *, key: str) -> str | None:
        """As `unsuspend`; and where this key's operation failed, it is taken up once more after a pause. None when
        there is nothing to do now: it is under way, it failed a moment ago, or something else is done."""

    async def delete(self, instance_id: str, reason: str, *, key: str) -> str: ...

    def holdings(self, owner_id: str) -> AbstractAsyncContextManager[Sequence[Holding]]:
        """What a customer has and is having made; nothing more can be asked for while the block lasts. Raises
        Overloaded."""


class OperationRepository(Protocol):
    """Operations with the lease of whoever runs them. The server's clock decides when a lease has ended."""

    async def deployment_id(self) -> str:
        """A short name of this database, made once. Marks begin with it, so that two control planes on one provider
        tell their machines apart."""

    async def add(self, operation: Operation) -> None:
        """Raises Conflict: `operation_key_taken` for a key that is in use, `operation_in_progress` when another
        operation on this instance is unfinished."""

    async def get(self, operation_id: str) -> Operation | None: ...

    async def find_by_key(self, key: str) -> Operation | None: ...

    async def find_active(self, instance_id: str) -> Operation | None:
        """The unfinished operation on this instance."""

    async def list_active(self) -> list[Operation]: ...

    async def has_deleted(self, instance_id: str) -> bool:
        """Whether a deletion of this instance came to its good end."""

    async def page(
        self, *, owner_id: str | None, phases: Sequence[Phase] | None, limit: int, after: str | None
    ) -> list[Operation]:
        """Newest first: those with an id less than `after`."""

    async def list_unfinished_of(self, owner_id: str) -> list[Operation]: ...

    async def list_due(self, now: datetime, *, provider: str | None, limit: int) -> list[str]:
        """Ids of unfinished operations that nobody runs: those of this provider, or that need none."""

    async def claim(self, operation_id: str, runner: str, *, lease_seconds: float) -> Operation | None:
        """Take the lease of an unfinished operation; `fence` and `revision` grow. None while another holds it."""

    async def renew(self, operation: Operation) -> Operation | None:
        """Lengthen the lease under this runner and fence. What is stored now, or None when the lease was lost."""

    async def save(self, operation: Operation) -> Operation:
        """Store the next revision and lengthen the lease. Raises StaleRevision unless what is stored has this revision,
        runner and fence."""

    async def release(self, operation: Operation) -> None:
        """End the lease early. Nothing happens when it was lost."""

    async def request_cancel(self, operation_id: str, phases: Sequence[Phase]) -> Operation | None:
        """Atomically, while it is in one of these phases; what is stored then. None when it is in another."""

    async def amend(self, operation: Operation) -> Operation:
        """Store the next revision of an operation that no one runs. Raises StaleRevision, or Conflict
        (`operation_in_progress`) as `add` does."""

    async def changed_since(self, since: datetime) -> tuple[list[Operation], datetime]:
        """As `InstanceRepository.changed_since`."""

    async def server_now(self) -> datetime:
        """A moment to hand to `changed_since`."""


class VmidReservations(Protocol):
    """Which vmids are promised to operations whose instances are not stored yet."""

    async def reserve(self, operation_id: str, first: int, last: int, is_taken: Callable[[int], bool]) -> int | None:
        """One of the range, atomically; the one that this operation holds already, if any. None when all are taken."""

    async def release(self, operation_id: str) -> None:
        """No error when there is none."""

    async def holders(self) -> dict[int, str]:
        """Every reserved vmid with its operation."""
