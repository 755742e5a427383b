"""A trial: a real daemon, what was asked of it, and the check of every invariant at the end.

I1 every acknowledged event is in the trail once; I2 nothing that was never sent is; I3 payloads are those that were
sent; I4 chains hold together; I5 no job that is over is shown as running; I6 a fresh event goes from end to end; I7
memory, descriptors and disk stay below their caps; I8 hooks end with 0 in time; I9 /metrics answers throughout; I10
what was accepted is forwarded, queued, or shed, counted and on record; I11 no traceback and no secret in the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.daemon_process import PATIENCE_SECONDS, REPOSITORY, Daemon, wait_until
from tests.faults import oracle, wire
from tests.faults.figures import Figures, percentile
from tests.faults.watch import MAX_RSS_BYTES, Watch

CANARY = "canary-5e1c7f0a-secret"
SETTLE_SECONDS = 90.0
FRESH_SECONDS = 30.0
JOBS_A_PRODUCER = 1_000_000
FRESH_JOBS = 4_000_000_000
JOBS_BEGAN = 1_790_000_000  # what Slurm says of the start of jobs that a test numbers itself
SETTINGS: dict[str, dict[str, Any]] = {
    "slurm": {"sacct": "", "token": CANARY},
    "gpu": {"vendors": "none"},
    "energy": {"rapl": False},
    "logging": {"level": "info", "format": "json"},
    "spool": {"max_bytes": 64 * 1024 * 1024},
}


class FaultDaemon(Daemon):
    """The daemon with what faults need: other sources, another environment, a spool elsewhere."""

    def __init__(
        self, directory: Path, *, source: Path | None = None, spool_at: Path | None = None, **settings: Any
    ) -> None:
        tree = {name: dict(values) for name, values in SETTINGS.items()}
        for section, values in settings.items():
            tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
        if spool_at is not None:
            tree["spool"]["directory"] = str(spool_at)
        super().__init__(directory, node=wire.NODE, **tree)
        self.spool = spool_at or self.spool
        self.max_bytes = int(tree["spool"]["max_bytes"])
        self.more_environment: dict[str, str] = {}
        self.command: tuple[str, ...] = ("-m", "jobtrail", "serve")
        self._source = source

    def environment(self) -> dict[str, str]:
        """As the daemon's, with what this trial adds."""
        kept = super().environment()
        if self._source is not None:
            kept["PYTHONPATH"] = str(self._source)
        return {**kept, "PYTHONPATH": os.pathsep.join((kept["PYTHONPATH"], str(REPOSITORY))), **self.more_environment}

    def configure(self, section: str, **values: Any) -> None:
        """Change settings; they hold from the next start on."""
        tree = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        tree[section] = {**tree.get(section, {}), **values}
        self.config.write_text(yaml.safe_dump(tree), encoding="utf-8")

    @property
    def pid(self) -> int | None:
        """Of the running process, None where there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def start(self, *, timeout_seconds: float = PATIENCE_SECONDS) -> FaultDaemon:
        """Start it and wait until it takes events."""
        self.launch()
        wait_until(self._answers, "the daemon to answer", timeout_seconds=timeout_seconds)
        return self

    def try_start(self) -> bool:
        """Start it; whether it comes to take events, and does not end before."""
        try:
            self.start()
        except AssertionError:
            if self.pid is not None:
                raise
            return False
        return True

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting for anything."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), cwd=self.directory,
            )  # fmt: skip
        return self.process

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        found = self.metrics().get(name, [])
        return sum(value for had, value in found if labels.items() <= had.items())


class Trial:
    """Use as a context: the daemon is started at its beginning and ended at its end."""

    def __init__(
        self, directory: Path, url: str, *, figures: Figures, draw: random.Random, daemon: FaultDaemon | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.url = url
        self.figures = figures
        self.draw = draw
        # The Unix socket's path may have 107 bytes, so the daemon's directory is a short one.
        self.daemon = daemon or FaultDaemon(directory / "d", database={"url": url}, **settings)
        self.oracles: list[Path] = []
        self.recoveries: list[float] = []
        self.watch = Watch(lambda: self.daemon.pid, self.daemon.socket, self.daemon.spool)
        self.max_rss_bytes = MAX_RSS_BYTES
        self._fresh = oracle.OracleWriter(self._new_oracle("fresh"))
        self._fresh_jobs = FRESH_JOBS

    def __enter__(self) -> Trial:
        self.daemon.start()
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the daemon, however it is, and the watch; may be called twice."""
        self.watch.stop()
        if self.daemon.pid is not None:
            os.kill(self.daemon.pid, signal.SIGCONT)
            self.daemon.kill()

    def _new_oracle(self, name: str) -> Path:
        self.oracles.append(self.directory / f"oracle-{len(self.oracles)}-{name}.jsonl")
        return self.oracles[-1]

    def owed(self) -> oracle.Obligations:
        """What the daemon owes by now."""
        return oracle.read(*self.oracles)

    @contextmanager
    def producing(self, *, socket: Path | None = None, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A producer beside the block, asked to finish at its end; `options` are those of producer.py."""
        given = {"first-job": len(self.oracles) * JOBS_A_PRODUCER + 1, "seed": self.draw.getrandbits(32), **options}
        flags = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        place = self._new_oracle("producer")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.producer", str(socket or self.daemon.socket), str(place), *flags],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: place.exists() and place.stat().st_size, "the producer to send")
            yield process
            if process.poll() is None:
                process.terminate()
            code = process.wait(120)
            assert code == 0, f"the producer ended with {code}: 4 means that an event was never acknowledged"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def acknowledged(self) -> int:
        """Acknowledgements so far, duplicates among them."""
        return sum(path.read_bytes().count(b'{"ack"') for path in self.oracles)

    def await_acknowledgements(self, more: int, *, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        """Return when so many more came."""
        wanted = self.acknowledged() + more
        wait_until(lambda: self.acknowledged() >= wanted, f"{more} acknowledgements; log:\n{self.daemon.tail()}",
                   timeout_seconds=timeout_seconds)  # fmt: skip

    def kill(self) -> None:
        """SIGKILL."""
        self.daemon.kill()
        self.figures.add(kills=1)

    def kill_quietly(self) -> None:
        """SIGKILL where it still runs, as part of another fault."""
        if self.daemon.pid is not None:
            self.daemon.kill()

    def revive(self) -> float:
        """Start it again; seconds until it took events."""
        began = time.monotonic()
        self.daemon.start()
        self.recoveries.append(time.monotonic() - began)
        return self.recoveries[-1]

    def send(self, *events: wire.Sending, socket: Path | None = None) -> list[int]:
        """Send events one after another from here, noted in the oracle; the status of each answer."""

        async def all_of_them() -> list[int]:
            line = wire.Line(socket or self.daemon.socket)
            statuses = []
            for event in events:
                self._fresh.sent(event.event_id, **event.details())
                began = time.monotonic()
                status, _ = await line.post(event)
                if status in (200, 201):
                    self._fresh.ack(event.event_id, status=status, seconds=round(time.monotonic() - began, 4))
                else:
                    self._fresh.refused(event.event_id, status)
                statuses.append(status)
            line.close()
            return statuses

        return asyncio.run(all_of_them())

    def next_job(self) -> int:
        """The number of a job that nobody has sent anything of."""
        self._fresh_jobs += 1
        return self._fresh_jobs

    def fresh_job(self) -> list[wire.Sending]:
        """Prolog and epilog of a job of its own."""
        job, start = self.next_job(), int(time.time())
        return [wire.make(hook, job, self.draw, start=start) for hook in ("prolog", "epilog")]

    def start_jobs(self, numbers: Sequence[int]) -> None:
        """Prologs of jobs with these numbers."""
        self._of_jobs("prolog", numbers)

    def end_jobs(self, numbers: Sequence[int]) -> None:
        """Epilogs of jobs with these numbers."""
        self._of_jobs("epilog", numbers)

    def _of_jobs(self, hook: str, numbers: Sequence[int]) -> None:
        events = [wire.make(hook, number, self.draw, start=JOBS_BEGAN) for number in numbers]
        assert self.send(*events) == [201] * len(events)

    def owe(self, event_id: str, **details: Any) -> None:
        """Somebody left this event on the node's disk: the daemon owes it."""
        self._fresh.sent(event_id, **details)
        self._fresh.ack(event_id, status=0)

    def leave_in_spool(self, *events: wire.Sending) -> None:
        """Leave events as hooks do while no daemon answers; they are owed from then on."""
        incoming = self.daemon.spool / "incoming"
        incoming.mkdir(mode=0o700, exist_ok=True)
        for event in events:
            self._fresh.sent(event.event_id, **event.details())
            part = incoming / f".{event.event_id}.part"
            with part.open("wb") as file:
                file.write(event.as_file())
                os.fsync(file.fileno())
            part.rename(incoming / event.event_id)
            self._fresh.ack(event.event_id, status=0)

    def settle(self, timeout_seconds: float = SETTLE_SECONDS) -> float:
        """Wait until everything held is forwarded; the seconds that took."""
        began = time.monotonic()
        wait_until(self._is_forwarded, f"the spool to be empty; log:\n{self.daemon.tail()}",
                   timeout_seconds=timeout_seconds, every_seconds=0.1)  # fmt: skip
        return time.monotonic() - began

    def _is_forwarded(self) -> bool:
        assert self.daemon.pid is not None, f"the daemon ended; its log:\n{self.daemon.tail()}"
        # Not from /metrics, whose page may be one made before the last event was acknowledged.
        _, answer = self.daemon.get("/health")
        return bool(json.loads(answer)["details"]["spool_depth"] == 0)

    def judge(self) -> dict[str, Any]:
        """The judge's findings: a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.judge", self.url, *map(str, self.oracles)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def check(self, *, live: bool = True, duplicates_of_epochs: bool = False, forks: bool = False) -> dict[str, Any]:
        """Every invariant; AssertionError naming each that does not hold. The judge's findings.

        `live=False` where no daemon is left running. `duplicates_of_epochs` where a chain was given up: what was not
        known to be forwarded is then on record in both chains. `forks` where a chain was given up because the database
        knew another: it then has that on record.
        """
        if live:
            began = time.monotonic()
            assert self.send(*self.fresh_job()) == [201, 201], "I6: a fresh event is not taken"
            self.settle()
            self.figures.set(fresh_seconds=time.monotonic() - began)
        found = self.judge()
        if duplicates_of_epochs:
            found["duplicated"] = []
        wrong = [name for name in WRONG if not (forks and name == "conflicts")]
        problems = [f"{name}: {len(found[name])}, such as {found[name][:3]}" for name in wrong if found[name]]
        problems += self.watch.problems(max_bytes=self.daemon.max_bytes, max_rss_bytes=self.max_rss_bytes)
        problems += log_problems(self.daemon.log)
        self._note(found)
        assert not problems, "\n".join([*problems, self.figures.line()])
        return found

    def _note(self, found: dict[str, Any]) -> None:
        self.figures.set(
            acknowledged=found["acknowledged"], lost=len(found["lost"]), duplicated=len(found["duplicated"]),
            ack_p99_ms=_milliseconds(percentile(self.owed().seconds(), 0.99)), **self.watch.figures(),
        )  # fmt: skip
        if self.recoveries:
            self.figures.set(
                recovery_p50_s=percentile(self.recoveries, 0.5), recovery_p99_s=percentile(self.recoveries, 0.99)
            )


WRONG = ("lost", "duplicated", "invented", "altered", "broken", "running", "conflicts")


def log_problems(log: Path) -> list[str]:
    """What must not stand in a log (I11)."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = [f"I11: {what} in the log" for what in ("Traceback", CANARY) if what in text]
    return [*found, text[-3000:]] if found else []


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
