"""Accounting from the first of several sources that answers."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.core.ports import SlurmAccounting
from jobtrail.domain.errors import SlurmError, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.slurm import SlurmAnswer


class FirstToAnswer:
    """A SlurmAccounting made of others, the best first: slurmrestd may run without slurmdb's part, as sites choose."""

    def __init__(self, sources: Sequence[SlurmAccounting]) -> None:
        self._sources = sources

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        """What the first source says that answers.

        Raises SlurmUnavailable with what each said when none does, SlurmHasNone where each says that there is none.
        """
        problems: list[str] = []
        none: list[str] = []
        for source in self._sources:
            try:
                return await source.runs_of(numbers, since=since)
            except SlurmHasNone as error:
                none.append(str(error))
            except SlurmError as error:
                problems.append(str(error))
        if problems:
            raise SlurmUnavailable("; ".join(problems))
        raise SlurmHasNone("; ".join(none) or "there is no source of accounting")
