"""Recomputes the trail as the database holds it: rows, what the store noted beside them, checkpoints, anchors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from jobtrail.adapters.postgres.anchors import sealed
from jobtrail.adapters.postgres.chain_beginnings import check_beginnings
from jobtrail.adapters.postgres.pool import session, transaction
from jobtrail.adapters.postgres.removals import load_removals, note_removal
from jobtrail.adapters.postgres.statements import SQL
from jobtrail.adapters.postgres.trail_rows import trail_row
from jobtrail.core.trail.ports import Checked
from jobtrail.domain.checkpoint_check import CheckpointCheck, Keys, StoredCheckpoint, compare_anchors
from jobtrail.domain.checkpoints import Checkpoint, Leaf, Sealed
from jobtrail.domain.verification import ChainCheck, Finding, Position, Removals, TrailRow

if TYPE_CHECKING:
    from jobtrail.adapters.postgres.pool import Connection, Pool

ROWS_AT_ONCE = 500
CHECKPOINTS_AT_ONCE = 50
MOST_FINDINGS = 1000
PATIENCE_SECONDS = 86_400.0  # reading a whole trail takes what it takes
LAST_SEQ = 2**62
OWN_NODE = "@store"

Progress = Callable[[int, int], None]  # rows and checkpoints so far


class PostgresVerifier:
    """A Verifier on a PostgreSQL pool. Without `record` the rights of jobtrail_auditor are enough for it."""

    def __init__(
        self,
        pool: Pool,
        *,
        timeout_seconds: float,
        keys: Keys | None = None,
        anchors: Sequence[Sealed] = (),
        record: bool = True,
        progress: Progress | None = None,
        accepted: Container[str] = (),
    ) -> None:
        """`accepted`: chains that somebody looked into, though their first rows do not say what they follow."""
        self._pool = pool
        self._timeout = timeout_seconds
        self._keys = keys
        self._anchors = anchors
        self._record = record
        self._progress = progress
        self._accepted = accepted

    async def since_full(self) -> float | None:
        """Seconds since all was recomputed; None where that is not on record. Raises StoreUnavailable."""
        async with session(self._pool, self._timeout) as connection:
            seconds: float | None = await connection.fetchval(SQL["verify_since_full"])
        return seconds

    async def verify(self, *, full: bool) -> Checked:
        """Recompute everything, or what is beyond the checkpoint of the last time. Raises StoreUnavailable."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["verify_hold_still"])
            run = _Run(connection, self._keys, self._progress)
            start = None if full else await run.last_verified()
            await run.check_checkpoints(start)
            await run.check_chains(start)
            await run.check_beginnings(self._accepted)
            if full:
                await run.check_stray_payloads()
            await run.check_anchors(self._anchors)
        checked = run.result("full" if full else "incremental")
        if self._record:
            await self._keep(checked, run.digest)
        return checked

    async def verify_job(self, job_id: str, cluster: str | None) -> Checked:
        """Recompute the rows of one job, each in the stretch of its chain between the checkpoints around it."""
        async with transaction(self._pool, self._timeout, isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(SQL["verify_hold_still"])
            run = _Run(connection, self._keys, self._progress)
            await run.check_job(job_id, cluster)
            await run.check_anchors(self._anchors)
        return run.result("job")

    async def _keep(self, checked: Checked, digest: bytes | None) -> None:
        async with transaction(self._pool, self._timeout) as connection:
            await connection.execute(
                SQL["verify_record"], checked.kind, checked.checkpoint, digest, checked.rows, len(checked.findings)
            )


class _Run:
    """One verification on one snapshot of the database."""

    def __init__(self, connection: Connection, keys: Keys | None, progress: Progress | None) -> None:
        self._connection = connection
        self._keys = keys
        self._progress = progress
        self._removals = Removals()
        self._findings: list[Finding] = []
        self._rows = self._chains = self._removed = self._unsealed = 0
        self._begun: set[str] = set()  # chains that were recomputed from their first row on
        self._newest: Checkpoint | None = None
        self._checkpoints = 0

    @property
    def digest(self) -> bytes | None:
        """Hash of the newest checkpoint."""
        return None if self._newest is None else self._newest.digest()

    def result(self, kind: str) -> Checked:
        """What was found."""
        return Checked(
            kind=kind,
            rows=self._rows,
            chains=self._chains,
            removed=self._removed,
            unsealed=self._unsealed,
            checkpoint=0 if self._newest is None else self._newest.number,
            findings=self._findings,
        )

    async def last_verified(self) -> Sealed | None:
        """The checkpoint up to which all was good the last time, as the store holds it now."""
        row = await self._connection.fetchrow(SQL["verify_last"])
        if row is None or row["number"] == 0:
            return None
        held = await self._some_checkpoints([row["number"]])
        if not held or held[0].sealed.checkpoint.digest() != row["digest"]:
            detail = "it was verified, and is not what the store holds now; all is recomputed"
            self._find(Finding(code="checkpoint_changed", checkpoint=row["number"], detail=detail))
            return None
        return held[0].sealed

    async def check_checkpoints(self, start: Sealed | None) -> None:
        """All checkpoints after `start`."""
        before = None if start is None else start.checkpoint
        check = CheckpointCheck(before, keys=self._keys, signed=start is not None and start.signature is not None)
        number = 0 if before is None else before.number
        async for row in self._stream("verify_checkpoints", number, size=CHECKPOINTS_AT_ONCE):
            self._find(*check.take(_stored(row)))
            self._checkpoints += 1
        if start is None:
            self._find(*check.end())
        self._newest = check.newest

    async def check_chains(self, start: Sealed | None) -> None:
        """Every chain, from where `start` covers it."""
        if start is None:
            chains = await self._connection.fetch(SQL["verify_chains"], timeout=PATIENCE_SECONDS)
        else:
            chains = await self._connection.fetch(
                SQL["verify_moved_chains"], start.checkpoint.number, timeout=PATIENCE_SECONDS
            )
        for chain in chains:
            own = chain["node"] == OWN_NODE
            begin = Position()
            if not own:
                begin = await self._beginning(chain["chain_id"])
                if chain["verified_seq"] is not None and chain["verified_seq"] > begin.seq:
                    begin = _position(chain, "verified_seq", "verified_hash", "verified_store_hash")
            await self._check_chain(chain, begin, own=own)

    async def _beginning(self, chain_id: str) -> Position:
        """Where a chain begins behind what was pruned: nothing is pruned by order but what a checkpoint covers."""
        begin = self._removals.beginning(chain_id)
        if begin.seq:
            leaf = await self._connection.fetchrow(SQL["verify_first_leaf"], chain_id, begin.seq)
            at_leaf = leaf is not None and leaf["head_seq"] == begin.seq
            if leaf is None or (at_leaf and _position(leaf, "head_seq", "head_hash", "store_hash") != begin):
                detail = "it is said to be pruned up to there, and no checkpoint covers it as it is said to have been"
                self._find(Finding(code="leaf_differs", chain_id=chain_id, seq=begin.seq, detail=detail))
        return begin

    async def _check_chain(self, chain: Any, begin: Position, *, own: bool) -> None:
        chain_id = chain["chain_id"]
        if begin.seq == 0 and not own:
            self._begun.add(chain_id)
        end = await self._check_stretch(chain_id, begin, LAST_SEQ, own=own)
        self._chains += 1
        if chain["head_seq"] is None:
            self._find(Finding(code="chain_missing", chain_id=chain_id, detail="it is not in audit_chain"))
        elif chain["head_seq"] > end.seq:
            detail = f"the chain is to end at {chain['head_seq']}, and its rows end at {end.seq}"
            self._find(Finding(code="tail_missing", chain_id=chain_id, seq=end.seq + 1, detail=detail))
        elif _position(chain, "head_seq", "head_hash", "store_hash") != end:
            detail = f"its rows end at {end.seq}, and audit_chain has another end, or other hashes of it"
            self._find(Finding(code="head_differs", chain_id=chain_id, seq=end.seq, detail=detail))

    async def _check_stretch(self, chain_id: str, begin: Position, last: int, *, own: bool) -> Position:
        """Recompute a chain after `begin` up to `last`; where its rows end."""
        leaves = {
            row["head_seq"]: row
            for row in await self._connection.fetch(SQL["verify_leaves"], chain_id, begin.seq, last)
        }
        check = ChainCheck(chain_id, begin, self._removals)
        sealed_seq = begin.seq
        async for stored in self._stream("verify_rows", chain_id, begin.seq, last, size=ROWS_AT_ONCE):
            row = trail_row(stored, payload=True)
            self._find(*check.take(row))
            if own:
                self._note_removal(row)
            if (leaf := leaves.pop(row.seq, None)) is not None:
                sealed_seq = row.seq
                if _position(leaf, "head_seq", "head_hash", "store_hash") != check.position:
                    detail = "the row is not the one that the checkpoint covers"
                    self._find(
                        Finding(
                            code="leaf_differs",
                            chain_id=chain_id,
                            seq=row.seq,
                            checkpoint=leaf["number"],
                            detail=detail,
                        )
                    )
        if leaves:
            lost = max(leaves)
            detail = f"checkpoint {leaves[lost]['number']} covers the chain up to {lost}"
            self._find(Finding(code="tail_missing", chain_id=chain_id, seq=min(leaves), detail=detail))
        self._rows += check.rows
        self._removed += check.removed
        self._unsealed += check.position.seq - sealed_seq
        return check.position

    def _note_removal(self, row: TrailRow) -> None:
        if row.payload is None or row.note.node != OWN_NODE:
            return
        if not note_removal(self._removals, row.kind, row.payload, row.seq):
            detail = "a row about a removal cannot be read"
            self._find(Finding(code="removal_unreadable", chain_id=row.chain_id, seq=row.seq, detail=detail))

    async def check_beginnings(self, accepted: Container[str]) -> None:
        """Whether chains of nodes that had one before say what they follow, and say it rightly."""
        if self._begun:
            self._find(*await check_beginnings(self._connection, self._begun, self._removals, accepted))

    async def check_stray_payloads(self) -> None:
        """Payloads without a row."""
        rows = await self._connection.fetch(SQL["verify_stray_payloads"], timeout=PATIENCE_SECONDS)
        for row in rows:
            detail = "a payload is there that belongs to no row"
            self._find(Finding(code="payload_changed", chain_id=row["chain_id"], seq=row["seq"], detail=detail))

    async def check_anchors(self, anchors: Sequence[Sealed]) -> None:
        """What witnesses kept against what is there."""
        numbers = sorted({anchor.checkpoint.number for anchor in anchors})
        held = {one.sealed.checkpoint.number: one.sealed.checkpoint.digest()
                for one in await self._some_checkpoints(numbers)}  # fmt: skip
        newest = 0 if self._newest is None else self._newest.number
        self._find(*compare_anchors(anchors, held, newest))

    async def check_job(self, job_id: str, cluster: str | None) -> None:
        """The rows of one job, with the stretches and checkpoints that prove them."""
        self._removals = await load_removals(self._connection)
        stretches: dict[tuple[str, int], int] = {}
        numbers: set[int] = set()
        for row in await self._connection.fetch(SQL["verify_job_rows"], job_id, cluster):
            key = row["chain_id"], row["before"] or 0
            stretches[key] = max(stretches.get(key, 0), row["after"] or row["seq"])
        for (chain_id, before), last in stretches.items():
            begin = await self._beginning(chain_id)
            if before > begin.seq:
                (leaf,) = await self._connection.fetch(SQL["verify_leaves"], chain_id, before - 1, before)
                numbers.add(leaf["number"])
                begin = _position(leaf, "head_seq", "head_hash", "store_hash")
            leaves = await self._connection.fetch(SQL["verify_leaves"], chain_id, begin.seq, last)
            numbers |= {leaf["number"] for leaf in leaves}
            end = await self._check_stretch(chain_id, begin, last, own=False)
            if end.seq < last:
                detail = f"rows up to {last} are not there"
                self._find(Finding(code="tail_missing", chain_id=chain_id, seq=end.seq + 1, detail=detail))
            self._chains += 1
        alone = None
        for stored in await self._some_checkpoints(sorted(numbers)):
            alone = CheckpointCheck(keys=self._keys, signed=alone is not None and alone.signed)
            found = [one for one in alone.take(stored) if one.code != "checkpoint_missing"]
            first = stored.sealed.checkpoint.number == 1
            self._find(*(one for one in found if first or "follow" not in one.detail))
            self._newest = stored.sealed.checkpoint
        self._find(*(alone.end() if alone is not None else ()))

    async def _some_checkpoints(self, numbers: Sequence[int]) -> list[StoredCheckpoint]:
        rows = await self._connection.fetch(SQL["verify_some_checkpoints"], numbers, timeout=PATIENCE_SECONDS)
        return [_stored(row) for row in rows]

    async def _stream(self, name: str, *arguments: object, size: int) -> AsyncIterator[Any]:
        cursor = await self._connection.cursor(SQL[name], *arguments, timeout=PATIENCE_SECONDS)
        seen = 0
        while rows := await cursor.fetch(size):
            for row in rows:
                yield row
            seen += len(rows)
            if self._progress is not None:
                self._progress(self._rows + (seen if name == "verify_rows" else 0), self._checkpoints)

    def _find(self, *found: Finding) -> None:
        self._findings += found[: MOST_FINDINGS - len(self._findings)]


def _position(row: Any, seq: str, row_hash: str, store_hash: str) -> Position:
    return Position(seq=row[seq], row_hash=row[row_hash], store_hash=row[store_hash])


def _stored(row: Any) -> StoredCheckpoint:
    columns = (row["chains"] or (), row["seqs"] or (), row["hashes"] or (), row["store_hashes"] or ())
    leaves = [
        Leaf(chain_id=chain, head_seq=seq, head_hash=head, store_hash=store)
        for chain, seq, head, store in zip(*columns, strict=True)
    ]
    return StoredCheckpoint(sealed=sealed(row), digest=row["digest"], leaves=leaves)
