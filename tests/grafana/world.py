"""A small cluster that has seen everything the dashboards show: real daemons, a scripted driver, a real database.

| daemon | what it is |
|---|---|
| `server` | asks slurmrestd and settles benchmarks |
| `n1` | a node of two GPUs, cgroups and an energy counter, all scripted (tests/acceptance/gpu_node.py) |
| `n2` | observes commands of this machine by `jobtrail exec` |
| `n3` | cannot reach its database |

Of the jobs, 6 ended after it met driver errors and used a GPU it did not hold, 7 computes and serves benchmarks, 8
holds a GPU and leaves it idle, and 9 has no GPU.

`INVENTED` are series that none of them has, because they tell of what no test can bring about: a page of them is
scraped beside the daemons.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pynvml

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.domain.benchmarks.metrics import Measurement
from jobtrail.domain.benchmarks.report import BenchmarkReport
from tests.acceptance.gpu_node import ENERGY, POWER, GpuNode
from tests.acceptance.test_looks import asked as looked_at
from tests.benchmark_reports import claim, report, result, uid
from tests.daemon_process import Daemon, wait_until
from tests.fake_nvml import WHOLE
from tests.grafana.prometheus import Prometheus, invented, prometheus
from tests.grafana.slurm_page import slurmrestd
from tests.slurm.machine import free_ports

SECOND_US = 1_000_000
WATTS = 100
BURN = "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: sum(range(20000))"
TOLD = {
    "SLURM_JOB_ACCOUNT": "physics", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_QOS": "normal",
    "SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_JOB_NODELIST": "n1",
}  # fmt: skip

INVENTED = {
    "jobtrail_reader_errors_total": 'reader="cgroup",reason="io"',  # readers take broken files for absent values
    "jobtrail_link_last_answer_timestamp_seconds": 'server="https://s1:8443"',  # these nodes have the database
}


class World:
    """What the tests ask."""

    def __init__(self, url: str, asked: Prometheus, begin: float, end: float) -> None:
        self.url = url
        self.prometheus = asked
        self.begin = begin
        self.end = end

    def rows(self, statement: str, *scripted: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and rows as the role jobtrail_reader sees them; what `scripted` changed is undone afterwards."""
        with psycopg.connect(self.url) as connection:
            for change in scripted:
                connection.execute(change.encode())
            connection.execute("SET LOCAL ROLE jobtrail_reader")
            connection.execute("SET LOCAL statement_timeout = '10s'")
            cursor = connection.execute(statement.encode())
            assert cursor.description is not None
            found = [column.name for column in cursor.description], cursor.fetchall()
            connection.rollback()
            return found


class _Work:
    """Jobs of the node use CPU and energy while it goes on."""

    def __init__(self, node: GpuNode) -> None:
        self._node = node
        self._over = threading.Event()
        self._steps = 0
        self._thread = threading.Thread(target=self._run)
        self._jobs: set[int] = set()
        self._writing = threading.Lock()

    def join(self, *jobs: int) -> None:
        """Let them work."""
        with self._writing:
            self._jobs.update(jobs)

    def leave(self, job: int) -> None:
        """Let it rest; its cgroup is not written any more."""
        with self._writing:
            self._jobs.discard(job)

    def __enter__(self) -> _Work:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(0.2):
            self._steps += 1
            with self._writing:
                for job in self._jobs:
                    self._use(self._node.job(job) / "cpu.stat")
            self._node.burn(self._steps * 40)
            self._node.use_energy(1_000_000 + self._steps * 10_000_000)

    def _use(self, stat: Path) -> None:
        used = self._steps * 100_000
        new = stat.with_name("cpu.stat.new")
        new.write_text(
            f"usage_usec {used}\nuser_usec {used * 3 // 4}\nsystem_usec {used // 4}\n"
            f"nr_periods {self._steps}\nnr_throttled {self._steps // 2}\nthrottled_usec {self._steps * 1000}\n"
        )
        new.replace(stat)


def _begin(node: GpuNode, job: int, gpus: str | None, **more: str) -> None:
    node.job(job)
    told = {**TOLD, **more, **({} if gpus is None else {"SLURM_JOB_GPUS": gpus})}
    node.hook("prolog", job, **told)


def _counts(daemon: Daemon, name: str) -> float:
    return sum(value for _, value in daemon.metrics().get(name, []))


def _faults(node: GpuNode, work: _Work) -> None:
    """Job 6 and what goes wrong around it: driver errors, a foreign GPU, a look that fails."""
    _begin(node, 6, "0", SLURM_JOB_USER="ben")
    work.join(6)
    node.wait_for("hpc_job_gpu_device_utilization_percent", 6, {node.gpu_id(1): 0})
    both = node.process(5000, 6)
    node.driver.gpu(1, utilization=60, processes=both)
    node.driver.gpu(0, utilization=10, processes=both)
    node.driver.put({"xid.1": f"1 31 {WHOLE} {WHOLE}", "xid.2": f"1 31 {WHOLE} {WHOLE}"})
    wait_until(lambda: _counts(node.daemon, "jobtrail_gpu_errors_total") >= 1, "errors of a GPU", every_seconds=0.1)
    wait_until(lambda: _counts(node.daemon, "jobtrail_gpu_mismatches_total"), "a foreign process", every_seconds=0.1)
    work.leave(6)
    node.driver.gpu(1, utilization=0, processes="")
    node.driver.gpu(0, utilization=0, processes="")
    node.end(6)
    node.driver.put({"error.nvmlInitWithFlags": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
                     "error.nvmlDeviceGetFieldValues": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})  # fmt: skip
    wait_until(lambda: _counts(node.daemon, "jobtrail_gpu_look_failures_total"), "a failed look", every_seconds=0.1)
    node.driver.put({"error.nvmlInitWithFlags": None, "error.nvmlDeviceGetFieldValues": None})


def _ran(number: int, throughput: float, started_us: int, ended_us: int) -> BenchmarkReport:
    """A run of one repeat in that time, with some requests that failed and a goodput."""
    one = report(number, throughput, jobs=(claim("slurm-7", cluster="lab"),))
    told = result(throughput, failed=1)
    measured = (
        *told.measurements,
        Measurement(metric="request_goodput", stat="value", value=throughput / 20),
    )
    repeat = msgspec.structs.replace(
        one.repeats[0], started_us=started_us, ended_us=ended_us,
        result=msgspec.structs.replace(told, measurements=measured),
    )  # fmt: skip
    return msgspec.structs.replace(one, started_us=started_us, ended_us=ended_us, repeats=(repeat,))


def _now_us() -> int:
    return time.time_ns() // 1000


def _push(node: GpuNode, one: BenchmarkReport) -> None:
    status, answer = node.daemon.request("POST", "/v1/benchmarks/runs", msgspec.json.encode(one))
    assert status == 201, answer


def _benchmarks(node: GpuNode) -> None:
    """Five equal runs, a slower one, and another slow one whose energy is measured."""
    for number, throughput in enumerate((500.0, 502.0, 498.0, 501.0, 499.0, 250.0), start=1):
        at = _now_us()
        _push(node, _ran(number, throughput, at - 1000, at))
    socket = node.daemon.socket.with_name("poke.sock")
    looked_at(socket, "slurm-7")  # as the wrapper asks at both ends of its window
    began = _now_us()
    wait_until(lambda: _now_us() >= began + 2 * SECOND_US, "two seconds of benchmark")
    ended = _now_us()
    looked_at(socket, "slurm-7")
    _push(node, _ran(7, 251.0, began, ended))


def _events(daemon: Daemon) -> None:
    """What a daemon without its database holds."""
    body = {"job_id": 3, "user": "cy", "node": "n3", "cluster": "lab", "cpu_allocation": 1}
    status, answer = daemon.request("POST", "/v1/events/job-started", json.dumps(body).encode())
    assert status == 201, answer


def _commands(daemon: Daemon) -> None:
    """A command that computes and one that fails."""
    daemon.cli("exec", "--name", "burn", "--", sys.executable, "-c", BURN)
    assert daemon.cli("exec", "--", "sh", "-c", "exit 3", check=False).returncode == 3


@contextmanager
def world() -> Iterator[World]:
    """All of it, once everything has happened and Prometheus has seen it several times."""
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-dashboards-"))
    try:
        with ExitStack() as stack:
            url = stack.enter_context(embedded_postgres.running(directory / "postgres"))
            migrate.upgrade(url)
            rest = stack.enter_context(slurmrestd())
            page = stack.enter_context(invented(INVENTED))
            ports = free_ports(5)
            server, node, local, cut_off = _daemons(directory, url, rest, ports)
            targets = {**dict(zip(("s1", "n1", "n2", "n3"), ports, strict=False)), "x1": page}
            asked = stack.enter_context(prometheus(directory / "prometheus", ports[4], targets))
            begin = time.time()
            for daemon in (server, node.daemon, local, cut_off):
                stack.callback(_stop, daemon)
                daemon.start()
            _events(cut_off)
            with _Work(node) as work:
                _happen(node, server, local, work)
                end = _seen(asked, len(targets))
                yield World(url, asked, begin, end)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _daemons(directory: Path, url: str, rest: int, ports: list[int]) -> tuple[Daemon, GpuNode, Daemon, Daemon]:
    energy = {"emission_factor": 100.0, "pue": 1.2}
    sampling = {"interval_seconds": 0.5, "checkpoint_seconds": 1.0}
    server = Daemon(
        directory / "server", cluster="lab", node="s1", roles=["server"], database={"url": url},
        http={"port": ports[0]}, benchmarks={"settle_seconds": 0.2},
        slurm={"rest_url": f"http://127.0.0.1:{rest}", "nodes_seconds": 0.5, "poll_seconds": 0.5, "sacct": ""},
    )  # fmt: skip
    home = directory / "node"
    home.mkdir()
    node = GpuNode(
        home, url, cluster="lab", roles=["node"], http={"port": ports[1]}, energy=energy,
        gpu={"interval_seconds": 0.5}, sampling=sampling,
    )  # fmt: skip
    for index in (0, 1):
        node.driver.gpu(index, **{POWER: WATTS * 1000, ENERGY: f"5000000000@{WATTS * 1000}"})
    local = Daemon(
        directory / "local", cluster="lab", node="n2", scheduler="local", roles=["node"], database={"url": url},
        http={"port": ports[2]}, sampling=sampling, gpu={"vendors": "none"},
    )  # fmt: skip
    cut_off = Daemon(
        directory / "cut-off", cluster="lab", node="n3", roles=["node"], http={"port": ports[3]}, slurm={"sacct": ""},
        database={"url": "postgresql://nobody@127.0.0.1:1/nothing", "timeout_seconds": 1.0}, gpu={"vendors": "none"},
    )  # fmt: skip
    return server, node, local, cut_off


def _happen(node: GpuNode, server: Daemon, local: Daemon, work: _Work) -> None:
    _faults(node, work)
    _begin(node, 7, "0")
    _begin(node, 8, "1", SLURM_JOB_USER="ben", SLURM_JOB_ACCOUNT="biology")
    _begin(node, 9, None)
    work.join(7, 8, 9)
    node.driver.gpu(1, utilization=70, processes=node.process(5001, 7))
    node.wait_for("hpc_job_gpus_active", 7, {"": 1})
    _benchmarks(node)
    _commands(local)
    shown = "hpc_benchmark_output_tokens_per_joule"
    wait_until(lambda: server.metrics().get(shown), f"{shown}; log:\n{server.tail()}", timeout_seconds=60)
    wait_until(
        lambda: 1.0 in [value for _, value in server.metrics().get("hpc_benchmark_regression", [])],
        "the regression on the page", timeout_seconds=60,
    )  # fmt: skip
    node.daemon.cli("bench", "pin", uid(1))
    wait_until(lambda: node.of_job("hpc_job_gpu_idle_seconds", 8).get(node.gpu_id(0), 0) > 2, "an idle GPU")
    node.final(6)


def _seen(asked: Prometheus, targets: int) -> float:
    """A moment by which Prometheus has the last of it some times, and at which it has every page.

    A page that comes too late, as on a busy machine, takes its series away until the next one comes.
    """
    everything = time.time()
    wanted = ('hpc_job_energy_joules_total{job_id="slurm-7",component="cpu"}', "hpc_benchmark_output_tokens_per_joule")
    for series in wanted:
        expression = f"count_over_time({series}[1m]) > 8"
        wait_until(lambda: asked.now(expression, time.time()), expression, every_seconds=0.3)  # noqa: B023

    def whole() -> float | None:
        at = time.time() - 3  # no scrape of before is still under way
        found = asked.now("count(min_over_time(up[4s]) == 1)", at)
        return at if at > everything and found and float(found[0]["value"][1]) == targets else None

    return wait_until(whole, "a moment at which all pages are there", every_seconds=0.3)


def _stop(daemon: Daemon) -> None:
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.kill()
