"""Which steps of which jobs have a cgroup on this node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from jobtrail.adapters.cgroup.layout import V1_CONTROLLERS, Layout, RefusedError, detect, subdirectories
from jobtrail.domain.samples import Target


class StepFinder:
    """Looks for the cgroups of steps. Blocking, and for one thread at a time.

    slurmstepd removes a job's cgroup with the last of its steps. So it lasts as long as the job only on the host of the
    batch step, or where each job has an extern step (PrologFlags=Contain in slurm.conf(5)).
    """

    def __init__(self, root: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._root = str(root)
        self._monotonic = monotonic
        self._layout: Layout | None = None

    def steps_of(self, targets: Iterable[Target]) -> dict[str, frozenset[str]]:
        """Names such as `step_batch`, by ref; none for a job without a cgroup, or whose cgroup cannot be looked at."""
        return {target.ref: frozenset(self._steps(target)) for target in targets}

    def _steps(self, target: Target) -> list[str]:
        try:
            directory = self._directory(target)
        except (OSError, RefusedError):
            return []
        names = [] if directory is None else subdirectories(directory)
        return [name for name in names if name.startswith("step_")]

    def _directory(self, target: Target) -> str | None:
        """The job's directory, in whichever hierarchy it has one. Raises OSError, RefusedError."""
        if self._layout is None:
            self._layout = Layout(detect(self._root), self._monotonic)
        for controller in V1_CONTROLLERS:
            if (directory := self._layout.v1_directory(target, controller)) is not None:
                return directory
        return self._layout.v2_directory(target)
