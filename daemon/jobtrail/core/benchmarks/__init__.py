"""Benchmarks: reported, settled, shown."""
