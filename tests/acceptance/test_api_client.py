"""A measured job, asked for through the real daemon with the client for scripts."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.client import Client
from jobtrail.domain.analytics import Bucket, Dimension, Metric, Question, Unit
from tests.acceptance.test_local_jobs import BURN
from tests.daemon_process import Daemon, wait_until


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-client-"))
    try:
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            settings = {"database": {"url": url}, "sampling": {"interval_seconds": 1.0}}
            with Daemon(directory / "daemon", scheduler="local", **settings) as running:
                yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def test_a_measured_job_is_in_lists_samples_trail_and_figures(daemon: Daemon) -> None:
    """And the figures are those of the job's row."""
    begin = datetime.now(UTC) - timedelta(minutes=1)
    daemon.cli("exec", "--", sys.executable, "-c", BURN.format(seconds=2))
    recorded = b"usage_recorded"
    wait_until(lambda: recorded in daemon.get("/v1/audit")[1], "the job's usage to be stored")
    (listed,) = json.loads(daemon.get("/v1/jobs")[1])["jobs"]
    path, samples = f"/v1/jobs/{listed['job_id']}/metrics", listed["sample_count"]
    assert samples >= 2
    wait_until(lambda: daemon.get(path)[1].count(b"sampled_at") == samples, "all its samples to be stored")
    async with Client(socket=str(daemon.socket)) as client:
        (job,) = (await client.jobs(since=begin)).jobs
        assert (job.state, job.cpu_seconds) == ("completed", pytest.approx(2, abs=1.0))
        metrics = await client.metrics(job.job_id)
        counters = [sample.cpu_seconds for sample in metrics.samples if sample.cpu_seconds is not None]
        assert counters == sorted(counters)
        stepped = await client.metrics(job.job_id, step=3600)
        assert sum(sample.samples or 0 for sample in stepped.samples) == len(metrics.samples)
        events = [event.event_kind for event in await client.job_audit(job.job_id)]
        assert {"job_started", "job_finished", "usage_recorded"} <= set(events)
        assert (await client.report(job.job_id)).job == job
        question = Question(
            metrics=(Metric.JOBS_STARTED, Metric.JOBS_ENDED, Metric.CPU_SECONDS),
            begin=begin,
            end=begin + timedelta(minutes=10),
            bucket=Bucket(unit=Unit.MINUTE, interval=10),
            group_by=(Dimension.USER,),
        )
        (group,) = (await client.analytics(question)).totals
    assert group.group == {"user": job.user_name}
    assert [value.value for value in group.values.values()] == [1, 1, job.cpu_seconds]
