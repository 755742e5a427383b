"""T-34, T-35: wall clocks that step, and nodes whose clocks differ. Only the daemon's view of the clock is moved."""

from __future__ import annotations

import re
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.trial import FaultDaemon
from tests.requirements import require_tool

HOUR_SECONDS, YEAR_SECONDS = 3600.0, 31_557_600.0
STEPS = {"an hour ahead": HOUR_SECONDS, "an hour back": -HOUR_SECONDS, "ten years ahead": 10 * YEAR_SECONDS,
         "a second back": -1.0, "a leap second": 1.0}  # fmt: skip
NEGATIVE = "SELECT job_id, start_time, end_time FROM jobs WHERE end_time < start_time"
STEPS_ON_RECORD = """
    SELECT (convert_from(payload, 'UTF8')::jsonb ->> 'clock_step_us')::float8 / 1e6
    FROM audit_log JOIN audit_payload USING (chain_id, seq) WHERE kind = 'clock_stepped' ORDER BY chain_id, seq
"""
MINUTES_APART = 7
# How exact a step and a skew are told: two clocks are read one after the other, and a machine may stall between.
STEP_EXACT_SECONDS, SKEW_EXACT_SECONDS = 0.4, 5.0


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
    """Jobs begin before steps and end after them; the trail's order is that of its numbers, no duration is negative.

    Every step is told and on record, also those that were taken back before the daemon looked for them on its own.
    """
    clock = OwnClock(place)
    daemon = FaultDaemon(place / "d", database={"url": database}, sampling={"interval_seconds": 0.2})
    daemon.more_environment = clock.environment()
    steps, made = often(quick=2, full=20), list[float]()
    with new_trial(daemon=daemon) as trial:
        for number in range(steps):
            job, start = trial.next_job(), int(clock.now())
            prolog = wire.make("prolog", job, trial.draw, start=start, at=clock.now())
            assert trial.send(prolog) == [201]
            samples = trial.daemon.metric("jobtrail_samples_total")
            made.append(STEPS[step] if number % 2 == 0 or step == "a second back" else -STEPS[step])
            clock.step(made[-1])
            epilog = wire.make("epilog", job, trial.draw, start=start, at=clock.now())
            assert trial.send(epilog, *trial.fresh_job()) == [201, 201, 201]
            assert trial.daemon.metric("jobtrail_samples_total") >= samples
        assert trial.daemon.metric("jobtrail_clock_steps_total") == steps
        told = trial.daemon.metric("jobtrail_clock_last_step_seconds")
        assert told == pytest.approx(made[-1], abs=STEP_EXACT_SECONDS)
        wait_until(lambda: len(rows(database, STEPS_ON_RECORD)) >= steps, "the steps on record")
        trial.settle()
        assert [step for (step,) in rows(database, STEPS_ON_RECORD)] == pytest.approx(made, abs=STEP_EXACT_SECONDS)
        assert rows(database, NEGATIVE) == []
        trial.kill()
        trial.revive()  # with the clock as it is now
        trial.figures.set(step=step, steps_recorded=steps)
        trial.check()


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What the statement finds."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def skew_told(daemon: FaultDaemon) -> float:
    """How far the node's clock is ahead of the database's, as it says."""
    ((_, seconds),) = daemon.metrics()["jobtrail_clock_skew_seconds"]
    return seconds


def call_it(daemon: FaultDaemon, node: str) -> None:
    """Give the daemon's node another name."""
    tree = yaml.safe_load(daemon.config.read_text(encoding="utf-8"))
    daemon.config.write_text(yaml.safe_dump({**tree, "node": node}), encoding="utf-8")


@pytest.mark.fault("T-35")
def test_nodes_whose_clocks_differ(new_trial: NewTrial, place: Path, database: str) -> None:
    """A job of two nodes, one of them minutes behind: one run, its end not before its start, on both nodes.

    The one that is behind tells by how much, and stays ready.
    """
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
        behind = skew_told(other.daemon)
        assert behind == pytest.approx(-60.0 * MINUTES_APART, abs=SKEW_EXACT_SECONDS)
        wait_until(
            lambda: "clock is" not in trial.daemon.get("/health")[1].decode(), "no word of a clock that is right"
        )
        assert skew_told(trial.daemon) == pytest.approx(0.0, abs=SKEW_EXACT_SECONDS)
        status, health = other.daemon.get("/health")
        assert status == 200
        told = re.search(r"this node's clock is (\d+)", health.decode())
        assert told is not None, health
        assert float(told[1]) == pytest.approx(-behind, abs=SKEW_EXACT_SECONDS)  # measured anew since, maybe
        trial.oracles += other.oracles
        trial.figures.set(jobs=jobs, minutes_apart=MINUTES_APART, skew_told_s=behind)
        trial.check()
