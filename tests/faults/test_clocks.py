"""T-34, T-35: wall clocks that step, and nodes whose clocks differ. Only the daemon's view of the clock is moved."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.faults import wire
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.trial import FaultDaemon
from tests.requirements import require_tool

HOUR_SECONDS, YEAR_SECONDS = 3600.0, 31_557_600.0
STEPS = {"an hour ahead": HOUR_SECONDS, "an hour back": -HOUR_SECONDS, "ten years ahead": 10 * YEAR_SECONDS,
         "a second back": -1.0, "a leap second": 1.0}  # fmt: skip
NEGATIVE = "SELECT job_id, start_time, end_time FROM jobs WHERE end_time < start_time"
MINUTES_APART = 7


class OwnClock:
    """The wall clock of one daemon."""

    def __init__(self, place: Path) -> None:
        compiler = require_tool("gcc", "steps of a clock")
        self._library, self._offset = place / "clock_steps.so", place / "clock"
        source = Path(__file__).with_name("clock_steps.c")
        subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o", str(self._library),
                        str(source)], check=True)  # fmt: skip
        self.off_seconds = 0.0
        self._offset.write_bytes(struct.pack("=q", 0))

    def environment(self) -> dict[str, str]:
        """Of a process that goes by it."""
        return {"LD_PRELOAD": str(self._library), "FAULT_CLOCK": str(self._offset)}

    def step(self, seconds: float) -> None:
        """Move it, at once, by so much."""
        self.off_seconds += seconds
        with self._offset.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("=q", int(self.off_seconds * 1e9)))

    def now(self) -> float:
        """What it shows."""
        return time.time() + self.off_seconds


@pytest.mark.fault("T-34")
@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_steps(new_trial: NewTrial, place: Path, database: str, step: str) -> None:
    """Jobs begin before steps and end after them; the trail's order is that of its numbers, no duration is negative."""
    clock = OwnClock(place)
    daemon = FaultDaemon(place / "d", database={"url": database}, sampling={"interval_seconds": 0.2})
    daemon.more_environment = clock.environment()
    steps = often(quick=2, full=20)
    with new_trial(daemon=daemon) as trial:
        for number in range(steps):
            job, start = trial.next_job(), int(clock.now())
            prolog = wire.make("prolog", job, trial.draw, start=start, at=clock.now())
            assert trial.send(prolog) == [201]
            samples = trial.daemon.metric("jobtrail_samples_total")
            clock.step(STEPS[step] if number % 2 == 0 or step == "a second back" else -STEPS[step])
            epilog = wire.make("epilog", job, trial.draw, start=start, at=clock.now())
            assert trial.send(epilog, *trial.fresh_job()) == [201, 201, 201]
            assert trial.daemon.metric("jobtrail_samples_total") >= samples
        trial.settle()
        assert rows(database, NEGATIVE) == []
        trial.kill()
        trial.revive()  # with the clock as it is now
        trial.figures.set(step=step, steps=steps)
        trial.check()


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the statement finds."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def call_it(daemon: FaultDaemon, node: str) -> None:
    """Give the daemon's node another name."""
    tree = yaml.safe_load(daemon.config.read_text(encoding="utf-8"))
    daemon.config.write_text(yaml.safe_dump({**tree, "node": node}), encoding="utf-8")


@pytest.mark.fault("T-35")
def test_nodes_whose_clocks_differ(new_trial: NewTrial, place: Path, database: str) -> None:
    """A job of two nodes, one of them minutes behind: one run, its end not before its start, on both nodes."""
    clock = OwnClock(place)
    clock.step(-60.0 * MINUTES_APART)
    second = FaultDaemon(place / "b", database={"url": database}, roles=["node"])
    call_it(second, "n2")
    second.more_environment = clock.environment()
    jobs = often(quick=10, full=200)
    with new_trial() as trial, new_trial(name="b", daemon=second) as other:
        for _ in range(jobs):
            job, start = trial.next_job(), int(time.time())
            for where, node, hook_name in ((trial, "n1", "prolog"), (other, "n2", "prolog"), (other, "n2", "epilog"),
                                           (trial, "n1", "epilog")):  # fmt: skip
                at = time.time() if where is trial else clock.now()
                names = {"SLURMD_NODENAME": node, "SLURM_JOB_NODELIST": "n[1-2]"}
                assert where.send(wire.make(hook_name, job, trial.draw, start=start, at=at, **names)) == [201]
        trial.settle()
        other.settle()
        found = rows(database, "SELECT job_id, run, state, end_time >= start_time FROM jobs ORDER BY job_id")
        assert len(found) == jobs
        assert {row[1:] for row in found} == {(1, "ended", True)}
        trial.oracles += other.oracles
        trial.figures.set(jobs=jobs, minutes_apart=MINUTES_APART)
        trial.check()
