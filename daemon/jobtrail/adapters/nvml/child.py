"""The child process that reads NVML, from the parent's side: started, asked, watched, killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from jobtrail.adapters.nvml import words
from jobtrail.domain.gpus import GpuReading

READER = "jobtrail.adapters.nvml.reader"
MAX_SAID_BYTES = 16 << 10
_SOURCE_ROOT = Path(__file__).parents[3]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child answers to the request `seq`. `unopened` tells why GPUs, by index, could not be opened."""

    seq: int
    problem: str | None = None
    detail: str | None = None
    readings: tuple[GpuReading, ...] = ()
    unopened: dict[int, str] = {}


class Ended(Exception):
    """The child ended, or what it sent cannot be read, before it answered. The message says how."""


class CurrentCall(msgspec.Struct, frozen=True):
    """The call of NVML that the child is in."""

    name: str
    gpu: int | None
    seconds: float


def pynvml_directory() -> Path | None:
    """Where nvidia-ml-py lies; None where it is not installed."""
    spec = importlib.util.find_spec("pynvml")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


class Child:
    """A running reader. `start` makes one."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        marks: mmap.mmap,
        said: int,
    ) -> None:
        self._process = process
        self._reader, self._writer = streams
        self._marks = marks
        self._said = said
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self.began = time.monotonic()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, binding: Path, library_directory: Path | None) -> Child:
        """Start a reader that imports pynvml from `binding`. Raises OSError."""
        with contextlib.ExitStack() as stack:
            marks = os.memfd_create("jobtrail-nvml-marks")
            stack.callback(os.close, marks)
            os.ftruncate(marks, words.MARK_BYTES)
            shared = mmap.mmap(marks, words.MARK_BYTES)
            said = _bounded_file(MAX_SAID_BYTES)
            on_failure = contextlib.ExitStack()
            on_failure.callback(os.close, said)
            on_failure.callback(shared.close)
            with on_failure:
                ours, theirs = socket.socketpair()
                stack.callback(theirs.close)
                on_failure.callback(ours.close)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-S", "-P", "-m", READER, str(os.getpid()), str(marks)),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=said,
                    pass_fds=(marks,),
                    cwd="/",
                    env=_environment(binding, library_directory),
                    start_new_session=True,
                )
                streams = await asyncio.open_connection(sock=ours)
                on_failure.pop_all()
            return cls(process, streams, shared, said)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended and was waited for."""
        return self._process.returncode is not None

    def ask(self, *, look: bool, anew: bool, avoid: Iterable[tuple[int, str]]) -> asyncio.Future[Answer]:
        """Ask for a look, or only to open NVML; with `anew` it is opened again. Ended may come instead of an answer.

        `avoid` are the calls to leave out: index of the GPU, and name.
        """
        self._seq += 1
        body = msgspec.json.encode({"seq": self._seq, "look": look, "anew": anew, "avoid": list(avoid)})
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._seq] = future
        if self._listening.done():
            future.set_exception(Ended(self._how_it_ended()))
        else:
            self._writer.write(words.LENGTH.pack(len(body)) + body)
        future.add_done_callback(_retrieve)
        return future

    def current_call(self) -> CurrentCall | None:
        """The call the child is in; None between calls."""
        began_ns, number, gpu = words.MARK.unpack_from(self._marks)
        if began_ns == 0 or number >= len(words.CALLS):
            return None
        seconds = (time.monotonic_ns() - began_ns) / 1e9
        return CurrentCall(words.CALLS[number], None if gpu == words.NO_GPU else gpu, seconds)

    def hang_up(self) -> None:
        """Let the child know that nothing more will be asked; it lets the driver go and ends."""
        if not self._writer.is_closing() and self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    def kill(self) -> None:
        """Kill it and whatever it started."""
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ended(self, seconds: float) -> bool:
        """Whether it has ended, after waiting `seconds` at most for it."""
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def release(self) -> None:
        """Give back the descriptors and the memory shared with it. To be called once, when it has ended."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        self._marks.close()
        os.close(self._said)

    async def _listen(self) -> None:
        """Take answers in until the child ends."""
        try:
            while True:
                answer = await self._receive()
                future = self._waiting.pop(answer.seq, None)
                if future is not None and not future.done():
                    future.set_result(answer)
        except (asyncio.IncompleteReadError, OSError):
            await self.ended(1.0)
            self._fail(self._how_it_ended())
        except msgspec.ValidationError as error:
            self._fail(f"its answer cannot be read: {error}")
        except msgspec.DecodeError as error:
            self._fail(f"its answer is no JSON: {error}")

    async def _receive(self) -> Answer:
        (size,) = words.LENGTH.unpack(await self._reader.readexactly(words.LENGTH.size))
        if size > words.MAX_FRAME_BYTES:
            raise msgspec.DecodeError(f"{size} bytes")
        return msgspec.json.decode(await self._reader.readexactly(size), type=Answer)

    def _fail(self, how: str) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Ended(how))
        self._waiting.clear()

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            how = "it closed its connection"
        elif code < 0:
            how = f"it was ended by {_signal_name(-code)}"
        else:
            how = f"it ended with exit status {code}"
        said = os.pread(self._said, MAX_SAID_BYTES, 0).rstrip(b"\0").decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        return f"{how}: {last[:300]}" if last else how


def _retrieve(future: asyncio.Future[Answer]) -> None:
    """An answer nobody waits for any more may be an exception, too."""
    if not future.cancelled():
        future.exception()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _bounded_file(size: int) -> int:
    """A file in memory that takes `size` bytes and no more: a library that prints for ever fills nothing."""
    descriptor = os.memfd_create("jobtrail-nvml-said", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor


def _environment(binding: Path, library_directory: Path | None) -> dict[str, str]:
    """Nothing of the daemon's: where the two packages are, and the driver's library, if not where ld.so looks."""
    environment = {"PYTHONPATH": os.pathsep.join((str(_SOURCE_ROOT), str(binding))), "LC_ALL": "C.UTF-8"}
    return environment | ({"LD_LIBRARY_PATH": str(library_directory)} if library_directory else {})
