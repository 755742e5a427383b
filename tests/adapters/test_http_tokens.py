"""slurmctld's hooks over TCP: with the token in the daemon's file, and not otherwise."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobtrail.domain.errors import ConfigError
from jobtrail.domain.events import EventKind
from tests.hooks.hook_process import HOOKS as SCRIPTS
from tests.hooks.hook_process import Environment, assert_harmless, run_hook
from tests.requirements import require_root
from tests.served_api import PROLOG, Answer, Served, hook_headers, served

TOKEN = "3f0c5d0e9a7b4c6f8d2e1a0b"
OTHER = "ffffffffffffffffffffffff"
HOOKS = ("prolog-slurmctld", "epilog-slurmctld")
BODY = b"SLURM_JOB_ID=17\0SLURM_CLUSTER_NAME=lab\0SLURM_JOB_NAME=x\0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    write(path, TOKEN)
    return path


@pytest.fixture
async def api(tmp_path: Path, file: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, hook_token_file=str(file)) as one:
        yield one


def write(path: Path, token: str) -> None:
    path.write_text(f"{token}\n")
    path.chmod(0o600)


async def post(api: Served, hook: str, authorization: str | None, body: bytes = BODY) -> Answer:
    headers = hook_headers() | ({} if authorization is None else {"Authorization": authorization})
    return await api.request("POST", f"/v1/hooks/slurm/{hook}", body, headers, tcp=True)


@pytest.mark.parametrize("hook", HOOKS)
async def test_with_the_token_they_are_taken(api: Served, hook: str) -> None:
    answer = await post(api, hook, f"Bearer {TOKEN}")
    assert answer.status == 201, answer.body
    (event,) = api.intake.events
    assert (event.kind, event.node, event.source) == (EventKind.SLURM_REPORTED, "n1", hook.replace("-", "_"))


@pytest.mark.parametrize("hook", HOOKS)
async def test_the_real_hook_is_taken(api: Served, file: Path, hook: str, tmp_path: Path) -> None:
    """The script as slurmctld runs it, with one file for both sides."""
    environment: Environment = {
        "SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_NAME": b"na\xefve\nSLURM_JOB_ID=9",
        "JOBTRAIL_URL": api.addresses.url, "JOBTRAIL_TOKEN_FILE": str(file), "JOBTRAIL_SPOOL": str(tmp_path / "spool"),
    }  # fmt: skip
    argv = ["/bin/sh", str(SCRIPTS / f"{hook.replace('-', '_')}.sh")]
    assert_harmless(await asyncio.to_thread(run_hook, argv, environment))
    (event,) = api.intake.events
    assert event.slurm is not None
    assert (event.job_id, event.slurm.facts.job_name) == ("slurm-17", "na\\xefve\nSLURM_JOB_ID=9")


@pytest.mark.parametrize("hook", HOOKS)
async def test_without_a_token_they_are_asked_for_one(api: Served, hook: str) -> None:
    answer = await post(api, hook, None)
    assert (answer.status, answer.json()["error"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert api.intake.events == []


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {OTHER}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"Basic {TOKEN}", TOKEN,
        f"Bearer {TOKEN} {TOKEN}", "Bearer \udcff\udcfe",
    ],
)  # fmt: skip
async def test_another_token_is_refused_and_neither_is_told(
    api: Served, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No message, log line or fact holds the token or what was shown for it."""
    data = header.encode("utf-8", "surrogateescape").decode("latin-1")
    answer = await post(api, "epilog-slurmctld", data)
    assert (answer.status, answer.json()["error"]) == (403, "forbidden")
    told = f"{answer.body!r} {answer.headers} {api.facts} {caplog.text}"
    assert TOKEN not in told
    assert OTHER not in told
    assert (api.intake.events, api.rejections) == ([], ["forbidden"])


async def test_two_tokens_are_none(api: Served) -> None:
    """Not even when one of them is right."""
    headers = hook_headers() | {"Authorization": f"Bearer {OTHER}", "authorization": f"Bearer {TOKEN}"}
    path = "/v1/hooks/slurm/epilog-slurmctld"
    assert (await api.request("POST", path, BODY, headers, tcp=True)).status == 400
    assert api.intake.events == []


async def test_the_token_opens_nothing_else(api: Served) -> None:
    """A node's hooks and JSON events stay the Unix socket's, on which a token is not asked for."""
    headers = hook_headers() | {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/v1/hooks/slurm/prolog", "/v1/hooks/slurm/epilog", "/v1/events/job-started"):
        assert (await api.request("POST", path, PROLOG, headers, tcp=True)).status == 403
    assert (await api.hook(BODY, path="/v1/hooks/slurm/epilog-slurmctld")).status == 201


async def test_a_new_token_holds_at_once(api: Served, file: Path) -> None:
    """Replaced by rename or written over; the old one is refused from then on."""
    fresh = file.with_name("fresh")
    write(fresh, OTHER)
    fresh.rename(file)
    assert [(await post(api, HOOKS[0], f"Bearer {token}")).status for token in (TOKEN, OTHER)] == [403, 201]
    write(file, "x" * 40)
    assert [(await post(api, HOOKS[0], f"Bearer {token}")).status for token in (OTHER, "x" * 40)] == [403, 201]


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.chmod(0o644), lambda path: path.write_text("short")])
async def test_a_file_that_goes_bad_closes_the_door(api: Served, file: Path, spoil: object) -> None:
    """Also to the last good token; the hook keeps its event meanwhile."""
    assert callable(spoil)
    spoil(file)
    answer = await post(api, HOOKS[0], f"Bearer {TOKEN}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert TOKEN not in str(answer.body)
    write(file, TOKEN)
    assert (await post(api, HOOKS[0], f"Bearer {TOKEN}")).status == 201


async def test_without_a_file_no_token_is_right(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        for header in (None, f"Bearer {TOKEN}", "Bearer "):
            answer = await post(api, HOOKS[0], header)
            assert (answer.status, answer.json()["error"]) == (403, "forbidden")
            assert "slurm.hook_token_file" in answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "mode", "told"),
    [
        (TOKEN, 0o644, "mode 0644"),
        (TOKEN, 0o660, "mode 0660"),
        ("short", 0o600, "16 to 1024"),
        ("", 0o600, "16 to 1024"),
        ("two words of a token", 0o600, "16 to 1024"),
        (f"{TOKEN}\n{OTHER}", 0o600, "16 to 1024"),
        ("ä" * 20, 0o600, "16 to 1024"),
        ("x" * 5000, 0o600, "16 to 1024"),
    ],
)
async def test_a_file_that_cannot_serve_is_a_setting_error(
    tmp_path: Path, file: Path, content: str, mode: int, told: str
) -> None:
    """At the start, naming the setting and what to do; and without the token."""
    write(file, content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=told) as refused:
        async with served(tmp_path, hook_token_file=str(file)):
            pass
    assert refused.value.where == "slurm.hook_token_file"
    assert TOKEN not in str(refused.value)


async def test_a_missing_file_or_a_directory_is_a_setting_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            async with served(tmp_path, hook_token_file=str(path)):
                pass


async def test_the_file_of_another_user_is_a_setting_error(tmp_path: Path, file: Path) -> None:
    require_root("give a file to another user")
    os.chown(file, 54_321, 0)
    with pytest.raises(ConfigError, match="belongs to uid 54321"):
        async with served(tmp_path, hook_token_file=str(file)):
            pass


async def test_the_group_may_read_the_file(tmp_path: Path, file: Path) -> None:
    """So that slurmctld's hooks, where they run beside the daemon, can use the same one."""
    file.chmod(0o640)
    async with served(tmp_path, hook_token_file=str(file)) as api:
        assert (await post(api, HOOKS[0], f"bearer {TOKEN}")).status == 201
