"""Groups whose members read of others' jobs on this machine: of all, or of an account's. They may do nothing else."""

import asyncio
import grp
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from jobtrail.adapters.postgres import PostgresReader
from jobtrail.domain.errors import ConfigError
from tests.adapters.stored_jobs import served_from, store, stories
from tests.adapters.test_http_senders import CLIENT, reachable
from tests.requirements import require_root
from tests.served_api import Answer, Served, parse_answer, request_bytes, served

__all__ = ["reachable"]
READER_UID = 54_399  # of no job
GROUPS = [one for one in grp.getgrall() if 0 < one.gr_gid < 60_000][:2]
ALL, ODD = (one.gr_name for one in GROUPS)
# As a login makes a process: with its supplementary groups.
MEMBER = CLIENT.replace("setgroups([])", "setgroups([int(gid) for gid in sys.argv[3].split(',') if gid])")


async def read(api: Served, path: str, *gids: int, method: str = "GET", body: bytes = b"") -> Answer:
    """What a user is answered who is in these groups."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMBER, api.settings.poke_socket, str(READER_UID), ",".join(map(str, gids)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(
        child.communicate(request_bytes(method, path, body, {"Connection": "close"})), 30
    )
    assert child.returncode == 0, errors.decode()
    return parse_answer(out)


@pytest.mark.usefixtures("reachable")
async def test_members_read_what_their_group_may(tmp_path: Path, pool: Any) -> None:
    require_root("to become a member of a group")
    everything, odd = (one.gr_gid for one in GROUPS)
    await store(pool, stories())
    settings = {"readers_group": ALL, "account_readers": (f"{ODD}:odd",)}
    jobs = PostgresReader(pool, timeout_seconds=10.0)
    async with served_from(pool, tmp_path, jobs=jobs, **settings) as api:
        os.chmod(tmp_path, 0o711)

        async def ids(path: str, *gids: int) -> list[str]:
            return sorted(job["job_id"] for job in (await read(api, path, *gids)).json()["jobs"])

        four = [f"slurm-{number}" for number in range(1, 5)]
        assert await ids("/v1/jobs", everything) == four
        assert await ids("/v1/jobs") == []
        assert await ids("/v1/jobs", odd) == []  # the own jobs; those of the account are asked for by its name
        assert await ids("/v1/jobs?account=odd", odd) == ["slurm-1", "slurm-3"]
        assert await ids("/v1/jobs?account=even", odd) == []
        for path in ("/v1/jobs/1", "/v1/jobs/1/report", "/v1/jobs/1/metrics", "/v1/jobs/1/audit"):
            found = [(await read(api, path, *gids)).status for gids in ((everything,), (odd,), ())]
            assert found == [200, 200, 403], path
        assert [(await read(api, "/v1/jobs/2", *gids)).status for gids in ((everything,), (odd,))] == [200, 403]
        trails = [(await read(api, "/v1/audit", *gids)).json()["events"] for gids in ((everything,), (odd,))]
        assert [bool(events) for events in trails] == [True, False]
        look = await read(api, "/v1/jobs/1/look", everything, method="POST")
        assert api.looks.asked == [("slurm-1", READER_UID)]  # as whom they are, and the sampler decides
        assert look.status == 200


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"readers_group": "no-such-group"}, "http.readers_group"),
        ({"account_readers": ("no-such-group:physics",)}, "http.account_readers"),
        ({"account_readers": ("root",)}, "http.account_readers"),
        ({"account_readers": (":physics",)}, "http.account_readers"),
    ],
)
async def test_what_is_no_delegation_is_a_setting_error(tmp_path: Path, settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as refused:
        async with served(tmp_path, **settings):
            pass
    assert refused.value.where == where
