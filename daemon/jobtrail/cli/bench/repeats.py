"""The loads of a run, one after the other, and what each of them measured."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jobtrail.adapters.benchmark_files import read_results
from jobtrail.cli.bench.child import Child, how_it_ended, last_words
from jobtrail.cli.bench.directory import RunDirectory
from jobtrail.cli.bench.load import Place, load_words
from jobtrail.cli.bench.manifest import Record, now_us
from jobtrail.cli.bench.push import Places, ask_for_look
from jobtrail.cli.bench.server import RunFailed, RunningServer
from jobtrail.domain.benchmarks.report import Mode, Repeat, ToolResult
from jobtrail.domain.errors import UnknownResult

GRACE_SECONDS = 5.0
LOOK_EVERY_SECONDS = 5.0
OWN_SIGNAL_SECONDS = 1.0
SERVER_END_SECONDS = 15.0  # its own grace, and a little
VERSION_SECONDS = 120.0
_VERSION = re.compile(r"^v?([0-9]+\.[0-9]+\S*)\s*$", re.MULTILINE)


async def program_version(program: Sequence[str], log: Path, environment: Mapping[str, str]) -> str | None:
    """What `PROGRAM --version` prints; None where it prints no version, or takes two minutes."""
    child = await Child.start([*program, "--version"], log=log, environment=environment, grace_seconds=GRACE_SECONDS)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), VERSION_SECONDS)
    finally:
        await child.stop()
    return _version_in(log)


def _version_in(log: Path) -> str | None:
    found = _VERSION.findall(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1] if found else None


class Loads:
    """Runs the recipe's load and writes down in the record how each went."""

    def __init__(
        self,
        directory: RunDirectory,
        record: Record,
        server: RunningServer | None,
        environment: Mapping[str, str],
        places: Places,
    ) -> None:
        self._directory = directory
        self._record = record
        self._server = server
        self._environment = environment
        self._places = places
        self._tokens: int | None = 0

    async def warm_up(self) -> None:
        """A load that nobody measures. Raises RunFailed when even that fails."""
        self._directory.result_file(0).unlink(missing_ok=True)
        code = await self._run(0, load_words(self._record.recipe, self._place(0)))
        if code != 0:
            raise RunFailed(f"the warm-up ended {how_it_ended(code)}" + last_words(self._directory.load_log(0)))

    async def repeat(self, number: int) -> None:
        """One load. Raises RunFailed when it did not come to its end, or left no result."""
        words = load_words(self._record.recipe, self._place(number))
        self._record.argv = self._record.argv or tuple(words)
        path = self._directory.result_file(number)
        path.unlink(missing_ok=True)  # of an earlier start in the same directory
        await self._look()
        tokens = await self._server.generated_tokens() if self._server is not None else None
        started_us = now_us()
        looking = asyncio.ensure_future(self._look_again_and_again())
        try:
            code = await self._run(number, words)
        finally:
            looking.cancel()
            ended_us = max(started_us, now_us())
        await self._look()
        if code != 0:
            self._record.repeats.append(
                Repeat(
                    started_us=started_us,
                    ended_us=ended_us,
                    exit_code=code if code >= 0 else None,
                    exit_signal=-code if code < 0 else None,
                )
            )
            which = f"load {number} of {self._record.recipe.measure.repeats}"
            raise RunFailed(f"{which} ended {how_it_ended(code)}" + last_words(self._directory.load_log(number)))
        await self._count(tokens)
        self._record.repeats.extend(self._results(path, started_us, ended_us))

    def _place(self, number: int) -> Place:
        job = self._record.jobs[0] if self._record.jobs else None
        return Place(
            repeat=number,
            result=self._directory.result_file(number),
            run_uid=self._record.run_uid,
            port=None if self._server is None else self._server.port,
            job_id=None if job is None else job.job_id,
            cluster=None if job is None else job.cluster,
        )

    async def _run(self, number: int, words: Sequence[str]) -> int:
        """The load's exit code, or minus its signal. Raises RunFailed when the server ends under it."""
        log = self._directory.load_log(number)
        child = await Child.start(words, log=log, environment=self._environment, grace_seconds=GRACE_SECONDS)
        waits = {asyncio.ensure_future(child.wait())}
        if self._server is not None:
            waits.add(asyncio.ensure_future(self._server.child.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            await self._wait_for_own_signal(child)
            await self._wait_for_servers_end(child)
        finally:
            for wait in waits:
                wait.cancel()
            if child.code is None:
                await child.stop()
        if self._server is not None and (code := self._server.child.code) is not None:
            what = f"load {number}" if number else "the warm-up"
            raise RunFailed(
                f"the server ended {how_it_ended(code)} during {what}" + last_words(self._directory.server_log)
            )
        return await child.wait()

    async def _wait_for_own_signal(self, child: Child) -> None:
        """Slurm signals a job's processes one after the other: the signal that ended this one may yet reach us, and
        then it is the reason."""
        codes = [child.code] + ([self._server.child.code] if self._server is not None else [])
        if any(code in (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM) for code in codes):
            await asyncio.sleep(OWN_SIGNAL_SECONDS)

    async def _wait_for_servers_end(self, child: Child) -> None:
        """A load fails as soon as the server dies, and before all that belongs to the server has ended."""
        if self._server is not None and child.code not in (None, 0) and not await self._server.is_ready():
            await asyncio.wait({asyncio.ensure_future(self._server.child.wait())}, timeout=SERVER_END_SECONDS)

    async def _look(self) -> None:
        if self._record.jobs:
            await ask_for_look(self._places, self._record.jobs[0].job_id)

    async def _look_again_and_again(self) -> None:
        """The window that counts begins somewhere within the load; its energy is known as near as the looks are."""
        while self._record.jobs:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            await self._look()

    async def _count(self, before: int | None) -> None:
        """Add up what the server says it generated."""
        after = await self._server.generated_tokens() if self._server is not None else None
        if self._tokens is not None:
            grown = None if before is None or after is None or after < before else after - before
            self._tokens = None if grown is None else self._tokens + grown
        self._record.server_output_tokens = self._tokens

    def _results(self, path: Path, started_us: int, ended_us: int) -> list[Repeat]:
        """What the load wrote. Raises RunFailed when that is nothing, or nothing known."""
        try:
            results = read_results(path.name, path.read_bytes())
        except FileNotFoundError as error:
            log = self._directory.path / f"load-{path.stem.rpartition('-')[2]}.log"
            raise RunFailed(f"the load ended well and wrote no {path.name}" + last_words(log)) from error
        except UnknownResult as error:
            raise RunFailed(str(error)) from error
        if len(results) == 1:
            started_us, ended_us = self._window(results[0], path, started_us, ended_us)
        return [Repeat(started_us=started_us, ended_us=ended_us, exit_code=0, result=result) for result in results]

    def _window(self, result: ToolResult, path: Path, started_us: int, ended_us: int) -> tuple[int, int]:
        """When the measurement itself was, without the tool's own start: by its times, else by its duration.

        Tools write their results when the measurement is over. All of it lies within the time the tool ran.
        """
        if result.started_us is not None and result.ended_us is not None:
            began, over = result.started_us, result.ended_us
        else:
            seconds = self._seconds(result)
            if seconds is None:
                return started_us, ended_us
            over = path.stat().st_mtime_ns // 1000
            over = over if started_us <= over <= ended_us else ended_us
            began = over - round(seconds * 1e6)
        return (began, over) if started_us <= began <= over <= ended_us else (started_us, ended_us)

    def _seconds(self, result: ToolResult) -> float | None:
        """How long the measurement took; of a latency benchmark, its iterations together."""
        if result.duration_seconds is not None or result.mode is not Mode.LATENCY:
            return result.duration_seconds
        batches = self._record.recipe.workload.iterations
        mean = next((m.value for m in result.measurements if (m.metric, m.stat) == ("batch_latency", "mean")), None)
        return None if mean is None or batches is None else mean * batches
