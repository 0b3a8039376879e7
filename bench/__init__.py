"""Benchmarks and checks on real data; run as `python -m bench...`."""
