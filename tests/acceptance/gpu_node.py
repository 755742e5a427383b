"""A node with two GPUs, a cgroup tree and energy counters, all scripted, and the real daemon on it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from tests.adapters.cgroup_trees import FIXTURES, V2_JOB
from tests.daemon_process import Daemon, UnixConnection, wait_until
from tests.fake_nvml import FakeDriver, field, library
from tests.requirements import require_tool

ENERGY = field(83)  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, mJ
POWER = field(185)  # NVML_FI_DEV_POWER_AVERAGE
RANGE = 262_143_328_850
COLUMNS = ("gpu_id", "resolved_by", "energy_joules", "energy_method", "unused_seconds", "busy_seconds", "errors")


class GpuNode:
    """Slurm's place 0 is /dev/nvidia5, place 1 is /dev/nvidia2; NVML counts them the other way round."""

    def __init__(self, directory: Path, url: str, **settings: Any) -> None:
        compiler = require_tool("gcc", "GPUs cannot be watched without the fake driver it builds")
        self.driver = FakeDriver(directory, library(compiler), gpus=2)
        for index, minor in ((0, 2), (1, 5)):
            # Without power, a counter that stands still is not bridged.
            self.driver.gpu(index, minor=minor, utilization=0, processes="", **{POWER: None})
        self.slurm = directory / "slurm"
        self.slurm.mkdir()
        (self.slurm / "slurm.conf").write_text("NodeName=n1 Gres=gpu:2\n")
        (self.slurm / "gres.conf").write_text("Name=gpu File=/dev/nvidia5\nName=gpu File=/dev/nvidia2\n")
        self.cgroups = directory / "cgroup"
        (self.cgroups / V2_JOB).parent.mkdir(parents=True)
        (self.cgroups / "cgroup.controllers").write_text("cpu memory io pids\n")
        self.proc = directory / "proc"
        self.proc.mkdir()
        for name in ("meminfo", "loadavg", "sys"):
            (self.proc / name).symlink_to(f"/proc/{name}")
        self.burn(0)
        self.zone = self.driver.root / "sys/class/powercap/intel-rapl:0"
        self.zone.mkdir(parents=True)
        (self.zone / "name").write_text("package-0\n")
        (self.zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.use_energy(1_000_000)
        self.url = url
        gpu = {
            "interval_seconds": 0.25,
            "deadline_seconds": 10.0,
            "root": str(self.driver.root),
            "library_directory": str(self.driver.directory),
            "gres_conf": str(self.slurm / "gres.conf"),
        }
        sampling = {
            "interval_seconds": 0.5, "cgroup_root": str(self.cgroups), "proc_root": str(self.proc),
            **settings.pop("sampling", {}),
        }  # fmt: skip
        self.daemon = Daemon(
            directory / "daemon",
            node="n1",
            gpu={**gpu, **settings.pop("gpu", {})},
            sampling=sampling,
            database={"url": url},
            slurm={"sacct": ""},
            **settings,
        )

    @staticmethod
    def gpu_id(index: int) -> str:
        """UUID of a GPU by NVML's index."""
        return f"GPU-{index:08x}-0000-0000-0000-000000000000"

    def use_energy(self, microjoules: int) -> None:
        """The package's counter."""
        _replace(self.zone / "energy_uj", f"{microjoules}\n")

    def burn(self, ticks: int) -> None:
        """Busy time of the node in hundredths of a second, of one CPU."""
        line = f"{ticks} 0 0 1000 0 0 0 0 0 0"
        _replace(self.proc / "stat", f"cpu  {line}\ncpu0 {line}\nbtime {int(time.time()) - 1000}\n")

    def spend(self, index: int, millijoules: int) -> None:
        """A GPU's counter."""
        self.driver.gpu(index, **{ENERGY: millijoules})

    def job(self, number: int, *, cpu_us: int = 0) -> Path:
        """The job's cgroup, with so much CPU time used."""
        directory = (self.cgroups / V2_JOB).with_name(f"job_{number}")
        if not directory.exists():
            shutil.copytree(FIXTURES / "v2" / V2_JOB, directory)
        text = f"usage_usec {cpu_us}\nuser_usec {cpu_us}\nsystem_usec 0\n"
        _replace(directory / "cpu.stat", text)
        return directory

    def process(self, pid: int, job: int) -> str:
        """A process of a job; what the driver says of it."""
        home = self.proc / str(pid)
        home.mkdir()
        (home / "cgroup").write_text(f"0::/system.slice/n1_slurmstepd.scope/job_{job}/step_0/user/task_0\n")
        (home / "stat").write_text(f"{pid} (python) S 1 {pid}\n")
        return f"{pid}:1048576"

    def hook(self, name: str, job: int, **variables: str) -> None:
        """Post as the hooks do."""
        named = {
            "SLURM_JOB_ID": str(job), "SLURMD_NODENAME": "n1", "SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_UID": "1001",
            "SLURM_JOB_USER": "ada", **variables,
        }  # fmt: skip
        body = b"".join(f"{key}={value}\0".encode() for key, value in named.items())
        headers = {"Jobtrail-Event-Id": str(uuid.uuid4()), "Jobtrail-Event-Time": f"{time.time():.9f}"}
        status, answer = self.daemon.request("POST", f"/v1/hooks/slurm/{name}", body, headers)
        assert status == 201, answer

    def begin(self, job: int, gpus: str | None = None) -> None:
        """A prolog, and the job's cgroup."""
        self.job(job)
        self.hook("prolog", job, **({} if gpus is None else {"SLURM_JOB_GPUS": gpus}))

    def end(self, job: int) -> None:
        """The job's cgroup is gone, then the epilog."""
        shutil.rmtree((self.cgroups / V2_JOB).with_name(f"job_{job}"))
        self.hook("epilog", job, SLURM_JOB_EXIT_CODE="0", SLURM_JOB_EXIT_CODE2="0:0")

    def of_job(self, name: str, job: int) -> dict[str, float]:
        """The series of a job by the label that tells them apart: gpu_id, component, or none."""
        found = {}
        for labels, value in self.daemon.metrics().get(name, []):
            if labels.get("job_id") == f"slurm-{job}":
                found[labels.get("gpu_id", labels.get("component", ""))] = value
        return found

    def wait_for(self, name: str, job: int, wanted: dict[str, float]) -> None:
        """Until the series of a job are these."""
        wait_until(lambda: self.of_job(name, job) == wanted, f"{name} of {job} to be {wanted}", every_seconds=0.1)

    def rows(self, sql: str, *arguments: object) -> list[dict[str, Any]]:
        """What the database answers."""

        async def ask() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.url)
            try:
                return [dict(row) for row in await connection.fetch(sql, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def final(self, job: int) -> dict[str, Any]:
        """The row of an ended job, once its final usage is stored."""
        sql = (
            "SELECT j.* FROM jobs j JOIN audit_log a USING (cluster_name, job_id) JOIN audit_payload p"
            " USING (chain_id, seq) WHERE j.job_id = $1"
            " AND convert_from(p.payload, 'UTF8') LIKE '%usage_recorded%'"
        )
        found = wait_until(lambda: self.rows(sql, f"slurm-{job}"), f"the usage of {job}", every_seconds=0.2)
        return found[0]

    def gpus(self, job: int) -> list[dict[str, Any]]:
        """The job's rows of job_gpus."""
        sql = f"SELECT {', '.join(COLUMNS)}, attribution_mismatch FROM job_gpus WHERE job_id = $1 ORDER BY gpu_id"
        return self.rows(sql, f"slurm-{job}")


def look(socket: Path, job: str) -> tuple[int, dict[str, Any]]:
    """The answer to one request."""
    connection = UnixConnection(socket)
    try:
        connection.request("POST", f"/v1/jobs/{job}/look")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def asked(socket: Path, job: str) -> tuple[datetime, datetime]:
    """When a look was asked for and when it was done; one that takes too long, as on a busy machine, is asked again."""
    began = datetime.now(UTC)

    def answered() -> dict[str, Any] | None:
        status, answer = look(socket, job)
        assert status in (200, 503), answer
        return answer if status == 200 else None

    answer = wait_until(answered, "a look that is done in time", every_seconds=1.0)
    assert (answer["job_id"], answer["looked"]) == ("slurm-7", True)
    return began, datetime.fromisoformat(answer["time"])


def _replace(path: Path, text: str) -> None:
    """A file that is never seen half written."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
