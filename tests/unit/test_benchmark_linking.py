"""Links of benchmarks to jobs: trust, times, requeued jobs, users, and claims that contradict each other."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.benchmarks.linking import PENDING_US, SLACK_US, judge_links, serving_links
from jobtrail.domain.benchmarks.report import JobClaim, LinkSource, Role, Status
from jobtrail.domain.benchmarks.settling import CandidateRun, JobLink, LinkState, UnsettledRun

SECOND = 1_000_000
T0 = 1_760_000_000 * SECOND  # 2025-10-09 08:53:20 UTC
NOW = T0 + 3_600 * SECOND


def claim(
    job: str = "slurm-5", role: Role = Role.BOTH, source: LinkSource = LinkSource.MANIFEST, **more: object
) -> JobClaim:
    return msgspec.structs.replace(JobClaim(job_id=job, role=role, source=source, cluster="c1"), **more)


def known(start_s: float | None, end_s: float | None, run: int = 1, **more: object) -> CandidateRun:
    one = CandidateRun(
        cluster="c1",
        job_id="slurm-5",
        run=run,
        start_us=None if start_s is None else T0 + int(start_s * SECOND),
        end_us=None if end_s is None else T0 + int(end_s * SECOND),
        user_name="ada",
        is_over=end_s is not None,
    )
    return msgspec.structs.replace(one, **more)


def reported(*claims: JobClaim, candidates: tuple[CandidateRun, ...] = (), **more: object) -> UnsettledRun:
    """A benchmark from second 100 to 200, reported by ada."""
    run = UnsettledRun(
        run_uid="one", started_us=T0 + 100 * SECOND, ended_us=T0 + 200 * SECOND, status=Status.OK,
        claims=claims or (claim(),), candidates=candidates, user_name="ada", received_us=T0 + 210 * SECOND,
    )  # fmt: skip
    return msgspec.structs.replace(run, **more)


def only(run: UnsettledRun, now_us: int = NOW) -> JobLink:
    (link,) = judge_links(run, now_us=now_us)
    return link


def test_a_job_that_ran_all_the_time_is_linked() -> None:
    link = only(reported(candidates=(known(0, 300),)))
    assert (link.state, link.cluster, link.run, link.reason) == (LinkState.LINKED, "c1", 1, None)
    assert serving_links([link, link]) == (link,)


@pytest.mark.parametrize(
    ("start", "end", "state"),
    [
        (104.9, 195.1, LinkState.LINKED),  # within five seconds at both ends
        (105.1, 300, LinkState.CONFLICT),
        (0, 194.9, LinkState.CONFLICT),
        (0, None, LinkState.LINKED),  # it runs now
    ],
)
def test_the_window_must_lie_in_the_job_but_for_five_seconds(start: float, end: float | None, state: LinkState) -> None:
    assert only(reported(candidates=(known(start, end),))).state is state


def test_a_conflict_names_both_times() -> None:
    link = only(reported(candidates=(known(150, 300), known(400, None, run=2))))
    assert link.reason == (
        "the benchmark ran from 2025-10-09 08:55:00 UTC to 2025-10-09 08:56:40 UTC, which lies in no run of slurm-5 of "
        "cluster c1: run 1 from 2025-10-09 08:55:50 UTC to 2025-10-09 08:58:20 UTC and run 2 from 2025-10-09 09:00:00 "
        "UTC until now"
    )
    assert (link.state, link.cluster, link.run) == (LinkState.CONFLICT, None, None)


def test_a_window_that_ends_in_the_future_lies_in_no_run() -> None:
    assert only(reported(candidates=(known(0, None),)), now_us=T0 + 150 * SECOND).state is LinkState.CONFLICT


def test_of_a_requeued_job_it_is_the_run_that_holds_the_window() -> None:
    runs = (known(0, 50), known(90, 250, run=2, restart_count=0), known(260, None, run=3, restart_count=1))
    assert only(reported(claim(restart_count=1), candidates=runs)).run == 2


def test_the_slack_of_a_neighbour_does_not_win_against_the_run_itself() -> None:
    short = {"started_us": T0 + 102 * SECOND, "ended_us": T0 + 104 * SECOND}
    runs = (known(0, 101, restart_count=1), known(101.5, 300, run=2))
    assert only(reported(claim(restart_count=1), candidates=runs, **short)).run == 2


def test_where_two_runs_hold_it_the_restart_count_is_a_hint_and_else_the_later_counts() -> None:
    runs = (known(0, None, restart_count=0), known(50, None, run=2, restart_count=1))  # the end of run 1 is not known
    assert only(reported(claim(restart_count=0), candidates=runs)).run == 1
    assert only(reported(claim(restart_count=7), candidates=runs)).run == 2
    assert only(reported(candidates=runs)).run == 2


def test_a_job_not_known_is_awaited_for_a_week() -> None:
    run = reported(candidates=(known(0, 300, cluster="c2"), known(0, 300, job_id="slurm-6")))
    link = only(run, now_us=run.received_us + PENDING_US - 1)
    assert (link.state, link.reason) == (LinkState.PENDING, "job slurm-5 of cluster c1 is not known yet")
    link = only(run, now_us=run.received_us + PENDING_US)
    assert (link.state, link.reason) == (LinkState.CONFLICT, "job slurm-5 of cluster c1 was never seen")


def test_a_job_that_has_not_begun_is_awaited() -> None:
    run = reported(candidates=(known(None, None),))
    assert only(run).reason == "job slurm-5 of cluster c1 has not begun as far as is known"
    assert only(run, now_us=run.received_us + PENDING_US).reason == "job slurm-5 of cluster c1 never began"


def test_the_run_after_a_requeue_is_awaited() -> None:
    run = reported(claim(restart_count=1), candidates=(known(0, 50),))
    link = only(run)
    assert (link.state, link.reason) == (
        LinkState.PENDING,
        "job slurm-5 of cluster c1 was requeued, and its run number 2 is not known yet",
    )
    assert only(run, now_us=run.received_us + PENDING_US).state is LinkState.CONFLICT
    assert only(reported(claim(restart_count=1), candidates=(known(0, 150),))).state is LinkState.CONFLICT
    assert only(reported(claim(restart_count=1), candidates=(known(0, 50), known(300, None, run=2)))).state is (
        LinkState.CONFLICT
    )
    assert only(reported(claim(restart_count=1), candidates=(known(0, 50), known(None, None, run=2)))).state is (
        LinkState.CONFLICT
    )


def test_without_a_cluster_the_job_must_be_known_on_one_alone() -> None:
    nowhere = claim(cluster=None)
    assert only(reported(nowhere, candidates=(known(0, 300),))).cluster == "c1"
    link = only(reported(nowhere, candidates=(known(0, 300), known(0, 300, cluster="c2"))))
    assert link.reason == "job slurm-5 is known on c1, c2, and the claim names no cluster"
    assert only(reported(nowhere)).reason == "job slurm-5 is not known yet"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, LinkState.CONFLICT),
        ({"user_name": None}, LinkState.CONFLICT),
        ({"by_root": True}, LinkState.LINKED),
        ({"from_job": True}, LinkState.LINKED),
        ({"user_name": "bob"}, LinkState.LINKED),
    ],
)
def test_who_may_speak_for_a_job(changes: dict[str, object], state: LinkState) -> None:
    assert only(reported(candidates=(known(0, 300, user_name="bob"),), **changes)).state is state


def test_what_stands_in_a_file_needs_the_jobs_user_even_when_it_came_from_a_job() -> None:
    run = reported(claim(source=LinkSource.METADATA), candidates=(known(0, 300, user_name="bob"),), from_job=True)
    assert only(run).reason == "the report came from ada, and slurm-5 of cluster c1 is bob's"
    nameless = only(msgspec.structs.replace(run, user_name=None)).reason
    assert nameless == "the report came from a user without a name, and slurm-5 of cluster c1 is bob's"


def test_a_job_whose_user_is_unknown_is_nobodys_who_says_so() -> None:
    """Anybody could make it theirs in the time until Slurm says whose it is."""
    run = reported(candidates=(known(0, 300, user_name=None),))
    link = only(run)
    assert (link.state, link.reason) == (
        LinkState.PENDING,
        "whose job slurm-5 of cluster c1 is is not known yet",
    )
    assert only(run, now_us=run.received_us + PENDING_US).state is LinkState.CONFLICT
    for vouched in ({"by_root": True}, {"from_job": True}):
        assert only(msgspec.structs.replace(run, **vouched)).state is LinkState.LINKED


def test_a_job_that_is_over_and_whose_end_is_unknown_does_not_run_until_now() -> None:
    run = reported(candidates=(known(0, None, is_over=True),))
    link = only(run)
    assert (link.state, link.reason) == (
        LinkState.PENDING,
        "when job slurm-5 of cluster c1 ended is not known yet",
    )
    assert only(run, now_us=run.received_us + PENDING_US).reason == "job slurm-5 of cluster c1 has no known end"


def states(run: UnsettledRun) -> list[tuple[str, LinkSource, LinkState]]:
    return [(link.claim.job_id, link.claim.source, link.state) for link in judge_links(run, now_us=NOW)]


OTHER = known(0, 300, job_id="slurm-6")
MANIFEST, PATH, METADATA = LinkSource.MANIFEST, LinkSource.PATH, LinkSource.METADATA


def test_server_and_client_in_different_jobs_are_both_linked_and_energy_is_the_servers() -> None:
    run = reported(claim("slurm-6", Role.CLIENT), claim("slurm-5", Role.SERVER), candidates=(known(0, 300), OTHER))
    links = judge_links(run, now_us=NOW)
    assert [link.state for link in links] == [LinkState.LINKED] * 2
    assert [link.claim.job_id for link in serving_links(links)] == ["slurm-5"]
    assert serving_links([links[0]]) == ()


def test_two_servers_of_one_manifest_are_no_contradiction() -> None:
    run = reported(claim("slurm-6", Role.SERVER), claim("slurm-5", Role.SERVER), candidates=(known(0, 300), OTHER))
    assert [state for _, _, state in states(run)] == [LinkState.LINKED] * 2


@given(st.permutations([claim("slurm-5"), claim("slurm-5", source=METADATA), claim("slurm-6", source=PATH)]))
def test_the_most_trusted_claim_wins_whatever_their_order(claims: list[JobClaim]) -> None:
    run = reported(*claims, candidates=(known(0, 300), OTHER))
    assert states(run) == [("slurm-5", MANIFEST, LinkState.LINKED), ("slurm-6", PATH, LinkState.CONFLICT)]
    assert judge_links(run, now_us=NOW)[1].reason == "the manifest names slurm-5 as both, which is trusted more"


def test_a_trusted_claim_that_is_still_open_holds_back_the_others() -> None:
    run = reported(claim("slurm-5"), claim("slurm-6", source=PATH), candidates=(OTHER,))
    assert states(run) == [("slurm-5", MANIFEST, LinkState.PENDING), ("slurm-6", PATH, LinkState.PENDING)]
    reason = judge_links(run, now_us=NOW)[1].reason
    assert reason == "the manifest names slurm-5, which is not known yet; it is trusted more"


def test_a_trusted_claim_that_is_contradicted_gives_way() -> None:
    run = reported(claim("slurm-5"), claim("slurm-6", source=PATH), candidates=(known(150, 300), OTHER))
    assert states(run) == [("slurm-5", MANIFEST, LinkState.CONFLICT), ("slurm-6", PATH, LinkState.LINKED)]


def test_a_less_trusted_claim_on_the_same_job_is_none_on_another() -> None:
    run = reported(
        claim("slurm-5"), claim("slurm-5", Role.SERVER, PATH), claim("slurm-5", Role.CLIENT, METADATA, cluster=None),
        candidates=(known(0, 300),),
    )  # fmt: skip
    assert {state for _, _, state in states(run)} == {LinkState.LINKED}


def test_a_false_claim_stays_a_conflict_of_its_own_beside_a_true_one() -> None:
    run = reported(
        claim("slurm-5"), claim("slurm-6", source=PATH), candidates=(known(0, 300), known(150, 300, job_id="slurm-6"))
    )
    reason = judge_links(run, now_us=NOW)[1].reason or ""
    assert reason.startswith("the benchmark ran from")


moments = st.integers(0, 400).map(lambda second: T0 + second * SECOND)


@given(st.lists(st.tuples(moments, moments), min_size=1, max_size=4), moments, moments)
def test_a_linked_run_always_holds_the_window(runs: list[tuple[int, int]], one: int, other: int) -> None:
    started, ended = sorted((one, other))
    candidates = tuple(
        known(0, 0, run=number, start_us=min(times), end_us=max(times)) for number, times in enumerate(runs, start=1)
    )
    link = only(reported(candidates=candidates, started_us=started, ended_us=ended))
    held = [c for c in candidates if c.start_us - SLACK_US <= started and ended <= c.end_us + SLACK_US]  # type: ignore[operator]
    assert (link.state is LinkState.LINKED) == bool(held)
    assert link.run in [c.run for c in held] or not held
    for order in itertools.islice(itertools.permutations(candidates), 6):
        assert only(reported(candidates=order, started_us=started, ended_us=ended)).run == link.run
