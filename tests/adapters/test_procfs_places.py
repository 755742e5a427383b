"""Where processes stand, from /proc: a tree of files, and the test's own process."""

import os
from pathlib import Path

from jobtrail.adapters.procfs import ProcessPlacesReader
from jobtrail.adapters.procfs.places import MOST_ANCESTORS
from jobtrail.core.gpu.ports import ProcessPlace


def put(root: Path, pid: int, parent: str, cgroup: str | None = "0::/a\n") -> None:
    """A process whose name tries to look like fields."""
    (root / str(pid)).mkdir()
    (root / str(pid) / "stat").write_text(f"{pid} (x) S 1 (y) R {parent} 5 5\n")
    if cgroup is not None:
        (root / str(pid) / "cgroup").write_text(cgroup)


def test_cgroups_and_ancestors(tmp_path: Path) -> None:
    """Each path once, colons kept; ancestors up to the first process, which is nobody's."""
    put(tmp_path, 7, "5", "12:memory:/slurm/uid_1/job_7\n3:cpu,cpuacct:/slurm/uid_1/job_7\n0::/odd:name\nbroken\n")
    put(tmp_path, 5, "1")
    places = ProcessPlacesReader(tmp_path).places_of([7, 8])
    assert places == {7: ProcessPlace(cgroups=("/slurm/uid_1/job_7", "/odd:name"), ancestors=(7, 5))}


def test_a_process_that_ends_meanwhile_and_one_that_lies(tmp_path: Path) -> None:
    """What cannot be read ends the line of ancestors; a circle ends too."""
    put(tmp_path, 7, "5")
    put(tmp_path, 8, "8")
    put(tmp_path, 9, "word")
    put(tmp_path, 10, "1", cgroup=None)
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "cgroup").mkdir()
    places = ProcessPlacesReader(tmp_path).places_of([7, 8, 9, 10, 11])
    assert {pid: place.ancestors for pid, place in places.items()} == {
        7: (7, 5),
        8: (8,) * MOST_ANCESTORS,
        9: (9,),
    }


def test_the_real_proc() -> None:
    """This process and its parent, unless that is the first process."""
    expected = (os.getpid(),) if os.getppid() == 1 else (os.getpid(), os.getppid())
    place = ProcessPlacesReader(Path("/proc")).places_of([os.getpid()])[os.getpid()]
    assert place.ancestors[:2] == expected
    assert all(path.startswith("/") for path in place.cgroups)
