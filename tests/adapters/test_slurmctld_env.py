"""What slurmctld's hooks forward, decoded: real captures of both hooks, and what could be odd in them."""

from pathlib import Path

import pytest

from jobtrail.adapters.slurm_env import decode_poke, environment_bytes, hook_decoder
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Actor, Event, EventKind, decode, encode
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord

FIXTURES = Path(__file__).parents[1] / "fixtures" / "slurmctld-22.05"
CAPTURES = sorted(FIXTURES.glob("*/*.env0"))
ID = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
TIME_US = 1_795_224_968_264_142
DECODE = hook_decoder(own_node="ctl")
MINIMAL = {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "lab"}


def captured(name: str) -> SlurmRecord:
    """The record in a capture such as `cancelled/epilog`."""
    return record_of(event_of(FIXTURES / f"{name}.env0"))


def event_of(path: Path) -> Event:
    return DECODE(f"{path.stem}-slurmctld", path.read_bytes(), event_id=ID, time_us=TIME_US)


def record_of(event: Event) -> SlurmRecord:
    assert event.slurm is not None
    return event.slurm


def decoded(hook: str = "prolog-slurmctld", **variables: str) -> SlurmRecord:
    """The record of a minimal environment with more variables."""
    body = "".join(f"{name}={value}\0" for name, value in {**MINIMAL, **variables}.items()).encode()
    return record_of(DECODE(hook, body, event_id=ID, time_us=TIME_US))


def test_there_are_captures_of_both_hooks() -> None:
    """The parametrised test below has something to run on."""
    assert [path.stem for path in CAPTURES] == ["epilog", "prolog"] * 6


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_real_capture_is_slurms_word_on_the_run(path: Path) -> None:
    """Every byte is kept, the event is of the daemon that took it in, and no state is made up."""
    raw = path.read_bytes()
    event = decode(encode(event_of(path)))
    record = record_of(event)
    original = dict(item.split(b"=", 1) for item in raw.rstrip(b"\0").split(b"\0"))
    assert {name.encode(): value for name, value in environment_bytes(event).items()} == original
    assert (event.kind, event.changed_by, event.node) == (EventKind.SLURM_REPORTED, Actor.SLURM_CONTROLLER, "ctl")
    assert (event.source, event.job_id) == (f"{path.stem}_slurmctld", f"slurm-{original[b'SLURM_JOB_ID'].decode()}")
    assert (event.facts, event.outcome, event.slurm_start_time) == (None, None, None)
    assert (record.origin, record.job_id, record.cluster) == (Origin.CONTROLLER_HOOK, event.job_id, "trailtest")
    assert (record.state, record.start_time, record.end_time, record.submit_time) == (None, None, None, None)
    assert (record.facts.user_name, record.facts.uid, record.facts.restart_count) == ("jt-alice", 1002, 0)
    assert (record.facts.account, record.facts.partition, record.facts.qos) == ("physics", "debug", None)
    assert (record.facts.cpus, record.facts.gpu_devices, record.facts.work_dir) == (None, None, "/tmp")
    assert (record.outcome == Outcome()) == (path.stem == "prolog")


def test_a_job_on_two_nodes_that_failed() -> None:
    record = captured("multi-node-exit-3/epilog")
    assert (record.facts.job_name, record.facts.comment) == ("multi", "hello")
    assert (record.facts.nodes, record.facts.node_list, record.facts.cpus_total) == (("n1", "n2"), "n[1-2]", 2)
    assert record.outcome == Outcome(exit_code=3, raw_status=768, derived_raw_status=0)


def test_a_task_of_an_array() -> None:
    facts = captured("array-task/prolog").facts
    assert (facts.array_job_id, facts.array_task_id, facts.job_name) == ("slurm-2", 2, "arr ay$(id)")
    assert (facts.het_leader_job_id, facts.het_job_offset) == (None, None)


def test_a_component_of_a_heterogeneous_job() -> None:
    facts = captured("het-component/epilog").facts
    assert (facts.het_leader_job_id, facts.het_job_offset) == ("slurm-6", 1)
    assert (facts.array_job_id, facts.array_task_id) == (None, None)


def test_a_name_with_lines_adds_no_variable() -> None:
    """A user named this job so that its second line looks like another job's id."""
    record = captured("killed-hostile-name/epilog")
    assert record.job_id == "slurm-4"
    assert record.facts.job_name == "q'\"`\nSLURM_JOB_ID=999\né"
    assert record.outcome == Outcome(exit_signal=9, raw_status=9, derived_raw_status=0)


def test_a_name_that_is_not_utf_8_is_escaped() -> None:
    assert captured("latin1-name/prolog").facts.job_name == "lat\\xe9n\nSLURM_JOB_ID=9"


def test_the_epilog_of_a_cancelled_job_says_exit_code_zero_and_no_state() -> None:
    """As the node's does: what became of the job only slurmctld's answers and accounting tell."""
    record = captured("cancelled/epilog")
    assert record.outcome == Outcome(exit_code=0, raw_status=0, derived_raw_status=0)
    assert not record.is_final


def test_null_and_empty_are_not_set() -> None:
    """slurmctld writes `(null)` for a job without an account; its `none` of a number is NO_VAL."""
    record = decoded(
        SLURM_JOB_ACCOUNT="(null)", SLURM_JOB_NAME="", SLURM_ARRAY_JOB_ID="0", SLURM_ARRAY_TASK_ID="4294967294",
        SLURM_HET_JOB_ID="0", SLURM_HET_JOB_OFFSET="4294967294", SLURM_JOB_START_TIME="0",
    )  # fmt: skip
    assert (record.facts, record.start_time) == (JobFacts(), None)


def test_newer_releases_say_which_run_and_which_qos() -> None:
    """SLURM_JOB_START_TIME since 23.02, SLURM_JOB_SLUID and, in these hooks only, SLURM_JOB_QOS since 25.11."""
    more = {"SLURM_JOB_START_TIME": "1795224968", "SLURM_JOB_SLUID": "s1ABC", "SLURM_JOB_QOS": "long"}
    body = "".join(f"{name}={value}\0" for name, value in {**MINIMAL, **more}.items()).encode()
    event = DECODE("epilog-slurmctld", body, event_id=ID, time_us=TIME_US)
    record = record_of(event)
    assert (event.slurm_start_time, event.sluid) == (record.start_time, record.sluid) == (1795224968, "s1ABC")
    assert record.facts.qos == "long"


@pytest.mark.parametrize(
    ("cpus", "nodes", "total"),
    [("4(x2),2", "n[1-3]", 10), ("4(x2),2", "n[1-2]", None), ("many", "n1", None), ("", "n1", None), ("4", "", None)],
)
def test_all_cpus_together(cpus: str, nodes: str, total: int | None) -> None:
    """Unknown, not wrong, where the two lists do not fit."""
    assert decoded(SLURM_JOB_CPUS_PER_NODE=cpus, SLURM_JOB_NODELIST=nodes).facts.cpus_total == total


@pytest.mark.parametrize("name", ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID", "SLURM_HET_JOB_OFFSET"])
def test_a_number_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        decoded(**{name: "1-2"})
    assert refused.value.field == name


def test_an_out_of_memory_end() -> None:
    record = decoded("epilog-slurmctld", SLURM_JOB_EXIT_CODE="253", SLURM_JOB_DERIVED_EC="0")
    assert record.outcome == Outcome(out_of_memory=True, raw_status=253, derived_raw_status=0)


def test_a_poke_names_its_job() -> None:
    assert decode_poke(b"SLURM_JOB_ID=17\0SLURM_JOBID=17\0SLURM_LOCALID=0\0") == "slurm-17"


@pytest.mark.parametrize("body", [b"", b"SLURM_LOCALID=0\0", b"SLURM_JOB_ID=0\0", b"SLURM_JOB_ID=1\0SLURM_JOBID=2\0"])
def test_a_poke_without_a_job_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode_poke(body)
