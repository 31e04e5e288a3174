"""The directory of instances: who owns what, where its agent lives, and who may see it.

Every instance is held in memory, so that a portal read costs no database read. A write goes to the database first and
is seen here at once; writes of other processes arrive by `sync`, which a job calls every second.
"""

from __future__ import annotations

import bisect
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from controlplane.errors import Conflict, InvalidInput, NotFound, StaleRevision, Suspended
from controlplane.models import AgentEndpoint, Instance, InstanceKind, MachineAddress, Principal, Suspension
from controlplane.ports import Clock, InstanceRepository, UserRepository
from controlplane.secretbox import SecretBox

ID_PREFIXES: Mapping[InstanceKind, str] = {InstanceKind.GAME: "gs_", InstanceKind.DEV: "dev_"}
_WRITE_ATTEMPTS = 5
_REMEMBERED_REMOVALS = 10_000

AddressCheck = Callable[[str], None]
"""Raises InvalidInput when no agent may live at this address (see `agents.addresses`)."""

ChangeListener = Callable[[Instance | None, Instance | None], None]
"""Called with what an instance was and what it is; None stands for absent."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A container that exists already, as an admin describes it. `token` is the agent's bearer secret."""

    kind: InstanceKind
    name: str
    vmid: int
    address: str
    port: int
    token: str
    owner_id: str
    https: bool = False
    ide_port: int = 8080
    game_port: int | None = None


class InstanceDirectory:
    """`random_token` gives a URL-safe random string; `check_address` is the rule for where agents may live."""

    def __init__(
        self,
        repository: InstanceRepository,
        users: UserRepository,
        secret_box: SecretBox,
        clock: Clock,
        check_address: AddressCheck,
        random_token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._repository = repository
        self._users = users
        self._secret_box = secret_box
        self._clock = clock
        self._check_address = check_address
        self._random_token = random_token
        self._by_id: dict[str, Instance] = {}
        self._by_vmid: dict[int, str] = {}
        self._ids_of_owner: dict[str, list[str]] = {}
        self._all_ids: list[str] = []
        self._removed_revisions: OrderedDict[str, int] = OrderedDict()
        self._sync_from: datetime | None = None
        self._listeners: list[ChangeListener] = []

    def add_listener(self, listener: ChangeListener) -> None:
        self._listeners.append(listener)

    # -- reading -----------------------------------------------------------------------------------------------------

    def find(self, reference: str, principal: Principal, kind: InstanceKind | None = None) -> Instance:
        """By id or numeric vmid. Raises NotFound alike for what is missing, foreign or of another kind."""
        instance = self.get_by_reference(reference)
        if instance is None or (kind is not None and instance.kind is not kind):
            raise NotFound
        if instance.owner_id != principal.user_id and not principal.is_admin:
            raise NotFound
        return instance

    def find_usable(self, reference: str, principal: Principal, kind: InstanceKind | None = None) -> Instance:
        """As `find`, and raises Suspended when the instance may not be used now."""
        instance = self.find(reference, principal, kind)
        if instance.suspension is not None:
            raise Suspended(
                "This instance is suspended.",
                details={"reason": instance.suspension.reason, "since": instance.suspension.since.isoformat()},
            )
        return instance

    def visible_to(self, principal: Principal, *, after: str | None = None) -> Iterator[Instance]:
        """What the caller may see, in order of id, from behind `after`. An admin sees everything."""
        ids: Sequence[str] = self._all_ids if principal.is_admin else self._ids_of_owner.get(principal.user_id, ())
        start = bisect.bisect_right(ids, after) if after else 0
        return (self._by_id[ids[position]] for position in range(start, len(ids)))

    def of_owner(self, user_id: str) -> list[Instance]:
        """In order of id."""
        return [self._by_id[instance_id] for instance_id in self._ids_of_owner.get(user_id, ())]

    def all(self) -> list[Instance]:
        return list(self._by_id.values())

    def get(self, instance_id: str) -> Instance | None:
        return self._by_id.get(instance_id)

    def get_by_reference(self, reference: str) -> Instance | None:
        """By id or numeric vmid, for whoever decides itself who may see it."""
        instance_id = reference
        if reference.isascii() and reference.isdigit() and len(reference) <= 10:
            instance_id = self._by_vmid.get(int(reference), "")
        return self._by_id.get(instance_id)

    def endpoint(self, instance: Instance) -> AgentEndpoint:
        """Where and with which secret to reach the agent. Raises StorageDamaged when the secret does not open."""
        token = self.open_token(instance.id, instance.sealed_token)
        return AgentEndpoint(instance.address, instance.port, token, instance.https)

    def has_vmid(self, vmid: int) -> bool:
        return vmid in self._by_vmid

    async def fetch(self, instance_id: str) -> Instance | None:
        """As the database has it now, taken in here too; None where it is missing or removed."""
        instance = await self._repository.get(instance_id)
        if instance is None:
            return None
        self._take_in(instance)
        return instance if instance.deleted_at is None else None

    async def has_machine(self, operation_id: str) -> bool:
        """Whether an instance's machine was made by this operation, as the database has it now."""
        return await self._repository.has_machine(operation_id)

    async def live_ids_of(self, owner_id: str, kind: InstanceKind) -> set[str]:
        """As the database has it now."""
        return await self._repository.live_ids_of(owner_id, kind)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def register(self, registration: Registration) -> Instance:
        """Raises InvalidInput for the address or an unknown owner, Conflict when the vmid or the address is taken."""
        self._check_address(registration.address)
        await self._require_owner(registration.owner_id)
        instance_id = ID_PREFIXES[registration.kind] + self._random_token()
        instance = Instance(
            id=instance_id,
            kind=registration.kind,
            vmid=registration.vmid,
            name=registration.name,
            owner_id=registration.owner_id,
            address=registration.address,
            port=registration.port,
            https=registration.https,
            ide_port=registration.ide_port,
            game_port=registration.game_port,
            sealed_token=self.seal_token(instance_id, registration.token),
            created_at=self._clock.now(),
        )
        await self._repository.add(instance)
        self._take_in(instance)
        return instance

    async def admit(self, instance: Instance) -> Instance:
        """Store an instance whose machine was made by an operation: from here on its owner sees it. Raises Conflict
        when the vmid or the address is taken."""
        self._check_address(instance.address)
        await self._repository.add(instance)
        self._take_in(instance)
        return instance

    async def move(self, instance_id: str, where: MachineAddress) -> Instance:
        """Its machine has another address now. Nothing is written where it has not."""
        known = await self.fetch(instance_id)
        changes = asdict(where)
        del changes["agent_token"]  # sealed when the instance was made
        if known is not None and all(getattr(known, name) == value for name, value in changes.items()):
            return known
        return await self.update(instance_id, changes)

    async def update(self, instance_id: str, changes: Mapping[str, Any]) -> Instance:
        """`changes` may hold name, vmid, address, port, https, ide_port, game_port, owner_id and token (the new agent
        secret)."""
        if "owner_id" in changes:
            await self._require_owner(changes["owner_id"])

        def apply(current: Instance) -> Instance:
            fields = dict(changes)
            token = fields.pop("token", None)
            if token is not None:
                fields["sealed_token"] = self.seal_token(instance_id, token)
            changed = replace(current, **fields)
            if (changed.address, changed.port) != (current.address, current.port):
                self._check_address(changed.address)
            return changed

        return await self._write(instance_id, apply)

    async def set_suspension(self, instance_id: str, suspension: Suspension | None) -> Instance:
        return await self._write(instance_id, lambda current: replace(current, suspension=suspension))

    async def set_published(self, instance_id: str, *, published: bool) -> Instance:
        """Nothing is written where it is so already. Raises NotFound."""
        current = await self._repository.get(instance_id)
        if current is not None and current.deleted_at is None and current.published is published:
            return current
        return await self._write(instance_id, lambda each: replace(each, published=published))

    async def remove(self, instance_id: str) -> None:
        """The record becomes a tombstone; the container itself is not touched."""
        at = self._clock.now()
        await self._write(instance_id, lambda current: replace(current, deleted_at=at))

    async def _write(self, instance_id: str, apply: Callable[[Instance], Instance]) -> Instance:
        for _ in range(_WRITE_ATTEMPTS):
            current = await self._repository.get(instance_id)
            if current is None or current.deleted_at is not None:
                raise NotFound
            changed = replace(apply(current), revision=current.revision + 1)
            try:
                await self._repository.replace(changed, expected_revision=current.revision)
            except StaleRevision:
                continue
            self._take_in(changed)
            return changed
        raise Conflict("Others are changing this instance at the same time; try again.", code="stale_revision")

    async def _require_owner(self, owner_id: str) -> None:
        if await self._users.get(owner_id) is None:
            raise InvalidInput({"ownerId": ["there is no such user"]})

    def seal_token(self, instance_id: str, token: str) -> bytes:
        return self._secret_box.seal(token.encode(), _token_context(instance_id))

    def open_token(self, instance_id: str, sealed_token: bytes) -> str:
        """Raises StorageDamaged when the secret does not open."""
        return self._secret_box.open(sealed_token, _token_context(instance_id)).decode()

    # -- keeping up --------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        instances, self._sync_from = await self._repository.load_all()
        for instance in instances:
            self._take_in(instance)

    async def sync(self) -> None:
        """Take in what other processes wrote."""
        if self._sync_from is None:
            await self.load()
            return
        changed, self._sync_from = await self._repository.changed_since(self._sync_from)
        for instance in changed:
            self._take_in(instance)

    def _take_in(self, instance: Instance) -> None:
        known = self._by_id.get(instance.id)
        if known is not None and known.revision >= instance.revision:
            return
        if instance.revision <= self._removed_revisions.get(instance.id, 0):
            return  # read before the removal was written, and arrived after it
        if instance.deleted_at is not None:
            self._remember_removal(instance)
            if known is None:
                return
        if known is not None:
            self._unindex(known)
        current = instance if instance.deleted_at is None else None
        if current is not None:
            self._index(current)
        for listener in self._listeners:
            listener(known, current)

    def _remember_removal(self, instance: Instance) -> None:
        self._removed_revisions[instance.id] = instance.revision
        if len(self._removed_revisions) > _REMEMBERED_REMOVALS:
            self._removed_revisions.popitem(last=False)

    def _index(self, instance: Instance) -> None:
        self._by_id[instance.id] = instance
        self._by_vmid[instance.vmid] = instance.id
        bisect.insort(self._all_ids, instance.id)
        bisect.insort(self._ids_of_owner.setdefault(instance.owner_id, []), instance.id)

    def _unindex(self, instance: Instance) -> None:
        del self._by_id[instance.id]
        if self._by_vmid.get(instance.vmid) == instance.id:
            del self._by_vmid[instance.vmid]
        self._all_ids.remove(instance.id)
        owned = self._ids_of_owner[instance.owner_id]
        owned.remove(instance.id)
        if not owned:
            del self._ids_of_owner[instance.owner_id]


def _token_context(instance_id: str) -> str:
    return f"instance:{instance_id}:token"
