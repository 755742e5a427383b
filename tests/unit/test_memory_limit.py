"""What a run may use of memory: as its sender says, else as the kernel held it to."""

from jobtrail.domain.events import NodeUsage
from jobtrail.domain.job_facts import JobFacts
from tests.unit.stories import started, tell_one, used


def test_the_senders_word_on_the_memory_limit_counts_before_the_cgroups() -> None:
    usage = NodeUsage(memory_limit_bytes=600, sample_count=1)
    told = started("n1", 0, facts=JobFacts(memory_limit_bytes=500))
    untold = started("n1", 0)
    assert tell_one([told, used("n1", 1, usage, opened_by=told.event_id)]).job.memory_limit_bytes == 500
    assert tell_one([told]).job.memory_limit_bytes == 500
    assert tell_one([untold]).job.memory_limit_bytes is None
    assert tell_one([untold, used("n1", 1, usage, opened_by=untold.event_id)]).job.memory_limit_bytes == 600
