"""A principal as fields of a document: of whatever was opened in the name of a session or an API key."""

from __future__ import annotations

from typing import Any

from controlplane.models import Principal, Role
from controlplane.storage.database import Document


def principal_fields(principal: Principal) -> dict[str, Any]:
    return {
        "user_id": principal.user_id,
        "email": principal.email,
        "role": principal.role.value,
        "session_id": principal.session_id,
        "api_key_id": principal.api_key_id,
        "scopes": None if principal.scopes is None else sorted(principal.scopes),
    }


def to_principal(row: Document) -> Principal:
    return Principal(
        user_id=row["user_id"],
        email=row["email"],
        role=Role(row["role"]),
        session_id=row["session_id"],
        api_key_id=row["api_key_id"],
        scopes=None if row["scopes"] is None else frozenset(row["scopes"]),
    )
