"""Errors of sockets and of the parser as errors of ours: why an agent was not reached, why its answer is none. Pure.

Also for the apps in an agent's container, which are reached the same way.
"""

from __future__ import annotations

import os
import ssl

import httptools

from controlplane.errors import AgentProtocolError, AgentUnreachable


def unreachable(error: OSError) -> AgentUnreachable:
    """Why a connection could not be made."""
    if isinstance(error, ssl.SSLError):
        return AgentUnreachable(f"The agent's TLS was refused: {error.reason or error}.")
    said = os.strerror(error.errno) if error.errno else error
    return AgentUnreachable(f"The agent cannot be reached: {said}.")


def fault_of(error: httptools.HttpParserError) -> AgentProtocolError:
    """What a callback of ours has refused, else that this is no HTTP/1.1. A callback that failed otherwise is a bug."""
    if isinstance(error.__context__, AgentProtocolError):
        return error.__context__
    if isinstance(error, httptools.HttpParserCallbackError):
        raise error
    return AgentProtocolError(f"The answer is not HTTP/1.1: {error}.", code="http_invalid")
