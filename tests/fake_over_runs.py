"""Ends of runs in memory, held to the same contract suite as the real ones."""

from collections.abc import Mapping, Sequence

from jobtrail.core.runs.over_runs import Over, over_by
from jobtrail.domain.errors import JobtrailError
from jobtrail.domain.joining import openers
from jobtrail.domain.samples import Target
from tests.fakes import MemorySink


class MemoryOverRuns:
    """An OverRuns over the runs of a MemorySink (tests/contract/test_over_runs_contract.py)."""

    def __init__(self, sink: MemorySink | None = None) -> None:
        self._sink = sink or MemorySink()
        self.asked: list[list[str]] = []  # the refs of each question
        self.ends: dict[str, Over] = {}  # set them to be answered without a sink
        self.error: JobtrailError | None = None  # set it to make the store go away

    async def over(self, targets: Sequence[Target]) -> Mapping[str, Over]:
        self.asked.append([target.ref for target in targets])
        if self.error is not None:
            raise self.error
        found = {ref: over for ref, over in self.ends.items() if ref in self.asked[-1]}
        for target in targets:
            for run in self._sink.runs.get((target.cluster, target.job_id), []):
                part = run.nodes.get(target.node)
                if part is None or part.over_us is not None or target.ref not in openers(part):
                    continue
                if run.job.end_us is not None and (over := over_by(run.job)) is not None:
                    found[target.ref] = over
        return found
