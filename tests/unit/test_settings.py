"""Settings refuse clearly, mask secrets and are all documented."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from controlplane.errors import ConfigurationError
from controlplane.settings import Settings, setting_names

GOOD = {
    "JWT_SECRET": "kP3nVb8sXw2qLz9tRf6yHj4mGd7cNa5e",
    "CREDENTIALS_KEY": base64.b64encode(bytes(range(32))).decode(),
}
EXAMPLE = Path("conf/controlplane.env.example")


def test_two_secrets_are_enough_to_start() -> None:
    settings = Settings.from_env(GOOD)
    assert settings.http_port == 8080
    assert settings.mongodb_uri is None
    assert settings.credentials_key == bytes(range(32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_SECRET", ""),
        ("JWT_SECRET", "short"),
        ("JWT_SECRET", "a" * 64),
        ("JWT_PREVIOUS_SECRET", "short"),
        ("CREDENTIALS_KEY", ""),
        ("CREDENTIALS_KEY", "this is no base64 but is long enough!!"),
        ("CREDENTIALS_KEY", base64.b64encode(bytes(range(48))).decode()),
        ("METRICS_TOKEN", "x"),
        ("HTTP_PORT", "eighty"),
        ("HTTP_PORT", "70000"),
        ("HTTP_ADDRESS", "localhost"),
        ("PUBLIC_URL", "portal.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("CORS_ORIGINS", "https://portal.example/"),
        ("CORS_ORIGINS", "*"),
        ("MONGODB_URI", "postgres://db"),
        ("MONGODB_TIMEOUT_SECONDS", "0"),
        ("BCRYPT_COST", "31"),
        ("REGISTRATION_ENABLED", "yes"),
        ("AGENT_NETWORKS", "everywhere"),
        ("AGENT_POLL_INTERVAL_SECONDS", "nan"),
        ("AGENT_CA_FILE", "/nowhere/ca.pem"),
        ("SMTP_URL", "mail.example"),
        ("LOG_LEVEL", "loud"),
        ("ACCESS_LOG", "some"),
        ("DEV_IDE_HOST_SUFFIX", ".ide.example.org"),
        ("DEV_IDE_HOST_SUFFIX", "ide.example.org:8443"),
        ("DEV_IDE_HOST_SUFFIX", "*.example.org"),
        ("DEV_IDE_RETURN_HOSTED_URL", "true"),
        ("DEV_IDE_PATH_MODE_ENABLED", "yes"),
        ("DEV_IDE_TOKEN_SECONDS", "3600"),
        ("DEV_IDE_SOCKET_IDLE_SECONDS", "30"),
        ("API_HOSTS", "good.example, http://x"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**GOOD, name: value})
    assert refused.value.setting == name
    assert name in refused.value.message


def test_a_mail_server_needs_a_sender() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**GOOD, "SMTP_URL": "smtp://mail.example:25"})
    assert refused.value.setting == "SMTP_SENDER"


BILLING = {
    "STRIPE_SECRET_KEY": "sk_test_hidden",
    "STRIPE_WEBHOOK_SECRET": "whsec_hidden",
    "BILLING_PLANS_FILE": "conf/plans.toml",
}


def test_billing_is_off_without_a_key_and_on_with_one() -> None:
    assert Settings.from_env({**GOOD, "BILLING_GRACE_DAYS": "-1"}).billing is None
    billing = Settings.from_env({**GOOD, **BILLING}).billing
    assert billing is not None
    assert (billing.billing_grace_days, billing.billing_termination_enabled, billing.billing_termination_days) == (
        10,
        False,
        30,
    )
    assert "hidden" not in repr(billing)
    later = Settings.from_env({**GOOD, **BILLING, "BILLING_GRACE_DAYS": "40"}).billing
    assert later is not None
    assert later.billing_termination_days == 47


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_SECRET_KEY", "pk_live_public"),
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("STRIPE_WEBHOOK_SECRET", "secret"),
        ("STRIPE_API_BASE", "stripe.com"),
        ("STRIPE_TIMEOUT_SECONDS", "0"),
        ("BILLING_PLANS_FILE", ""),
        ("BILLING_PLANS_FILE", "/nowhere/plans.toml"),
        ("BILLING_MAIL_DIR", "/nowhere"),
        ("BILLING_GRACE_DAYS", "7"),
        ("BILLING_TERMINATION_ENABLED", "perhaps"),
        ("BILLING_TERMINATION_DAYS", "16"),
        ("BILLING_ACTIONS_PER_RUN", "0"),
    ],
)
def test_a_wrong_setting_of_billing_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_env({**GOOD, **BILLING, name: value})
    assert refused.value.setting == name
    assert name in refused.value.message


def test_secrets_do_not_show_in_repr() -> None:
    env = {
        **GOOD,
        "MONGODB_URI": "mongodb://u:hidden-password@db",
        "SMTP_URL": "smtp://u:hidden-too@m",
        "SMTP_SENDER": "a@b",
    }
    shown = repr(Settings.from_env(env))
    for secret in (GOOD["JWT_SECRET"], "hidden-password", "hidden-too", repr(bytes(range(32)))):
        assert secret not in shown


def test_the_example_documents_every_setting_with_its_default() -> None:
    documented = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))
    assert set(documented) == setting_names()
    assert Settings.from_env({**documented, **GOOD}) == Settings.from_env(GOOD)
