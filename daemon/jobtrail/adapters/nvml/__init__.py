"""NVIDIA GPUs through NVML, read in a child process. `source` is the parent's side; the child imports nothing of it.

This file stays empty of imports: it is loaded in the child too, whose memory is kept small.
"""
