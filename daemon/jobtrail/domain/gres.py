"""The order in which Slurm counts the GPUs of a node: what position 0, 1, … of SLURM_JOB_GPUS means.

A position is neither a device's minor number nor NVML's index. slurmd makes the list anew at each start:

* It takes the parts of slurm.conf's `Gres=` in their order (`gpu:b:1,gpu:a:2`) and for each the records of gres.conf of
  that type in the order of their lines, as many as slurm.conf counts; without a type, the records as they come. The
  files of a record keep their order: `File=/dev/nvidia[3,1]` is 3, then 1. (`_merge_config`, `_merge_gres2` in Slurm's
  src/interfaces/gres.c; `slurmd -G` of 22.05.8 prints the same.)
* Where AutoDetect found devices, the list is sorted by file name (numbers in it as numbers) and then by the place of
  the device itself in its `Links`, those without links last. With nvml and rsmi that place is the library's index,
  which follows the PCI bus id; of an instance (MIG) it is the number within its board. nvidia gives no links.
  (`_merge_system_gres_conf` in src/plugins/gres/gpu/gres_gpu.c; src/plugins/gpu/{nvml,rsmi,nvidia}.)
* The hook's variables then hold places in that list (`gres_common_prep_set_env` in
  src/plugins/gres/common/gres_common.c); a device with a unique id has that id in CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import msgspec

from jobtrail.domain.gpus import Gpu
from jobtrail.domain.phrases import counted

MAX_POSITIONS = 1024  # Slurm's own limit for a node (gres.conf(5), "Count is limited")
NVIDIA_MAJOR = 195  # Documentation/admin-guide/devices.txt of Linux; /dev/nvidia<minor>
DRM_MAJOR = 226  # /dev/dri/renderD<minor>

_NUMBER_AT_END = re.compile(r"([0-9]{1,9})$", re.ASCII)
_NUMBERS = re.compile(r"([0-9]+)", re.ASCII)


class DeviceNumber(msgspec.Struct, frozen=True):
    """What stat(2) says a device file is."""

    major: int
    minor: int


class GresLine(msgspec.Struct, frozen=True, kw_only=True):
    """One record of gres.conf for GPUs of this node. A GPU has one file, of a partitioned one several."""

    where: str  # such as /etc/slurm/gres.conf:3
    gpus: tuple[tuple[str, ...], ...] = ()
    type_name: str | None = None
    count: int = 1  # of a record that names no files


class NodeGres(msgspec.Struct, frozen=True):
    """One part of slurm.conf's `Gres=`, such as gpu:a100:4."""

    type_name: str | None
    count: int


class GresConf(msgspec.Struct, frozen=True, kw_only=True):
    """What Slurm's files say of this node's GPUs. `problem` says why they could not be read; then nothing is known.

    `missing` is the problem that there are no such files.
    """

    source: str = ""
    autodetect: str | None = None  # nvml | rsmi | nvidia | …; None where Slurm does not look for GPUs itself
    lines: tuple[GresLine, ...] = ()
    node_gres: tuple[NodeGres, ...] | None = None  # None where slurm.conf does not tell
    devices: Mapping[str, DeviceNumber] = {}
    notes: tuple[str, ...] = ()
    problem: str | None = None
    missing: bool = False


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """One place in Slurm's list: the device files, or the GPU itself where Slurm detected it."""

    files: tuple[str, ...] = ()
    gpu_id: str | None = None
    where: str = ""


class Positions(msgspec.Struct, frozen=True, kw_only=True):
    """Slurm's list of a node's GPUs. `problem` says why the order is not known; then `places` is empty.

    `plain` tells that in spite of the problem nothing is known that would make another order than the GPUs' own.
    """

    places: tuple[Position, ...] = ()
    doubt: str | None = None  # what would make the order another one
    problem: str | None = None
    plain: bool = False


class _Record(msgspec.Struct, frozen=True):
    files: tuple[str, ...]
    type_name: str | None
    where: str


def positions(conf: GresConf, gpus: Sequence[Gpu]) -> Positions:
    """Slurm's list, of the configuration and of the GPUs the driver shows."""
    if conf.problem is not None:
        return Positions(problem=conf.problem, plain=conf.missing)
    types = {line.type_name.casefold() for line in conf.lines if line.type_name}
    if conf.node_gres is None and len(types) > 1 and conf.autodetect is None:
        return Positions(problem=f"{conf.source} has GPUs of several types, whose order only slurm.conf tells")
    records = _merged(conf)
    if conf.autodetect is not None:
        return _detected(conf.autodetect, conf, records, gpus)
    return Positions(places=tuple(Position(files=record.files, where=record.where) for record in records))


def minor_of(file: str, devices: Mapping[str, DeviceNumber]) -> tuple[str | None, int] | None:
    """Vendor and minor number of a device file, None where neither its number nor its name tells.

    The number of the file counts where its major is that of a GPU driver; else the digits its name ends with, which is
    how Slurm itself reads a name.
    """
    number = devices.get(file)
    if number is not None and number.major in {NVIDIA_MAJOR, DRM_MAJOR}:
        return ("nvidia" if number.major == NVIDIA_MAJOR else "amd", number.minor)
    match = _NUMBER_AT_END.search(file)
    if match is None or "/nvidia-caps/" in file or "/dri/card" in file:
        return None
    if "/dri/" in file:
        return ("amd", int(match[1]))
    return ("nvidia" if "/nvidia" in file else None, int(match[1]))


def _merged(conf: GresConf) -> list[_Record]:
    """The records in the order of slurm.conf, those without files as places without files."""
    left = list(itertools.islice((record for line in conf.lines for record in _records(line)), MAX_POSITIONS))
    if conf.node_gres is None:
        return left
    found: list[_Record] = []
    for part in conf.node_gres[:MAX_POSITIONS]:
        wanted = min(part.count, MAX_POSITIONS - len(found))
        fitting = [record for record in left if _fits(record, part)][:wanted]
        left = [record for record in left if not any(record is taken for taken in fitting)]
        found += fitting
        found += [_Record((), part.type_name, "slurm.conf")] * (wanted - len(fitting))
    return found


def _records(line: GresLine) -> list[_Record]:
    gpus = line.gpus or ((),) * min(line.count, MAX_POSITIONS)
    return [_Record(files, line.type_name, line.where) for files in gpus]


def _fits(record: _Record, part: NodeGres) -> bool:
    return part.type_name is None or (record.type_name or "").casefold() == part.type_name.casefold()


def _detected(vendor: str, conf: GresConf, records: Sequence[_Record], gpus: Sequence[Gpu]) -> Positions:
    """The order of detection: of the GPUs found, those the configuration asks for."""
    brand = "nvidia" if vendor in {"nvml", "nvidia"} else "amd" if vendor in {"rsmi", "amdsmi"} else vendor
    found = _devices([gpu for gpu in gpus if gpu.vendor == brand], vendor)
    if not found:
        return Positions(problem=f"Slurm detects GPUs with {vendor}, and none of {brand} is known here")
    if conf.node_gres is None and not conf.lines:
        problem = "slurm.conf was not read, so which of the detected GPUs Slurm uses is not known"
        return Positions(problem=problem, plain=True)
    if vendor != "nvidia" and len(found) > 1 and any(device.link is None for device in found):
        return Positions(problem=f"the order in which {vendor} shows the GPUs is not known")
    types = {record.type_name for record in records if record.type_name}
    nameless = [type_name for type_name in types if not any(_has_type(device, type_name) for device in found)]
    if nameless and len(types) > 1:
        return Positions(problem=f"no detected GPU has a name with {min(nameless)} in it")
    chosen = _chosen(records, found, by_type=not nameless)
    if len(chosen) < len(records):
        # slurmd's list is of its start. A GPU that fell off the bus since then moves the others to lower indices here.
        what = f"Slurm counts {counted(len(records), 'GPU')}, of which {vendor} now shows {len(chosen)}"
        return Positions(problem=f"{what}: which place each had is not known")
    chosen.sort(key=lambda device: (device.link is None, device.link or 0, _natural(device.files)))
    places = tuple(Position(files=one.files, gpu_id=one.gpu_id, where=one.where) for one in chosen)
    return Positions(places=places, doubt=_doubt(vendor, records, places))


def _chosen(records: Sequence[_Record], found: list[_Device], *, by_type: bool) -> list[_Device]:
    """For each record, those with files first, the detected device that Slurm takes for it, where there is one."""
    left = sorted(found, key=lambda device: _natural(device.files))
    chosen = []
    for record in sorted(records, key=lambda record: (not record.files, _natural(record.files))):
        fitting = (
            device
            for device in left
            if (not by_type or _has_type(device, record.type_name)) and record.files[:1] in {(), device.files[:1]}
        )
        device = next(fitting, None)
        if device is not None:
            left.remove(device)
            chosen.append(device)
    return chosen


def _doubt(vendor: str, records: Sequence[_Record], places: Sequence[Position]) -> str | None:
    """A slurmd that was built without the vendor's library logs so, detects nothing, and goes by the lines."""
    if not all(record.files for record in records) or [record.files for record in records] == [
        place.files for place in places
    ]:
        return None
    return f"a slurmd without the library of {vendor} counts GPUs in the order of gres.conf's lines, which is another"


class _Device(msgspec.Struct, frozen=True, kw_only=True):
    files: tuple[str, ...]
    gpu_id: str
    link: int | None = None
    name: str | None = None
    where: str = ""


def _devices(gpus: Sequence[Gpu], vendor: str) -> list[_Device]:
    """The detected devices: boards, and of partitioned ones the instances instead."""
    boards = {gpu.gpu_id: gpu for gpu in gpus if gpu.parent_gpu_id is None}
    parents = {gpu.parent_gpu_id for gpu in gpus}
    devices = []
    for gpu in gpus:
        if gpu.gpu_id in parents:
            continue
        board = gpu if gpu.parent_gpu_id is None else boards.get(gpu.parent_gpu_id, gpu)
        file = f"/dev/dri/renderD{board.minor}" if gpu.vendor == "amd" else f"/dev/nvidia{board.minor}"
        link = None if vendor == "nvidia" else gpu.index
        where = f"detected with {vendor}"
        devices.append(_Device(files=(file,), gpu_id=gpu.gpu_id, link=link, name=board.name, where=where))
    return devices


def _has_type(device: _Device, type_name: str | None) -> bool:
    """Slurm takes a configured type for a part of the detected name, with underscores for spaces."""
    return type_name is None or type_name.casefold() in (device.name or "").casefold().replace(" ", "_")


def _natural(files: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
    """A key that puts nvidia2 before nvidia10, as Slurm's strnatcmp() does."""
    parts = _NUMBERS.split(",".join(files))
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)
