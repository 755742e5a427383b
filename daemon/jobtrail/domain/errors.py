"""The one error tree. Each error carries what its handler must decide; adapters translate foreign errors into it."""

from __future__ import annotations


class JobtrailError(Exception):
    """Base of every error Jobtrail raises on purpose."""


class ConfigError(JobtrailError):
    """A setting is wrong. `where` is the key or file, the message says what is allowed there."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class InvalidEvent(JobtrailError):
    """What was sent is not an event. `field` names the offending part; nothing was stored."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class EventConflict(JobtrailError):
    """The event id is already held with another body; the first one stands."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"event {event_id} is already held with another body")
        self.event_id = event_id


class SpoolFull(JobtrailError):
    """The spool is at its cap; the sender keeps the event and tries again after `retry_after_seconds`."""

    def __init__(self, limit_bytes: int, retry_after_seconds: int = 30) -> None:
        super().__init__(f"the spool holds its maximum of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes
        self.retry_after_seconds = retry_after_seconds


class SpoolBroken(JobtrailError):
    """The spool can no longer promise durability (I/O error, lost lock). The daemon stops; systemd restarts it."""


class StoreUnavailable(JobtrailError):
    """The store cannot be reached or asked us to come back; nothing was written and trying again is right.

    `retry_after_seconds`: how long the store asks us to stay away; None where it names no time. `turned_away`: nothing
    was looked at for want of room, so what was known of the store still holds.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, turned_away: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.turned_away = turned_away


class ChainGap(JobtrailError):
    """The store's head of this chain is not where the batch begins; resume after `head_seq`."""

    def __init__(self, head_seq: int) -> None:
        super().__init__(f"the store holds this chain up to sequence {head_seq}")
        self.head_seq = head_seq


class StoreRefused(JobtrailError):
    """The store rejected the content of a batch; trying the same batch again cannot help."""


class NotFound(JobtrailError):
    """What was asked for does not exist."""


class NotAllowed(JobtrailError):
    """The sender may not say this."""


class JobConflict(JobtrailError):
    """What is said of a job cannot be, as the job now stands. `field` is the part that stands against it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class SlurmError(JobtrailError):
    """Slurm could not be asked. Retried; what it would have told stays unknown meanwhile."""


class SlurmUnavailable(SlurmError):
    """No answer, or none for now: a daemon is down, a time-out, a server's error."""


class SlurmDenied(SlurmError):
    """The token, the user or the socket is refused. Asking again with the same will not help."""


class SlurmHasNone(SlurmError):
    """This site has no accounting, or this slurmrestd or sacct cannot reach any: asking again will not help."""


class SlurmAnswerInvalid(SlurmError):
    """An answer of a shape nobody knows. `path` is the field, such as jobs[3].job_state."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class RecipeInvalid(JobtrailError):
    """A benchmark's recipe cannot be followed. `place` is the dotted key, the message says what is allowed there."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem


class TooManyReports(JobtrailError):
    """A user reports more than their share; what was sent was not looked at. Later it will be taken."""

    def __init__(self, uid: int, retry_after_seconds: int) -> None:
        super().__init__(f"uid {uid} reports too much at a time; try again in {retry_after_seconds} s")
        self.uid = uid
        self.retry_after_seconds = retry_after_seconds


class UnknownResult(JobtrailError):
    """A benchmark's result file cannot be read. `where` is the file, and the field or line in it; nothing was taken."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.problem = problem
