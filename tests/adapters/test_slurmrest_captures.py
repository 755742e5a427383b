"""Every captured answer of slurmrestd is understood, and says what sacct and scontrol said at the same moment."""

from pathlib import Path

import pytest

from jobtrail.adapters.slurmrest.answers import open_envelope, readable, release_of, server_errors
from jobtrail.adapters.slurmrest.nodes import node_record
from jobtrail.domain.job_facts import Outcome
from jobtrail.domain.slurm import ENDED_BY_SLURM, SlurmRecord
from tests.adapters.slurmrest_captures import (
    CAPTURES,
    SCENARIOS,
    accounting_answer,
    controller_answer,
    cpu_milliseconds,
    memory_bytes,
    named,
    sacct_rows,
    scontrol_records,
    seconds,
    version_of,
)

CONTROLLER = sorted(CAPTURES.glob("slurm-*/*/*.rest-jobs-*.json"))
ACCOUNTING = sorted(CAPTURES.glob("slurm-*/*/*.restdb-jobs-*.json"))
NODES = sorted(CAPTURES.glob("slurm-*/*/*.rest-nodes-*.json"))


UNDECIDED = {"PENDING", "COMPLETING", "RUNNING"}


def tres(text: str, name: str) -> str | None:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part).get(name)


def exit_pair(record: SlurmRecord) -> str:
    """The outcome as sacct and scontrol print it."""
    if record.outcome.out_of_memory:
        return "0:125"
    return f"{record.outcome.exit_code or 0}:{record.outcome.exit_signal or 0}"


def pair_of(raw_status: int | None) -> str:
    assert raw_status is not None
    return f"{raw_status >> 8}:{raw_status & 0x7F}"


def unset(text: str) -> str | None:
    return None if text in {"", "(null)", "None assigned"} else text


def test_there_are_captures_of_both_releases_and_all_their_versions() -> None:
    assert {version_of(path) for path in CONTROLLER} == {36, 37, 38, 40, 41, 42}
    assert len(CONTROLLER) > 150
    assert len(ACCOUNTING) > 120
    assert len(NODES) > 20


@pytest.mark.parametrize("path", [*CONTROLLER, *ACCOUNTING, *NODES], ids=named)
def test_every_capture_is_understood_without_a_remainder(path: Path) -> None:
    envelope = open_envelope(path.read_bytes())
    assert release_of(envelope) in {"22.05.8", "24.11.5"}
    if "rest-nodes" in path.name:
        found, problems = readable(envelope.nodes, "nodes", node_record)
        assert (len(found), problems) == (len(envelope.nodes or ()), [])
    else:
        answer = accounting_answer(path) if "restdb" in path.name else controller_answer(path)
        assert answer.unreadable == ()
        assert len(answer.records) == len(envelope.jobs or ())
    assert server_errors(envelope) == () or not envelope.jobs


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_slurmctld_says_what_scontrol_says(scenario: Path) -> None:
    said = scontrol_records(scenario)
    captures = sorted(scenario.glob("end.rest-jobs-*.json"))
    compared = 0
    for path in captures:
        for record in controller_answer(path).records:
            expected = said.get(record.job_id)
            # A job that changed between the two commands cannot be compared.
            if expected is None or not record.is_final or expected["JobState"] != record.state:
                continue
            compared += 1
            facts = record.facts
            assert record.submit_time == seconds(expected["SubmitTime"])
            assert record.end_time == seconds(expected["EndTime"])
            if facts.node_list is not None:
                assert record.start_time == seconds(expected["StartTime"])
                assert facts.cpus_total == int(expected["NumCPUs"].partition("-")[0])
            else:
                assert (record.start_time, record.outcome) == (None, Outcome())
            if record.state != "NODE_FAIL" and facts.node_list is not None:
                assert exit_pair(record) == expected["ExitCode"]
                assert pair_of(record.outcome.derived_raw_status) == expected["DerivedExitCode"]
            assert facts.account == unset(expected["Account"])
            assert facts.partition == expected["Partition"]
            assert facts.restart_count == int(expected["Restarts"])
            assert facts.node_list == unset(expected["NodeList"])
            assert facts.uid == int(expected["UserId"].partition("(")[2].rstrip(")"))
            assert facts.gid == int(expected["GroupId"].partition("(")[2].rstrip(")"))
    assert compared or not captures or {one["JobState"] for one in said.values()} <= UNDECIDED


@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_slurmdb_says_what_sacct_says(scenario: Path) -> None:
    rows = sacct_rows(scenario)
    compared = 0
    for path in sorted(scenario.glob("end.restdb-jobs-*.json")):
        for record in accounting_answer(path).records:
            run = rows.get((record.job_id, record.submit_time))
            if run is None:
                continue
            compared += 1
            row, *steps = run
            facts = record.facts
            assert record.state == row["State"].partition(" ")[0]
            assert record.end_time == seconds(row["End"])
            assert record.start_time == (None if version_of(path) < 38 else seconds(row["Start"]))
            assert facts.account == unset(row["Account"])
            assert facts.user_name in {row["User"], None}  # 22.05 has a name only with an association
            assert facts.qos == row["QOS"]
            assert facts.partition == row["Partition"]
            assert facts.job_name == unset(row["JobName"])
            assert facts.node_list == unset(row["NodeList"])
            assert facts.cpus_total == (int(tres(row["AllocTRES"], "cpu") or 0) or None)
            requested = tres(row["ReqTRES"], "mem")
            assert facts.memory_requested_bytes == (memory_bytes(requested) if requested else None)
            assert (facts.gpus_total or 0) == int(tres(row["AllocTRES"], "gres/gpu") or 0)
            assert record.suspended_seconds == sum(
                int(part) * unit for part, unit in zip(row["Suspended"].split(":"), (3600, 60, 1), strict=True)
            )
            if row["State"].startswith("CANCELLED by "):
                assert record.cancelled_by_uid == {"0": 0}.get(row["State"].removeprefix("CANCELLED by "))
            assert_usage(record, row, steps)
            assert_exit(record, row, trusted=version_of(path) >= 40)
    # What sacct prints of a name with its delimiter or a newline in it has no rows to compare with.
    assert compared or not rows


def assert_usage(record: SlurmRecord, row: dict[str, str], steps: list[dict[str, str]]) -> None:
    if record.is_final:
        # sacct cuts to milliseconds; what it prints as 0 is not known or less.
        assert (record.cpu_usage_us or 0) // 1000 == cpu_milliseconds(row["TotalCPU"])
    peaks = {step["JobIDRaw"]: memory_bytes(step["MaxRSS"]) for step in steps if step["MaxRSS"]}
    own = [peak for name, peak in peaks.items() if peak and not name.endswith(".extern")]
    assert record.memory_peak_bytes == (max(peaks.values()) if own else None)
    assert record.out_of_memory_step == any(step["State"] == "OUT_OF_MEMORY" for step in steps)


def assert_exit(record: SlurmRecord, row: dict[str, str], *, trusted: bool) -> None:
    if record.state == "OUT_OF_MEMORY":
        assert record.outcome.out_of_memory
        return
    if not trusted or record.state in ENDED_BY_SLURM or not record.is_final:
        assert record.outcome.exit_code is None
        assert record.outcome.exit_signal is None
        return
    assert exit_pair(record) == row["ExitCode"]
    assert pair_of(record.outcome.derived_raw_status) == row["DerivedExitCode"]
