"""`jobtrail report`, its page and its API on jobs of a real Slurm, held against sacct; and what sacct shows of them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobtrail.domain.admin_comment import MARK
from tests.daemon_process import wait_until
from tests.slurm.observed import FIRST_RUN_STAYS, UNTIL_OPEN
from tests.slurm.pair import Pair, observed_pair
from tests.slurm.test_observed_jobs import BURN, HOLD

pytestmark = pytest.mark.slurm

MEBIBYTE = 1 << 20
SLEEPS = 126  # seconds: of a job that is shorter than two minutes no advice is given on what to ask for
REQUEUED = f"#!/bin/sh\n{FIRST_RUN_STAYS}\nsleep 1\n"


@pytest.fixture(scope="module")
def pair(slurm_packages: None) -> Iterator[Pair]:
    comments = {"admin_comment": "summary", "admin_comment_seconds": 2.0}
    with observed_pair(extra_conf=["KillWait=2"], slurm=comments) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def sleeper(pair: Pair) -> int:
    """A job that sleeps with four CPUs and 4 GiB for an hour, while the other tests go on."""
    return pair.cluster.submit(f"exec sleep {SLEEPS}", "--cpus-per-task=4", "--mem=4096", "--time=60")


def report(pair: Pair, slurm_id: int, *options: str) -> dict[str, Any]:
    """What `jobtrail report --json` says."""
    return dict(json.loads(pair.daemon.cli("report", str(slurm_id), "--json", *options).stdout))


def rules(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {note["rule"]: note for note in told["advice"]["notes"]}


def settled(pair: Pair, slurm_id: int) -> dict[str, Any]:
    """The job once Slurm confirmed it and its last usage is stored."""
    pair.settled(slurm_id)
    return pair.confirmed(slurm_id)


def number(row: dict[str, Any]) -> int:
    return int(row["job_id"].removeprefix("slurm-"))


def accounted(pair: Pair, slurm_id: int) -> dict[str, float]:
    """sacct's CPU seconds, the largest MaxRSS of a step in bytes, and elapsed seconds."""
    rows = pair.cluster.sacct(slurm_id, ["TotalCPU", "MaxRSS", "ElapsedRaw"], steps=True)
    seconds = 0.0
    for part in rows[0]["TotalCPU"].replace("-", ":").split(":"):
        seconds = 60 * seconds + float(part)
    sizes = [row["MaxRSS"] for row in rows if row["MaxRSS"]]
    peak = max(float(size.rstrip("KMG")) * 1024 ** ("KMG".find(size[-1]) + 1) for size in sizes)
    return {"cpu": seconds, "memory": peak, "elapsed": float(rows[0]["ElapsedRaw"])}


def comments(pair: Pair, slurm_id: int) -> list[str]:
    """The AdminComment of each run, as sacct has it now."""
    return [row["AdminComment"] for row in pair.cluster.sacct_rows(slurm_id, ["AdminComment"])]


def commented(pair: Pair, slurm_id: int) -> str:
    """The AdminComment of the last run once the daemon has written it."""

    def written() -> str | None:
        last = comments(pair, slurm_id)[-1]
        return last if last.casefold().startswith(MARK) else None

    try:
        return wait_until(written, f"the AdminComment of job {slurm_id}", timeout_seconds=120)
    except AssertionError as error:
        raise AssertionError(f"{error}; the daemon warned:\n{pair.warnings()}") from None


@pytest.fixture(scope="module")
def burned(pair: Pair) -> dict[str, Any]:
    """A job that keeps one of two CPUs busy for six seconds, and `took_seconds` from its submission to its end."""
    asked = time.monotonic()
    slurm_id = pair.cluster.submit(BURN.format(seconds=6, gate="/"), "--cpus-per-task=2", "--mem=200", "--time=1")
    pair.cluster.wait_finished(slurm_id)
    took = time.monotonic() - asked
    return settled(pair, slurm_id) | {"took_seconds": took}


def test_figures_agree_with_sacct(pair: Pair, burned: dict[str, Any]) -> None:
    told, known = report(pair, number(burned)), accounted(pair, number(burned))
    assert told["cpu"]["used_seconds"] == pytest.approx(known["cpu"], rel=0.05)
    # sacct's seconds are whole ones, the daemon's from prolog to epilog; what lies between was not the job's six.
    assert 6 <= told["time"]["ran_seconds"] <= burned["took_seconds"]
    assert told["time"]["ran_seconds"] == pytest.approx(known["elapsed"], abs=burned["took_seconds"] - 6 + 1)
    assert told["cpu"]["ratio"] == pytest.approx(known["cpu"] / (2 * told["time"]["ran_seconds"]), rel=0.05)
    # The cgroup's peak counts file cache and all processes of the job, MaxRSS one process.
    assert known["memory"] * 0.9 <= told["memory"]["peak_bytes"] <= 200 * MEBIBYTE
    assert told["memory"]["limit_bytes"] == 200 * MEBIBYTE
    assert (told["verdict"], told["time"]["limit_seconds"]) == ("completed", 60)
    assert "says little of what a longer one needs" in told["advice"]["withheld"]


def test_terminal_page_and_api_say_the_same(pair: Pair, burned: dict[str, Any], tmp_path: Path) -> None:
    slurm_id = number(burned)
    told = report(pair, slurm_id)
    text = pair.daemon.cli("report", str(slurm_id)).stdout
    page = tmp_path / "page.html"
    pair.daemon.cli("report", str(slurm_id), "--html", str(page))
    status, body = pair.daemon.get(f"/v1/jobs/{slurm_id}/report")
    assert status == 200
    answer = json.loads(body)
    assert answer["summary"]["cpu"] == told["cpu"]
    assert answer["sentence"] == told["sentence"]
    share = f"{100 * told['cpu']['ratio']:.0f} %"
    for shown in (text, page.read_text()):
        assert share in shown
        assert f"slurm-{slurm_id}" in shown
        assert "with exit code 0" in shown
    assert re.search(rf"CPU\s+.*{share}", text)
    assert "<svg" in page.read_text()
    assert oct(page.stat().st_mode & 0o777) == "0o600"


def test_a_job_that_ran_out_of_memory_is_told_to_ask_for_more(pair: Pair) -> None:
    slurm_id = pair.cluster.submit(HOLD.format(mebibytes=200, seconds=5), "--mem=60")
    pair.cluster.wait_finished(slurm_id)
    settled(pair, slurm_id)
    told = report(pair, slurm_id)
    assert told["verdict"] == "out_of_memory"
    assert "memory" in told["sentence"]
    note = rules(told)["out_of_memory"]
    assert (note["level"], note["figures"]["memory_limit_bytes"]) == ("problem", 60 * MEBIBYTE)
    assert note["changes"] == ["#SBATCH --mem=128M"]
    assert commented(pair, slurm_id).casefold().startswith("jobtrail: out of memory, ")


def test_a_job_near_its_memory_limit_is_warned(pair: Pair) -> None:
    slurm_id = pair.cluster.submit(HOLD.format(mebibytes=190, seconds=4), "--mem=200")
    pair.cluster.wait_finished(slurm_id)
    settled(pair, slurm_id)
    told = report(pair, slurm_id)
    assert told["verdict"] == "completed"
    assert 0.95 <= told["memory"]["ratio"] <= 1.0
    assert told["memory"]["peak_bytes"] >= accounted(pair, slurm_id)["memory"] * 0.9
    assert rules(told)["memory_near_limit"]["level"] == "warning"


def test_a_cancelled_job_is_called_that_and_blamed_for_nothing(pair: Pair) -> None:
    slurm_id = pair.cluster.submit("exec sleep 300", "--mem=100")
    pair.cluster.wait_script(slurm_id)
    pair.cluster.cancel(slurm_id)
    pair.cluster.wait_finished(slurm_id)
    settled(pair, slurm_id)
    told = report(pair, slurm_id)
    assert (told["verdict"], list(rules(told))) == ("cancelled", ["cancelled"])
    assert "cancelled" in told["sentence"]
    assert commented(pair, slurm_id).casefold().startswith("jobtrail: cancelled, ")


def test_a_summary_is_the_admin_comment_and_is_on_record(pair: Pair, burned: dict[str, Any]) -> None:
    """Slurm 22.05 makes small letters of it."""
    slurm_id = number(burned)
    told = commented(pair, slurm_id).casefold()
    share = 100 * report(pair, slurm_id)["cpu"]["ratio"]
    assert told.startswith(f"jobtrail: completed, cpu {share:.0f}% of 2 cpus, memory ")
    assert told.rpartition(" of ")[2] == "200 mib"
    row = wait_until(
        lambda: [row for row in pair.trail(slurm_id) if row["event_kind"] == "comment_written"], "the trail's row"
    )
    assert [(one["changed_by"], one["change_type"], one["event"]["note"].casefold()) for one in row] == [
        ("reconciler", "update", told)
    ]


def test_what_an_administrator_wrote_stays(pair: Pair) -> None:
    gate = pair.gate("ticket")
    slurm_id = pair.cluster.submit(UNTIL_OPEN.format(gate=gate))
    pair.cluster.wait_running(slurm_id)
    pair.cluster.run_tool("scontrol", "update", f"JobId={slurm_id}", "AdminComment=See Ticket 12")
    gate.touch()
    pair.cluster.wait_finished(slurm_id)
    settled(pair, slurm_id)
    left = ("jobtrail_admin_comments_total", "left")

    def seen_to() -> bool:
        return any(labels.get("result") == left[1] and value for labels, value in pair.daemon.metrics()[left[0]])

    wait_until(seen_to, "the daemon to leave it alone", timeout_seconds=120)
    assert comments(pair, slurm_id) == ["See Ticket 12"]


def test_each_task_of_an_array_has_its_own(pair: Pair) -> None:
    """For the array's id, which one task bears, sacctmgr would change all."""
    array_id = pair.cluster.submit_array("exit $SLURM_ARRAY_TASK_ID", "0-2")
    tasks = pair.cluster.array_tasks(array_id, 3)
    for slurm_id in tasks.values():
        pair.cluster.wait_finished(slurm_id)
    told = {task: commented(pair, slurm_id).casefold() for task, slurm_id in tasks.items()}
    assert [told[task].partition(",")[0] for task in range(3)] == [
        "jobtrail: completed", "jobtrail: failed", "jobtrail: failed"
    ]  # fmt: skip
    assert array_id in tasks.values()


def test_of_a_requeued_job_the_last_run_has_it(pair: Pair) -> None:
    slurm_id = pair.cluster.submit(REQUEUED)
    pair.cluster.wait_script(slurm_id)
    pair.cluster.requeue(slurm_id)
    pair.cluster.wait_state(slurm_id, {"PENDING"})
    wait_until(lambda: "job_finished" in [row["event_kind"] for row in pair.trail(slurm_id)], "the first run's epilog")
    pair.cluster.start_now(slurm_id)
    pair.cluster.wait_finished(slurm_id)
    pair.confirmed(slurm_id, runs=2)
    assert commented(pair, slurm_id).casefold().startswith("jobtrail: completed, ")
    assert comments(pair, slurm_id)[0] == ""


def test_a_job_that_slept_is_told_to_ask_for_less(pair: Pair, sleeper: int) -> None:
    pair.cluster.wait_finished(sleeper, timeout=SLEEPS + 180)
    settled(pair, sleeper)
    told, known = report(pair, sleeper), accounted(pair, sleeper)
    assert told["verdict"] == "completed"
    assert told["cpu"]["ratio"] < 0.01
    assert told["cpu"]["used_seconds"] == pytest.approx(known["cpu"], abs=0.5)
    assert set(rules(told)) == {"cpus_unused", "memory_unused", "time_unused"}
    changes = [change for note in told["advice"]["notes"] for change in note["changes"]]
    assert {"#SBATCH --cpus-per-task=1", "#SBATCH --time=00:05:00"} <= set(changes)
    assert told["advice"]["withheld"] is None
    text = pair.daemon.cli("report", str(sleeper)).stdout
    assert "less than 1 %" in text
    assert "#SBATCH --cpus-per-task=1" in text
    assert "cpu under 1% of 4 cpus" in commented(pair, sleeper).casefold()


def test_the_jobs_follow_from_the_trail(pair: Pair, burned: dict[str, Any]) -> None:
    """Comments are rows of it and change no job."""
    assert datetime.now(burned["end_time"].tzinfo) > burned["end_time"]
    found = pair.rebuild_check()
    assert (found["differing"], found["unverifiable"]) == (0, {})
