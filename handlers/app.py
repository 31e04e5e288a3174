"""The whole route table, and the application made of it."""

from __future__ import annotations

from typing import Any

import tornado.web
from tornado.httputil import HTTPServerConnectionDelegate, HTTPServerRequest

from controlplane.auth.api_keys import Scope
from controlplane.services import Services
from handlers import (
    admin,
    auth,
    backups,
    billing,
    console,
    dev,
    edge,
    events,
    game,
    ide,
    operations,
    ops,
    pages,
    uploads,
    webhooks,
)
from handlers import schemas as shape
from handlers.assets import load_assets
from handlers.base import NotFoundHandler
from handlers.front import Front
from handlers.openapi import describe
from handlers.request_log import RequestLog
from handlers.routing import Access, Endpoint, Route

PUBLIC, ACCOUNT, ADMIN = Access.PUBLIC, Access.ACCOUNT, Access.ADMIN
READ, POWER, CONSOLE = Scope.INSTANCES_READ, Scope.INSTANCES_POWER, Scope.INSTANCES_CONSOLE
BACKUPS, FILES = Scope.INSTANCES_BACKUPS, Scope.INSTANCES_FILES
PROVISION = Scope.INSTANCES_PROVISION
IDE = Scope.INSTANCES_IDE


def _power(what: str) -> dict[str, Endpoint]:
    return {"POST": Endpoint(ACCOUNT, f"Start, stop or restart {what}; the agent's answer", POWER)}


def _provision(what: str) -> Endpoint:
    return Endpoint(ACCOUNT, f"Ask for a {what}; the operation that makes it", PROVISION, body=shape.PROVISIONING,
                    success=202, idempotent=True)  # fmt: skip


def _delete(what: str) -> Endpoint:
    return Endpoint(ACCOUNT, f"Delete the {what} with all its data; the operation that does it", PROVISION, success=202)


def _command(what: str) -> dict[str, Endpoint]:
    return {"POST": Endpoint(ACCOUNT, f"Send one console line to {what}", CONSOLE, body=shape.CONSOLE_COMMAND)}


# fmt: off
ROUTES: tuple[Route, ...] = (
    # Game servers and dev containers: first, since portals read them most
    Route("/api/game/servers", game.GameServersHandler, {
        "GET": Endpoint(ACCOUNT, "List game servers with their state", READ, query=shape.INSTANCE_LIST),
        "POST": _provision("game server")}),
    Route("/api/game/servers/{instance_id}/state", game.GameServerStateHandler, {
        "GET": Endpoint(ACCOUNT, "The normalized state; its revision is the ETag", READ)}),
    Route("/api/game/servers/{instance_id}", game.GameServerHandler, {
        "GET": Endpoint(ACCOUNT, "One game server with its state", READ),
        "DELETE": _delete("game server")}),
    Route("/api/game/servers/{instance_id}/{action:start|stop|restart}", game.GameServerPowerHandler, _power("it")),
    Route("/api/game/servers/{instance_id}/console/command", game.GameServerCommandHandler, _command("it")),
    Route("/api/game/servers/{instance_id}/console", console.GameServerConsoleHandler, {
        "GET": Endpoint(PUBLIC, "The live console (a websocket; it is authenticated by its first message or a ticket)",
                        query=shape.CONSOLE_SOCKET, success=101)}),
    Route("/api/game/servers/{instance_id}/console/ticket", console.GameServerConsoleTicketHandler, {
        "POST": Endpoint(ACCOUNT, "A ticket that opens the console once, within 30 s", CONSOLE, success=201)}),
    Route("/api/game/servers/{instance_id}/backups", backups.BackupsHandler, {
        "GET": Endpoint(ACCOUNT, "The agent's list of backups as it is, or normalized", BACKUPS,
                        query=shape.BACKUP_LIST),
        "POST": Endpoint(ACCOUNT, "Create a backup; may take minutes", BACKUPS, body=shape.BACKUP, success=201,
                         idempotent=True)}),
    Route("/api/game/servers/{instance_id}/backups/restore", backups.BackupRestoreHandler, {
        "POST": Endpoint(ACCOUNT, "Put a backup in the place of the files; may take minutes", BACKUPS,
                         query=shape.BACKUP_RESTORE)}),
    Route("/api/game/servers/{instance_id}/backups/{backup_id}", backups.OneBackupHandler, {
        "DELETE": Endpoint(ACCOUNT, "Delete a backup", BACKUPS)}),
    Route("/api/game/servers/{instance_id}/files/upload", uploads.GameServerUploadHandler, {
        "POST": Endpoint(ACCOUNT, "Send a file: the raw body, of any size", FILES, query=shape.UPLOAD, success=201,
                         raw_body=True)}),
    Route("/api/dev", dev.DevContainersHandler, {
        "GET": Endpoint(ACCOUNT, "List dev containers with their state", READ, query=shape.INSTANCE_LIST),
        "POST": _provision("dev container")}),
    Route("/api/dev/{instance_id}/state", dev.DevContainerStateHandler, {
        "GET": Endpoint(ACCOUNT, "The normalized state; its revision is the ETag", READ)}),
    Route("/api/dev/{instance_id}", dev.DevContainerHandler, {
        "GET": Endpoint(ACCOUNT, "One dev container with its state", READ),
        "DELETE": _delete("dev container")}),
    Route("/api/dev/{instance_id}/{action:start|stop|restart}", dev.DevContainerPowerHandler, _power("it")),
    Route("/api/dev/{instance_id}/console/command", dev.DevContainerCommandHandler, _command("it")),
    Route("/api/dev/{instance_id}/console", console.DevContainerConsoleHandler, {
        "GET": Endpoint(PUBLIC, "The live console (a websocket; it is authenticated by its first message or a ticket)",
                        query=shape.CONSOLE_SOCKET, success=101)}),
    Route("/api/dev/{instance_id}/console/ticket", console.DevContainerConsoleTicketHandler, {
        "POST": Endpoint(ACCOUNT, "A ticket that opens the console once, within 30 s", CONSOLE, success=201)}),
    Route("/api/dev/{instance_id}/files/upload", uploads.DevContainerUploadHandler, {
        "POST": Endpoint(ACCOUNT, "Send a file: the raw body, of any size", FILES, query=shape.UPLOAD, success=201,
                         raw_body=True)}),
    Route("/api/dev/{instance_id}/codeserver/{action:start|stop|restart}", dev.CodeServerHandler,
          _power("its code-server")),
    Route("/api/dev/{instance_id}/codeserver/status", ide.CodeServerStatusHandler, {
        "GET": Endpoint(ACCOUNT, "Whether its code-server runs: the agent's answer, where it offers one", IDE)}),
    Route("/api/dev/{instance_id}/ide-token", ide.IdeTokenHandler, {
        "POST": Endpoint(ACCOUNT, "An address that opens its IDE once, within a minute", IDE, body=shape.IDE_TOKEN)}),

    # What is done to instances in several steps
    Route("/api/operations", operations.OperationsHandler, {
        "GET": Endpoint(ACCOUNT, "The caller's operations, newest first", READ, query=shape.PAGE)}),
    Route("/api/operations/{operation_id}", operations.OperationHandler, {
        "GET": Endpoint(ACCOUNT, "One operation, with its steps and progress", READ)}),
    Route("/api/operations/{operation_id}/cancel", operations.OperationCancelHandler, {
        "POST": Endpoint(ACCOUNT, "Cancel a provisioning, until its instance is stored", PROVISION, success=202)}),
    Route("/api/admin/operations", operations.AdminOperationsHandler, {
        "GET": Endpoint(ADMIN, "Everybody's operations; those that need somebody", Scope.ADMIN,
                        query=shape.OPERATION_LIST)}),
    Route("/api/admin/operations/{operation_id}/{action:retry}", operations.AdminOperationHandler, {
        "POST": Endpoint(ADMIN, "Try again what needs somebody", Scope.ADMIN, success=202)}),
    Route("/api/admin/operations/{operation_id}/{action:forget}", operations.AdminOperationHandler, {
        "POST": Endpoint(ADMIN, "Give up on what is left; machines are left alone", Scope.ADMIN)}),

    Route("/api/events", events.EventsHandler, {
        "GET": Endpoint(ACCOUNT, "Server-sent events of what the caller may see; Last-Event-ID resumes", READ)}),

    # Accounts
    Route("/api/auth/register", auth.RegisterHandler, {
        "POST": Endpoint(PUBLIC, "Make an account, where that is open", body=shape.CREDENTIALS, success=202)}),
    Route("/api/auth/login", auth.LoginHandler, {
        "POST": Endpoint(PUBLIC, "Sign in", body=shape.CREDENTIALS)}),
    Route("/api/auth/refresh", auth.RefreshHandler, {
        "POST": Endpoint(PUBLIC, "Exchange a refresh token for new tokens", body=shape.REFRESH)}),
    Route("/api/auth/logout", auth.LogoutHandler, {
        "POST": Endpoint(ACCOUNT, "End this session", success=204)}),
    Route("/api/auth/logout-all", auth.LogoutAllHandler, {
        "POST": Endpoint(ACCOUNT, "End every session of the account", success=204)}),
    Route("/api/auth/me", auth.MeHandler, {
        "GET": Endpoint(ACCOUNT, "Who is calling", Scope.ACCOUNT_READ)}),
    Route("/api/auth/sessions", auth.SessionsHandler, {
        "GET": Endpoint(ACCOUNT, "Active sessions, newest first")}),
    Route("/api/auth/sessions/{sid}", auth.SessionHandler, {
        "DELETE": Endpoint(ACCOUNT, "Revoke one session", success=204)}),
    Route("/api/auth/password/forgot", auth.PasswordForgotHandler, {
        "POST": Endpoint(PUBLIC, "Ask for a reset link by mail", body=shape.PASSWORD_FORGOT, success=202)}),
    Route("/api/auth/password/reset", auth.PasswordResetHandler, {
        "POST": Endpoint(PUBLIC, "Set a new password with a reset token", body=shape.PASSWORD_RESET, success=204)}),
    Route("/api/auth/password/change", auth.PasswordChangeHandler, {
        "POST": Endpoint(ACCOUNT, "Change the password; other sessions end", body=shape.PASSWORD_CHANGE, success=204)}),
    Route("/api/auth/api-keys", auth.ApiKeysHandler, {
        "GET": Endpoint(ACCOUNT, "List API keys"),
        "POST": Endpoint(ACCOUNT, "Make an API key; its secret is shown once", body=shape.API_KEY, success=201,
                         idempotent=True)}),
    Route("/api/auth/api-keys/{key_id}", auth.ApiKeyHandler, {
        "DELETE": Endpoint(ACCOUNT, "Revoke an API key", success=204)}),

    # Billing
    Route("/api/billing", billing.BillingStateHandler, {
        "GET": Endpoint(ACCOUNT, "Plan, status, what it entitles to and what will change", Scope.ACCOUNT_READ)}),
    Route("/api/billing/plans", billing.BillingPlansHandler, {
        "GET": Endpoint(PUBLIC, "What is for sale")}),
    Route("/api/billing/preview", billing.BillingPreviewHandler, {
        "GET": Endpoint(ACCOUNT, "What a change of plan is, and what it would cost now", query=shape.BILLING_PREVIEW)}),
    Route("/api/billing/invoices", billing.BillingInvoicesHandler, {
        "GET": Endpoint(ACCOUNT, "Invoices, newest first", query=shape.PAGE)}),
    Route("/api/billing/checkout", billing.BillingCheckoutHandler, {
        "POST": Endpoint(ACCOUNT, "The page on which a first plan is paid for", body=shape.BILLING_PLAN, success=201,
                         idempotent=True)}),
    Route("/api/billing/upgrade", billing.BillingUpgradeHandler, {
        "POST": Endpoint(ACCOUNT, "A larger plan, at once", body=shape.BILLING_UPGRADE, idempotent=True)}),
    Route("/api/billing/downgrade", billing.BillingDowngradeHandler, {
        "POST": Endpoint(ACCOUNT, "A smaller plan, from the end of the period", body=shape.BILLING_PLAN,
                         idempotent=True)}),
    Route("/api/billing/cancel", billing.BillingCancelHandler, {
        "POST": Endpoint(ACCOUNT, "End with the period", idempotent=True)}),
    Route("/api/billing/resume", billing.BillingResumeHandler, {
        "POST": Endpoint(ACCOUNT, "Take back an end or a downgrade that has not come", idempotent=True)}),
    Route("/api/billing/portal", billing.BillingPortalHandler, {
        "POST": Endpoint(ACCOUNT, "The page for cards and invoices", success=201)}),
    Route("/api/billing/webhook", billing.BillingWebhookHandler, {
        "POST": Endpoint(PUBLIC, "Events of the payment provider, signed", raw_body=True)}),
    Route("/api/admin/billing/drift", billing.AdminDriftHandler, {
        "GET": Endpoint(ADMIN, "How our records and the payment provider's differed last", Scope.ADMIN)}),

    # Administration
    Route("/api/admin/instances", admin.AdminInstancesHandler, {
        "GET": Endpoint(ADMIN, "List every instance", Scope.ADMIN, query=shape.ADMIN_INSTANCE_LIST),
        "POST": Endpoint(ADMIN, "Register a container that exists already", Scope.ADMIN,
                         body=shape.INSTANCE_REGISTRATION, success=201, idempotent=True)}),
    Route("/api/admin/instances/{instance_id}", admin.AdminInstanceHandler, {
        "GET": Endpoint(ADMIN, "One instance, with where its agent lives", Scope.ADMIN),
        "PATCH": Endpoint(ADMIN, "Change an instance's record", Scope.ADMIN, body=shape.INSTANCE_UPDATE),
        "DELETE": Endpoint(ADMIN, "Forget an instance; its container is left alone", Scope.ADMIN, success=204)}),
    Route("/api/admin/instances/{instance_id}/{action:suspend}", admin.AdminInstanceSuspensionHandler, {
        "POST": Endpoint(ADMIN, "Suspend an instance", Scope.ADMIN, body=shape.SUSPENSION)}),
    Route("/api/admin/instances/{instance_id}/{action:unsuspend}", admin.AdminInstanceSuspensionHandler, {
        "POST": Endpoint(ADMIN, "Lift an instance's suspension", Scope.ADMIN)}),
    Route("/api/admin/users", admin.AdminUsersHandler, {
        "GET": Endpoint(ADMIN, "List users", Scope.ADMIN, query=shape.PAGE)}),
    Route("/api/admin/users/{user_id}", admin.AdminUserHandler, {
        "GET": Endpoint(ADMIN, "One user", Scope.ADMIN)}),
    Route("/api/admin/users/{user_id}/{action:suspend}", admin.AdminUserSuspensionHandler, {
        "POST": Endpoint(ADMIN, "Suspend a user; every session ends", Scope.ADMIN, body=shape.SUSPENSION)}),
    Route("/api/admin/users/{user_id}/{action:unsuspend}", admin.AdminUserSuspensionHandler, {
        "POST": Endpoint(ADMIN, "Lift a user's suspension", Scope.ADMIN)}),

    # What the outside is told
    Route("/api/admin/webhooks", webhooks.WebhooksHandler, {
        "GET": Endpoint(ADMIN, "List outbound webhooks", Scope.ADMIN),
        "POST": Endpoint(ADMIN, "Tell a URL of events, signed as Standard Webhooks says; its secret is shown once",
                         Scope.ADMIN, body=shape.WEBHOOK, success=201, idempotent=True)}),
    Route("/api/admin/webhooks/{webhook_id}", webhooks.WebhookHandler, {
        "DELETE": Endpoint(ADMIN, "Stop telling a URL", Scope.ADMIN, success=204)}),
    Route("/api/admin/webhook-deliveries", webhooks.WebhookDeliveriesHandler, {
        "GET": Endpoint(ADMIN, "What was, is to be, or could not be delivered (state=dead)", Scope.ADMIN,
                        query=shape.WEBHOOK_DELIVERY_LIST)}),
    Route("/api/admin/webhook-deliveries/{delivery_id}/replay", webhooks.WebhookReplayHandler, {
        "POST": Endpoint(ADMIN, "Deliver it again, under the same event id", Scope.ADMIN, success=202)}),
    Route("/edge/traefik.json", edge.TraefikHandler, {
        "GET": Endpoint(PUBLIC, "The edge's routes, for Traefik's HTTP provider; needs the edge's own token")}),

    # The service itself
    Route("/healthz", ops.HealthzHandler, {"GET": Endpoint(PUBLIC, "Alive")}),
    Route("/readyz", ops.ReadyzHandler, {"GET": Endpoint(PUBLIC, "Ready to serve, with reasons")}),
    Route("/metrics", ops.MetricsHandler, {"GET": Endpoint(PUBLIC, "Prometheus metrics")}),
    Route("/api/openapi.json", ops.OpenApiHandler, {"GET": Endpoint(PUBLIC, "This description")}),
    Route("/docs", pages.DocsHandler, {"GET": Endpoint(PUBLIC, "This description, for reading")}),
    Route("/static/{path:*}", pages.AssetHandler, {"GET": Endpoint(PUBLIC, "A file of the dashboard")}),
    Route("/", pages.IndexHandler, {"GET": Endpoint(PUBLIC, "The dashboard")}),
)
# fmt: on


def make_app(services: Services) -> HTTPServerConnectionDelegate:
    """The host rules stand before the routes: on the host of an IDE nothing of the API or the page is ever served."""
    log = RequestLog(services.metrics, every=services.settings.access_log == "all")
    return Front(_make_application(services, log), services, log)


def _streaming(handler: type[tornado.web.RequestHandler]) -> type[tornado.web.RequestHandler]:
    return tornado.web.stream_request_body(type(handler.__name__, (handler,), {}))


_HANDLERS: set[type[tornado.web.RequestHandler]] = {NotFoundHandler, *(route.handler for route in ROUTES)}
_STREAMING = {handler: _streaming(handler) for handler in _HANDLERS}


class _Application(tornado.web.Application):
    """A GET without a body is not streamed: that would cost each read another turn of the loop."""

    def get_handler_delegate(
        self, request: HTTPServerRequest, target_class: type[tornado.web.RequestHandler], *args: Any, **kwargs: Any
    ) -> Any:
        headers = request.headers
        if request.method != "GET" or "Content-Length" in headers or "Transfer-Encoding" in headers:
            target_class = _STREAMING[target_class]
        return super().get_handler_delegate(request, target_class, *args, **kwargs)


def _make_application(services: Services, log: RequestLog) -> tornado.web.Application:
    description = describe(ROUTES)
    assets = load_assets()
    extra: dict[type[tornado.web.RequestHandler], dict[str, object]] = {
        ops.OpenApiHandler: {"description": description.json},
        pages.DocsHandler: {"page": pages.render_docs(description.document)},
        pages.AssetHandler: {"assets": assets},
        pages.IndexHandler: {"assets": assets},
    }
    rules = [
        tornado.web.url(
            route.pattern,
            route.handler,
            {"services": services, "route": route, **extra.get(route.handler, {})},
            name=route.name,
        )
        for route in ROUTES
    ]
    unknown = Route("(unknown)", NotFoundHandler, {})
    return _Application(
        rules,
        default_handler_class=NotFoundHandler,
        default_handler_args={"services": services, "route": unknown},
        log_function=log.write,
    )
