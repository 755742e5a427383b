"""T-33: a thousand jobs begin on one node in the same second."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.daemon_process import wait_until
from tests.faults import wire
from tests.faults.conftest import NewTrial
from tests.faults.figures import often, percentile
from tests.faults.oracle import OracleWriter
from tests.faults.trial import Trial
from tests.hooks.hook_process import HOOKS

HOOK_WAITS_SECONDS = 1.0  # JOBTRAIL_TIMEOUT
HOOK_LIMIT_SECONDS = 30.0  # two seconds by its own count, on two cores that run hundreds of them at once
HOOKS_AT_ONCE = 16
FIRST_OF_HOOKS = 2_000_000_000


@pytest.fixture(autouse=True)
def enough_files() -> Iterator[None]:
    """A connection for each prolog."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault("T-33")
def test_a_storm_of_prologs_on_one_node(new_trial: NewTrial) -> None:
    """Each is acknowledged, or left as a file that is taken up; every hook ends with 0; all are in the trail once.

    Most connect as a hook does and wait as long, all in the same moment; after these, real hooks, a process each.
    """
    plain, hooks = often(quick=800, full=9_000), often(quick=200, full=1_000)
    with new_trial() as trial:
        start = int(time.time())
        sent = [wire.make("prolog", number + 1, trial.draw, start=start) for number in range(plain)]
        ran = [wire.make("prolog", FIRST_OF_HOOKS + number, trial.draw, start=start) for number in range(hooks)]
        began = time.monotonic()
        left, statuses, seconds = asyncio.run(_storm(trial, sent, ran))
        trial.figures.set(storm_s=round(time.monotonic() - began, 1))
        assert set(statuses) == {0}
        assert max(seconds) < HOOK_LIMIT_SECONDS
        trial.leave_in_spool(*left)
        incoming = trial.daemon.spool / "incoming"
        wait_until(lambda: not any(incoming.iterdir()), "files to be taken up", timeout_seconds=120)
        trial.settle(180)
        _owe_hooks(trial, ran)
        trial.figures.set(
            prologs=plain + hooks, hooks=hooks, left_as_files=len(left), hook_p99_s=percentile(seconds, 0.99)
        )
        trial.check()


async def _storm(
    trial: Trial, sent: list[wire.Sending], ran: list[wire.Sending]
) -> tuple[list[wire.Sending], list[int], list[float]]:
    """Those that were not acknowledged, and how the hooks ended after how long."""
    path = trial.directory / "oracle-storm.jsonl"
    trial.oracles.append(path)
    noted, turns = OracleWriter(path), asyncio.Semaphore(HOOKS_AT_ONCE)

    async def post(event: wire.Sending) -> wire.Sending | None:
        line, began = wire.Line(trial.daemon.socket), time.monotonic()
        try:
            async with asyncio.timeout(HOOK_WAITS_SECONDS):
                status, _ = await line.post(event)
        except (OSError, EOFError, TimeoutError):
            return event
        finally:
            line.close()
        if status != 201:
            noted.refused(event.event_id, status)
            return event
        noted.ack(event.event_id, status=status, seconds=round(time.monotonic() - began, 4))
        return None

    async def hook(event: wire.Sending) -> tuple[int, float]:
        async with turns:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                str(HOOKS / "prolog.sh"), env=_environment(trial, event), stdin=asyncio.subprocess.DEVNULL
            )
            return await process.wait(), time.monotonic() - began

    for event in sent:
        noted.sent(event.event_id, **event.details())
    left = [event for event in await asyncio.gather(*map(post, sent)) if event is not None]
    ended = await asyncio.gather(*map(hook, ran))
    noted.close()
    return left, [status for status, _ in ended], [took for _, took in ended]


def _environment(trial: Trial, event: wire.Sending) -> dict[bytes, bytes]:
    settings = {
        "JOBTRAIL_SOCKET": str(trial.daemon.socket), "JOBTRAIL_SPOOL": str(trial.daemon.spool),
        "JOBTRAIL_HOOK_CONF": str(Path(os.devnull)), "JOBTRAIL_TIMEOUT": f"{HOOK_WAITS_SECONDS:g}",
    }  # fmt: skip
    given = {name.encode(): value.encode() for name, value in settings.items()}
    return given | {name.encode(): value for name, value in event.environment.items()}


def _owe_hooks(trial: Trial, ran: list[wire.Sending]) -> None:
    """A hook makes its event's id itself, so it is learned from the trail: one each, with what the hook was given."""
    with psycopg.connect(trial.url) as connection:
        held = connection.execute(
            "SELECT substr(job_id, 7)::bigint, event_id::text FROM audit_log WHERE kind = 'job_started'"
            " AND substr(job_id, 7)::bigint BETWEEN %s AND %s",
            (FIRST_OF_HOOKS, FIRST_OF_HOOKS + len(ran)),
        ).fetchall()
    assert sorted(job for job, _ in held) == [event.job for event in ran]
    ids = dict(held)
    for event in ran:
        trial.owe(ids[event.job], **event.details())
