"""What is wrong with an answer over HTTP/1.1: the errors of httptools, which parses all of them, as errors of ours."""

from __future__ import annotations

import httptools

from controlplane.errors import AgentProtocolError


def fault_of(error: httptools.HttpParserError) -> AgentProtocolError:
    """What a callback of ours has refused, else that this is no HTTP/1.1. A callback that failed otherwise is a bug."""
    if isinstance(error.__context__, AgentProtocolError):
        return error.__context__
    if isinstance(error, httptools.HttpParserCallbackError):
        raise error
    return AgentProtocolError(f"The answer is not HTTP/1.1: {error}.", code="http_invalid")
