"""Every fact has a figure and a line; a log line cannot be forged; nobody outside can make series."""

from __future__ import annotations

import io
import json
import logging
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from jobtrail.adapters.log_lines import MAX_TEXT, configure_logging
from jobtrail.adapters.telemetry import Telemetry, forward_reason
from jobtrail.core import facts
from jobtrail.core.ports import SpoolStatus
from tests.requirements import require_tool

NOW_US = 1_800_000_000_000_000
HOSTILE = 'line\nlevel=error event=forged\r\x1b[31mred\x9b0m "quoted" ünï\x00'

ACCEPTED = facts.EventAccepted(kind="job_started", event_id="e", job_id="j", seq=1)
REGRESSION = facts.BenchmarkJudged(run_uid="u", metric="m", stat="value", verdict="regression")
HELD_ALREADY = facts.EventAccepted(kind="job_started", event_id="e", job_id="j", seq=1, duplicate=True)
SAMPLES_NOT_WRITTEN = facts.ForwardFailed(reason="samples: gone", retry_in_seconds=1.0)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Logging is the process's own: put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("aiohttp.access").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def all_facts() -> list[type[facts.Fact]]:
    """Every kind of fact there is."""
    return facts.Fact.__subclasses__()


def example(kind: type[facts.Fact]) -> facts.Fact:
    """A fact of this kind with a value in each field."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        values[field.name] = {int: 2, float: 0.25, bool: False}.get(field.type, "x")
    return kind(**values)


def figures(telemetry: Telemetry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Value by series name and label values."""
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def figure(telemetry: Telemetry, name: str, *labels: str) -> float | None:
    """One value, or None when the series is not there."""
    return figures(telemetry).get((f"jobtrail_{name}", labels))


def logged(level: str = "debug", style: str = "json") -> io.StringIO:
    """Send the log to a buffer from now on."""
    stream = io.StringIO()
    configure_logging(level, style, stream)
    return stream


def status(**changes: Any) -> SpoolStatus:
    """A spool with 3 events waiting, the oldest for 12.5 s."""
    values: dict[str, Any] = {
        "chain_id": "c", "durability": "disk", "head_seq": 10, "forwarded_seq": 7, "bytes_used": 4096,
        "bytes_limit": 1 << 20, "oldest_unforwarded_us": NOW_US - 12_500_000, **changes,
    }  # fmt: skip
    return SpoolStatus(**values)


@pytest.mark.parametrize("kind", all_facts(), ids=lambda kind: kind.__name__)
def test_every_fact_moves_a_figure_and_writes_one_line(kind: type[facts.Fact]) -> None:
    """No fact is lost on its way to the people who run the daemon."""
    stream = logged()
    telemetry = Telemetry()
    before = figures(telemetry)
    telemetry.observe(example(kind))
    after = figures(telemetry)
    changed = {key for key, value in after.items() if before.get(key) != value and key[0].startswith("jobtrail_")}
    if kind is not facts.SeriesShed:  # the board counts these itself, and the exposition shows its count
        assert changed
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line).keys() >= {"event", "level", "timestamp", *kind.__struct_fields__}


@pytest.mark.parametrize(
    ("fact", "series", "grows_by"),
    [
        (ACCEPTED, ("events_received_total", "job_started"), 1),
        (HELD_ALREADY, ("events_deduplicated_total",), 1),
        (facts.EventRejected(reason="conflict"), ("events_rejected_total", "conflict"), 1),
        (facts.IncomingTaken(event_id="e", name="n"), ("incoming_taken_total",), 1),
        (facts.IncomingQuarantined(name="n", reason="r"), ("incoming_quarantined_total",), 1),
        (facts.EventsForwarded(stored=7, replayed=2, seconds=0.1), ("events_forwarded_total",), 7),
        (facts.EventsForwarded(stored=7, replayed=2, seconds=0.1), ("events_replayed_total",), 2),
        (facts.ForwardFailed(reason="x", retry_in_seconds=1.0), ("forward_failures_total", "events", "other"), 1),
        (SAMPLES_NOT_WRITTEN, ("forward_failures_total", "samples", "other"), 1),
        (facts.ForwardConflict(seq=4), ("forward_conflicts_total",), 1),
        (facts.ProjectionRefused(seq=4, reason="r"), ("projection_refused_total",), 1),
        (facts.JobSampled(readings=5, seconds=0.02), ("samples_total",), 5),
        (facts.JobSampled(readings=5, seconds=0.02), ("tick_seconds_count",), 1),
        (facts.ReadingMissed(job_id="j", reason="unreadable"), ("sample_misses_total", "unreadable"), 1),
        (facts.SampleSourceFailed(source="NodeProc", reason="OSError: x"), ("reader_errors_total", "node", "io"), 1),
        (facts.SamplesWritten(rows=9, seconds=0.1), ("samples_written_total",), 9),
        (facts.SamplesDropped(rows=3), ("samples_dropped_total",), 3),
        (facts.SamplesThinned(rows=3), ("samples_thinned_total",), 3),
        (facts.GapRecorded(shed={"samples_dropped": 3}), ("gaps_recorded_total",), 1),
        (facts.ChainGivenUp(reason="purged", detail="d"), ("chains_given_up_total", "purged"), 1),
        (facts.JobAdopted(job_id="j", found_by="spool"), ("jobs_adopted_total", "spool"), 1),
        (facts.PartitionsKept(created=2, dropped=1), ("partitions_total", "made"), 2),
        (facts.PartitionsKept(created=2, dropped=1), ("partitions_total", "dropped"), 1),
        (facts.SecurityPruned(rows=5), ("security_events_removed_total",), 5),
        (facts.ChoreFailed(reason="r"), ("chore_failures_total",), 1),
        (facts.BenchmarkSettled(run_uid="u", link="conflict"), ("benchmark_runs_settled_total", "conflict"), 1),
        (REGRESSION, ("benchmark_verdicts_total", "regression"), 1),
        (facts.BenchmarkRefused(run_uid="u", reason="r"), ("benchmark_refusals_total",), 1),
        (facts.BenchmarksNotSettled(reason="r"), ("benchmark_settle_failures_total",), 1),
        (facts.BenchmarkSeriesShed(series=3), ("benchmark_series_shed_total",), 3),
    ],
)  # fmt: skip
def test_each_fact_counts_where_it_belongs(fact: facts.Fact, series: tuple[str, ...], grows_by: float) -> None:
    """The figure grows by what the fact says, and by that alone."""
    telemetry = Telemetry()
    before = figure(telemetry, *series) or 0.0
    telemetry.observe(fact)
    assert figure(telemetry, *series) == before + grows_by


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (None, "database not reached"),
        ("postgresql", "database not reached"),
        ("https://s1:8443,https://s2:8443", "server not reached"),
    ],
)
def test_what_was_not_reached_is_what_the_node_forwards_to(target: str | None, said: str) -> None:
    """A node that forwards to servers has no database."""
    stream = logged()
    telemetry = Telemetry()
    telemetry.forwards_to(target)
    telemetry.observe(facts.ForwardFailed(reason="gone", retry_in_seconds=1.0))
    assert json.loads(stream.getvalue())["event"] == said


def test_the_log_says_when_events_arrive_again() -> None:
    """Once: what arrives as a rule is for those who ask for detail."""
    stream = logged("info")
    telemetry = Telemetry()
    arrived = facts.EventsForwarded(stored=7, replayed=2, seconds=0.1)
    for fact in (arrived, facts.ForwardFailed(reason="away", retry_in_seconds=1.0), arrived, arrived):
        telemetry.observe(fact)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("database not reached", "warning"), ("events forwarded", "info"),
    ]  # fmt: skip


def test_a_duplicate_is_not_received_twice() -> None:
    """`received` counts events, not requests."""
    telemetry = Telemetry()
    telemetry.observe(HELD_ALREADY)
    assert figure(telemetry, "events_received_total", "job_started") == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the database did not answer in time", "timeout"),
        ("the server https://s:8443 did not answer in time", "timeout"),
        ("the server https://s:8443 is not reached: ConnectionResetError", "connection"),
        ("no TLS with the server https://s:8443: its certificate is not good: expired", "connection"),
        ("the server https://s:8443 does not let this node in: no token (HTTP 401)", "login"),
        ("link.token_file: /etc/t cannot be read: No such file or directory", "login"),
        ('password authentication failed for user "x" (SQLSTATE 28P01)', "login"),
        ('database "x" does not exist (SQLSTATE 3D000)', "login"),
        ('relation "audit_log" does not exist (SQLSTATE 42P01)', "schema"),
        ("sorry, too many clients already (SQLSTATE 53300)", "resources"),
        ("the database system is shutting down (SQLSTATE 57P03)", "shutdown"),
        ("canceling statement due to statement timeout (SQLSTATE 57014)", "timeout"),
        ("terminating connection due to connect (SQLSTATE 08006)", "connection"),
        ("[Errno 111] Connect call failed ('127.0.0.1', 1)", "connection"),
        ("deadlock detected (SQLSTATE 40P01)", "other"),
        ("the store asks for what follows 7 and refuses it", "other"),
    ],
)
def test_a_failed_forward_has_one_of_few_reasons(text: str, reason: str) -> None:
    """What an alert can tell apart: the database away, full, not set up, or not letting us in."""
    assert forward_reason(text) == reason


def test_nobody_outside_can_make_series() -> None:
    """Values of labels come from fixed sets, whatever is sent; all else is `other`."""
    logged("error")
    telemetry = Telemetry()
    series = len(figures(telemetry))
    for number in range(50):
        text = f"made up {number}"
        telemetry.observe(facts.EventAccepted(kind=text, event_id=text, job_id=text, seq=number))
        telemetry.observe(facts.EventRejected(reason=text, detail=text))
        telemetry.observe(facts.ForwardFailed(reason=text, retry_in_seconds=1.0))
        telemetry.observe(facts.ReadingMissed(job_id=text, reason=text))
        telemetry.observe(facts.SampleSourceFailed(source=text, reason=text))
        telemetry.observe(facts.JobAdopted(job_id=text, found_by=text))
        telemetry.observe(facts.IncomingQuarantined(name=text, reason=text))
    assert len(figures(telemetry)) <= series + 3  # kind, found_by and reader: `other` appears


def test_the_spools_figures_are_read_when_the_page_is_made() -> None:
    """The page tells the spool's state of now, and no age when nothing waits."""
    telemetry = Telemetry(time_us=lambda: NOW_US)
    held = [status()]
    telemetry.watch_spool(lambda: held[0])
    assert figure(telemetry, "spool_depth") == 3
    assert figure(telemetry, "spool_bytes") == 4096
    assert figure(telemetry, "spool_limit_bytes") == 1 << 20
    assert figure(telemetry, "spool_durable") == 1
    assert figure(telemetry, "spool_oldest_unforwarded_age_seconds") == 12.5
    assert figure(telemetry, "spool_files_set_aside", "ended") == 0
    held[0] = status(
        forwarded_seq=10, oldest_unforwarded_us=None, durability="volatile", files_ended=1, files_damaged=2
    )
    assert figure(telemetry, "spool_files_set_aside", "ended") == 1
    assert figure(telemetry, "spool_files_set_aside", "damaged") == 2
    assert figure(telemetry, "spool_depth") == 0
    assert figure(telemetry, "spool_durable") == 0
    assert figure(telemetry, "spool_oldest_unforwarded_age_seconds") is None


def test_the_page_tells_version_and_process() -> None:
    """Which program this is, since when it runs, and what it uses."""
    telemetry = Telemetry()
    names = {name for name, _ in figures(telemetry)}
    assert names >= {
        "jobtrail_build_info", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds",
        "process_start_time_seconds",
    }  # fmt: skip
    assert not [name for name in names if name.endswith("_created")]


def test_two_daemons_in_one_process_count_apart() -> None:
    """Nothing is registered globally."""
    one, other = Telemetry(), Telemetry()
    one.observe(facts.ForwardConflict(seq=1))
    assert figure(other, "forward_conflicts_total") == 0


def test_promtool_accepts_the_page() -> None:
    """All names and types follow Prometheus's rules."""
    promtool = require_tool("promtool", "whether Prometheus's own linter accepts /metrics stays unchecked")
    telemetry = Telemetry(time_us=lambda: NOW_US)
    telemetry.watch_spool(status)
    for kind in all_facts():
        telemetry.observe(example(kind))
    done = subprocess.run([promtool, "check", "metrics"], input=telemetry.render(), capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize("style", ["json", "console", "auto"])
def test_a_hostile_text_stays_on_its_line(style: str) -> None:
    """No job name forges a second line or commands the reader's terminal."""
    stream = logged(style=style)
    telemetry = Telemetry()
    telemetry.observe(facts.EventRejected(reason="invalid", detail=HOSTILE))
    telemetry.warn(HOSTILE, **{"some\nfield": HOSTILE})
    logging.getLogger("aiohttp.server").error("bad request %s", HOSTILE)
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_json_gives_the_text_back_as_it_was() -> None:
    """Escaping loses nothing."""
    stream = logged(style="json")
    Telemetry().observe(facts.EventRejected(reason="invalid", detail=HOSTILE))
    assert json.loads(stream.getvalue())["detail"] == HOSTILE


def test_a_long_text_is_cut() -> None:
    """A body of a megabyte in an error message does not become a megabyte of log."""
    stream = logged()
    Telemetry().observe(facts.EventRejected(reason="invalid", detail="x" * 1_000_000))
    assert len(stream.getvalue()) < MAX_TEXT + 500
    assert "(1000000 characters)" in json.loads(stream.getvalue())["detail"]


def test_times_are_utc_and_iso() -> None:
    """Lines of nodes in several time zones can be compared."""
    stream = logged()
    Telemetry().started(http="127.0.0.1:8080")
    line = json.loads(stream.getvalue())
    assert abs(datetime.fromisoformat(line["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert (line["event"], line["level"], line["http"]) == ("started", "info", "127.0.0.1:8080")


@pytest.mark.parametrize(
    ("fact", "level"),
    [
        (ACCEPTED, "info"),
        (HELD_ALREADY, "debug"),
        (facts.EventAccepted(kind="checkpoint", event_id="e", job_id="j", seq=1), "debug"),
        (facts.EventRejected(reason="invalid"), "warning"),
        (facts.ForwardConflict(seq=1), "error"),
        (facts.JobSampled(readings=1, seconds=0.1), "debug"),
        (REGRESSION, "warning"),
        (facts.BenchmarkJudged(run_uid="u", metric="m", stat="value", verdict="ok"), "info"),
        (facts.BenchmarksNotSettled(reason="r"), "warning"),
        (facts.BenchmarksNotSettled(reason="r", repeated=True), "debug"),
    ],
)
def test_levels(fact: facts.Fact, level: str) -> None:
    """Evidence of tampering is an error, refusals are warnings, routine is silent at the default level."""
    stream = logged("debug")
    Telemetry().observe(fact)
    assert json.loads(stream.getvalue())["level"] == level
    quiet = logged("info")
    Telemetry().observe(fact)
    assert bool(quiet.getvalue()) == (level != "debug")


def test_the_libraries_lines_come_along() -> None:
    """aiohttp and asyncpg log through the standard library; a traceback of theirs is one line of JSON."""
    stream = logged("info")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("asyncpg").exception("query failed")
    logging.getLogger("aiohttp.access").info("GET /metrics")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["logger"], entry["level"]) == ("query failed", "asyncpg", "error")
    assert "ValueError" in entry["exception"]


def test_on_a_console_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    """People read tracebacks; what an exception's text holds is still made visible."""
    stream = logged(style="console")
    try:
        raise ValueError("\x1b[2Jcleared")
    except ValueError:
        logging.getLogger("x").exception("failed")
    text = stream.getvalue()
    assert "Traceback" in text
    assert "\x1b" not in text
    assert "cleared" in text


def test_no_colours_where_there_is_no_terminal() -> None:
    """A redirected log holds text only."""
    stream = logged(style="console")
    Telemetry().observe(facts.ForwardConflict(seq=1))
    assert "\x1b" not in stream.getvalue()
    assert "seq=1" in stream.getvalue()
