"""A run's summary: medians over repeats, what counts and what does not, and the fingerprint it is compared by."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks.fingerprint import TOOL_VERSION, fingerprint, fingerprint_parts, short
from jobtrail.domain.benchmarks.metrics import Measurement
from jobtrail.domain.benchmarks.report import (
    BenchmarkReport,
    Hardware,
    JobClaim,
    LinkSource,
    Mode,
    RecipeIdentity,
    Repeat,
    Role,
    Status,
    ToolResult,
)
from jobtrail.domain.benchmarks.summary import RunSummary, summarise, values_of

THROUGHPUT = ("output_token_throughput", "value")
TPOT = ("time_per_output_token", "p50")


def result(completed: int | None = 100, failed: int | None = 0, **values: float) -> ToolResult:
    """A result; a name such as time_per_output_token__p50 has the statistic after the underscores."""
    measurements = tuple(
        Measurement(metric=name.partition("__")[0], stat=name.partition("__")[2] or "value", value=value)
        for name, value in values.items()
    )
    return ToolResult(
        tool="vllm", mode=Mode.SERVE, sha256="00", measurements=measurements, requests_completed=completed,
        requests_failed=failed, tool_version="0.32.0", model="tiny-llama", token_count_source="server",
    )  # fmt: skip


def report(*results: ToolResult | None, **changes: object) -> BenchmarkReport:
    repeats = tuple(
        Repeat(started_us=1_000 * number, ended_us=1_000 * number + 900, result=one)
        for number, one in enumerate(results)
    )
    whole = BenchmarkReport(
        run_uid="one", mode=Mode.SERVE, status=Status.OK, started_us=0, ended_us=10_000, repeats=repeats
    )
    return msgspec.structs.replace(whole, **changes)


def values(summary: RunSummary) -> dict[tuple[str, str], float]:
    return {(one.metric, one.stat): one.value for one in summary.measurements}


def test_a_metric_is_the_median_of_its_repeats() -> None:
    summary = summarise(report(*(result(output_token_throughput=rate) for rate in (100.0, 400.0, 110.0))))
    assert summary.status is Status.OK
    assert summary.reason is None
    assert values(summary) == {THROUGHPUT: 110.0, ("error_rate", "value"): 0.0}
    assert summary.notes == ()


def test_a_metric_that_some_repeats_did_not_measure_says_so() -> None:
    summary = summarise(report(result(time_per_output_token__p50=0.02, output_token_throughput=1.0), result(), None))
    assert values(summary)[TPOT] == 0.02
    assert summary.notes == (
        "repeat 3 left no result",
        "output_token_throughput value was measured in 1 of 3 repeats",
        "time_per_output_token p50 was measured in 1 of 3 repeats",
    )


def test_a_run_in_which_all_requests_failed_is_invalid_and_has_no_number() -> None:
    summary = summarise(report(result(0, 240, time_to_first_token__p50=0.0, output_token_throughput=0.0)))
    assert (summary.status, summary.reason) == (Status.INVALID, "no request succeeded")
    assert summary.measurements == ()
    assert summary.error_rate == 1.0


def test_a_repeat_in_which_all_requests_failed_does_not_pull_the_median_and_counts_as_errors() -> None:
    summary = summarise(report(result(90, 10, output_token_throughput=5.0), result(0, 100, request_throughput=0.0)))
    assert summary.status is Status.OK
    assert summary.error_rate == 0.55
    assert values(summary) == {THROUGHPUT: 5.0, ("error_rate", "value"): 0.55}
    assert summary.notes[0] == "repeat 2 does not count: no request succeeded"


@pytest.mark.parametrize("results", [(), (None,), (None, None)])
def test_an_ok_run_without_a_result_is_invalid(results: tuple[None, ...]) -> None:
    summary = summarise(report(*results))
    assert (summary.status, summary.reason, summary.measurements) == (Status.INVALID, "there is no result", ())
    assert summary.error_rate is None
    assert summary.output_tokens is None
    assert summary.token_count_source is None


def test_what_the_tool_itself_calls_invalid_is_invalid() -> None:
    doubtful = msgspec.structs.replace(result(request_throughput=9.0), invalid_reason="too few queries")
    summary = summarise(report(doubtful))
    assert (summary.status, summary.reason, summary.measurements) == (Status.INVALID, "too few queries", ())


def test_a_failed_run_stays_failed_with_the_numbers_it_has() -> None:
    summary = summarise(report(result(request_throughput=9.0), status=Status.FAILED, reason="time limit"))
    assert (summary.status, summary.reason) == (Status.FAILED, "time limit")
    assert values(summary)["request_throughput", "value"] == 9.0


def test_errors_are_unknown_where_no_repeat_counted_requests() -> None:
    summary = summarise(report(result(None, None, batch_latency__p50=0.1), result(None, 3, batch_latency__p50=0.1)))
    assert summary.error_rate is None
    assert values(summary) == {("batch_latency", "p50"): 0.1}
    assert summarise(report(result(4, None, batch_latency__p50=0.1))).error_rate is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("time_per_output_token__p50", 0.0, "is 0 s, which tools write where they measured nothing"),
        ("time_per_output_token__mean", -1.0, "is -1.0; allowed are 0 to 1e+18"),
        ("time_per_output_token__p99", float("nan"), "is nan; allowed are 0 to 1e+18"),
        ("request_latency__p50", float("inf"), "is inf; allowed are 0 to 1e+18"),
        ("tokens_per_fortnight", 1.0, "is no metric of the vocabulary"),
        ("request_latency__worst", 1.0, "has the statistic 'worst'; allowed are value, mean, p50, p90, p95, p99, std "
         "and percentiles such as p99.9"),
    ],
)  # fmt: skip
def test_what_is_no_measurement_is_left_out_with_the_reason(name: str, value: float, reason: str) -> None:
    one = result(request_throughput=3.0, **{name: value})
    summary = summarise(report(one, one))
    assert set(values(summary)) == {("request_throughput", "value"), ("error_rate", "value")}
    metric, _, stat = name.partition("__")
    assert summary.notes == (f"{metric} {stat or 'value'} is left out: it {reason}",)
    assert set(values_of(one)) == {("request_throughput", "value")}


def test_negative_counts_of_requests_make_no_error_rate() -> None:
    assert summarise(report(result(10, -3, request_throughput=1.0))).error_rate == 0.0
    assert summarise(report(result(-1, -3, request_throughput=1.0))).error_rate is None


def test_other_percentiles_a_spread_of_zero_and_zero_counts_are_measurements() -> None:
    one = result(
        request_latency__std=0.0, requests_failed=0.0, duration=0.0, error_rate=0.5, **{"request_latency__p99.9": 1.0}
    )
    assert values(summarise(report(one))) == {
        ("request_latency", "std"): 0.0, ("requests_failed", "value"): 0.0, ("duration", "value"): 0.0,
        ("request_latency", "p99.9"): 1.0, ("error_rate", "value"): 0.0,
    }  # fmt: skip


def test_tokens_are_summed_over_repeats_and_unknown_when_one_did_not_count() -> None:
    assert summarise(report(result(output_tokens=100.0), result(output_tokens=90.0))).output_tokens == 190
    assert summarise(report(result(output_tokens=100.0), result())).output_tokens is None
    by_server = summarise(report(result(output_tokens=100.0), result(), server_output_tokens=205))
    assert by_server.output_tokens == 205
    assert by_server.notes[-1].endswith("1 of 2 repeats")


def test_windows_and_tokens_are_of_the_repeats_that_count() -> None:
    good, none, broken = result(output_tokens=100.0), None, result(0, 9, output_tokens=7.0)
    summary = summarise(report(good, none, broken, good, server_output_tokens=260))
    assert summary.windows == ((0, 900), (3_000, 3_900))
    assert summary.output_tokens == 200  # the server's counter is of the other loads, too
    assert not [note for note in summary.notes if "server" in note]
    assert summarise(report(none)).windows == ()


def test_windows_of_results_in_one_file_are_one_and_none_lies_outside_of_the_run() -> None:
    repeats = tuple(
        Repeat(started_us=begin, ended_us=end, result=result(output_tokens=1.0))
        for begin, end in ((0, 500), (100, 600), (700, 2_000), (50, 50))
    )
    assert summarise(report(repeats=repeats, started_us=100, ended_us=1_000)).windows == ((100, 600), (700, 1_000))


@pytest.mark.parametrize(
    ("client", "server", "note"),
    [
        (1010.0, 1000, None),
        (1495.0, 1280, "the client counted 1495 output tokens, the server's own counter 1280, +16.8%"),
        (980.0, 1000, "the client counted 980 output tokens, the server's own counter 1000, -2.0%"),
        (5.0, 0, "the client counted 5 output tokens, the server's own counter 0"),
        (0.0, 0, None),
    ],
)
def test_a_count_of_tokens_that_the_server_does_not_share_is_noted(
    client: float, server: int, note: str | None
) -> None:
    summary = summarise(report(result(output_tokens=client), server_output_tokens=server))
    assert summary.notes == ((note,) if note else ())
    assert summary.output_tokens == client
    assert summary.token_count_source == "server"


def test_the_servers_counter_is_believed_against_a_client_that_splits_the_text_anew() -> None:
    anew = msgspec.structs.replace(result(output_tokens=1495.0), token_count_source="client")
    summary = summarise(report(anew, server_output_tokens=1280))
    assert summary.output_tokens == 1280
    assert summary.token_count_source == "client"
    mixed = summarise(report(anew, result(output_tokens=5.0), server_output_tokens=1500))
    assert mixed.output_tokens == 1500
    assert summarise(report(anew, result(output_tokens=5.0), server_output_tokens=1400)).output_tokens == 1400
    assert mixed.token_count_source == "mixed"


HARDWARE = Hardware(
    gpu_model="NVIDIA H100", gpu_count=2, driver_version="580.95.05", cpu_model="EPYC", gpus=("GPU-1", "GPU-2"),
    power_limit_watts=700.0, max_clock_mhz=1980,
)  # fmt: skip
RECIPE = RecipeIdentity(name="chat", sha256="ab12")
FULL = report(
    result(output_tokens=1.0), hardware=HARDWARE, recipe=RECIPE, tool="vllm", tool_version="0.31.0", model="llama",
    model_revision="r1", parameters={"dtype": "bfloat16", "tensor_parallel": "2"},
)  # fmt: skip


def test_the_parts_of_a_fingerprint() -> None:
    assert fingerprint_parts(FULL) == {
        "gpu_model": "NVIDIA H100", "gpu_count": "2", "driver_major": "580", "cpu_model": "EPYC", "tool": "vllm",
        "tool_version": "0.31.0", "recipe": "ab12", "model": "llama", "model_revision": "r1",
        "parameter:dtype": "bfloat16", "parameter:tensor_parallel": "2", "job": "none",
    }  # fmt: skip
    claim = JobClaim(job_id="slurm-5", role=Role.BOTH, source=LinkSource.MANIFEST)
    assert "job" not in fingerprint_parts(msgspec.structs.replace(FULL, jobs=(claim,)))


def test_what_the_report_does_not_say_its_results_may() -> None:
    parts = fingerprint_parts(report(None, result()))
    assert parts == {
        "gpu_count": "0", "tool": "vllm", "tool_version": "0.32.0", "model": "tiny-llama", "job": "none",
    }  # fmt: skip
    assert fingerprint_parts(report()) == {"gpu_count": "0", "job": "none"}


def with_hardware(**changes: object) -> BenchmarkReport:
    return msgspec.structs.replace(FULL, hardware=msgspec.structs.replace(HARDWARE, **changes))


@pytest.mark.parametrize(
    "other",
    [
        with_hardware(gpus=("GPU-3", "GPU-4")),
        with_hardware(power_limit_watts=300.0, max_clock_mhz=1200),
        with_hardware(driver_version="580.12"),
        msgspec.structs.replace(FULL, run_uid="two", started_us=5, repeats=()),
        msgspec.structs.replace(FULL, parameters={"tensor_parallel": "2", "dtype": "bfloat16"}),
    ],
)
def test_what_changes_nothing_about_the_fingerprint(other: BenchmarkReport) -> None:
    assert fingerprint(fingerprint_parts(other)) == fingerprint(fingerprint_parts(FULL))


@pytest.mark.parametrize(
    "other",
    [
        with_hardware(gpu_model="NVIDIA A100"),
        with_hardware(gpu_count=1),
        with_hardware(mig_profile="1g.10gb"),
        with_hardware(driver_version="570.1"),
        with_hardware(cpu_model="Xeon"),
        msgspec.structs.replace(FULL, tool="guidellm"),
        msgspec.structs.replace(FULL, tool_version="0.32.0"),
        msgspec.structs.replace(FULL, recipe=RecipeIdentity(name="chat", sha256="ab13")),
        msgspec.structs.replace(FULL, model="llama-2"),
        msgspec.structs.replace(FULL, model_revision="r2"),
        msgspec.structs.replace(FULL, parameters={"dtype": "fp8", "tensor_parallel": "2"}),
    ],
)
def test_what_makes_another_fingerprint(other: BenchmarkReport) -> None:
    assert fingerprint(fingerprint_parts(other)) != fingerprint(fingerprint_parts(FULL))


def test_a_summary_carries_both_fingerprints() -> None:
    summary, newer = summarise(FULL), summarise(msgspec.structs.replace(FULL, tool_version="0.40.0"))
    assert summary.fingerprint != newer.fingerprint
    assert summary.fingerprint_without_version == newer.fingerprint_without_version
    assert summary.fingerprint_parts[TOOL_VERSION] == "0.31.0"
    assert summary.hardware == short(summary.fingerprint) == summary.fingerprint[:8]


@given(st.permutations([101.0, 99.5, 250.0, 3.0]), st.integers(0, 3))
def test_the_order_of_repeats_changes_no_number(rates: list[float], missing: int) -> None:
    results = [result(output_token_throughput=rate) for rate in rates]
    results.insert(missing, result())
    assert values(summarise(report(*results)))[THROUGHPUT] == 100.25
