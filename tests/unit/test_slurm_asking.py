"""When to ask again, whom to ask for accounting, and what is remembered of what was sent."""

from collections.abc import Sequence

import pytest

from jobtrail.core.slurm import words as slurm_words
from jobtrail.core.slurm.accounting import FirstToAnswer
from jobtrail.core.slurm.patience import Patience
from jobtrail.domain.errors import SlurmDenied, SlurmError, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.slurm import SlurmAnswer, Unreadable
from tests.unit.slurm_world import World


def test_patience_doubles_after_the_second_time_and_has_an_end() -> None:
    patience: Patience[str] = Patience(5.0, 600.0)
    now, gaps = 0.0, []
    for _ in range(10):
        assert patience.is_due("run", now)
        patience.asked("run", now)
        waited = next(seconds for seconds in range(1, 1000) if patience.is_due("run", now + seconds))
        gaps.append(waited)
        now += waited
    assert gaps == [5, 5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_patience_never_overflows() -> None:
    patience: Patience[str] = Patience(5.0, 600.0)
    for _ in range(5000):
        patience.asked("run", 0.0)
    assert not patience.is_due("run", 599.9)
    assert patience.is_due("run", 600.0)


def test_patience_forgets_what_nobody_asks_about() -> None:
    patience: Patience[str] = Patience(5.0, 600.0)
    patience.asked("kept", 0.0)
    patience.asked("forgotten", 0.0)
    patience.keep({"kept"})
    assert not patience.is_due("kept", 1.0)
    assert patience.is_due("forgotten", 1.0)


class Source:
    """Accounting that answers with its name, or fails."""

    def __init__(self, name: str, problem: SlurmError | None = None) -> None:
        self.name = name
        self.problem = problem

    async def runs_of(self, numbers: Sequence[int], *, since: int) -> SlurmAnswer:
        if self.problem is not None:
            raise self.problem
        return SlurmAnswer(unreadable=(Unreadable(path=self.name, reason=f"{numbers} {since}"),))


async def test_the_first_source_that_answers_is_believed() -> None:
    sources = FirstToAnswer([Source("rest", SlurmDenied("bad token")), Source("sacct"), Source("other")])
    answer = await sources.runs_of([1], since=2)
    assert answer.unreadable == (Unreadable(path="sacct", reason="[1] 2"),)


async def test_when_none_answers_all_say_why() -> None:
    sources = FirstToAnswer([Source("rest", SlurmDenied("bad token")), Source("sacct", SlurmUnavailable("no sacct"))])
    with pytest.raises(SlurmUnavailable, match="bad token; no sacct"):
        await sources.runs_of([1], since=2)
    with pytest.raises(SlurmHasNone, match="there is no source of accounting"):
        await FirstToAnswer([]).runs_of([1], since=2)


async def test_a_site_without_accounting_is_told_only_where_each_source_says_so() -> None:
    none, down = Source("rest", SlurmHasNone("no slurmdb")), Source("sacct", SlurmUnavailable("down"))
    with pytest.raises(SlurmHasNone, match="no slurmdb; no slurmdb"):
        await FirstToAnswer([none, none]).runs_of([1], since=2)
    with pytest.raises(SlurmUnavailable, match=r"^down$"):
        await FirstToAnswer([none, down]).runs_of([1], since=2)


async def test_what_was_sent_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_words, "MOST_REMEMBERED", 2)
    world = World()
    words = world.reconciler._words
    records = [world.record(number, "RUNNING", start_time=world.now) for number in range(3)]
    for record in records:
        assert await words.of_unannounced(record, "c1")
    assert not await words.of_unannounced(records[2], "c1")
    assert await words.of_unannounced(records[0], "c1"), "the oldest was forgotten, and is said again"
