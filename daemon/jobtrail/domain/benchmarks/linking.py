"""Which run of which job a benchmark was: claims are held against what is known of the jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobtrail.domain.benchmarks.report import JobClaim, LinkSource, Role
from jobtrail.domain.benchmarks.settling import CandidateRun, JobLink, LinkState, UnsettledRun
from jobtrail.domain.phrases import describe_moment

SLACK_US = 5_000_000  # clocks of nodes and of the controller differ a little
# The store hands out what is open for a week; an hour before that ends, a job never seen is given up.
PENDING_US = (7 * 24 - 1) * 3_600_000_000
_TRUST = tuple(LinkSource)  # the most trusted first


def judge_links(run: UnsettledRun, *, now_us: int) -> tuple[JobLink, ...]:
    """What becomes of each claim, the most trusted first. Of several claims on one job in one role the most trusted
    counts alone. A claim on another job than a more trusted one names for the role is a conflict.
    """
    links: list[JobLink] = []
    for claim in _distinct(run.claims):
        link = _judge(claim, run, now_us)
        rival = next((other for other in links if _is_rival(other, claim)), None)
        if rival is not None and link.state is not LinkState.CONFLICT:
            link = _beaten(link, rival)
        links.append(link)
    return tuple(links)


def serving_links(links: Iterable[JobLink]) -> tuple[JobLink, ...]:
    """The links to the jobs that served, whose energy together the benchmark's is: one to each run of a job."""
    wanted = (Role.SERVER, Role.BOTH)
    found: dict[tuple[str | None, str, int | None], JobLink] = {}
    for link in links:
        if link.state is LinkState.LINKED and link.claim.role in wanted:
            found.setdefault((link.cluster, link.claim.job_id, link.run), link)
    return tuple(found.values())


def _distinct(claims: Sequence[JobClaim]) -> list[JobClaim]:
    first: dict[tuple[str | None, str, Role], JobClaim] = {}
    for claim in sorted(claims, key=lambda one: _TRUST.index(one.source)):
        first.setdefault((claim.cluster, claim.job_id, claim.role), claim)
    return list(first.values())


def _is_rival(link: JobLink, claim: JobClaim) -> bool:
    """Whether a link that may yet hold is of a more trusted claim on another job for a role the claim wants, too."""
    other = link.claim
    overlap = other.role is claim.role or Role.BOTH in (other.role, claim.role)
    is_other_job = (other.job_id, other.cluster or claim.cluster) != (claim.job_id, claim.cluster or other.cluster)
    return link.state is not LinkState.CONFLICT and other.source is not claim.source and overlap and is_other_job


def _beaten(link: JobLink, rival: JobLink) -> JobLink:
    claim, other = link.claim, rival.claim
    if rival.state is LinkState.PENDING:
        return JobLink(
            claim=claim,
            state=LinkState.PENDING,
            reason=f"the {other.source} names {other.job_id}, which is not known yet; it is trusted more",
        )
    return _conflict(claim, f"the {other.source} names {other.job_id} as {other.role}, which is trusted more")


def _judge(claim: JobClaim, run: UnsettledRun, now_us: int) -> JobLink:
    known = [
        one
        for one in run.candidates
        if one.job_id == claim.job_id and (claim.cluster is None or one.cluster == claim.cluster)
    ]
    if not known:
        return _pending(claim, run, now_us, f"job {_name(claim)} is not known yet", "was never seen")
    clusters = sorted({one.cluster for one in known})
    if len(clusters) > 1:
        return _conflict(claim, f"job {claim.job_id} is known on {', '.join(clusters)}, and the claim names no cluster")
    holding = [one for one in known if _holds(one, claim, run, now_us)]
    if not holding:
        return _outside(claim, run, known, now_us)
    held = max(holding, key=lambda one: _fit(one, run, claim, now_us))
    if not _is_vouched_for(claim, run):
        if held.user_name is None:
            return _pending(claim, run, now_us, f"whose job {_name(claim)} is is not known yet", "has no known user")
        if run.user_name != held.user_name:
            reporter = run.user_name or "a user without a name"
            return _conflict(claim, f"the report came from {reporter}, and {_name(claim)} is {held.user_name}'s")
    return JobLink(claim=claim, state=LinkState.LINKED, cluster=held.cluster, run=held.run)


def _holds(one: CandidateRun, claim: JobClaim, run: UnsettledRun, now_us: int) -> bool:
    """Whether the job ran during all of the benchmark, but for the slack; a run without an end runs now, and one that
    is over without it did where the kernel says that the report came from inside."""
    if one.start_us is None or (one.is_over and one.end_us is None and not _is_vouched_for(claim, run)):
        return False
    end_us = now_us if one.end_us is None else one.end_us
    return one.start_us - SLACK_US <= run.started_us and run.ended_us <= end_us + SLACK_US


def _fit(one: CandidateRun, run: UnsettledRun, claim: JobClaim, now_us: int) -> tuple[int, bool, int]:
    """How well a run that holds the window does: by what lies within it without slack, by the restart count, which is
    a hint only as Slurm tells hooks and jobs a wrong one at times, and the later one."""
    end_us = now_us if one.end_us is None else one.end_us
    within = min(end_us, run.ended_us) - max(one.start_us or 0, run.started_us)
    return within, claim.restart_count is not None and one.restart_count == claim.restart_count, one.run


def _outside(claim: JobClaim, run: UnsettledRun, known: Sequence[CandidateRun], now_us: int) -> JobLink:
    """No run that is known holds the window: perhaps because the job's start, or its start anew, is still unknown."""
    if all(one.start_us is None for one in known):
        return _pending(claim, run, now_us, f"job {_name(claim)} has not begun as far as is known", "never began")
    if any(one.is_over and one.end_us is None for one in known):
        return _pending(claim, run, now_us, f"when job {_name(claim)} ended is not known yet", "has no known end")
    is_later = all(one.end_us is not None and run.started_us >= one.end_us - SLACK_US for one in known)
    if is_later and (claim.restart_count or 0) >= len(known):
        reason = f"job {_name(claim)} was requeued, and its run number {len(known) + 1} is not known yet"
        return _pending(claim, run, now_us, reason, f"was never seen to run more than {len(known)} times")
    ran = " and ".join(f"run {one.run} {_span(one.start_us, one.end_us)}" for one in known if one.start_us is not None)
    window = _span(run.started_us, run.ended_us)
    return _conflict(claim, f"the benchmark ran {window}, which lies in no run of {_name(claim)}: {ran}")


def _is_vouched_for(claim: JobClaim, run: UnsettledRun) -> bool:
    """Whether the reporter may speak for the job whatever its user is called. The kernel's word from inside the job is
    above names, which a node may know otherwise than the cluster does."""
    return run.by_root or (run.from_job and claim.source is LinkSource.MANIFEST)


def _pending(claim: JobClaim, run: UnsettledRun, now_us: int, reason: str, given_up: str) -> JobLink:
    if now_us - run.received_us >= PENDING_US:
        return _conflict(claim, f"job {_name(claim)} {given_up}")
    return JobLink(claim=claim, state=LinkState.PENDING, reason=reason)


def _conflict(claim: JobClaim, reason: str) -> JobLink:
    return JobLink(claim=claim, state=LinkState.CONFLICT, reason=reason)


def _name(claim: JobClaim) -> str:
    return claim.job_id if claim.cluster is None else f"{claim.job_id} of cluster {claim.cluster}"


def _span(start_us: int, end_us: int | None) -> str:
    return f"from {describe_moment(start_us)} " + ("until now" if end_us is None else f"to {describe_moment(end_us)}")
