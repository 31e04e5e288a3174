"""The demo's Stripe: the fake as a child process, the plans on sale there, and the settings that lead to it.

Money is pretended; what was bought is kept in the demo's folder, as the instances are.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from controlplane.errors import ConfigurationError

START_SECONDS = 30.0
_AMOUNTS = {"starter": 900, "builder": 2900, "studio": 9900}
_KEY, _WEBHOOK_SECRET = "sk_test_demo", "whsec_demo"  # of pretended money


class DemoShop:
    """`public_url` is the demo's own: events go there."""

    def __init__(self, folder: Path, source_folder: Path, public_url: str) -> None:
        self._plans_file = folder / "plans.toml"
        self._state_file = folder / "stripe.json"
        self._source_folder = source_folder
        self._public_url = public_url
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> dict[str, str]:
        """The settings that switch billing on."""
        example = (self._source_folder / "conf" / "plans.toml").read_text("utf-8")
        free = "{ game_servers = 5, dev_containers = 5, memory_mib = 4096, backups = 10, ide = true }"
        self._plans_file.write_text(f"[without_plan]\nentitlements = {free}\n\n{example}", "utf-8")
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controlplane.demo.fake_stripe", "--port", "0", "--die-with-parent"),
            *("--api-key", _KEY, "--webhook-secret", _WEBHOOK_SECRET, "--state-file", str(self._state_file)),
            *("--webhook-url", f"{self._public_url}/api/billing/webhook"),
            *(word for price in _prices() for word in ("--price", price)),
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(self._source_folder)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await self._process.stdout.readline()).decode().strip()
        self.url = line.rpartition(" ")[2]
        if not self.url.startswith("http"):
            raise ConfigurationError("demo", f"the pretended Stripe did not start: {line!r}")
        return {
            "STRIPE_SECRET_KEY": _KEY,
            "STRIPE_WEBHOOK_SECRET": _WEBHOOK_SECRET,
            "STRIPE_API_BASE": self.url,
            "BILLING_PLANS_FILE": str(self._plans_file),
        }

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


def _prices() -> list[str]:
    months = [f"price_{plan}_month={amount}:eur:month:{plan.title()}" for plan, amount in _AMOUNTS.items()]
    years = [f"price_{plan}_year={10 * amount}:eur:year:{plan.title()}" for plan, amount in _AMOUNTS.items()]
    return months + years
