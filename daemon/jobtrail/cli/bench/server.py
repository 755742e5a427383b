"""The server under load: its start, when it is ready, what it says of itself, its end."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import aiohttp
import msgspec

from jobtrail.cli.bench.child import Child, how_it_ended, last_words
from jobtrail.cli.bench.load import HOST, fixed_port, server_words
from jobtrail.domain.benchmarks.recipe import Recipe, Server
from jobtrail.domain.errors import JobtrailError

GRACE_SECONDS = 10.0  # Slurm kills 30 s after its SIGTERM unless KillWait says else (slurm.conf(5))
POLL_SECONDS = 0.25
QUESTION_SECONDS = 5.0
ATTEMPTS = 3  # another process may take the port that was found free
_IN_USE = re.compile(r"address already in use|errno 98|EADDRINUSE", re.IGNORECASE)
_GENERATED = re.compile(r"^vllm:generation_tokens_total(?:\{[^}\n]*\})? ([0-9.eE+]+)\s*$", re.MULTILINE)


class RunFailed(JobtrailError):
    """The run cannot come to its end; the message is the reason that is kept of it."""


class RunningServer:
    """A server that is ready."""

    def __init__(self, child: Child, port: int, ready_url: str) -> None:
        self.child = child
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._ready_url = ready_url

    async def is_ready(self) -> bool:
        """Whether it still answers."""
        return await _get(self._ready_url) is not None

    async def version(self) -> str | None:
        """What it says its version is, as vLLM does; None where it says nothing."""
        body = await _get(f"{self.url}/version")
        with suppress(msgspec.MsgspecError):
            said = msgspec.json.decode(body or b"", type=dict[str, object]).get("version")
            return said if isinstance(said, str) else None
        return None

    async def generated_tokens(self) -> int | None:
        """Output tokens that it has counted since its start, over all of its engines; None if it does not tell."""
        body = await _get(f"{self.url}/metrics")
        counts = _GENERATED.findall((body or b"").decode(errors="replace"))
        return round(sum(float(count) for count in counts)) if counts else None

    async def stop(self) -> None:
        """End it and all that belongs to it."""
        await self.child.stop()


async def start_server(recipe: Recipe, server: Server, *, log: Path, environment: Mapping[str, str]) -> RunningServer:
    """Start it on a free port of the loopback and wait until it is ready. Raises RunFailed, with nothing of it left."""
    wanted = fixed_port(server)
    for attempt in range(1, ATTEMPTS + 1):
        port = free_port(wanted)
        child = await Child.start(
            server_words(recipe, server, port), log=log, environment=environment, grace_seconds=GRACE_SECONDS
        )
        try:
            url = f"http://{HOST}:{port}/{server.ready.path.lstrip('/')}"
            await _wait_until_ready(child, server, url)
        except BaseException as error:
            await asyncio.shield(child.stop())
            again = isinstance(error, RunFailed) and wanted is None and attempt < ATTEMPTS
            if again and _IN_USE.search(last_words(log)):
                continue
            raise
        return RunningServer(child, port, url)
    raise AssertionError("unreachable: the last attempt returns or raises")


def free_port(wanted: int | None) -> int:
    """A port that nobody listens on. Raises RunFailed when it is the one the recipe insists on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise RunFailed(
                f"port {wanted}, which the recipe gives the server, is not free: {error.strerror}"
            ) from error
        port: int = probe.getsockname()[1]
        return port


async def _wait_until_ready(child: Child, server: Server, url: str) -> None:
    try:
        async with asyncio.timeout(server.ready.timeout_s):
            while True:
                if await _get(url) is not None and child.code is None:
                    return
                with suppress(TimeoutError):
                    code = await asyncio.wait_for(child.wait(), POLL_SECONDS)
                    ended = f"the server ended {how_it_ended(code)} before it was ready"
                    raise RunFailed(ended + last_words(child.log))
    except TimeoutError as error:
        late = f"the server was not ready within {server.ready.timeout_s} s: {server.ready.path} did not answer 200"
        raise RunFailed(late + last_words(child.log)) from error


async def _get(url: str) -> bytes | None:
    """The body of an answer 200; None for any other, or none."""
    timeout = aiohttp.ClientTimeout(total=QUESTION_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            return await response.read() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
