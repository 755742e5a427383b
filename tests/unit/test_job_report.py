"""What a report says of a job, rule by rule: figures, advice with its change of the batch script, and silence."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobtrail.domain.advice_words import amount, clock, days_and_time, megabytes, memory_option, percent
from jobtrail.domain.job_report import JobReport, Note
from jobtrail.domain.job_report_making import make_report
from jobtrail.domain.job_report_timeline import Timeline, points_of_a_line
from jobtrail.domain.job_report_words import errors, figures, grams, joules, size, span
from tests.job_rows import gpu_row, job_row, node_row

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
GIB = 1 << 30
HOUR = 3600


def report(
    *, seconds: float | None = 2 * HOUR, parts: list[dict[str, Any]] | None = None,
    gpus: list[dict[str, Any]] | None = None, other_runs: list[tuple[str, int]] | None = None, **job: Any,
) -> JobReport:  # fmt: skip
    """A job that completed and used what it had: four CPUs, 6 of 8 GiB, 2 of 3 hours."""
    end = None if seconds is None else BEGIN + timedelta(seconds=seconds)
    names = [part["node"] for part in parts or []] or ["n1"]
    known: dict[str, Any] = {
        "start_time": BEGIN, "end_time": end, "coverage_ratio": 0.99, "sample_count": 480, "nodes": names,
        "cpus_allocated": 4, "cpu_seconds": 3.6 * (seconds or 0), "memory_peak_bytes": 6 * GIB,
        "memory_limit_bytes": 8 * GIB, "time_limit_seconds": 3 * HOUR,
    }  # fmt: skip
    return make_report(
        job_row(**{**known, **job}), sentence="It ended.", nodes=parts or [], gpus=gpus or [],
        other_runs=other_runs or [], now=BEGIN + timedelta(hours=2),
    )  # fmt: skip


def notes(told: JobReport) -> dict[str, Note]:
    return {note.rule: note for note in told.advice.notes}


def test_a_job_that_used_what_it_had_gets_no_advice() -> None:
    assert (report().advice.notes, report().advice.withheld) == ((), None)


# What each rule says: the job, the rule, its level, the change.
RULES: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("memory_unused", {"memory_peak_bytes": 3 * GIB, "memory_limit_bytes": 64 * GIB}, "hint", ("--mem=3840M",)),
    ("memory_unused", {"memory_peak_bytes": 9 * GIB, "memory_limit_bytes": 64 * GIB}, "hint", ("--mem=11G",)),
    ("memory_unused", {"memory_peak_bytes": 9 * GIB, "memory_limit_bytes": None, "memory_requested_bytes": 128 * GIB,
                       "nodes_total": 2, "nodes_reporting": 2}, "hint", ("--mem=11G",)),
    ("memory_near_limit", {"memory_peak_bytes": 8 * GIB - 1}, "warning", ("--mem=10G",)),
    ("out_of_memory", {"verdict": "out_of_memory", "memory_peak_bytes": 8 * GIB, "oom_kills": 1}, "problem",
     ("--mem=12G",)),
    ("out_of_memory", {"verdict": "out_of_memory", "memory_limit_bytes": None}, "problem", ("--mem=9G",)),
    ("out_of_memory", {"verdict": "out_of_memory", "memory_limit_bytes": None, "memory_peak_bytes": None}, "problem",
     ()),
    ("out_of_memory", {"oom_kills": 2}, "warning", ("--mem=12G",)),
    ("out_of_memory", {"out_of_memory_step": True}, "warning", ("--mem=12G",)),
    ("time_unused", {"time_limit_seconds": 24 * HOUR}, "hint", ("--time=03:00:00",)),
    ("time_near_limit", {"time_limit_seconds": 2 * HOUR + 60}, "warning", ("--time=03:15:00",)),
    ("timeout", {"verdict": "timeout", "time_limit_seconds": 2 * HOUR}, "problem", ("--time=03:00:00",)),
    ("timeout", {"verdict": "timeout", "time_limit_seconds": None}, "problem", ()),
    ("cpus_unused", {"cpus_allocated": 16, "cpu_seconds": 2.0 * HOUR}, "warning", ("--cpus-per-task=2",)),
    ("cpus_unused", {"cpus_allocated": 16, "cpu_seconds": 12.0 * HOUR}, "hint", ("--cpus-per-task=8",)),
    ("cancelled", {"verdict": "cancelled"}, "hint", ()),
    ("preempted", {"verdict": "preempted"}, "warning", ("--requeue", "--open-mode=append")),
    ("node_failed", {"verdict": "node_fail"}, "problem", ("--requeue", "--open-mode=append")),
    ("requeued", {"verdict": "requeued"}, "hint", ("--open-mode=append",)),
    ("ran_before", {"run": 2}, "hint", ()),
    ("ran_before", {"restart_count": 1}, "hint", ()),
    ("ran_before", {"restart_count": 2}, "hint", ()),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "job", "level", "changes"), RULES)
def test_each_rule_has_its_change(rule: str, job: dict[str, Any], level: str, changes: tuple[str, ...]) -> None:
    found = notes(report(**job))
    assert set(found) == {rule}
    assert found[rule].level == level
    assert found[rule].changes == tuple(f"#SBATCH {change}" for change in changes)
    assert found[rule].text.endswith(".")


def test_each_note_has_the_figures_it_rests_on() -> None:
    told = report(memory_peak_bytes=3 * GIB, memory_limit_bytes=64 * GIB, time_limit_seconds=24 * HOUR)
    assert {rule: note.figures for rule, note in notes(told).items()} == {
        "memory_unused": {"memory_peak_bytes": 3 * GIB, "memory_limit_bytes": 64 * GIB},
        "time_unused": {"ran_seconds": 2.0 * HOUR, "limit_seconds": 24 * HOUR},
    }


def test_a_local_job_has_no_batch_script() -> None:
    told = report(job_id="local-7", memory_peak_bytes=3 * GIB, memory_limit_bytes=64 * GIB)
    assert notes(told)["memory_unused"].changes == ()


def test_the_gravest_comes_first() -> None:
    told = report(verdict="out_of_memory", cpus_allocated=16, cpu_seconds=2.0 * HOUR, run=3)
    assert [note.level for note in told.advice.notes] == ["problem", "warning", "hint"]


@pytest.mark.parametrize(
    "job",
    [
        {"memory_peak_bytes": 3 * GIB, "memory_limit_bytes": 4 * GIB},  # more than half
        {"memory_peak_bytes": GIB // 4, "memory_limit_bytes": GIB},  # too little to gain
        {"memory_peak_bytes": None, "memory_limit_bytes": 64 * GIB},
        {"time_limit_seconds": None},
        {"seconds": 300.0, "time_limit_seconds": 1800, "cpu_seconds": 1000.0},
        {"cpus_allocated": 1, "cpu_seconds": 60.0},
        {"cpus_allocated": 2, "cpu_seconds": 1.9 * HOUR},  # with headroom it needs both
        {"cpus_allocated": None},
        {"cpu_seconds": None},
    ],
)
def test_there_is_no_advice_where_nothing_is_to_be_gained_or_nothing_is_known(job: dict[str, Any]) -> None:
    assert report(**job).advice.notes == ()


WASTE = {
    "cpus_allocated": 64,
    "memory_peak_bytes": GIB,
    "memory_limit_bytes": 64 * GIB,
    "time_limit_seconds": 99 * HOUR,
}


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ({"seconds": None, "start_time": None, "state": "pending", "verdict": None}, "has not run"),
        ({"seconds": None}, "nobody knows for how long"),
        ({"state": "running", "verdict": None}, "still running"),
        ({"seconds": 119.0}, "ran for 1 min 59 s"),
        ({"coverage_ratio": 0.5}, "cover 50 % of the run"),
        ({"coverage_ratio": None}, "cover an unknown part of the run"),
        ({"coverage_ratio": None, "sample_count": 0}, "nobody measured what the job used"),
        ({"nodes_total": 2}, "1 of 2 nodes"),
        ({"nodes_total": None}, "1 of an unknown number of nodes"),
        ({"nodes_reporting": 0}, "0 of 1 node told of its usage"),
    ],
)
def test_advice_is_withheld_and_the_reason_is_said(job: dict[str, Any], why: str) -> None:
    advice = report(**{**WASTE, **job}).advice
    assert advice.notes == ()
    assert advice.withheld is not None
    assert why in advice.withheld


@pytest.mark.parametrize(("verdict", "said"), [("failed", "failed"), (None, "unknown"), ("timeout", "timeout")])
def test_less_memory_and_time_are_advised_only_to_who_came_to_the_end(verdict: str | None, said: str) -> None:
    told = report(**{**WASTE, "verdict": verdict, "state": "ended"})
    assert not {"memory_unused", "time_unused"} & set(notes(told))
    assert "cpus_unused" in notes(told)
    assert f"the outcome is {said}" in (told.advice.withheld or "")


def test_what_a_job_was_killed_for_needs_no_coverage() -> None:
    told = report(verdict="out_of_memory", coverage_ratio=None, seconds=3.0)
    assert notes(told)["out_of_memory"].changes == ("#SBATCH --mem=12G",)


def test_a_cancel_before_the_start_is_told_as_such() -> None:
    told = report(verdict="cancelled", start_time=None, seconds=None)
    assert "before it started" in notes(told)["cancelled"].text


def gpu(gpu_id: str, busy: float, unused: float, **known: Any) -> dict[str, Any]:
    return gpu_row(gpu_id, observed_seconds=7200.0, busy_seconds=7200 * busy, unused_seconds=7200 * unused, **known)


@pytest.mark.parametrize(
    ("gpus", "rule", "changes"),
    [
        ([gpu("a", 0.9, 0.0), gpu("b", 0.0, 0.95)], "gpu_unused", ("#SBATCH --gpus=1",)),
        ([gpu("a", 0.0, 1.0)], "gpu_unused", ()),
        ([gpu(str(number), 0.0, 1.0) for number in range(6)], "gpu_unused", ()),
        ([gpu("a", 0.1, 0.1)], "gpu_little_busy", ()),
        ([gpu("a", 0.9, 0.1, errors={"79": 1})], "gpu_errors", ()),
        ([gpu("a", 0.9, 0.1, attribution_mismatch="job slurm-9 used it")], "gpu_mismatch", ()),
    ],
)
def test_gpus_have_rules_of_their_own(gpus: list[dict[str, Any]], rule: str, changes: tuple[str, ...]) -> None:
    seen = sum(one["observed_seconds"] for one in gpus)
    busy = sum(one["busy_seconds"] for one in gpus)
    told = report(gpus=gpus, gpus_allocated=len(gpus), gpu_seconds=seen, gpu_busy_seconds=busy)
    assert set(notes(told)) == {rule}
    assert notes(told)[rule].changes == changes
    assert told.has_gpus


@pytest.mark.parametrize(
    "job", [{"gpu_busy_seconds": 3600.0}, {"gpu_busy_seconds": None}, {"gpu_busy_seconds": 1.0, "seconds": 500.0}]
)
def test_gpus_that_worked_or_of_which_nothing_is_known_get_no_advice(job: dict[str, Any]) -> None:
    told = report(
        **{"gpus": [gpu_row()], "gpus_allocated": 1, "gpu_seconds": 7200.0, "time_limit_seconds": None, **job}
    )
    assert told.advice.notes == ()


def node(name: str, share: float | None) -> dict[str, Any]:
    used = None if share is None else 4 * 7200 * share
    return node_row(name, started_at=BEGIN, ended_at=BEGIN + timedelta(hours=2), cpus=4, cpu_seconds=used)


def test_nodes_that_did_nothing_while_others_worked_are_named() -> None:
    nodes = [node("n1", 0.9), *(node(f"n{number}", 0.001) for number in range(2, 4))]
    told = report(parts=nodes, cpus_allocated=12, nodes_total=3, nodes_reporting=3, cpu_seconds=7200 * 3.7)
    assert set(notes(told)) == {"nodes_unused"}
    assert notes(told)["nodes_unused"].changes == ("#SBATCH --nodes=1",)
    assert "n2, n3" in notes(told)["nodes_unused"].text
    assert told.uneven == ("most uneven node: n1, 90 % CPU where the mean is 30 %",)


def test_where_no_node_worked_none_is_called_idle() -> None:
    nodes = [node("n1", 0.1), node("n2", 0.001)]
    told = report(parts=nodes, cpus_allocated=8, cpu_seconds=7200 * 0.4, nodes_total=2, nodes_reporting=2)
    assert notes(told)["cpus_unused"].changes == ("#SBATCH --cpus-per-task=1",)
    assert told.uneven == ()


def test_a_node_that_never_reported_is_a_line_without_figures() -> None:
    told = make_report(
        job_row(nodes=["n1", "n2"], start_time=BEGIN, state="running", verdict=None, nodes_total=2),
        sentence="It runs.", nodes=[node_row("n1", started_at=BEGIN, cpus=4, cpu_seconds=7200.0,
        last_sample_at=BEGIN + timedelta(hours=1))], gpus=[],
        other_runs=[], now=BEGIN + timedelta(hours=1),
    )  # fmt: skip
    assert [(line.node, line.reported, line.cpu_ratio) for line in told.nodes] == [
        ("n1", True, 0.5),
        ("n2", False, None),
    ]
    assert told.time.ran_seconds == 3600
    assert not told.is_over


# Figures in words: the job, the label, the value, one of the details.
FIGURES: list[tuple[dict[str, Any], str, str, str | None]] = [
    ({}, "CPU", "90 %", "3.6 of 4 CPUs busy on the mean"),
    ({"cpu_seconds": None}, "CPU", "not known", None),
    ({"cpus_allocated": None, "usage_sources": {"cpu": "slurm_accounting"}}, "CPU", "7 h 12 min",
     "by slurm accounting"),
    ({"throttled_seconds": 60.0}, "CPU", "90 %", "held back for 1 min"),
    ({}, "Memory", "75 %", "limit 8 GiB a node"),
    ({"memory_limit_bytes": None}, "Memory", "6 GiB", "no limit known"),
    ({"usage_sources": {"usage": "cgroup_v2"}}, "Memory", "75 %", "at most 6 GiB on one node, file cache included"),
    ({"usage_sources": {"usage": "process_tree"}}, "Memory", "75 %", "at most 6 GiB on one node"),
    ({"usage_sources": {"usage": "cgroup_v2", "memory_peak": "slurm_accounting"}}, "Memory", "at least 75 %",
     "one task had 6 GiB, others' not added"),
    ({"usage_sources": {"memory_peak": "slurm_accounting"}, "memory_limit_bytes": None}, "Memory", "at least 6 GiB",
     "no limit known"),
    ({"memory_peak_bytes": None}, "Memory", "not known", "limit 8 GiB a node"),
    ({"memory_limit_bytes": None, "usage_absent": {"memory_limit_bytes": "unlimited"}}, "Memory", "6 GiB", "no limit"),
    ({"memory_limit_bytes": None, "usage_absent": {"memory_limit_bytes": "unlimited"}}, "Covered", "99 %",
     "1 of 1 node told of its usage"),
    ({"oom_kills": 3}, "Memory", "75 %", "out-of-memory kills: 3"),
    ({}, "Time", "67 %", "limit 3 h"),
    ({"time_limit_seconds": None, "suspended_seconds": 60.0}, "Time", "2 h", "suspended for 1 min of it"),
    ({"state": "running", "submit_time": BEGIN - timedelta(minutes=3)}, "Time", "67 %", "running for 2 h"),
    ({"submit_time": BEGIN - timedelta(minutes=3)}, "Time", "67 %", "waited 3 min"),
    ({"seconds": None}, "Time", "not known", "limit 3 h"),
    ({"io_read_bytes": 5 * GIB}, "Disk read, written", "5 GiB, not known", None),
    ({}, "Disk read, written", "not known", None),
    ({}, "Energy", "not known", None),
    ({"energy_joules": 7.2e6, "energy_gpu_joules": 7e6, "energy_coverage_ratio": 0.5, "energy_method": "counter"},
     "Energy", "2.00 kWh", "measured over 50 % of the run"),
    ({"energy_joules": 500.0, "energy_cpu_joules": 500.0}, "Energy", "500 J", "CPUs 500 J"),
    ({"energy_joules": 500.0}, "Emissions", "not known", "no emission factor for all of that energy"),
    ({"energy_joules": 5e3, "emissions_grams": 0.5, "emission_factor_grams_per_kwh": 381.0, "pue": 1.2,
      "emission_factor_source": "UBA", "emission_factor_year": 2024}, "Emissions", "0.5 g CO2e",
     "381 g/kWh (UBA, 2024)"),
    ({"energy_joules": 5e3, "emissions_grams": 2500.0, "emission_factor_grams_per_kwh": 381.0}, "Emissions",
     "2.50 kg CO2e", "381 g/kWh (source not named)"),
    ({"energy_joules": 5e3, "emissions_grams": 0.5, "emission_factor_source": "UBA 381; own 20"}, "Emissions",
     "0.5 g CO2e", "UBA 381; own 20"),
    ({}, "Covered", "99 %", "the last at 99 % of the run"),
    ({"coverage_ratio": None, "sample_count": 1}, "Covered", "not known", "1 sample"),
    ({"coverage_ratio": None, "state": "running", "nodes_total": None}, "Covered", "so far",
     "1 of an unknown number of nodes told of their usage"),
    ({"usage_absent": {"io_read_bytes": "no controller io"}}, "Covered", "99 %",
     "not measured: io_read_bytes (no controller io)"),
    ({"gpus_allocated": 2}, "GPUs busy", "not known", "2 GPUs"),
    ({"gpus": [gpu("a", 0.5, 0.25, name="H100")], "gpu_seconds": 7200.0, "gpu_busy_seconds": 3600.0,
      "gpu_unused_seconds": 1800.0, "gpu_memory_peak_bytes": GIB, "gpus_allocated": 1}, "GPUs busy", "50 %",
     "30 min of 2 h without a process of the job"),
    ({"gpus": [gpu("a", 0.5, 0.0, name="H100")]}, "GPUs busy", "not known", "1 GPU (H100)"),
]  # fmt: skip


@pytest.mark.parametrize(("job", "label", "value", "detail"), FIGURES)
def test_each_figure_says_what_it_is_of(job: dict[str, Any], label: str, value: str, detail: str | None) -> None:
    told = {figure.label: figure for figure in figures(report(**job))}
    assert told[label].value == value
    assert detail is None or detail in told[label].details
    assert not any("memory_limit_bytes" in line for line in told["Covered"].details)
    assert (told[label].ratio is None) or told[label].value.endswith("%")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (size(None), "not known"), (span(None), "not known"), (span(0), "0 s"), (span(0.34), "0.34 s"),
        (span(59.994), "1 min"), (span(9.0), "9 s"), (span(12.3), "12 s"), (joules(None), "not known"),
        (errors({"79": 1, "13": 2}), "error 13, 2 times, error 79"), (joules(12_500), "12.5 kJ"),
        (joules(360_000), "0.10 kWh"), (grams(None), "not known"), (grams(999.7), "1.00 kg"), (grams(512.4), "512 g"),
        (percent(0), "0 %"),
        (percent(0.001), "less than 1 %"), (percent(1.234), "123 %"), (clock(61.4), "1 min 1 s"), (amount(0.0), 1),
        (amount(1.01), 2), (megabytes(0), 64), (megabytes(65 << 20), 128), (megabytes(GIB), 1024),
        (megabytes(GIB + 1), 1280), (megabytes(9 * GIB + 1), 10240), (memory_option(GIB + 1), "--mem=1280M"),
        (memory_option(100 * GIB), "--mem=100G"), (days_and_time(1), "--time=00:05:00"),
        (days_and_time(7260), "--time=02:15:00"), (days_and_time(90_000), "--time=1-01:00:00"),
    ],
)  # fmt: skip
def test_amounts_in_words(words: object, expected: object) -> None:
    assert words == expected


@pytest.mark.parametrize("used", [1, 12345, 64 << 20, GIB - 1, GIB, 7 * GIB + 5, 8 * GIB, 300 * GIB + 1])
def test_an_amount_of_memory_is_never_below_what_was_used(used: int) -> None:
    assert megabytes(used) << 20 >= used


@pytest.mark.parametrize("gain", [1.0, 1.3, 2.0, 5.0, 50.0])
@pytest.mark.parametrize("used", [200, 3 * HOUR, 26 * HOUR])
def test_less_is_never_less_than_what_was_used(used: int, gain: float) -> None:
    """For all rules that lower something, and whatever the amounts."""
    peak = used * (1 << 20)
    told = report(
        seconds=used, time_limit_seconds=int(used * gain), memory_peak_bytes=peak, cpu_seconds=used * 1.0,
        memory_limit_bytes=int(peak * gain), cpus_allocated=int(2 * gain),
    )  # fmt: skip
    for change in (change for note in told.advice.notes for change in note.changes):
        option, _, value = change.removeprefix("#SBATCH ").partition("=")
        if option == "--mem":
            assert int(value[:-1]) * {"M": 1 << 20, "G": GIB}[value[-1]] > peak
        elif option == "--time":
            days, _, rest = value.rpartition("-")
            hours, minutes, _ = map(int, rest.split(":"))
            assert int(days or 0) * 86400 + hours * 3600 + minutes * 60 > used
        else:
            assert (option, int(value) >= 1) == ("--cpus-per-task", True)


def test_a_report_survives_the_way_through_json() -> None:
    """The command line reads what the daemon sends."""
    told = report(gpus=[gpu("a", 0.0, 1.0, errors={"79": 1})], parts=[node("n1", 0.5), node("n2", None)],
                  other_runs=[("c1", 2)], run=3, usage_absent={"a": "b"})  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(told), type=JobReport) == told


def test_a_line_has_fewer_points_where_there_are_many() -> None:
    assert points_of_a_line(1, 0) == 600
    assert points_of_a_line(8, 16) == 9000 // 67
    assert points_of_a_line(100, 100) == 60
    assert Timeline(seconds=1.0, bucket_seconds=1.0).is_empty
