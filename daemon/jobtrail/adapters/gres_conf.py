"""Reads gres.conf, and of slurm.conf what it says of this node's GPUs, as the node's slurmd does (gres.conf(5)).

slurm.conf is needed too: its `Gres=` decides how many GPUs of which type count, and in which order
(jobtrail.domain.gres).

Where slurmd refuses to start, for instance over a key it does not know, this reads on and says so in `notes`: a newer
Slurm has keys of its own. Sizes, numbers of files and depth are bounded, for the files may be anything.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.gres import MAX_POSITIONS, DeviceNumber, GresConf, GresLine, NodeGres
from jobtrail.domain.hostlist import expand_nodes

# Where slurmd finds its files, in this order after SLURM_CONF: the default of most builds, then what a slurmd without
# files of its own fetched from slurmctld (https://slurm.schedmd.com/configless_slurm.html). The cache itself is
# <SlurmdSpoolDir>/conf-cache, to which /run/slurm/conf is a link.
DIRECTORIES = ("/etc/slurm", "/run/slurm/conf", "/var/spool/slurmd/conf-cache")

MAX_FILE_BYTES = 4 << 20
MAX_FILES = 64
MAX_DEPTH = 8
MAX_LINES = 100_000
MAX_NAMES = 1_000_000  # of nodes and files, in all lines together
MAX_NOTES = 50
MAX_SHOWN = 120  # characters of a file's own text in a note

_PAIR = re.compile(
    r'(?<![A-Za-z0-9_.])([A-Za-z0-9_.]+)[ \t]*[-+*/]?=[ \t]*(?:"([^"]*)"|([^\s"]\S*)|(?=\s|$))', re.ASCII
)
_COMMENT = re.compile(r"(?<!\\)#.*")
_INCLUDE = re.compile(r"include\s+(\S+)", re.IGNORECASE)
_COUNT = re.compile(r"([0-9]{1,12})([kmgtp]?)", re.IGNORECASE | re.ASCII)
_PART = re.compile(r"(?:[^,()\[\]]|\([^()]*\)|\[[^\[\]]*\])+")
_KNOWN = frozenset(
    {
        *("autodetect", "count", "cores", "cpus", "file", "files", "flags", "link", "links", "multiplefiles"),
        *("name", "nodename", "type"),
    }
)
# What a value of AutoDetect may have in it, as slurmd looks for it.
_VENDORS = ("nvml", "rsmi", "oneapi", "nrt", "nvidia", "amdsmi", "off")


class Line(msgspec.Struct, frozen=True):
    """A line's keys, in small letters, and where it stands."""

    where: str
    values: dict[str, str]


def read_gres_conf(
    *, node: str, slurm_conf: str = "", directories: Sequence[str] = DIRECTORIES, root: Path = Path("/")
) -> GresConf:
    """What Slurm's files say of the GPUs of `node` (its NodeName). Raises nothing; `problem` says what went wrong.

    `slurm_conf` is the hook's SLURM_CONF, empty for none. Every path, the device files too, is taken below `root`.
    It reads files and calls stat(2), so it is not for an event loop.
    """
    first = [str(Path(slurm_conf).parent)] if slurm_conf.startswith("/") else []
    looked = [*first, *directories]
    for directory in looked:
        files = _Files(root, directory)
        conf = files.lines(
            f"{directory}/{Path(slurm_conf).name if directory in first else 'slurm.conf'}", optional=True
        )
        gres = files.lines(f"{directory}/gres.conf", optional=True)
        if conf is not None or gres is not None or files.problem is not None:
            return _told(node, files, conf, gres, f"{directory}/gres.conf")
    return GresConf(problem=f"neither gres.conf nor slurm.conf is in {', '.join(looked)}", missing=True)


class SlurmConf(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of a slurm.conf and of what it includes, in their order."""

    path: str = ""
    lines: tuple[Line, ...] = ()
    problem: str | None = None

    def values(self, key: str) -> list[str]:
        """All values of a key, in whatever letters it is written; without the word that stands for none."""
        found = [line.values[key.casefold()] for line in self.lines if key.casefold() in line.values]
        return [value for value in found if value and value.casefold() not in ("none", "(null)")]

    def value(self, key: str) -> str | None:
        """The value of a key that counts once: the last, as Slurm takes it."""
        return next(reversed(self.values(key)), None)


def read_slurm_conf(slurm_conf: str = "", directories: Sequence[str] = DIRECTORIES) -> SlurmConf:
    """Slurm's main file: `slurm_conf`, else the first that is found. Raises nothing; `problem` says what went wrong."""
    looked = [slurm_conf] if slurm_conf else [f"{directory}/slurm.conf" for directory in directories]
    for path in looked:
        files = _Files(Path("/"), str(Path(path).parent))
        lines = files.lines(path, optional=True)
        if files.problem is not None:
            return SlurmConf(path=path, problem=files.problem)
        if lines is not None:
            return SlurmConf(path=path, lines=tuple(lines))
    return SlurmConf(problem=f"there is no {' and no '.join(looked)}")


def _told(node: str, files: _Files, conf: list[Line] | None, gres: list[Line] | None, source: str) -> GresConf:
    ours = [line for line in gres or () if _is_of(line, node, files)]
    lines = [record for line in ours if (record := _record(line, files)) is not None]
    node_gres = _node_gres(conf, node, files)
    if files.problem is not None:
        return GresConf(source=source, problem=files.problem, notes=tuple(files.notes))
    names = {name for line in lines for gpu in line.gpus for name in gpu}
    return GresConf(
        source=source,
        autodetect=_autodetect(ours, files),
        lines=tuple(lines),
        node_gres=node_gres,
        devices=_devices(names, files.root),
        notes=tuple(files.notes),
    )


class _Files:
    """The files of one directory, with what is to be said of them."""

    def __init__(self, root: Path, directory: str) -> None:
        self.root = root
        self.notes: list[str] = []
        self.problem: str | None = None
        self._directory = directory
        self._read = 0
        self._lines = 0
        self._names = 0

    def expand(self, where: str, field: str, text: str) -> tuple[str, ...]:
        """The names in a list of hosts or files. Raises InvalidEvent."""
        if self.problem is not None:
            return ()
        names = expand_nodes(field, text)
        self._names += len(names)
        if self._names > MAX_NAMES:
            self.problem = f"{where}: more than {MAX_NAMES} names in all"
        return names

    def note(self, text: str) -> None:
        if len(self.notes) < MAX_NOTES and text not in self.notes:
            self.notes.append(text)

    def lines(self, path: str, *, optional: bool = False, depth: int = 0) -> list[Line] | None:
        """The lines of a file and of those it includes. None if it is not there, or `problem` is set."""
        self._read += 1
        if depth > MAX_DEPTH or self._read > MAX_FILES:
            self.problem = f"{path}: more than {MAX_FILES} files, or files that include each other {MAX_DEPTH} deep"
            return None
        try:
            text = _text(self.root / path.lstrip("/"))
        except FileNotFoundError:
            if not optional:
                self.problem = f"{path}: no such file"
            return None
        except (OSError, ValueError) as error:  # ValueError: a NUL in an included name
            self.problem = f"{path}: {getattr(error, 'strerror', None) or error}"
            return None
        return self._parsed(path, text, depth)

    def _parsed(self, path: str, text: str, depth: int) -> list[Line] | None:
        found: list[Line] = []
        for number, line in _whole_lines(text):
            self._lines += 1
            if self._lines > MAX_LINES:
                self.problem = f"{path}: more than {MAX_LINES} lines"
                return None
            include = _INCLUDE.fullmatch(line)
            if include is None:
                found.append(self._line(f"{path}:{number}", line))
                continue
            if "%" in include[1]:
                self.note(f"{path}:{number}: a name with % in it is not followed")
                continue
            more = self.lines(str(Path(self._directory) / include[1]), depth=depth + 1)
            if more is None:
                return None
            found += more
        return found

    def _line(self, where: str, line: str) -> Line:
        values: dict[str, str] = {}
        end = 0
        for match in _PAIR.finditer(line):
            if line[end : match.start()].strip():
                self.note(f"{where}: {line[end : match.start()].strip()[:MAX_SHOWN]!r} is not key=value")
            end = match.end()
            values.setdefault(match[1].casefold(), match[2] if match[2] is not None else match[3] or "")
        if line[end:].strip():
            self.note(f"{where}: {line[end:].strip()[:MAX_SHOWN]!r} is not key=value")
        return Line(where, values)


def _text(path: Path) -> str:
    """The text of a regular file. Raises OSError."""
    # O_NONBLOCK: a pipe in the file's place must not hold the reader.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "is no regular file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(0, f"is larger than {MAX_FILE_BYTES} bytes")
    return content.decode(errors="replace")


def _whole_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, with those that end in a backslash joined to the next; the number is the first one's."""
    start, parts = 0, list[str]()
    for number, raw in enumerate(text.split("\n"), 1):
        start = start if parts else number
        line = _COMMENT.sub("", raw).rstrip()
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        whole = "".join([*parts, line]).strip()
        parts = []
        if whole:
            yield start, whole
    if "".join(parts).strip():
        yield start, "".join(parts).strip()


def _is_of(line: Line, node: str, files: _Files) -> bool:
    """Whether a line is for all nodes or for this one."""
    names = line.values.get("nodename")
    if names is None:
        return True
    try:
        return node in files.expand(line.where, "NodeName", names)
    except InvalidEvent as error:
        files.note(f"{line.where}: {error}; the line was left out")
        return False


def _autodetect(lines: Sequence[Line], files: _Files) -> str | None:
    """What is asked of this node; what a line says of certain nodes stands above what is said of all."""
    local, everywhere = None, None
    for line in lines:
        value = line.values.get("autodetect", "").casefold()
        if not value:
            continue
        vendor = next((vendor for vendor in _VENDORS if vendor in value), None)
        if vendor is None:
            files.note(f"{line.where}: AutoDetect={value[:MAX_SHOWN]} is not one of {', '.join(_VENDORS)}")
        elif "nodename" in line.values:
            local = local or vendor
        elif "name" in line.values:
            files.note(f"{line.where}: AutoDetect beside Name counts only with NodeName")
        else:
            everywhere = everywhere or vendor
    chosen = local or everywhere
    return None if chosen == "off" else chosen


def _record(line: Line, files: _Files) -> GresLine | None:
    """The record of GPUs on a line."""
    unknown = sorted(set(line.values) - _KNOWN)
    if unknown:
        files.note(f"{line.where}: unknown {', '.join(unknown)[:MAX_SHOWN]}")
    if line.values.get("name", "").casefold() != "gpu":
        return None
    one, several = line.values.get("file") or line.values.get("files"), line.values.get("multiplefiles")
    try:
        names = files.expand(line.where, "File", one or several or "-")
    except InvalidEvent as error:
        # A record that is left out would move every GPU after it to a wrong place.
        files.problem = files.problem or f"{line.where}: {error}"
        return None
    gpus = tuple((name,) for name in names) if one else (names,) if several else ()
    if len(gpus) > MAX_POSITIONS:
        files.problem = files.problem or f"{line.where}: names more than {MAX_POSITIONS} files"
        return None
    count = _count(line.values.get("count", "1"))
    return GresLine(where=line.where, gpus=gpus, type_name=line.values.get("type") or None, count=count or 0)


def _count(text: str) -> int | None:
    match = _COUNT.fullmatch(text)
    if match is None:
        return None
    return int(match[1]) << 10 * " kmgtp".index(match[2].casefold() or " ")


def _node_gres(conf: Sequence[Line] | None, node: str, files: _Files) -> tuple[NodeGres, ...] | None:
    """The GPUs of slurm.conf's `NodeName=… Gres=…` for this node, in their order; None where it has no such node."""
    default = ""
    for line in conf or ():
        names = line.values.get("nodename", "")
        if names.casefold() == "default":
            default = line.values.get("gres", default)
        elif names and _is_of(line, node, files):
            return _gres_parts(line.values.get("gres", default))
    return None


def _gres_parts(text: str) -> tuple[NodeGres, ...]:
    """The GPUs in a list such as gpu:a100:2(S:0),gpu:v100:1,mps:200; one type given twice counts together."""
    found: dict[str | None, int] = {}
    for match in _PART.finditer(text):
        name, *rest = match[0].split("(")[0].strip().split(":")
        if name.casefold() != "gpu":
            continue
        rest = [part for part in rest if part.casefold() != "no_consume"]
        count = _count(rest[-1]) if rest else 1
        kind = ":".join(rest if count is None else rest[:-1]) or None
        found[kind] = found.get(kind, 0) + (1 if count is None else count)
    return tuple(NodeGres(kind, min(count, MAX_POSITIONS)) for kind, count in found.items())


def _devices(names: set[str], root: Path) -> Mapping[str, DeviceNumber]:
    """The numbers of those device files that are there."""
    found = {}
    for name in names:
        try:
            status = (root / name.lstrip("/")).stat()
        except (OSError, ValueError):
            continue
        if stat.S_ISCHR(status.st_mode):
            found[name] = DeviceNumber(os.major(status.st_rdev), os.minor(status.st_rdev))
    return found
