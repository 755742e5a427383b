"""Benchmarks that ran as jobs: what is measured, reported, linked and judged."""
