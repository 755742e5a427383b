"""The client's manners: the version it speaks, how often it asks, what it takes, and whom it shows its token."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import pytest

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.slurmrest import RestSettings, SlurmRest
from jobtrail.adapters.slurmrest.client import JOBS_PER_QUESTION, uid_of_user
from jobtrail.adapters.slurmrest.pacing import Pace
from jobtrail.domain.errors import ConfigError, SlurmAnswerInvalid, SlurmDenied, SlurmUnavailable
from tests.adapters.slurmrest_server import Asked, Canned, RestServer, json_of, raw_server, rest_server

NO_JOBS = {"errors": [], "jobs": []}


class MovedClock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def time_us(self) -> int:
        return int(self.now * 1_000_000)

    def monotonic(self) -> float:
        return self.now

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


T = 1_760_000_000  # Unix seconds


@pytest.fixture
async def server() -> AsyncIterator[RestServer]:
    async with rest_server() as running:
        yield running


def serve(server: RestServer, *versions: str) -> None:
    """Know `versions` and have no jobs."""
    server.knows(*versions)
    for version in versions:
        server.answers[f"/slurm/{version}/jobs"] = json_of(NO_JOBS)
        server.answers[f"/slurmdb/{version}/jobs"] = json_of(NO_JOBS)
        server.answers[f"/slurm/{version}/nodes"] = json_of({"errors": [], "nodes": []})


def settings(server: RestServer, **others: object) -> RestSettings:
    return RestSettings(**{"url": server.url, "poll_seconds": 0.001, "timeout_seconds": 60.0} | others)  # type: ignore[arg-type]


async def test_it_speaks_the_newest_version_both_know_and_asks_for_it_once(server: RestServer) -> None:
    serve(server, "v0.0.36", "v0.0.40", "v0.0.41")
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        await rest.current_jobs()
        await rest.nodes()
        await rest.runs_of([1], since=0)
    assert server.paths() == ["/slurm/v0.0.41/jobs", "/slurm/v0.0.41/nodes", "/slurmdb/v0.0.41/jobs"]
    assert sum(asked.path.endswith("/ping") for asked in server.asked) == 3


async def test_a_version_that_is_set_is_the_one_it_speaks(server: RestServer) -> None:
    serve(server, "v0.0.40", "v0.0.41")
    async with SlurmRest.opened(settings(server, version="v0.0.40"), clock=SystemClock()) as rest:
        await rest.current_jobs()
    assert server.paths() == ["/slurm/v0.0.40/jobs"]


async def test_a_version_that_is_set_and_not_there_is_told_with_those_that_are(server: RestServer) -> None:
    serve(server, "v0.0.40", "v0.0.41")
    async with SlurmRest.opened(settings(server, version="v0.0.38"), clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match=r"slurm\.rest_version v0\.0\.38; it knows v0\.0\.41, v0\.0\.40$"):
            await rest.current_jobs()


async def test_something_else_than_slurmrestd_is_told_as_such(server: RestServer) -> None:
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match="no data version"):
            await rest.current_jobs()


async def test_a_server_started_anew_with_other_versions_is_asked_in_one_of_them(server: RestServer) -> None:
    serve(server, "v0.0.38")
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        await rest.current_jobs()
        server.answers.clear()
        serve(server, "v0.0.40", "v0.0.42")
        assert (await rest.current_jobs()).records == ()
    assert server.paths() == ["/slurm/v0.0.38/jobs", "/slurm/v0.0.38/jobs", "/slurm/v0.0.42/jobs"]


async def test_an_upgraded_server_is_asked_in_its_newer_version(server: RestServer) -> None:
    """The old version still works: the release in the answers tells that the server is another."""
    serve(server, "v0.0.40")
    server.answers["/slurm/v0.0.40/jobs"] = json_of({"meta": {"slurm": {"release": "24.05.1"}}, **NO_JOBS})
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        await rest.current_jobs()
        serve(server, "v0.0.40", "v0.0.42")
        server.answers["/slurm/v0.0.40/jobs"] = json_of({"meta": {"slurm": {"release": "24.11.5"}}, **NO_JOBS})
        await rest.current_jobs()
        await rest.current_jobs()
    assert server.paths()[-1] == "/slurm/v0.0.42/jobs"


async def test_after_a_lost_connection_the_version_is_found_anew(tmp_path: Path) -> None:
    socket = tmp_path / "rest.sock"
    async with SlurmRest.opened(RestSettings(url=f"unix:{socket}", poll_seconds=0.001), clock=SystemClock()) as rest:
        async with rest_server(socket) as old:
            serve(old, "v0.0.38")
            await rest.current_jobs()
        with pytest.raises(SlurmUnavailable):
            await rest.current_jobs()
        socket.unlink(missing_ok=True)
        async with rest_server(socket) as new:
            serve(new, "v0.0.38", "v0.0.40")
            await rest.current_jobs()
            assert new.paths() == ["/slurm/v0.0.40/jobs"]


async def test_questions_of_one_kind_lie_poll_seconds_apart() -> None:
    clock = MovedClock()
    pace = Pace(5.0, clock=clock, wait=clock.wait)
    async with pace.turn():
        clock.now += 2.0  # the answer takes its time
    async with pace.turn():
        assert clock.now == 107.0
    clock.now += 60.0
    async with pace.turn():
        assert clock.waits == [5.0]


async def test_a_wait_that_ends_early_is_waited_on() -> None:
    clock = MovedClock()

    async def early(seconds: float) -> None:
        await clock.wait(seconds / 2 if len(clock.waits) < 2 else seconds)

    pace = Pace(4.0, clock=clock, wait=early)
    async with pace.turn():
        pass
    async with pace.turn():
        assert clock.now == 104.0


async def test_a_question_that_failed_counts_too() -> None:
    clock = MovedClock()
    pace = Pace(5.0, clock=clock, wait=clock.wait)
    with pytest.raises(SlurmUnavailable):
        async with pace.turn():
            raise SlurmUnavailable("down")
    async with pace.turn():
        assert clock.now == 105.0


async def test_each_kind_of_question_keeps_its_own_pace_and_one_job_is_asked_at_once(server: RestServer) -> None:
    serve(server, "v0.0.42")
    server.answers["/slurm/v0.0.42/job/7"] = json_of(NO_JOBS)
    clock = MovedClock()
    rest = SlurmRest(settings(server, poll_seconds=5.0), clock=clock, wait=clock.wait)
    try:
        await rest.current_jobs()
        await rest.nodes()
        await rest.runs_of([1], since=0)
        await rest.job(7)
        await rest.job(7)
        assert clock.waits == []
        await rest.current_jobs()
        await rest.runs_of([1], since=0)
        assert clock.waits == [5.0]  # by then the last question to slurmdb is as long ago
        await rest.nodes()
        await rest.nodes()
        assert clock.waits == [5.0, 5.0]
    finally:
        await rest.close()


async def test_many_jobs_are_asked_for_in_as_few_questions_as_fit(server: RestServer) -> None:
    serve(server, "v0.0.38", "v0.0.42")
    clock = MovedClock()
    rest = SlurmRest(settings(server, poll_seconds=5.0), clock=clock, wait=clock.wait)
    try:
        await rest.runs_of([*range(1, JOBS_PER_QUESTION + 2), 1, 2], since=0)
        assert await rest.runs_of([], since=0) is not None
    finally:
        await rest.close()
    first, second = [asked.query for asked in server.asked if asked.path == "/slurmdb/v0.0.42/jobs"]
    assert first.startswith("step=1%2C2%2C3%2C")
    assert first.endswith("&show_duplicates=true")
    assert second == f"step={JOBS_PER_QUESTION + 1}&show_duplicates=true"
    assert clock.waits == [5.0]


async def test_old_slurmdb_is_not_asked_with_a_parameter_it_refuses(server: RestServer) -> None:
    serve(server, "v0.0.39")
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        await rest.runs_of([1, 2], since=0)
    assert server.asked[-1].query == "step=1%2C2"


async def test_at_most_two_requests_are_under_way(tmp_path: Path) -> None:
    both_there, let_go = asyncio.Event(), asyncio.Event()
    under_way = 0
    most = 0

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        request = await reader.readuntil(b"\r\n\r\n")
        under_way += 1
        most = max(most, under_way)
        if b"/ping" not in request:
            if under_way == 2:
                both_there.set()
            await let_go.wait()
        under_way -= 1
        body = msgspec.json.encode(NO_JOBS)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    socket = tmp_path / "rest.sock"
    async with raw_server(socket, hold) as url, SlurmRest.opened(RestSettings(url=url), clock=SystemClock()) as rest:
        questions = [asyncio.create_task(rest.job(number)) for number in range(1, 9)]
        await asyncio.wait_for(both_there.wait(), 60)
        let_go.set()
        await asyncio.gather(*questions)
    assert most == 2


async def test_an_answer_without_end_is_cut_off(server: RestServer) -> None:
    serve(server, "v0.0.42")
    server.answers["/slurm/v0.0.42/jobs"] = Canned(b'{"jobs":[' + b" " * 100_000 + b"]}")
    rest = SlurmRest(settings(server), clock=SystemClock(), max_answer_bytes=50_000)
    try:
        with pytest.raises(SlurmAnswerInvalid, match=r"larger than 50000 bytes, .*\(MinJobAge and"):
            await rest.current_jobs()
    finally:
        await rest.close()


async def test_jobs_of_many_steps_are_asked_for_fewer_at_a_time(server: RestServer) -> None:
    """And the one whose answer is too large by itself is told, and takes none of the others with it."""

    def runs(asked: Asked) -> Canned:
        numbers = [int(number) for number in parse_qs(asked.query)["step"][0].split(",")]
        return json_of({"errors": [], "jobs": [run(number) for number in numbers]})

    def run(number: int) -> object:
        steps = [{"comment": "x" * 1000}] * (60 if number == 3 else 10)
        return {"job_id": number, "state": {"current": ["RUNNING"]}, "time": {"submission": T}, "steps": steps}

    serve(server, "v0.0.42")
    server.answers["/slurmdb/v0.0.42/jobs"] = runs
    rest = SlurmRest(settings(server), clock=SystemClock(), max_answer_bytes=50_000)
    try:
        answer = await rest.runs_of(range(1, 9), since=0)
    finally:
        await rest.close()
    assert [record.job_id for record in answer.records] == [f"slurm-{number}" for number in (1, 2, 4, 5, 6, 7, 8)]
    assert [(one.job_id, one.path) for one in answer.unreadable] == [("slurm-3", "answer")]


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    socket = tmp_path / "rest.sock"
    chosen = RestSettings(url=f"unix:{socket}", timeout_seconds=0.2)
    async with raw_server(socket, silent), SlurmRest.opened(chosen, clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match=r"did not answer within 0\.2 s"):
            await rest.current_jobs()


async def test_what_is_no_http_is_a_broken_connection(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    socket = tmp_path / "rest.sock"
    async with raw_server(socket, babble) as url, SlurmRest.opened(RestSettings(url=url), clock=SystemClock()) as rest:
        with pytest.raises(SlurmUnavailable, match="broke off"):
            await rest.current_jobs()


async def test_no_token_follows_a_redirect(server: RestServer) -> None:
    async with rest_server() as elsewhere:
        server.knows("v0.0.42")
        server.answers["/slurm/v0.0.42/jobs"] = Canned(b"", 302, "text/plain", f"{elsewhere.url}/slurm/v0.0.42/jobs")
        async with SlurmRest.opened(settings(server, user="a", token="t"), clock=SystemClock()) as rest:
            with pytest.raises(SlurmUnavailable, match="302"):
                await rest.current_jobs()
        assert elsewhere.asked == []


async def test_both_headers_are_sent_and_the_file_is_read_when_it_changes(server: RestServer, tmp_path: Path) -> None:
    serve(server, "v0.0.38")
    file = tmp_path / "token"
    file.write_text("SLURM_JWT=first.token.x\n")
    file.chmod(0o600)
    async with SlurmRest.opened(settings(server, user="alice", token_file=str(file)), clock=SystemClock()) as rest:
        await rest.current_jobs()
        fresh = tmp_path / "token.new"
        fresh.write_text("second.token.x")
        fresh.chmod(0o640)
        fresh.rename(file)
        await rest.current_jobs()
        assert rest.notices == ()
    sent = [(asked.headers["X-SLURM-USER-NAME"], asked.headers["X-SLURM-USER-TOKEN"]) for asked in server.asked]
    assert sent[0] == ("alice", "first.token.x")
    assert sent[-1] == ("alice", "second.token.x")
    assert all("Authorization" not in asked.headers for asked in server.asked)


async def test_a_token_file_open_to_others_is_told_without_the_token(server: RestServer, tmp_path: Path) -> None:
    serve(server, "v0.0.38")
    file = tmp_path / "token"
    file.write_text("hush.hush.hush")
    file.chmod(0o644)
    async with SlurmRest.opened(settings(server, user="alice", token_file=str(file)), clock=SystemClock()) as rest:
        (notice,) = rest.notices
        assert "mode 0644" in notice
        assert "hush" not in notice
        file.chmod(0o600)
        await rest.current_jobs()
        assert rest.notices == ()


@pytest.mark.parametrize("content", ["", "two words", "x" * 70_000, "line\nline"])
async def test_a_file_that_holds_no_token_is_denied(server: RestServer, tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    async with SlurmRest.opened(settings(server, user="alice", token_file=str(file)), clock=SystemClock()) as rest:
        with pytest.raises(SlurmDenied, match="must hold one token"):
            await rest.current_jobs()
    assert server.asked == []


async def test_a_token_file_that_is_not_there_or_no_file_is_denied(server: RestServer, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, problem in ((tmp_path / "none", "cannot be read"), (fifo, "no regular file")):
        async with SlurmRest.opened(settings(server, user="alice", token_file=str(path)), clock=SystemClock()) as rest:
            assert problem in rest.notices[0]
            with pytest.raises(SlurmDenied, match=problem):
                await rest.current_jobs()


def test_no_token_is_in_what_is_printed_of_the_settings() -> None:
    assert "hush" not in repr(RestSettings(url="http://a:1", user="alice", token="hush"))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"url": ""}, "slurm.rest_url"),
        ({"url": "ftp://host"}, "slurm.rest_url"),
        ({"url": "http://"}, "slurm.rest_url"),
        ({"url": "http://host:99999"}, "slurm.rest_url"),
        ({"url": "http://me:secret@host"}, "slurm.rest_url"),
        ({"url": "unix:relative"}, "slurm.rest_url"),
        ({"url": "http://h", "version": "0.0.40"}, "slurm.rest_version"),
        ({"url": "http://h", "token": "t"}, "slurm.rest_user"),
        ({"url": "http://h", "token": "t", "token_file": "/t", "user": "u"}, "slurm.token"),
        ({"url": "http://h", "token": "a\nb", "user": "u"}, "slurm.token"),
        ({"url": "http://h", "user": "a b"}, "slurm.rest_user"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, str], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RestSettings(**wrong)  # type: ignore[arg-type]
    assert caught.value.where == where
    assert "secret" not in str(caught.value)


def test_users_are_looked_up_on_this_machine() -> None:
    assert uid_of_user("root") == 0
    assert uid_of_user("no-such-user-here") is None
    assert uid_of_user("no\0name") is None


async def test_one_job_of_an_answer_about_many_is_the_one_that_was_asked_for(server: RestServer) -> None:
    """For an array's id slurmctld answers with all its tasks, one of which bears that id."""
    server.knows("v0.0.38")
    tasks = [
        {"job_id": number, "job_state": "RUNNING", "array_job_id": 7, "array_task_id": number} for number in (6, 7)
    ]
    server.answers["/slurm/v0.0.38/job/7"] = json_of({"errors": [], "jobs": tasks})
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        (record,) = (await rest.job(7)).records
    assert (record.job_id, record.facts.array_job_id, record.facts.array_task_id) == ("slurm-7", "slurm-7", 7)


async def test_runs_that_were_over_before_are_left_out(server: RestServer) -> None:
    def runs(asked: Asked) -> Canned:
        def run(state: str, end: int) -> object:
            return {"job_id": 1, "state": {"current": [state]}, "time": {"end": end, "submission": end - 9}}

        return json_of({"errors": [], "jobs": [run("FAILED", T + 99), run("FAILED", T + 100), run("RUNNING", T)]})

    server.knows("v0.0.42")
    server.answers["/slurmdb/v0.0.42/jobs"] = runs
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        answer = await rest.runs_of([1], since=T + 100)
    assert [record.end_time for record in answer.records] == [T + 100, None]


async def test_a_node_that_cannot_be_read_is_told_and_the_others_are_there(server: RestServer) -> None:
    server.knows("v0.0.42")
    nodes = [{"name": "n1", "state": ["IDLE"]}, {"name": "n2", "state": ["SPLENDID"]}, 3]
    server.answers["/slurm/v0.0.42/nodes"] = json_of({"errors": [], "nodes": nodes})
    async with SlurmRest.opened(settings(server), clock=SystemClock()) as rest:
        assert [node.name for node in await rest.nodes()] == ["n1"]
        assert "nodes[1].state" in rest.notices[0]
        assert "(and 1 more)" in rest.notices[0]
        server.answers["/slurm/v0.0.42/nodes"] = json_of({"errors": [], "nodes": nodes[1:]})
        with pytest.raises(SlurmAnswerInvalid, match=r"nodes\[0\]\.state"):
            await rest.nodes()
        server.answers["/slurm/v0.0.42/nodes"] = json_of({"errors": [], "nodes": nodes[:1]})
        await rest.nodes()
        assert rest.notices == ()
