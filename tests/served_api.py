"""The HTTP surface on real sockets, in front of an intake that remembers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from jobtrail.adapters import job_html
from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.http import Addresses, HtmlPages, HttpApi, HttpSettings, Services
from jobtrail.adapters.http.node_identity import NodeIdentity
from jobtrail.adapters.slurm_env import decode_poke, hook_decoder
from jobtrail.composition.node_role import user_name
from jobtrail.core.access.ports import SecurityReader
from jobtrail.core.benchmarks.ports import BenchmarkReader
from jobtrail.core.benchmarks.reported import ReportedBenchmarks
from jobtrail.core.facts import EventRejected, Fact
from jobtrail.core.link.protocol import ForwardedTo
from jobtrail.core.manual.jobs import ManualJobs
from jobtrail.core.manual.ports import PostedSampleSink
from jobtrail.core.ports import Health, HookDecoder, PokeAnswer, Receipt, SpoolStatus
from jobtrail.core.query_ports import Archive, JobReader, NodeReader
from jobtrail.core.target_ports import TargetReader
from jobtrail.domain.errors import EventConflict
from jobtrail.domain.events import Event, EventKind

PROLOG = b"SLURM_JOB_ID=17\0SLURMD_NODENAME=n1\0SLURM_CLUSTER_NAME=lab\0"
HOOK_PATH = "/v1/hooks/slurm/prolog"
ANSWER_SECONDS = 30.0  # of a machine that does other things too


class RecordingIntake:
    """An EventIntake in memory: knows what it holds, and fails when told to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.digests: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None  # when set, accept waits for it
        self.entered = asyncio.Event()
        self.waiting = 0  # how often accept was entered

    async def accept(self, event: Event, digest: bytes) -> Receipt:
        self.waiting += 1
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        held = self.digests.get(event.event_id)
        if held not in (None, digest):
            raise EventConflict(event.event_id)
        if held is None:
            self.digests[event.event_id] = digest
            self.events.append(event)
        seq = 1 + [one.event_id for one in self.events].index(event.event_id)
        return Receipt(event_id=event.event_id, seq=seq, durability="disk", duplicate=held is not None)


class ScriptedPokes:
    """A JobPokes that answers what a test put there, and notes who asked about which job."""

    def __init__(self) -> None:
        self.answer = PokeAnswer.LOOKED
        self.asked: list[tuple[str, int]] = []

    async def poke(self, job_id: str, uid: int) -> PokeAnswer:
        self.asked.append((job_id, uid))
        return self.answer


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object."""
        return msgspec.json.decode(self.body, type=dict[str, Any])


class Served:
    """A running HttpApi and what it was told and tells."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        defaults = {"host": "127.0.0.1", "port": 0, "node": "n1"}
        defaults |= {"socket": str(directory / "hooks.sock"), "poke_socket": str(directory / "poke.sock")}
        decode: HookDecoder = settings.pop("decode_hook", hook_decoder(own_node="n1"))
        jobs: JobReader | None = settings.pop("jobs", None)
        pages = HtmlPages(render=job_html.render, policy=job_html.POLICY)
        archive: Archive | None = settings.pop("archive", None)
        nodes: NodeReader | None = settings.pop("nodes", None)
        targets: TargetReader | None = settings.pop("targets", None)
        benchmarks: BenchmarkReader | None = settings.pop("benchmarks", None)
        security: SecurityReader | None = settings.pop("security", None)
        self.noticed: list[tuple[str, str, str, str]] = []
        forwarded_to: ForwardedTo | None = settings.pop("forwarded_to", None)
        identity: NodeIdentity | None = settings.pop("node_identity", None)
        samples: PostedSampleSink | None = settings.pop("posted_samples", None)
        self.intake: RecordingIntake = settings.pop("intake", None) or RecordingIntake()
        self.facts: list[Fact] = []
        self.health = Health(ready=True, details={"spool_depth": 0})
        self.page = b"# TYPE up gauge\nup 1\n"
        self.scrapes = 0
        self.pokes, self.looks = ScriptedPokes(), ScriptedPokes()
        self.settings = HttpSettings(**{**defaults, **settings})
        services = Services(
            intake=self.intake,
            decode_hook=decode,
            metrics=lambda: self.page,
            scraped=self._scraped,
            health=lambda: self.health,
            owner_of_run=self._owner_of_run,
            pokes=self.pokes,
            decode_poke=decode_poke,
            looks=self.looks,
            jobs=jobs,
            archive=archive,
            report_pages=pages,
            nodes=nodes,
            targets=targets,
            benchmark_intake=self._reported_benchmarks(),
            benchmarks=benchmarks,
            security=security,
            forwarded_to=forwarded_to,
            node_identity=identity,
            job_keeper=self._job_keeper(archive, samples),
        )
        self.api = HttpApi(
            services,
            tell=self.facts.append,
            clock=SystemClock(),
            settings=self.settings,
            notice=lambda *told: self.noticed.append(told),
        )
        self.addresses: Addresses

    def _spool_status(self) -> SpoolStatus:
        """A spool of which `spool_bytes` of 1000 are used, and that has forwarded all it took."""
        held = len(self.intake.events)
        return SpoolStatus(
            chain_id="c", durability="disk", head_seq=held, forwarded_seq=held, bytes_used=self.spool_bytes,
            bytes_limit=1000, oldest_unforwarded_us=None,
        )  # fmt: skip

    def _job_keeper(self, archive: Archive | None, samples: PostedSampleSink | None) -> ManualJobs:
        """The way in of what people say of jobs. There is one login name, root."""
        return ManualJobs(
            self.intake, jobs=None if archive is None else archive.jobs, samples=samples,
            spool_status=self._spool_status, user_name_of=user_name, uid_of={"root": 0}.get, clock=SystemClock(),
            node="n1", cluster="c1",
        )  # fmt: skip

    def _reported_benchmarks(self) -> ReportedBenchmarks:
        """The way in of reports."""
        self.spool_bytes = 0
        return ReportedBenchmarks(
            self.intake, owner_of_run=self._owner_of_run, user_name_of=user_name, spool_status=self._spool_status,
            clock=SystemClock(), node="n1", cluster="lab", local_cluster="local",
        )  # fmt: skip

    def _owner_of_run(self, _cluster: str, job_id: str) -> int | None:
        """As the sampler does: the user of the last start that no end followed."""
        owner = None
        for event in self.intake.events:
            if event.job_id == job_id:
                owner = event.facts.uid if event.kind is EventKind.JOB_STARTED and event.facts else None
        return owner

    def _scraped(self) -> None:
        self.scrapes += 1

    @property
    def rejections(self) -> list[str]:
        """Reasons of all refusals so far."""
        return [fact.reason for fact in self.facts if isinstance(fact, EventRejected)]

    async def unix(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to the Unix socket."""
        return await asyncio.open_unix_connection(self.settings.socket)

    async def tcp(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to the TCP port."""
        return await asyncio.open_connection(self.addresses.host, self.addresses.port)

    async def raw(self, data: bytes, *, tcp: bool = False, half_close: bool = False) -> bytes:
        """Everything the daemon sends until it hangs up, after `data`."""
        reader, writer = await (self.tcp() if tcp else self.unix())
        try:
            writer.write(data)
            if half_close:
                writer.write_eof()
            return await asyncio.wait_for(read_all(reader), ANSWER_SECONDS)
        finally:
            await hang_up(writer)

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, tcp: bool = False
    ) -> Answer:
        """One request on a connection of its own."""
        data = request_bytes(method, path, body, {"Connection": "close", **(headers or {})})
        return parse_answer(await self.raw(data, tcp=tcp), head_only=method == "HEAD")

    async def hook(self, body: bytes = PROLOG, *, path: str = HOOK_PATH, **headers: str) -> Answer:
        """POST a hook; keyword arguments replace its headers (`_` for `-`), an empty value leaves one out."""
        return await self.request("POST", path, body, hook_headers(**headers))

    async def event(self, kind: str, fields: dict[str, Any] | bytes, **headers: str) -> Answer:
        """POST a JSON event."""
        body = fields if isinstance(fields, bytes) else msgspec.json.encode(fields)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("POST", f"/v1/events/{kind}", body, named)


@asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[Served]:
    """An HttpApi that listens while the context lasts."""
    one = Served(directory, **settings)
    async with one.api.serving() as addresses:
        one.addresses = addresses
        yield one


def hook_headers(**changes: str) -> dict[str, str]:
    """Headers of a new hook event."""
    headers = {
        "Jobtrail-Event-Id": str(uuid.uuid4()),
        "Jobtrail-Event-Time": f"{time.time():.9f}",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return {name: value for name, value in headers.items() if value}


def request_bytes(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Everything until the daemon hangs up, politely or not."""
    data = b""
    try:
        while chunk := await reader.read(65536):
            data += chunk
    except ConnectionError:
        pass
    return data


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection the other side may have closed already."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def parse_answer(data: bytes, *, head_only: bool = False) -> Answer:
    """The one answer in `data`, which must hold nothing else."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no answer in {data[:200]!r}"
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert head_only or len(body) == int(headers.get("content-length", 0)), data[:500]
    return Answer(int(status_line.split()[1]), headers, body)
