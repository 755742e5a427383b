"""Slurm's trackable resources (slurm.conf(5), AccountingStorageTRES) and generic resources, as slurmrestd writes them.

slurmctld: `cpu=2,mem=400M,node=2,billing=2,gres/gpu=2,gres/gpu:a100=2`. slurmdb: objects {type, name, count}, memory in
MiB. GRES: `gpu:a100:2(IDX:0-1),shard:4`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from jobtrail.adapters.slurmrest.normal import Fields

MEBIBYTE = 1_048_576
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_AMOUNT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([KMGTPE]?)")
_GRES_GPU = re.compile(r"(?:gres[:/])?gpu(?::[^:(,=]+)??[:=]([0-9]{1,9})(?:\([^)]*\))?")


def tres_of_text(text: str | None) -> Mapping[str, str]:
    """The resources of a TRES string by name, amounts as written."""
    pairs = (part.partition("=") for part in (text or "").split(","))
    return {name: amount for name, equals, amount in pairs if equals and name}


def tres_of_list(items: Iterable[Fields]) -> Mapping[str, int]:
    """The resources of slurmdb's list by name, as in a TRES string: cpu, mem, gres/gpu, gres/gpu:a100."""
    found: dict[str, int] = {}
    for item in items:
        kind, name, count = item.text("type"), item.text("name"), item.number("count")
        if kind is not None and count is not None:
            found[f"{kind}/{name}" if name else kind] = count
    return found


def count_of(amount: str | int | None) -> int | None:
    """A plain count; where Slurm shortens one to K it means 1024 (convert_num_unit in its source)."""
    if amount is None or isinstance(amount, int):
        return amount
    match = _AMOUNT.fullmatch(amount)
    return None if match is None else _times(match[1], 1024 ** _UNITS[match[2]])


def memory_bytes(amount: str | int | None) -> int | None:
    """Memory of a TRES string or list in bytes; without a unit it is MiB. 0, Slurm's "all of the node", is None."""
    if isinstance(amount, int):
        return amount * MEBIBYTE or None
    match = _AMOUNT.fullmatch(amount or "")
    if match is None:
        return None
    return _times(match[1], 1024 ** _UNITS[match[2] or "M"]) or None


def _times(number: str, factor: int) -> int:
    return int(Fraction(number) * factor) if "." in number else int(number) * factor


def gpus_of(tres: Mapping[str, str] | Mapping[str, int]) -> int | None:
    """GPUs in a job's TRES: `gres/gpu`, else the sum of its types. None where GPUs are not among them.

    That is no 0: a site can leave GPUs out of its TRES.
    """
    if "gres/gpu" in tres:
        return count_of(tres["gres/gpu"])
    typed = [count_of(amount) for name, amount in tres.items() if name.startswith("gres/gpu:")]
    counts = [count for count in typed if count is not None]
    return sum(counts) if counts else None


def gpus_of_gres(text: str) -> int | None:
    """GPUs in a GRES string, all types together; None where none is named."""
    # Brackets may hold commas (IDX:0,2-3), so the string is searched, not split.
    counts = [int(match[1]) for match in re.finditer(rf"(?<![^,]){_GRES_GPU.pattern}", text)]
    return sum(counts) if counts else None
