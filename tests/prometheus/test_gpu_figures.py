"""What alerts on GPUs go by: errors the driver told, and clocks that heat holds down."""

import pytest

from jobtrail.adapters.exposition.gpus import GpuTable
from jobtrail.adapters.telemetry import Telemetry
from jobtrail.core.facts import GpuErrorsTold
from jobtrail.core.runs.board import NodeGpu
from jobtrail.domain.gpus import Gpu, GpuReading


def test_errors_are_counted_by_gpu_and_code() -> None:
    telemetry = Telemetry()
    for gpu_id, code, times in (("a", 79, 2), ("a", 31, 1), ("b", 79, 1), ("a", 79, 3)):
        telemetry.observe(GpuErrorsTold(vendor="nvidia", gpu_id=gpu_id, code=code, times=times))
    page = telemetry.render().decode()
    assert 'jobtrail_gpu_errors_total{code="79",gpu_id="a",gpu_vendor="nvidia"} 5.0' in page
    assert 'jobtrail_gpu_errors_total{code="31",gpu_id="a",gpu_vendor="nvidia"} 1.0' in page
    assert 'jobtrail_gpu_errors_total{code="79",gpu_id="b",gpu_vendor="nvidia"} 1.0' in page


@pytest.mark.parametrize(
    ("reasons", "shown"),
    [
        (("hw_thermal_slowdown", "hw_slowdown"), "1"),
        (("sw_thermal_slowdown",), "1"),
        (("gpu_idle", "sw_power_cap"), "0"),
        ((), "0"),
        (None, None),
    ],
)
def test_heat_is_told_apart_from_other_reasons(reasons: tuple[str, ...] | None, shown: str | None) -> None:
    reading = GpuReading(gpu=Gpu(gpu_id="a", vendor="nvidia"), time_us=1, throttle_reasons=reasons)
    page = b"".join(GpuTable("n1").render({}, [NodeGpu(reading=reading, jobs=0)])).decode()
    lines = [line for line in page.splitlines() if line.startswith("hpc_node_gpu_thermally_throttled")]
    labels = '{node="n1",gpu_vendor="nvidia",gpu_id="a"}'
    assert lines == ([] if shown is None else [f"hpc_node_gpu_thermally_throttled{labels} {shown}"])
