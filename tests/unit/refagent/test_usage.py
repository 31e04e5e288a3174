from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.refagent.usage import TreeSampler, UsageMeter, measure_disk
from tests.refagent_process import until


def test_disk_counts_what_is_below_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data").write_bytes(os.urandom(1 << 20))
    os.symlink("/", tmp_path / "root")
    usage = measure_disk(tmp_path)
    assert 1 << 20 <= usage.used_bytes < 2 << 20
    assert usage.limit_bytes > usage.used_bytes


def test_a_busy_process_shows_its_cpu_and_a_gone_one_shows_nothing() -> None:
    sampler = TreeSampler()
    sampler.sample(os.getpid())
    sum(number * number for number in range(2_000_000))
    usage = sampler.sample(os.getpid())
    assert usage.cpu_percent > 0
    assert usage.memory_bytes > 1 << 20
    assert sampler.sample(2**30).memory_bytes == 0


@pytest.mark.gen_test
async def test_the_disk_is_not_measured_again_for_every_question(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        meter = UsageMeter(tmp_path, executor)
        first = await until(meter.disk)  # None while it is being measured
        (tmp_path / "data").write_bytes(os.urandom(1 << 20))
        assert await meter.disk() == first
