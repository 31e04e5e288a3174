"""Orders under way, in `billing_orders`: one document for each user and kind, so that the same order exists once."""

from __future__ import annotations

from datetime import datetime

from pymongo.errors import DuplicateKeyError

from controlplane.billing.accounts import Order, OrderKind
from controlplane.errors import StorageUnavailable
from controlplane.storage.database import Database, Document
from controlplane.storage.documents import exact
from controlplane.storage.failures import translated

_ATTEMPTS = 5


class MongoOrderRepository:
    """Satisfies `billing.ports.OrderRepository`."""

    def __init__(self, database: Database) -> None:
        self._orders = database.collection("billing_orders")

    async def open(
        self, user_id: str, kind: OrderKind, target: str, *, key: str, now: datetime, not_before: datetime
    ) -> Order:
        new = {
            "user_id": exact(user_id),
            "kind": kind.value,
            "target": exact(target),
            "key": exact(key),
            "created_at": now,
            "result": None,
        }
        for _ in range(_ATTEMPTS):
            with translated():
                row = await self._orders.find_one({"_id": _id(user_id, kind)})
            if row is not None and row["target"] == target and row["created_at"] >= not_before:
                return _to_order(row)
            if await self._take_place(_id(user_id, kind), row, new):
                return _to_order(new)
        raise StorageUnavailable("Too many orders of one account at once; try again.")

    async def _take_place(self, order_id: str, row: Document | None, new: Document) -> bool:
        """False when another was first."""
        try:
            with translated():
                if row is None:
                    await self._orders.insert_one({"_id": order_id, **new})
                    return True
                result = await self._orders.replace_one({"_id": order_id, "key": row["key"]}, new)
        except DuplicateKeyError:
            return False
        return result.matched_count == 1

    async def get(self, user_id: str, kind: OrderKind) -> Order | None:
        with translated():
            row = await self._orders.find_one({"_id": _id(user_id, kind)})
        return None if row is None else _to_order(row)

    async def set_result(self, order: Order, result: str) -> None:
        with translated():
            await self._orders.update_one(_held(order), {"$set": {"result": exact(result)}})

    async def close(self, order: Order) -> None:
        with translated():
            await self._orders.delete_one(_held(order))


def _held(order: Order) -> Document:
    return {"_id": _id(order.user_id, order.kind), "key": exact(order.key)}


def _id(user_id: str, kind: OrderKind) -> str:
    return f"{kind.value}:{exact(user_id)}"


def _to_order(row: Document) -> Order:
    return Order(row["user_id"], OrderKind(row["kind"]), row["target"], row["key"], row["created_at"], row["result"])
