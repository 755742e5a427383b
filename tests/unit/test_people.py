"""Jobs that people keep by hand, and their remarks on others: how a job stands, whatever the order of their words."""

import uuid
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobtrail.domain.claims import FIELDS, Claims, facts_of, is_manual, is_manual_id, said_fields
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event, EventKind, NodeUsage, decode, encode
from jobtrail.domain.explain import explain
from jobtrail.domain.job import Job, Run
from jobtrail.domain.job_facts import JobFacts
from jobtrail.domain.job_ids import JobName, parse_job_id
from jobtrail.domain.joining import choose_run
from jobtrail.domain.people import PeoplesWord, about_nothing, claims_of, last_said_us, standing_of, told_by_person
from jobtrail.domain.slurm import Origin
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.transitions import Changed, Duplicate, Rejected, apply, open_run
from tests.unit.stories import JOB, SECOND, T0, event, finished, reported, started, tell, tell_one, used

MINE = "manual-mine"
MINUTE = 60 * SECOND


def said(kind: EventKind, at: int, name: str = "", *, job_id: str = MINE, **claims: Any) -> Event:
    """A person's word, `at` µs after T0."""
    word = event(
        kind,
        "srv",
        at,
        name or f"{kind}/{at}/{sorted(claims)}",
        claims=Claims(**claims) if claims else None,
        person="ada",
        sent_by="uid:1000",
    )
    return msgspec.structs.replace(word, job_id=job_id)


def created(at: int = 0, name: str = "", **claims: Any) -> Event:
    return said(EventKind.JOB_CREATED, at, name, **claims)


def amended(at: int, name: str = "", **claims: Any) -> Event:
    return said(EventKind.JOB_AMENDED, at, name, **claims)


def withdrawn(at: int, name: str = "") -> Event:
    return said(EventKind.JOB_WITHDRAWN, at, name)


def job_of(*events: Event) -> Job:
    return tell_one(events).job


@pytest.mark.parametrize(
    ("claims", "state", "verdict", "start", "end"),
    [
        ({}, State.PENDING, None, None, None),
        ({"state": State.PENDING}, State.PENDING, None, None, None),
        ({"start_us": T0 - MINUTE}, State.RUNNING, None, (T0 - MINUTE, False), None),
        ({"state": State.RUNNING}, State.RUNNING, None, (T0, True), None),
        ({"state": State.PENDING, "start_us": T0 - 1}, State.RUNNING, None, (T0 - 1, False), None),
        ({"end_us": T0 - 5}, State.ENDED, Verdict.UNKNOWN, None, (T0 - 5, False)),
        ({"state": State.RUNNING, "end_us": T0 - 5}, State.ENDED, Verdict.UNKNOWN, None, (T0 - 5, False)),
        ({"state": State.ENDED}, State.ENDED, Verdict.UNKNOWN, None, (T0, True)),
        ({"state": State.COMPLETED}, State.COMPLETED, Verdict.COMPLETED, None, (T0, True)),
        ({"state": State.CANCELLED, "end_us": T0}, State.CANCELLED, Verdict.CANCELLED, None, (T0, False)),
        ({"state": State.FAILED, "exit_signal": 9}, State.FAILED, Verdict.KILLED_BY_SIGNAL, None, (T0, True)),
        ({"end_us": T0, "exit_code": 3}, State.FAILED, Verdict.FAILED, None, (T0, False)),
        ({"start_us": T0, "end_us": T0 - 9}, State.ENDED, Verdict.UNKNOWN, (T0, False), (T0, True)),
    ],
)
def test_how_a_job_stands_follows_from_what_is_said(
    claims: dict[str, Any], state: State, verdict: Verdict | None, start: Any, end: Any
) -> None:
    """A time that a state needs and nobody told is when the state was told, and called inferred."""
    job = job_of(created(0, **claims))
    assert (job.state, job.verdict) == (state, verdict)
    assert (None if job.start_us is None else (job.start_us, job.start_inferred)) == start
    assert (None if job.end_us is None else (job.end_us, job.end_inferred)) == end
    assert job.state_confirmed is (state in (State.COMPLETED, State.CANCELLED) or claims.get("state") is State.FAILED)
    assert job.ruling.source == ("person" if job.is_over else None)
    assert job.end_not_before_us == (job.start_us if job.end_inferred else None)
    assert job.awaits is None  # Slurm knows nothing of it


def test_a_state_without_a_maker_has_no_time() -> None:
    """As of a job whose making has not arrived yet: what is known is told, and nothing made up."""
    assert standing_of(PeoplesWord()).state is State.PENDING
    only = job_of(amended(0, state=State.RUNNING))
    assert (only.state, only.start_us, only.start_inferred) == (State.RUNNING, T0, True)
    word = PeoplesWord()
    assert standing_of(word).start_us is None
    assert job_of(withdrawn(0)).state is State.PENDING


def test_of_each_field_the_latest_amendment_counts_and_null_takes_back() -> None:
    job = job_of(
        created(0, account="chem", comment="first", cpus_total=4),
        amended(2, account="phys"),
        amended(1, account="bio", comment="second"),
        amended(3, retracted=("cpus_total",)),
    )
    assert (job.facts.account, job.facts.comment, job.facts.cpus_total) == ("phys", "second", None)


def test_an_amendment_counts_before_any_creation_whatever_the_clocks_say() -> None:
    """The one who amends has seen the job; a server's clock may be behind."""
    assert job_of(created(5, account="chem"), amended(1, account="phys")).facts.account == "phys"


def test_the_first_creation_counts_as_a_whole() -> None:
    """Nobody takes a job over by making it again."""
    first, second = created(1, "a", user_name="ada", uid=1), created(2, "b", user_name="eve", uid=2, comment="x")
    for order in ([first, second], [second, first]):
        facts = job_of(*order).facts
        assert (facts.user_name, facts.uid, facts.comment) == ("ada", 1, None)


def test_a_withdrawn_job_stays_withdrawn() -> None:
    """Whatever comes later, also another making of it."""
    story = [created(0), withdrawn(2), amended(3, state=State.RUNNING), created(4, "again"), withdrawn(9)]
    for order in permutations(story):
        job = job_of(*order)
        assert job.withdrawn is not None
        assert (job.withdrawn.stamp.time_us, job.withdrawn.person, job.withdrawn.sent_by) == (T0 + 2, "ada", "uid:1000")
    assert job_of(created(0)).withdrawn is None


def test_the_same_word_again_changes_nothing() -> None:
    run = tell_one([created(0, account="chem"), amended(1, account="phys"), withdrawn(2)])
    for again in (created(0, account="chem"), amended(1, account="phys"), withdrawn(2)):
        assert isinstance(apply(run, again), Duplicate)


def test_what_people_remark_stands_before_slurms_word_and_goes_back_to_it() -> None:
    story = [started("n1", 0), reported(Origin.SLURMDBD, 5, facts=JobFacts(account="chem", comment="by Slurm"))]
    remark = said(EventKind.JOB_AMENDED, 3, job_id=JOB, account="phys", comment="mine")
    back = said(EventKind.JOB_AMENDED, 4, job_id=JOB, retracted=("account",))
    for order in permutations([*story, msgspec.structs.replace(remark, run=1), msgspec.structs.replace(back, run=1)]):
        if order[0].kind is EventKind.JOB_AMENDED:
            continue
        facts = tell_one(order).job.facts
        assert (facts.account, facts.comment, facts.user_name) == ("chem", "mine", "ada")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (said(EventKind.JOB_CREATED, 0, job_id=JOB), "only manual jobs"),
        (said(EventKind.JOB_WITHDRAWN, 0, job_id="local-3"), "only manual jobs"),
        (said(EventKind.JOB_AMENDED, 0, job_id=JOB, partition="p", comment="c"), "not partition"),
        (said(EventKind.JOB_AMENDED, 0, job_id=JOB, retracted=("state",)), "not state"),
        (msgspec.structs.replace(started("n1", 0), job_id=MINE), "by people's word alone"),
        (msgspec.structs.replace(finished("n1", 0), job_id=MINE), "by people's word alone"),
        (msgspec.structs.replace(used("n1", 0, NodeUsage()), job_id=MINE), "by people's word alone"),
    ],
)
def test_what_cannot_be_said_of_a_job_is_rejected(word: Event, reason: str) -> None:
    answer = apply(open_run("c1", word.job_id or "", 1), word)
    assert isinstance(answer, Rejected)
    assert reason in answer.reason


def test_a_remark_without_its_run_begins_none() -> None:
    remark = said(EventKind.JOB_AMENDED, 0, job_id=JOB, comment="x")
    assert about_nothing(remark) == f"no run 1 of {JOB} is held to be amended"
    assert "run 4" in (about_nothing(msgspec.structs.replace(remark, run=4)) or "")
    assert about_nothing(amended(0, comment="x")) is None
    assert about_nothing(started("n1", 0)) is None
    assert isinstance(apply(open_run("c1", JOB, 1), said(EventKind.JOB_AMENDED, 0, job_id=JOB)), Changed | Duplicate)


def test_people_keep_one_run_of_a_job_whatever_nodes_it_has() -> None:
    runs = tell([created(0, nodes=("a", "b")), amended(1, state=State.COMPLETED), amended(2, state=State.RUNNING)])
    assert [run.job.run for run in runs] == [1]
    assert runs[0].job.nodes == ("a", "b")
    assert choose_run([], created(0)) is None


def test_when_a_field_was_last_spoken_of() -> None:
    word = told_by_person(PeoplesWord(), amended(7, account="chem"))
    assert last_said_us(word, Claims(account="x")) == T0 + 7
    assert last_said_us(word, Claims(comment="x")) == 0


def test_times_in_a_jobs_row_are_exact() -> None:
    assert job_of(created(0, submit_us=T0 + 7)).submit_us == T0 + 7
    assert open_run("c1", JOB, 1).job.submit_us is None
    told = tell_one([started("n1", 0), reported(Origin.SLURMDBD, 1, submit_time=-5)]).job
    assert told.submit_us == T0 - 5 * SECOND


def test_what_is_said_survives_bytes() -> None:
    """Of an event, and of a projection; one of before says nothing of people, and stays as it is."""
    word = amended(1, state=State.COMPLETED, nodes=("n1", "n2"), retracted=("account",))
    assert decode(encode(word)) == word
    job = job_of(created(0, account="chem", start_us=T0), word, withdrawn(4))
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job
    again = apply(Run(job=msgspec.json.decode(msgspec.json.encode(job), type=Job)), word)
    assert isinstance(again, Duplicate)
    assert b"people" not in msgspec.json.encode(tell_one([started("n1", 0)]).job)
    broken = encode(word).replace(b'"completed"', b'"done"')
    with pytest.raises(InvalidEvent, match="done"):
        decode(broken)


def test_the_sentence_says_whose_word_it_is() -> None:
    ended = job_of(created(0, start_us=T0 - MINUTE, end_us=T0, state=State.COMPLETED, exit_code=0))
    assert explain(ended) == (
        "The job ended after 1 min with exit code 0. This is people's word, no hook tells of the job."
    )
    unsaid = explain(job_of(created(0, state=State.COMPLETED, start_us=T0 - MINUTE)))
    assert "nobody said when it ended" in unsaid


def test_claims_are_fields_of_which_something_is_said() -> None:
    assert said_fields(Claims(exit_code=0, retracted=("nodes", "no such"))) == ("nodes", "exit_code")
    assert said_fields(Claims()) == ()
    assert facts_of(Claims(account="a", cpus_total=3, start_us=9)) == JobFacts(account="a", cpus_total=3)
    assert claims_of(PeoplesWord()) == Claims()


@pytest.mark.parametrize("text", ["manual-1", "manual-a", "manual-lsf_4711.x-2", "manual-" + "a" * 57])
def test_ids_of_manual_jobs(text: str) -> None:
    assert is_manual(text)
    assert is_manual_id(text)
    assert parse_job_id(text) == JobName(text)


@pytest.mark.parametrize("text", ["manual-", "manual--a", "manual-A", "manual-a b", "manual-é", "manual-" + "a" * 58])
def test_what_is_no_id_of_a_manual_job(text: str) -> None:
    assert not is_manual_id(text)
    with pytest.raises(InvalidEvent, match="manual-NAME"):
        parse_job_id(text)


@pytest.mark.parametrize("text", [None, "slurm-1", "local-1", "manual"])
def test_no_other_job_is_taken_for_a_manual_one(text: str | None) -> None:
    assert not is_manual(text)


moments = st.integers(0, 5)
some_claims = st.fixed_dictionaries(
    {},
    optional={
        "account": st.sampled_from(["a", "b"]),
        "nodes": st.sampled_from([("n1",), ("n1", "n2")]),
        "state": st.sampled_from(State),
        "exit_code": st.sampled_from([0, 1]),
        "submit_us": st.just(T0 - 10),
        "start_us": st.integers(T0 - 5, T0 + 5),
        "end_us": st.integers(T0 - 5, T0 + 5),
        "retracted": st.lists(st.sampled_from(FIELDS), max_size=3, unique=True).map(tuple),
    },
)
kinds = st.sampled_from([EventKind.JOB_CREATED, EventKind.JOB_AMENDED, EventKind.JOB_AMENDED, EventKind.JOB_WITHDRAWN])
words = st.lists(st.tuples(kinds, moments, some_claims), min_size=1, max_size=7)


@given(words, st.randoms(use_true_random=False))
@example([(EventKind.JOB_WITHDRAWN, 0, {}), (EventKind.JOB_CREATED, 0, {"state": State.RUNNING})], None)
def test_the_order_of_arrival_makes_no_difference(story: list[Any], random: Any) -> None:
    """Also where several speak at one moment, and where every word arrives twice."""
    events = [said(kind, at, str(uuid.UUID(int=number)), **claims) for number, (kind, at, claims) in enumerate(story)]
    expected = tell_one(events)
    shuffled = [*events, *events]
    if random is not None:
        random.shuffle(shuffled)
    else:
        shuffled.reverse()
    assert tell_one(shuffled) == expected
    job = expected.job
    assert job.end_us is None or job.start_us is None or job.start_us <= job.end_us
    assert (job.end_us is not None) <= job.is_over
