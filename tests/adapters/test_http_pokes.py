"""The socket that every user may connect to: what it answers, to whom, and what it never does."""

import asyncio
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobtrail.core.ports import PokeAnswer
from jobtrail.domain.errors import ConfigError
from tests.adapters.test_http_senders import CLIENT, OVERFLOW_UID, STRANGER_UID, reachable  # noqa: F401 - a fixture
from tests.hooks.hook_process import HOOKS, Environment, assert_harmless, run_hook
from tests.requirements import require_tool
from tests.served_api import (
    PROLOG,
    Answer,
    Served,
    hang_up,
    hook_headers,
    parse_answer,
    read_all,
    request_bytes,
    served,
)

POKE_PATH = "/v1/hooks/slurm/task-epilog"
POKE = b"SLURM_JOB_ID=17\0SLURM_LOCALID=0\0"


async def poke_as(uid: int, api: Served, body: bytes = POKE, path: str = POKE_PATH) -> Answer:
    """One poke by a process of user `uid`, through the mode that the socket really has."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, api.settings.poke_socket, str(uid),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    data = request_bytes("POST", path, body, {"Connection": "close"})
    out, errors = await asyncio.wait_for(child.communicate(data), 30)
    assert child.returncode == 0, errors.decode()
    return parse_answer(out)


async def poke(api: Served, path: str = POKE_PATH, body: bytes = POKE, method: str = "POST", **headers: str) -> Answer:
    """One request to the socket by the tests' own user."""
    reader, writer = await asyncio.open_unix_connection(api.settings.poke_socket)
    writer.write(request_bytes(method, path, body, {"Connection": "close", **headers}))
    data = await asyncio.wait_for(read_all(reader), 10)
    await hang_up(writer)
    return parse_answer(data, head_only=method == "HEAD")


async def test_a_poke_is_its_senders_whoever_that_is(reachable: Path) -> None:  # noqa: F811
    """Any user can connect; for whom they speak is the kernel's word, not theirs."""
    async with served(reachable) as api:
        mode = Path(api.settings.poke_socket).stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o666)
        assert stat.S_IMODE(Path(api.settings.socket).stat().st_mode) == 0o660
        answer = await poke_as(STRANGER_UID, api, POKE + b"SLURM_JOB_UID=0\0")
        assert (answer.status, answer.json()) == (200, {"job_id": "slurm-17", "looked": True})
        assert (await poke_as(OVERFLOW_UID, api)).status == 403
    assert api.pokes.asked == [("slurm-17", STRANGER_UID)]
    assert (api.intake.events, api.facts) == ([], [])


@pytest.fixture
def outside(reachable: Path) -> Iterator[Path]:  # noqa: F811
    """A directory that any user may enter, though every other run of pytest that starts closes /tmp/pytest-of-root."""
    with tempfile.TemporaryDirectory(prefix="jobtrail-") as directory:
        Path(directory).chmod(stat.S_IMODE(reachable.stat().st_mode))
        yield Path(directory)


async def test_the_real_hook_is_heard_for_its_user(outside: Path) -> None:
    """As slurmstepd runs it: as the job's user, with that user's environment."""
    script = outside / "task_epilog.sh"
    script.write_bytes((HOOKS / "task_epilog.sh").read_bytes())
    setpriv = require_tool("setpriv", "it becomes the job's user")
    argv = [setpriv, f"--reuid={STRANGER_UID}", f"--regid={STRANGER_UID}", "--clear-groups", "/bin/sh", str(script)]
    async with served(outside) as api:
        environment: Environment = {
            "SLURM_JOB_ID": "17", "SLURM_LOCALID": "0", "JOBTRAIL_POKE_SOCKET": api.settings.poke_socket
        }  # fmt: skip
        assert_harmless(await asyncio.to_thread(run_hook, argv, environment))
    assert api.pokes.asked == [("slurm-17", STRANGER_UID)]


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (PokeAnswer.TOO_SOON, 429, "too_many_requests"),
        (PokeAnswer.BUSY, 503, "unavailable"),
        (PokeAnswer.NOT_YOURS, 403, "forbidden"),
    ],
)
async def test_a_poke_without_a_look_says_why(tmp_path: Path, outcome: PokeAnswer, status: int, error: str) -> None:
    async with served(tmp_path) as api:
        api.pokes.answer = outcome
        answer = await poke(api)
        assert (answer.status, answer.json()["error"]) == (status, error)
        assert ("retry-after" in answer.headers) == (status != 403)


@pytest.mark.parametrize(
    "path", ["/v1/hooks/slurm/prolog", "/v1/events/job-started", "/metrics", "/", "/health", "/v1/nodes"]
)
async def test_nothing_else_is_answered_there(tmp_path: Path, path: str) -> None:
    """Neither events nor figures: /metrics names users."""
    async with served(tmp_path) as api:
        for method in ("GET", "POST"):
            assert (await poke(api, path, PROLOG, method, **hook_headers())).status == 404
        assert (await poke(api, method="GET")).status == 405
    assert (api.intake.events, api.scrapes) == ([], 0)


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"SLURM_JOB_ID=x\0", 400), (b"x" * 5000, 413), (POKE + b"\xff", 400)]
)
async def test_a_wrong_poke_is_refused_and_not_told(tmp_path: Path, body: bytes, status: int) -> None:
    """Who may be anybody must not be able to fill the log; and nothing is lost with a poke."""
    async with served(tmp_path) as api:
        assert (await poke(api, body=body)).status == status
        reader, writer = await asyncio.open_unix_connection(api.settings.poke_socket)
        writer.write(b"no http\r\n\r\n")
        said = await asyncio.wait_for(read_all(reader), 10)
        await hang_up(writer)
        assert b" 400 " in said.partition(b"\r\n")[0]
    assert (api.pokes.asked, api.facts) == ([], [])


async def test_pokes_go_nowhere_else(tmp_path: Path) -> None:
    """The hooks' socket and TCP have no such hook."""
    async with served(tmp_path) as api:
        assert (await api.hook(POKE, path=POKE_PATH)).status == 404
        assert (await api.request("POST", POKE_PATH, POKE, tcp=True)).status == 403
    assert api.pokes.asked == []


async def test_clients_that_fill_it_leave_the_hooks_alone(tmp_path: Path) -> None:
    """Its connections are counted by themselves."""
    async with served(tmp_path, max_connections=2) as api:
        idle = [await asyncio.open_unix_connection(api.settings.poke_socket) for _ in range(2)]
        assert (await poke(api)).status == 503
        assert (await api.hook()).status == 201
        for _, writer in idle:
            await hang_up(writer)


async def test_without_a_path_there_is_none(tmp_path: Path) -> None:
    async with served(tmp_path, poke_socket="") as api:
        assert os.listdir(tmp_path) == ["hooks.sock"]
        assert api.api.routes.on_poke_socket() == []
    assert os.listdir(tmp_path) == []


async def test_a_path_that_cannot_be_used_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        async with served(tmp_path, poke_socket="/etc/passwd"):
            pass
    assert refused.value.where == "http.poke_socket"
    assert os.listdir(tmp_path) == []
