"""How a report reaches the daemon, or waits for it."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.cli.bench.bring import Sender
from jobtrail.cli.bench.manifest import report_body, write_manifest
from jobtrail.cli.bench.push import Fate, Places, deliver, fitting_body, places_of_node
from jobtrail.domain.benchmarks.recipe_checks import MAX_REPEATS
from jobtrail.domain.benchmarks.report import BenchmarkReport, Mode, Repeat, Status, ToolResult, report_event_id
from jobtrail.domain.benchmarks.submitted import MAX_REPORT_BYTES, read_report
from jobtrail.domain.errors import ConfigError
from tests.bench.support import jobtrail, outcome, receiving
from tests.requirements import require_root

SERVE = Path(__file__).parents[1] / "fixtures" / "benchmarks" / "vllm-0.32.0-bench-serve.json"

NOW_US = 1_780_000_000_000_000
REPORT = BenchmarkReport(
    run_uid="4a3cf0ce-5e0f-4b5e-8d3a-0d9e2b8a7c11",
    mode=Mode.SERVE,
    status=Status.OK,
    started_us=NOW_US,
    ended_us=NOW_US + 5_000_000,
)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that other users may enter.

    Not below pytest's own: every other run of pytest that starts closes /tmp/pytest-of-root to all but root.
    """
    require_root("it becomes another user")
    with tempfile.TemporaryDirectory(prefix="jobtrail-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def test_a_report_is_sent_until_somebody_takes_it() -> None:
    """A daemon that restarts, or whose spool is full for a moment, gets it all the same, under one event id."""
    async with receiving() as daemon:
        daemon.statuses = [503, 503, 429, 201]
        delivery = await deliver(REPORT, Places(socket=str(daemon.socket)))
        assert delivery.fate is Fate.RECORDED
        assert daemon.event_ids == [report_event_id(REPORT.run_uid, report_body(REPORT))] * 4
        assert daemon.reports == [REPORT]


async def test_what_is_refused_is_not_sent_again_nor_dropped(tmp_path: Path) -> None:
    """The same bytes would be refused again; the daemon's words say why."""
    async with receiving() as daemon:
        daemon.statuses = [400]
        delivery = await deliver(REPORT, Places(socket=str(daemon.socket), drop_directory=str(tmp_path)))
        assert delivery.fate is Fate.REFUSED
        assert delivery.detail == f"the daemon on {daemon.socket} said 400: as told: 400"
        assert len(daemon.event_ids) == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_daemon_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """The job's time is not the daemon's to waste."""
    async with receiving() as daemon:
        daemon.stall = asyncio.Event()
        delivery = await deliver(REPORT, Places(socket=str(daemon.socket)), patience_seconds=0.6)
        assert delivery.fate is Fate.UNREACHED
        assert "no answer" in delivery.detail
        assert not delivery.is_safe


@pytest.mark.parametrize("status", [None, 404, 503])
async def test_while_no_daemon_takes_it_the_report_is_left_where_it_will_look(
    tmp_path: Path, status: int | None
) -> None:
    """Whole, under the event's id, for nobody else to read; in a directory that cannot be listed."""
    drop = tmp_path / "drop"
    drop.mkdir(mode=0o1733)
    async with receiving() as daemon:
        daemon.statuses = [status or 503]
        socket = daemon.socket if status is not None else tmp_path / "none.sock"
        delivery = await deliver(REPORT, Places(socket=str(socket), drop_directory=str(drop)), patience_seconds=0.3)
    assert delivery.fate is Fate.DROPPED
    (file,) = drop.iterdir()
    assert file.name == f"{report_event_id(REPORT.run_uid, report_body(REPORT))}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert read_report(file.read_bytes(), now_us=NOW_US + 6_000_000) == REPORT


async def test_a_user_leaves_a_report_in_a_directory_they_may_not_read(everybodys: Path) -> None:
    """Mode 1733: the directory itself cannot be opened, so it cannot be flushed by them."""
    drop = everybodys / "drop"
    drop.mkdir()
    drop.chmod(0o1733)
    places = Places(socket="/nonexistent/poke.sock", drop_directory=str(drop))
    os.seteuid(65534)
    try:
        delivery = await deliver(REPORT, places, patience_seconds=0.1)
    finally:
        os.seteuid(0)
    assert delivery.fate is Fate.DROPPED
    (file,) = drop.iterdir()
    assert file.stat().st_uid == 65534


async def test_without_a_place_to_leave_it_the_problem_is_told(tmp_path: Path) -> None:
    """It names the socket, and the directory if there is one that cannot be written to."""
    socket = str(tmp_path / "none.sock")
    missing = await deliver(REPORT, Places(socket=socket), patience_seconds=0.1)
    assert missing.detail == f"no daemon answers on {socket}: No such file or directory"
    nowhere = Places(socket=socket, drop_directory=str(tmp_path / "gone"))
    both = await deliver(REPORT, nowhere, patience_seconds=0.1)
    assert both.detail == f"{missing.detail}; cannot write to {tmp_path / 'gone'}: No such file or directory"


async def test_a_report_too_long_for_the_daemon_loses_the_tools_own_words_of_later_repeats() -> None:
    """The measurements all stay."""
    result = ToolResult(tool="vllm", mode=Mode.SERVE, sha256="0" * 64, raw={"x": ["y" * 1000] * 30})
    repeat = Repeat(started_us=NOW_US, ended_us=NOW_US + 1, exit_code=0, result=result)
    long = BenchmarkReport(
        run_uid=REPORT.run_uid,
        mode=Mode.SERVE,
        status=Status.OK,
        started_us=NOW_US,
        ended_us=NOW_US + 1,
        repeats=(repeat,) * 50,
    )
    assert len(report_body(long)) > MAX_REPORT_BYTES
    async with receiving() as daemon:
        assert (await deliver(long, Places(socket=str(daemon.socket)))).fate is Fate.RECORDED
        (taken,) = daemon.reports
    assert [bool(one.result and one.result.raw) for one in taken.repeats] == [True] + [False] * 49


def test_settings_that_a_user_may_not_read_are_done_without(everybodys: Path) -> None:
    """They may hold the database's password; the socket is then where it is by default."""
    (everybodys / "etc").mkdir(mode=0o700)
    file = everybodys / "etc" / "jobtrail.yaml"
    file.write_text("http: {socket: /srv/hooks.sock}\n", encoding="utf-8")
    environment = {"JOBTRAIL_CONFIG": str(file), "JOBTRAIL_BENCH_DROP": "/drop"}
    assert places_of_node(None, environment) == Places(socket="/srv/poke.sock", drop_directory="/drop")
    os.seteuid(65534)
    try:
        assert places_of_node(None, environment).socket == "/run/jobtrail/poke.sock"
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            places_of_node(file, {})
    finally:
        os.seteuid(0)


def test_without_slurm_the_hooks_socket_takes_reports(tmp_path: Path) -> None:
    """There is no socket for everybody then; a named one wins."""
    environment = {"SCHEDULER_BACKEND": "local", "JOBTRAIL_HTTP__SOCKET": "/srv/hooks.sock"}
    assert places_of_node(None, environment).socket == "/srv/hooks.sock"
    assert places_of_node(None, {**environment, "JOBTRAIL_POKE_SOCKET": "/p"}).socket == "/p"


async def test_pushing_twice_says_that_it_is_known(tmp_path: Path) -> None:
    """The same bytes under the same event id."""
    write_manifest(tmp_path / "manifest.json", REPORT)
    async with receiving() as daemon:
        daemon.statuses = [201, 200]
        said = [
            await outcome(await jobtrail("bench", "push", str(tmp_path), JOBTRAIL_POKE_SOCKET=str(daemon.socket)))
            for _ in range(2)
        ]
        assert len(set(daemon.event_ids)) == 1
    assert [code for code, _ in said] == [0, 0]
    assert "recorded: run" in said[0][1]
    assert "already known: run" in said[1][1]


async def test_a_directory_without_a_manifest_is_named(tmp_path: Path) -> None:
    """The others are pushed all the same."""
    (tmp_path / "good").mkdir()
    (tmp_path / "empty").mkdir()
    write_manifest(tmp_path / "good" / "manifest.json", REPORT)
    async with receiving() as daemon:
        code, printed = await outcome(
            await jobtrail(
                "bench", "push", str(tmp_path / "empty"), str(tmp_path / "good"),
                JOBTRAIL_POKE_SOCKET=str(daemon.socket),
            )
        )  # fmt: skip
        assert daemon.reports == [REPORT]
    assert code == 1
    assert f"{tmp_path / 'empty'}: holds no manifest.json" in printed


async def test_a_directory_that_is_not_there_is_called_that(tmp_path: Path) -> None:
    """A slip of the finger is no run without a manifest."""
    (tmp_path / "file").touch()
    code, printed = await outcome(await jobtrail("bench", "push", str(tmp_path / "none"), str(tmp_path / "file")))
    assert code == 1
    assert f"{tmp_path / 'none'}: no such directory" in printed
    assert f"{tmp_path / 'file'}: not a directory" in printed


async def test_of_many_reports_the_first_alone_waits_for_a_daemon() -> None:
    """A hundred files take no longer than one to learn that nobody takes them: the others are tried once each."""
    async with receiving() as daemon:
        daemon.statuses = [503]
        sender = Sender(Places(socket=str(daemon.socket)), patience_seconds=3.0)
        assert (await asyncio.to_thread(sender.send, REPORT)).fate is Fate.UNREACHED
        of_first = len(daemon.event_ids)
        assert of_first > 1  # it paused and tried again
        fates = [(await asyncio.to_thread(sender.send, REPORT)).fate for _ in range(4)]
        assert fates == [Fate.UNREACHED] * 4
        assert len(daemon.event_ids) == of_first + 4


def test_a_report_of_as_many_repeats_as_a_recipe_may_have_is_never_too_long() -> None:
    """Nor are its numbers ever left out: refused, hours of measuring would be on no record."""
    (measured,) = read_results(SERVE.name, SERVE.read_bytes())
    wordy = msgspec.structs.replace(
        measured, claims={f"claim {number}": "x" * 512 for number in range(64)}, raw={"said": "x" * 60_000}
    )
    repeats = tuple(
        Repeat(started_us=NOW_US + number, ended_us=NOW_US + number, result=wordy) for number in range(MAX_REPEATS)
    )
    report = msgspec.structs.replace(REPORT, started_us=NOW_US, ended_us=NOW_US + MAX_REPEATS, repeats=repeats)
    sent = read_report(fitting_body(report), now_us=NOW_US + 6_000_000)
    results = [repeat.result for repeat in sent.repeats]
    assert [result.measurements for result in results if result is not None] == [measured.measurements] * MAX_REPEATS
