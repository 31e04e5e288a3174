"""The parts of `benchmarks.ide`: the app behind, the load in front, the proxies between."""
