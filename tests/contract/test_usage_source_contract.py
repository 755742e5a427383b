"""What every UsageSource and NodeSource promises, held by the fakes and the real ones alike."""

import shutil
from pathlib import Path
from typing import Protocol

import pytest

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.adapters.procfs import NodeProc, ProcessTreeReader
from jobtrail.core.ports import NodeSource, UsageSource
from jobtrail.domain.samples import Miss, Missed, NodeReading, Reading, Target
from tests.adapters.cgroup_trees import V1_JOB, V2_JOB, copy, target
from tests.adapters.test_procfs import NODE_STAT, TICK_US, FakeProc
from tests.fakes import FakeNodeSource, FakeUsageSource


class World(Protocol):
    """A source and the means to make its jobs come and go."""

    source: UsageSource

    def target(self, ref: str = "r") -> Target:
        """A job that is not there yet."""
        ...

    def appear(self, cpu_us: int) -> None:
        """The job is there and has used this much CPU time."""
        ...

    def vanish(self) -> None:
        """The job's counters are gone."""
        ...


class FakeWorld:
    def __init__(self, _tmp_path: Path) -> None:
        self.fake = FakeUsageSource()
        self.source: UsageSource = self.fake

    def target(self, ref: str = "r") -> Target:
        return target("slurm-1", ref=ref)

    def appear(self, cpu_us: int) -> None:
        fields = set(Reading.__struct_fields__) - {"time_us", "source", "absent", "cpu_usage_us"}
        self.fake.readings["slurm-1"] = Reading(
            time_us=1, source="cgroup_v2", cpu_usage_us=cpu_us, absent=dict.fromkeys(fields, "not put there")
        )

    def vanish(self) -> None:
        del self.fake.readings["slurm-1"]


class CgroupWorld:
    """Copied trees of either version."""

    def __init__(self, tmp_path: Path, version: str) -> None:
        self.version = version
        self.kept = copy(version, tmp_path / "kept")
        self.root = copy(version, tmp_path)
        self.vanish()
        self.source: UsageSource = CgroupReader(self.root)

    def target(self, ref: str = "r") -> Target:
        return target("slurm-53", ref=ref, uid=1001) if self.version == "v1" else target(ref=ref)

    def appear(self, cpu_us: int) -> None:
        shutil.copytree(self.kept, self.root, dirs_exist_ok=True)
        if self.version == "v1":
            (self.root / "cpuacct" / V1_JOB / "cpuacct.usage").write_text(f"{cpu_us}000\n")
        else:
            (self.root / V2_JOB / "cpu.stat").write_text(f"usage_usec {cpu_us}\nuser_usec 0\nsystem_usec {cpu_us}\n")

    def vanish(self) -> None:
        jobs = [self.root / V2_JOB] if self.version == "v2" else [path / V1_JOB for path in self.root.iterdir()]
        for job in jobs:
            shutil.rmtree(job)


class ProcessWorld:
    """A /proc made by hand. A process that comes again with the same start is the same process."""

    def __init__(self, tmp_path: Path) -> None:
        self.proc = FakeProc(tmp_path / "proc")
        self.source: UsageSource = ProcessTreeReader(self.proc.root)

    def target(self, ref: str = "r") -> Target:
        return target("local-1", ref=ref, root_pid=10, root_pid_start_ticks=100)

    def appear(self, cpu_us: int) -> None:
        self.proc.put(10, user=cpu_us // TICK_US)

    def vanish(self) -> None:
        self.proc.end(10)


@pytest.fixture(params=["fake", "cgroup_v1", "cgroup_v2", "procfs"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "fake":
        return FakeWorld(tmp_path)
    if request.param == "procfs":
        return ProcessWorld(tmp_path)
    return CgroupWorld(tmp_path, request.param.removeprefix("cgroup_"))


def look(world: World, ref: str = "r") -> Reading | Missed:
    return world.source.read([ref])[ref]


def miss(world: World, ref: str = "r") -> Miss | None:
    got = look(world, ref)
    return got.miss if isinstance(got, Missed) else None


def test_a_job_that_is_not_there_yet(world: World) -> None:
    """Attaching needs nothing to exist; never seen is not the same as gone."""
    world.source.attach(world.target())
    assert miss(world) is Miss.NOT_YET
    assert world.source.cpu_totals(["r"]).by_ref == {}


def test_a_job_is_read_once_it_is_there(world: World) -> None:
    """The counter's value, with a time and a source; each other value is a number or absent with a reason."""
    world.source.attach(world.target())
    look(world)
    world.appear(5_000_000)
    got = look(world)
    assert isinstance(got, Reading)
    assert got.cpu_usage_us == 5_000_000
    assert got.time_us > 0
    assert got.source
    for field in set(Reading.__struct_fields__) - {"time_us", "source", "absent"}:
        assert (getattr(got, field) is None) == (field in got.absent), field


def test_a_job_that_was_there_is_gone(world: World) -> None:
    """Gone is said as long as it is so."""
    world.source.attach(world.target())
    world.appear(5_000_000)
    look(world)
    world.vanish()
    assert miss(world) is Miss.GONE
    assert miss(world) is Miss.GONE
    assert world.source.cpu_totals(["r"]).by_ref == {}


def test_counters_grow_between_looks(world: World) -> None:
    """Two looks at a living job are two values of one counter."""
    world.source.attach(world.target())
    world.appear(1_000_000)
    first = look(world)
    world.appear(3_000_000)
    second = look(world)
    assert isinstance(first, Reading)
    assert isinstance(second, Reading)
    assert (first.cpu_usage_us, second.cpu_usage_us) == (1_000_000, 3_000_000)


def test_totals_agree_with_readings(world: World) -> None:
    """The CPU counter read in a row with its parent is the one of the reading."""
    world.source.attach(world.target())
    world.appear(4_000_000)
    assert world.source.cpu_totals(["r", "unknown"]).by_ref == {"r": 4_000_000}


def test_refs_stand_alone(world: World) -> None:
    """Two runs may look at one job; detaching one leaves the other; nobody's ref is a miss, never an error."""
    world.source.attach(world.target("a"))
    world.source.attach(world.target("b"))
    world.appear(2_000_000)
    assert set(world.source.read(["a", "b"])) == {"a", "b"}
    world.source.detach("a")
    world.source.detach("a")
    world.source.detach("never")
    assert isinstance(look(world, "b"), Reading)
    assert miss(world, "a") is Miss.UNREADABLE


def test_attaching_again_begins_anew(world: World) -> None:
    """A run attached after its ref was used before has not been seen."""
    world.source.attach(world.target())
    world.appear(2_000_000)
    look(world)
    world.vanish()
    world.source.attach(world.target())
    assert miss(world) is Miss.NOT_YET


def test_scan_gives_public_ids(world: World) -> None:
    """What a scan finds can be asked for by its job id."""
    world.appear(1_000_000)
    for found in world.source.scan():
        assert found.job_id.startswith("slurm-")
        assert found.path


@pytest.fixture(params=["fake", "proc"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> NodeSource:
    if request.param == "fake":
        return FakeNodeSource()
    (tmp_path / "stat").write_text(NODE_STAT)
    return NodeProc(tmp_path)


def test_a_nodes_values_are_numbers_or_absent(node: NodeSource) -> None:
    """Each value is a number, or None with a reason."""
    got = node.read_node()
    for field in set(NodeReading.__struct_fields__) - {"time_us", "absent"}:
        assert (getattr(got, field) is None) == (field in got.absent), field
