"""A benchmark's report, from an ordinary user through the real daemon to list, page, leaderboard and comparison."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.cli import exit_codes
from jobtrail.core.benchmarks.ports import RUN_COLUMNS
from tests.adapters.test_benchmark_drop import left_by
from tests.adapters.test_http_senders import CLIENT, STRANGER_UID
from tests.benchmark_reports import report, uid
from tests.daemon_process import Daemon, wait_until
from tests.requirements import require_root
from tests.served_api import parse_answer, request_bytes

OWNER_UID = 1  # `daemon`, on every Linux
RUNS = "/v1/benchmarks/runs"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter: pytest shuts its own against others whenever a session begins."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def url(place: Path) -> Iterator[str]:
    with embedded_postgres.running(place / "postgres") as found:
        migrate.upgrade(found)
        yield found


@pytest.fixture
def daemon(place: Path, url: str) -> Iterator[Daemon]:
    require_root("it becomes other users to send as them")
    one = Daemon(
        place / "daemon", cluster="lab", database={"url": url}, slurm={"sacct": ""}, gpu={"vendors": "none"},
        benchmarks={"drop_directory": str(place / "daemon" / "benchmarks"), "settle_seconds": 0.2},
    )  # fmt: skip
    with one:
        yield one


def poke_socket(daemon: Daemon) -> str:
    return str(daemon.directory / "poke.sock")


def body(number: int, throughput: float, **fields: Any) -> bytes:
    return msgspec.json.encode(report(number, throughput, repeats=3, **fields))


def sent_by(user: int, daemon: Daemon, method: str, path: str, content: bytes = b"") -> tuple[int, dict[str, Any]]:
    """Status and answer of a request that a process of that user sends."""
    request = request_bytes(method, path, content, {"Connection": "close"})
    argv = [sys.executable, "-c", CLIENT, poke_socket(daemon), str(user)]
    done = subprocess.run(argv, input=request, capture_output=True, timeout=60, check=True)
    answer = parse_answer(done.stdout)
    return answer.status, answer.json()


def listed(daemon: Daemon, count: int) -> list[dict[str, Any]]:
    """The runs, once there are as many."""

    def there() -> list[dict[str, Any]] | None:
        status, answer = daemon.get(RUNS)
        page = json.loads(answer)
        return page["runs"] if status == 200 and page["total"] == count else None

    return wait_until(there, f"{count} runs; log:\n{daemon.tail()}")


def test_a_users_runs_are_listed_shown_ranked_and_compared(daemon: Daemon, url: str) -> None:
    assert sent_by(STRANGER_UID, daemon, "POST", RUNS, body(1, 100.0))[0] == 201
    assert sent_by(STRANGER_UID, daemon, "POST", RUNS, body(1, 100.0))[0] == 200
    assert sent_by(OWNER_UID, daemon, "POST", RUNS, body(2, 80.0, model="other model", at=60_000_000))[0] == 201
    second, first = listed(daemon, 2)
    assert (first["run_uid"], first["user_name"], first["job_id"]) == (uid(1), None, "slurm-1")
    assert (second["user_name"], second["model"], second["output_tokens_per_second"]) == ("daemon", "other model", 80.0)

    page = daemon.cli("bench", "runs", "--model", "other model", "--sort=-output_token_throughput.value").stdout
    assert "other model" in page
    assert uid(1)[:8] not in page.replace(uid(2)[:8], "")
    (row,) = csv.DictReader(io.StringIO(daemon.cli("bench", "runs", "--csv", "--user", "daemon").stdout))
    assert (row["run_uid"], row["output_tokens_per_second"]) == (uid(2), "80.0")

    shown = daemon.cli("bench", "result", uid(2)).stdout
    for words in ("chat 1, sha256 aaaaaaaaaaaa", "1 x H100", "80 token/s", "79.2 token/s  80 token/s  80.8 token/s",
                  "slurm-1 (both): pending, by manifest", "user        daemon"):  # fmt: skip
        assert words in shown

    assert daemon.cli("bench", "leaderboard").stdout == "no valid run has this number\n"  # nobody knows their job
    for number, throughput, model in ((3, 100.0, "llama"), (4, 80.0, "other model")):
        report_of_no_job = body(number, throughput, model=model, jobs=())
        assert sent_by(OWNER_UID, daemon, "POST", RUNS, report_of_no_job)[0] == 201
    listed(daemon, 4)
    ranking = daemon.cli("bench", "leaderboard").stdout.splitlines()
    assert ranking[0] == "output_token_throughput value, higher is better"
    assert [line.split()[:2] for line in ranking[2:]] == [["1", "100"], ["2", "80"]]
    slowest_last = daemon.cli("bench", "leaderboard", "--metric", "time_to_first_token", "--json").stdout
    assert json.loads(slowest_last)["stat"] == "p50"

    compared = daemon.cli("bench", "compare", uid(1), uid(2)).stdout
    (line,) = (line for line in compared.splitlines() if line.startswith("output_token_throughput"))
    assert line.split("  ")[-1].strip().startswith("more than noise")
    assert "-20.0 %" in line
    assert "worse" in line

    status, run = sent_by(STRANGER_UID, daemon, "GET", f"{RUNS}/{uid(2)}")
    assert (status, "argv" in run["details"], "argv" in run["hidden"]) == (200, False, True)
    status, run = sent_by(OWNER_UID, daemon, "GET", f"{RUNS}/{uid(2)}")
    assert (status, "argv" in run["details"], run["hidden"]) == (200, True, [])


def test_a_run_is_pinned_by_its_user_and_accepted_by_root_and_the_trail_has_both(daemon: Daemon, url: str) -> None:
    assert sent_by(OWNER_UID, daemon, "POST", RUNS, body(1, 100.0))[0] == 201
    listed(daemon, 1)
    decisions = f"{RUNS}/{uid(1)}/decisions"
    assert sent_by(STRANGER_UID, daemon, "POST", decisions, b'{"decision": "pin"}')[0] == 403
    assert sent_by(OWNER_UID, daemon, "POST", decisions, b'{"decision": "pin"}')[0] == 201
    said = daemon.cli("bench", "accept", uid(1), "--note", "the new driver").stdout
    assert said.startswith("recorded as event ")

    def decided() -> dict[str, Any] | None:
        run: dict[str, Any] = json.loads(daemon.get(f"{RUNS}/{uid(1)}")[1])
        return run if run["pinned"] and run["accepted"] else None

    run = wait_until(decided, f"both decisions; log:\n{daemon.tail()}")
    assert [(one["decision"], one["decided_by"], one["reason"]) for one in run["decisions"]] == [
        ("pin", "daemon", None), ("accept", "root", "the new driver")
    ]  # fmt: skip
    assert "root decided to accept it: the new driver" in daemon.cli("bench", "result", uid(1)).stdout
    trail = [re.split(r" {2,}", line) for line in daemon.cli("audit", "log", "slurm-1").stdout.splitlines()]
    assert [line[2:4] for line in trail if line[2].startswith("baseline_decided")] == [
        ["baseline_decided (pin)", "daemon"], ["baseline_decided (accept)", "root"]
    ]  # fmt: skip
    with psycopg.connect(url) as connection:
        payloads = [bytes(row[0]) for row in connection.execute("SELECT payload FROM audit_payload ORDER BY seq")]
    kinds = [json.loads(payload)["kind"] for payload in payloads]
    assert kinds[-3:] == ["benchmark_recorded", "baseline_decided", "baseline_decided"]
    daemon.cli("bench", "unpin", uid(1))
    wait_until(lambda: not json.loads(daemon.get(f"{RUNS}/{uid(1)}")[1])["pinned"], "the pin to go")


def test_while_the_daemon_is_away_reports_wait_and_results_come_from_the_database(daemon: Daemon) -> None:
    """And at its next start it takes up what was left, in the name of who left it."""
    assert sent_by(OWNER_UID, daemon, "POST", RUNS, body(1, 100.0, jobs=()))[0] == 201
    listed(daemon, 1)
    daemon.stop()
    left_by(STRANGER_UID, daemon.directory / "benchmarks" / f"{uid(7)}.json", body(2, 90.0, at=60_000_000))
    assert json.loads(daemon.cli("bench", "runs", "--json").stdout)["runs"][0]["run_uid"] == uid(1)
    assert "100 token/s" in daemon.cli("bench", "result", uid(1)).stdout
    assert daemon.cli("bench", "compare", uid(1), uid(1)).returncode == 0
    (first,) = csv.DictReader(io.StringIO(daemon.cli("bench", "leaderboard", "--csv").stdout))
    assert (first["rank"], first["value"], first["run_uid"]) == ("1", "100.0", uid(1))
    assert daemon.cli("bench", "result", "ffffffff", check=False).returncode == exit_codes.NOT_FOUND
    assert daemon.cli("bench", "runs", "--sort", "speed", check=False).returncode == exit_codes.USAGE
    assert daemon.cli("bench", "pin", uid(1), check=False).returncode == exit_codes.UNREACHABLE
    daemon.start()
    newest, _ = listed(daemon, 2)
    assert (newest["run_uid"], newest["link_state"]) == (uid(2), "pending")
    wait_until(lambda: not any((daemon.directory / "benchmarks").iterdir()), "the file, taken up, to be removed")
    assert sent_by(STRANGER_UID, daemon, "GET", f"{RUNS}/{uid(2)}")[1]["hidden"] == []
    taken = "jobtrail_benchmark_files_taken_total"  # counted once the file is removed
    wait_until(lambda: daemon.metrics().get(taken) == [({}, 1.0)], "it to be counted")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("result", "ffffffff"), exit_codes.NOT_FOUND, "no benchmark run ffffffff"),
        (("result", "x"), exit_codes.USAGE, "first 8 or more"),
        (("compare", "ffffffff", "ffffffff"), exit_codes.NOT_FOUND, "no benchmark run"),
        (("leaderboard", "--metric", "speed"), exit_codes.NOT_FOUND, "'speed'"),
        (("leaderboard", "--stat", "p100"), exit_codes.USAGE, "stat: must be one of"),
        (("runs", "--sort", "speed"), exit_codes.USAGE, "sort: 'speed' is unknown"),
        (("runs", "--since", "soon"), exit_codes.USAGE, "--since"),
        (("runs", "--since", "999999w"), exit_codes.USAGE, "is not a time such as"),
        (("runs", "--json", "--csv"), exit_codes.USAGE, "exclude each other"),
        (("pin", "ffffffff"), exit_codes.NOT_FOUND, "no benchmark run ffffffff"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(shared: Daemon, words: tuple[str, ...], code: int, said: str) -> None:
    done = shared.cli("bench", *words, check=False)
    assert (done.returncode, said in done.stderr.replace("\n", " ")) == (code, True), done.stderr


@pytest.fixture(scope="module")
def shared() -> Iterator[Daemon]:
    """A daemon with an empty database, which no test of these changes."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-") as name, embedded_postgres.running(Path(name, "pg")) as found:
        Path(name).chmod(0o755)
        migrate.upgrade(found)
        with Daemon(Path(name, "d"), database={"url": found}, slurm={"sacct": ""}, gpu={"vendors": "none"}) as one:
            yield one


def test_nothing_is_found_in_an_empty_database(shared: Daemon) -> None:
    assert shared.cli("bench", "runs").stdout == "no runs match\n"
    assert shared.cli("bench", "leaderboard").stdout == "no valid run has this number\n"
    heading = f"{','.join(RUN_COLUMNS)}\n"
    assert shared.cli("bench", "runs", "--csv").stdout == heading
    assert shared.cli("bench", "leaderboard", "--csv").stdout == f"rank,value,metric,stat,unit,direction,{heading}"


def test_without_daemon_and_database_it_says_where_it_asked(tmp_path: Path) -> None:
    nowhere = Daemon(tmp_path)
    done = nowhere.cli("bench", "runs", check=False)
    assert done.returncode == exit_codes.UNREACHABLE
    for words in ("poke.sock", "hooks.sock", "database.url"):
        assert words in done.stderr


def test_a_user_who_may_not_read_the_settings_asks_all_the_same(shared: Daemon, place: Path) -> None:
    """/etc/jobtrail/jobtrail.yaml can hold a password. The command runs once before it becomes a user without a name,
    because the tests' Python lies where only root may look."""
    require_root("it becomes another user")
    (place / ".jobtrail").mkdir(mode=0o755)
    (place / ".jobtrail" / "jobtrail.yaml").write_bytes(b"cluster: lab\n")
    (place / ".jobtrail" / "jobtrail.yaml").chmod(0o600)
    script = f"""
import os, sys
from jobtrail.cli.commands import application
for _ in range(2):
    try:
        application(["bench", "runs"])
    except SystemExit as end:
        print(end.code, os.geteuid(), flush=True)
    os.setresuid({STRANGER_UID}, {STRANGER_UID}, {STRANGER_UID})
"""
    environment = {**shared.environment(), "JOBTRAIL_POKE_SOCKET": poke_socket(shared)}
    environment.pop("JOBTRAIL_CONFIG")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.stdout == f"no runs match\n0 0\nno runs match\n0 {STRANGER_UID}\n", done.stderr
