"""What sign-ins do to everybody else: `python -m benchmarks.login [LOGINS]`.

Real bcrypt at cost 12 in the service's own executor, twenty callers at once; prints logins per second and how late the
IOLoop ran its timers meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from controlplane.auth.passwords import THREADS, PasswordHasher

COST = 12
AT_ONCE = 20
PROBE_SECONDS = 0.002


async def measure(logins: int) -> None:
    hasher = PasswordHasher(COST)
    stored = await hasher.hash("correct horse battery")
    lags: list[float] = []

    async def probe() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            lags.append(loop.time() - due)

    slots = asyncio.Semaphore(AT_ONCE)

    async def login() -> None:
        async with slots:
            assert await hasher.verify("correct horse battery", stored)

    probing = asyncio.create_task(probe())
    began = time.perf_counter()
    await asyncio.gather(*(login() for _ in range(logins)))
    took = time.perf_counter() - began
    probing.cancel()
    hasher.close()
    lags.sort()
    print(f"{logins} logins at cost {COST}, {AT_ONCE} at once, {THREADS} threads")
    print(f"{'logins/s':>10} {'lag p50':>10} {'lag p99':>10} {'lag max':>10}")
    p50, p99, worst = lags[len(lags) // 2], lags[int(len(lags) * 0.99)], lags[-1]
    print(f"{logins / took:10.1f} {1000 * p50:7.2f} ms {1000 * p99:7.2f} ms {1000 * worst:7.2f} ms")


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100))


if __name__ == "__main__":
    main()
