"""Readers of the files that benchmark tools write: bytes in, results in one vocabulary out."""

from jobtrail.adapters.benchmark_files.reading import read_results

__all__ = ["read_results"]
