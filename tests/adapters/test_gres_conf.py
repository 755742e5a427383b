"""gres.conf and slurm.conf, read as slurmd reads them, and whatever else may stand in their place."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobtrail.adapters import gres_conf
from jobtrail.adapters.gres_conf import read_gres_conf
from jobtrail.domain.gpus import Gpu
from jobtrail.domain.gres import DeviceNumber, GresConf, GresLine, NodeGres, positions
from jobtrail.domain.hostlist import expand_nodes

Read = Callable[..., GresConf]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a gres.conf, a slurm.conf and further files of /etc/slurm, as node n1."""

    def reader(gres: str | bytes | None = None, slurm: str | None = None, node: str = "n1", **more: str) -> GresConf:
        directory = tmp_path / "etc/slurm"
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in {"gres.conf": gres, "slurm.conf": slurm, **more}.items():
            if text is not None:
                (directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_gres_conf(node=node, root=tmp_path)

    return reader


def files(conf: GresConf) -> list[tuple[str, ...]]:
    assert conf.problem is None
    return [gpu for line in conf.lines for gpu in line.gpus]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Name=gpu File=/dev/nvidia[0-1,5]", ["0", "1", "5"]),
        ("Name=gpu File=/dev/nvidia[3,0-1]", ["3", "0", "1"]),
        ("Name=gpu File=/dev/nvidia1,/dev/nvidia0", ["1", "0"]),
        ("NAME=GPU file=/dev/nvidia0", ["0"]),
        ("Name = gpu  File = /dev/nvidia0", ["0"]),
        ('Name=gpu File="/dev/nvidia0"', ["0"]),
        ("Name=gpu Files=/dev/nvidia0", ["0"]),
        ("Name=gpu \\\n  File=/dev/nvidia0 \\\n Count=1\n", ["0"]),
        ("Name=gpu File=/dev/nvidia0\\", ["0"]),
        ("# Name=gpu File=/dev/nvidia9\nName=gpu File=/dev/nvidia0 # File=/dev/nvidia8\n\n", ["0"]),
        ("Name=gpu File=/dev/nvidia0\r\nName=gpu File=/dev/nvidia1\r\n", ["0", "1"]),
        ("NodeName=n[1-2] Name=gpu File=/dev/nvidia0\nNodeName=n3 Name=gpu File=/dev/nvidia1", ["0"]),
        ("NodeName=n2,n1 Name=gpu File=/dev/nvidia0\nName=gpu File=/dev/nvidia1", ["0", "1"]),
        ("Name=mps Count=100 File=/dev/nvidia0\nName=shard Count=8\nName=gpu File=/dev/nvidia0", ["0"]),
        ("Name=gpu Cores=0,1 Links=-1,0 Flags=nvidia_gpu_env File=/dev/nvidia0", ["0"]),
    ],
)
def test_files_in_slurms_order(read: Read, text: str, names: list[str]) -> None:
    conf = read(text)
    assert files(conf) == [(f"/dev/nvidia{name}",) for name in names]
    assert conf.notes == ()


def test_a_record(read: Read) -> None:
    assert read("\nName=gpu Type=a100 File=/dev/nvidia[0-1] Count=2", "NodeName=n1 Gres=gpu:a100:2") == GresConf(
        source="/etc/slurm/gres.conf",
        lines=(
            GresLine(
                where="/etc/slurm/gres.conf:2",
                gpus=(("/dev/nvidia0",), ("/dev/nvidia1",)),
                type_name="a100",
                count=2,
            ),
        ),
        node_gres=(NodeGres("a100", 2),),
    )
    assert read("Name=gpu Count=4").lines == (GresLine(where="/etc/slurm/gres.conf:1", count=4),)
    assert [line.count for line in read("Name=gpu Count=1K\nName=gpu Count=x").lines] == [1024, 0]


def test_several_files_are_one_gpu(read: Read) -> None:
    caps = "/dev/nvidia-caps/nvidia-cap"
    conf = read(f"Name=gpu MultipleFiles=/dev/nvidia0,{caps}[21-22]\nName=gpu MultipleFiles=/dev/nvidia0,{caps}30")
    assert files(conf) == [("/dev/nvidia0", f"{caps}21", f"{caps}22"), ("/dev/nvidia0", f"{caps}30")]


@pytest.mark.parametrize(
    ("text", "vendor"),
    [
        ("AutoDetect=nvml", "nvml"),
        ("autodetect=RSMI", "rsmi"),
        ("AutoDetect=nvidia", "nvidia"),
        ("AutoDetect=off", None),
        ("AutoDetect=nvml\nNodeName=n1 AutoDetect=off Name=gpu File=/dev/nvidia0", None),
        ("AutoDetect=nvml\nNodeName=n2 AutoDetect=off", "nvml"),
        ("NodeName=n[1-7] AutoDetect=nvml\nNodeName=n[8-9] AutoDetect=rsmi\nAutoDetect=off", "nvml"),
        ("Name=gpu AutoDetect=nvml File=/dev/nvidia0", None),
        ("AutoDetect=magic", None),
    ],
)
def test_what_is_detected_on_this_node(read: Read, text: str, vendor: str | None) -> None:
    """What is said of certain nodes stands above what is said of all (gres.conf(5), AutoDetect)."""
    assert read(text).autodetect == vendor


def test_included_files_stand_in_their_place(read: Read) -> None:
    conf = read(
        "Name=gpu File=/dev/nvidia0\nInclude more.conf\ninclude /etc/slurm/last.conf\nName=gpu File=/dev/nvidia3",
        **{"more.conf": "Name=gpu File=/dev/nvidia1", "last.conf": "Name=gpu File=/dev/nvidia2"},
    )
    assert [gpu[0][-1] for gpu in files(conf)] == ["0", "1", "2", "3"]
    assert [line.where for line in conf.lines][1:3] == ["/etc/slurm/more.conf:1", "/etc/slurm/last.conf:1"]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Name=gpu Colour=red File=/dev/nvidia0", "/etc/slurm/gres.conf:1: unknown colour"),
        ("Name=gpu File=/dev/nvidia0 and more", "/etc/slurm/gres.conf:1: 'and more' is not key=value"),
        ("this Name=gpu File=/dev/nvidia0", "/etc/slurm/gres.conf:1: 'this' is not key=value"),
        ("Include %c.conf", "/etc/slurm/gres.conf:1: a name with % in it is not followed"),
        ("NodeName=n[ Name=gpu File=/dev/nvidia0", "/etc/slurm/gres.conf:1: NodeName: must be a host list"),
        ("Name=gpu AutoDetect=nvml", "/etc/slurm/gres.conf:1: AutoDetect beside Name counts only with NodeName"),
        ("AutoDetect=magic", "/etc/slurm/gres.conf:1: AutoDetect=magic is not one of nvml"),
    ],
)
def test_what_is_not_understood_is_told(read: Read, text: str, note: str) -> None:
    conf = read(text)
    assert conf.problem is None
    assert conf.notes[0].startswith(note)


def test_notes_are_bounded(read: Read) -> None:
    conf = read("\n".join(f"{'x' * 500}{number}" for number in range(200)))
    assert len(conf.notes) == gres_conf.MAX_NOTES
    assert max(map(len, conf.notes)) < 200


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("NodeName=n1 Gres=gpu:2", [(None, 2)]),
        ("NodeName=n1 Gres=gpu", [(None, 1)]),
        ("NodeName=n[0-9] CPUs=4 Gres=gpu:b:1,gpu:a:2", [("b", 1), ("a", 2)]),
        ("NodeName=n1 Gres=gpu:a100:4(S:0-1),gpu:v100:2(S:1),mps:200", [("a100", 4), ("v100", 2)]),
        ("NodeName=n1 Gres=gpu:a:1,gpu:b:1,gpu:a:1", [("a", 2), ("b", 1)]),
        ("NodeName=n1 Gres=gpu:a100", [("a100", 1)]),
        ("NodeName=n1 Gres=gpu:no_consume:2", [(None, 2)]),
        ("NodeName=n1 Gres=gpu:9999999999G", [(None, 1024)]),
        ("NodeName=n1 Gres=craynetwork:4", []),
        ("NodeName=n1 CPUs=4", []),
        ("NodeName=DEFAULT Gres=gpu:3\nNodeName=n1 CPUs=4", [(None, 3)]),
        ("NodeName=DEFAULT Gres=gpu:3\nNodeName=n1 Gres=gpu:1", [(None, 1)]),
        ("NodeName=n2 Gres=gpu:3", None),
        ("ClusterName=x", None),
        ("NodeName=n[ Gres=gpu:1", None),
        ("NodeName=n1 Gres=,,(,gpu:2)", []),
    ],
)
def test_what_slurm_conf_says_of_the_node(read: Read, line: str, expected: list[tuple[str | None, int]] | None) -> None:
    found = read("", line).node_gres
    assert found == (None if expected is None else tuple(NodeGres(*part) for part in expected))


def test_where_the_files_are_looked_for(tmp_path: Path) -> None:
    def put(path: str, number: int) -> None:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(f"Name=gpu File=/dev/nvidia{number}")

    none = read_gres_conf(node="n1", root=tmp_path)
    assert (none.problem or "").startswith("neither gres.conf nor slurm.conf is in")
    assert none.missing
    put("run/slurm/conf/gres.conf", 1)
    assert read_gres_conf(node="n1", root=tmp_path).source == "/run/slurm/conf/gres.conf"
    put("etc/slurm/gres.conf", 2)
    assert read_gres_conf(node="n1", root=tmp_path).source == "/etc/slurm/gres.conf"
    put("opt/site/gres.conf", 3)
    conf = read_gres_conf(node="n1", slurm_conf="/opt/site/other.conf", root=tmp_path)
    assert conf.source == "/opt/site/gres.conf"
    (tmp_path / "opt/site/other.conf").write_text("NodeName=n1 Gres=gpu:1")
    assert read_gres_conf(node="n1", slurm_conf="/opt/site/other.conf", root=tmp_path).node_gres == (NodeGres(None, 1),)
    put("var/cache/conf-cache/gres.conf", 4)
    cache = read_gres_conf(node="n1", directories=["/var/cache/conf-cache"], root=tmp_path)
    assert files(cache) == [("/dev/nvidia4",)]
    assert read_gres_conf(node="n1", slurm_conf="relative", root=tmp_path).source == "/etc/slurm/gres.conf"


def test_no_gres_conf_is_a_configuration_too(read: Read) -> None:
    """gres.conf may be left out where slurm.conf says everything (gres.conf(5))."""
    conf = read(None, "NodeName=n1 Gres=gpu:2")
    assert (conf.problem, conf.lines, conf.node_gres) == (None, (), (NodeGres(None, 2),))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Name=gpu File=/dev/nvidia[0-", "/etc/slurm/gres.conf:1: File: must be a host list"),
        ("Name=gpu File=/dev/nvidia[0-99999]", "/etc/slurm/gres.conf:1: names more than 1024 files"),
        ("Name=gpu File=/dev/nvidia[0-999999999]", "/etc/slurm/gres.conf:1: File: names more than 100000 nodes"),
        ("Include gone.conf", "/etc/slurm/gone.conf: no such file"),
        ("Include gres.conf", "/etc/slurm/gres.conf: more than 64 files, or files that include each other 8 deep"),
        ("Include /dev/null\0x", "/dev/null\0x: "),
        ("\n" * 100_001 + "x=1\n" * 100_001, "/etc/slurm/gres.conf: more than 100000 lines"),
        (
            "".join(f"NodeName=m{line}n[1-99999] Name=gpu\n" for line in range(50_000)),
            "/etc/slurm/gres.conf:11: more than 1000000 names in all",
        ),
        (b"x" * (gres_conf.MAX_FILE_BYTES + 1), "/etc/slurm/gres.conf: is larger than 4194304 bytes"),
    ],
)
def test_what_would_move_gpus_to_wrong_places_is_a_problem(read: Read, text: str | bytes, problem: str) -> None:
    conf = read(text)
    assert (conf.problem or "").startswith(problem)
    assert conf.lines == ()
    assert not conf.missing


@pytest.mark.parametrize(
    "text", ["x" * 4_000_000, " x" * 2_000_000, 'x="' * 1_000_000, "(" * 4_000_000, "=" * 4_000_000]
)
def test_long_lines_are_read_in_one_go(read: Read, text: str) -> None:
    """Were the time to grow with the square of the length, this would take hours."""
    assert files(read(text, f"NodeName=n1 Gres={text}")) == []


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_does_not_hold_the_reader(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "etc/slurm/gres.conf"
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    assert read_gres_conf(node="n1", root=tmp_path).problem == (
        "/etc/slurm/gres.conf: Is a directory" if kind == "directory" else "/etc/slurm/gres.conf: is no regular file"
    )


def test_the_numbers_of_device_files(read: Read, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").symlink_to("/dev/null")
    (tmp_path / "dev/nvidia1").touch()
    assert read("Name=gpu File=/dev/nvidia[0-2]").devices == {"/dev/nvidia0": DeviceNumber(1, 3)}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(
    gres=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                ["Name=gpu", "File=/dev/nvidia[0-3]", "NodeName=n1", "#", "\\\n", "\n", "Include gres.conf", '"', " ",
                 "AutoDetect=nvml", "Count=2G", "Type=", "[", ",", "=", "\0", "MultipleFiles=a,b"]
            ),
            max_size=20,
        ).map(lambda parts: "".join(parts).encode()),
    )
)  # fmt: skip
def test_nothing_raises(gres: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / "etc/slurm").mkdir(parents=True)
    (root / "etc/slurm/gres.conf").write_bytes(gres)
    (root / "etc/slurm/slurm.conf").write_bytes(gres)
    conf = read_gres_conf(node="n1", root=root)
    assert positions(conf, []).problem is not None or conf.problem is None
    shutil.rmtree(root)


SLURM_CONF = """\
ClusterName=x
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/none
CredType=cred/none
GresTypes=gpu
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdSpoolDir={directory}/spool
NodeName=n1 NodeHostName=localhost CPUs=2 Gres={gres} Port=17003
PartitionName=p Nodes=n1
"""


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("gres", "lines"),
    [
        ("gpu:4", ["Name=gpu File={d}/gpu[3,1]", "Name=gpu File={d}/gpu0", "Name=gpu File={d}/gpu2"]),
        ("gpu:a:3,gpu:b:1", ["Type=a File={d}/gpu[3,1]", "Type=b File={d}/gpu0", "Type=a File={d}/gpu2"]),
        ("gpu:b:1,gpu:a:2", ["Type=a File={d}/gpu[3,1]", "Type=b File={d}/gpu0", "Type=a File={d}/gpu2"]),
        ("gpu:4", ["Type=a File={d}/gpu[3,1]", "Type=b File={d}/gpu0", "Type=a File={d}/gpu2"]),
        ("gpu:2", ["Name=gpu \\\n File={d}/gpu10,{d}/gpu2 # all", "NodeName=n2 Name=gpu File={d}/gpu0"]),
        ("gpu:3", ["NodeName=n[1-2] NAME=gpu file={d}/gpu[2,0]", 'NodeName=n1 Name=gpu File="{d}/gpu1"']),
        ("gpu:2", ["Name=gpu MultipleFiles={d}/gpu[10,2]", "Name=gpu MultipleFiles={d}/gpu0,{d}/gpu3"]),
        ("gpu:3", ["AutoDetect=off", "Name=gpu File={d}/gpu10", "Name=gpu File={d}/gpu[0-1]"]),
    ],
)
def test_the_order_is_that_of_the_real_slurmd(tmp_path: Path, gres: str, lines: list[str]) -> None:
    """`slurmd -G` prints the list of devices it would count, and ends (slurmd(8))."""
    for number in (0, 1, 2, 3, 10):
        os.mknod(tmp_path / f"gpu{number}", 0o20600, os.makedev(240, number))
    (tmp_path / "slurm.conf").write_text(SLURM_CONF.format(directory=tmp_path, gres=gres))
    text = "\n".join(line if "=gpu" in line or "Auto" in line else f"Name=gpu {line}" for line in lines)
    (tmp_path / "gres.conf").write_text(text.format(d=tmp_path) + "\n")
    places = positions(read_gres_conf(node="n1", slurm_conf=str(tmp_path / "slurm.conf")), []).places
    told = [name for place in places for name in place.files]
    assert told == _printed_files(tmp_path)
    assert told


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:4", [("a100", 10), ("a100", 3), ("a100", 2), ("a100", 0)]),
        ("gpu:2", [("a100", 10), ("a100", 3), ("a100", 2), ("a100", 0)]),
        ("gpu:a100:2,gpu:h100:1", [("h100", 0), ("a100", 10), ("a100", 3), ("a100", 2)]),
        ("gpu:h100:1,gpu:a100:3", [("nvidia_a100", 3), ("nvidia_h100", 0), ("nvidia_a100", 10), ("nvidia_a100", 2)]),
    ],
)
def test_the_order_of_detection_is_that_of_the_real_slurmd(
    tmp_path: Path, gres: str, gpus: list[tuple[str, int]]
) -> None:
    """slurmd takes fake_gpus.conf, beside slurm.conf, for what it detected: here with the links NVML gives."""
    fake = []
    for index, (name, minor) in enumerate(gpus):
        os.mknod(tmp_path / f"nvidia{minor}", 0o20600, os.makedev(240, minor))
        links = ",".join("-1" if place == index else "0" for place in range(len(gpus)))
        fake.append(f"{name}|2|0-1|{links}|{tmp_path}/nvidia{minor}\n")
    (tmp_path / "fake_gpus.conf").write_text("".join(fake))
    (tmp_path / "slurm.conf").write_text(SLURM_CONF.format(directory=tmp_path, gres=gres))
    (tmp_path / "gres.conf").write_text("")
    expected = [name.rpartition("/nvidia")[2] for name in _printed_files(tmp_path)]
    conf = msgspec.structs.replace(read_gres_conf(node="n1", slurm_conf=f"{tmp_path}/slurm.conf"), autodetect="nvml")
    seen = [
        Gpu(gpu_id=str(minor), vendor="nvidia", minor=minor, index=index, name=name.upper().replace("_", " "))
        for index, (name, minor) in enumerate(gpus)
    ]
    assert [place.gpu_id for place in positions(conf, seen).places] == expected
    assert expected


def _printed_files(directory: Path) -> list[str]:
    """The files of the devices in slurmd's list, in its order."""
    printed = subprocess.run(
        ["slurmd", "-G", "-N", "n1", "-f", directory / "slurm.conf"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    lines = [line for line in (printed.stdout + printed.stderr).splitlines() if "Gres Name=gpu" in line]
    texts = [line.split(" File=")[1].split()[0] for line in lines]
    return [name for text in texts for name in expand_nodes("File", text)]
