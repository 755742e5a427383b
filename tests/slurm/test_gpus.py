"""Real jobs of a real Slurm on GPUs of a scripted driver: whose is which, which is idle, what each used."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate
from jobtrail.core.runs.pokes import LOOKS
from tests.daemon_process import Daemon, wait_until
from tests.fake_nvml import FakeDriver, field, library
from tests.requirements import require_tool
from tests.slurm.cluster import SlurmCluster
from tests.slurm.observed import HOOKS, UNTIL_OPEN, Observed

pytestmark = pytest.mark.slurm

ENERGY, POWER = field(83), field(185)  # NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION (mJ), NVML_FI_DEV_POWER_AVERAGE
MINORS = (5, 2)  # of Slurm's places 0 and 1
BETWEEN_SECONDS = 10
HOLD = "#!/bin/sh\necho $$ ${SLURM_JOB_GPUS-none}\nexec sleep 600\n"


class OnGpus(Observed):
    """The cluster, its daemon and the driver. NVML's index 0 is minor 2, which is Slurm's place 1."""

    driver: FakeDriver

    def hold(self, *arguments: str) -> tuple[int, int, str]:
        """A job that holds what it asked for: its id, its process, and what Slurm told it of GPUs."""
        job = self.cluster.submit(HOLD, *arguments)
        said = wait_until(lambda: self._said(job), f"job {job} to run")
        return job, int(said[0]), said[1]

    def _said(self, job: int) -> list[str]:
        return self.written(job).split()

    def written(self, job: int) -> str:
        """What it has written so far; its file is made when its script starts."""
        try:
            return self.cluster.output(job)
        except OSError:
            return ""

    def of_job(self, name: str, job: int) -> dict[str, float]:
        """The series of a job by gpu_id."""
        found = self.daemon.metrics().get(name, [])
        return {labels.get("gpu_id", ""): value for labels, value in found if labels.get("job_id") == f"slurm-{job}"}

    def wait_for(self, name: str, job: int, wanted: dict[str, float]) -> None:
        """Until the series of a job are these."""
        wait_until(lambda: self.of_job(name, job) == wanted, f"{name} of {job} to be {wanted}", every_seconds=0.2)


@pytest.fixture(scope="module")
def observed(slurm_packages: None) -> Iterator[OnGpus]:
    compiler = require_tool("gcc", "jobs on GPUs cannot be watched without the fake driver it builds")
    directory = Path(tempfile.mkdtemp(prefix="jobtrail-gpus-"))
    directory.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        (directory / "driver").mkdir()
        driver = FakeDriver(directory / "driver", library(compiler), gpus=2)
        for index, minor in enumerate(sorted(MINORS)):
            driver.gpu(index, minor=minor, utilization=0, processes="", **{POWER: None})
        url = stack.enter_context(embedded_postgres.running(directory / "postgres"))
        migrate.upgrade(url)
        conf = directory / "hook.conf"
        (directory / "hooks").mkdir()
        for name in ("prolog.sh", "epilog.sh"):
            shutil.copy(HOOKS / name, directory / "hooks" / name)
            (directory / "hooks" / name).chmod(0o755)
        cluster = SlurmCluster(
            prolog=directory / "hooks" / "prolog.sh",
            epilog=directory / "hooks" / "epilog.sh",
            hook_conf=conf,
            gpu_files=_devices(directory),
        )
        daemon = Daemon(
            directory / "daemon",
            database={"url": url},
            slurm={"sacct": ""},
            http={"slurm_user": "slurm"},
            gpu={
                "interval_seconds": 0.5,
                "deadline_seconds": 10.0,
                "root": str(driver.root),
                "library_directory": str(driver.directory),
            },
        )
        conf.write_text(f"JOBTRAIL_SOCKET={daemon.socket}\nJOBTRAIL_SPOOL={daemon.spool}\n")
        stack.enter_context(daemon)
        stack.enter_context(cluster)
        on_gpus = OnGpus(cluster, daemon, url)
        on_gpus.driver = driver
        yield on_gpus


def _devices(directory: Path) -> list[Path]:
    """Character devices that can be opened, named as NVIDIA's."""
    files = [directory / f"nvidia{minor}" for minor in MINORS]
    for file in files:
        os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return files


def _id(index: int) -> str:
    return f"GPU-{index:08x}-0000-0000-0000-000000000000"


def test_jobs_on_two_gpus_never_swap_and_an_idle_one_is_seen(observed: OnGpus) -> None:
    """Each job has the GPU whose place Slurm gave it; the third one has none."""
    used, used_pid, used_place = observed.hold("--gres=gpu:1", "--mem=50")
    idle, _, idle_place = observed.hold("--gres=gpu:1", "--mem=50")
    none, _, none_place = observed.hold("--mem=50")
    assert ({used_place, idle_place}, none_place) == ({"0", "1"}, "none")
    index_of_place = {place: sorted(MINORS).index(minor) for place, minor in enumerate(MINORS)}
    busy = index_of_place[int(used_place)]
    observed.driver.gpu(busy, utilization=70, processes=f"{used_pid}:1048576")
    observed.wait_for("hpc_job_gpu_device_utilization_percent", used, {_id(busy): 70})
    observed.wait_for("hpc_job_gpu_device_utilization_percent", idle, {_id(1 - busy): 0})
    observed.wait_for("hpc_job_gpus_active", used, {"": 1})
    observed.wait_for("hpc_job_gpus_active", idle, {"": 0})
    assert not {name for name in observed.series(none) if "gpu" in name}
    before = 5_000_000_000 + busy * 1000
    observed.driver.gpu(busy, **{ENERGY: before + 12_345})
    observed.wait_for("hpc_job_gpu_device_energy_joules_total", used, {_id(busy): 12.345})
    observed.driver.gpu(busy, **{ENERGY: before + 13_345})
    for job in (used, idle, none):
        observed.cluster.cancel(job)
        observed.cluster.wait_finished(job)
    assert [observed.settled(job)["energy_gpu_joules"] for job in (used, idle, none)] == [13.345, 0.0, None]
    found = observed.rows("SELECT job_id, gpu_id, resolved_by, attribution_mismatch FROM job_gpus")
    assert {tuple(row.values()) for row in found} == {
        (f"slurm-{used}", _id(busy), "gres_conf_file", None),
        (f"slurm-{idle}", _id(1 - busy), "gres_conf_file", None),
    }


def test_a_job_on_a_gpu_it_does_not_hold_is_told(observed: OnGpus) -> None:
    """Its process is found by its cgroup."""
    holder, _, place = observed.hold("--gres=gpu:1", "--mem=50")
    other, pid, _ = observed.hold("--mem=50")
    index = sorted(MINORS).index(MINORS[int(place)])
    observed.wait_for("hpc_job_gpu_mismatches", holder, {"": 0})
    observed.driver.gpu(index, utilization=50, processes=f"{pid}:1048576")
    observed.wait_for("hpc_job_gpu_mismatches", holder, {"": 1})
    for job in (holder, other):
        observed.cluster.cancel(job)
        observed.cluster.wait_finished(job)
        observed.settled(job)
    rows = observed.rows("SELECT attribution_mismatch FROM job_gpus WHERE job_id = %s", f"slurm-{holder}")
    assert [row["attribution_mismatch"] for row in rows] == [f"process {pid} of slurm-{other} was on it"]


def test_jobs_that_share_a_gpu_each_hold_it_and_have_their_part_of_its_energy(observed: OnGpus) -> None:
    """By shards; whose process is whose is told by the cgroups."""
    for index in range(2):
        observed.driver.gpu(index, processes="", **{ENERGY: "5000000000@100000"})  # 100 W
    one, one_pid, place = observed.hold("--gres=shard:1", "--mem=50")
    other, _, same_place = observed.hold("--gres=shard:1", "--mem=50")
    assert place == same_place
    index = sorted(MINORS).index(MINORS[int(place)])
    observed.driver.gpu(index, utilization=40, processes=f"{one_pid}:1048576")
    observed.wait_for("hpc_job_gpus_active", one, {"": 1})
    observed.wait_for("hpc_job_gpus_active", other, {"": 0})
    for job in (one, other):
        observed.wait_for("hpc_job_gpu_mismatches", job, {"": 0})
    wait_until(
        lambda: observed.of_job("hpc_job_gpu_device_energy_joules_total", other).get(_id(index), 0) > 50,
        "the second job to have energy",
        every_seconds=0.2,
    )
    for job in (one, other):
        observed.cluster.cancel(job)
        observed.cluster.wait_finished(job)
    # Each may have had it alone for a look: the first before the second came, the second after the first had gone.
    methods = [observed.settled(job)["energy_method"] for job in (one, other)]
    assert set(methods) <= {"apportioned", "mixed"}, methods
    rows = observed.rows(
        "SELECT job_id, gpu_id FROM job_gpus WHERE job_id = ANY(%s)", [f"slurm-{one}", f"slurm-{other}"]
    )
    assert {tuple(row.values()) for row in rows} == {(f"slurm-{job}", _id(index)) for job in (one, other)}


def test_a_jobs_user_has_the_energy_of_a_part_of_it(observed: OnGpus) -> None:
    """Asked for from inside the job, as its user; another user's word about it counts nothing."""
    curl = require_tool("curl", "a job cannot ask for looks at itself without it")
    users = observed.daemon.socket.with_name("poke.sock")
    ask = f"{curl} -s --unix-socket {users} -X POST http://localhost/v1/jobs/"
    # A look that takes too long, as on a busy machine, is asked for again; so is one before the prolog is on record.
    done = f'until said=$({ask}$SLURM_JOB_ID/look --fail); do sleep 0.5; done; echo "$said"'
    first, second = (UNTIL_OPEN.format(gate=observed.gate(name)) for name in ("first-look", "second-look"))
    script = f"#!/bin/sh\n{first}\n{done}\nsleep {BETWEEN_SECONDS}\n{second}\n{done}\n"
    for index in range(2):
        observed.driver.gpu(index, **{ENERGY: "5000000000@100000"})  # 100 W
    job = observed.cluster.submit(script, "--gres=gpu:1", "--mem=50", user="jt-alice")
    known = "SELECT 1 FROM energy_samples WHERE job_id = %s"
    wait_until(lambda: observed.rows(known, f"slurm-{job}"), "the energy that the looks' is compared with")
    observed.gate("first-look").touch()
    wait_until(lambda: "looked" in observed.written(job), "the first look")
    other = f"#!/bin/sh\n{ask}{job}/look\n"
    stranger = observed.cluster.submit(other, "--mem=50", user="jt-bob")
    observed.cluster.wait_finished(stranger)
    assert json.loads(observed.cluster.output(stranger))["error"] == "forbidden"
    observed.gate("second-look").touch()
    observed.cluster.wait_finished(job)
    answers = [json.loads(line) for line in observed.cluster.output(job).splitlines()]
    assert [(answer["job_id"], answer["looked"]) for answer in answers] == [(f"slurm-{job}", True)] * 2
    began, ended = (datetime.fromisoformat(answer["time"]) for answer in answers)
    asked = "SELECT * FROM energy_samples WHERE job_id = %s AND sampled_at <= %s ORDER BY sampled_at DESC LIMIT 1"
    after = "SELECT 1 FROM energy_samples WHERE job_id = %s AND sampled_at > %s"
    wait_until(lambda: observed.rows(after, f"slurm-{job}", ended), "the row of its end", every_seconds=0.2)
    one, two = (observed.rows(asked, f"slurm-{job}", moment)[0] for moment in (began, ended))
    passed = (two["sampled_at"] - one["sampled_at"]).total_seconds()
    assert passed >= BETWEEN_SECONDS - 0.1
    # Each of both looks was answered within LOOKS.answer_seconds: so far may the counter's time lie from its row's.
    assert (two["gpu_joules"] - one["gpu_joules"]) / passed == pytest.approx(100, rel=LOOKS.answer_seconds / passed)
    assert one["node"] == two["node"] == observed.rows("SELECT node FROM job_nodes LIMIT 1")[0]["node"]
