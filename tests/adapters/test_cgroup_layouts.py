"""Where jobs are found: every layout of Slurm, and paths that events name."""

import shutil
from pathlib import Path

import pytest

from jobtrail.adapters.cgroup import CgroupReader
from jobtrail.domain.samples import FoundJob, Miss, Missed, Reading, Target
from tests.adapters.cgroup_trees import V1_JOB, V2_JOB, copy, move_v2_job, remove_v1_job, target, v1_job


class Steady:
    """A steady clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def look(root: Path, at: Target) -> Reading | Missed:
    reader = CgroupReader(root)
    reader.attach(at)
    return reader.read([at.ref])[at.ref]


@pytest.mark.parametrize(
    "place",
    [
        "system.slice/n1_slurmstepd.scope/job_10039",
        "system.slice/slurmstepd.scope/job_10039",
        "system.slice/slurmstepd.scope/s5AYKN4XNR0200",
        "system.slice/n1_slurmstepd.scope/s5AYKN4XNR0200",
        "slurm.slice/n1_slurmstepd.scope/job_10039",
        "slurm.slice/slurmstepd.scope/s5AYKN4XNR0200",
        "docker-0a1b.scope/system.slice/slurmstepd.scope/job_10039",
        "docker/0a1b/system.slice/n1_slurmstepd.scope/job_10039",
    ],
)
def test_v2_layouts(tmp_path: Path, place: str) -> None:
    """Plain, multiple-slurmd, by SLUID, another slice, and below a container's cgroup."""
    root = copy("v2", tmp_path)
    move_v2_job(root, place)
    got = look(root, target(sluid="s5AYKN4XNR0200"))
    assert isinstance(got, Reading)
    assert got.cpu_usage_us == 4_246_398


@pytest.mark.parametrize(
    "place",
    [
        "system.slice/n2_slurmstepd.scope/job_10039",
        "system.slice/n11_slurmstepd.scope/job_10039",
        "slurm.slice/n2_slurmstepd.scope/job_10039",
        "system.slice/n1_slurmstepd.scope/job_1003",
        "system.slice/n1_slurmstepd.scope/s5AYKN4XNR0201",
    ],
)
def test_another_nodes_or_jobs_cgroup_is_not_ours(tmp_path: Path, place: str) -> None:
    """Two slurmd on one host have cgroups for the same job each; only the own node's counts."""
    root = copy("v2", tmp_path)
    move_v2_job(root, place)
    assert look(root, target(sluid="s5AYKN4XNR0200")) == Missed(miss=Miss.NOT_YET)


def test_the_own_nodes_name_comes_before_the_plain_one(tmp_path: Path) -> None:
    """A job in both scopes is read where slurmd's node is named."""
    root = copy("v2", tmp_path)
    plain = root / "system.slice/slurmstepd.scope/job_10039"
    shutil.copytree(root / V2_JOB, plain)
    (plain / "memory.current").write_text("1\n")
    got = look(root, target())
    assert isinstance(got, Reading)
    assert got.memory_current_bytes == 78_155_776


@pytest.mark.parametrize("uid", [1001, None])
@pytest.mark.parametrize("parent", ["slurm_n1", "slurm"])
def test_v1_layouts(tmp_path: Path, parent: str, uid: int | None) -> None:
    """With and without the node's name, with a known and an unknown user."""
    root = copy("v1", tmp_path)
    for controller in root.iterdir():
        (controller / "slurm_n1").rename(controller / parent)
    got = look(root, target("slurm-53", uid=uid))
    assert isinstance(got, Reading)
    assert (got.cpu_usage_us, got.memory_current_bytes, got.processes) == (1_379_099, 53_325_824, 2)


def test_v1_of_another_node_or_user_is_not_ours(tmp_path: Path) -> None:
    """The same job id of another slurmd, or below another user, is no match."""
    root = copy("v1", tmp_path)
    assert look(root, target("slurm-53", uid=1001, node="n2")) == Missed(miss=Miss.NOT_YET)
    assert look(root, target("slurm-53", uid=1002)) == Missed(miss=Miss.NOT_YET)


def test_v1_controllers_mounted_together(tmp_path: Path) -> None:
    """`cpu,cpuacct` is both; distributions add links of the single names."""
    root = copy("v1", tmp_path)
    shutil.copytree(root / "cpu", root / "cpuacct", dirs_exist_ok=True)
    shutil.rmtree(root / "cpu")
    (root / "cpuacct").rename(root / "cpu,cpuacct")
    got = look(root, target("slurm-53", uid=1001))
    assert isinstance(got, Reading)
    assert (got.cpu_usage_us, got.cpu_throttled_periods) == (1_379_099, 26)
    (root / "cpu").symlink_to("cpu,cpuacct")
    (root / "cpuacct").symlink_to("cpu,cpuacct")
    assert isinstance(look(root, target("slurm-53", uid=1001)), Reading)


def test_hybrid_prefers_v1(tmp_path: Path) -> None:
    """Where a job is in both hierarchies, v1's has the controllers."""
    root = copy("v1", tmp_path)
    shutil.copytree(copy("v2", tmp_path), root / "unified")
    move_v2_job(root / "unified", "system.slice/n1_slurmstepd.scope/job_53")
    got = look(root, target("slurm-53", uid=1001))
    assert isinstance(got, Reading)
    assert got.source == "cgroup_v1"
    remove_v1_job(root)
    got = look(root, target("slurm-53", uid=1001))
    assert isinstance(got, Reading)
    assert got.source == "cgroup_v2"


@pytest.mark.parametrize(
    "given",
    ["/" + V2_JOB, V2_JOB, "{root}/" + V2_JOB, "//system.slice/./n1_slurmstepd.scope/job_10039/"],
)
def test_v2_paths_that_events_name(tmp_path: Path, given: str) -> None:
    """Below the root, with or without the root's own path before it; the job may have any id."""
    root = copy("v2", tmp_path)
    got = look(root, target("local-7", cgroup_path=given.format(root=root)))
    assert isinstance(got, Reading)
    assert got.cpu_usage_us == 4_246_398


@pytest.mark.parametrize("given", ["/" + V1_JOB, f"/memory/{V1_JOB}", "{root}/cpuacct/" + V1_JOB])
def test_v1_paths_that_events_name(tmp_path: Path, given: str) -> None:
    """Relative to each controller, or with one controller before it; all controllers are read."""
    root = copy("v1", tmp_path)
    got = look(root, target("local-7", cgroup_path=given.format(root=root)))
    assert isinstance(got, Reading)
    assert (got.cpu_usage_us, got.memory_current_bytes) == (1_379_099, 53_325_824)


def test_hybrid_paths_that_events_name(tmp_path: Path) -> None:
    """`/unified/…` names the unified hierarchy and no v1 cgroup."""
    root = copy("v1", tmp_path)
    shutil.copytree(copy("v2", tmp_path), root / "unified")
    got = look(root, target("local-7", cgroup_path=f"/unified/{V2_JOB}"))
    assert isinstance(got, Reading)
    assert got.source == "cgroup_v2"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("/../../etc", "outside"),
        ("/system.slice/../..", "outside"),
        ("..", "outside"),
        ("/link/job", "outside"),
        ("/", "root cgroup"),
        ("", "root cgroup"),
        ("/./", "root cgroup"),
        ("{root}", "outside"),
        ("/a\0b", "null"),
        ("/\udfff\ud800", "surrogates"),
        ("/" + "x" * 5_000, "ENAMETOOLONG"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, version: str, given: str, words: str) -> None:
    """Neither what lies outside the hierarchy nor the root cgroup, which holds everybody's processes, is a job."""
    root = copy(version, tmp_path)
    (tmp_path / "job").mkdir()
    for place in (root, root / "memory", root / "cpuacct"):
        if place.is_dir():
            (place / "link").symlink_to(tmp_path)
    if given == "{root}":
        given = f"{root}/../{version}x"
    got = look(root, target("local-7", cgroup_path=given))
    assert isinstance(got, Missed)
    assert got.miss is Miss.UNREADABLE
    assert words in got.detail


@pytest.mark.parametrize("job_id", ["local-7", "slurm-", "slurm-1/../2", "slurm-٣", "job_10039", ""])
def test_a_job_id_that_is_not_slurms_needs_a_path(tmp_path: Path, job_id: str) -> None:
    """The offending id is named, and nothing is looked for."""
    got = look(copy("v2", tmp_path), target(job_id))
    assert got == Missed(
        miss=Miss.UNREADABLE, detail=f"job_id {job_id!r} is not slurm-<number>, and no cgroup_path was given"
    )


def test_names_from_an_event_cannot_leave_the_hierarchy(tmp_path: Path) -> None:
    """Node and SLUID are parts of paths; one that is no plain name is not looked for."""
    root = copy("v2", tmp_path)
    secret = tmp_path / "secret_slurmstepd.scope" / "job_10039"
    shutil.move(root / V2_JOB, secret.parent.parent / "moved")
    shutil.copytree(tmp_path / "moved", secret)
    assert look(root, target(node="../../secret")) == Missed(miss=Miss.NOT_YET)
    assert look(root, target(sluid="../../../moved")) == Missed(miss=Miss.NOT_YET)


def test_no_hierarchy_at_all(tmp_path: Path) -> None:
    """An empty or missing root is an error of the node, not a job that is not there yet."""
    for root in (tmp_path, tmp_path / "nowhere"):
        got = look(root, target())
        assert isinstance(got, Missed)
        assert got.miss is Miss.UNREADABLE
        assert str(root) in got.detail
    assert CgroupReader(tmp_path).scan() == ()


def test_a_new_slice_is_searched_for_again_after_five_seconds(tmp_path: Path) -> None:
    """Searching the whole tree has its price; usual places are looked at each time."""
    root = copy("v2", tmp_path)
    steady = Steady()
    reader = CgroupReader(root, monotonic=steady)
    reader.attach(target())
    job = move_v2_job(root, "away")
    assert reader.read(["r"])["r"] == Missed(miss=Miss.NOT_YET)
    shutil.move(job, root / "slurm.slice/slurmstepd.scope/job_10039")
    assert reader.read(["r"])["r"] == Missed(miss=Miss.NOT_YET)
    steady.now += 5
    assert isinstance(reader.read(["r"])["r"], Reading)


def test_scan_of_v2(tmp_path: Path) -> None:
    """Job directories of all scopes, by SLUID through slurmstepd's title; not slurmd's own directories."""
    root = copy("v2", tmp_path)
    sluid = root / "slurm.slice/slurmstepd.scope/s5AYKN4XNR0200"
    shutil.copytree(root / V2_JOB, sluid)
    (sluid / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    (sluid / "step_extern/slurm/cgroup.procs").write_text("4242\n")
    proc = tmp_path / "proc"
    (proc / "4242").mkdir(parents=True)
    (proc / "4242" / "cmdline").write_bytes(b"slurmstepd: [777.extern]\0")
    found = {job.job_id: job for job in CgroupReader(root, proc=proc).scan()}
    assert found == {
        "slurm-10039": FoundJob(job_id="slurm-10039", uid=None, path=str(root / V2_JOB), populated=True),
        "slurm-777": FoundJob(job_id="slurm-777", uid=None, path=str(sluid), populated=False, sluid="s5AYKN4XNR0200"),
    }
    assert [job.job_id for job in CgroupReader(root, node="n1", proc=tmp_path).scan()] == ["slurm-10039"]


def test_scan_of_v1(tmp_path: Path) -> None:
    """User and path from the directories; populated where any process is left, and only the own node's when asked."""
    root = copy("v1", tmp_path)
    shutil.copytree(v1_job(root, "freezer"), root / "freezer/slurm_n2/uid_7/job_8")
    for procs in (root / "freezer/slurm_n2").rglob("cgroup.procs"):
        procs.write_text("")
    found = {job.job_id: job for job in CgroupReader(root).scan()}
    path = str(v1_job(root, "cpuacct"))
    assert found == {
        "slurm-53": FoundJob(job_id="slurm-53", uid=1001, path=path, populated=True),
        "slurm-8": FoundJob(job_id="slurm-8", uid=7, path=str(root / "freezer/slurm_n2/uid_7/job_8"), populated=False),
    }
    assert [job.job_id for job in CgroupReader(root, node="n1").scan()] == ["slurm-53"]
