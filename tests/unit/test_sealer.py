"""The sealer: one checkpoint over what moved, anchored; what shows that the store's history changed is told once."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence

import msgspec
import pytest

from jobtrail.core.trail.facts import (
    CheckpointSealed,
    CheckpointSeen,
    SealFailed,
    SealTurn,
    TrailBroken,
    TrailVerified,
    VerifyFailed,
)
from jobtrail.core.trail.ports import Checked, Recomputed
from jobtrail.core.trail.sealer import Sealer
from jobtrail.core.trail.verifying import Verifying
from jobtrail.domain.checkpoints import Inclusion, Sealed
from jobtrail.domain.errors import StoreUnavailable
from jobtrail.domain.verification import Finding, Position
from tests.fakes import Facts, FakeClock
from tests.unit import moved_time

replace = msgspec.structs.replace
CHAINS = tuple(str(uuid.UUID(int=number)) for number in (1, 2, 3))


def at(seq: int) -> Position:
    return Position(seq=seq, row_hash=hashlib.sha256(b"%d" % seq).digest())


class Store:
    """A SealStore whose chains are as long as told."""

    def __init__(self) -> None:
        self.heads = dict.fromkeys(CHAINS, 0)
        self.sealed = dict.fromkeys(CHAINS, 0)
        self.kept: list[Sealed] = []
        self.findings: list[Finding] = []
        self.other_first = False
        self.away = False

    async def newest(self) -> Sealed | None:
        if self.away:
            raise StoreUnavailable("away")
        return self.kept[-1] if self.kept else None

    async def checkpoint(self, number: int) -> Sealed | None:
        return next((one for one in self.kept if one.checkpoint.number == number), None)

    async def recompute(self) -> Recomputed:
        chains = {chain: (at(self.sealed[chain]) if self.sealed[chain] else Position(), at(head))
                  for chain, head in self.heads.items() if head}  # fmt: skip
        return Recomputed(newest=await self.newest(), chains=chains, findings=self.findings)

    async def keep(self, sealed: Sealed, proofs: Sequence[Inclusion]) -> bool:
        assert all(proof.holds() and proof.sealed == sealed for proof in proofs)
        if self.other_first:
            return False
        self.kept.append(sealed)
        self.sealed |= {proof.leaf.chain_id: proof.leaf.head_seq for proof in proofs}
        return True


class Log:
    """An AnchorLog in memory."""

    def __init__(self) -> None:
        self.lines: list[Sealed] = []
        self.broken = False

    async def last(self) -> Sealed | None:
        return self.lines[-1] if self.lines else None

    async def append(self, sealed: Sealed) -> None:
        if self.broken:
            raise OSError("no room")
        self.lines.append(sealed)


class Key:
    key_id = "00"

    def sign(self, message: bytes) -> bytes:
        return hashlib.sha256(message).digest()


class Bench:
    def __init__(self, *, signer: Key | None = None, anchored: bool = True) -> None:
        self.clock, self.facts, self.store, self.log = FakeClock(), Facts(), Store(), Log()
        self.leading = True
        self.sealer = Sealer(
            self.store, leads=self.leads, signer=signer, anchors=self.log if anchored else None, clock=self.clock,
            tell=self.facts, every_seconds=60.0,
        )  # fmt: skip

    async def leads(self) -> bool:
        return self.leading

    def alarms(self) -> list[tuple[str, str]]:
        return [(fact.code, fact.where) for fact in self.facts if isinstance(fact, TrailBroken)]

    async def grow(self, *chains: str) -> None:
        for chain in chains:
            self.store.heads[chain] += 5
        await self.sealer.turn()


async def test_what_moved_is_sealed_signed_and_anchored_and_the_next_follows() -> None:
    bench = Bench(signer=Key())
    await bench.sealer.turn()  # nothing yet
    await bench.grow(*CHAINS)
    await bench.grow(CHAINS[1])
    await bench.sealer.turn()
    first, second = (one.checkpoint for one in bench.store.kept)
    assert (first.number, first.leaf_count, first.total_rows) == (1, 3, 15)
    assert (second.number, second.leaf_count, second.total_rows, second.previous) == (2, 1, 20, first.digest())
    assert bench.log.lines == bench.store.kept
    assert bench.store.kept[0].signature == hashlib.sha256(first.encoded()).digest()
    told = [fact for fact in bench.facts if isinstance(fact, CheckpointSealed)]
    assert [(fact.number, fact.leaves, fact.rows, fact.signed) for fact in told] == [(1, 3, 15, True), (2, 1, 5, True)]
    assert bench.facts.count(SealTurn()) == 4
    assert (
        CheckpointSeen(
            number=2, digest=second.digest().hex()[:16], root=second.root.hex()[:16], sealed_us=second.time_us
        )
        in bench.facts
    )
    assert bench.alarms() == []


async def test_who_does_not_lead_sees_and_anchors_only() -> None:
    bench = Bench()
    await bench.grow(CHAINS[0])
    other = Bench()
    other.store.kept, other.leading = bench.store.kept, False
    await other.sealer.turn()
    await other.sealer.turn()
    assert other.log.lines == bench.store.kept
    assert not any(isinstance(fact, SealTurn) for fact in other.facts)


async def test_another_sealer_that_was_first_costs_nothing() -> None:
    bench = Bench(anchored=False)
    bench.store.other_first = True
    await bench.grow(CHAINS[0])
    assert (bench.store.kept, bench.alarms()) == ([], [])


async def test_findings_are_told_once_each() -> None:
    bench = Bench()
    bench.store.findings = [Finding(code="row_changed", detail="d", chain_id="c", seq=4)] * 2
    await bench.sealer.turn()
    await bench.sealer.turn()
    assert bench.alarms() == [("row_changed", "chain c sequence 4")]


@pytest.mark.parametrize("remembered", ["memory", "file"])
@pytest.mark.parametrize(
    ("change", "code"),
    [("none", "checkpoint_missing"), ("fewer", "checkpoint_missing"), ("other", "checkpoint_changed"),
     ("unlinked", "checkpoint_changed")],
)  # fmt: skip
async def test_a_store_with_another_history_is_told(change: str, code: str, remembered: str) -> None:
    bench = Bench()
    await bench.grow(CHAINS[0])
    await bench.grow(CHAINS[0])
    held = list(bench.store.kept)
    if remembered == "file":  # another daemon, or this one after a restart
        after = Bench()
        after.log.lines, after.store = bench.log.lines, bench.store
        after.sealer = Sealer(bench.store, leads=after.leads, signer=None, anchors=after.log, clock=after.clock,
                              tell=after.facts, every_seconds=60.0)  # fmt: skip
        bench = after
    bench.leading = False
    last = held[1].checkpoint
    bench.store.kept = {
        "none": [],
        "fewer": held[:1],
        "other": [held[0], Sealed(checkpoint=replace(last, root=b"x" * 32))],
        "unlinked": [*held, Sealed(checkpoint=replace(last, number=3, previous=b"x" * 32))],
    }[change]
    await bench.sealer.turn()
    assert bench.alarms() == [(code, "checkpoints")]


async def test_a_next_checkpoint_that_follows_and_one_far_on_are_no_alarm() -> None:
    bench = Bench()
    await bench.grow(CHAINS[0])
    last = bench.store.kept[-1].checkpoint
    bench.leading = False
    for number, previous in ((2, last.digest()), (9, b"x" * 32)):
        bench.store.kept.append(Sealed(checkpoint=replace(last, number=number, previous=previous)))
        await bench.sealer.turn()
    assert bench.alarms() == []


def test_a_store_that_is_away_and_a_file_that_is_full_cost_a_turn() -> None:
    bench = Bench()
    bench.store.away = True

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(bench.sealer.run(stop))
        await asyncio.sleep(90)
        bench.store.away, bench.log.broken = False, True
        bench.store.heads[CHAINS[0]] = 4
        await asyncio.sleep(60)
        stop.set()
        await task

    moved_time.run(bench.clock, main())
    reasons = [fact.reason for fact in bench.facts if isinstance(fact, SealFailed)]
    assert reasons == ["away", "away", "a checkpoint is not anchored: no room"]


class Verifier:
    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.asked: list[bool] = []
        self.findings: list[Finding] = []
        self.away = False
        self.full_at: float | None = self.clock.monotonic()  # kept by the store: daemons come and go
        self.breaks_off = False

    async def since_full(self) -> float | None:
        return None if self.full_at is None else self.clock.monotonic() - self.full_at

    async def verify(self, *, full: bool) -> Checked:
        if self.away:
            raise StoreUnavailable("away")
        self.asked.append(full)
        if full and self.breaks_off:
            raise StoreUnavailable("broke off")
        if full:
            self.full_at = self.clock.monotonic()
        return Checked(kind="full" if full else "incremental", rows=7, chains=2, removed=0, unsealed=1, checkpoint=3,
                       findings=self.findings)  # fmt: skip


def verifying(verifier: Verifier, clock: FakeClock, facts: Facts, *, leads: bool = True) -> Verifying:
    async def leading() -> bool:
        return leads

    return Verifying(verifier, leads=leading, clock=clock, tell=facts, every_seconds=300.0, full_seconds=1000.0)


def test_who_leads_verifies_what_is_new_often_and_everything_rarely() -> None:
    clock, facts = FakeClock(), Facts()
    verifier = Verifier(clock)

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(verifying(verifier, clock, facts).run(stop))
        await asyncio.sleep(1600)
        verifier.away = True
        await asyncio.sleep(300)
        stop.set()
        await task

    moved_time.run(clock, main())
    assert verifier.asked == [False, False, False, False, True, False]
    told = [fact for fact in facts if isinstance(fact, TrailVerified)]
    assert [(fact.kind, fact.rows, fact.checkpoint, fact.findings) for fact in told[:1]] == [("incremental", 7, 3, 0)]
    assert [fact.reason for fact in facts if isinstance(fact, VerifyFailed)] == ["away"]


async def test_restarts_do_not_put_off_the_full_verification_nor_repeat_it() -> None:
    """A server that is restarted more often than everything is to be verified verifies everything all the same."""
    clock = FakeClock()
    verifier = Verifier(clock)
    for _ in range(12):
        await verifying(verifier, clock, Facts()).turn()  # each a daemon of its own
        clock.advance(250.0)
    assert verifier.asked == [False, False, False, False, True, False, False, False, True, False, False, False]


@pytest.mark.parametrize("ahead", [None, 5000.0])
async def test_it_is_due_where_it_never_was_done_or_the_stores_clock_was_set_back_since(ahead: float | None) -> None:
    clock = FakeClock()
    verifier = Verifier(clock)
    verifier.full_at = None if ahead is None else clock.monotonic() + ahead
    part = verifying(verifier, clock, Facts())
    await part.turn()
    await part.turn()
    assert verifier.asked == [True, False]


def test_one_that_breaks_off_is_not_tried_at_every_turn() -> None:
    clock, facts = FakeClock(), Facts()
    verifier = Verifier(clock)
    verifier.full_at, verifier.breaks_off = None, True

    async def main() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(verifying(verifier, clock, facts).run(stop))
        await asyncio.sleep(1700)
        stop.set()
        await task

    moved_time.run(clock, main())
    assert verifier.asked == [True, False, False, False, True, False]
    assert len([fact for fact in facts if isinstance(fact, VerifyFailed)]) == 2


async def test_what_a_verification_finds_is_told_once_and_counted_each_time() -> None:
    clock, facts = FakeClock(), Facts()
    verifier = Verifier(clock)
    verifier.findings = [
        Finding(code="row_changed", detail="d", chain_id="c", seq=4),
        Finding(code="root_differs", detail="d", checkpoint=2),
    ]
    part = verifying(verifier, clock, facts)
    await part.turn()
    await part.turn()
    assert [(fact.code, fact.where) for fact in facts if isinstance(fact, TrailBroken)] == [
        ("row_changed", "chain c sequence 4"), ("root_differs", "checkpoints"),
    ]  # fmt: skip
    assert [fact.findings for fact in facts if isinstance(fact, TrailVerified)] == [2, 2]


async def test_who_does_not_lead_verifies_nothing() -> None:
    verifier = Verifier()
    await verifying(verifier, FakeClock(), Facts(), leads=False).turn()
    assert verifier.asked == []


async def test_a_checkpoint_that_could_not_be_anchored_is_anchored_when_there_is_room() -> None:
    bench = Bench()
    bench.log.broken = True
    with pytest.raises(OSError, match="no room"):
        await bench.grow(CHAINS[0])
    bench.log.broken = False
    await bench.sealer.turn()  # nothing moved since
    await bench.sealer.turn()
    assert bench.log.lines == bench.store.kept


@pytest.mark.parametrize("gone", [False, True])
async def test_another_history_with_more_checkpoints_than_were_seen_shows(gone: bool) -> None:
    bench, forger = Bench(), Bench()
    await bench.grow(CHAINS[0])
    await bench.grow(CHAINS[1])
    forger.clock.advance(5.0)
    for chain in (*CHAINS, *CHAINS):
        await forger.grow(chain)
    bench.store.kept = forger.store.kept[4:] if gone else forger.store.kept
    bench.leading = False
    await bench.sealer.turn()
    assert bench.alarms() == [("checkpoint_missing" if gone else "checkpoint_changed", "checkpoints")]


async def test_what_others_sealed_meanwhile_is_no_alarm() -> None:
    bench, other = Bench(), Bench()
    await bench.grow(CHAINS[0])
    other.store = bench.store
    other.sealer = Sealer(other.store, leads=other.leads, signer=None, anchors=None, clock=other.clock,
                          tell=other.facts, every_seconds=60.0)  # fmt: skip
    for chain in CHAINS:
        await other.grow(chain)
    bench.leading = False
    await bench.sealer.turn()
    assert bench.alarms() == []
    assert [one.checkpoint.number for one in bench.log.lines] == [1, 4]
