"""What every route of the agent shares: the bearer check, JSON in and out, refusals as JSON."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Mapping
from typing import Any

from tornado.web import HTTPError, RequestHandler

from controlplane.refagent.faults import AgentFault

BODY_LIMIT_BYTES = 64 << 10

_LOG = logging.getLogger("refagent")


def authorized(header: str | None, token: str) -> bool:
    """Whether the Authorization header carries the token, in time that does not depend on where it differs."""
    scheme, _, given = (header or "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return matches and scheme.lower() == "bearer"


class Guarded(RequestHandler):
    """The bearer check before anything else, also for routes that do not exist."""

    def prepare(self) -> None:
        if not authorized(self.request.headers.get("Authorization"), self.settings["token"]):
            raise AgentFault(401, "unauthorized", "The bearer token of this agent is needed.")

    def set_default_headers(self) -> None:
        self.set_header("Server", "controlplane-refagent")
        self.set_header("Cache-Control", "no-store")

    def reply(self, body: Mapping[str, Any], status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(body))

    def begin_reply(self, body: Mapping[str, Any], status: int) -> None:
        """Send a whole answer without ending the exchange: the request's body may still be coming in."""
        encoded = json.dumps(body).encode()
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Content-Length", str(len(encoded)))
        self.write(encoded)
        self.flush()

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises AgentFault 400 or 422."""
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise AgentFault(400, "malformed_body", "The body is not JSON in UTF-8.") from None
        if not isinstance(body, dict):
            raise AgentFault(422, "validation_failed", "The body must be a JSON object.")
        return body

    def one_query_value(self, name: str) -> str:
        """Exactly one value of a query parameter, as it was sent. Raises AgentFault 422."""
        given = self.request.query_arguments.get(name, [])  # not get_query_arguments: it turns controls into spaces
        try:
            values = [value.decode() for value in given]
        except UnicodeDecodeError:
            raise AgentFault(422, "validation_failed", f"The query parameter {name} is not UTF-8.") from None
        if len(values) != 1 or not values[0]:
            raise AgentFault(422, "validation_failed", f"Give the query parameter {name} once.")
        return values[0]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        fault = kwargs.get("exc_info", (None, None))[1]
        if isinstance(fault, AgentFault):
            if fault.status == 401:
                self.set_header("WWW-Authenticate", "Bearer")
            self.reply({"error": fault.message, "code": fault.code, **fault.extra}, fault.status)
            return
        code = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed"}.get(
            status_code, "internal_error"
        )
        self.reply({"error": self._reason, "code": code}, status_code)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        fault = kwargs.get("exc_info", (None, None))[1]
        super().send_error(fault.status if isinstance(fault, AgentFault) else status_code, **kwargs)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, AgentFault | HTTPError):
            _LOG.error("%s %s failed", self.request.method, self.request.path, exc_info=value)


class NoSuchRoute(Guarded):
    """Everything that is not in the table."""

    def prepare(self) -> None:
        super().prepare()
        raise AgentFault(404, "not_found", "There is no such route.")
