"""What is read from sacct's rows: captures of real answers, and what no answer should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.adapters.sacct.rows import read_answer
from jobtrail.domain.errors import SlurmAnswerInvalid
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord
from tests.adapters.sacct_prints import DELIMITER, FIELDS, captured, job_row, printed, read, step_row, unix


def of_capture(name: str) -> list[SlurmRecord]:
    """The records of a capture, nothing of which may be unreadable."""
    rows = captured(name)
    numbers = sorted({int(row["JobIDRaw"].partition(".")[0]) for row in rows})
    answer = read(*rows, wanted=numbers)
    assert answer.unreadable == ()
    assert {record.origin for record in answer.records} == {Origin.SACCT}
    return list(answer.records)


def one(name: str) -> SlurmRecord:
    (record,) = of_capture(name)
    return record


@pytest.mark.parametrize(
    ("name", "state", "outcome"),
    [
        ("22.05-01-success", "COMPLETED", Outcome(exit_code=0)),
        ("22.05-02-exit-42", "FAILED", Outcome()),
        ("22.05-02-exit-255", "FAILED", Outcome()),  # printed as 127:0
        ("22.05-03a-scancel-term", "CANCELLED", Outcome()),  # printed as 0:0
        ("22.05-04a-timelimit-term", "TIMEOUT", Outcome()),
        ("22.05-05a-sigsegv-batchshell", "FAILED", Outcome(exit_signal=11)),
        ("22.05-05c-sigsegv-child", "FAILED", Outcome()),  # 139, printed as 11:0
        ("22.05-06b-oom-swallowed", "OUT_OF_MEMORY", Outcome(out_of_memory=True)),
        ("22.05-22-node-dies-nodefail", "NODE_FAIL", Outcome()),
        ("24.11-01-success", "COMPLETED", Outcome(exit_code=0)),
        ("24.11-06a-oom-child-of-batch", "OUT_OF_MEMORY", Outcome(out_of_memory=True)),
    ],
)
def test_a_state_is_taken_and_an_exit_code_only_where_it_is_sure(name: str, state: str, outcome: Outcome) -> None:
    """sacct prints 255 as 127 and 139 as 11, so of a failed job's code nothing is said."""
    record = one(name)
    assert (record.state, record.outcome) == (state, outcome)
    assert record.is_final


def test_who_cancelled_is_told() -> None:
    """`CANCELLED by 0`: the state, and root's uid."""
    assert one("22.05-03a-scancel-term").cancelled_by_uid == 0


def test_each_run_of_a_requeued_job_is_a_record() -> None:
    """Two rows of one id, told apart by their time of submission, each with its own steps' memory."""
    first, second = of_capture("22.05-09a-requeue")
    assert (first.job_id, first.state, first.submit_time) == ("slurm-32", "REQUEUED", unix("2026-11-21T01:39:29"))
    assert (second.job_id, second.state, second.submit_time) == ("slurm-32", "FAILED", unix("2026-11-21T01:39:34"))
    assert (first.memory_peak_bytes, second.memory_peak_bytes) == (224 << 10, 220 << 10)
    assert (first.cpu_usage_us, second.cpu_usage_us) == (2000, 4000)


def test_runs_of_two_jobs_keep_their_own_steps() -> None:
    """Preempted and requeued, another job, and its second run: rows in the order of submission."""
    records = of_capture("22.05-20a-preempt-requeue")
    assert [(record.job_id, record.state, record.cpu_usage_us) for record in records] == [
        ("slurm-10017", "PREEMPTED", 154_000),
        ("slurm-10018", "COMPLETED", 134_000),
        ("slurm-10017", "CANCELLED", 165_000),
    ]


def test_array_tasks_bear_their_own_ids() -> None:
    """The array's id is also the raw id of its last task."""
    found = {record.job_id: record.facts for record in of_capture("22.05-07-array")}
    assert {job: (facts.array_job_id, facts.array_task_id) for job, facts in found.items()} == {
        "slurm-24": ("slurm-23", 1),
        "slurm-25": ("slurm-23", 2),
        "slurm-23": ("slurm-23", 3),
    }


def test_of_an_array_only_what_was_asked_is_told() -> None:
    """Asked for the array's id, sacct prints every task."""
    answer = read(*captured("22.05-07-array"), wanted=[23])
    assert [record.job_id for record in answer.records] == ["slurm-23"]


def test_pending_tasks_of_an_array_are_one_record() -> None:
    """`13_[6-9%1]`: no task, but those that wait."""
    row = job_row(13, JobID="13_[6-9%1]", State="PENDING", Start="Unknown", End="Unknown", NodeList="None assigned")
    (record,) = read(row, wanted=[13]).records
    assert (record.array_tasks_pending, record.facts.array_job_id) == ("6-9%1", "slurm-13")
    assert (record.facts.array_task_id, record.facts.nodes) == (None, None)
    assert (record.start_time, record.end_time, record.is_pending) == (None, None, True)


def test_a_het_component_names_its_leader() -> None:
    """`16+1`, raw id 17."""
    (record,) = read(job_row(17, JobID="16+1"), wanted=[17]).records
    assert (record.facts.het_leader_job_id, record.facts.het_job_offset) == ("slurm-16", 1)


def test_facts_of_a_run() -> None:
    """Everything else the hooks may lack, with its units."""
    (record,) = read(job_row(AllocTRES="cpu=4,gres/gpu=2,gres/gpu:a100=2,mem=1.5G,node=2", NodeList="n[2,1]")).records
    facts = record.facts
    assert (facts.user_name, facts.uid, facts.gid, facts.account) == ("alice", 1002, 1003, "physics")
    assert (facts.partition, facts.qos, facts.job_name) == ("debug", "normal", "sim")
    assert (facts.nodes, facts.node_list) == (("n2", "n1"), "n[2,1]")
    assert (facts.cpus_total, facts.gpus_total, facts.memory_requested_bytes) == (4, 2, 200 << 20)
    assert (facts.time_limit_seconds, record.cluster, record.suspended_seconds) == (5400, "lab", 0)
    assert (record.submit_time, record.start_time, record.end_time) == (1795260227, 1795260228, 1795260231)


def test_gpus_are_counted_or_absent() -> None:
    """A site may account for no GPUs, or for typed ones only."""
    assert one("22.05-11b-gpu-2").facts.gpus_total == 2
    assert one("22.05-01-success").facts.gpus_total is None
    (typed,) = read(job_row(AllocTRES="cpu=1,gres/gpu:a100=2,gres/gpu:t4=1")).records
    assert typed.facts.gpus_total == 3


def test_nodes_are_expanded_and_restarts_counted() -> None:
    """Slurm 24.11 has the field Restarts, 22.05 has none."""
    assert one("22.05-12a-two-node-batch-ok").facts.nodes == ("n1", "n2")
    assert one("22.05-01-success").facts.restart_count is None
    assert one("24.11-01-success").facts.restart_count == 0


def test_suspended_time() -> None:
    """Of a job that was suspended for four seconds."""
    assert one("22.05-16-suspend-resume").suspended_seconds == 4


@pytest.mark.parametrize("name", ["22.05-06b-oom-swallowed", "24.11-06a-oom-child-of-batch"])
def test_a_step_out_of_memory(name: str) -> None:
    """The step's own state says so."""
    assert one(name).out_of_memory_step


def test_a_step_out_of_memory_in_a_run_that_completed() -> None:
    """Known from the step, or from the highest status of the steps, whatever became of the run."""
    (by_step,) = read(job_row(), step_row(step="0", State="OUT_OF_MEMORY", ExitCode="0:125")).records
    (by_status,) = read(job_row(DerivedExitCode="0:125")).records
    assert by_step.out_of_memory_step
    assert by_status.out_of_memory_step
    assert by_step.outcome == Outcome(exit_code=0)
    assert not one("22.05-08a-steps").out_of_memory_step


def test_cpu_time_is_the_runs_and_memory_the_largest_steps() -> None:
    """In microseconds and bytes."""
    (record,) = read(
        job_row(TotalCPU="1-02:03:04"), step_row(MaxRSS="2936832"), step_row(step="0", MaxRSS="112K")
    ).records
    assert record.cpu_usage_us == ((26 * 60 + 3) * 60 + 4) * 1_000_000
    assert record.memory_peak_bytes == 2_936_832


@pytest.mark.parametrize(
    "rows",
    [
        [job_row(End="Unknown", State="RUNNING")],
        [job_row(), step_row(), step_row(step="extern", End="Unknown", State="RUNNING")],
        [job_row(TotalCPU="00:00:00"), step_row(TotalCPU="00:00:00")],
        [job_row(TotalCPU="")],
    ],
)
def test_cpu_time_is_absent_until_every_step_has_told_and_where_none_is_gathered(rows: list[dict[str, str]]) -> None:
    """A run that goes on, a step that has not ended, a site without JobAcctGather: no zero."""
    (record,) = read(*rows).records
    assert record.cpu_usage_us is None


def test_memory_that_was_never_polled_is_absent() -> None:
    """MaxRSS 0 is what a step shorter than JobAcctGatherFrequency has."""
    (record,) = read(job_row(), step_row(MaxRSS="0"), step_row(step="extern", MaxRSS="")).records
    assert record.memory_peak_bytes is None


def test_a_placeholder_is_not_taken_for_the_submission() -> None:
    """slurmdbd may hear of an end before it hears of the start: uid 0, QOS Unknown, the name "allocation"."""
    placeholder = {
        "Partition": "",
        "UID": "0",
        "GID": "0",
        "QOS": "Unknown",
        "JobName": "allocation",
        "TimelimitRaw": "",
    }
    (record,) = read(job_row(ReqTRES="", **placeholder)).records
    facts = record.facts
    assert (facts.uid, facts.gid, facts.qos, facts.job_name, facts.time_limit_seconds) == (None,) * 5
    assert (facts.partition, facts.memory_requested_bytes) == (None, None)
    assert (facts.user_name, facts.cpus_total, record.state) == ("alice", 2, "COMPLETED")


@pytest.mark.parametrize(
    ("name", "job_name"),
    [
        ("22.05-10-nasty-quotes", "a`b'c"),
        ("22.05-10-nasty-ctrl", "a\tb\x1b[31mred\x07c\\n%s%n"),
        ("24.11-10-nasty-newline", "line1\nline2\nSLURM_JOB_ID=999"),
    ],
)
def test_a_nasty_name_is_a_name(name: str, job_name: str) -> None:
    """As its user chose it."""
    assert one(name).facts.job_name == job_name


FORGED = printed([job_row(8, State="CANCELLED by 0")], delimiter="|")


@pytest.mark.parametrize(
    "job_name", ["\nfirst", "last\n", "\x1f\n\x1f|", FORGED, FORGED.replace("|", "\x1f"), "\n\n\n"]
)
def test_no_name_forges_or_shifts_a_row(job_name: str) -> None:
    """Newlines and usual delimiters in a name stay in it, and the next row is whole."""
    answer = read(job_row(JobName=job_name), step_row(), job_row(9), wanted=[7, 8, 9])
    assert [(record.job_id, record.state) for record in answer.records] == [
        ("slurm-7", "COMPLETED"),
        ("slurm-9", "COMPLETED"),
    ]
    assert answer.records[0].facts.job_name == job_name
    assert answer.unreadable == ()


@given(
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1, max_size=4)
)
def test_every_name_comes_back(names: list[str]) -> None:
    """For any names whatever."""
    answer = read(*(job_row(number, JobName=name) for number, name in enumerate(names)), wanted=range(len(names)))
    assert [record.facts.job_name for record in answer.records] == names


@pytest.mark.parametrize(
    ("broken", "path", "says"),
    [
        ({"State": "?"}, "sacct.rows[0].", "State must be a job's state, not '?'"),
        ({"Submit": "yesterday"}, "sacct.rows[0].", "Submit must be a whole number, not 'yesterday'"),
        (
            {"Submit": "9999999999999999"},
            "sacct.rows[0].",
            "Submit is too large",
        ),
        (
            {"Start": "10000000000000"},
            "sacct.rows[0].",
            "Start must be a time between the years 2000 and 2100, not 10000000000000",
        ),
        ({"End": "7"}, "sacct.rows[0].", "End must be a time between the years 2000 and 2100, not 7"),
        ({"End": "-1"}, "sacct.rows[0].", "End must be a whole number, not '-1'"),
    ],
)
def test_a_run_that_cannot_be_understood_is_told_and_the_others_live(
    broken: dict[str, str], path: str, says: str
) -> None:
    """Without its state or its times a run is no use."""
    answer = read(job_row(**broken), step_row(), job_row(9), wanted=[7, 9])
    assert [record.job_id for record in answer.records] == ["slurm-9"]
    assert [(bad.path, bad.reason, bad.job_id) for bad in answer.unreadable] == [(path, says, "slurm-7")]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("UID", "root", "must be a whole number, not 'root'"),
        ("NodeList", "n[", "NodeList: must be a host list such as n[001-004,7],gpu1"),
        ("Suspended", "long", "must be [days-][hours:]minutes:seconds, not 'long'"),
        ("TotalCPU", "3.5", "must be [days-][hours:]minutes:seconds, not '3.5'"),
        ("TotalCPU", "999999999-00:00:00", "is too large"),
        ("ReqTRES", "mem=much", "must be a size such as 256M, not 'much'"),
        ("ReqTRES", "mem", "must be resources such as cpu=1,mem=200M, not 'mem'"),
        ("UID", "9007199254740992", "is too large"),
        ("TimelimitRaw", "9007199254740991", "is too large"),
        ("AllocTRES", "gres/gpu:a=9007199254740991,gres/gpu:b=1", "is too large"),
        ("TimelimitRaw", "99999999999999999", "must be a whole number, not '99999999999999999'"),
    ],
)
def test_a_value_that_cannot_be_understood_is_absent_and_told(field: str, value: str, says: str) -> None:
    """The run's state is not lost for it."""
    answer = read(job_row(**{field: value}))
    assert [record.state for record in answer.records] == ["COMPLETED"]
    assert [(bad.path, bad.reason) for bad in answer.unreadable] == [(f"sacct.rows[0].{field}", says)]


def test_texts_are_kept_up_to_a_limit() -> None:
    """Users choose names."""
    (record,) = read(job_row(JobName="x" * 70_000, Reason="y" * 70_000)).records
    assert (record.facts.job_name, record.reason) == ("x" * 65_536, "y" * 65_536)


def test_rows_of_no_job_are_told() -> None:
    """An id that is none, and a step whose job is not before it."""
    answer = read(job_row(JobIDRaw="x7"), step_row(5), wanted=[7, 5])
    assert answer.records == ()
    assert [(bad.path, bad.job_id) for bad in answer.unreadable] == [
        ("sacct.rows[0].JobIDRaw", None),
        ("sacct.rows[1]", "slurm-5"),
    ]


@pytest.mark.parametrize("text", [printed([job_row()])[:-40], printed([job_row()]) + "more", "no delimiter at all"])
def test_an_answer_cut_short_is_refused(text: str) -> None:
    """Half an answer could lack the run that ended."""
    with pytest.raises(SlurmAnswerInvalid, match=rf"sacct: printed rows that do not have {len(FIELDS)} fields"):
        read_answer(text, FIELDS, DELIMITER, {7})


def test_nothing_found() -> None:
    """No job, no record."""
    assert read_answer("", FIELDS, DELIMITER, {7}).records == ()
