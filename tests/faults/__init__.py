"""Faults on purpose: kills, power cuts, full and failing disks, frozen processes, odd events.

Three parts share nothing with the daemon but what anybody may use. The producer (`producer.py`, a process) sends events
and writes down, flushed, each id before it is sent and each acknowledgement after it came; that file is the oracle
(`oracle.py`). The judge (`judge.py`, a process) reads PostgreSQL and recomputes the trail's hashes with its own code.
`trial.py` holds them together with a real daemon and checks every invariant at a test's end; `exercises.py` are the
faults that both the daemon and its broken builds (`test_broken_builds.py`) must go through.
"""
