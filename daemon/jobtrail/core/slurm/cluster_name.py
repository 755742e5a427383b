"""The name of the cluster whose runs are reconciled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from jobtrail.core.ports import Clock, SlurmController
from jobtrail.domain.errors import SlurmError

ASK_SECONDS = 60.0

Guess = Callable[[], Awaitable[str | None]]


class ClusterName:
    """The name that the settings give; else Slurm's own, as its jobs bear it; else what other sources guess.

    A guess is not kept: the runs of a try-out, or a hook of another cluster, must not name the cluster for good.
    """

    def __init__(
        self, configured: str, *, controller: SlurmController | None, guesses: Sequence[Guess], clock: Clock
    ) -> None:
        """`guesses`: other sources in order, such as what a hook on this machine last said."""
        self._known = configured or None
        self._controller = controller
        self._guesses = guesses
        self._clock = clock
        self._ask_due = 0.0

    async def __call__(self) -> str | None:
        """The name; None while nobody knows it. Raises what the guesses raise, never for Slurm's sake."""
        if self._known is None:
            self._known = await self._slurms_own()
        if self._known is not None:
            return self._known
        for guess in self._guesses:
            if (name := await guess()) is not None:
                return name
        return None

    async def _slurms_own(self) -> str | None:
        """What Slurm's jobs name; None while it has none, does not answer, or was asked a moment ago."""
        now = self._clock.monotonic()
        if self._controller is None or now < self._ask_due:
            return None
        self._ask_due = now + ASK_SECONDS
        try:
            answer = await self._controller.current_jobs()
        except SlurmError:
            return None  # told by those whose questions it leaves open
        names = {record.cluster for record in answer.records if record.cluster is not None}
        return names.pop() if len(names) == 1 else None
