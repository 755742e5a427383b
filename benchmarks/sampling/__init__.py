"""What reading the counters of jobs costs, next to a C program and to the usual text reads of exporters."""

from __future__ import annotations

from benchmarks.figures import Figure, at_most

JOBS = 100
ROUNDS = 15


def measure() -> list[Figure]:
    """CPU time of one look at 100 jobs, per file, beside both references."""
    from benchmarks.sampling.__main__ import TARGET_OVER_C
    from benchmarks.sampling.__main__ import measure as compare

    found = compare(JOBS, ROUNDS)
    per_file = found["cpu_us_per_file"]
    assert isinstance(per_file, dict)
    ours, floor, text = (float(per_file[name]) for name in ("jobtrail", "c", "text"))
    what = f"reading {JOBS} jobs ({found['files']})"
    return [
        Figure(
            what=what,
            value=ours,
            unit="µs CPU a file",
            reference="plain C, kept open",
            reference_value=floor,
            target=f"≤ {TARGET_OVER_C:g} × reference",
            met=at_most(TARGET_OVER_C, ours / floor),
        ),
        Figure(
            what=what,
            value=ours,
            unit="µs CPU a file",
            reference="text reads, as exporters do",
            reference_value=text,
        ),
    ]
