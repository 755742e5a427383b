"""Captured clusters told in every order: the runs and their ends are what sacct said at the end of each scenario.

Nodes' hooks are the captured ones, or where none were kept those that slurmd runs: on each node of each run, at its
start and end as accounting has them. Slurm's words are the captured answers of slurmrestd and the rows of sacct, each
given to the run that it describes as the reconciler does, or if there is none to the rules that find one.
"""

import random
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from jobtrail.adapters.slurm_env import hook_decoder
from jobtrail.domain.belonging import refused_part
from jobtrail.domain.events import Actor, Event, EventKind
from jobtrail.domain.hostlist import expand_nodes
from jobtrail.domain.job import Run
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.joining import choose_run
from jobtrail.domain.matching import record_of
from jobtrail.domain.slurm import ENDED_BY_SLURM, FINAL_STATES, Origin, SlurmRecord
from jobtrail.domain.states import State, Verdict
from jobtrail.domain.transitions import Rejected, apply, open_run
from tests.adapters.slurmrest_captures import CAPTURES, SCENARIOS, controller_answer, sacct_rows, seconds

HOOKS = Path(__file__).parent.parent / "fixtures"
SHUFFLES = 12
SECOND = 1_000_000
DECODE = hook_decoder(own_node="ctl")


def id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def captured_hooks(scenario: Path) -> list[Event]:
    """The environments that slurmd gave its hooks; the file names say when."""
    events = []
    for path in sorted((HOOKS / scenario.relative_to(CAPTURES) / "hooks").glob("*.env0")):
        _, moment, hook, _ = path.name.removesuffix(".env0").split("-")
        whole, _, fraction = moment.partition(".")
        time_us = int(whole) * SECOND + int(fraction[:6])
        events.append(DECODE(hook, path.read_bytes(), event_id=id_of(str(path)), time_us=time_us))
    return events


def accounted(scenario: Path) -> list[SlurmRecord]:
    """The rows of sacct as records, oldest run first."""
    records = []
    for (job_id, submit), [row, *_] in sacct_rows(scenario).items():
        node_list = None if row["NodeList"] == "None assigned" else row["NodeList"]
        nodes = None if node_list is None else expand_nodes("NodeList", node_list)
        records.append(
            SlurmRecord(
                origin=Origin.SACCT,
                job_id=job_id,
                state=row["State"].partition(" ")[0],
                submit_time=submit,
                start_time=seconds(row["Start"]),
                end_time=seconds(row["End"]),
                facts=JobFacts(nodes=nodes, node_list=node_list),
            )
        )
    return sorted(records, key=lambda record: record.submit_time or 0)


def hooks_of(record: SlurmRecord, ended: SlurmRecord | None, *, keyed: bool) -> list[Event]:
    """What slurmd's hooks tell of a run: its prologs and epilogs, with an exit status where the job had its own."""
    nodes = record.facts.nodes or ()
    outcome = Outcome(exit_code=0, raw_status=0)
    if ended is not None and record.state not in ENDED_BY_SLURM:
        outcome = ended.outcome
    events = []
    for node in nodes:
        for kind, actor, at, after_us in (
            (EventKind.JOB_STARTED, Actor.SLURM_PROLOG, record.start_time, 300_000),
            (EventKind.JOB_FINISHED, Actor.SLURM_EPILOG, record.end_time, 700_000),
        ):
            name = f"{kind} {node} {record.job_id} {record.submit_time}"
            events.append(
                Event(
                    kind=kind,
                    event_id=id_of(name),
                    time_us=(at or 0) * SECOND + after_us,
                    cluster="c1",
                    job_id=record.job_id,
                    node=node,
                    changed_by=actor,
                    source="hook",
                    slurm_start_time=record.start_time if keyed else None,
                    facts=JobFacts(nodes=nodes, cpus=1),
                    outcome=outcome if kind is EventKind.JOB_FINISHED else None,
                )
            )
    return events


def word_on(record: SlurmRecord, number: int) -> Event:
    """The reconciler's event of a record, not yet given to a run."""
    return Event(
        kind=EventKind.SLURM_REPORTED,
        event_id=id_of(f"{record.origin} {record.job_id} {record.submit_time} {number}"),
        time_us=((record.end_time or record.start_time or record.submit_time or 0) + 60) * SECOND + number,
        cluster="c1",
        job_id=record.job_id,
        node="server",
        changed_by=Actor.RECONCILER,
        source=str(record.origin),
        slurm=record,
    )


def controllers_words(scenario: Path) -> list[SlurmRecord]:
    """What the newest version of slurmrestd said of jobs, at each stage of the scenario."""
    newest: dict[str, Path] = {}
    for path in sorted(scenario.glob("*.rest-jobs-v*.json")):
        newest[path.name.partition(".")[0]] = path
    return [record for path in newest.values() for record in controller_answer(path).records]


def replay(events: Iterable[Event]) -> dict[str, list[Run]]:
    """The runs of each job after the events, taken in as a store does."""
    jobs: dict[str, list[Run]] = defaultdict(list)
    for one in events:
        assert one.job_id is not None
        runs = jobs[one.job_id]
        event = one if one.slurm is None else numbered(runs, one, one.slurm)
        if event is None:
            continue
        chosen = choose_run(runs, event)
        assert refused_part(runs, chosen, event) is None  # no node of a real cluster is taken for a stranger
        result = apply(chosen or open_run("c1", one.job_id, len(runs) + 1), event, created=chosen is None)
        assert not isinstance(result, Rejected)
        kept = [run for run in runs if run.job.run != result.run.job.run]
        jobs[one.job_id] = sorted([*kept, result.run], key=lambda run: run.job.run)
    return jobs


def numbered(runs: list[Run], word: Event, record: SlurmRecord) -> Event | None:
    """The word with the run it describes; without, of a job that began or is over; None where it says too little."""
    for run in runs:
        if record_of(run.job, [record]) is not None:
            return msgspec.structs.replace(word, run=run.job.run)
    return word if record.is_final or (record.is_running and record.start_time is not None) else None


def in_some_order(events: list[Event], chance: random.Random) -> list[Event]:
    """Any order where hooks know the job's start; else each node's own, and Slurm's words anywhere."""
    if any(one.slurm_start_time is not None for one in events):
        return chance.sample(events, len(events))
    chains: dict[str, list[Event]] = defaultdict(list)
    for one in sorted(events, key=lambda one: one.time_us):
        chains[one.event_id if one.slurm is not None else one.node].append(one)
    order = [name for name, chain in chains.items() for _ in chain]
    chance.shuffle(order)
    return [chains[name].pop(0) for name in order]


def summary(runs: list[Run]) -> list[tuple[State, Verdict | None, int | None, str | None]]:
    ordered = sorted(runs, key=lambda run: run.job.submit_time or 0)
    return [(run.job.state, run.job.verdict, run.job.submit_time, run.job.ruling.raw_state) for run in ordered]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_scenario_ends_as_sacct_says_in_every_order(scenario: Path) -> None:
    """As many runs as rows, each with its state, whatever came first."""
    rows = accounted(scenario)
    final = [record for record in rows if record.is_final]
    controllers = controllers_words(scenario)
    keyed = "24.11" in str(scenario)
    hooks = captured_hooks(scenario)
    for record in [] if hooks else final:
        same = [
            one
            for one in controllers
            if one.is_final and (one.job_id, one.submit_time) == (record.job_id, record.submit_time)
        ]
        hooks += hooks_of(record, same[0] if same else None, keyed=keyed)
    words = [word_on(record, number) for number, record in enumerate([*controllers, *rows])]
    chance = random.Random(scenario.name)
    for _ in range(SHUFFLES):
        jobs = replay(in_some_order([*hooks, *words], chance))
        for job_id in {record.job_id for record in final}:
            expected = [record for record in final if record.job_id == job_id]
            found = summary(jobs[job_id])
            assert [(submit, raw) for _, _, submit, raw in found] == [(one.submit_time, one.state) for one in expected]
            for (state, verdict, _, _), record in zip(found, expected, strict=True):
                assert record.state is not None
                final_state, final_verdict = FINAL_STATES[record.state]
                assert state is final_state
                assert verdict in (final_verdict, Verdict.KILLED_BY_SIGNAL if final_verdict is Verdict.FAILED else None)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: "/".join(path.parts[-2:]))
def test_hooks_alone_call_nothing_a_success(scenario: Path) -> None:
    """Without Slurm's word a run is ended with an unknown outcome, or failed by its own exit status."""
    rows = [record for record in accounted(scenario) if record.is_final]
    hooks = captured_hooks(scenario) or [one for record in rows for one in hooks_of(record, None, keyed=False)]
    for runs in replay(hooks).values():
        for run in runs:
            assert (run.job.state, run.job.state_confirmed, run.job.awaits) == (State.ENDED, False, "outcome")


def test_there_are_scenarios_of_both_releases_and_captured_hooks() -> None:
    """The parametrised tests have something to run on."""
    releases = {scenario.parent.name: 0 for scenario in SCENARIOS}
    for scenario in SCENARIOS:
        releases[scenario.parent.name] += bool(captured_hooks(scenario))
    assert releases == {"slurm-22.05": 14, "slurm-24.11": 6}
