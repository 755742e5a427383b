"""T-20, T-21: a network that swallows, resets, half-closes, trickles, delays or stalls before the database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import wait_until
from tests.faults.clusters import Cluster
from tests.faults.conftest import NewTrial
from tests.faults.figures import often
from tests.faults.proxy import Proxy
from tests.faults.test_database_outages import JOB_LOAD, await_failure, drained, failures, pass_time
from tests.faults.trial import FaultDaemon, Trial

DEADLINE_SECONDS = 2.0
RECOVER_SECONDS = 60.0
STALL_SECONDS = 15.0  # of a machine that does other things; without a deadline it would be a quarter of an hour
TRICKLE_BYTES_A_SECOND = 1.0
LATENCY_SECONDS = 0.15  # each way, so 300 ms there and back
LEAST_EVENTS_PER_S = 8  # with the latency; one by one it could not be more than three


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    """A proxy to the test's cluster."""
    with Proxy(cluster.port) as between:
        yield between


@pytest.fixture
def behind(new_trial: NewTrial, place: Path, cluster: Cluster, proxy: Proxy) -> Trial:
    """A trial, not begun, whose daemon reaches its database through the proxy; the judge reaches it directly."""
    database = {"url": cluster.url(port=proxy.port), "timeout_seconds": DEADLINE_SECONDS}
    return new_trial(url=cluster.url(), daemon=FaultDaemon(place / "d", database=database))


def cause(proxy: Proxy, fault: str) -> None:
    """Begin the fault."""
    if fault == "black hole":
        proxy.silence()
    elif fault == "half-close":
        proxy.half_close_all()
    elif fault == "reset":
        proxy.reset_all()
    else:
        proxy.trickle(TRICKLE_BYTES_A_SECOND)


def mend(proxy: Proxy) -> None:
    """End it, whatever it was."""
    proxy.flow()
    proxy.speak()


@pytest.mark.fault("T-20")
@pytest.mark.parametrize("fault", ["black hole", "reset", "half-close", "one byte a second"])
def test_a_network_that_breaks(behind: Trial, proxy: Proxy, fault: str) -> None:
    """Dead connections are found within the deadline and thrown away; forwarding goes on without a restart."""
    detected: list[float] = []
    recovered: list[float] = []
    with behind as trial:
        with trial.producing(**JOB_LOAD):
            trial.await_acknowledgements(50)
            for _ in range(often(quick=1, full=10)):
                detected.append(suffer(trial, proxy, fault))
                mend(proxy)
                recovered.append(catch_up(trial))
        drained(trial)
        trial.figures.set(fault=fault, faults=len(detected), detected_s=max(detected), recovered_s=max(recovered))
        trial.check()
    assert max(detected) <= 2 * DEADLINE_SECONDS + STALL_SECONDS


def suffer(trial: Trial, proxy: Proxy, fault: str) -> float:
    """Cause the fault and leave it for a while where it lasts; the seconds until the daemon noticed."""
    began, before, connections = time.monotonic(), failures(trial), proxy.connections
    cause(proxy, fault)
    if fault in ("black hole", "one byte a second"):
        noticed = await_failure(trial)
        pass_time(often(quick=2, full=60), trial)
        return noticed
    # Broken connections are noticed at once, or by the next statement.
    wait_until(lambda: failures(trial) > before or proxy.connections > connections, "a new connection",
               every_seconds=0.1)  # fmt: skip
    return time.monotonic() - began


def catch_up(trial: Trial) -> float:
    """Wait until something that is acknowledged from now on is forwarded; the seconds that took."""
    began, wanted = time.monotonic(), to_be_forwarded(trial) + 1
    wait_until(lambda: trial.daemon.metric("jobtrail_events_forwarded_total") >= wanted, "it to catch up",
               timeout_seconds=RECOVER_SECONDS, every_seconds=0.1)  # fmt: skip
    return time.monotonic() - began


def to_be_forwarded(trial: Trial) -> float:
    """How many events it will have forwarded when all that it holds now is."""
    return trial.daemon.metric("jobtrail_events_forwarded_total") + trial.daemon.metric("jobtrail_spool_depth")


@pytest.mark.fault("T-21")
def test_a_long_way_with_stalls(behind: Trial, proxy: Proxy) -> None:
    """300 ms there and back, and one piece of data in twenty comes a second late: batches keep the rate up."""
    proxy.delay_seconds, proxy.stall_every, proxy.stall_seconds = LATENCY_SECONDS, 20, 1.0
    behind.daemon.configure("database", timeout_seconds=10.0)
    jobs = often(quick=300, full=20_000)
    with behind as trial:
        began = time.monotonic()
        with trial.producing(clients=8, copies=1, jobs=jobs) as producer:
            wait_until(lambda: producer.poll() is not None, "all to be sent", timeout_seconds=600, every_seconds=0.1)
        trial.settle(max(300.0, 2 * jobs / LEAST_EVENTS_PER_S))
        seconds = time.monotonic() - began
        rate = 2 * jobs / seconds
        trial.figures.set(
            latency_ms=300, stalls=proxy.stalls, events_per_s=round(rate), failed_tries=int(failures(trial))
        )
        proxy.delay_seconds, proxy.stall_every = 0.0, 0
        trial.check()
        assert proxy.stalls
        assert rate >= LEAST_EVENTS_PER_S
