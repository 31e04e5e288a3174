"""Accounts: sign-in, tokens, sessions, passwords and API keys. Rules live in `controlplane.auth`."""

from __future__ import annotations

from controlplane.auth.sessions import Login
from controlplane.clock import rfc3339
from controlplane.errors import Forbidden, NotFound
from controlplane.models import ApiKey, Session, User
from handlers.base import Answer, ApiHandler


def user_document(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "role": user.role.value,
        "createdAt": rfc3339(user.created_at),
        "suspension": None
        if user.suspension is None
        else {"reason": user.suspension.reason, "since": rfc3339(user.suspension.since)},
    }


def _login_answer(login: Login) -> Answer:
    return Answer(
        {
            "accessToken": login.access_token,
            "refreshToken": login.refresh_token,
            "expiresInSeconds": login.expires_in_seconds,
            "user": user_document(login.user),
        }
    )


def _session_document(session: Session, current_id: str | None) -> dict[str, object]:
    return {
        "id": session.id,
        "createdAt": rfc3339(session.created_at),
        "lastUsedAt": rfc3339(session.last_used_at),
        "expiresAt": rfc3339(session.expires_at),
        "userAgent": session.user_agent,
        "address": session.address,
        "current": session.id == current_id,
    }


def _api_key_document(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "createdAt": rfc3339(key.created_at),
        "expiresAt": None if key.expires_at is None else rfc3339(key.expires_at),
        "lastUsedAt": None if key.last_used_at is None else rfc3339(key.last_used_at),
    }


class RegisterHandler(ApiHandler):
    async def on_post(self) -> Answer:
        if not self.services.settings.registration_enabled:
            raise Forbidden("Registration is closed here; ask the operator for an account.", code="registration_closed")
        await self.services.sessions.register(self.body["email"], self.body["password"], address=self.client_address)
        return Answer({"status": "accepted"}, status=202)


class LoginHandler(ApiHandler):
    async def on_post(self) -> Answer:
        login = await self.services.sessions.login(
            self.body["email"],
            self.body["password"],
            address=self.client_address,
            user_agent=self.request.headers.get("User-Agent", ""),
        )
        return _login_answer(login)


class RefreshHandler(ApiHandler):
    async def on_post(self) -> Answer:
        return _login_answer(await self.services.sessions.refresh(self.body["refreshToken"]))


class LogoutHandler(ApiHandler):
    async def on_post(self) -> Answer:
        if self.principal.session_id is not None:
            await self.services.sessions.revoke_session(self.principal.user_id, self.principal.session_id)
        return Answer(status=204)


class LogoutAllHandler(ApiHandler):
    async def on_post(self) -> Answer:
        await self.services.sessions.logout_all(self.principal.user_id)
        return Answer(status=204)


class MeHandler(ApiHandler):
    async def on_get(self) -> Answer:
        user = await self.services.users.get(self.principal.user_id)
        if user is None:
            raise NotFound
        return Answer(user_document(user))


class SessionsHandler(ApiHandler):
    async def on_get(self) -> Answer:
        sessions = await self.services.sessions.list_sessions(self.principal.user_id)
        return Answer({"items": [_session_document(session, self.principal.session_id) for session in sessions]})


class SessionHandler(ApiHandler):
    async def on_delete(self, sid: str) -> Answer:
        await self.services.sessions.revoke_session(self.principal.user_id, sid)
        return Answer(status=204)


class PasswordForgotHandler(ApiHandler):
    async def on_post(self) -> Answer:
        await self.services.resets.forgot(self.body["email"], address=self.client_address)
        return Answer({"status": "accepted"}, status=202)


class PasswordResetHandler(ApiHandler):
    async def on_post(self) -> Answer:
        await self.services.resets.reset(self.body["token"], self.body["password"], address=self.client_address)
        return Answer(status=204)


class PasswordChangeHandler(ApiHandler):
    async def on_post(self) -> Answer:
        await self.services.sessions.change_password(
            self.principal,
            self.body["currentPassword"],
            self.body["newPassword"],
            address=self.client_address,
        )
        return Answer(status=204)


class ApiKeysHandler(ApiHandler):
    async def on_get(self) -> Answer:
        keys = await self.services.api_keys.list_keys(self.principal.user_id)
        return Answer({"items": [_api_key_document(key) for key in keys]})

    async def on_post(self) -> Answer:
        created = await self.services.api_keys.create(
            self.principal, self.body["name"], self.body["scopes"], expires_in_days=self.body["expiresInDays"]
        )
        return Answer({**_api_key_document(created.key), "secret": created.secret}, status=201)


class ApiKeyHandler(ApiHandler):
    async def on_delete(self, key_id: str) -> Answer:
        await self.services.api_keys.revoke(self.principal.user_id, key_id)
        return Answer(status=204)
