"""What Slurm says of the runs becomes events; what nobody knows is closed; nothing is asked more than it must be."""

import asyncio
import itertools

import msgspec

from jobtrail.core.facts import EventRejected, RunClosed, SlurmAskFailed, SlurmRecordUnreadable
from jobtrail.core.slurm.reconciler import FEW_JOBS, RUNS_BETWEEN_PAUSES
from jobtrail.core.slurm.silence import FEW_UNKNOWN
from jobtrail.domain.errors import SlurmDenied, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, Unreadable
from jobtrail.domain.states import State, Verdict
from tests.unit import moved_time
from tests.unit.slurm_world import CLUSTER, NODE, World

DBD = Origin.SLURMDBD
SILENT_SECONDS = 5 * 180


async def ended(world: World, number: int = 7) -> int:
    """A job that ran for ten seconds and whose epilog said 0:0; the first comparison is behind it. Its start."""
    await world.turn()
    start = world.now
    world.prolog(number)
    world.clock.advance(10)
    world.epilog(number)
    world.usage(number)
    world.slurm.asked.clear()
    return start


async def test_a_cancelled_job_is_told_from_a_success() -> None:
    world = World()
    start = await ended(world)
    assert world.job(7).state is State.ENDED
    world.slurm.current = [
        world.record(7, "CANCELLED", start_time=start, end_time=world.now, outcome=Outcome(exit_signal=15))
    ]
    await world.turn()
    job = world.job(7)
    assert (job.state, job.verdict, job.state_confirmed) == (State.CANCELLED, Verdict.CANCELLED, True)
    assert (job.ruling.exit_code, job.ruling.exit_signal, job.ruling.source) == (None, 15, "slurmctld")
    assert world.slurm.asked == ["job 7"], "one job is asked about alone"


async def test_what_the_hooks_do_not_know_is_filled_in_while_the_job_runs() -> None:
    world = World()
    await world.turn()
    start = world.now
    world.prolog(7)
    world.slurm.current = [
        world.record(7, "RUNNING", start_time=start, submit_time=start - 5, facts=JobFacts(qos="night", job_name="x"))
    ]
    await world.turn()
    job = world.job(7)
    assert (job.facts.qos, job.facts.job_name, job.submit_time, job.state) == ("night", "x", start - 5, State.RUNNING)
    assert job.awaits == "end"
    events = len(world.store.events)
    await world.turn(200)
    assert len(world.store.events) == events, "a comparison that finds nothing new says nothing"


async def test_many_ends_are_one_question() -> None:
    world = World()
    await world.turn()
    start = world.now
    for number in range(FEW_JOBS + 1):
        world.prolog(number)
        world.epilog(number)
        world.usage(number)
    world.slurm.asked.clear()
    world.slurm.current = [
        world.record(number, "COMPLETED", start_time=start, end_time=start) for number in range(FEW_JOBS + 1)
    ]
    await world.turn()
    assert world.slurm.asked == ["jobs"]
    assert all(world.job(number).state is State.COMPLETED for number in range(FEW_JOBS + 1))
    world.slurm.asked.clear()
    await world.turn()
    assert world.slurm.asked == [], "what is settled is not asked about"


async def test_a_job_still_completing_is_asked_about_again_ever_more_rarely() -> None:
    world = World()
    start = await ended(world)
    world.slurm.current = [world.record(7, "COMPLETING", start_time=start)]
    times = []
    for _ in range(24):
        before = len(world.slurm.asked)
        await world.turn()
        times += [world.clock.monotonic()] * (len(world.slurm.asked) - before)
    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert gaps == [5, 5, 10, 20, 40]
    assert world.job(7).state is State.ENDED


async def test_after_the_controller_forgot_a_job_accounting_is_asked() -> None:
    world = World()
    start = await ended(world)
    world.slurm.history = [world.record(7, "TIMEOUT", origin=DBD, start_time=start, end_time=world.now)]
    await world.turn()
    assert world.job(7).verdict is Verdict.TIMEOUT
    assert world.slurm.asked == ["job 7", "history 7"]


async def test_estimated_usage_is_replaced_by_accountings() -> None:
    world = World()
    await world.turn()
    start = world.now
    world.prolog(7)
    world.epilog(7)
    world.usage(7, "parent_counter_shared_by_3")
    world.slurm.current = [world.record(7, "COMPLETED", start_time=start, end_time=start)]
    world.slurm.history = [
        world.record(7, "COMPLETED", origin=DBD, start_time=start, end_time=start, cpu_usage_us=5, memory_peak_bytes=9)
    ]
    await world.turn()
    await world.turn()
    usage = world.job(7).total_usage
    assert usage is not None
    assert (usage.cpu_usage_us, usage.sources["cpu"], usage.memory_peak_bytes) == (5, "slurm_accounting", 9)
    assert world.job(7).awaits is None


async def test_a_requeued_run_is_told_by_accounting() -> None:
    world = World()
    start = await ended(world)
    world.slurm.current = [world.record(7, "PENDING", submit_time=world.now, facts=JobFacts(restart_count=1))]
    world.slurm.history = [
        world.record(7, "REQUEUED", origin=DBD, submit_time=start - 1, start_time=start, end_time=world.now),
        world.record(7, "PENDING", origin=DBD, submit_time=world.now),
    ]
    await world.turn()
    assert [job.verdict for job in world.store.jobs("slurm-7")] == [Verdict.REQUEUED]


async def test_without_accounting_a_later_submission_tells_that_the_run_was_taken_back() -> None:
    world = World(accounting=False)
    await ended(world)
    world.slurm.current = [
        world.record(7, "PENDING", submit_time=world.now, facts=JobFacts(restart_count=1, qos="low", nodes=("n9",)))
    ]
    await world.turn()
    job = world.job(7)
    assert (job.verdict, job.facts.qos, job.facts.nodes) == (Verdict.REQUEUED, "low", (NODE,))
    assert len(world.store.jobs("slurm-7")) == 1


async def test_the_state_of_a_failed_node_is_kept_as_evidence() -> None:
    world = World()
    start = await ended(world)
    facts = JobFacts(nodes=(NODE,))
    world.slurm.current = [world.record(7, "NODE_FAIL", start_time=start, end_time=world.now, facts=facts)]
    await world.turn()
    assert world.job(7).verdict is Verdict.NODE_FAIL
    assert world.job(7).words[0].record.node_states == {NODE: "down"}
    sent = len(world.store.events)
    await world.reconciler._words.about(world.job(7), world.slurm.current[0])
    assert len(world.store.events) == sent, "the same word, whatever the node is now"


async def test_a_run_that_only_slurm_told_of_is_closed_between_its_submission_and_now() -> None:
    world = World()
    await world.turn()
    world.slurm.current = [world.record(5, "RUNNING", submit_time=world.now, facts=JobFacts(nodes=(NODE,)))]
    await world.reconciler._words.of_unannounced(world.slurm.current[0], CLUSTER)
    world.slurm.current = []
    submitted = world.now
    await world.turn(SILENT_SECONDS)
    await world.turn(180)
    assert world.job(5).end_not_before_us == submitted * 1_000_000


async def test_an_end_nobody_can_explain_stays_unknown() -> None:
    world = World(accounting=False)
    await ended(world)
    await world.turn()
    assert (world.job(7).state, world.job(7).verdict) == (State.ENDED, Verdict.UNKNOWN)


async def quietly(world: World, *numbers: int) -> int:
    """Jobs that began long enough ago that nothing speaks for their life, after one comparison. Their start in µs."""
    await world.turn()
    for number in numbers:
        world.prolog(number)
    started = world.clock.time_us()
    await world.turn(SILENT_SECONDS)
    return started


async def test_a_run_nobody_knows_is_closed_at_the_second_comparison() -> None:
    world = World()
    started = await quietly(world, 7)
    assert world.job(7).state is State.RUNNING, "one look is not enough"
    await world.turn(180)
    job = world.job(7)
    assert (job.state, job.verdict, job.end_inferred) == (State.ENDED, Verdict.UNKNOWN, True)
    assert job.end_not_before_us == started
    assert job.end_us == world.clock.time_us()
    assert [fact.reason for fact in world.facts.of(RunClosed)] == ["unknown_to_slurm"]


async def test_a_run_closed_by_mistake_goes_on_when_slurm_says_again_what_it_said_before() -> None:
    world = World()
    started = await quietly(world, 7)
    known = world.record(7, "RUNNING", start_time=started // 1_000_000)
    world.slurm.current = [known]
    await world.turn(180)
    world.slurm.current = []
    for _ in range(3):
        await world.turn(180)
    assert world.job(7).end_inferred
    world.slurm.current = [known]
    await world.turn(700)
    assert (world.job(7).state, world.job(7).end_us) == (State.RUNNING, None)


async def test_a_run_that_was_measured_of_late_is_not_closed_whatever_slurm_says() -> None:
    world = World()
    await quietly(world, 7)
    for _ in range(4):
        world.checkpoint(7)
        await world.turn(180)
    assert world.job(7).state is State.RUNNING
    await world.turn(SILENT_SECONDS)
    await world.turn(180)
    assert world.job(7).state is State.ENDED


async def test_where_slurm_knows_fewer_runs_than_not_nothing_is_closed() -> None:
    """A user who sees only his own jobs (PrivateData) asks, or another cluster's slurmrestd is asked."""
    world = World()
    await quietly(world, *range(FEW_UNKNOWN + 1))
    await world.turn(180)
    assert all(world.job(number).state is State.RUNNING for number in range(FEW_UNKNOWN + 1))
    world.slurm.current = [world.record(0, "RUNNING", start_time=world.job(0).start_us // 1_000_000)]  # type: ignore[operator]
    await world.turn(180)
    await world.turn(180)
    assert [world.job(number).state for number in range(3)] == [State.RUNNING, State.ENDED, State.ENDED]


async def test_a_mention_of_a_later_run_does_not_keep_an_earlier_one_open() -> None:
    world = World()
    started = await quietly(world, 7)
    later = {"submit_time": started // 1_000_000 + 3600, "start_time": started // 1_000_000 + 3600}
    world.slurm.current = [world.record(7, "RUNNING", facts=JobFacts(nodes=("n2",), restart_count=1), **later)]
    world.slurm.history = [world.record(7, "RUNNING", origin=DBD, **later)]
    await world.turn(180)
    await world.turn(180)
    first = world.store.jobs("slurm-7")[0]
    assert (first.state, first.end_inferred) == (State.ENDED, True)


async def test_a_run_that_was_seen_again_is_not_closed() -> None:
    world = World()
    await world.turn()
    start = world.now
    world.prolog(7)
    await world.turn(SILENT_SECONDS)
    world.slurm.current = [world.record(7, "RUNNING", start_time=start)]
    await world.turn(180)
    world.slurm.current = []
    await world.turn(180)
    assert world.job(7).state is State.RUNNING


async def test_a_job_slurm_speaks_of_is_not_unknown_even_when_the_run_does_not_match() -> None:
    world = World()
    await world.turn()
    world.prolog(7)
    world.slurm.current = [world.record(7, "RUNNING", start_time=world.now + 200)]
    await world.turn(SILENT_SECONDS)
    for _ in range(3):
        await world.turn(180)
    assert world.job(7).state is State.RUNNING


async def test_a_record_that_cannot_be_read_keeps_its_job_open() -> None:
    world = World()
    await world.turn()
    world.prolog(7)
    world.prolog(8)
    world.slurm.unreadable = [Unreadable(path="jobs[0].job_state", reason="is a boat", job_id="slurm-7")]
    await world.turn(SILENT_SECONDS)
    await world.turn(180)
    assert (world.job(7).state, world.job(8).state) == (State.RUNNING, State.ENDED)
    assert [fact.path for fact in world.facts.of(SlurmRecordUnreadable)] == ["jobs[0].job_state"] * 2
    world.slurm.unreadable = [Unreadable(path="jobs[0]", reason="is a boat")]
    world.prolog(9)
    await world.turn(SILENT_SECONDS)
    for _ in range(3):
        await world.turn(180)
    assert world.job(9).state is State.RUNNING, "the unreadable record may be any job's"


async def test_a_silent_slurm_closes_nothing() -> None:
    world = World()
    await quietly(world, 7)
    world.slurm.problem = SlurmUnavailable("no answer")
    for _ in range(3):
        await world.turn(180)
    world.slurm.problem, world.slurm.history_problem = None, SlurmUnavailable("no accounting")
    for _ in range(3):
        await world.turn(180)
    assert world.job(7).state is State.RUNNING
    assert {fact.question for fact in world.facts.of(SlurmAskFailed)} == {"jobs", "accounting"}
    assert world.reconciler.last_problem == "no accounting"


async def test_while_the_controller_is_silent_accounting_tells_what_is_over() -> None:
    world = World()
    start = await ended(world)
    world.prolog(8)
    world.slurm.problem = SlurmDenied("bad token")
    world.slurm.history = [world.record(7, "CANCELLED", origin=DBD, start_time=start, end_time=world.now)]
    await world.turn()
    assert world.job(7).verdict is Verdict.CANCELLED
    assert world.slurm.asked[-1] == "history 7", "what goes on may not be in accounting yet"
    assert world.reconciler.last_problem == "bad token"


async def test_a_problem_stays_until_slurm_answers_and_then_all_is_asked_at_once() -> None:
    world = World()
    start = await ended(world)
    world.slurm.problem = SlurmUnavailable("away")
    for _ in range(120):
        await world.turn()
        assert world.reconciler.last_problem == "away"
    asked = len(world.slurm.asked)
    assert asked < 40, "a Slurm that is away is asked ever more rarely"
    world.slurm.problem = None
    world.slurm.current = [world.record(7, "COMPLETED", start_time=start, end_time=start + 10)]
    for _ in range(13):
        await world.turn()
    assert world.job(7).state is State.COMPLETED, "within a minute"
    assert world.reconciler.last_problem is None


async def test_without_accounting_at_the_site_the_controller_alone_decides() -> None:
    world = World()
    await quietly(world, 7)
    world.slurm.history_problem = SlurmHasNone("accounting_storage/none")
    await world.turn(180)
    await world.turn(180)
    assert world.job(7).end_inferred
    await world.turn()
    world.prolog(8)
    world.clock.advance(10)
    world.epilog(8)
    world.clock.advance(10)
    world.slurm.current = [world.record(8, "PENDING", submit_time=world.now)]
    await world.turn()
    assert world.job(8).verdict is Verdict.REQUEUED
    assert world.reconciler.last_problem is None


async def test_records_of_another_cluster_are_left_out_unless_the_settings_name_it() -> None:
    for checked, verdict in ((True, Verdict.UNKNOWN), (False, Verdict.CANCELLED)):
        world = World(check_cluster=checked)
        start = await ended(world)
        record = world.record(7, "CANCELLED", start_time=start, end_time=world.now)
        world.slurm.current = [msgspec.structs.replace(record, cluster="other")]
        await world.turn()
        assert world.job(7).verdict is verdict
        assert (world.reconciler.last_problem is None) is not checked


async def test_only_the_leader_asks_and_who_is_alone_leads() -> None:
    for lone, asked in ((False, []), (True, ["job 7", "history 7"])):
        world = World(lone=lone)
        await ended(world)
        world.leading = False
        await world.turn()
        assert world.slurm.asked == asked
        assert (world.reconciler.pending_jobs is None) is not lone


async def test_thousands_of_runs_leave_room_for_hooks() -> None:
    world = World()
    await world.turn()
    for number in range(RUNS_BETWEEN_PAUSES * 2):
        world.prolog(number)
    others = 0

    async def hook() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(hook())
    await world.turn(180)
    waiting.cancel()
    assert others >= 2


async def test_an_end_long_ago_is_still_asked_about_from_its_start() -> None:
    world = World(controller=False)
    start = await ended(world)
    world.clock.advance(8 * 86_400)
    world.slurm.history = [world.record(7, "CANCELLED", origin=DBD, start_time=start, end_time=start + 10)]
    await world.turn()
    assert world.job(7).verdict is Verdict.CANCELLED
    assert world.slurm.since <= start


async def test_accounting_alone_confirms_and_closes_too() -> None:
    world = World(controller=False)
    start = await ended(world)
    world.slurm.history = [world.record(7, "FAILED", origin=Origin.SACCT, start_time=start, end_time=world.now)]
    world.prolog(8)
    world.prolog(9)
    await world.turn()
    assert world.job(7).verdict is Verdict.FAILED
    await world.turn(SILENT_SECONDS)
    await world.turn(180)
    assert not world.job(8).end_inferred, "accounting alone may lag behind: it has to know as many as it does not"
    world.slurm.history = [world.record(9, "RUNNING", origin=Origin.SACCT, start_time=start + 10)]
    for _ in range(2):
        await world.turn(180)
    assert world.job(8).end_inferred
    assert not world.job(9).end_inferred
    assert world.reconciler.pending_jobs is None


async def test_jobs_no_hook_told_of_are_taken_up() -> None:
    world = World()
    await world.turn()
    start = world.now
    world.slurm.current = [
        world.record(1, "RUNNING", submit_time=start, start_time=start, facts=JobFacts(nodes=(NODE,), user_name="bob")),
        world.record(2, "CANCELLED", submit_time=start, end_time=start, facts=JobFacts(user_name="bob")),
        world.record(3, "PENDING", submit_time=start, facts=JobFacts(user_name="bob")),
        world.record(4, "RUNNING", submit_time=start + 150, start_time=start + 150),
    ]
    await world.turn(180)
    assert sorted(world.store.runs) == ["slurm-1", "slurm-2"], "the young one's prolog may be on its way"
    assert (world.job(1).state, world.job(1).start_us) == (State.RUNNING, start * 1_000_000)
    cancelled = world.job(2)
    assert (cancelled.state, cancelled.verdict, cancelled.start_us) == (State.CANCELLED, Verdict.CANCELLED, None)
    assert world.reconciler.pending_jobs == 1
    await world.turn(180)
    assert sorted(world.store.runs) == ["slurm-1", "slurm-2", "slurm-4"]
    told = len(world.store.events)
    await world.turn(180)
    assert len(world.store.events) == told


async def test_a_known_run_is_not_taken_up_twice() -> None:
    world = World()
    start = await ended(world)
    world.slurm.current = [world.record(7, "COMPLETED", submit_time=start, start_time=start, end_time=start + 10)]
    await world.turn()
    assert world.job(7).awaits is None
    for _ in range(2):
        await world.turn(180)
    assert len(world.store.jobs("slurm-7")) == 1


async def test_a_word_is_sent_once_however_slow_the_store_is() -> None:
    world = World()
    start = await ended(world)
    world.slurm.current = [world.record(7, "COMPLETED", start_time=start, end_time=start + 10)]
    before = dict(world.store.runs)
    await world.turn()
    sent = len(world.store.events)
    world.store.runs = before
    await world.turn()
    assert len(world.store.events) == sent
    world.store.runs = before
    await world.turn(700)
    assert len(world.store.events) == sent + 1, "what did not arrive in ten minutes is sent again"


async def test_without_a_cluster_nothing_is_asked() -> None:
    world = World()
    world.cluster = None
    await world.turn()
    assert world.slurm.asked == []
    assert "cluster" in str(world.reconciler.last_problem)


def test_the_loop_goes_on_through_every_trouble() -> None:
    world = World()

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(world.reconciler.run(stop))
        world.store.unavailable = True
        await asyncio.sleep(6)
        assert world.reconciler.last_problem == "away"
        world.store.unavailable, world.store.full = False, True
        world.prolog(7)
        world.slurm.current = [world.record(7, "RUNNING", start_time=world.now)]
        await asyncio.sleep(6)
        assert world.facts.of(EventRejected)[0].reason == "spool_full"
        world.store.full = False
        await asyncio.sleep(20)
        assert world.job(7).awaits == "end"
        assert world.reconciler.last_problem is None
        stop.set()
        await task

    moved_time.run(world.clock, main())
