"""code-server in a container: started, stopped and restarted through its agent, and whether it runs.

The IDE's bytes do not come this way: they go to code-server's own port.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from controlplane.agents.client import AgentClient, AgentReply
from controlplane.errors import AgentError, AgentRefused, Overloaded
from controlplane.models import AgentEndpoint


class Condition(Enum):
    """Why an IDE does not answer, as far as its agent can tell."""

    STOPPED = "stopped"
    STARTING = "starting"
    UNKNOWN = "unknown"
    AGENT_AWAY = "agent_away"


@dataclass(frozen=True, slots=True)
class CodeServer:
    """The controls of one agent's code-server."""

    agents: AgentClient

    async def act(self, action: str, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply:
        """`action` is start, stop or restart. Raises AgentError."""
        calls = {
            "start": self.agents.start_codeserver,
            "stop": self.agents.stop_codeserver,
            "restart": self.agents.restart_codeserver,
        }
        return await calls[action](endpoint, request_id=request_id)

    async def status(self, endpoint: AgentEndpoint, *, request_id: str) -> AgentReply | None:
        """The agent's own answer; None where it does not offer one. Raises AgentError."""
        try:
            return await self.agents.get_codeserver_status(endpoint, request_id=request_id)
        except AgentRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def condition(self, endpoint: AgentEndpoint, *, request_id: str) -> Condition:
        """Why its port does not answer. Never raises."""
        try:
            reply = await self.status(endpoint, request_id=request_id)
        except (AgentRefused, Overloaded):
            return Condition.UNKNOWN
        except AgentError:
            return Condition.AGENT_AWAY
        document = None if reply is None else reply.document
        state = None if document is None else document.get("state")
        if state in ("stopped", "crashed", "error"):
            return Condition.STOPPED
        return Condition.STARTING if state in ("starting", "running", "installing") else Condition.UNKNOWN
