"""What GPU alerts go by, on the page of a real daemon whose driver tells errors, heat and idleness."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.gpu_node import GpuNode
from tests.daemon_process import wait_until
from tests.prometheus.shipped import ALERTS, RECORDED, selectors, series_name

A, B = GpuNode.gpu_id(1), GpuNode.gpu_id(0)  # Slurm's places 0 and 1
WHOLE = 0xFFFFFFFF  # no instance: the board itself
# No GPU of a driver that answers shows these.
OF_OTHER_TROUBLE = {"jobtrail_gpu_look_failures_total"}


def metrics_of(alert: str) -> set[str]:
    """Metrics an alert is made of, through recording rules as well."""
    found, names = set(), [series_name(one) for one in selectors(ALERTS[alert]["expr"])]
    while names:
        name = names.pop()
        if name in RECORDED:
            names += [series_name(one) for one in selectors(RECORDED[name]["expr"])]
        else:
            found.add(name)
    return found


def test_errors_heat_and_idleness_are_on_the_page(tmp_path: Path, database: str) -> None:
    node = GpuNode(tmp_path, database)
    node.driver.gpu(0, throttle=0x20 | 0x4)  # software for heat, and the power cap
    node.driver.gpu(1, throttle=0x1)  # idle
    with node.daemon as daemon:
        node.begin(7, "0,1")

        def of_gpus(name: str) -> dict[tuple[str, str], float]:
            return {(one["gpu_id"], one.get("code", "")): value for one, value in daemon.metrics().get(name, [])}

        wait_until(lambda: of_gpus("hpc_node_gpu_thermally_throttled") == {(A, ""): 0, (B, ""): 1}, "the heat of one")
        node.driver.put({"xid.1": f"1 79 {WHOLE} {WHOLE}", "xid.2": f"1 79 {WHOLE} {WHOLE}"})
        wait_until(lambda: of_gpus("jobtrail_gpu_errors_total") == {(A, "79"): 2}, "two errors of the other")
        wait_until(lambda: of_gpus("hpc_job_gpu_idle_seconds").get((A, ""), 0) > 0, "idle time")
        gpu_alerts = [alert for alert in ALERTS if alert.startswith("JobtrailGpu")]
        wanted = set().union(*map(metrics_of, gpu_alerts)) - OF_OTHER_TROUBLE
        assert len(wanted) >= 7
        wait_until(lambda: wanted <= daemon.metrics().keys(), f"{wanted} on one page")
