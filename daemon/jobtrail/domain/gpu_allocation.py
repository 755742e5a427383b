"""Which GPUs a job holds, of what its hook was given: never a guess where a wrong one would be another job's GPU.

SLURM_JOB_GPUS holds places in Slurm's own list of the node's GPUs (jobtrail.domain.gres), not minor numbers:
place -> device file -> minor number -> GPU. The variables of the vendors hold the same places, or the unique id of a
device where Slurm knows one (`gres_common_prep_set_env` in Slurm's src/plugins/gres/common/gres_common.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from jobtrail.domain.gpus import Gpu
from jobtrail.domain.gres import MAX_POSITIONS, GresConf, Position, Positions, minor_of, positions
from jobtrail.domain.phrases import counted

MAX_TOKEN = 200  # characters of a device's name that are kept; the longest real one is a MIG id of under 60
NO_DEVICE_FILES = "NoDevFiles"  # what old releases of Slurm wrote for a job without GPUs

_PLACE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NEGATIVE = re.compile(r"-[0-9]+", re.ASCII)
_RANGE = re.compile(r"[0-9]+-[0-9]+", re.ASCII)
_OLD_INSTANCE = re.compile(r"MIG-(GPU-[0-9a-f-]{8,64})/([0-9]{1,4})/([0-9]{1,4})", re.ASCII | re.IGNORECASE)
_ABBREVIATED = 8  # fewer characters than `GPU-` and four digits name no GPU


class Via(StrEnum):
    """How a GPU was found."""

    GRES_CONF_FILE = "gres_conf_file"  # through the device file of Slurm's list
    AUTODETECT_ORDER = "autodetect_order"  # through the order in which Slurm detects GPUs
    UUID = "uuid"  # Slurm gave the GPU's own id
    MIG = "mig"  # Slurm gave the id of an instance, or the board has one only
    INDEX_GUESS = "index_guess"  # there is no gres.conf, and every order of the node's GPUs is the same
    PROCESSES = "processes"  # nobody said which GPUs the run has, and its processes were seen on this one


class HookValues(msgspec.Struct, frozen=True, kw_only=True):
    """The variables of a slurmd hook that tell of GPUs; None where not set."""

    slurm_job_gpus: str | None = None
    cuda_visible_devices: str | None = None
    rocr_visible_devices: str | None = None
    gpu_device_ordinal: str | None = None


class ResolvedGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU the job holds. `asked` is what Slurm wrote, `evidence` the way from there to the GPU."""

    gpu_id: str
    via: Via
    asked: str
    evidence: str


class UnresolvedGpu(msgspec.Struct, frozen=True, kw_only=True):
    """Something Slurm wrote for which no GPU is known, and why."""

    asked: str
    reason: str


class GpuAllocation(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs a job holds on one node."""

    resolved: tuple[ResolvedGpu, ...] = ()
    unresolved: tuple[UnresolvedGpu, ...] = ()
    evidence: tuple[str, ...] = ()

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """In Slurm's order."""
        return tuple(gpu.gpu_id for gpu in self.resolved)

    @property
    def complete(self) -> bool:
        """Whether every GPU the job holds is known."""
        return not self.unresolved


def hook_values(environment: Mapping[str, str]) -> HookValues:
    """The values of a hook's environment."""
    return HookValues(
        slurm_job_gpus=environment.get("SLURM_JOB_GPUS"),
        cuda_visible_devices=environment.get("CUDA_VISIBLE_DEVICES"),
        rocr_visible_devices=environment.get("ROCR_VISIBLE_DEVICES"),
        gpu_device_ordinal=environment.get("GPU_DEVICE_ORDINAL"),
    )


def allocate(values: HookValues, conf: GresConf | None, gpus: Sequence[Gpu]) -> GpuAllocation:
    """The GPUs a job holds. Raises nothing: what cannot be told is in `unresolved`.

    `conf` is None where there is nothing to read of Slurm's files, `gpus` are those of the node, boards and instances.
    """
    places, evidence = _split(values.slurm_job_gpus)
    names, more = _names(values, len(places) if places else None)
    evidence += more
    order = positions(conf, gpus) if conf is not None else Positions(problem="gres.conf was not read", plain=True)
    if order.doubt:
        evidence.append(order.doubt)
    finder = _Finder(conf, order, gpus)
    found: dict[str, ResolvedGpu] = {}
    unresolved = []
    for number, asked in enumerate(places or names):
        answer = finder.slot(asked, names[number] if places and names else None, evidence)
        if isinstance(answer, ResolvedGpu) and answer.gpu_id in found:
            answer = UnresolvedGpu(asked=asked, reason=f"names the GPU that {found[answer.gpu_id].asked} named before")
        if isinstance(answer, ResolvedGpu):
            found[answer.gpu_id] = answer
        else:
            unresolved.append(answer)
    return GpuAllocation(resolved=tuple(found.values()), unresolved=tuple(unresolved), evidence=tuple(evidence))


def _split(text: str | None) -> tuple[list[str], list[str]]:
    """The parts of a list between commas, and what is to be said of it."""
    if text is None or not text.strip():
        return [], []
    if text.strip() == NO_DEVICE_FILES:
        return [], [f"{NO_DEVICE_FILES}: Slurm gave the job no device files"]
    parts = [part.strip() for part in text.split(",", MAX_POSITIONS)]
    if len(parts) > MAX_POSITIONS:
        return [_shown(part) for part in parts[:MAX_POSITIONS]], [f"only the first {MAX_POSITIONS} GPUs were looked at"]
    return [_shown(part) for part in parts], []


def _shown(part: str) -> str:
    return part[:MAX_TOKEN]


def _names(values: HookValues, expected: int | None) -> tuple[list[str], list[str]]:
    """What the vendors' variables name: one that holds ids if there is one, and with as many parts as expected."""
    texts = (values.cuda_visible_devices, values.rocr_visible_devices, values.gpu_device_ordinal)
    lists = [parts for parts in (_split(text)[0] for text in texts) if parts]
    lists.sort(key=lambda parts: all(_PLACE.fullmatch(part) for part in parts))  # stable: ids first
    for parts in lists:
        if expected is None or len(parts) == expected:
            return parts, []
    if not lists:
        return [], []
    return [], [
        f"SLURM_JOB_GPUS names {counted(expected or 0, 'GPU')} and the vendor's variable {len(lists[0])}: "
        "only the first counts"
    ]


class _Finder:
    """Finds the GPUs of one node."""

    def __init__(self, conf: GresConf | None, order: Positions, gpus: Sequence[Gpu]) -> None:
        self._conf = conf or GresConf()
        self._order = order
        self._gpus = gpus

    def slot(self, asked: str, name: str | None, evidence: list[str]) -> ResolvedGpu | UnresolvedGpu:
        """The GPU for one part of SLURM_JOB_GPUS, with what the vendor's variable names in the same place."""
        if _is_id(asked):
            return self._by_id(asked)
        place = self._by_place(asked)
        if name is None or name == asked:
            return place
        if not _is_id(name):
            evidence.append(f"SLURM_JOB_GPUS says {asked} where the vendor's variable says {name}")
            return place
        by_id = self._by_id(name)
        if isinstance(by_id, UnresolvedGpu):
            evidence.append(f"{name}: {by_id.reason}")
            return place
        if isinstance(place, ResolvedGpu) and place.gpu_id != by_id.gpu_id:
            evidence.append(f"by its place {asked} is {place.gpu_id}, by the id Slurm gave it is {by_id.gpu_id}")
        return by_id

    def _by_id(self, asked: str) -> ResolvedGpu | UnresolvedGpu:
        via = Via.MIG if asked.casefold().startswith("mig-") else Via.UUID
        old = _OLD_INSTANCE.fullmatch(asked)
        if old is not None:
            found = self._instance(old[1].casefold(), int(old[2]), int(old[3]))
        elif len(asked) < _ABBREVIATED:
            found = []
        else:
            found = [gpu.gpu_id for gpu in self._gpus if gpu.gpu_id.casefold() == asked.casefold()] or [
                gpu.gpu_id for gpu in self._gpus if gpu.gpu_id.casefold().startswith(asked.casefold())
            ]
        if len(set(found)) == 1:
            return ResolvedGpu(gpu_id=found[0], via=via, asked=asked, evidence=f"{asked} names {found[0]}")
        reason = "names several GPUs of this node" if found else "names no GPU known on this node"
        return UnresolvedGpu(asked=asked, reason=reason)

    def _instance(self, board: str, gpu_instance: int, compute_instance: int) -> list[str]:
        """An instance under its name of drivers before R470: MIG-<GPU UUID>/<GPU instance>/<compute instance>."""
        wanted = (board, gpu_instance, compute_instance)
        return [
            gpu.gpu_id
            for gpu in self._gpus
            if ((gpu.parent_gpu_id or "").casefold(), gpu.gpu_instance, gpu.compute_instance) == wanted
        ]

    def _by_place(self, asked: str) -> ResolvedGpu | UnresolvedGpu:
        problem = _not_a_place(asked)
        if problem is not None:
            return UnresolvedGpu(asked=asked, reason=problem)
        number = int(asked)
        if self._order.problem is not None:
            guess = self._guess(asked, number) if self._order.plain else None
            return guess or UnresolvedGpu(asked=asked, reason=self._order.problem)
        places = self._order.places
        if number >= len(places):
            return UnresolvedGpu(asked=asked, reason=f"Slurm's list has {counted(len(places), 'GPU')}, counted from 0")
        place = places[number]
        if place.gpu_id is not None:
            evidence = f"place {number} of the GPUs {place.where} is {place.gpu_id}"
            return ResolvedGpu(gpu_id=place.gpu_id, via=Via.AUTODETECT_ORDER, asked=asked, evidence=evidence)
        return self._by_files(asked, place)

    def _by_files(self, asked: str, place: Position) -> ResolvedGpu | UnresolvedGpu:
        if not place.files:
            return UnresolvedGpu(asked=asked, reason="gres.conf names no file for this GPU and detects none")
        file = place.files[0]
        number = minor_of(file, self._conf.devices)
        if number is None:
            return UnresolvedGpu(asked=asked, reason=f"{file} ({place.where}) does not tell its GPU's number")
        vendor, minor = number
        boards = [gpu for gpu in self._gpus if gpu.parent_gpu_id is None and gpu.minor == minor]
        boards = [gpu for gpu in boards if vendor in {None, gpu.vendor}]
        if len(boards) != 1:
            what = "no GPU" if not boards else "more than one GPU"
            return UnresolvedGpu(
                asked=asked, reason=f"{what} with minor number {minor} is known: {file}, {place.where}"
            )
        path = f"place {asked} is {file} ({place.where}), minor number {minor}"
        if len(place.files) > 1:
            return self._part(asked, boards[0], place.files, path)
        board = boards[0].gpu_id
        return ResolvedGpu(gpu_id=board, via=Via.GRES_CONF_FILE, asked=asked, evidence=f"{path}, is {board}")

    def _part(self, asked: str, board: Gpu, files: Sequence[str], path: str) -> ResolvedGpu | UnresolvedGpu:
        """The instance of a board that a record of several files means, by the files of its capabilities."""
        ours = [gpu for gpu in self._gpus if gpu.parent_gpu_id == board.gpu_id]
        named = [
            gpu
            for gpu in ours
            if gpu.capability_minors
            and {f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in gpu.capability_minors} <= set(files)
        ]
        found = named or (ours if len(ours) == 1 else [])
        if len(found) == 1:
            part = found[0].gpu_id
            return ResolvedGpu(gpu_id=part, via=Via.MIG, asked=asked, evidence=f"{path}, its instance {part}")
        return UnresolvedGpu(asked=asked, reason=f"{path}: which instance of {board.gpu_id} is meant is not known")

    def _guess(self, asked: str, number: int) -> ResolvedGpu | UnresolvedGpu:
        """Without gres.conf: only where minor, index and bus id give the GPUs the same order, without gaps."""
        reason = self._order.problem or ""
        order = [gpu for gpu in self._gpus if gpu.parent_gpu_id is None]
        order.sort(key=lambda gpu: -1 if gpu.index is None else gpu.index)
        minors = [gpu.minor for gpu in order]
        bus_ids = [(gpu.pci_bus_id or "").casefold() for gpu in order]
        first = {"amd": 128}.get(order[0].vendor, 0) if order else 0
        plain = (
            len(order) == len(self._gpus)
            and len({gpu.vendor for gpu in order}) == 1
            and [gpu.index for gpu in order] == list(range(len(order)))
            and minors == list(range(first, first + len(order)))
            and (not any(bus_ids) or bus_ids == sorted(bus_ids))
        )
        if not plain:
            return UnresolvedGpu(asked=asked, reason=reason)
        if number >= len(order):
            return UnresolvedGpu(
                asked=asked, reason=f"{reason}; the node has {counted(len(order), 'GPU')}, counted from 0"
            )
        evidence = f"{reason}; every order of this node's GPUs has {order[number].gpu_id} at {number}"
        return ResolvedGpu(gpu_id=order[number].gpu_id, via=Via.INDEX_GUESS, asked=asked, evidence=evidence)


def _is_id(text: str) -> bool:
    return text.casefold().startswith(("gpu-", "mig-"))


def _not_a_place(text: str) -> str | None:
    if _PLACE.fullmatch(text):
        return None
    if _NEGATIVE.fullmatch(text):
        return "is negative; a place is counted from 0"
    if _RANGE.fullmatch(text):
        return "is a range; Slurm writes every place"
    return "is neither a place, such as 0, nor an id, such as GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
