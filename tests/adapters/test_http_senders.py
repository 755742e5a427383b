"""Who may send what, with the kernel's own word about the sender."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.requirements import unmet
from tests.served_api import HOOK_PATH, PROLOG, Answer, Served, hook_headers, parse_answer, request_bytes, served

OVERFLOW_UID = 65534
STRANGER_UID = 54_321  # has no login name
SLURM_UID = 54_322
# Becomes another user, sends standard input to the socket and prints what comes back. It goes to the socket's directory
# first: those above are pytest's, and every other run of pytest that starts closes /tmp/pytest-of-root to other users.
CLIENT = """
import os, socket, sys
os.chdir(os.path.dirname(sys.argv[1]))
os.setgroups([])
os.setresgid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
os.setresuid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
request = sys.stdin.buffer.read()  # all of it, before the daemon begins to wait for it
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect(os.path.basename(sys.argv[1]))
peer.sendall(request)
while data := peer.recv(65536):
    sys.stdout.buffer.write(data)
"""


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A directory that any user may enter, as /run/jobtrail is for Slurm's user."""
    if os.geteuid() != 0:
        unmet("only root can become other users to send as them")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return tmp_path


async def send_as(
    uid: int, api: Served, path: str, body: bytes, headers: dict[str, str], *, method: str = "POST"
) -> Answer:
    """One request by a process of user `uid`."""
    # The mode of the socket is a wall of its own; here it is opened to reach the one behind it.
    Path(api.settings.socket).chmod(0o666)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, api.settings.socket, str(uid),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    data = request_bytes(method, path, body, {"Connection": "close", **headers})
    out, errors = await asyncio.wait_for(child.communicate(data), 30)
    assert child.returncode == 0, errors.decode()
    return parse_answer(out)


async def event_as(uid: int, api: Served, kind: str, **fields: Any) -> Answer:
    """One JSON event by a process of user `uid`."""
    return await send_as(uid, api, f"/v1/events/{kind}", msgspec.json.encode(fields), {})


async def test_only_root_and_slurms_user_send_hooks(reachable: Path) -> None:
    """Any other user is refused before anything is read, and told to have been."""
    async with served(reachable, trusted_uids=frozenset({SLURM_UID, OVERFLOW_UID}), local_scheduler=True) as api:
        assert (await send_as(SLURM_UID, api, HOOK_PATH, PROLOG, hook_headers())).status == 201
        for uid in (STRANGER_UID, OVERFLOW_UID):
            answer = await send_as(uid, api, HOOK_PATH, PROLOG, hook_headers())
            assert (answer.status, answer.json()["error"]) == (403, "forbidden")
            assert str(uid) in answer.json()["message"]
    assert (len(api.intake.events), api.rejections) == (1, ["forbidden", "forbidden"])


async def test_the_sockets_mode_keeps_strangers_out(reachable: Path) -> None:
    """Who is neither owner nor in the group cannot even connect."""
    async with served(reachable) as api:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, api.settings.socket, str(STRANGER_UID),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await asyncio.wait_for(child.communicate(b""), 30)
        assert b"PermissionError" in errors


async def test_without_a_local_scheduler_only_the_trusted_send_events(reachable: Path) -> None:
    """Also not about local jobs."""
    async with served(reachable, trusted_uids=frozenset({SLURM_UID})) as api:
        assert (await event_as(STRANGER_UID, api, "job-started", job_id="local-1")).status == 403
        assert (await event_as(SLURM_UID, api, "job-started", job_id="local-1", user="alice")).status == 201
    event = api.intake.events[0]
    assert event.facts is not None
    assert (event.facts.user_name, event.facts.uid, event.note) == ("alice", None, None)


async def test_with_a_local_scheduler_everybody_sends_as_themselves(reachable: Path) -> None:
    """The user of a local job is whom the kernel names, whatever the body says; the trail says who sent the end."""
    async with served(reachable, local_scheduler=True) as api:
        started = await event_as(STRANGER_UID, api, "job-started", job_id="local-1", user="root", node="n1")
        finished = await event_as(STRANGER_UID, api, "job-finished", job_id="local-1", exit_code=0, cluster="local")
        daemon = await event_as(1, api, "job-started", job_id="local-2", user="root")
        assert [started.status, finished.status, daemon.status] == [201, 201, 201]
    first, last, named = api.intake.events
    assert first.facts is not None
    assert named.facts is not None
    assert (first.facts.user_name, first.facts.uid) == (str(STRANGER_UID), STRANGER_UID)
    assert (named.facts.user_name, named.facts.uid) == ("daemon", 1)
    assert [first.note, last.note] == [f"sent by uid {STRANGER_UID}"] * 2


@pytest.mark.parametrize(
    ("uid", "fields"),
    [
        (STRANGER_UID, {"job_id": "slurm-1"}),
        (STRANGER_UID, {"job_id": 1}),
        (STRANGER_UID, {"job_id": "local-1", "node": "n2"}),
        (STRANGER_UID, {"job_id": "local-1", "cluster": "lab"}),
        (OVERFLOW_UID, {"job_id": "local-1"}),
    ],
)
async def test_a_local_user_speaks_for_local_jobs_of_this_node_only(
    reachable: Path, uid: int, fields: dict[str, Any]
) -> None:
    """Neither for Slurm's jobs nor for other nodes or clusters; the unmapped uid for nothing."""
    async with served(reachable, local_scheduler=True, cluster="lab") as api:
        answers = [await event_as(uid, api, kind, **fields) for kind in ("job-started", "job-finished")]
        assert [answer.status for answer in answers] == [403, 403]
    assert (api.intake.events, api.rejections) == ([], ["forbidden", "forbidden"])


async def test_a_local_users_words_reach_no_other_users_jobs(reachable: Path) -> None:
    """Nobody ends, replaces or has read what is somebody else's; their own stays theirs."""
    cgroups = reachable / "cgroup"
    for name, owner in (("mine", STRANGER_UID), ("theirs", 1)):
        (cgroups / name).mkdir(parents=True)
        os.chown(cgroups / name, owner, owner)
    ticks = {"root_pid_start_ticks": 1}
    async with served(reachable, local_scheduler=True, cgroup_root=str(cgroups)) as api:
        assert (await event_as(1, api, "job-started", job_id="local-1")).status == 201
        refused = [
            await event_as(STRANGER_UID, api, "job-finished", job_id="local-1", exit_code=0),
            await event_as(STRANGER_UID, api, "job-started", job_id="local-1"),
            await event_as(STRANGER_UID, api, "job-finished", job_id="local-9", exit_code=0),
            await event_as(
                STRANGER_UID, api, "job-started", job_id="local-2", root_pid=os.getpid(), root_pid_start_ticks=1
            ),
            await event_as(STRANGER_UID, api, "job-started", job_id="local-2", root_pid=2**22, **ticks),
            await event_as(STRANGER_UID, api, "job-started", job_id="local-2", cgroup_path="/theirs"),
        ]
        assert [answer.status for answer in refused] == [403] * 6
        bare = await event_as(STRANGER_UID, api, "job-started", job_id="local-2", root_pid=os.getpid())
        assert (bare.status, bare.json()["details"]) == (400, {"field": "root_pid_start_ticks"})
        assert (await event_as(STRANGER_UID, api, "job-started", job_id="local-2", cgroup_path="/mine")).status == 201
        assert (await event_as(1, api, "job-finished", job_id="local-1", exit_code=0)).status == 201
    assert [event.job_id for event in api.intake.events] == ["local-1", "local-2", "local-1"]
