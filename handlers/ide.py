"""What the API says of IDEs: the address that opens one, and how code-server is. The IDE itself is `ide_request`."""

from __future__ import annotations

from urllib.parse import urlsplit

from controlplane.clock import rfc3339
from controlplane.errors import Conflict, NotFound
from controlplane.ide.cookies import TOKEN_PARAMETER
from controlplane.ide.targets import PATH_ROOT, host_port, is_loopback
from controlplane.models import IdeMode, Instance, InstanceKind
from handlers.base import Answer
from handlers.client_address import request_scheme
from handlers.instances import InstanceHandler, forwarded


class IdeTokenHandler(InstanceHandler):
    kind = InstanceKind.DEV

    async def on_post(self, instance_id: str) -> Answer:
        instance = self.services.instances.find_usable(instance_id, self.principal, self.kind)
        await self.services.rights.require_ide(self.principal, instance)
        mode = self._mode(self.body.get("mode"))
        base = self._base(mode, instance)
        issued = await self.services.ide.tokens.issue(self.principal, instance, mode)
        await self.audit("instance.ide_token", instance.id, {"mode": mode.value})
        return Answer(
            {
                "token": issued.secret,
                "expiresAt": rfc3339(issued.expires_at),
                "url": f"{base}/?{TOKEN_PARAMETER}={issued.secret}",
            }
        )

    def _mode(self, wanted: str | None) -> IdeMode:
        """As asked for, else as the settings prefer. Raises Conflict where this installation does not serve it."""
        settings = self.services.settings
        offered = {
            IdeMode.HOST: settings.dev_ide_host_suffix is not None,
            IdeMode.PATH: settings.dev_ide_path_mode_enabled,
        }
        if not any(offered.values()):
            raise Conflict("No IDE is served here: there is no host for it, and paths are off.", code="ide_off")
        if wanted is None:
            hosted = offered[IdeMode.HOST] and (settings.dev_ide_return_hosted_url or not offered[IdeMode.PATH])
            return IdeMode.HOST if hosted else IdeMode.PATH
        mode = IdeMode(wanted)
        if not offered[mode]:
            raise Conflict(
                f"IDEs are not served by {mode.value} here.", code="ide_mode_off", details={"mode": mode.value}
            )
        return mode

    def _base(self, mode: IdeMode, instance: Instance) -> str:
        """Where the IDE is. Raises Conflict (`https_required`) where its cookie would not be kept."""
        settings = self.services.settings
        public = urlsplit(settings.public_url)
        scheme, port = public.scheme, public.port
        if is_loopback(public.hostname or ""):
            # Without a PUBLIC_URL of its own (a try-out on one machine): there the caller came to is where people are.
            scheme = request_scheme(
                self.request.remote_ip or "", self.request.headers.get("X-Forwarded-Proto"), settings.trusted_proxies
            )
            port = host_port(self.request.headers.get("Host", ""))
        name = public.hostname or ""
        if mode is IdeMode.HOST:
            name = f"dev-{instance.vmid}.{settings.dev_ide_host_suffix}"
        if scheme != "https" and not is_loopback(name):
            raise Conflict("An IDE is served over HTTPS; PUBLIC_URL does not begin with https.", code="https_required")
        if mode is IdeMode.PATH:
            return f"{PATH_ROOT}{instance.id}"
        return f"{scheme}://{name}{f':{port}' if port is not None else ''}"


class CodeServerStatusHandler(InstanceHandler):
    kind = InstanceKind.DEV

    async def on_get(self, instance_id: str) -> Answer:
        instance = self.instance(instance_id)
        endpoint = self.services.instances.endpoint(instance)
        reply = await self.services.ide.codeserver.status(endpoint, request_id=self.request_id)
        if reply is None:
            raise NotFound("This container's agent does not offer the state of code-server.")
        return forwarded(reply)
