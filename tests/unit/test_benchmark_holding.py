"""What a store must know of a report: whether it can be held, whether it is the same, whose job ran it."""

import msgspec
import pytest

from jobtrail.domain.benchmarks.holding import (
    content_sha256,
    gates_of,
    is_about_benchmarks,
    job_of,
    precedence,
    refusal,
)
from jobtrail.domain.benchmarks.report import BaselineDecision, BenchmarkReport, Decision, Role
from jobtrail.domain.events import Actor, Event, EventKind
from tests.benchmark_reports import claim, report, uid


def told(benchmark: BenchmarkReport | None, *, kind: EventKind = EventKind.BENCHMARK_RECORDED, at: int = 1) -> Event:
    return Event(
        kind=kind, event_id="e1", time_us=at, cluster="c1", job_id=None, node="n1", changed_by=Actor.CLI,
        source="bench", benchmark=benchmark,
    )  # fmt: skip


def decided(run_uid: str) -> Event:
    baseline = BaselineDecision(run_uid=run_uid, decision=Decision.PIN, by="ada")
    return msgspec.structs.replace(told(None, kind=EventKind.BASELINE_DECIDED), baseline=baseline)


def test_the_daemons_own_words_are_no_part_of_a_reports_contents() -> None:
    one = report()
    same = msgspec.structs.replace(one, uid=7, user_name="ada", from_job=True)
    assert content_sha256(one) == content_sha256(same)
    assert content_sha256(one) != content_sha256(msgspec.structs.replace(one, model="other"))


def test_the_word_from_inside_the_job_comes_before_earlier_ones() -> None:
    inside = told(msgspec.structs.replace(report(), from_job=True), at=9)
    assert precedence(inside) < precedence(told(report(), at=1)) < precedence(told(report(), at=2))


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (told(report()), None),
        (decided(uid(1)), None),
        (told(None), "an event of kind benchmark_recorded must have `benchmark`"),
        (told(None, kind=EventKind.BASELINE_DECIDED), "an event of kind baseline_decided must have `baseline`"),
        (decided("seven"), "baseline.run_uid 'seven' is no UUID"),
        (told(report(run_uid=uid(1).upper() + "A")), "is no UUID"),
        (told(report(run_uid=uid(1).replace("-", ""))), f"must be written {uid(1)}"),
        (told(report(ended_us=1)), "benchmark.ended_us lies before benchmark.started_us"),
    ],
)
def test_what_cannot_be_held_is_named(event: Event, reason: str | None) -> None:
    found = refusal(event)
    assert found == reason or (reason is not None and found is not None and found.endswith(reason))


def test_an_event_is_about_the_job_it_names_else_the_one_that_served() -> None:
    claims = (claim("slurm-9", Role.CLIENT), claim("slurm-7", Role.SERVER), claim("slurm-8", Role.BOTH))
    event = told(report(jobs=claims))
    assert job_of(event) == "slurm-7"
    assert job_of(msgspec.structs.replace(event, job_id="slurm-1")) == "slurm-1"
    assert job_of(told(report(jobs=claims[:1]))) == "slurm-9"
    assert job_of(told(report(jobs=()))) is None
    assert job_of(decided(uid(1))) is None


def test_events_about_benchmarks_are_told_from_those_about_runs() -> None:
    assert is_about_benchmarks(told(report()))
    assert is_about_benchmarks(decided(uid(1)))
    assert not is_about_benchmarks(told(None, kind=EventKind.JOB_STARTED))


def test_gates_of_a_recipe_are_by_metric_and_statistic_and_nonsense_is_left_out() -> None:
    body = {
        "gate": {
            "output_token_throughput": {"min_rel": 0.1},
            "time_per_output_token": {},
            "request_latency": {"min_rel": 0.2},
            "request_latency.p99.9": {"min_rel": 0.3},
            "nonsense": {"min_rel": 0.1},
            "batch_latency.p50": {"min_rel": 7},
            "error_rate": "high",
        }
    }
    assert gates_of(body) == {
        ("output_token_throughput", "value"): 0.1,
        ("time_per_output_token", "p50"): 0.05,
        ("request_latency", "value"): 0.2,
        ("request_latency", "p99.9"): 0.3,
    }
    assert gates_of({}) == gates_of({"gate": ["no"]}) == {}
