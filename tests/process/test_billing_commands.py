"""What an operator does about billing on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.billing.accounts import BillingAccount
from controlplane.storage.billing_accounts import MongoBillingAccountRepository
from controlplane.storage.database import Database
from tests.billing_samples import account
from tests.control_plane_process import SECRETS, run
from tests.fake_stripe_process import FakeStripeProcess
from tests.process.test_billing_processes import api
from tests.stripe_house import PLANS_FILE, PRICES, settings_for

pytestmark = pytest.mark.timeout(240)


def test_check_config_reads_plans_and_texts_too(tmp_path: Path) -> None:
    plans, texts = tmp_path / "plans.toml", tmp_path / "texts"
    texts.mkdir()
    plans.write_text(PLANS_FILE.read_text())
    environment = {
        **SECRETS,
        "STRIPE_SECRET_KEY": "sk_test_hidden",
        "STRIPE_WEBHOOK_SECRET": "whsec_hidden",
        "BILLING_PLANS_FILE": str(plans),
        "BILLING_MAIL_DIR": str(texts),
    }
    good = run("check-config", **environment)
    assert (good.returncode, "hidden" in good.stdout) == (0, False)
    (texts / "suspended.txt").write_text("{{ plan")
    refused = run("check-config", **environment)
    assert (refused.returncode, refused.stderr.startswith("controlplane: BILLING_MAIL_DIR: ")) == (1, True)
    plans.write_text(plans.read_text().replace("ide = false", "ide = 0"))
    refused = run("check-config", **environment)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"controlplane: BILLING_PLANS_FILE: {plans}: plan 'starter': entitlements.ide must be true or false\n"
    )


def test_without_billing_it_says_what_is_missing(mongodb_uri: str, database: Database) -> None:
    refused = run("reconcile", "--dry-run", **SECRETS, MONGODB_URI=mongodb_uri, MONGODB_DATABASE=database.name)
    assert (refused.returncode, refused.stderr) == (1, "controlplane: STRIPE_SECRET_KEY: is not set: billing is off\n")


@pytest.mark.gen_test(timeout=230)
async def test_a_dry_run_says_what_differs_and_a_run_sets_it_right(database: Database, mongodb_uri: str) -> None:
    accounts = MongoBillingAccountRepository(database)
    with FakeStripeProcess(prices=PRICES) as stripe:
        environment = {
            **SECRETS,
            **settings_for(stripe),
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": database.name,
        }
        customer = api(stripe, "customers", **{"invoice_settings[default_payment_method]": "pm_card_visa"})
        made = api(stripe, "subscriptions", customer=customer["id"], **{"items[0][price]": "price_studio_month"})
        stored = account(customer_id=customer["id"], subscription=None, access_epoch=0, applied_epoch=0)
        await accounts.put(stored)
        dry = run("reconcile", "--dry-run", **environment)
        assert f"stale_record         {made['id']} usr_1: is active, and not stored" in dry.stdout
        assert (dry.returncode, dry.stderr) == (1, "")
        assert await accounts.get("usr_1") == stored
        wet = run("reconcile", **environment)
        assert "(set right)" in wet.stdout
        after = await accounts.get("usr_1")
        assert isinstance(after, BillingAccount)
        assert after.plan_id == "studio"
        stripe.control("mischief", {"kind": "error", "status": 500, "times": None})
        failed = run("reconcile", "--dry-run", **environment)
        assert failed.returncode == 1
        assert "could not be read to the end" in failed.stderr
