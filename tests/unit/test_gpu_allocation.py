"""From SLURM_JOB_GPUS to GPUs: through Slurm's own list, and never to another job's GPU."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobtrail.domain.gpu_allocation import GpuAllocation, HookValues, Via, allocate, hook_values
from jobtrail.domain.gpus import Gpu
from jobtrail.domain.gres import DeviceNumber, GresConf, GresLine, NodeGres, positions

UUIDS = tuple(f"GPU-8932f93{number:x}-d72c-4106-c12f-20bd9faed9f6" for number in range(16))


def board(minor: int, *, index: int | None = None, gpu_id: str = "", name: str = "NVIDIA A100-SXM4-40GB") -> Gpu:
    return Gpu(gpu_id=gpu_id or UUIDS[minor % 16], vendor="nvidia", minor=minor, index=index, name=name)


def part(gpu_id: str, of: Gpu, index: int | None = None, **more: Any) -> Gpu:
    return Gpu(gpu_id=gpu_id, vendor="nvidia", parent_gpu_id=of.gpu_id, index=index, **more)


def lines(*files: str, **types: str) -> GresConf:
    return GresConf(
        source="gres.conf",
        lines=tuple(
            GresLine(where=f"gres.conf:{number}", gpus=((file,),), type_name=types.get(file.rpartition("/")[2]))
            for number, file in enumerate(files, 1)
        ),
    )


def detects(vendor: str, *files: str, node: tuple[NodeGres, ...] | None = None, kind: str | None = None) -> GresConf:
    return GresConf(
        autodetect=vendor,
        node_gres=node,
        lines=tuple(GresLine(where=f"gres.conf:{n}", gpus=((file,),), type_name=kind) for n, file in enumerate(files)),
    )


def given_to(text: str | None, conf: GresConf | None, *gpus: Gpu, cuda: str | None = None) -> GpuAllocation:
    return allocate(HookValues(slurm_job_gpus=text, cuda_visible_devices=cuda), conf, gpus)


def reason(allocation: GpuAllocation) -> str:
    assert allocation.resolved == ()
    assert not allocation.complete
    return allocation.unresolved[0].reason


def test_a_place_in_gres_conf_is_no_minor_number() -> None:
    """With File=/dev/fakegpu[5,7] Slurm 24.11 gave two jobs on one node the numbers 0 and 1."""
    conf = lines("/dev/fakegpu5", "/dev/fakegpu7")
    gpus = [board(number) for number in (0, 1, 5, 7)]
    first, second = given_to("0", conf, *gpus), given_to("1", conf, *gpus)
    assert (first.gpu_ids, second.gpu_ids) == ((UUIDS[5],), (UUIDS[7],))
    assert first.resolved[0].via is Via.GRES_CONF_FILE
    assert first.resolved[0].evidence == (f"place 0 is /dev/fakegpu5 (gres.conf:1), minor number 5, is {UUIDS[5]}")
    assert given_to("0,1", conf, *gpus).complete


def test_the_environment_of_a_hook() -> None:
    values = {"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "1", "X": "y"}
    assert hook_values(values) == HookValues(
        slurm_job_gpus="1", cuda_visible_devices="1", rocr_visible_devices="1", gpu_device_ordinal=None
    )


def test_two_jobs_on_one_node_as_slurm_told_them() -> None:
    """The second of two jobs with a GPU each, on Slurm 22.05.8."""
    captured = (Path(__file__).parents[1] / "fixtures/gpus/22.05-second-of-two-jobs.env").read_text()
    values = hook_values(dict(line.split("=", 1) for line in captured.splitlines()))
    found = allocate(values, lines("/dev/fakegpu0", "/dev/fakegpu1"), [board(0), board(1)])
    assert (found.gpu_ids, found.evidence) == ((UUIDS[1],), ())


@pytest.mark.parametrize("text", [None, "", "  ", "NoDevFiles"])
def test_a_job_without_gpus_holds_none(text: str | None) -> None:
    found = given_to(text, lines("/dev/nvidia0"), board(0))
    assert (found.resolved, found.unresolved, found.complete) == ((), (), True)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("2", "Slurm's list has 2 GPUs, counted from 0"),
        ("-1", "is negative; a place is counted from 0"),
        ("0-3", "is a range; Slurm writes every place"),
        ("zero", "is neither a place"),
        ("१", "is neither a place"),
        ("9" * 5000, "is neither a place"),
        ("GPU-", "names no GPU known on this node"),
        ("GPU-89", "names no GPU known on this node"),
        ("GPU-8932f9", "names several GPUs of this node"),
        ("GPU-ffffffff", "names no GPU known on this node"),
        ("MIG-GPU-8932f930-d72c-4106-c12f-20bd9faed9f6/1/0", "names no GPU known on this node"),
    ],
)
def test_what_names_no_gpu_is_told_with_the_reason(asked: str, why: str) -> None:
    found = given_to(asked, lines("/dev/nvidia0", "/dev/nvidia1"), board(0), board(1))
    assert reason(found).startswith(why)
    assert found.unresolved[0].asked == asked[:200]


def test_a_gpu_given_twice_counts_once() -> None:
    found = given_to("0,0,", lines("/dev/nvidia0"), board(0))
    assert found.gpu_ids == (UUIDS[0],)
    assert [one.reason[:36] for one in found.unresolved] == [
        "names the GPU that 0 named before",
        "is neither a place, such as 0, nor a",
    ]


def test_64_gpus_and_far_too_many() -> None:
    files = [f"/dev/nvidia{number}" for number in range(64)]
    gpus = [board(number, gpu_id=f"GPU-{number}") for number in range(64)]
    everything = ",".join(map(str, range(64)))
    assert given_to(everything, lines(*reversed(files)), *gpus).gpu_ids == tuple(f"GPU-{n}" for n in range(63, -1, -1))
    found = given_to(",".join(map(str, range(2000))), lines(*files), *gpus)
    assert len(found.resolved) == 64
    assert len(found.unresolved) == 1024 - 64
    assert found.evidence == ("only the first 1024 GPUs were looked at",)


@pytest.mark.parametrize(
    ("asked", "via"),
    [(UUIDS[1], Via.UUID), (UUIDS[1].upper(), Via.UUID), ("GPU-8932f931", Via.UUID), ("MIG-1", Via.UUID)],
)
def test_the_ids_slurm_gives(asked: str, via: Via) -> None:
    """CUDA takes the beginning of a UUID that only one GPU has."""
    if asked.startswith("MIG"):
        asked, via = "MIG-11111111-aaaa", Via.MIG
    gpus = (board(0), board(1), part("MIG-11111111-aaaa", board(0)))
    expected = "MIG-11111111-aaaa" if via is Via.MIG else UUIDS[1]
    for found in (
        given_to(None, None, *gpus, cuda=asked),
        given_to("0", lines("/dev/nvidia0"), *gpus, cuda=asked),
        given_to(asked, None, *gpus),
    ):
        assert [(one.gpu_id, one.via) for one in found.resolved] == [(expected, via)]


def test_an_instance_under_its_old_name() -> None:
    first, second = board(0), board(1)
    gpus = (
        first,
        second,
        part("MIG-a", first, gpu_instance=1, compute_instance=0),
        part("MIG-b", first, gpu_instance=2, compute_instance=0),
        part("MIG-c", second, gpu_instance=2, compute_instance=0),
    )
    found = given_to("5", lines("/dev/nvidia0"), *gpus, cuda=f"MIG-{UUIDS[0]}/2/0")
    assert [(one.gpu_id, one.via) for one in found.resolved] == [("MIG-b", Via.MIG)]


def test_the_id_slurm_gave_stands_above_the_place_and_both_are_told() -> None:
    found = given_to("0", lines("/dev/nvidia0"), board(0), board(1), cuda=UUIDS[1])
    assert found.gpu_ids == (UUIDS[1],)
    assert found.evidence == (f"by its place 0 is {UUIDS[0]}, by the id Slurm gave it is {UUIDS[1]}",)


def test_an_id_no_gpu_has_leaves_the_place() -> None:
    found = given_to("0", lines("/dev/nvidia0"), board(0), cuda="GPU-ffffffff")
    assert found.gpu_ids == (UUIDS[0],)
    assert found.evidence == ("GPU-ffffffff: names no GPU known on this node",)


def test_variables_that_disagree() -> None:
    conf = lines("/dev/nvidia0", "/dev/nvidia1")
    found = given_to("0", conf, board(0), board(1), cuda="1")
    assert found.gpu_ids == (UUIDS[0],)
    assert found.evidence == ("SLURM_JOB_GPUS says 0 where the vendor's variable says 1",)
    found = given_to("0", conf, board(0), board(1), cuda="0,1")
    assert found.gpu_ids == (UUIDS[0],)
    assert found.evidence == ("SLURM_JOB_GPUS names 1 GPU and the vendor's variable 2: only the first counts",)


def test_other_vendors_variables_do() -> None:
    values = HookValues(rocr_visible_devices="1", gpu_device_ordinal="1")
    gpus = [Gpu(gpu_id=f"0000:0{number}:00.0", vendor="amd", minor=128 + number) for number in range(2)]
    conf = lines("/dev/dri/renderD129", "/dev/dri/renderD128")
    assert allocate(values, conf, gpus).gpu_ids == ("0000:00:00.0",)


@pytest.mark.parametrize(
    ("file", "number", "minor"),
    [
        ("/dev/nvidia3", None, 3),
        ("/dev/nvidia3", DeviceNumber(195, 3), 3),
        ("/dev/gpu-of-tom", DeviceNumber(195, 2), 2),
        ("/dev/nvidia3", DeviceNumber(240, 1), 3),
        ("/dev/fakegpu3", None, 3),
    ],
)
def test_the_number_of_a_device_file(file: str, number: DeviceNumber | None, minor: int) -> None:
    """The kernel's number counts where the major is a GPU driver's; the fakes of tests have other majors."""
    conf = lines(file)
    conf = GresConf(lines=conf.lines, devices={} if number is None else {file: number})
    assert given_to("0", conf, *(board(number) for number in range(4))).gpu_ids == (UUIDS[minor],)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("/dev/nvidia-caps/nvidia-cap3", "does not tell its GPU's number"),
        ("/dev/dri/card1", "does not tell its GPU's number"),
        ("/dev/gpu", "does not tell its GPU's number"),
        ("/dev/dri/renderD128", "no GPU with minor number 128 is known"),
        ("/dev/nvidia4", "no GPU with minor number 4 is known"),
        ("/dev/fakegpu0", "more than one GPU with minor number 0 is known"),
    ],
)
def test_files_that_lead_to_no_gpu(file: str, why: str) -> None:
    other = Gpu(gpu_id="x", vendor="other", minor=0)
    assert why in reason(given_to("0", lines(file), board(0), other, Gpu(gpu_id="y", vendor="nvidia")))


def test_the_kernels_number_of_an_amd_gpu() -> None:
    conf = GresConf(lines=lines("/dev/first").lines, devices={"/dev/first": DeviceNumber(226, 129)})
    assert given_to("0", conf, Gpu(gpu_id="0000:05:00.0", vendor="amd", minor=129)).gpu_ids == ("0000:05:00.0",)


def test_an_instance_by_the_files_of_a_record() -> None:
    first, second = board(0), board(1)
    gpus = (first, second, part("MIG-a", first), part("MIG-b", first), part("MIG-c", second))
    caps = "/dev/nvidia-caps/nvidia-cap"
    conf = GresConf(
        lines=(
            GresLine(where="gres.conf:1", gpus=(("/dev/nvidia0", f"{caps}30", f"{caps}31"),)),
            GresLine(where="gres.conf:2", gpus=(("/dev/nvidia1", f"{caps}166", f"{caps}167"),)),
        )
    )
    named = (
        first,
        second,
        part("MIG-a", first, capability_minors=(21, 22)),
        part("MIG-b", first, capability_minors=(30, 31)),
        part("MIG-c", second),
    )
    found = given_to("0,1", conf, *named)
    assert [(one.gpu_id, one.via) for one in found.resolved] == [("MIG-b", Via.MIG), ("MIG-c", Via.MIG)]
    assert "which instance of" in reason(given_to("0", conf, *gpus))


@pytest.mark.parametrize("conf", [None, GresConf(problem="no such file", missing=True)])
def test_without_gres_conf_only_what_every_order_says(conf: GresConf | None) -> None:
    found = given_to("1", conf, board(0, index=0), board(1, index=1))
    assert [(one.gpu_id, one.via) for one in found.resolved] == [(UUIDS[1], Via.INDEX_GUESS)]
    assert "the node has 2 GPUs" in reason(given_to("2", conf, board(0, index=0), board(1, index=1)))
    amd = [Gpu(gpu_id=f"bus{n}", vendor="amd", minor=128 + n, index=n, pci_bus_id=f"bus{n}") for n in range(2)]
    assert given_to("1", conf, *amd).gpu_ids == ("bus1",)
    assert given_to("1", detects("nvml"), board(0, index=0), board(1, index=1)).gpu_ids == (UUIDS[1],)


@pytest.mark.parametrize(
    "gpus",
    [
        (),
        (board(0), board(1)),
        (board(1, index=0), board(0, index=1)),
        (board(5, index=0), board(7, index=1)),
        (board(0, index=0), board(1, index=1), part("MIG-a", board(1), 0)),
        (board(0, index=0), Gpu(gpu_id="x", vendor="other", minor=1, index=1)),
        (
            Gpu(gpu_id="x", vendor="nvidia", minor=0, index=0, pci_bus_id="b"),
            Gpu(gpu_id="y", vendor="nvidia", minor=1, index=1, pci_bus_id="a"),
        ),
    ],
)
def test_without_gres_conf_nothing_is_guessed_where_orders_differ(gpus: tuple[Gpu, ...]) -> None:
    assert reason(given_to("0", None, *gpus)) == "gres.conf was not read"


@pytest.mark.parametrize(
    ("conf", "why"),
    [
        (GresConf(problem="/etc/slurm/gres.conf: Stale file handle"), "Stale file handle"),
        (lines("/dev/nvidia0", "/dev/nvidia1", nvidia0="a", nvidia1="b"), "whose order only slurm.conf tells"),
        (detects("rsmi", node=(NodeGres(None, 2),)), "none of amd is known here"),
        (
            detects("nvml", node=(NodeGres("a100", 1), NodeGres("gold", 1))),
            "no detected GPU has a name with gold in it",
        ),
    ],
)
def test_files_that_are_there_and_do_not_tell_may_mean_another_order(conf: GresConf, why: str) -> None:
    """With `Gres=gpu:b:1,gpu:a:1` place 0 is minor 1, however plain the order of the GPUs themselves is."""
    assert why in reason(given_to("0", conf, board(0, index=0), board(1, index=1)))


def test_slurm_conf_orders_the_types() -> None:
    """`slurmd -G` of 22.05.8 with these lines and Gres=gpu:b:1,gpu:a:2 prints files 0, 3 and 1."""
    conf = lines("/dev/gpu3", "/dev/gpu1", "/dev/gpu0", "/dev/gpu2", gpu3="a", gpu1="a", gpu0="B", gpu2="a")
    gpus = [board(number) for number in range(4)]

    def files(*parts: NodeGres) -> list[str]:
        told = GresConf(lines=conf.lines, node_gres=parts)
        return [place.files[0] if place.files else "-" for place in positions(told, gpus).places]

    assert files(NodeGres("b", 1), NodeGres("a", 2)) == ["/dev/gpu0", "/dev/gpu3", "/dev/gpu1"]
    assert files(NodeGres("a", 3), NodeGres("b", 1)) == ["/dev/gpu3", "/dev/gpu1", "/dev/gpu2", "/dev/gpu0"]
    assert files(NodeGres(None, 4)) == ["/dev/gpu3", "/dev/gpu1", "/dev/gpu0", "/dev/gpu2"]
    assert files(NodeGres("a", 4)) == ["/dev/gpu3", "/dev/gpu1", "/dev/gpu2", "-"]
    assert files() == []
    assert "several types, whose order only slurm.conf tells" in reason(given_to("0", conf, *gpus))
    told = GresConf(lines=conf.lines, node_gres=(NodeGres("c", 1),))
    assert "names no file" in reason(given_to("0", told, *gpus))


def test_detected_gpus_stand_in_the_order_of_the_bus() -> None:
    """NVML's index follows the PCI bus, the minor number follows who came first: on some boards they differ."""
    gpus = (board(4, index=0), board(0, index=1), board(10, index=2), board(2, index=3))
    expected = tuple(gpu.gpu_id for gpu in gpus)
    found = given_to("0,1,2,3", detects("nvml", node=(NodeGres(None, 4),)), *gpus)
    assert found.gpu_ids == expected
    assert {one.via for one in found.resolved} == {Via.AUTODETECT_ORDER}
    assert found.evidence == ()
    found = given_to("0,1,2,3", detects("nvml", *(f"/dev/nvidia{n}" for n in (0, 2, 4, 10))), *gpus)
    assert found.gpu_ids == expected
    assert found.evidence[0].startswith("a slurmd without the library of nvml counts GPUs in the order of")
    # AutoDetect=nvidia gives no links, so the numbers of the files count, as numbers.
    found = given_to("0,1,2,3", detects("nvidia", node=(NodeGres(None, 4),)), *gpus)
    assert found.gpu_ids == (UUIDS[0], UUIDS[2], UUIDS[4], UUIDS[10])


def test_of_more_detected_gpus_than_slurm_conf_counts_the_first_files_are_taken() -> None:
    """`slurmd -G` of 22.05.8 with four devices and Gres=gpu:2: those of the lowest files, in the order of the links."""
    gpus = (board(3, index=0), board(2, index=1), board(0, index=2), board(1, index=3))
    places = positions(detects("nvml", node=(NodeGres(None, 2),)), gpus).places
    assert [place.gpu_id for place in places] == [UUIDS[0], UUIDS[1]]


@pytest.mark.parametrize(
    "conf",
    [
        detects("nvml", node=(NodeGres(None, 4),)),
        detects("nvml", *(f"/dev/nvidia{number}" for number in range(4))),
        detects("nvml", *(f"/dev/nvidia{number}" for number in range(4)), node=(NodeGres(None, 4),)),
    ],
)
@pytest.mark.parametrize("gone", range(4))
def test_a_gpu_that_fell_off_the_bus_moves_no_other_to_its_place(conf: GresConf, gone: int) -> None:
    """slurmd's list is of its start; NVML numbers the GPUs that are left anew, so place 2 would be what was place 3."""
    left = [minor for minor in range(4) if minor != gone]
    gpus = tuple(board(minor, index=index) for index, minor in enumerate(left))
    why = "Slurm counts 4 GPUs, of which nvml now shows 3"
    found = given_to("0,1,2,3", conf, *gpus)
    assert [one.reason.partition(":")[0] for one in found.unresolved] == [why] * 4
    by_id = given_to("0", conf, *gpus, cuda=UUIDS[left[0]])
    assert by_id.gpu_ids == (UUIDS[left[0]],)


def test_instances_stand_by_their_number_within_the_board() -> None:
    first, second, whole = board(0, index=0), board(1, index=1), board(2, index=2)
    gpus = (
        first, second, whole,
        part("MIG-00", first, 0), part("MIG-01", first, 1), part("MIG-10", second, 0), part("MIG-11", second, 1),
        part("MIG-lost", board(7), 3),
    )  # fmt: skip
    places = positions(detects("nvml", node=(NodeGres(None, 6),)), gpus).places
    assert [place.gpu_id for place in places] == ["MIG-00", "MIG-10", "MIG-01", "MIG-11", UUIDS[2], "MIG-lost"]


def test_types_of_detected_gpus_are_parts_of_their_names() -> None:
    gpus = (board(0, index=0, name="NVIDIA H100 80GB"), board(1, index=1), board(2, index=2))
    node = (NodeGres("a100", 2), NodeGres("h100_80gb", 1))
    assert [place.gpu_id for place in positions(detects("nvml", node=node), gpus).places] == list(UUIDS[:3])
    assert [place.gpu_id for place in positions(detects("nvml", node=node[:1]), gpus).places] == list(UUIDS[1:3])
    # One type that no name has: Slurm knows AMD's by another name, and one type orders nothing.
    assert len(positions(detects("nvml", node=(NodeGres("gold", 3),)), gpus).places) == 3
    problem = positions(detects("nvml", node=(NodeGres("a100", 1), NodeGres("gold", 2))), gpus).problem
    assert problem == "no detected GPU has a name with gold in it"


def test_amd_gpus_detected() -> None:
    gpus = [Gpu(gpu_id=f"bus{n}", vendor="amd", minor=131 - n, index=n) for n in range(2)]
    assert given_to("0,1", detects("rsmi", node=(NodeGres(None, 2),)), *gpus).gpu_ids == ("bus0", "bus1")


@pytest.mark.parametrize(
    ("conf", "gpus", "why"),
    [
        (detects("nvml", node=()), (), "none of nvidia is known here"),
        (detects("oneapi", node=()), (board(5),), "none of oneapi is known here"),
        (detects("nvml"), (board(5),), "which of the detected GPUs Slurm uses is not known"),
        (detects("nvml", node=(NodeGres(None, 2),)), (board(5), board(6)), "the order in which nvml shows"),
    ],
)
def test_detection_that_cannot_be_repeated(conf: GresConf, gpus: tuple[Gpu, ...], why: str) -> None:
    assert why in reason(given_to("0", conf, *gpus))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[GresConf, list[Gpu], list[str]]:
    """A node: minor numbers with gaps, files in any order, of one or two types; the ids in Slurm's order."""
    minors = draw(st.lists(st.integers(0, 300), min_size=2, max_size=16, unique=True))
    gpus = [board(minor, gpu_id=f"GPU-{minor:08d}", index=n) for n, minor in enumerate(draw(st.permutations(minors)))]
    kinds = {minor: draw(st.sampled_from(["a", "b"])) for minor in minors}
    record = [
        GresLine(where=f"gres.conf:{number}", gpus=((f"/dev/nvidia{minor}",),), type_name=kinds[minor])
        for number, minor in enumerate(minors)
    ]
    order = draw(st.permutations(["a", "b"]))
    counts = {kind: sum(value == kind for value in kinds.values()) for kind in order}
    conf = GresConf(lines=tuple(record), node_gres=tuple(NodeGres(kind, counts[kind]) for kind in order))
    return conf, gpus, [f"GPU-{minor:08d}" for kind in order for minor in minors if kinds[minor] == kind]


@given(nodes(), st.data())
def test_two_jobs_of_a_node_never_swap(node: tuple[GresConf, list[Gpu], list[str]], data: st.DataObject) -> None:
    conf, gpus, expected = node
    cut = data.draw(st.integers(1, len(expected) - 1))
    first = given_to(",".join(map(str, range(cut))), conf, *gpus)
    second = given_to(",".join(map(str, range(cut, len(expected)))), conf, *gpus)
    assert list(first.gpu_ids) == expected[:cut]
    assert list(second.gpu_ids) == expected[cut:]
    assert first.complete
    assert second.complete


@given(nodes(), st.data())
def test_no_job_gets_anothers_gpu_whatever_is_not_known(
    node: tuple[GresConf, list[Gpu], list[str]], data: st.DataObject
) -> None:
    """With GPUs or slurm.conf missing there are fewer answers, and none of them is wrong."""
    conf, gpus, expected = node
    seen = data.draw(st.lists(st.sampled_from(gpus), unique_by=lambda gpu: gpu.gpu_id))
    node_gres = data.draw(st.sampled_from([conf.node_gres, None]))
    single = len({line.type_name for line in conf.lines}) == 1
    told = GresConf(lines=conf.lines, node_gres=node_gres)
    for place, gpu_id in enumerate(expected):
        found = given_to(str(place), told, *seen)
        known = gpu_id in {gpu.gpu_id for gpu in seen} and (node_gres is not None or single)
        assert found.gpu_ids == ((gpu_id,) if known else ())


TOKENS = st.one_of(
    st.text(max_size=12),
    st.sampled_from([*UUIDS, "GPU-8932f93", "MIG-GPU-8932f930/1/0", f"MIG-{UUIDS[0]}/1/0", "MIG-a", "-1", "0-3"]),
    st.integers(-3, 70).map(str),
)
TEXTS = st.none() | st.lists(TOKENS, max_size=80).map(",".join) | st.text(max_size=60)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.lists(st.integers(0, 7), max_size=8), st.sampled_from([None, "nvml", "nvidia"]))
def test_nothing_raises(
    job: str | None, cuda: str | None, rocr: str | None, ordinal: str | None, minors: list[int], vendor: str | None
) -> None:
    values = HookValues(
        slurm_job_gpus=job, cuda_visible_devices=cuda, rocr_visible_devices=rocr, gpu_device_ordinal=ordinal
    )
    gpus = [board(minor, index=place) for place, minor in enumerate(minors)]
    conf = GresConf(lines=lines("/dev/nvidia0", "/dev/nvidia4", "/dev/x").lines, autodetect=vendor)
    for told in (None, conf):
        found = allocate(values, told, gpus)
        assert len(set(found.gpu_ids)) == len(found.gpu_ids)
        assert set(found.gpu_ids) <= {gpu.gpu_id for gpu in gpus}
        assert all(len(one.asked) <= 200 for one in (*found.resolved, *found.unresolved))
        assume(job is None or "," not in job)
        if job and job.strip() and job.strip() != "NoDevFiles":
            assert len(found.resolved) + len(found.unresolved) == 1
