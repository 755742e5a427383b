"""T-27: an event that the database refuses, and events with hostile values: what is around them lands."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.faults import wire
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.test_odd_events import post
from tests.faults.trial import Trial

POISON = "poison"
REFUSE = f"ALTER TABLE jobs ADD CONSTRAINT no_poison CHECK (user_name IS DISTINCT FROM '{POISON}')"
LARGE_BYTES = 1_000_000  # below http.max_body_bytes with what else is in the body
HOSTILE = {
    "bad UTF-8": b"\xff\xfe\x80 \xc3(",
    "a lone surrogate": b"\xed\xa0\x80",
    "what looks like an escape of NUL": b"a\\u0000b \\x00 \\",
    "quotes and controls": b"'; DROP TABLE jobs; --\"\x01\x1b[31m\r\n",
    "a million bytes": b"x" * LARGE_BYTES,
}


@pytest.mark.fault("T-27")
def test_a_row_that_the_database_refuses(new_trial: NewTrial, database: str) -> None:
    """It is in the trail and not in the table; the rest of its batch is in both; counter and log name the event."""
    count = often(quick=5, full=100)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(REFUSE.encode())
    with new_trial() as trial:
        poisoned = []
        with trial.producing(clients=8, copies=1):
            for _ in range(count):
                trial.await_acknowledgements(50)
                poisoned.append(make_poison(trial))
                assert post(trial, poisoned[-1]) == 201
                trial.owe(poisoned[-1].event_id, **{**poisoned[-1].details(), "kind": POISON})
        trial.settle()
        trial.figures.set(poison_rows=count)
        trial.check()
        assert trial.daemon.metric("jobtrail_projection_refused_total") == count
        assert refusals_told(trial) == count
        with psycopg.connect(database) as connection:
            names = [f"slurm-{event.job}" for event in poisoned]
            assert count_of(connection, "jobs", names) == 0
            assert count_of(connection, "audit_log", names) == count


def make_poison(trial: Trial) -> wire.Sending:
    """A prolog that is well-formed in every way, with the user whom the table refuses."""
    return wire.make("prolog", trial.next_job(), trial.draw, start=int(time.time()), SLURM_JOB_USER=POISON)


def refusals_told(trial: Trial) -> int:
    """Lines of the log about events that the table refused."""
    lines = [json.loads(line) for line in trial.daemon.log.read_text().splitlines() if line.startswith("{")]
    return sum("no_poison" in str(line.get("reason", "")) and "seq" in line for line in lines)


def count_of(connection: psycopg.Connection[Any], table: str, jobs: list[str]) -> int:
    """How many of these jobs the table has."""
    found = connection.execute(
        f"SELECT count(DISTINCT job_id) FROM {table} WHERE job_id = ANY(%s)".encode(), [jobs]
    ).fetchone()  # fmt: skip
    assert found is not None
    return int(found[0])


@pytest.mark.fault("T-27")
def test_hostile_values_land_with_the_rest_of_their_batch(trial: Trial) -> None:
    """Each value in each variable that becomes a column: stored to the byte, as the judge compares them."""
    sent = 0
    for value in HOSTILE.values():
        for name in ("SLURM_JOB_NAME", "SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION"):
            (prolog, epilog), (beside, _) = trial.fresh_job(), trial.fresh_job()
            hostile = replace(prolog, environment={**prolog.environment, name: value})
            assert trial.send(hostile, beside, epilog) == [201, 201, 201]
            sent += 1
    trial.settle()
    trial.figures.set(hostile_values=sent)
    trial.check()
    assert trial.daemon.metric("jobtrail_projection_refused_total") == 0


@pytest.mark.fault("T-27")
def test_the_character_nul_in_json(trial: Trial) -> None:
    """PostgreSQL's text and jsonb cannot hold U+0000: it is refused where it comes in, or kept; nothing blocks."""
    answers = []
    for name in ("user", "partition", "account", "cgroup_path"):
        body = {"job_id": f"slurm-{trial.next_job()}", "user": "ada", "node_list": ["n1"], **{name: "a\u0000b"}}
        body["timestamp"] = "2026-01-01T00:00:00Z"
        status, _ = trial.daemon.request(
            "POST", "/v1/events/job-started", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        answers.append(status)
    assert set(answers) == {400}
    trial.figures.set(nul_refused=len(answers))
    trial.check()
