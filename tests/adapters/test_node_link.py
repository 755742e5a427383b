"""What a server takes from nodes, and what it does not: identity, packed bodies, room, a database that is away."""

import asyncio
import gzip
import os
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobtrail.adapters.http import link_bodies, link_room
from jobtrail.adapters.postgres import PostgresSink, close_pool, open_pool, session
from jobtrail.adapters.server_link import LinkEvents, LinkSamples
from jobtrail.core.facts import NodeContradicted, NodeServed
from jobtrail.core.link.protocol import FREE_BYTES, MAX_BODY_BYTES, MAX_RATIO, MEDIA_TYPE, EventBatch
from jobtrail.core.ports import TRAIL_ONLY, StoreReport
from jobtrail.domain.audit import EMPTY_CHAIN, ChainedEvent, ChainHead
from jobtrail.domain.checkpoints import Anchor, Checkpoint, Inclusion, Leaf, Sealed
from jobtrail.domain.errors import StoreRefused, StoreUnavailable
from jobtrail.domain.events import EventKind
from jobtrail.domain.states import State
from tests.adapters import test_postgres_energy_samples as energy
from tests.adapters import test_postgres_gpu_samples as gpus
from tests.adapters import test_postgres_samples as samples
from tests.chains import SECOND, ChainWriter
from tests.fakes import MemorySink
from tests.served_api import Answer, Served, hang_up, request_bytes, served
from tests.served_link import TOKEN, Known, Site, in_postgres, shared_token, site, write_token

BEARER = {"Authorization": f"Bearer {TOKEN}"}
MIB = 1 << 20


class Owners:
    """A ChainOwners in memory."""

    def __init__(self, **known: str) -> None:
        self.known = known

    async def owner(self, chain_id: str) -> str | None:
        return self.known.get(chain_id)


@pytest.fixture
async def stored(tmp_path: Path, pool: Any) -> AsyncIterator[Site]:
    async with site(tmp_path, in_postgres(pool)) as one:
        yield one


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """A server without TLS in front of a store in memory, for raw requests."""
    sink = MemorySink()
    identity = Known(shared_token(str(write_token(tmp_path / "nodes.token"))))
    to = in_postgres(None, events=sink, owners=Owners())
    async with served(tmp_path, forwarded_to=to, node_identity=identity) as one:
        one.sink, one.known = sink, identity  # type: ignore[attr-defined]
        yield one


def batch_of(writer: ChainWriter, **fields: Any) -> bytes:
    return msgspec.msgpack.encode(EventBatch(events=tuple(writer.rows), **fields))


def path_of(writer: ChainWriter) -> str:
    return f"/v1/chains/{writer.chain_id}/batches"


async def post(api: Served, path: str, body: bytes, **headers: str) -> Answer:
    """A body as node n1 sends it; an empty value leaves a header out."""
    named = {"Content-Type": MEDIA_TYPE, "Jobtrail-Node": "n1", "Content-Encoding": "identity", **BEARER}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.request("POST", path, body, {name: value for name, value in named.items() if value}, tcp=True)


async def trail(pool: Any) -> int:
    async with session(pool, 10.0) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM audit_log")
    return count


# --- what arrives


async def test_samples_arrive_as_if_the_node_had_written_them(stored: Site, pool: Any) -> None:
    """Each value of each kind, once through a server and once straight into the database."""
    now = samples.now_us()
    job, gpu, used = (
        samples.row(samples.whole_reading(now), cpu_percent=12.5), gpus.row(gpus.whole_reading(now)), energy.row(now),
    )  # fmt: skip
    link = LinkSamples(stored.link())
    await link.write([job])
    await link.write_gpus([gpu])
    await link.write_energy([used])
    through = [await kind.held(pool) for kind in (samples, gpus, energy)]
    async with session(pool, 10.0) as connection:
        await connection.execute("TRUNCATE job_samples, gpu_samples, energy_samples")
    await samples.sink(pool).write([job])
    await gpus.sink(pool).write_gpus([gpu])
    await energy.sink(pool).write_energy([used])
    assert through == [await kind.held(pool) for kind in (samples, gpus, energy)]
    assert all(len(rows) == 1 for rows in through)


async def test_a_sample_that_no_column_can_hold_is_refused_for_good(stored: Site) -> None:
    reading = msgspec.structs.replace(samples.whole_reading(samples.now_us()), memory_peak_bytes=1 << 70)
    with pytest.raises(StoreRefused):
        await LinkSamples(stored.link()).write([samples.row(reading)])


async def test_a_database_that_is_away_is_told_with_a_time_to_come_back(tmp_path: Path) -> None:
    pool = await open_pool("postgresql://nobody@127.0.0.1:9/none", size=1, timeout_seconds=10.0)
    try:
        async with site(tmp_path, in_postgres(pool)) as away:
            with pytest.raises(StoreUnavailable, match=r"cannot take it now.*Connect call failed") as caught:
                await LinkEvents(away.link()).head(str(uuid.uuid4()))
            assert caught.value.retry_after_seconds == 5
            (served_one,) = [fact for fact in away.server.facts if isinstance(fact, NodeServed)]
            assert (served_one.node, served_one.what, served_one.status) == ("n1", "head", 503)
    finally:
        await close_pool(pool, timeout_seconds=2.0)


# --- who sends


async def test_who_shows_no_token_or_another_is_kept_out(stored: Site, tmp_path: Path, pool: Any) -> None:
    writer = ChainWriter()
    writer.begin()
    for token, words in (("", "Bearer"), ("f" * 32, "not the token")):
        settings = {"token_file": str(write_token(tmp_path / "other", token)) if token else ""}
        with pytest.raises(StoreUnavailable, match=f"does not let this node in: .*{words}"):
            await LinkEvents(stored.link(**settings)).store(writer.rows, node="n1")
    assert await trail(pool) == 0
    assert [fact.outcome for fact in stored.asked] == ["denied", "denied"]  # type: ignore[attr-defined]


async def test_a_node_is_known_by_its_certificate(tmp_path: Path, pool: Any) -> None:
    """It needs no token; whoever has another node's certificate, or none, is not that node."""
    writer = ChainWriter()
    writer.begin()
    async with site(tmp_path, in_postgres(pool), certificates=True) as at:
        files = {}
        for node in ("n1", "n2"):
            certificate, key = at.authority.issue(node)
            files[node] = {"certificate_file": str(certificate), "key_file": str(key), "token_file": ""}
        with pytest.raises(StoreUnavailable, match=r"no TLS with|is not reached"):
            await LinkEvents(at.link("n1")).store(writer.rows, node="n1")
        with pytest.raises(StoreUnavailable, match="does not let this node in"):
            await LinkEvents(at.link("n1", **files["n2"])).store(writer.rows, node="n1")
        for number, san in enumerate(("email:n1", "URI:n1", "URI:https://n1", "DNS:n1.elsewhere", "DNS:n")):
            certificate, key = at.authority.issue(f"other{number}", san=san)
            shown = {"certificate_file": str(certificate), "key_file": str(key), "token_file": ""}
            with pytest.raises(StoreUnavailable, match="the certificate is for"):
                await LinkEvents(at.link("n1", **shown)).store(writer.rows, node="n1")
        assert await trail(pool) == 0
        assert (await LinkEvents(at.link("n1", **files["n1"])).store(writer.rows, node="n1")).stored == 1


async def test_what_is_sealed_of_the_store_reaches_the_node(tmp_path: Path) -> None:
    """With signature and path, byte for byte; and whatever a later server adds to its report is passed over."""
    writer = ChainWriter()
    writer.begin()
    checkpoint = Checkpoint(
        number=7, previous=bytes(range(32)), root=bytes(range(32, 64)), leaf_count=3, total_rows=9, time_us=5
    )
    leaf = Leaf(chain_id=writer.chain_id, head_seq=1, head_hash=writer.head.row_hash)
    sealed = Sealed(checkpoint=checkpoint, signature=bytes(range(64)), key_id="0011223344556677")
    own = Inclusion(sealed=sealed, leaf=leaf, index=0, path=(bytes(32), bytes(range(32))))
    report = StoreReport(head=writer.head, stored=1, unapplied={1: "why"}, anchor=Anchor(newest=sealed, own=own))

    class Sealing(SlowSink):
        async def store(
            self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None
        ) -> StoreReport:
            return report

    async with site(tmp_path, in_postgres(None, events=Sealing(), owners=Owners())) as at:
        assert await LinkEvents(at.link()).store(writer.rows, node="n1") == report


@pytest.mark.parametrize("name", ["", "no name", "-n1", "n" * 300, "n1, n2"])
async def test_a_request_names_its_node_and_does_it_well(api: Served, name: str) -> None:
    answer = await post(api, path_of(ChainWriter()), b"", Jobtrail_Node=name)
    assert (answer.status, answer.json()["details"]) == (400, {"field": "Jobtrail-Node"})


async def test_another_nodes_chain_is_neither_read_nor_written(stored: Site, pool: Any) -> None:
    """Nor can it be once it is known to the server, nor through a server that never saw it."""
    writer = ChainWriter("n1")
    writer.begin()
    await LinkEvents(stored.link("n1")).store(writer.rows, node="n1")
    thief = LinkEvents(stored.link("n2"))
    stolen = ChainWriter("n2", chain_id=writer.chain_id)
    stolen.rows = list(writer.rows)
    stolen.started("slurm-66")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="node 'n2' sends this chain, which is of node 'n1'"):
            await thief.head(writer.chain_id)
        for trail_only in (None, TRAIL_ONLY):
            with pytest.raises(StoreUnavailable, match="node 'n2' sends this chain, which is of node 'n1'"):
                await thief.store(stolen.rows[1:], node="n2", trail_only=trail_only)
    assert await trail(pool) == 1
    said = [fact for fact in stored.server.facts if isinstance(fact, NodeContradicted)]
    assert {(fact.node, fact.claimed, fact.what, fact.peer) for fact in said} == {("n2", "n1", "chain", "127.0.0.1")}
    assert len(said) == 6


async def test_what_a_node_says_of_another_changes_nothing_and_stays_in_its_own_trail(stored: Site, pool: Any) -> None:
    writer = ChainWriter("n2")
    writer.started("slurm-1")
    events = LinkEvents(stored.link("n1"))
    with pytest.raises(StoreRefused, match="node 'n1' sends this event, which is of node 'n2'"):
        await events.store(writer.rows, node="n1")
    assert await trail(pool) == 0
    assert [fact.what for fact in stored.server.facts if isinstance(fact, NodeContradicted)] == ["event"]
    assert (await events.store(writer.rows, node="n1", trail_only=TRAIL_ONLY)).stored == 1
    async with session(pool, 10.0) as connection:
        assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
        why = await connection.fetchval("SELECT unapplied FROM audit_log")
    assert why == "not this node's to say: the event is of node 'n2'"


async def test_samples_of_another_node_are_refused(stored: Site, pool: Any) -> None:
    link = LinkSamples(stored.link("n2"))
    now = samples.now_us()
    for send in (
        lambda: link.write([samples.row(samples.whole_reading(now))]),
        lambda: link.write_gpus([gpus.row(gpus.whole_reading(now))]),
        lambda: link.write_energy([energy.row(now)]),
    ):
        with pytest.raises(StoreRefused, match="node 'n2' sends this sample, which is of node 'n1'"):
            await send()
    assert [len(await kind.held(pool)) for kind in (samples, gpus, energy)] == [0, 0, 0]


async def test_a_daemon_that_is_no_server_sends_nodes_away(tmp_path: Path) -> None:
    async with site(tmp_path, None) as none:
        with pytest.raises(StoreUnavailable, match="no server with a database"):
            await LinkEvents(none.link()).head(str(uuid.uuid4()))
    async with served(tmp_path) as closed:
        answer = await post(closed, path_of(ChainWriter()), b"")
        assert (answer.status, "http.node_token_file" in answer.json()["message"]) == (403, True)


async def test_events_for_the_trail_alone_come_one_by_one(stored: Site, pool: Any) -> None:
    """The reason that the trail gives for ever is of each event, and not that of the first in a batch."""
    writer = ChainWriter("n1")
    writer.started("slurm-1")
    writer.started("slurm-2")
    events = LinkEvents(stored.link("n1"))
    with pytest.raises(StoreRefused, match="sent one by one"):
        await events.store(writer.rows, node="n1", trail_only=TRAIL_ONLY)
    assert await trail(pool) == 0


async def test_what_no_node_can_know_changes_nothing_and_stays_in_its_own_trail(stored: Site, pool: Any) -> None:
    """Root of one node takes another's job kept by hand: a creation that claims to be older counts as a whole."""
    server = ChainWriter("s1")
    server.said(EventKind.JOB_CREATED, 60 * SECOND, "manual-a", user_name="ada", uid=7, state=State.RUNNING)
    await PostgresSink(pool, timeout_seconds=10.0).store(server.rows, node="s1")
    thief = ChainWriter("n1")
    thief.said(EventKind.JOB_CREATED, 0, "manual-a", user_name="eve", uid=8, state=State.FAILED)
    events = LinkEvents(stored.link("n1"))
    with pytest.raises(StoreRefused, match="makes a job under a name that was chosen"):
        await events.store(thief.rows, node="n1")
    assert (await events.store(thief.rows, node="n1", trail_only=TRAIL_ONLY)).stored == 1
    async with session(pool, 10.0) as connection:
        assert [tuple(row) for row in await connection.fetch("SELECT user_name, uid, state FROM jobs")] == [
            ("ada", 7, "running")
        ]
    assert [fact.what for fact in stored.server.facts if isinstance(fact, NodeContradicted)] == ["event"]
    assert [what for what, *_ in stored.server.noticed] == ["forged_node"]


# --- packed bodies


class CountingInflater:
    """A zlib decompressor, and how many bytes it was given and gave, what is thrown away included."""

    def __init__(self, inflater: Any) -> None:
        self._inflater = inflater
        self.packed = self.unpacked = 0

    def decompress(self, chunk: bytes, most: int) -> bytes:
        part: bytes = self._inflater.decompress(chunk, most)
        self.packed += len(chunk)
        self.unpacked += len(part)
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inflater, name)


async def test_a_gzip_bomb_costs_nothing(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MiB that unpacks to a GiB is refused at its first part; no more is unpacked than could be kept."""
    kept: list[int] = []
    counting: list[CountingInflater] = []
    take = link_bodies._Unpacking.take

    def counted(self: Any, chunk: bytes) -> int:
        if not counting:
            self._inflater = CountingInflater(self._inflater)
            counting.append(self._inflater)
        size = take(self, chunk)
        kept.append(size)
        return size

    monkeypatch.setattr(link_bodies._Unpacking, "take", counted)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(16 * MIB)) for _ in range(64)) + packer.flush()
    assert len(bomb) < 2 * MIB
    answer = await post(api, path_of(ChainWriter()), bomb, Content_Encoding="gzip")
    assert (answer.status, answer.json()["details"]) == (413, {"limit_ratio": MAX_RATIO})
    assert sum(kept) <= FREE_BYTES + MAX_RATIO * 4096
    (inflater,) = counting
    assert 0 < inflater.unpacked <= max(FREE_BYTES, MAX_RATIO * inflater.packed) + 1


async def test_a_body_that_unpacks_to_too_much_is_refused(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_bodies, "MAX_BODY_BYTES", 3 * MIB)
    body = gzip.compress(os.urandom(64 * 1024) * 64, 1)
    assert len(body) * MAX_RATIO > 4 * MIB
    answer = await post(api, path_of(ChainWriter()), body, Content_Encoding="gzip")
    assert (answer.status, answer.json()["details"]) == (413, {"limit_bytes": 3 * MIB})


async def test_a_body_that_is_larger_than_any_batch_is_refused_before_it_comes(api: Served) -> None:
    headers = {"Content-Type": MEDIA_TYPE, "Jobtrail-Node": "n1", "Content-Length": str(MAX_BODY_BYTES), **BEARER}
    answer = await api.request("POST", path_of(ChainWriter()), b"", headers, tcp=True)
    assert answer.status == 413


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (lambda body: body[:-9], 400, "broke off"),
        (lambda body: body + b"more", 400, "goes on after the end"),
        (lambda body: body[:20] + b"\xff" * 8 + body[28:], 400, "body"),
        (lambda _: b"no gzip at all", 400, "is not gzip"),
    ],
)
async def test_a_body_that_is_packed_badly(api: Served, spoil: Any, status: int, words: str) -> None:
    writer = ChainWriter()
    writer.begin()
    answer = await post(api, path_of(writer), spoil(gzip.compress(batch_of(writer))), Content_Encoding="gzip")
    assert answer.status == status
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Content_Encoding": "br"}, "Content-Encoding"),
        ({"Content_Encoding": "gzip, gzip"}, "Content-Encoding"),
        ({"Content_Type": "application/json"}, "Content-Type"),
        ({"Content_Type": MEDIA_TYPE.replace("v1", "v2")}, "Content-Type"),
        ({"Content_Type": ""}, "Content-Type"),
    ],
)
async def test_another_version_or_encoding_is_told(api: Served, headers: dict[str, str], field: str) -> None:
    answer = await post(api, path_of(ChainWriter()), b"x", **headers)
    assert (answer.status, answer.json()["details"]["field"]) == (415, field)


async def test_an_event_of_values_in_values_without_end_is_kept_and_stops_nothing(stored: Site) -> None:
    writer = ChainWriter("n1")
    writer.raw(b'{"node":"n1","more":' + b"[" * 5000 + b"]" * 5000 + b"}")
    writer.started("slurm-1")
    events = LinkEvents(stored.link("n1"))
    with pytest.raises(StoreRefused, match="values in values"):
        await events.store(writer.rows, node="n1")
    assert (await events.store(writer.rows[:1], node="n1", trail_only=TRAIL_ONLY)).stored == 1
    assert (await events.store(writer.rows[1:], node="n1")).stored == 1


DEEP = b"\x82\xa6events\x90\xa4more" + b"\x91" * 5000 + b"\x90"


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"events": [{"seq": "one"}]}), b"\x00", DEEP]
)
async def test_a_body_that_says_something_else(api: Served, body: bytes) -> None:
    answer = await post(api, path_of(ChainWriter()), body)
    assert answer.status == 400
    assert "is not what" in answer.json()["message"]


async def test_a_field_that_a_later_version_adds_is_passed_over(api: Served) -> None:
    writer = ChainWriter()
    writer.begin()
    body = msgspec.msgpack.decode(batch_of(writer))
    body["new"] = {"of": ["a", "later", "version"]}
    body["events"][0]["new"] = 1
    answer = await post(api, path_of(writer), gzip.compress(msgspec.msgpack.encode(body)), Content_Encoding="gzip")
    assert (answer.status, answer.json()["stored"]) == (200, 1)


async def test_too_many_rows_and_odd_chains_are_refused(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobtrail.adapters.http.chains.MAX_EVENTS", 2)
    writer = ChainWriter()
    for _ in range(3):
        writer.started("slurm-1")
    answer = await post(api, path_of(writer), batch_of(writer))
    assert (answer.status, answer.json()["details"]) == (413, {"limit_rows": 2})
    writer.rows = writer.rows[:1]
    other = ChainWriter()
    answer = await post(api, path_of(other), batch_of(writer))
    assert (answer.status, "another one" in answer.json()["message"]) == (422, True)
    for chain in (writer.chain_id.upper(), "x", "%00"):
        answer = await post(api, f"/v1/chains/{chain}/batches", b"")
        assert answer.status == 400


# --- room


class SlowSink:
    """An EventSink that is as slow as a test wants, and counts how many use it at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def head(self, chain_id: str) -> ChainHead:
        return EMPTY_CHAIN

    async def store(self, events: Sequence[ChainedEvent], *, node: str, trail_only: str | None = None) -> StoreReport:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.gate.wait()
        self.inside -= 1
        return StoreReport(head=ChainHead(events[-1].seq, events[-1].row_hash), stored=len(events))


async def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def crowd(at: Site, size: int) -> list[StoreReport | BaseException]:
    """What becomes of a batch of each of so many nodes at once."""

    async def one(number: int) -> StoreReport:
        writer = ChainWriter(f"n{number}")
        writer.begin()
        return await LinkEvents(at.link(writer.node)).store(writer.rows, node=writer.node)

    return await asyncio.gather(*(one(number) for number in range(size)), return_exceptions=True)


async def test_no_more_use_the_database_at_once_than_it_has_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait their turn, and all are served."""
    monkeypatch.setattr(link_room, "TURN_SECONDS", 60.0)
    sink = SlowSink()
    async with site(tmp_path, in_postgres(None, at_a_time=3, events=sink, owners=Owners())) as at:
        crowding = asyncio.create_task(crowd(at, 12))
        await until(lambda: at.known.asked == 12 and sink.inside >= 3)
        for _ in range(100):  # a fourth would come in now
            await asyncio.sleep(0)
        sink.gate.set()
        done = await crowding
    assert all(isinstance(one, StoreReport) for one in done), done
    assert sink.most == 3


@pytest.mark.parametrize("full", ["places", "time", "memory"])
async def test_who_finds_no_room_is_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    sink = SlowSink()
    if full == "places":
        monkeypatch.setattr(link_room, "WAITING_FOR_EACH", 2)
    elif full == "time":
        monkeypatch.setattr(link_room, "TURN_SECONDS", 0.2)
    else:
        defaults = link_room.Room.__init__.__kwdefaults__ | {"most_bytes": 1500}
        monkeypatch.setattr(link_room.Room.__init__, "__kwdefaults__", defaults)
    async with site(tmp_path, in_postgres(None, at_a_time=1, events=sink, owners=Owners())) as at:
        crowding = asyncio.create_task(crowd(at, 8))
        await until(lambda: any(getattr(fact, "outcome", "") == "busy" for fact in at.asked))
        sink.gate.set()
        done = await crowding
        taken = [one for one in done if isinstance(one, StoreReport)]
        refused = [one for one in done if isinstance(one, StoreUnavailable)]
        assert min(len(taken), len(refused)) >= 1
        assert len(taken) + len(refused) == 8
        assert {one.retry_after_seconds for one in refused} == {link_room.RETRY_SECONDS}
        assert {fact.outcome for fact in at.asked} == {"ok", "busy"}  # type: ignore[attr-defined]
        assert isinstance((await crowd(at, 1))[0], StoreReport)  # the places were given back


async def test_one_node_takes_no_more_than_its_part_of_the_room(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who begins bodies and never ends them keeps out itself alone."""
    monkeypatch.setattr(link_room, "PLACES_OF_A_NODE", 3)
    monkeypatch.setattr(link_room, "BYTES_OF_A_NODE", 5000)
    monkeypatch.setattr(link_bodies, "BODY_SECONDS", 600.0)  # no body is given up before the end
    writer = ChainWriter("n1")
    writer.begin()

    def begun(node: str, length: int, body: bytes) -> bytes:
        headers = {"Content-Type": MEDIA_TYPE, "Jobtrail-Node": node, "Content-Length": str(length), **BEARER}
        return request_bytes("POST", path_of(writer), body, headers)

    async with AsyncExitStack() as stack:

        async def begin(body: bytes) -> asyncio.StreamReader:
            """Returns when the server has begun to read it: one comes after the other."""
            reader, connection = await api.tcp()
            stack.push_async_callback(hang_up, connection)
            asked = api.known.asked  # type: ignore[attr-defined]
            connection.write(begun("n2", 100_000, body))
            await until(lambda: api.known.asked > asked)  # type: ignore[attr-defined]
            for _ in range(20):  # what came with the head is taken now
                await asyncio.sleep(0)
            return reader

        held = [await begin(b"x" * 2400) for _ in range(2)]
        late = asyncio.ensure_future(held[1].readuntil(b"\r\n\r\n"))
        third = await begin(b"x" * 2400)
        assert b"503" in await asyncio.wait_for(third.readuntil(b"\r\n\r\n"), 60)  # of its bytes
        for _ in range(4):
            last = await begin(b"")
        assert b"503" in await asyncio.wait_for(last.readuntil(b"\r\n\r\n"), 60)  # of its places
        assert not late.done()
        late.cancel()
        answer = await post(api, path_of(writer), batch_of(writer))
        assert (answer.status, answer.json()["stored"]) == (200, 1)


async def test_the_link_of_a_silent_node_stays_open_and_a_strangers_does_not(tmp_path: Path) -> None:
    """A handshake for each batch would cost more than the batch; but a connection that nobody is known on is cut."""
    to = in_postgres(None, events=SlowSink(), owners=Owners())
    async with site(tmp_path, to, header_timeout_seconds=2.0) as at:
        events = LinkEvents(at.link())
        await events.head(str(uuid.uuid4()))
        reader, writer = await at.server.tcp()  # it came after the node's last request, and is cut first
        assert await asyncio.wait_for(reader.read(), 60) == b""
        await hang_up(writer)
        await events.head(str(uuid.uuid4()))
        assert (at.known.asked, len(at.known.ports)) == (2, 1)


async def test_a_store_of_its_own_kind_is_behind(stored: Site, pool: Any) -> None:
    """A head that the server reports is the database's own."""
    writer = ChainWriter()
    writer.whole_job("slurm-1")
    await PostgresSink(pool, timeout_seconds=10.0).store(writer.rows[:2], node="n1")
    events = LinkEvents(stored.link())
    assert (await events.head(writer.chain_id)).seq == 2
    assert (await events.store(writer.rows, node="n1")).replayed == 2
