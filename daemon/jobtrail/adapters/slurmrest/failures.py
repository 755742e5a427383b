"""What slurmrestd's errors mean: nothing is there, we are refused, or it cannot tell now.

The status of an answer is of little help. 22.05 answers 500 for a job that is unknown, for a token that is refused and
for a slurmctld that is down, and slurmdb's part of it answers 200 whatever happened; later releases answer 404 and 511.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobtrail.adapters.slurmrest.answers import MAX_ERROR_TEXT, ServerError
from jobtrail.domain.errors import SlurmDenied, SlurmError, SlurmHasNone, SlurmUnavailable

# slurm/slurm_errno.h: ESLURM_INVALID_JOB_ID; ESLURM_REST_EMPTY_RESULT.
_NOTHING = frozenset({2017, 9003})
# SLURM_PROTOCOL_AUTHENTICATION_ERROR, ESLURM_ACCESS_DENIED, ESLURM_AUTH_CRED_INVALID.
_DENIED = frozenset({1007, 2002, 6000})


def tells_nothing_there(errors: Sequence[ServerError]) -> bool:
    """Whether all that went wrong is that there is no such job, or no job at all."""
    return bool(errors) and all(error.number in _NOTHING for error in errors)


def may_tell_unknown_job(errors: Sequence[ServerError]) -> bool:
    """Whether this is v0.0.36's answer for a job that is unknown, which it gives while slurmctld is down too."""
    return len(errors) == 1 and not errors[0].number and "unknown job" in errors[0].text


def tells_denied(errors: Sequence[ServerError]) -> bool:
    """Whether the user or the token is refused."""
    return any(error.number in _DENIED for error in errors)


def may_tell_denied(status: int, errors: Sequence[ServerError]) -> bool:
    """Whether this is 22.05's answer to a bad token, which is also its answer while slurmctld is down.

    That is 500 with the error -1, "Unspecified error", or in v0.0.36 without any.
    """
    return status == 500 and all(error.number == -1 for error in errors)


def failure(where: str, path: str, status: int, errors: Sequence[ServerError], text: str = "") -> SlurmError:
    """The error to raise for an answer that is none; `text` is what it says where it is no JSON.

    slurmdb's part of a version whose other part answers, and is not there: this slurmrestd has no accounting.
    """
    said = "; ".join(dict.fromkeys(error.text for error in errors)) or " ".join(text.split())[:MAX_ERROR_TEXT]
    problem = f"slurmrestd at {where} answered {status} to {path}{': ' if said else ''}{said}"
    if tells_denied(errors):
        return SlurmDenied(problem)
    if status == 404 and not errors:
        problem = f"{problem} (was slurmrestd started without this plugin? See its option -s)"
        # 22.05 does not start with slurmdb's plugin where slurm.conf has no AccountingStorageType of slurmdbd, so a
        # site without accounting leaves the plugin out.
        return SlurmHasNone(problem) if path.startswith("/slurmdb/") else SlurmUnavailable(problem)
    return SlurmUnavailable(problem)
