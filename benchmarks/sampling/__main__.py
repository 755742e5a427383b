"""python -m benchmarks.sampling [--jobs N] [--rounds R] [--json]

CPU time (user + system) of one look at all counters of N jobs: a C program, Jobtrail's reader, and text reads as
exporters in Python do them, each in its own process; interleaved rounds, medians. All three read the same files.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.sampling.jobs import Jobs, jobs
from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.domain.samples import Reading

LOOKS_PER_ROUND = 5
TARGET_OVER_C = 2.0
TARGET_OVER_TEXT = 1.0


def cpu_us() -> float:
    """CPU time of this process, user and system, µs."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e6


def timed(look: Callable[[], None]) -> float:
    """CPU µs of one look."""
    before = cpu_us()
    for _ in range(LOOKS_PER_ROUND):
        look()
    return (cpu_us() - before) / LOOKS_PER_ROUND


class Floor:
    """The C program, running and asked for a round at a time."""

    def __init__(self, work: Path, lines: list[str]) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            sys.exit("benchmarks.sampling: the reference needs a C compiler: install gcc")
        program, listing = work / "floor", work / "files"
        source = Path(__file__).with_name("floor.c")
        subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
        listing.write_text("".join(f"{line}\n" for line in lines))
        self.process = subprocess.Popen(
            [str(program), str(listing)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self) -> float:
        """CPU µs of one look."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{LOOKS_PER_ROUND}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline().split()[0]) / LOOKS_PER_ROUND

    def close(self) -> None:
        """Let the program end."""
        self.process.communicate("")


def text_reads(work: Jobs) -> Callable[[], None]:
    """What exporters in Python commonly do: open as text, read, split, keep every number, count lines of pid lists."""
    counters = [str(path) for path in work.counters]
    lists = [str(path) for path in work.lists]

    def look() -> None:
        for path in counters:
            with open(path) as file:
                words = file.read().split()
            if len(words) == 1:
                int(words[0])
            else:
                {key: int(value) for key, value in zip(words[::2], words[1::2], strict=False)}
        for path in lists:
            with open(path) as file:
                len(file.read().splitlines())

    return look


def our_reads(reader: CgroupReader, refs: list[str]) -> Callable[[], None]:
    """One look of Jobtrail's reader, everything included: finding, walking, parsing and the readings themselves."""

    def look() -> None:
        for result in reader.read(refs).values():
            if not isinstance(result, Reading):
                sys.exit(f"benchmarks.sampling: a job gave {result}")

    return look


def measure(count: int, rounds: int) -> dict[str, object]:
    """The figures of one run."""
    with jobs(count) as work, tempfile.TemporaryDirectory() as directory:
        reader = CgroupReader(work.root)
        for target in work.targets:
            reader.attach(target)
        floor = Floor(Path(directory), [str(path) for path in work.counters] + [f"list {path}" for path in work.lists])
        ways: dict[str, Callable[[], float]] = {
            "c": floor.round,
            "jobtrail": functools.partial(timed, our_reads(reader, [target.ref for target in work.targets])),
            "text": functools.partial(timed, text_reads(work)),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                figure = way()
                if turn:  # the first warms up
                    took[name].append(figure)
        floor.close()
        kept = reader.open_files
        reader.close()
    files = len(work.counters) + len(work.lists)
    median = {name: statistics.median(figures) for name, figures in took.items()}
    return {
        "jobs": count,
        "rounds": rounds,
        "files": work.kind,
        "files_per_job": files / count,
        "open_files_per_job": kept / count,
        "cpu_us_per_file": {name: round(value / files, 3) for name, value in median.items()},
        "cpu_us_per_job": {name: round(value / count, 2) for name, value in median.items()},
        "jobtrail_over_c": round(median["jobtrail"] / median["c"], 2),
        "jobtrail_over_text": round(median["jobtrail"] / median["text"], 3),
    }


def table(figures: dict[str, object]) -> str:
    """For people."""
    per_file, per_job = figures["cpu_us_per_file"], figures["cpu_us_per_job"]
    assert isinstance(per_file, dict)
    assert isinstance(per_job, dict)
    lines = [
        f"{figures['jobs']} jobs, {figures['files_per_job']:.0f} files each ({figures['files']}), "
        f"{figures['open_files_per_job']:.0f} kept open; median of {figures['rounds']} rounds, user+system CPU",
        f"{'':24}{'µs per file':>12}{'µs per job':>12}",
    ]
    names = {"c": "C floor", "jobtrail": "Jobtrail", "text": "open().read().split()"}
    lines += [f"{label:24}{per_file[name]:12.2f}{per_job[name]:12.1f}" for name, label in names.items()]
    lines += [
        f"Jobtrail / C floor {figures['jobtrail_over_c']}  (target: at most {TARGET_OVER_C})",
        f"Jobtrail / text reads {figures['jobtrail_over_text']}  (target: below {TARGET_OVER_TEXT})",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.jobs, arguments.rounds)
    print(json.dumps(figures) if arguments.json else table(figures))


if __name__ == "__main__":
    main()
