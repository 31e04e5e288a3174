"""What a connection that could not be made means, in words. Pure."""

from __future__ import annotations

import os
import ssl

from controlplane.errors import AgentUnreachable


def unreachable(error: OSError) -> AgentUnreachable:
    if isinstance(error, ssl.SSLError):
        return AgentUnreachable(f"The agent's TLS was refused: {error.reason or error}.")
    said = os.strerror(error.errno) if error.errno else error
    return AgentUnreachable(f"The agent cannot be reached: {said}.")
