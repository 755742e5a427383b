"""What slurmrestd's failures are taken for: captured answers of 22.05 and 24.11, over TCP and a Unix socket."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.slurmrest import RestSettings, SlurmRest
from jobtrail.domain.errors import SlurmAnswerInvalid, SlurmDenied, SlurmError, SlurmHasNone, SlurmUnavailable
from jobtrail.domain.slurm import SlurmAnswer
from tests.adapters.slurmrest_server import (
    UNAUTHORIZED,
    Canned,
    RestServer,
    captured_exchanges,
    captured_tokens,
    json_of,
    rest_server,
)

UNKNOWN_JOB = 999999
VERSIONS = [
    ("slurm-22.05", "v0.0.36"), ("slurm-22.05", "v0.0.37"), ("slurm-22.05", "v0.0.38"),
    ("slurm-24.11", "v0.0.40"), ("slurm-24.11", "v0.0.41"), ("slurm-24.11", "v0.0.42"),
]  # fmt: skip
SECRET = "a-secret-token"


@pytest.fixture(params=["tcp", "unix"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RestServer]:
    async with rest_server(tmp_path / "rest.sock" if request.param == "unix" else None) as running:
        yield running


def settings(server: RestServer, **others: object) -> RestSettings:
    return RestSettings(**{"url": server.url, "poll_seconds": 0.001, "timeout_seconds": 60.0} | others)  # type: ignore[arg-type]


async def failure_of(rest: SlurmRest, *, accounting: bool = False) -> SlurmError:
    with pytest.raises(SlurmError) as caught:
        await (rest.runs_of([UNKNOWN_JOB], since=0) if accounting else rest.current_jobs())
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value


@pytest.mark.parametrize(("release", "version"), VERSIONS)
async def test_a_job_that_nobody_knows_is_no_failure(server: RestServer, release: str, version: str) -> None:
    captured = captured_exchanges(release)
    server.answers |= captured
    server.answers[f"/slurmdb/{version}/jobs"] = captured[f"/slurmdb/{version}/job/{UNKNOWN_JOB}"]
    async with SlurmRest.opened(settings(server, version=version), clock=SystemClock()) as rest:
        assert await rest.job(UNKNOWN_JOB) == SlurmAnswer()
        assert await rest.runs_of([UNKNOWN_JOB], since=0) == SlurmAnswer()


async def test_an_unknown_job_of_v36_is_only_believed_while_slurmctld_answers(server: RestServer) -> None:
    """v0.0.36 says "unknown job" of every job while slurmctld is down."""
    server.answers |= captured_exchanges("slurm-22.05")
    server.answers["/slurm/v0.0.36/ping"] = json_of({"errors": [{"errno": -1, "error": "Unspecified error"}]}, 500)
    async with SlurmRest.opened(settings(server, version="v0.0.36"), clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match="unknown job"):
            await rest.job(UNKNOWN_JOB)


@pytest.mark.parametrize("release", ["slurm-22.05", "slurm-24.11"])
async def test_without_a_token_where_one_is_needed_we_are_denied(server: RestServer, release: str) -> None:
    unauthorized = captured_tokens(release)["no headers"]
    assert (unauthorized.status, unauthorized.body.decode()) == (401, UNAUTHORIZED)
    server.answers = dict.fromkeys((f"/slurm/v0.0.{number}/ping" for number in range(36, 44)), unauthorized)
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        assert isinstance(await failure_of(rest), SlurmDenied)


@pytest.mark.parametrize("kind", ["bad token", "expired token"])
async def test_a_bad_token_in_2411_is_denied(server: RestServer, kind: str) -> None:
    server.knows("v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = captured_tokens("slurm-24.11")[kind]
    async with SlurmRest.opened(settings(server, user="alice", token=SECRET), clock=SystemClock()) as rest:
        assert isinstance(await failure_of(rest), SlurmDenied)


@pytest.mark.parametrize("kind", ["bad token", "expired token", "alice token, header says root"])
async def test_a_bad_token_in_2205_is_told_from_a_slurmctld_that_is_down(server: RestServer, kind: str) -> None:
    """Both are 500 "Unspecified error"; slurmdbd, asked with the same token, says that it is refused."""
    server.knows("v0.0.38")
    server.answers["/slurm/v0.0.38/jobs"] = captured_tokens("slurm-22.05")[kind]
    server.answers["/slurmdb/v0.0.38/jobs"] = json_of(
        {"errors": [{"error_number": 1007, "error": "Protocol authentication error"}], "jobs": []}
    )
    async with SlurmRest.opened(settings(server, user="alice", token=SECRET), clock=SystemClock()) as rest:
        assert isinstance(await failure_of(rest), SlurmDenied)
        assert isinstance(await failure_of(rest, accounting=True), SlurmDenied)


@pytest.mark.parametrize("accounting", [True, False], ids=["slurmdbd takes the token", "slurmdbd is down too"])
async def test_a_slurmctld_that_is_down_is_not_taken_for_a_bad_token(server: RestServer, accounting: bool) -> None:
    server.knows("v0.0.38")
    server.answers["/slurm/v0.0.38/jobs"] = captured_tokens("slurm-22.05")["bad token"]
    nothing = {"errors": [{"error_number": 9003, "description": "Nothing found"}], "jobs": []}
    down = {"errors": [{"error_number": 7000, "description": "Failed connecting to slurmdbd"}], "jobs": []}
    server.answers["/slurmdb/v0.0.38/jobs"] = json_of(nothing if accounting else down)
    async with SlurmRest.opened(settings(server, user="alice", token=SECRET), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmUnavailable)
        assert "slurmctld is down, or refuses the token" in str(failure)


async def test_a_token_that_says_itself_that_it_has_ended_is_denied(server: RestServer) -> None:
    """Where a site has no slurmdbd to ask."""
    claims = base64.urlsafe_b64encode(b'{"exp":1700000000,"sun":"alice"}').decode().rstrip("=")
    server.knows("v0.0.38")
    server.answers["/slurm/v0.0.38/jobs"] = captured_tokens("slurm-22.05")["expired token"]
    async with SlurmRest.opened(settings(server, user="alice", token=f"x.{claims}.y"), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmDenied)
        assert "ended at 1700000000" in str(failure)
    assert "/slurmdb/v0.0.38/jobs" not in server.paths()


@pytest.mark.parametrize("claims", [b"no json", b"[]", b'{"exp":"soon"}', b"\xff", b""])
async def test_claims_that_say_nothing_of_an_end_decide_nothing(server: RestServer, claims: bytes) -> None:
    """slurmdbd is asked instead, and where its part of slurmrestd wants a user of its own, that is a refusal too."""
    payload = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    server.knows("v0.0.38")
    server.answers["/slurm/v0.0.38/jobs"] = captured_tokens("slurm-22.05")["expired token"]
    server.answers["/slurmdb/v0.0.38/jobs"] = Canned(UNAUTHORIZED.encode(), 401, "text/plain")
    async with SlurmRest.opened(settings(server, user="alice", token=f"x.{payload}.y"), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmDenied)
        assert "slurmdbd says" in str(failure)
        server.answers["/slurmdb/v0.0.38/jobs"] = Canned(b"nonsense")
        assert isinstance(await failure_of(rest), SlurmUnavailable)


async def test_errors_that_are_no_objects_are_told_too(server: RestServer) -> None:
    server.knows("v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = json_of({"errors": ["plainly wrong", {}], "jobs": []})
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        assert "plainly wrong; an error without a text" in str(await failure_of(rest))


async def test_without_a_token_a_500_is_a_server_in_trouble(server: RestServer) -> None:
    server.knows("v0.0.38")
    server.answers["/slurm/v0.0.38/jobs"] = captured_tokens("slurm-22.05")["bad token"]
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmUnavailable)
        assert "Failed while looking for jobs: Unspecified error" in str(failure)


async def test_errors_in_an_answer_of_status_200_are_a_failure(server: RestServer) -> None:
    server.knows("v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = captured_exchanges("slurm-24.11")["/slurm/v0.0.42/node/nope"]
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmUnavailable)
        assert "Failure to query node nope" in str(failure)


@pytest.mark.parametrize(
    ("body", "path"),
    [(b"{}", "jobs"), (b'{"jobs":{}}', "jobs"), (b"[1]", "answer"), (b"", "answer"), (b"<html>", "answer")],
)
async def test_an_answer_of_unknown_shape_names_the_field(server: RestServer, body: bytes, path: str) -> None:
    server.knows("v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = Canned(body)
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmAnswerInvalid)
        assert failure.path == path


@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_an_error_that_is_no_json_is_told_in_its_own_words(server: RestServer, content_type: str) -> None:
    """A proxy before slurmrestd, or slurmrestd itself: 22.05 answers 400 "Unable to parse query." in plain text."""
    server.knows("v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = Canned(b"<h1>Bad\n gateway</h1>", 502, content_type)
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmUnavailable)
        assert "502" in str(failure)
        assert ("<h1>Bad gateway</h1>" in str(failure)) == (content_type == "text/html")


@pytest.mark.parametrize(("release", "version"), VERSIONS)
async def test_a_slurmrestd_without_accounting_is_told_as_such(server: RestServer, release: str, version: str) -> None:
    """Answers of a slurmrestd started with `-s openapi/v0.0.38` beside accounting_storage/none, and of later ones."""
    server.knows(version)
    server.answers[f"/slurmdb/{version}/jobs"] = captured_exchanges(release)["/slurm/v0.0.99/jobs"]
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest, accounting=True)
        assert isinstance(failure, SlurmHasNone)
        assert f"/slurmdb/{version}/jobs" in str(failure)
        assert "option -s" in str(failure)


async def test_a_slurmrestd_without_the_controllers_jobs_is_not_one_without_accounting(server: RestServer) -> None:
    server.knows("v0.0.42")
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        failure = await failure_of(rest)
        assert isinstance(failure, SlurmUnavailable)
        assert "option -s" in str(failure)


@pytest.mark.parametrize("number", [7000, 7008, 1007])
async def test_accounting_that_is_down_or_refuses_is_not_taken_for_none(server: RestServer, number: int) -> None:
    server.knows("v0.0.42")
    said = {"errors": [{"error_number": number, "description": "Failed connecting to slurmdbd"}], "jobs": []}
    server.answers["/slurmdb/v0.0.42/jobs"] = json_of(said)
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        assert not isinstance(await failure_of(rest, accounting=True), SlurmHasNone)


async def test_no_server_is_unavailable(tmp_path: Path) -> None:
    async with rest_server() as gone:
        tcp = gone.url
    for url in (tcp, f"unix:{tmp_path}/nothing.sock"):
        async with SlurmRest.opened(RestSettings(url=url), clock=SystemClock()) as rest:
            failure = await failure_of(rest)
            assert isinstance(failure, SlurmUnavailable)
            assert url in str(failure)
