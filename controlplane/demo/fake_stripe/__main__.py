"""`python -m controlplane.demo.fake_stripe`: serve until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.demo.fake_stripe.catalog import INTERVALS
from controlplane.demo.fake_stripe.saved import StateUnreadable
from controlplane.demo.fake_stripe.server import FakeStripe, Options
from controlplane.refagent.child import die_with_parent

DEFAULT_API_KEY = "sk_test_fake"
DEFAULT_WEBHOOK_SECRET = "whsec_fake"  # noqa: S105 - of pretended money


def parse(arguments: Sequence[str]) -> tuple[Options, bool]:
    """The options, and whether to end with the parent. Exits with status 2 and a message when something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.demo.fake_stripe", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--address", default="127.0.0.1", help="where to listen (%(default)s)")
    add("--port", type=int, required=True, help="0 picks a free one and prints it")
    add("--webhook-url", action="append", default=[], metavar="U", help="where events go; several take turns")
    add("--webhook-secret", default=DEFAULT_WEBHOOK_SECRET, metavar="S", help="signs them (%(default)s)")
    add("--api-key", default=DEFAULT_API_KEY, metavar="K", help="the only key that is accepted (%(default)s)")
    add("--price", type=_price, action="append", default=[], metavar="ID=AMOUNT:CURRENCY:INTERVAL:PRODUCT")
    add("--freeze-at", type=int, metavar="S", help="time stands still at this second since the epoch")
    add("--state-file", type=Path, metavar="F", help="the account is kept there from one start to the next")
    add("--seed", type=int, help="the same ids at each start")
    add("--die-with-parent", action="store_true", help="end when the process that started this one ends")
    given = parser.parse_args(arguments)
    options = Options(
        address=given.address,
        port=given.port,
        api_key=given.api_key,
        webhook_urls=given.webhook_url,
        webhook_secret=given.webhook_secret,
        frozen_at=given.freeze_at,
        seed=given.seed,
        state_file=given.state_file,
        prices=given.price,
    )
    return options, given.die_with_parent


def _price(text: str) -> tuple[str, int, str, str, str]:
    price_id, _, rest = text.partition("=")
    parts = rest.split(":", 3)
    if not price_id or len(parts) != 4 or not parts[0].isdigit() or parts[2] not in INTERVALS:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=AMOUNT:CURRENCY:INTERVAL:PRODUCT")
    return price_id, int(parts[0]), parts[1], parts[2], parts[3]


async def serve(options: Options) -> int:
    """Returns the exit status: 0 after a signal, 1 when the address cannot be bound or the state not be read."""
    try:
        fake = FakeStripe(options)
    except StateUnreadable as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot listen on {options.address} port {options.port}: {error.strerror or error}", file=sys.stderr)
        return 1
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    print(f"fake stripe listening on {fake.url}", flush=True)
    await ending.wait()
    await fake.stop()
    return 0


def main() -> int:
    options, ends_with_parent = parse(sys.argv[1:])
    if ends_with_parent:
        die_with_parent(signal.SIGTERM)
    return asyncio.run(serve(options))


if __name__ == "__main__":
    sys.exit(main())
