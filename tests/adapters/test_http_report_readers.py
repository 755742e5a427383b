"""Who may read a job's report, by which way, and what the others are told."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobtrail.core.query_ports import JobDetail
from jobtrail.domain.errors import ConfigError
from tests.adapters.test_http_reading import ScriptedJobs
from tests.adapters.test_http_senders import CLIENT, OVERFLOW_UID, SLURM_UID, STRANGER_UID, reachable
from tests.adapters.test_http_tokens import OTHER, TOKEN, write
from tests.served_api import Answer, Served, parse_answer, request_bytes, served

__all__ = ["reachable"]
REPORT = "/v1/jobs/7/report"
SECRET = b"/home/eve"


class SlowJobs(ScriptedJobs):
    """Answers when `gate` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def show_job(self, job_id: str, *, run: int | None = None, cluster: str | None = None) -> JobDetail:
        self.entered.set()
        await self.gate.wait()
        return await super().show_job(job_id, run=run, cluster=cluster)


@pytest.fixture
def jobs() -> ScriptedJobs:
    scripted = ScriptedJobs()
    scripted.job["work_dir"] = SECRET.decode()
    return scripted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "read.token"
    write(path, TOKEN)
    return path


@pytest.fixture
async def api(tmp_path: Path, jobs: ScriptedJobs, file: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, jobs=jobs, read_token_file=str(file), trusted_uids=frozenset({SLURM_UID})) as one:
        yield one


async def read_as(uid: int, socket: str, path: str = REPORT) -> Answer:
    """One question by a process of user `uid`, through the mode that the socket really has."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, socket, str(uid),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    data = request_bytes("GET", path, b"", {"Connection": "close"})
    out, errors = await asyncio.wait_for(child.communicate(data), 30)
    assert child.returncode == 0, errors.decode()
    return parse_answer(out)


async def over_tcp(api: Served, token: str | None = None, method: str = "GET") -> Answer:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return await api.request(method, REPORT, headers=headers, tcp=True)


async def test_over_tcp_the_token_in_the_file_opens_it(api: Served) -> None:
    answer = await over_tcp(api, TOKEN)
    assert (answer.status, SECRET in answer.body) == (200, True)


async def test_over_tcp_without_the_token_nothing_is_told_not_even_whether_the_job_is_there(
    api: Served, jobs: ScriptedJobs
) -> None:
    asked = await over_tcp(api)
    assert (asked.status, asked.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer <token>" in asked.json()["message"]
    wrong = await over_tcp(api, OTHER)
    assert (wrong.status, wrong.json()["error"]) == (403, "forbidden")
    assert "http.read_token_file" in wrong.json()["message"]
    assert TOKEN not in str(wrong)
    assert (await over_tcp(api, method="HEAD")).status == 401
    malformed = await api.request("GET", "/v1/jobs/x/report", tcp=True)
    assert malformed.status == 401
    assert jobs.asked == []


async def test_over_tcp_without_a_file_it_is_refused_with_what_to_do(tmp_path: Path, jobs: ScriptedJobs) -> None:
    async with served(tmp_path, jobs=jobs) as api:
        for token in (None, TOKEN):
            answer = await over_tcp(api, token)
            assert (answer.status, answer.json()["error"]) == (403, "forbidden")
            message = answer.json()["message"]
            assert "http.read_token_file" in message
            assert api.settings.poke_socket in message
    assert jobs.asked == []


async def test_the_hooks_token_does_not_open_it(tmp_path: Path, jobs: ScriptedJobs, file: Path) -> None:
    hook_file = tmp_path / "hook.token"
    write(hook_file, OTHER)
    async with served(tmp_path, jobs=jobs, read_token_file=str(file), hook_token_file=str(hook_file)) as api:
        assert [(await over_tcp(api, token)).status for token in (OTHER, TOKEN)] == [403, 200]


async def test_a_new_token_holds_at_once_and_a_file_that_goes_bad_closes_the_door(api: Served, file: Path) -> None:
    write(file, OTHER)
    assert [(await over_tcp(api, token)).status for token in (TOKEN, OTHER)] == [403, 200]
    file.chmod(0o644)
    answer = await over_tcp(api, OTHER)
    assert (answer.status, "http.read_token_file" in answer.json()["message"]) == (503, True)


async def test_a_file_that_others_can_read_is_a_setting_error(tmp_path: Path, file: Path) -> None:
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644") as refused:
        async with served(tmp_path, read_token_file=str(file)):
            pass
    assert refused.value.where == "http.read_token_file"


@pytest.mark.parametrize(
    ("uid", "owner", "status"),
    [
        (STRANGER_UID, STRANGER_UID, 200),
        (STRANGER_UID, STRANGER_UID + 1, 403),
        (STRANGER_UID, 0, 403),
        (STRANGER_UID, None, 403),
        (OVERFLOW_UID, OVERFLOW_UID, 403),
        (SLURM_UID, STRANGER_UID, 200),
        (0, STRANGER_UID, 200),
    ],
)
async def test_on_the_users_socket_a_job_is_its_own_users(
    reachable: Path, api: Served, jobs: ScriptedJobs, uid: int, owner: int | None, status: int
) -> None:
    """Through the sockets' real modes: the hooks' one keeps users out, this one lets them in."""
    jobs.job["uid"] = owner
    answer = await read_as(uid, api.settings.poke_socket)
    assert (answer.status, SECRET in answer.body) == (status, status == 200)
    assert api.facts == []  # anybody could fill the log


async def test_a_user_is_answered_one_question_at_a_time_and_keeps_nobody_out(reachable: Path, tmp_path: Path) -> None:
    """The readers' connections to the database are few."""
    jobs = SlowJobs()
    async with served(tmp_path, jobs=jobs) as api:
        first = asyncio.create_task(read_as(STRANGER_UID, api.settings.poke_socket))
        await asyncio.wait_for(jobs.entered.wait(), 20)
        busy = await read_as(STRANGER_UID, api.settings.poke_socket)
        assert (busy.status, busy.json()["error"], busy.headers["retry-after"]) == (429, "too_many_requests", "1")
        jobs.entered.clear()
        other = asyncio.create_task(read_as(os.geteuid(), api.settings.poke_socket))
        await asyncio.wait_for(jobs.entered.wait(), 20)
        jobs.gate.set()
        assert [(await first).status, (await other).status] == [200, 200]
        assert (await read_as(STRANGER_UID, api.settings.poke_socket)).status == 200
