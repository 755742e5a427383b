"""The books of a run: sums, evidence, errors, ends; and whose process is whose."""

from typing import Any

import msgspec
import pytest

from jobtrail.core.gpu.books import EmissionSettings, EnergyBook, GpuBook, Held, RunBooks, node_share_of
from jobtrail.core.gpu.owners import Owners
from jobtrail.core.gpu.ports import ProcessPlace, gpu_hook_of
from jobtrail.core.gpu.watch import GpuRhythm
from jobtrail.core.ports import OpenRun
from jobtrail.domain.energy import Limits, Method, Span
from jobtrail.domain.energy_account import ALONE
from jobtrail.domain.events import Actor, Event, EventKind, GpuUsage, NodeUsage, Whereabouts
from jobtrail.domain.gpu_allocation import HookValues
from jobtrail.domain.gpus import Gpu, GpuEvent, GpuReading
from jobtrail.domain.job_facts import JobFacts
from tests.unit.runs import open_run

GPU = Gpu(gpu_id="GPU-a", vendor="nvidia")
LIMITS = Limits.of_interval(10)


def reading(time_us: int, **values: object) -> GpuReading:
    """A look at GPU-a."""
    return msgspec.structs.replace(GpuReading(gpu=GPU, time_us=time_us), **values)


def look(book: GpuBook, time_us: int, *, ended_us: int | None = None, **values: object) -> None:
    """One more look."""
    book.look(Held(reading=reading(time_us, **values)), LIMITS, ended_us=ended_us)


def test_errors_are_counted_by_code_and_not_without_end() -> None:
    """A driver that makes up codes fills nothing."""
    book = GpuBook(GpuUsage(gpu_id="GPU-a"))
    look(book, 1)
    look(book, 2, events=tuple(GpuEvent(time_us=1, code=code) for code in (79, 79, *range(200, 300))))
    assert book.usage.errors["79"] == 2
    assert len(book.usage.errors) == 64


def test_errors_of_before_a_run_are_not_its_own() -> None:
    """The first look of a run tells what happened since the last look at the run before."""
    book = GpuBook(GpuUsage(gpu_id="GPU-a"))
    look(book, 1, events=(GpuEvent(time_us=1, code=79),))
    assert book.usage.errors == {}


def test_errors_of_a_board_are_those_of_its_instances() -> None:
    book = GpuBook(GpuUsage(gpu_id="MIG-a"))
    whole = reading(2, events=(GpuEvent(time_us=2, code=79),))
    for time_us, board in ((1, None), (2, whole)):
        book.look(Held(reading=reading(time_us), board=board), LIMITS, ended_us=None)
    assert book.usage.errors == {"79": 1}


def test_the_first_evidence_stays() -> None:
    """However often it is told."""
    book = GpuBook(GpuUsage(gpu_id="GPU-a"))
    book.note_mismatch("x" * 1000)
    book.note_mismatch("y")
    assert book.usage.mismatch == "x" * 300


def test_time_after_the_end_is_not_the_runs() -> None:
    """Its energy is: it is that of milliseconds."""
    book = GpuBook(GpuUsage(gpu_id="GPU-a"))
    look(book, 10, energy_microjoules=100, utilization_percent=100.0)
    look(book, 20, ended_us=15, energy_microjoules=300, utilization_percent=100.0)
    had = book.usage
    assert (had.energy_microjoules, had.energy_covered_us, had.observed_us, had.busy_us) == (200, 5, 5, 5)
    look(book, 30, ended_us=20, energy_microjoules=400)
    assert book.usage.energy_microjoules == 200


def test_the_largest_memory_use_stays() -> None:
    """Of one GPU, and of all of a run."""
    books = RunBooks(open_run())
    for time_us, used in ((1, 5), (2, 9), (3, 4)):
        look(books.gpu("GPU-a"), time_us, memory_used_bytes=used)
    assert books.usage(NodeUsage(), EmissionSettings()).gpu_memory_peak_bytes == 9


def test_memory_that_nobody_used_is_nought_and_not_unknown() -> None:
    books = RunBooks(open_run())
    assert books.usage(NodeUsage(), EmissionSettings()).gpu_memory_peak_bytes is None
    look(books.gpu("GPU-a"), 1, memory_used_bytes=0)
    assert books.usage(NodeUsage(), EmissionSettings()).gpu_memory_peak_bytes == 0


MOMENTARY = {"absent": {"utilization_percent": "timeout"}}
NEVER = {"absent": {"utilization_percent": "not_supported: no such file"}}


@pytest.mark.parametrize(
    ("looks", "observed_us", "busy_us", "unused_us"),
    [
        # Utilisation that fails for the moment, at the begin: that time is no part of the mean.
        ([MOMENTARY, MOMENTARY, {"utilization_percent": 100.0}, {"utilization_percent": 100.0}], 10, 10, 10),
        ([{"utilization_percent": 100.0}, {"utilization_percent": 100.0}, MOMENTARY, MOMENTARY], 10, 10, 10),
        # A GPU that never tells it was looked at all the same; then how busy it was stays unknown.
        ([NEVER, NEVER, NEVER], 20, None, 20),
        ([NEVER, NEVER, {"utilization_percent": 100.0}, {"utilization_percent": 100.0}], 20, None, 20),
        ([NEVER, MOMENTARY, NEVER], None, None, None),
    ],
)
def test_the_mean_utilisation_is_of_the_time_in_which_it_was_known(
    looks: list[dict[str, Any]], observed_us: int | None, busy_us: int | None, unused_us: int | None
) -> None:
    """What is busy or unused is never of more time than was observed."""
    book = GpuBook(GpuUsage(gpu_id="GPU-a"))
    for number, values in enumerate(looks):
        book.look(Held(reading=reading(10 * number, **values), active=False), LIMITS, ended_us=None)
    had = book.usage
    assert (had.observed_us, had.busy_us, had.unused_us) == (observed_us, busy_us, unused_us)


def test_busy_time_of_all_gpus_together_is_unknown_where_that_of_one_is() -> None:
    """Else its time would be in the whole and not in the part, and the others' use look smaller than it was."""
    books = RunBooks(open_run())
    for gpu_id, values in (("GPU-a", {"utilization_percent": 100.0}), ("GPU-m", NEVER)):
        for number in range(2):
            held = Held(reading=reading(10 * number, **values), active=True)
            books.gpu(gpu_id).look(held, LIMITS, ended_us=None)
    books.gpu("GPU-new")  # not looked at yet, so nothing of it is missing
    told = books.usage(NodeUsage(), EmissionSettings())
    assert (told.gpu_observed_us, told.gpu_busy_us, told.gpu_unused_us) == (20, None, 0)


def test_a_value_without_time_is_mixed() -> None:
    """As an old checkpoint may have it."""
    assert EnergyBook(5, None, None).method == Method.MIXED
    empty = EnergyBook(None, None, None)
    assert (empty.method, empty.microjoules, empty.covered_us) == (None, None, None)
    empty.add(None, ALONE)
    empty.add(Span(start_us=0, end_us=5), ALONE)
    assert (empty.method, empty.microjoules, empty.covered_us) == (None, None, None)


def test_the_covered_time_only_grows() -> None:
    """Where a component comes late, it does not take back what was told."""
    books = RunBooks(open_run())
    books.cpu.add(Span(start_us=0, end_us=50, microjoules=1, method=Method.COUNTER), ALONE)
    assert books.covered_us == 50
    books.dram.add(Span(start_us=40, end_us=50, microjoules=1, method=Method.COUNTER), ALONE)
    assert books.covered_us == 50


@pytest.mark.parametrize(
    ("began_us", "ended_us", "expected"),
    [
        (0, None, (10, 20)),
        (12, None, (12, 20)),
        (20, None, None),
        (12, 15, (12, 15)),
        (12, 12, None),
        (0, 99, (10, 20)),
    ],
)
def test_the_part_of_a_nodes_time_in_which_a_run_was_there(
    began_us: int, ended_us: int | None, expected: tuple[int, int] | None
) -> None:
    """From its start to its end."""
    cut = node_share_of(Span(start_us=10, end_us=20, microjoules=1, method=Method.COUNTER), began_us, ended_us)
    assert (None if cut is None else (cut.start_us, cut.end_us)) == expected
    assert node_share_of(None, began_us, ended_us) is None


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (ProcessPlace(cgroups=("/slurm/uid_1/job_7/step_0",)), "ref-7"),
        (ProcessPlace(cgroups=("/", "/slurm_n1/uid_1/job_7")), "ref-7"),
        (ProcessPlace(cgroups=("/system.slice/n1_slurmstepd.scope/job_7",)), "ref-7"),
        (ProcessPlace(cgroups=("/system.slice/slurmstepd.scope/s7",)), "ref-7"),
        (ProcessPlace(cgroups=("/user.slice/job_7",)), None),
        (ProcessPlace(cgroups=("/user.slice/user-5.slice/user@5.service/slurm_x/job_7",)), None),
        (ProcessPlace(cgroups=("/slurm/uid_1/job_8",)), None),
        (ProcessPlace(cgroups=("/jobtrail/local-1/below",)), "ref-own"),
        (ProcessPlace(cgroups=("/jobtrail",)), None),
        (ProcessPlace(cgroups=("/",), ancestors=(99, 50, 2)), "ref-tree"),
        (ProcessPlace(), None),
    ],
)
def test_whose_process_it_is(place: ProcessPlace, expected: str | None) -> None:
    """By Slurm's directory of the job, a cgroup that was named, or a process it descends from."""
    runs = [_at(open_run("7"), sluid="s7")]
    runs.append(_at(open_run("own"), whereabouts=Whereabouts(cgroup_path="/jobtrail/local-1")))
    runs.append(_at(open_run("tree"), whereabouts=Whereabouts(root_pid=50)))
    assert Owners(runs).all({1: place}) == ({} if expected is None else {1: expected})
    assert Owners(runs[:1]).owner(ProcessPlace(cgroups=("/jobtrail/local-1",))) is None


def _at(run: OpenRun, **changes: object) -> OpenRun:
    return msgspec.structs.replace(run, target=msgspec.structs.replace(run.target, **changes))


def start(actor: Actor, facts: JobFacts | None, **environment: str) -> Event:
    """A start that `actor` tells."""
    return Event(
        kind=EventKind.JOB_STARTED, event_id="e", time_us=1, cluster="c", job_id="slurm-1", node="n", changed_by=actor,
        source="s", facts=facts, environment=environment,
    )  # fmt: skip


def test_what_a_start_tells_of_gpus() -> None:
    """A hook's variables; else what was named; else nothing is known."""
    named = JobFacts(gpu_devices=("0", "3"))
    assert gpu_hook_of(start(Actor.SLURM_PROLOG, named, SLURM_JOB_GPUS="2")) == HookValues(slurm_job_gpus="2")
    assert gpu_hook_of(start(Actor.API, named)) == HookValues(slurm_job_gpus="0,3")
    assert gpu_hook_of(start(Actor.API, JobFacts(gpu_devices=()))) == HookValues()
    assert gpu_hook_of(start(Actor.CLI, JobFacts())) is None
    assert gpu_hook_of(start(Actor.CLI, None)) is None


def test_the_next_tick_is_always_later() -> None:
    """However the division is rounded."""
    rhythm = GpuRhythm(interval_seconds=0.7)
    for number in range(2_000):
        now = number * 0.7
        assert now < rhythm.next_tick(now) <= now + 1.4
