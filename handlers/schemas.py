"""Every request's shape, for Cerberus. Unknown keys are refused by name; a Mongo operator is no string."""

from __future__ import annotations

from typing import Any

from controlplane.provisioning.plans import DEFAULT_PLAN, PLANS
from handlers.validation import BodySchema, QuerySchema, Schema

_PASSWORD: dict[str, Any] = {"type": "string", "required": True, "minlength": 1, "maxlength": 1024}
_EMAIL: dict[str, Any] = {
    "type": "string",
    "required": True,
    "minlength": 3,
    "maxlength": 254,  # RFC 5321 section 4.5.3.1.3, less the angle brackets
    "regex": r"[^@\s]+@[^@\s]+",
}
_OPAQUE_TOKEN: dict[str, Any] = {"type": "string", "required": True, "minlength": 1, "maxlength": 512}
_REASON: dict[str, Any] = {
    "type": "string",
    "required": True,
    "minlength": 1,
    "maxlength": 500,
    "check_with": "visible",
}

CREDENTIALS = BodySchema({"email": _EMAIL, "password": _PASSWORD})
REFRESH = BodySchema({"refreshToken": _OPAQUE_TOKEN})
PASSWORD_FORGOT = BodySchema({"email": _EMAIL})
PASSWORD_RESET = BodySchema({"token": _OPAQUE_TOKEN, "password": _PASSWORD})
PASSWORD_CHANGE = BodySchema({"currentPassword": _PASSWORD, "newPassword": _PASSWORD})
API_KEY = BodySchema(
    {
        "name": {"type": "string", "required": True, "minlength": 1, "maxlength": 100, "check_with": "visible"},
        "scopes": {
            "type": "list",
            "required": True,
            "minlength": 1,
            "maxlength": 20,
            "schema": {"type": "string", "maxlength": 64},
        },
        "expiresInDays": {"type": "integer", "min": 1, "max": 365, "nullable": True, "default": None},
    }
)

CONSOLE_COMMAND = BodySchema(
    {"command": {"type": "string", "required": True, "minlength": 1, "maxlength": 4096, "check_with": "one_line"}}
)

_NAME: dict[str, Any] = {"type": "string", "minlength": 1, "maxlength": 100, "check_with": "visible"}
_VMID: dict[str, Any] = {"type": "integer", "min": 100, "max": 999_999_999}  # Proxmox VE's range
_ADDRESS: dict[str, Any] = {"type": "string", "minlength": 2, "maxlength": 64}
_PORT: dict[str, Any] = {"type": "integer", "min": 1, "max": 65535}
_AGENT_TOKEN: dict[str, Any] = {"type": "string", "minlength": 16, "maxlength": 512, "check_with": "header_safe"}
_ID: dict[str, Any] = {"type": "string", "minlength": 1, "maxlength": 64}

INSTANCE_REGISTRATION = BodySchema(
    {
        "kind": {"type": "string", "required": True, "allowed": ["game", "dev"]},
        "name": {**_NAME, "required": True},
        "vmid": {**_VMID, "required": True},
        "address": {**_ADDRESS, "required": True},
        "port": {**_PORT, "required": True},
        "token": {**_AGENT_TOKEN, "required": True},
        "ownerId": {**_ID, "required": True},
        "https": {"type": "boolean", "default": False},
        "idePort": {**_PORT, "default": 8080},
        "gamePort": {**_PORT, "nullable": True, "default": None},
    }
)
INSTANCE_UPDATE = BodySchema(
    {
        "name": _NAME,
        "vmid": _VMID,
        "address": _ADDRESS,
        "port": _PORT,
        "token": _AGENT_TOKEN,
        "ownerId": _ID,
        "https": {"type": "boolean"},
        "idePort": _PORT,
        "gamePort": {**_PORT, "nullable": True},
    }
)
SUSPENSION = BodySchema({"reason": _REASON})

_LIMIT: dict[str, Any] = {"type": "integer", "coerce": int, "min": 1, "max": 200, "default": 50}
_AFTER: dict[str, Any] = {"type": "string", "maxlength": 64}

_PAGE: Schema = {"limit": _LIMIT, "after": _AFTER}
_INSTANCE_LIST: Schema = {
    **_PAGE,
    "kind": {"type": "string", "allowed": ["game", "dev"]},
    "ready": {"type": "string", "allowed": ["true", "false"]},
    "connection": {"type": "string", "allowed": ["connecting", "connected", "disconnected"]},
}
IDE_TOKEN = BodySchema({"mode": {"type": "string", "allowed": ["path", "host"]}}, empty=True)
CONSOLE_SOCKET = QuerySchema({"ticket": {"type": "string", "minlength": 1, "maxlength": 128}})
BACKUP = BodySchema({"name": _NAME}, empty=True)
BACKUP_LIST = QuerySchema({"view": {"type": "string", "allowed": ["normalized"]}})
BACKUP_RESTORE = QuerySchema({"id": {"type": "string", "required": True, "minlength": 1, "maxlength": 200}})
UPLOAD = QuerySchema({"path": {"type": "string", "required": True, "minlength": 1, "maxlength": 4096}})
PAGE = QuerySchema(_PAGE)

_PLAN: Schema = {
    "planId": {"type": "string", "required": True, "minlength": 1, "maxlength": 40},
    "interval": {"type": "string", "allowed": ["month", "year"], "default": "month"},
}
BILLING_PLAN = BodySchema(_PLAN)
BILLING_UPGRADE = BodySchema(
    {**_PLAN, "proratedAt": {"type": "string", "minlength": 20, "maxlength": 32, "check_with": "moment"}}
)
BILLING_PREVIEW = QuerySchema(_PLAN)
INSTANCE_LIST = QuerySchema(_INSTANCE_LIST)
ADMIN_INSTANCE_LIST = QuerySchema({**_INSTANCE_LIST, "ownerId": _ID})

PROVISIONING = BodySchema(
    {
        "name": {**_NAME, "required": True},
        "plan": {"type": "string", "allowed": list(PLANS), "default": DEFAULT_PLAN},
    }
)
OPERATION_LIST = QuerySchema(
    {**_PAGE, "state": {"type": "string", "allowed": ["any", "underWay", "needsAdministrator"], "default": "any"}}
)

WEBHOOK = BodySchema(
    {
        "url": {"type": "string", "required": True, "minlength": 8, "maxlength": 2048, "check_with": "header_safe"},
        "events": {
            "type": "list",
            "required": True,
            "minlength": 1,
            "maxlength": 20,
            "schema": {"type": "string", "maxlength": 64},
        },
    }
)
WEBHOOK_DELIVERY_LIST = QuerySchema({**_PAGE, "state": {"type": "string", "allowed": ["pending", "delivered", "dead"]}})
