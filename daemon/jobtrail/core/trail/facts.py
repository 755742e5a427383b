"""What the daemon tells about the sealing and the verification of the trail."""

from __future__ import annotations

from jobtrail.core.facts import Fact


class CheckpointSeen(Fact, frozen=True, kw_only=True):
    """The newest checkpoint that is known here, as a witness shows it."""

    number: int
    digest: str  # the first hexadecimal digits of its own hash, which covers all checkpoints before it
    root: str  # those of its root
    sealed_us: int


class CheckpointSealed(Fact, frozen=True, kw_only=True):
    """What was new in the trail is covered by a checkpoint."""

    number: int
    leaves: int
    rows: int
    signed: bool
    seconds: float


class SealTurn(Fact, frozen=True, kw_only=True):
    """All that can be sealed is. Told also when there was nothing new."""


class SealFailed(Fact, frozen=True, kw_only=True):
    """Nothing could be sealed, or a checkpoint could not be anchored; it is tried again at the next turn."""

    reason: str


class TrailBroken(Fact, frozen=True, kw_only=True):
    """A row or a checkpoint is not what it was. Told once of each by the part of the daemon that found it."""

    code: str  # one of jobtrail.domain.verification.CODES
    where: str
    detail: str


class TrailVerified(Fact, frozen=True, kw_only=True):
    """The trail was recomputed."""

    kind: str  # incremental | full
    rows: int
    checkpoint: int
    findings: int
    seconds: float


class VerifyFailed(Fact, frozen=True, kw_only=True):
    """The trail could not be recomputed; it is tried again at the next turn."""

    reason: str


class WitnessMismatch(Fact, frozen=True, kw_only=True):
    """The store answered with a checkpoint that contradicts what this writer knows."""

    problem: str  # one of jobtrail.core.trail.witness.PROBLEMS
    number: int
    detail: str
