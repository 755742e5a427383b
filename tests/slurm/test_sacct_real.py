"""What sacct says of real jobs, as the daemon reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobtrail.adapters.sacct import Sacct
from jobtrail.domain.errors import SlurmUnavailable
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import SlurmAnswer, SlurmRecord
from tests.daemon_process import wait_until
from tests.slurm.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

BURN = "exec python3 -c 'import time\nwhile time.process_time() < 1: pass'"
# By a child that is waited for, as most programs are.
BURN_IN_CHILD = "python3 -c 'import time\nwhile time.process_time() < 1: pass'\n"
NASTY = ("line1\nline2\n1\x1f1\x1fCOMPLETED", "\n|a|b|", "'; DROP TABLE jobs; -- %s $(id)", "tab\t\x1b[31m")


def ask(cluster: SlurmCluster, *numbers: int, since: int = 0) -> SlurmAnswer:
    """One question."""
    sacct = Sacct("sacct", cluster.env["SLURM_CONF"], timeout_seconds=60, pace_seconds=0.001)
    return asyncio.run(sacct.runs_of(numbers, since=since))


def settled(
    cluster: SlurmCluster, number: int, *, complete: Callable[[SlurmRecord], object] = lambda record: record.is_final
) -> SlurmRecord:
    """The newest run of a job once accounting holds it completely."""

    def condition() -> SlurmRecord | None:
        answer = ask(cluster, number)
        assert answer.unreadable == ()
        newest = max(answer.records, key=lambda record: record.submit_time or 0, default=None)
        return newest if newest is not None and newest.facts.partition and complete(newest) else None

    # slurmctld hands slurmdbd what has started only once in a while (SlurmctldParameters, slurm.conf(5)).
    return wait_until(condition, f"accounting to know job {number}", timeout_seconds=180, every_seconds=0.2)


def told(cluster: SlurmCluster, number: int) -> SlurmRecord:
    """An ended run with the usage of its steps."""
    return settled(cluster, number, complete=lambda record: record.is_final and record.cpu_usage_us is not None)


@pytest.fixture(scope="module")
def small(slurm_packages: None) -> Iterator[SlurmCluster]:
    """A cluster of its own, without slurmrestd."""
    with SlurmCluster() as running:
        yield running


@pytest.fixture(scope="module")
def jobs(small: SlurmCluster) -> dict[str, int]:
    """Ids of jobs by what they are, submitted together: slurmdbd takes seconds to hear of each."""
    scripts = {
        "true": "true", "exit 3": "exit 3", "exit 255": "exit 255", "kill": "kill -SEGV $$",
        "burn": BURN, "burn in child": BURN_IN_CHILD, "burn in step": f"srun {BURN_IN_CHILD}",
    }  # fmt: skip
    found = {name: small.submit(script, "--mem=30", "--time=5") for name, script in scripts.items()}
    # Touches each page; a bytearray of zeroes would take no memory.
    eater = "srun python3 -c 'x = b\"x\" * 500_000_000'\nexit 0"
    found |= {name: small.submit("true", "--mem=30", "--job-name", name) for name in NASTY}
    return found | {"bob": small.submit("true", user="jt-bob"), "eater": small.submit(eater, "--mem=40")}


def test_a_job_of_each_user(small: SlurmCluster, jobs: dict[str, int]) -> None:
    """All users' jobs are told, with what their users asked for."""
    alice, bob = told(small, jobs["true"]), told(small, jobs["bob"])
    assert (alice.state, alice.outcome) == ("COMPLETED", Outcome(exit_code=0))
    assert (alice.facts.user_name, alice.facts.account, alice.facts.qos) == ("jt-alice", "physics", "normal")
    assert (bob.facts.user_name, bob.facts.account) == ("jt-bob", "chemistry")
    assert None not in (alice.facts.uid, bob.facts.uid)
    assert alice.facts.uid != bob.facts.uid
    assert (alice.facts.time_limit_seconds, alice.facts.memory_requested_bytes) == (300, 30 << 20)
    assert (alice.facts.job_name, alice.facts.nodes) == ("sbatch", tuple(small.node_names))
    assert alice.facts.cpus_total == 1
    now = time.time()
    assert now - 300 <= (alice.submit_time or 0) <= (alice.start_time or 0) <= (alice.end_time or 0) <= now + 1


@pytest.mark.parametrize(
    ("job", "outcome"), [("exit 3", Outcome()), ("exit 255", Outcome()), ("kill", Outcome(exit_signal=11))]
)
def test_of_a_failure_only_what_is_sure_is_told(
    small: SlurmCluster, jobs: dict[str, int], job: str, outcome: Outcome
) -> None:
    """sacct prints 255 as 127, so no code of a failed job is taken."""
    record = told(small, jobs[job])
    assert (record.state, record.outcome) == ("FAILED", outcome)


def test_who_cancelled(small: SlurmCluster) -> None:
    """The job's own user."""
    number = small.submit("sleep 100")
    small.wait_running(number)
    small.cancel(number, user="jt-alice")
    small.wait_finished(number)
    record = settled(small, number)
    assert (record.state, record.cancelled_by_uid, record.outcome) == ("CANCELLED", record.facts.uid, Outcome())


def test_a_job_cancelled_before_it_began(small: SlurmCluster) -> None:
    """It had no nodes."""
    number = small.submit("true", "--hold", user="jt-bob")
    small.cancel(number)
    record = settled(small, number)
    assert (record.state, record.cancelled_by_uid, record.facts.nodes) == ("CANCELLED", 0, None)
    assert record.cpu_usage_us is None


def test_each_run_of_a_requeued_job(small: SlurmCluster) -> None:
    """The first is over as REQUEUED, the second waits, under the same id and another time of submission."""
    number = small.submit("sleep 600", "--requeue")
    small.wait_script(number)
    small.requeue(number)
    small.wait_state(number, {"PENDING"})

    def both() -> tuple[SlurmRecord, ...] | None:
        records = ask(small, number).records
        return records if len(records) == 2 else None

    runs = wait_until(both, "both runs in accounting", timeout_seconds=180, every_seconds=0.2)
    assert [record.state for record in runs] == ["REQUEUED", "PENDING"]
    assert (runs[0].submit_time or 0) < (runs[1].submit_time or 0)
    small.cancel(number)


def test_a_step_out_of_memory(small: SlurmCluster, jobs: dict[str, int]) -> None:
    """The step is killed, the script goes on and succeeds."""
    record = told(small, jobs["eater"])
    assert (record.state, record.outcome, record.out_of_memory_step) == ("COMPLETED", Outcome(exit_code=0), True)


def test_array_tasks(small: SlurmCluster) -> None:
    """Each by its own id."""
    array = small.submit_array("true", "3-4")
    tasks = small.array_tasks(array, 2)
    for index, number in tasks.items():
        facts = settled(small, number).facts
        assert (facts.array_job_id, facts.array_task_id) == (f"slurm-{array}", index)


def test_a_het_job(small: SlurmCluster) -> None:
    """Components that wait for each other; asking for the leader does not bring the other."""
    leader, second = small.submit_het("true", ["--hold", "--mem=20"], ["--hold", "--mem=30"])
    record = settled(small, second, complete=lambda record: record.is_pending)
    assert (record.facts.het_leader_job_id, record.facts.het_job_offset) == (f"slurm-{leader}", 1)
    assert [record.job_id for record in ask(small, leader).records] == [f"slurm-{leader}"]
    small.cancel(leader)


@pytest.mark.parametrize("name", NASTY)
def test_a_nasty_name(small: SlurmCluster, jobs: dict[str, int], name: str) -> None:
    """It neither breaks the answer nor forges a row; the jobs beside it are told too."""
    told(small, jobs[name])
    answer = ask(small, jobs["true"], jobs[name], jobs["bob"])
    assert answer.unreadable == ()
    by_id = {record.job_id: record for record in answer.records}
    assert set(by_id) == {f"slurm-{jobs[other]}" for other in ("true", name, "bob")}
    assert by_id[f"slurm-{jobs[name]}"].facts.job_name == name


@pytest.mark.parametrize("job", ["burn", "burn in child", "burn in step"])
def test_cpu_time_of_batch_script_child_and_step(small: SlurmCluster, jobs: dict[str, int], job: str) -> None:
    """The run's TotalCPU holds that of the batch script, of children it waited for, and of srun's steps."""
    assert 0.99 <= (told(small, jobs[job]).cpu_usage_us or 0) / 1e6 < 1.4


def test_runs_that_were_over_are_left_out(small: SlurmCluster, jobs: dict[str, int]) -> None:
    """`since` lies after the end of the first job."""
    after = (told(small, jobs["true"]).end_time or 0) + 2
    wait_until(lambda: time.time() > after, "the clock to move on")
    later = small.submit("true")
    assert settled(small, later).is_final
    assert [record.job_id for record in ask(small, jobs["true"], later, since=after).records] == [f"slurm-{later}"]


def test_slurmdbd_out_of_reach(small: SlurmCluster, tmp_path: Path) -> None:
    """The error says what to look at."""
    conf = Path(small.env["SLURM_CONF"])
    text = conf.read_text().replace(f"={small.layout.slurmdbd_port}", "=1")
    assert text != conf.read_text()
    (tmp_path / "slurm.conf").write_text(text)
    with pytest.raises(SlurmUnavailable, match=r"Connection refused .*does slurmdbd run"):
        asyncio.run(Sacct("sacct", str(tmp_path / "slurm.conf"), timeout_seconds=60).runs_of([1], since=0))
