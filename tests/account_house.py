"""The account services on fakes, wired as the composition root does it."""

from __future__ import annotations

from controlplane.auth.api_keys import ApiKeyService
from controlplane.auth.authenticator import Authenticator
from controlplane.auth.reset import PasswordResetService
from controlplane.auth.sessions import Login, SessionService
from controlplane.auth.throttle import LoginThrottle
from controlplane.auth.tokens import AccessTokens
from controlplane.models import Role, User
from tests.fake_repositories import (
    FakeApiKeyRepository,
    FakeResetTokenRepository,
    FakeSessionRepository,
    FakeUserRepository,
)
from tests.fakes import FakeClock, FakeMailer

SECRET = "kP3nVb8sXw2qLz9tRf6yHj4mGd7cNa5e"
PASSWORD = "correct horse battery"
ADDRESS = "192.0.2.1"


class FakeHasher:
    """Hashes without the cost, and counts."""

    def __init__(self) -> None:
        self.verified = 0
        self.hashed = 0

    async def hash(self, password: str) -> str:
        self.hashed += 1
        return f"hash of {password}"

    async def verify(self, password: str, stored_hash: str | None) -> bool:
        self.verified += 1
        return stored_hash == f"hash of {password}"


class AccountHouse:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.mailer = FakeMailer()
        self.hasher = FakeHasher()
        self.users = FakeUserRepository()
        self.session_rows = FakeSessionRepository()
        self.key_rows = FakeApiKeyRepository()
        self.reset_rows = FakeResetTokenRepository()
        self.throttle = LoginThrottle(self.clock)
        self.tokens = AccessTokens(SECRET, None, 900, self.clock)
        self.authenticator = Authenticator(self.tokens, self.users, self.session_rows, self.key_rows, self.clock)
        self.sessions = SessionService(
            users=self.users,
            sessions=self.session_rows,
            hasher=self.hasher,
            tokens=self.tokens,
            throttle=self.throttle,
            authenticator=self.authenticator,
            mailer=self.mailer,
            clock=self.clock,
            session_max_days=30,
        )
        self.resets = PasswordResetService(
            users=self.users,
            sessions=self.session_rows,
            reset_tokens=self.reset_rows,
            hasher=self.hasher,
            throttle=self.throttle,
            authenticator=self.authenticator,
            mailer=self.mailer,
            clock=self.clock,
            public_url="https://portal.example",
            reset_token_minutes=30,
        )
        self.api_keys = ApiKeyService(api_keys=self.key_rows, authenticator=self.authenticator, clock=self.clock)

    async def user(self, email: str = "ada@example.org", role: Role = Role.CUSTOMER) -> User:
        return await self.sessions.create_user(email, PASSWORD, role)

    async def login(self, email: str = "ada@example.org", password: str = PASSWORD, address: str = ADDRESS) -> Login:
        return await self.sessions.login(email, password, address=address, user_agent="test")
