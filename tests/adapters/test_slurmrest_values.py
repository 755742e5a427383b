"""The many forms of one value, and records with values that no captured answer has."""

from typing import Any

import msgspec
import pytest

from jobtrail.adapters.slurmrest.accounting import slurmdb_record
from jobtrail.adapters.slurmrest.answers import MAX_RECORD_BYTES, job_answer, open_envelope, readable, server_errors
from jobtrail.adapters.slurmrest.jobs import slurmctld_record
from jobtrail.adapters.slurmrest.nodes import node_record
from jobtrail.adapters.slurmrest.normal import Fields, whole_number
from jobtrail.adapters.slurmrest.tres import count_of, gpus_of, gpus_of_gres, memory_bytes, tres_of_text
from jobtrail.domain.errors import SlurmAnswerInvalid
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import SlurmRecord

MEBIBYTE = 1_048_576
T = 1_760_000_000  # Unix seconds


def number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


def controller(**fields: Any) -> SlurmRecord:
    return slurmctld_record(Fields({"job_id": 7, "job_state": "RUNNING"} | fields, "jobs[0]"))


def accounting(*, version: int = 42, **fields: Any) -> SlurmRecord:
    base = {
        "job_id": 7,
        "state": {"current": ["COMPLETED"]},
        "time": {"submission": T + 1, "start": T + 2, "end": T + 3},
        "nodes": "n1",
    }
    return slurmdb_record(Fields(base | fields, "jobs[0]"), version=version, uid_of={"root": 0, "bob": 1002}.get)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (0, 0),
        ("24", 24),
        (5.0, 5),
        (None, None),
        (number(5), 5),
        ({"set": False, "infinite": False, "number": 0}, None),
        ({"set": False, "infinite": True, "number": 0}, None),
        ({"set": True, "infinite": True, "number": 7}, None),
        ({"number": 9}, 9),
        (2**53 - 1, 2**53 - 1),
        (0xFFFF_FFFE, None),
        (0xFFFF_FFFF, None),
        (0xFFFF_FFFF_FFFF_FFFE, None),
        (number(0xFFFF_FFFF), None),
        (-2, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_number_in_any_form(value: object, expected: int | None) -> None:
    assert whole_number(value, "x") == expected


@pytest.mark.parametrize(
    "value",
    [
        "many",
        "",
        "-1",
        "1" * 30,
        True,
        [],
        {},
        {"value": 3},
        number("x"),
        2**53,
        2.0**53,
        str(2**53),
        number(number(5)),
    ],
)  # type: ignore[arg-type]
def test_what_is_no_number_names_its_field(value: object) -> None:
    with pytest.raises(SlurmAnswerInvalid) as caught:
        Fields({"cpus": value}, "jobs[3]").number("cpus")
    assert caught.value.path == "jobs[3].cpus"


def test_texts_and_words_of_other_shapes_name_their_field() -> None:
    fields = Fields({"name": [1], "state": [1], "time": 3, "steps": "x", "inner": [3, {"a": 1}]}, "jobs[3]")
    for read, path in (
        (lambda: fields.text("name"), "jobs[3].name"),
        (lambda: fields.words("state"), "jobs[3].state"),
        (lambda: fields.section("time"), "jobs[3].time"),
        (lambda: list(fields.items("steps")), "jobs[3].steps"),
        (lambda: list(fields.items("inner")), "jobs[3].inner[0]"),
    ):
        with pytest.raises(SlurmAnswerInvalid) as caught:
            read()
        assert caught.value.path == path


def test_lenient_fields_are_missing_and_told() -> None:
    fields = Fields({"name": [1], "time": {"end": "x"}, "inner": [3, {"a": 1}], "steps": "x", "time2": 1}, "jobs[3]")
    lenient = fields.lenient
    assert lenient.text("name") is None
    assert lenient.section("time").number("end") is None
    assert [item.number("a") for item in lenient.items("inner")] == [1]
    assert list(lenient.items("steps")) == []
    assert lenient.section("time2").number("x") is None
    paths = ["jobs[3].name", "jobs[3].time.end", "jobs[3].inner[0]", "jobs[3].steps", "jobs[3].time2"]
    assert [problem.path for problem in fields.problems] == paths


def test_a_lone_surrogate_and_an_endless_text_are_made_storable() -> None:
    fields = Fields({"name": "a\ud800b", "comment": "x" * 100_000}, "jobs[0]")
    assert fields.text("name") == "a�b"
    assert len(fields.text("comment") or "") == 65_536


def test_words_are_made_storable_and_bounded_all_together() -> None:
    """Flags that Slurm does not have yet are kept, so what they are is for the other side to choose."""
    fields = Fields(
        {"one": "\ud800X" + "x" * 70_000, "many": ["a\udfff", *["b" * 999] * 100], "none": [""] * 99_999}, ""
    )
    (one,) = fields.words("one")
    assert (one[:3], len(one)) == ("\N{REPLACEMENT CHARACTER}Xx", 65_536)
    many = fields.words("many")
    assert (many[0], len(many)) == ("a\N{REPLACEMENT CHARACTER}", 66)
    assert len(fields.words("none")) == 65_536
    record = controller(job_state=["RUNNING", "\ud800X"], start_time=T)
    assert msgspec.json.decode(msgspec.json.encode(record))["flags"] == ["\N{REPLACEMENT CHARACTER}X"]


@pytest.mark.parametrize("time", [1, 946_684_799, 4_102_444_800, 10**13, 2**53, 2**63, 253_402_300_800])
def test_a_run_with_a_time_that_cannot_be_is_unreadable(time: int) -> None:
    for name in ("submit_time", "start_time", "end_time"):
        times = {"submit_time": T, "start_time": T, "end_time": T} | {name: time}
        with pytest.raises(SlurmAnswerInvalid) as caught:
            controller(job_state="COMPLETED", nodes="n1", exit_code=0, **times)
        assert caught.value.path == f"jobs[0].{name}"
    for name in ("submission", "start", "end"):
        times = {"submission": T, "start": T, "end": T} | {name: time}
        with pytest.raises(SlurmAnswerInvalid) as caught:
            accounting(time=times)
        assert caught.value.path == f"jobs[0].time.{name}"


def test_a_time_that_is_not_used_may_be_anything_up_to_what_can_be_read() -> None:
    """A plan for a job that waits, and the end of a run without a time limit."""
    assert controller(job_state="PENDING", start_time=10**13, submit_time=T).start_time is None
    assert controller(start_time=T, end_time=10**13, nodes="n1").end_time is None


def test_figures_that_come_to_more_than_can_be_stored_are_absent_and_told() -> None:
    huge = 2**50
    fields = Fields(
        {
            "job_id": 7, "job_state": "RUNNING", "memory_per_node": huge, "node_count": 2, "time_limit": huge,
            "tres_alloc_str": "cpu=99999999999999999999,gres/gpu=99999999999999999999", "nodes": "n1",
            "user_id": 2**60,
        },
        "jobs[0]",
    )  # fmt: skip
    facts = slurmctld_record(fields).facts
    assert (facts.memory_requested_bytes, facts.time_limit_seconds, facts.uid) == (None, None, None)
    assert (facts.cpus_total, facts.gpus_total) == (None, None)
    assert {problem.path for problem in fields.problems} == {
        "jobs[0].memory_per_node", "jobs[0].time_limit", "jobs[0].tres_alloc_str", "jobs[0].user_id",
    }  # fmt: skip
    assert controller(tres_req_str="mem=9E").facts.memory_requested_bytes is None
    assert controller(memory_per_cpu=huge, cpus=2).facts.memory_requested_bytes is None
    recorded = accounting(
        tres={
            "requested": [{"type": "mem", "count": huge}],
            "allocated": [{"type": "gres", "name": "gpu:a", "count": 1}],
        },
        time={"submission": T, "limit": huge},
        steps=[{"time": {"total": {"seconds": huge, "microseconds": 0}}}],
    )
    assert (recorded.facts.memory_requested_bytes, recorded.facts.time_limit_seconds) == (None, None)
    assert (recorded.cpu_usage_us, recorded.facts.gpus_total) == (None, 1)
    node = node_record(
        Fields({"name": "n", "state": "idle", "real_memory": huge, "boot_time": 10**13}, "nodes[0]").lenient
    )
    assert (node.memory_bytes, node.boot_time) == (None, None)


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_an_answer_nested_without_end_is_refused() -> None:
    for body in (b'{"meta":' + DEEP + b',"jobs":[]}', b'{"jobs":[{"job_id":1,"x":' + DEEP + b"}]}"):
        with pytest.raises(SlurmAnswerInvalid, match="nested too deep"):
            open_envelope(body)
    with pytest.raises(SlurmAnswerInvalid, match=r"jobs\[0\]: is nested too deep"):
        raise readable([msgspec.Raw(DEEP)], "jobs", node_record)[1][0]


def test_errors_of_any_shape_are_told_in_storable_words() -> None:
    nested = b"[" * 300 + b"]" * 300
    body = b'{"errors":[' + nested + b',{"error":"\\ud800 x","description":' + nested + b'},{"error":"a"}],"jobs":[]}'
    texts = [error.text for error in server_errors(open_envelope(body))]
    assert texts == ["an error that is no text", "an error that is no text: \N{REPLACEMENT CHARACTER} x", "a"]


@pytest.mark.parametrize(
    ("word", "state", "flags", "final"),
    [
        ("RUNNING", "RUNNING", (), False),
        ("COMPLETING", "COMPLETING", (), False),
        (["CANCELLED", "COMPLETING"], "CANCELLED", ("COMPLETING",), False),
        (["CANCELLED"], "CANCELLED", (), True),
        (["PENDING", "REQUEUED"], "PENDING", ("REQUEUED",), False),
        (["RUNNING", "SOMETHING_NEW"], "RUNNING", ("SOMETHING_NEW",), False),
        ("CANCELLED by 1001", "CANCELLED", (), True),
        ("SPECIAL_EXIT", "SPECIAL_EXIT", (), False),
    ],
)
def test_job_states(word: object, state: str, flags: tuple[str, ...], final: bool) -> None:
    record = controller(job_state=word, start_time=T + 1, end_time=T + 2, nodes="n1")
    assert (record.state, record.flags, record.is_final) == (state, flags, final)
    assert record.end_time == (T + 2 if final else None)


@pytest.mark.parametrize("word", ["", None, [], ["SPLENDID"], "SPLENDID", 3])
def test_a_state_that_nobody_knows_is_unreadable(word: object) -> None:
    with pytest.raises(SlurmAnswerInvalid, match=r"jobs\[0\]\.job_state"):
        controller(job_state=word)


def ended(exit_code: Any, state: str = "FAILED", derived: Any = 0) -> Outcome:
    record = controller(
        job_state=state, exit_code=exit_code, derived_exit_code=derived, start_time=T + 1, end_time=T + 2, nodes="n1"
    )
    return record.outcome


def status_object(word: str, code: int | None = None, signal: int | None = None) -> dict[str, Any]:
    unset = {"set": False, "infinite": False, "number": 0}
    return {
        "status": [word],
        "return_code": unset if code is None else number(code),
        "signal": {"id": unset if signal is None else number(signal), "name": ""},
    }


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (65_280, Outcome(exit_code=255, raw_status=65_280, derived_raw_status=0)),
        (number(256), Outcome(exit_code=1, raw_status=256, derived_raw_status=0)),  # v0.0.39
        (11, Outcome(exit_signal=11, raw_status=11, derived_raw_status=0)),
        (139, Outcome(exit_signal=11, raw_status=139, derived_raw_status=0)),  # with a core dump
        (253, Outcome(out_of_memory=True, raw_status=253, derived_raw_status=0)),
        (None, Outcome(derived_raw_status=0)),
        (status_object("ERROR", code=42), Outcome(exit_code=42, derived_raw_status=0)),
        (status_object("SIGNALED", signal=9), Outcome(exit_signal=9, derived_raw_status=0)),
        (status_object("SIGNALED", signal=125), Outcome(out_of_memory=True, derived_raw_status=0)),
        (status_object("PENDING"), Outcome(derived_raw_status=0)),
    ],
)
def test_exit_statuses(exit_code: Any, expected: Outcome) -> None:
    assert ended(exit_code) == expected


def test_the_status_of_a_job_that_lost_its_node_is_none_of_its_own() -> None:
    """24.11 gives it 0:1, which reads as SIGHUP."""
    assert ended(status_object("SIGNALED", signal=1), state="NODE_FAIL", derived=number(9)) == Outcome(
        derived_raw_status=9
    )


def test_a_wait_status_is_of_16_bits() -> None:
    with pytest.raises(SlurmAnswerInvalid, match=r"jobs\[0\]\.exit_code"):
        ended(70_000)


def test_slurmdbs_exit_codes_are_believed_from_v40_on() -> None:
    for version, expected in ((39, Outcome()), (40, Outcome(exit_code=5, derived_raw_status=768))):
        record = accounting(
            version=version,
            state={"current": ["FAILED"]},
            exit_code=status_object("ERROR", code=5),
            derived_exit_code=status_object("ERROR", code=3),
        )
        assert record.outcome == expected


def test_slurmdb_has_no_exit_status_of_what_slurm_ended() -> None:
    for state in ("CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "DEADLINE"):
        record = accounting(state={"current": [state]}, exit_code=status_object("SUCCESS", code=0))
        assert record.outcome == Outcome()


def test_a_requeued_run_is_over_in_slurmdb_and_waits_in_slurmctld() -> None:
    record = accounting(state={"current": ["PENDING", "REQUEUED"]})
    assert (record.state, record.flags, record.is_final, record.end_time) == ("REQUEUED", (), True, T + 3)
    assert controller(job_state=["PENDING", "REQUEUED"]).is_pending


@pytest.mark.parametrize(("name", "uid"), [("root", 0), ("bob", 1002), ("1005", 1005), ("gone", None), ("", None)])
def test_who_cancelled(name: str, uid: int | None) -> None:
    assert accounting(state={"current": "CANCELLED"}, kill_request_user=name).cancelled_by_uid == uid
    assert accounting(state={"current": "TIMEOUT"}, kill_request_user=name).cancelled_by_uid is None


def test_times_of_a_run_that_goes_on_waits_or_never_was() -> None:
    running = controller(start_time=T + 100, end_time=T + 100 + 4_294_967_236, nodes="n1")
    assert (running.start_time, running.end_time) == (T + 100, None)
    planned = controller(job_state="PENDING", start_time=T + 5_000)
    assert planned.start_time is None
    requeued = controller(job_state="COMPLETING", start_time=T + 5_000, end_time=T + 5_000 + 4_294_967_236, nodes="n1")
    assert requeued.start_time is None
    completing = controller(job_state="COMPLETING", start_time=T + 5_000, end_time=T + 5_009, nodes="n1")
    assert completing.start_time == T + 5_000
    cancelled = controller(job_state="CANCELLED", start_time=T + 50, end_time=T + 50, nodes="", exit_code=0)
    assert (cancelled.start_time, cancelled.end_time, cancelled.outcome) == (None, T + 50, Outcome())


def test_suspended_seconds_are_what_is_not_run_before_the_last_change() -> None:
    def suspended(last: Any, had_run: Any) -> int | None:
        return controller(start_time=T + 100, suspend_time=last, pre_sus_time=had_run, nodes="n1").suspended_seconds

    assert suspended(0, 0) == 0
    assert suspended(number(T + 130), number(10)) == 20
    assert suspended(T + 110, 10) == 0
    assert suspended(T + 105, 10) is None  # of an earlier run
    assert suspended(None, 0) is None


def test_array_and_het_are_only_what_they_are() -> None:
    alone = controller(array_job_id=number(0), array_task_id={"set": False, "infinite": False, "number": 0},
                       het_job_id=number(0), het_job_offset=number(0)).facts  # fmt: skip
    assert (alone.array_job_id, alone.array_task_id, alone.het_leader_job_id, alone.het_job_offset) == (None,) * 4
    task = controller(array_job_id=number(5), array_task_id=number(0)).facts
    assert (task.array_job_id, task.array_task_id) == ("slurm-5", 0)
    waiting = controller(job_state="PENDING", array_job_id=7, array_task_id=None, array_task_string="2-3%1")
    assert (waiting.facts.array_job_id, waiting.facts.array_task_id, waiting.array_tasks_pending) == (
        "slurm-7",
        None,
        "2-3%1",
    )
    component = controller(het_job_id=6, het_job_offset=1).facts
    assert (component.het_leader_job_id, component.het_job_offset) == ("slurm-6", 1)
    recorded = accounting(het={"job_id": 6, "job_offset": number(0)}, array={"job_id": 5, "task_id": number(2)}).facts
    assert (recorded.het_leader_job_id, recorded.het_job_offset) == ("slurm-6", 0)
    assert (recorded.array_job_id, recorded.array_task_id) == ("slurm-5", 2)


def test_memory_requested_is_the_jobs_by_the_best_that_is_told() -> None:
    def requested(**fields: Any) -> int | None:
        return controller(**fields).facts.memory_requested_bytes

    assert requested(tres_req_str="cpu=4,mem=1.50G,node=2", memory_per_node=5) == 1536 * MEBIBYTE
    assert requested(memory_per_node=number(200), node_count=number(3)) == 600 * MEBIBYTE
    assert requested(memory_per_cpu=number(100), cpus=number(4), memory_per_node=None) == 400 * MEBIBYTE
    assert requested(memory_per_node=0, node_count=1) is None


def test_what_is_allocated_is_told_only_of_what_has_nodes() -> None:
    assert controller(job_state="PENDING", cpus=4).facts.cpus_total is None
    assert controller(cpus=4, nodes="n1").facts.cpus_total == 4
    assert controller(tres_alloc_str="cpu=8,node=1", cpus=4, nodes="n1").facts.cpus_total == 8
    detail = controller(nodes="n[1-2]", gres_detail=["gpu:a100:2(IDX:0-1)", "gpu:a100:1(IDX:3)"]).facts
    assert (detail.gpus_total, detail.nodes) == (3, ("n1", "n2"))
    assert controller(nodes="n1", gres_detail=[]).facts.gpus_total is None
    assert controller(nodes="n1", tres_alloc_str="cpu=1,gres/gpu=2", gres_detail=["gpu:1"]).facts.gpus_total == 2


def test_tres_and_gres() -> None:
    assert gpus_of(tres_of_text("gres/gpu:a100=2,gres/gpu:v100=1,gres/shard=4")) == 3
    assert gpus_of(tres_of_text("cpu=1")) is None
    assert gpus_of_gres("gpu:a100:2(S:0,1),shard:a100:8,gpu:v100:1,mygpu:9") == 3
    assert gpus_of_gres("gpu:a100:0(IDX:N/A)") == 0
    assert gpus_of_gres("lustre:1") is None
    assert [memory_bytes(text) for text in ("200", "4K", "1T", "0", "lots", None)] == [
        200 * MEBIBYTE, 4096, 1_099_511_627_776, None, None, None,
    ]  # fmt: skip
    assert [count_of(amount) for amount in ("12", "2K", 7, "x", None)] == [12, 2048, 7, None, None]


def test_usage_is_of_the_steps_and_absent_where_nothing_was_seen() -> None:
    def step(name: str, microseconds: int, rss: int, state: str = "COMPLETED") -> dict[str, Any]:
        peaks = [{"type": "cpu", "count": 1}, {"type": "mem", "count": rss}]
        total = {"seconds": 1, "microseconds": microseconds}
        return {"step": {"id": name}, "state": [state], "time": {"total": total}, "tres": {"requested": {"max": peaks}}}

    record = accounting(steps=[step("7.batch", 5, 0, "OUT_OF_MEMORY"), step("7.0", 6, 4096), step("7.extern", 1, 9999)])
    assert (record.cpu_usage_us, record.memory_peak_bytes, record.out_of_memory_step) == (3_000_012, 9999, True)
    unseen = accounting(steps=[step("batch", 0, 0), step("extern", 0, 9999)])
    assert (unseen.memory_peak_bytes, unseen.out_of_memory_step) == (None, False)
    assert accounting(steps=[]).cpu_usage_us is None
    assert accounting(state={"current": ["RUNNING"]}, steps=[step("0", 5, 4096)]).cpu_usage_us is None


def test_a_run_that_never_had_nodes_in_slurmdb() -> None:
    record = accounting(
        state={"current": "CANCELLED"}, nodes="None assigned", time={"submission": T + 1, "start": T + 3, "end": T + 3}
    )
    assert (record.start_time, record.end_time, record.facts.node_list, record.suspended_seconds) == (
        None,
        T + 3,
        None,
        None,
    )


def test_slurmdbs_filling_for_what_it_has_not_heard_yet_is_not_believed() -> None:
    early = accounting(
        name="allocation", partition=None, time={"submission": T + 1, "start": T + 2, "end": T + 3, "limit": 0}
    )
    assert (early.facts.job_name, early.facts.time_limit_seconds) == (None, None)
    named = accounting(name="allocation", partition="debug", time={"submission": T + 1, "limit": number(2)})
    assert (named.facts.job_name, named.facts.time_limit_seconds) == ("allocation", 120)


def test_one_job_that_cannot_be_understood_takes_no_other_with_it() -> None:
    body = (
        b'{"errors": [], "jobs": [{"job_id": 1, "job_state": "SPLENDID"}, 5, {"job_id": 2, "job_state": "RUNNING", '
        b'"name": "caf\xe9", "qos": 7, "nodes": "n[1"}, {"job_id": 3, "job_state": "RUNNING", "qos": 8}, '
        b'{"job_state": "RUNNING"}]}'
    )
    answer = job_answer(open_envelope(body).jobs, slurmctld_record)
    assert [record.job_id for record in answer.records] == ["slurm-2", "slurm-3"]
    assert answer.records[0].facts.job_name == "caf�"
    assert answer.records[0].facts.node_list == "n[1"
    assert answer.records[0].facts.nodes is None
    assert [(one.path, one.job_id) for one in answer.unreadable] == [
        ("jobs[0].job_state", "slurm-1"),
        ("jobs[1]", None),
        ("jobs[2].qos", "slurm-2"),
        ("jobs[2].nodes", "slurm-2"),
        ("jobs[4].job_id", None),
    ]


def test_json_as_loose_as_it_comes() -> None:
    """NaN, which JSON has not, bytes that are no UTF-8, control characters and lone surrogates, in one answer."""
    body = (
        rb'{"jobs":[{"job_id":1,"job_state":"RUNNING","billable_tres":NaN,"time_limit":-Infinity,"name":"a'
        b"\xff\tb\nc"
        rb' NaN \ud800 \\ud800 \"\ud83d\ude00","user_id":3}],"meta":{"x":Infinity}}'
    )
    for answer in (body, bytearray(body)):
        (record,) = job_answer(open_envelope(answer).jobs, slurmctld_record).records
        assert (
            record.facts.job_name == 'a\N{REPLACEMENT CHARACTER} b c NaN \N{REPLACEMENT CHARACTER} \\ud800 "\U0001f600'
        )
        assert (record.facts.uid, record.facts.time_limit_seconds) == (3, None)
    with pytest.raises(SlurmAnswerInvalid, match="answer: is not JSON"):
        open_envelope(b'{"jobs":[NaN,')


def test_a_record_of_any_size_costs_only_itself() -> None:
    huge = b'{"job_id":2,"job_state":"RUNNING","comment":"' + b"x" * MAX_RECORD_BYTES + b'"}'
    body = b'{"jobs":[{"job_id":1,"job_state":"RUNNING"},' + huge + b"]}"
    answer = job_answer(open_envelope(body).jobs, slurmctld_record)
    assert [record.job_id for record in answer.records] == ["slurm-1"]
    assert [(one.path, one.reason[:23]) for one in answer.unreadable] == [("jobs[1]", f"is {len(huge)} bytes, more")]


def test_what_records_have_in_common_is_held_once() -> None:
    jobs = [{"job_id": number, "job_state": "RUNNING", "nodes": "n[1-2]", "user_name": "ada"} for number in (1, 2)]
    first, second = job_answer(open_envelope(msgspec.json.encode({"jobs": jobs})).jobs, slurmctld_record).records
    assert first.facts.nodes == ("n1", "n2")
    assert first.facts.nodes is second.facts.nodes
    assert first.facts.user_name is second.facts.user_name
    assert first.state is second.state


def test_node_lists_without_end_are_not_expanded() -> None:
    """A host list of few characters names many nodes; the list itself is kept."""
    jobs = [
        {"job_id": n, "job_state": "RUNNING", "nodes": f"n[{n}-{n + 99_998}]", "start_time": T} for n in range(1, 13)
    ]
    answer = job_answer(open_envelope(msgspec.json.encode({"jobs": jobs})).jobs, slurmctld_record)
    assert [record.facts.nodes is None for record in answer.records] == [False] * 10 + [True] * 2
    assert answer.records[-1].facts.node_list == "n[12-100010]"
    (told,) = answer.unreadable
    assert (told.path, "over 1000000 nodes" in told.reason) == ("jobs[10].nodes", True)


def test_node_states_and_figures() -> None:
    nodes = [
        {"name": "n1", "state": ["IDLE", "DRAIN", "NOT_RESPONDING"], "cpu_load": 0xFFFF_FFFE, "free_mem": number(5),
         "gres": "gpu:a100:4(S:0-1),gpu:v100:2", "gres_used": "gpu:a100:1(IDX:2),gpu:v100:0(IDX:N/A)", "cpus": [1]},
        {"name": "n2", "state": "mixed", "state_flags": ["DRAIN"], "cpu_load": 150, "gres": "", "gres_used": ""},
        {"name": "n3", "state": "down", "gres": None},
        {"state": "down"},
    ]  # fmt: skip
    found, problems = readable(nodes, "nodes", node_record)
    first, second, third = found
    assert (first.state, first.flags, first.cpu_load) == ("idle", ("drain", "not_responding"), None)
    assert (first.gpus, first.gpus_allocated, first.memory_free_bytes, first.cpus) == (6, 1, 5 * MEBIBYTE, None)
    assert (second.flags, second.cpu_load, second.gpus, second.gpus_allocated) == (("drain",), 1.5, 0, 0)
    assert (third.gpus, third.gpus_allocated, third.memory_bytes) == (None, None, None)
    assert [problem.path for problem in problems] == ["nodes[3].name"]
    with pytest.raises(SlurmAnswerInvalid, match="nodes: is missing"):
        readable(None, "nodes", node_record)
