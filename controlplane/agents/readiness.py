"""Semantic readiness: the one predicate that says whether a workload can be used. Pure.

Everything that waits for, caches or publishes readiness asks this and nothing else (docs/agent-contract.md, `/ready`).
"""

from __future__ import annotations


def is_agent_ready_result(status: int, document: object) -> bool:
    """Whether `/ready` said so: status 200 and a JSON object whose `ready` is exactly `true`.

    `document` is the parsed body, or None where it could not be parsed.
    """
    return status == 200 and isinstance(document, dict) and document.get("ready") is True
