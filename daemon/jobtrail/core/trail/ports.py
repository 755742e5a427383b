"""Ports of those who seal and verify the trail, and of those who keep checkpoints as witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from jobtrail.domain.checkpoints import Inclusion, Sealed
from jobtrail.domain.verification import Finding, Position


class Recomputed(msgspec.Struct, frozen=True, kw_only=True):
    """The chains that moved since they were last sealed, recomputed from their stored rows.

    `chains`: chain id -> where it was sealed, and how far it is good.
    """

    newest: Sealed | None
    chains: Mapping[str, tuple[Position, Position]]
    findings: Sequence[Finding]


class SealStore(Protocol):
    """The trail as a sealer needs it. Every method raises StoreUnavailable."""

    async def newest(self) -> Sealed | None:
        """The newest checkpoint; None before the first."""
        ...

    async def checkpoint(self, number: int) -> Sealed | None:
        """The checkpoint of this number; None when there is none."""
        ...

    async def recompute(self) -> Recomputed:
        """Recompute what is not sealed yet, on one view of the store."""
        ...

    async def keep(self, sealed: Sealed, proofs: Sequence[Inclusion]) -> bool:
        """Keep the next checkpoint with its leaves in order; False when another sealer was first."""
        ...


class Signer(Protocol):
    """Signs checkpoints."""

    @property
    def key_id(self) -> str:
        """Names the key: the first 16 hexadecimal digits of the SHA-256 of the raw public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`."""
        ...


class AnchorLog(Protocol):
    """Where checkpoints are kept outside of the store."""

    async def last(self) -> Sealed | None:
        """The last one that is kept. Raises OSError."""
        ...

    async def append(self, sealed: Sealed) -> None:
        """Keep one more, on the disk when this returns. Raises OSError."""
        ...


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found. `checkpoint`: the newest one that all that is good lies under."""

    kind: str
    rows: int
    chains: int
    removed: int  # payloads that are gone by order
    unsealed: int  # rows that no checkpoint covers yet
    checkpoint: int
    findings: Sequence[Finding]


class Verifier(Protocol):
    """Recomputes the trail."""

    async def since_full(self) -> float | None:
        """Seconds, by the store's clock, since all was recomputed by whomever and that was kept on record; None: never.

        Raises StoreUnavailable.
        """
        ...

    async def verify(self, *, full: bool) -> Checked:
        """Recompute all, or what is new since the last time, and keep on record how far. Raises StoreUnavailable."""
        ...
