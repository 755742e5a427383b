"""What follows from Slurm's silence about an open run: a single silence proves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.core.ports import Clock
from jobtrail.core.slurm.answers import Answers
from jobtrail.core.slurm.words import SlurmWords
from jobtrail.domain.job import Job

FEW_UNKNOWN = 3

_RunKey = tuple[str, int]


class Silence:
    """Closes runs that Slurm does not know at two comparisons in a row, with nothing else speaking for their life.

    A token whose user sees only his own jobs (PrivateData in slurm.conf(5)), or the wrong slurmrestd, would make every
    run unknown: where Slurm knows fewer of the open runs than not, nothing is closed.
    """

    def __init__(self, words: SlurmWords, *, clock: Clock, silent_seconds: float) -> None:
        """`silent_seconds`: a run that began or was measured since is never closed."""
        self._words = words
        self._clock = clock
        self._silent_us = int(silent_seconds * 1e6)
        self._missing: set[_RunKey] = set()

    async def judge(self, runs: Sequence[Job], current: Answers | None, history: Answers) -> None:
        """Compare all open runs with both answers. Raises SpoolFull."""
        opened = [job for job in runs if not job.is_over]
        unknown = [job for job in opened if not _is_mentioned(job, current, history)]
        known = len(opened) - len(unknown)
        quiet = [job for job in unknown if self._is_quiet(job)]
        # Accounting alone may lag behind; without a controller more must speak for a closing.
        trusted = len(unknown) <= (known + FEW_UNKNOWN if current is not None else known)
        if trusted:
            for job in quiet:
                if (job.job_id, job.run) in self._missing:
                    await self._words.close(job)
        self._missing = {(job.job_id, job.run) for job in quiet}

    def _is_quiet(self, job: Job) -> bool:
        usage = job.usage
        signs = [time_us for time_us in (job.start_us, usage.last_alive_us if usage else None) if time_us is not None]
        return max(signs, default=0) + self._silent_us <= self._clock.time_us()


def _is_mentioned(job: Job, *answers: Answers | None) -> bool:
    return any(answer is not None and answer.may_mean(job) for answer in answers)
