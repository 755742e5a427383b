"""What Slurm answered, ordered so that each run finds its records at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobtrail.domain.job import Job
from jobtrail.domain.matching import is_other_run, record_of
from jobtrail.domain.slurm import SlurmAnswer, SlurmRecord


class Answers:
    """One or several answers to one question."""

    def __init__(self, answers: Sequence[SlurmAnswer], *, complete: bool) -> None:
        """`complete`: the question was about all jobs, so what is not mentioned is not there."""
        self.complete = complete
        self._records: dict[str, list[SlurmRecord]] = {}
        for answer in answers:
            for record in answer.records:
                self._records.setdefault(record.job_id, []).append(record)
        unreadable = [one.job_id for answer in answers for one in answer.unreadable]
        self._unreadable = frozenset(unreadable)

    def __iter__(self) -> Iterator[SlurmRecord]:
        """All records."""
        return (record for records in self._records.values() for record in records)

    def of(self, job: Job) -> SlurmRecord | None:
        """The record that describes the run."""
        return record_of(job, self._records.get(job.job_id, ()))

    def about(self, job: Job) -> Sequence[SlurmRecord]:
        """All records of the run's job, whatever run they mean."""
        return self._records.get(job.job_id, ())

    def may_mean(self, job: Job) -> bool:
        """Whether anything in the answer may be about the run, readable or not."""
        if None in self._unreadable or job.job_id in self._unreadable:
            return True
        return any(not is_other_run(job, record) for record in self.about(job))


NOTHING = Answers((), complete=False)
