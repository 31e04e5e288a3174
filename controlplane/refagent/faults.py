"""What the agent refuses, with the HTTP status and the stable code that its answer carries."""

from __future__ import annotations

from typing import Any


class AgentFault(Exception):
    """A refusal that a caller sees as `{"error": message, "code": code, …extra}` with this status."""

    def __init__(self, status: int, code: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra


def conflict(code: str, message: str, **extra: Any) -> AgentFault:
    return AgentFault(409, code, message, **extra)
