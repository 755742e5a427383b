"""The projection of a run does not depend on the order in which its events arrive.

Which orders must give the same: where the hooks' events carry SLURM_JOB_START_TIME or a SLUID, all of them. Where they
do not (Slurm before 23.02), those in which each node's events keep their order, and those in which a prolog comes after
its epilog, as it does when the prolog had to leave its event in the spool directory. In both, the collector's usage of
a run follows the event that opened the run on that node, because one writer puts both into one chain.

What does not converge: a node without a prolog (Slurm's default PrologFlags) and without keys, of a requeued job whose
runs follow each other within the difference of clocks. Its epilogs may change places; all runs are over all the same.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import permutations
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from jobtrail.domain.events import Actor, Event, EventKind, NodeUsage
from jobtrail.domain.job import NodeRun, Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.records import EPILOG_SLURMCTLD
from jobtrail.domain.slurm import FINAL_STATES, Origin
from jobtrail.domain.usage import ADDITIVE, PEAKS, merge_reports
from tests.unit.stories import (
    SECOND,
    T0,
    closed,
    event,
    finished,
    found,
    hooked,
    reported,
    started,
    tell,
    tell_one,
    used,
)

STARTS = (EventKind.JOB_STARTED, EventKind.JOB_FOUND)
COLLECTED = (EventKind.CHECKPOINT, EventKind.USAGE_RECORDED, EventKind.JOB_CLOSED)
small = st.integers(0, 50)
maybe = st.none() | small
texts = st.none() | st.sampled_from(["ada", "bob"])
usages = st.builds(
    NodeUsage,
    **dict.fromkeys((*ADDITIVE, *PEAKS), maybe),
    sample_count=small,
    first_sample_us=maybe,
    last_sample_us=maybe,
    last_alive_us=maybe,
    sources=st.dictionaries(st.sampled_from(["usage", "cpu"]), st.sampled_from(["cgroup_v1", "cgroup_v2", "procfs"])),
    absent=st.dictionaries(st.sampled_from(["cpu_usage_us", "io_read_bytes"]), st.sampled_from(["no file", "denied"])),
)
outcomes = st.builds(
    Outcome,
    exit_code=st.sampled_from([None, 0, 1, 42]),
    exit_signal=st.sampled_from([None, 9]),
    out_of_memory=st.booleans(),
)

slurm_outcomes = outcomes | st.builds(Outcome, derived_raw_status=st.sampled_from([0, 9, 253, 768]))


@st.composite
def node_stories(draw: st.DrawFn, node: str, nodes: tuple[str, ...] | None, keys: dict[str, Any]) -> list[Event]:
    """What one node tells of one run, in its own order."""
    facts = st.builds(
        JobFacts, user_name=texts, account=texts, cpus=st.none() | st.integers(1, 8), nodes=st.just(nodes)
    )
    begin = draw(st.integers(0, SECOND))
    told: list[Event] = []
    prolog, find = draw(st.sampled_from([(True, False), (False, True), (True, True), (False, False)]))
    if find:
        told.append(found(node, begin + 2 * SECOND, f"found {node}"))
    if prolog:
        told.append(started(node, begin, f"prolog {node}", facts=draw(facts), **keys))
    opener = told[0].event_id if told else None
    keyed = keys if draw(st.booleans()) else {}
    ends = draw(st.booleans()) or opener is None
    for index in range(draw(st.integers(0, 2)) if opener else 0):
        at = begin + (3 + index) * SECOND
        told.append(used(node, at, draw(usages), f"checkpoint {node} {index}", final=False, opened_by=opener, **keyed))
    if ends:
        end = begin + draw(st.integers(6 * SECOND, 9 * SECOND))
        knows = {"opened_by": opener} if draw(st.booleans()) else {}
        told.append(finished(node, end, f"epilog {node}", nodes=nodes, outcome=draw(outcomes), **keys, **knows))
        if opener and draw(st.booleans()):
            told.append(used(node, end + 1, draw(usages), f"usage {node}", opened_by=opener, **keyed))
    return told


@st.composite
def run_stories(draw: st.DrawFn, keys: dict[str, Any]) -> dict[str, list[Event]]:
    """What each of one to four nodes tells of one run."""
    names = tuple(f"n{number}" for number in range(1, draw(st.integers(1, 4)) + 1))
    listed = names if len(names) > 1 or draw(st.booleans()) else None
    return {node: draw(node_stories(node, listed, keys)) for node in names}


def after_their_openers(events: list[Event]) -> list[Event]:
    """The same order, but what the collector says without Slurm's own keys waits for the event that opened its run.

    And what names a run by its number, as the store gave it, waits for the first word on that run.
    """
    told: list[Event] = []
    waiting: dict[str, list[Event]] = defaultdict(list)
    seen: set[str] = set()
    for one in events:
        keyless = one.slurm_start_time is None and one.sluid is None
        awaited = "" if one.run is not None else one.opened_by if one.kind in COLLECTED and keyless else None
        if awaited is not None and awaited not in seen:
            waiting[awaited].append(one)
            continue
        told += [one, *waiting.pop(one.event_id, []), *waiting.pop("", [])]
        seen |= {one.event_id, ""}
    return told


def interleaved(data: st.DataObject, chains: list[list[Event]]) -> list[Event]:
    """The events of several chains, each chain in its own order."""
    order = data.draw(st.permutations([index for index, chain in enumerate(chains) for _ in chain]))
    rest = [iter(chain) for chain in chains]
    return [next(rest[index]) for index in order]


def with_repeats(data: st.DataObject, events: list[Event]) -> list[Event]:
    """The same events, some of them told again later."""
    for again in data.draw(st.lists(st.sampled_from(events), max_size=3)) if events else ():
        first = events.index(again)
        at = data.draw(st.integers(first + 1, len(events)))
        events = [*events[:at], again, *events[at:]]
    return events


def in_chain_order(story: dict[str, list[Event]]) -> list[Event]:
    return [one for told in story.values() for one in told]


@given(
    st.data(),
    st.sampled_from([{"slurm_start_time": 1_760_000_000}, {"sluid": "sX"}, {"slurm_start_time": 1, "sluid": "sY"}]),
)
def test_with_slurms_keys_every_order_gives_the_same(data: st.DataObject, keys: dict[str, Any]) -> None:
    """Any permutation, with repeats: prologs late, usage early, guesses before or after their confirmation."""
    events = in_chain_order(data.draw(run_stories(keys)))
    expected = tell_one(events)
    shuffled = after_their_openers(with_repeats(data, list(data.draw(st.permutations(events)))))
    assert tell_one(shuffled) == expected


@given(st.data())
def test_without_keys_every_order_that_keeps_each_nodes_own_gives_the_same(data: st.DataObject) -> None:
    """Nodes deliver independently of each other; each delivers its own chain in order."""
    story = data.draw(run_stories({}))
    expected = tell_one(in_chain_order(story))
    assert tell_one(with_repeats(data, interleaved(data, list(story.values())))) == expected


@given(st.data())
def test_a_prolog_that_comes_after_its_epilog_is_the_same_prolog(data: st.DataObject) -> None:
    """The prolog's event lay in the spool directory while the epilog's was posted."""
    names = [f"n{number}" for number in range(1, data.draw(st.integers(1, 4)) + 1)]
    whole: list[list[Event]] = []
    late: list[list[Event]] = []
    for node in names:
        begin = data.draw(st.integers(0, SECOND))
        prolog = started(node, begin, nodes=names)
        epilog = finished(node, begin + 5 * SECOND, nodes=names, outcome=data.draw(outcomes))
        usage = used(node, begin + 5 * SECOND, data.draw(usages), opened_by=prolog.event_id)
        whole.append([prolog, epilog, usage])
        late.append([epilog, prolog, usage] if data.draw(st.booleans()) else whole[-1])
    expected = tell_one([one for told in whole for one in told])
    assert tell_one(interleaved(data, late)) == expected


@given(st.permutations(range(6)))
@example([5, 4, 3, 2, 1, 0])
def test_two_words_on_one_beginning_and_one_end_converge(order: list[int]) -> None:
    """With keys, a second prolog and a second epilog of other ids change nothing but what they add."""
    keys: dict[str, Any] = {"slurm_start_time": 5}
    events = [
        started("n1", 10, "a", nodes=["n1", "n2"], **keys),
        started("n1", 20, "b", nodes=["n1", "n2"], **keys),
        finished("n1", 50, "c", nodes=["n1", "n2"], outcome=Outcome(exit_code=1), **keys),
        finished("n1", 60, "d", nodes=["n1", "n2"], outcome=Outcome(exit_code=2), **keys),
        finished("n2", 40, "e", nodes=["n1", "n2"], outcome=Outcome(exit_code=3), **keys),
        used("n2", 41, NodeUsage(cpu_usage_us=3), "f", **keys),
    ]
    run = tell_one(events[index] for index in order)
    assert run == tell_one(events)
    assert (run.job.start_us, run.job.nodes_started, run.job.nodes_ended) == (events[0].time_us, 1, 2)
    assert run.job.outcome is not None
    assert run.job.outcome.outcome.exit_code == 1  # the batch host's first word
    assert run.job.window_us == 50  # n1 from 10 to 60; n2 told no beginning


def test_a_guess_its_confirmation_and_the_end_converge_in_all_orders() -> None:
    """A cgroup found without a prolog, then the prolog from the spool directory: one run in each of the 120 orders."""
    keys: dict[str, Any] = {"slurm_start_time": 5}
    prolog, guess = started("n1", 10, **keys), found("n1", 20)
    events = [
        prolog,
        guess,
        finished("n1", 50, opened_by=guess.event_id, **keys),
        used("n1", 30, NodeUsage(cpu_usage_us=3, sample_count=1), opened_by=guess.event_id, final=False, **keys),
        used("n1", 51, NodeUsage(cpu_usage_us=9, sample_count=2), opened_by=prolog.event_id, **keys),
    ]
    expected = tell_one(events)
    part = expected.nodes["n1"]
    assert (part.opened_by, part.also_opened_by, part.found) == (prolog.event_id, (guess.event_id,), False)
    for order in permutations(events):
        assert tell_one(order) == expected


@given(st.data())
def test_totals_are_the_sum_over_the_nodes(data: st.DataObject) -> None:
    """Counters add up over nodes, peaks take the largest, and what no node reported stays absent."""
    run = tell_one(in_chain_order(data.draw(run_stories({"slurm_start_time": 1}))))
    reported = [part.usage for part in run.nodes.values() if part.usage is not None]
    assert run.job.nodes_reporting == len(reported)
    assert (run.job.usage is None) == (not reported)
    total = run.job.usage or NodeUsage()
    for name in ADDITIVE:
        known = [getattr(usage, name) for usage in reported if getattr(usage, name) is not None]
        assert getattr(total, name) == (sum(known) if known else None)
    for name in PEAKS:
        known = [getattr(usage, name) for usage in reported if getattr(usage, name) is not None]
        assert getattr(total, name) == max(known, default=None)
    assert total.sample_count == sum(usage.sample_count for usage in reported)
    for name, reason in total.absent.items():
        assert getattr(total, name) is None
        assert reason


@given(st.data())
def test_windows_and_allocations_are_sums_and_never_negative(data: st.DataObject) -> None:
    """`window_us` sums what each node that told both ends was busy; a clock that was set back gives 0, not less."""
    story = in_chain_order(data.draw(run_stories({"slurm_start_time": 1})))
    moved = [
        msgspec.structs.replace(one, time_us=one.time_us - data.draw(st.integers(0, 20 * SECOND))) for one in story
    ]
    run = tell_one(moved)
    assert run.job.window_us == sum(_window(part) for part in run.nodes.values())
    assert run.job.window_us >= 0
    cpus = [part.cpus for part in run.nodes.values() if part.cpus is not None]
    assert run.job.cpus_allocated == (sum(cpus) if cpus else None)
    assert run.job.nodes_started == sum(part.started_us is not None for part in run.nodes.values())
    assert run.job.nodes_ended == sum(part.ended_us is not None for part in run.nodes.values())


def _window(part: NodeRun) -> int:
    return max(0, part.ended_us - part.started_us) if part.started_us is not None and part.ended_us is not None else 0


@given(usages, usages, usages)
def test_reports_merge_alike_in_every_order_and_twice(one: NodeUsage, two: NodeUsage, three: NodeUsage) -> None:
    """Merging is associative, commutative and idempotent: the ground on which all of the above stands."""
    merged = merge_reports(merge_reports(merge_reports(None, one), two), three)
    for first, second, third in permutations((one, two, three)):
        assert merge_reports(merge_reports(merge_reports(None, first), second), third) == merged
    for again in (one, two, three, merged):
        assert merge_reports(merged, again) == merged


def requeued(node: str, runs: int, keys: Callable[[int], dict[str, Any]], nodes: list[str]) -> list[list[Event]]:
    """What `node` tells of several runs of the job, ten seconds each, one after the other."""
    stories = []
    for number in range(runs):
        begin = number * 20 * SECOND
        key = keys(number)
        prolog = started(node, begin, nodes=nodes, **key)
        end = finished(node, begin + 10 * SECOND, nodes=nodes, outcome=Outcome(exit_code=number), **key)
        usage = NodeUsage(cpu_usage_us=1000 + number, sample_count=1)
        stories.append([prolog, end, used(node, begin + 10 * SECOND + 1, usage, opened_by=prolog.event_id, **key)])
    return stories


def by_start(runs: list[Run]) -> list[tuple[object, ...]]:
    """What each run says, whatever its number."""
    ordered = sorted(runs, key=lambda run: run.job.start_us or 0)
    return [(msgspec.structs.replace(run.job, run=0, correlation_id=""), run.nodes) for run in ordered]


@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_requeued_runs_without_keys_stay_apart_however_nodes_interleave(
    data: st.DataObject, runs: int, node_count: int
) -> None:
    """A node that was cut off for the length of a run tells of it later, after the other nodes told of the next."""
    names = [f"n{number}" for number in range(1, node_count + 1)]
    stories = {node: requeued(node, runs, lambda _: {}, names) for node in names}
    chains = [[one for run in stories[node] for one in run] for node in names]
    told = tell(interleaved(data, chains))
    assert len(told) == runs
    expected = tell(one for number in range(runs) for node in names for one in stories[node][number])
    assert by_start(told) == by_start(expected)
    assert [run.job.usage.cpu_usage_us for run in expected if run.job.usage] == [
        node_count * (1000 + number) for number in range(runs)
    ]


@given(st.data(), st.integers(2, 4))
def test_late_prologs_of_requeued_runs_find_their_own_epilog(data: st.DataObject, runs: int) -> None:
    """Epilogs arrive in order, each prolog at any time: before its epilog, or after later runs have come and gone."""
    stories = requeued("n1", runs, lambda _: {}, ["n1"])
    expected = tell(one for prolog, epilog, _ in stories for one in (prolog, epilog))
    told = [epilog for _, epilog, _ in stories]
    for number, (prolog, _, _) in enumerate(stories):
        at_earliest = told.index(stories[number - 1][1]) + 1 if number else 0
        told.insert(data.draw(st.integers(at_earliest, len(told))), prolog)
    assert by_start(tell(told)) == by_start(expected)
    assert len(expected) == runs


@given(st.data(), st.integers(2, 3), st.sampled_from(["slurm_start_time", "sluid"]))
def test_requeued_runs_with_keys_stay_apart_in_every_order(data: st.DataObject, runs: int, key: str) -> None:
    """SLURM_JOB_START_TIME and SLUID differ between the runs of one job id, so order says nothing."""
    names = ["n1", "n2"]
    stories = [
        story
        for node in names
        for story in requeued(node, runs, lambda number: {key: number + 1 if key != "sluid" else f"s{number}"}, names)
    ]
    events = [one for story in stories for one in story]
    shuffled = with_repeats(data, list(data.draw(st.permutations(events))))
    told = tell(shuffled)
    assert len(told) == runs
    assert by_start(told) == by_start(tell(events))


def test_an_epilog_that_comes_late_ends_its_own_run_and_not_the_next() -> None:
    """Run one's epilog lay in the spool directory while run two had begun on the same node."""
    first, second = requeued("n1", 2, lambda _: {}, ["n1"])
    late = [first[0], second[0], first[1], second[1]]
    assert by_start(tell(late)) == by_start(tell([*first[:2], *second[:2]]))


def test_a_node_that_only_ever_tells_ends_gives_each_run_its_own() -> None:
    """Without PrologFlags=Alloc a node on which nothing was launched runs epilogs and no prologs."""
    names = ["n1", "n2"]
    batch = [one for story in requeued("n1", 2, lambda _: {}, names) for one in story[:2]]
    silent = [finished("n2", 11 * SECOND, nodes=names), finished("n2", 31 * SECOND, nodes=names)]
    for order in ([*batch, *silent], [*silent, *batch], [*batch[:2], silent[0], silent[1], *batch[2:]]):
        runs = tell(order)
        assert [(run.job.nodes_started, run.job.nodes_ended) for run in runs] == [(1, 2), (1, 2)], order


def silent_requeue(gap: int) -> tuple[list[Event], list[Event], list[Event]]:
    """A job of two nodes that was requeued: what n1 tells, what n2 does, which runs epilogs only, and accounting.

    Its first run takes ten seconds, the second begins `gap` seconds after the first and takes eight.
    """
    names, nodes = ["n1", "n2"], JobFacts(nodes=("n1", "n2"))
    batch = []
    for begin, end in ((0, 10), (gap, gap + 8)):
        prolog = started("n1", begin * SECOND, nodes=names)
        batch += [prolog, finished("n1", end * SECOND, nodes=names, opened_by=prolog.event_id)]
    silent = [finished("n2", end * SECOND + 100_000, nodes=names) for end in (10, gap + 8)]
    first = {"submit_time": -5, "start_time": 0, "end_time": 10, "facts": nodes}
    second = {"submit_time": 10, "start_time": gap, "end_time": gap + 8, "facts": nodes}
    return (
        batch,
        silent,
        [
            reported(Origin.SLURMDBD, 30 * SECOND, state="REQUEUED", **first),
            reported(Origin.SLURMDBD, (gap + 30) * SECOND, state="COMPLETED", **second),
        ],
    )


@given(st.data(), st.sampled_from([(12, False), (17, True), (130, True), (700, True)]))
def test_a_requeued_job_on_a_node_that_tells_ends_only_converges(data: st.DataObject, gap: tuple[int, bool]) -> None:
    """Slurm 22.05 with its default PrologFlags. Without accounting's word runs may even follow within seconds."""
    batch, silent, words = silent_requeue(gap[0])
    told = [[word] for word in words if gap[1] and data.draw(st.booleans())]
    runs = tell(interleaved(data, [batch, silent, *told]))
    assert by_start(runs) == by_start(tell([*batch, *silent, *(one for [one] in told)]))
    assert [(run.job.nodes_started, run.job.nodes_ended, run.job.is_over) for run in runs] == [(1, 2, True)] * 2


@given(st.data())
def test_runs_within_the_difference_of_clocks_are_over_whatever_the_order(data: st.DataObject) -> None:
    """Where accounting is heard before the nodes, an epilog without a key may be counted to the neighbouring run."""
    batch, silent, words = silent_requeue(12)
    runs = tell(interleaved(data, [batch, silent, *([word] for word in words)]))
    assert len(runs) == 2
    assert all(run.job.is_over and run.job.state_confirmed for run in runs)


def test_a_person_who_confirms_an_end_that_is_known_makes_no_new_run() -> None:
    """A later word by API is about the run that ended, whereas a later epilog is another run's."""
    prolog, epilog = started("n1", 0), finished("n1", 10)
    word = finished("n1", 99, outcome=Outcome(final_state="cancelled"), changed_by=Actor.API)
    run = tell_one([prolog, epilog, word])
    assert (run.job.state, run.job.state_confirmed) == ("cancelled", True)
    assert len(tell([prolog, epilog, event(EventKind.JOB_FINISHED, "n1", 99, changed_by=Actor.SLURM_EPILOG)])) == 2


OPEN_STATES = ("RUNNING", "COMPLETING", "SUSPENDED")
ENDS = sorted(FINAL_STATES)
SUBMITTED = -5


@st.composite
def slurm_words(draw: st.DrawFn, nodes: tuple[str, ...], keys: dict[str, Any]) -> list[Event]:
    """What Slurm says of the run that `run_stories` tells: begun at T0, over within ten seconds."""
    sluid = {"sluid": keys["sluid"]} if "sluid" in keys else {}
    hook_start = {"start_time": 0} if "slurm_start_time" in keys else {}
    known = {"submit_time": SUBMITTED, **sluid}
    first, last = JobFacts(restart_count=0, job_name="a", qos="q"), JobFacts(restart_count=1)
    words = [
        hooked("prolog", 0, facts=first, **hook_start, **sluid),
        hooked("epilog", 9 * SECOND, facts=last, outcome=Outcome(exit_code=0, raw_status=0), **hook_start, **sluid),
        reported(Origin.SLURMCTLD, 4 * SECOND, state=draw(st.sampled_from(OPEN_STATES)), start_time=0, **known),
        reported(
            Origin.SLURMCTLD, 8 * SECOND, state=draw(st.sampled_from(ENDS)), flags=("COMPLETING",), start_time=0,
            **known,
        ),
        reported(
            Origin.SLURMCTLD, 11 * SECOND, state=draw(st.sampled_from(ENDS)), start_time=0, end_time=9,
            outcome=draw(slurm_outcomes), facts=JobFacts(uid=1, time_limit_seconds=60, nodes=nodes), **known,
        ),
        reported(Origin.SLURMDBD, 3 * SECOND, state="RUNNING", start_time=0, **known),
    ]  # fmt: skip
    for origin in (Origin.SLURMDBD, Origin.SACCT):
        for at in (12 * SECOND, 40 * SECOND):
            word = reported(
                origin, at, state=draw(st.sampled_from(ENDS)), start_time=0, end_time=draw(st.integers(7, 9)),
                outcome=draw(slurm_outcomes), cpu_usage_us=draw(maybe), memory_peak_bytes=draw(maybe),
                facts=JobFacts(nodes=nodes), **known,
            )  # fmt: skip
            words.append(word)
    return draw(st.lists(st.sampled_from(words), unique_by=lambda word: word.event_id, max_size=5))


@st.composite
def closings(draw: st.DrawFn, story: dict[str, list[Event]], keys: dict[str, Any]) -> list[Event]:
    """Inferred ends: of nodes that told a beginning, and of the whole run."""
    told = []
    for node, events in story.items():
        opener = next((one.event_id for one in events if one.kind in STARTS), None)
        if opener is not None and draw(st.booleans()):
            key = {"sluid": keys["sluid"]} if "sluid" in keys else {}
            for at in draw(st.lists(st.integers(10 * SECOND, 20 * SECOND), max_size=2, unique=True)):
                told.append(closed(node, at, opened_by=opener, not_before=draw(st.integers(0, SECOND)), **key))
    if draw(st.booleans()):
        told.append(closed("ctl", 30 * SECOND, run=1, reason="unknown_to_slurm", not_before=draw(small)))
    return told


@given(
    st.data(),
    st.sampled_from(
        [{"slurm_start_time": 1_760_000_000}, {"sluid": "sX"}, {"slurm_start_time": 1_760_000_000, "sluid": "sY"}]
    ),
)
def test_slurms_words_and_inferred_ends_converge_with_keys_in_every_order(
    data: st.DataObject, keys: dict[str, Any]
) -> None:
    """Hooks of nodes and of the controller, records of all origins, closings: one run, the same in every order."""
    story = data.draw(run_stories(keys))
    events = [*in_chain_order(story), *data.draw(slurm_words(tuple(story), keys)), *data.draw(closings(story, keys))]
    expected = tell_one(events)
    shuffled = after_their_openers(with_repeats(data, list(data.draw(st.permutations(events)))))
    assert tell_one(shuffled) == expected


@given(st.data())
def test_slurms_words_converge_without_keys_however_chains_interleave(data: st.DataObject) -> None:
    """Slurm 22.05: each node's chain keeps its order; Slurm's words and closings come from others, in any order."""
    story = data.draw(run_stories({}))
    words = [*data.draw(slurm_words(tuple(story), {})), *data.draw(closings(story, {}))]
    expected = tell_one([*in_chain_order(story), *words])
    chains = [*story.values(), *([one] for one in words)]
    assert tell_one(after_their_openers(with_repeats(data, interleaved(data, chains)))) == expected


def words_of_requeued(number: int, nodes: tuple[str, ...], *, keyed: bool) -> list[Event]:
    """What Slurm says of the run `number` of `requeued`, whose hooks are `keyed` from Slurm 23.02 on."""
    begin, last = number * 20, JobFacts(restart_count=number, nodes=nodes)
    end = begin + 10
    start = {"start_time": begin} if keyed else {}
    known = {"submit_time": begin - 3, "start_time": begin, "facts": last}
    state = "FAILED" if number else "REQUEUED"
    return [
        hooked("prolog", begin * SECOND, facts=last, **start),
        reported(Origin.SLURMCTLD, (begin + 2) * SECOND, state="RUNNING", **known),
        hooked("epilog", end * SECOND, facts=JobFacts(restart_count=1), **start),
        reported(Origin.SLURMDBD, (end + 30) * SECOND, state=state, end_time=end, cpu_usage_us=number, **known),
        reported(Origin.SACCT, (end + 90) * SECOND, state=state, end_time=end, **known),
    ]


def counted(stories: list[list[Event]]) -> list[list[Event]]:
    """The same stories, in which each prolog counts the restarts so far and each epilog the next one."""
    told = []
    for number, story in enumerate(stories):
        counts = {EventKind.JOB_STARTED: number, EventKind.JOB_FINISHED: number + 1}
        told.append([with_restarts(one, counts.get(one.kind)) for one in story])
    return told


def with_restarts(one: Event, count: int | None) -> Event:
    if one.facts is None:
        return one
    return msgspec.structs.replace(one, facts=msgspec.structs.replace(one.facts, restart_count=count))


def start_key(number: int) -> dict[str, Any]:
    return {"slurm_start_time": T0 // SECOND + 20 * number}


@given(st.data(), st.integers(1, 2))
def test_slurms_words_find_their_run_of_a_requeued_job_with_keys_in_every_order(
    data: st.DataObject, node_count: int
) -> None:
    """Nothing says which run is meant but start, submission and restart count, and the order says nothing."""
    names = [f"n{number}" for number in range(1, node_count + 1)]
    told = [one for node in names for story in counted(requeued(node, 2, start_key, names)) for one in story]
    words = [one for number in range(2) for one in words_of_requeued(number, tuple(names), keyed=True)]
    chosen = data.draw(st.lists(st.sampled_from(words), unique_by=lambda word: word.event_id))
    events = [*told, *chosen]
    after = tell(with_repeats(data, list(data.draw(st.permutations(events)))))
    assert by_start(after) == by_start(tell(events))
    assert [run.job.facts.restart_count for run in sorted(after, key=lambda run: run.job.start_us or 0)] == [0, 1]


def after_their_run_began(told: list[Event]) -> list[Event]:
    """The same order, but EpilogSlurmctld's word waits for the first prolog of its run of `requeued`."""
    ordered: list[Event] = []
    waiting: dict[int, list[Event]] = defaultdict(list)
    begun: set[int] = set()
    for one in told:
        number = (one.time_us - T0) // (20 * SECOND)
        if one.source == EPILOG_SLURMCTLD and number not in begun:
            waiting[number].append(one)
            continue
        ordered.append(one)
        if one.kind is EventKind.JOB_STARTED:
            begun.add(number)
            ordered += waiting.pop(number, [])
    return ordered


@given(st.data(), st.integers(1, 2))
def test_slurms_words_find_their_run_of_a_requeued_job_without_keys(data: st.DataObject, node_count: int) -> None:
    """Slurm 22.05, whose hooks know no start time: each node and the controller tell in order, however late."""
    names = [f"n{number}" for number in range(1, node_count + 1)]
    stories = {node: counted(requeued(node, 2, lambda _: {}, names)) for node in names}
    words = [one for number in range(2) for one in words_of_requeued(number, tuple(names), keyed=False)]
    chosen = data.draw(st.sets(st.sampled_from(range(len(words)))))
    hooks = [one for index, one in enumerate(words) if index in chosen and one.source.endswith("_slurmctld")]
    others = [[one] for index, one in enumerate(words) if index in chosen and one not in hooks]
    chains = [[one for story in stories[node] for one in story] for node in names]
    in_order = [one for number in range(2) for node in names for one in stories[node][number]]
    expected = tell([*in_order, *hooks, *(one for other in others for one in other)])
    assert len(expected) == 2
    told = after_their_run_began(interleaved(data, [chain for chain in (*chains, hooks, *others) if chain]))
    assert by_start(tell(told)) == by_start(expected)
