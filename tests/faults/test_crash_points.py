"""T-02: the daemon dies at named points between an event's arrival and its being in the database for good.

`crash_at.py` traces the daemon and kills it when it comes to a line of its own sources. Quick, it dies at the points
where an event passes from one keeper to the next, and at two more, drawn. In full it dies at all of them, and once at
every line of the spool, the forwarder and the database's sink that runs at all.
"""

from pathlib import Path

import pytest

from tests.daemon_process import REPOSITORY, wait_until
from tests.faults import wire
from tests.faults.figures import in_full
from tests.faults.trial import Trial

JOURNAL, WRITER = "jobtrail/adapters/spool/journal.py", "jobtrail/adapters/spool/writer.py"
FORWARDER, SINK = "jobtrail/core/forwarder.py", "jobtrail/adapters/postgres/sink.py"
INCOMING, INTAKE = "jobtrail/adapters/incoming.py", "jobtrail/core/intake.py"
POINTS = {
    "before the insert": (JOURNAL, "rows.insert(self._connection, row, digest)", 0),
    "after the insert, before the state": (JOURNAL, "save_state(self._connection, self.state)", 0),
    "before the commit": (JOURNAL, 'self._connection.execute("COMMIT")', 0),
    "after the commit": (JOURNAL, 'self._connection.execute("COMMIT")', "next"),
    "before the answer is handed on": (WRITER, "self._in_loop(self._listener.answered, answers, journal.status)", 0),
    "before it takes effect": (INTAKE, "if not receipt.duplicate:", 0),
    "before it is forwarded": (FORWARDER, "report = await self._store(batch)", 0),
    "in the database's transaction": (SINK, "keys = sorted({key for one in offered if", 0),
    "after the database's commit": (FORWARDER, "self._account(report, self._clock.monotonic() - began)", 0),
    "before it is marked as forwarded": (FORWARDER, "await self._spool.mark_forwarded(report.head.seq)", 0),
    "while marking it": (JOURNAL, "self.state = msgspec.structs.replace(self.state, forwarded_seq=", 0),
    "before events are purged": (JOURNAL, '"DELETE FROM events WHERE seq <= ?"', 0),
    "after events were purged": (JOURNAL, "self._runs.forget_early_ends(", 0),
    "while pages are given back": (JOURNAL, 'self._connection.execute("PRAGMA incremental_vacuum(1)")', 0),
    "before a hook's file is taken": (INCOMING, "await self._take(", 0),
    "after a hook's file was taken": (INCOMING, "await asyncio.to_thread(path.unlink, missing_ok=True)", 0),
}  # fmt: skip


# Where an event passes from one keeper to the next: quick, these are tried each time.
DECIDING = (
    "before the commit", "after the commit", "before the answer is handed on", "in the database's transaction",
    "after the database's commit", "after events were purged", "after a hook's file was taken",
)  # fmt: skip
# Only where the life before forwarded something and kept that.
PURGES = ("before events are purged", "after events were purged", "while pages are given back")
COMES_SECONDS = 120.0  # a traced daemon on a busy machine


def line_of(file: str, text: str, after: int | str) -> str:
    """`FILE:LINE` of the first line that holds `text`, or of the next statement behind it."""
    lines = (REPOSITORY / "daemon" / file).read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, 1) if text in line)
    if after == "next":
        number = next(n for n, line in enumerate(lines, 1) if n > number and "check_in_place" in line)
    return f"{file}:{number}"


def leave_file(trial: Trial) -> None:
    """An event as a hook leaves it while no daemon answers; owed from then on."""
    event = wire.make("prolog", trial.next_job(), trial.draw, start=1_790_000_000)
    trial.leave_in_spool(event)


def die_at(trial: Trial, point: str, *, after_a_good_life: bool, within_seconds: float) -> bool:
    """Start the daemon so that it dies at `point`, under load; whether it came there.

    Some points are reached only where the life before went on long enough to forward what it held.
    """
    trial.kill_quietly()
    if after_a_good_life:
        trial.revive()
        trial.await_acknowledgements(5)
        trial.settle()
        trial.kill()
    leave_file(trial)
    trial.daemon.command = ("-m", "tests.faults.crash_at", point)
    process = trial.daemon.launch()
    try:
        wait_until(lambda: process.poll() is not None, f"the daemon to come to {point}", timeout_seconds=within_seconds)
    except AssertionError:
        trial.daemon.kill()
        return False
    finally:
        trial.daemon.command = ("-m", "jobtrail", "serve")
    assert process.returncode == -9, trial.daemon.tail()
    trial.figures.add(kills=1)
    return True


def die_somehow_at(trial: Trial, point: str) -> bool:
    """As die_at, where nobody knows what a line needs to be reached."""
    return any(die_at(trial, point, after_a_good_life=good, within_seconds=5) for good in (False, True))


def chosen(trial: Trial) -> list[str]:
    """The names of points for this run, in the order of an event's way."""
    others = sorted(POINTS.keys() - set(DECIDING))
    names = POINTS if in_full() else {*DECIDING, *trial.draw.sample(others, 2)}
    return [name for name in POINTS if name in names]


@pytest.mark.fault("T-02")
def test_crashes_at_named_points(trial: Trial) -> None:
    """At each point once; the judge then finds every event once."""
    trial.daemon.configure("spool", keep_forwarded_days=0)
    points = {line_of(*POINTS[name]): name for name in chosen(trial)}
    others = [line for line in lines_that_run(trial) if line not in points] if in_full() else []
    with trial.producing(clients=4, pause=0.05):
        trial.await_acknowledgements(20)
        missed = [
            name
            for point, name in points.items()
            if not die_at(trial, point, after_a_good_life=name in PURGES, within_seconds=COMES_SECONDS)
        ]
        reached = sum(die_somehow_at(trial, point) for point in others)
        trial.revive()
        trial.await_acknowledgements(20)
    assert missed == []
    trial.figures.set(points=len(points) + len(others), points_reached=len(points) + reached)
    trial.check()


def lines_that_run(trial: Trial) -> list[str]:
    """Every line of the traced files that runs under load, in a life that begins with events left over."""
    record = Path(trial.directory / "lines")
    trial.daemon.kill()
    trial.daemon.command = ("-m", "tests.faults.crash_at", "--record", str(record))
    leave_file(trial)
    trial.daemon.start()
    with trial.producing(clients=4, pause=0.05):
        trial.await_acknowledgements(200)
    trial.settle()
    return sorted(set(record.read_text().split()))
