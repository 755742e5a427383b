"""The endpoints: what they answer, what they hand to the intake, what they tell."""

import asyncio
import socket
import stat
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp.web import RouteDef

from jobtrail.adapters.http import Addresses, HttpApi
from jobtrail.adapters.http.pages import INDEX
from jobtrail.adapters.http.routes import Routes
from jobtrail.adapters.slurm_env import CONTROLLER_HOOKS, HOOKS, environment_bytes
from jobtrail.core.facts import EventRejected
from jobtrail.core.ports import Health
from jobtrail.domain.errors import ConfigError, SpoolBroken, SpoolFull
from jobtrail.domain.events import Actor, EventKind, request_digest
from jobtrail.domain.job_facts import Outcome
from tests.served_api import PROLOG, Served, hook_headers, parse_answer, request_bytes, served

REPOSITORY = Path(__file__).parents[2]
FIXTURES = sorted((REPOSITORY / "tests" / "fixtures").glob("slurm-*/**/*.env0"))
TIME = "1795224968.264142762"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as one:
        yield one


async def test_every_real_capture_is_accepted(api: Served) -> None:
    """All captures go through the socket and arrive byte for byte."""
    for path in FIXTURES:
        hook = "prolog" if "-prolog-" in path.name else "epilog"
        raw = path.read_bytes()
        answer = await api.hook(raw, path=f"/v1/hooks/slurm/{hook}", Jobtrail_Event_Time=TIME)
        assert (answer.status, path) == (201, path)
        event = api.intake.events[-1]
        original = dict(record.split(b"=", 1) for record in raw.rstrip(b"\0").split(b"\0"))
        assert {name.encode(): value for name, value in environment_bytes(event).items()} == original
        assert event.job_id == "slurm-" + original[b"SLURM_JOB_ID"].decode()
        assert (event.node.encode(), event.cluster.encode()) == (
            original[b"SLURMD_NODENAME"],
            original[b"SLURM_CLUSTER_NAME"],
        )
        assert answer.json() == {"event_id": event.event_id, "seq": len(api.intake.events), "durability": "disk"}
    assert len(api.intake.events) == len(FIXTURES) >= 40
    assert api.rejections == []


async def test_an_event_takes_effect_once(api: Served) -> None:
    """201, then 200 for the same again (in any case of the id), then 409 for another under its id."""
    identity = str(uuid.uuid4())
    first = await api.hook(Jobtrail_Event_Id=identity, Jobtrail_Event_Time=TIME)
    again = await api.hook(Jobtrail_Event_Id=identity.upper(), Jobtrail_Event_Time=TIME)
    other_body = await api.hook(PROLOG + b"X=1\0", Jobtrail_Event_Id=identity, Jobtrail_Event_Time=TIME)
    other_hook = await api.hook(path="/v1/hooks/slurm/epilog", Jobtrail_Event_Id=identity, Jobtrail_Event_Time=TIME)
    assert [first.status, again.status, other_body.status, other_hook.status] == [201, 200, 409, 409]
    assert first.json() == again.json()
    assert other_body.json()["error"] == "conflict"
    assert api.intake.digests == {identity: request_digest("prolog", TIME, PROLOG)}
    assert api.intake.events[0].time_us == 1_795_224_968_264_142
    assert api.rejections == ["conflict", "conflict"]


@pytest.mark.parametrize(
    ("error", "code", "retry_after"),
    [(SpoolFull(1, retry_after_seconds=7), "spool_full", "7"), (SpoolBroken("disk gone"), "spool_broken", "5")],
)
async def test_a_spool_that_takes_nothing_is_503(api: Served, error: Exception, code: str, retry_after: str) -> None:
    """The hook then keeps the event itself."""
    api.intake.error = error
    answer = await api.hook()
    assert (answer.status, answer.headers["retry-after"], answer.json()["error"]) == (503, retry_after, "unavailable")
    assert api.rejections == [code]


async def test_a_mistake_of_ours_is_500_and_hides_itself(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns nothing of the inside, the log has it, and the daemon goes on."""
    api.intake.error = ZeroDivisionError("secret detail")
    answer = await api.hook()
    assert (answer.status, answer.json()["error"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert "secret detail" in caplog.text
    assert api.facts == [EventRejected(reason="internal", detail="ZeroDivisionError: secret detail")]
    api.intake.error = None
    assert (await api.hook()).status == 201


async def test_jobs_can_be_reported_as_json(api: Served) -> None:
    """All fields of a start arrive."""
    answer = await api.event(
        "job-started",
        {
            "job_id": 17,
            "user": "alice",
            "node_list": "n[2-3],n1",
            "cpu_allocation": 4,
            "memory_allocation_mb": 200,
            "gpu_allocation": 2,
            "gpu_vendor": "nvidia",
            "gpu_devices": ["0", "1"],
            "cgroup_path": "/sys/fs/cgroup/job",
            "root_pid": 12,
            "root_pid_start_ticks": 99,
            "job_name": "naïve\n",
            "command": ["sleep", "1"],
            "partition": "debug",
            "account": "a",
            "timestamp": "2026-11-21T10:00:00.5+01:00",
            "node": "n2",
            "cluster": "lab",
        },
    )
    assert answer.status == 201, answer.body
    event = api.intake.events[0]
    facts, where = event.facts, event.whereabouts
    assert facts is not None
    assert where is not None
    assert (event.kind, event.job_id, event.node, event.cluster) == (EventKind.JOB_STARTED, "slurm-17", "n2", "lab")
    assert (event.changed_by, event.source, event.time_us) == (Actor.API, "api", 1_795_251_600_500_000)
    assert (facts.nodes, facts.node_list, facts.cpus) == (("n2", "n3", "n1"), "n[2-3],n1", 4)
    assert (facts.memory_limit_bytes, facts.gpu_devices, facts.gpu_vendor) == (200 * 1024**2, ("0", "1"), "nvidia")
    assert (facts.user_name, facts.uid, facts.job_name, facts.command) == ("alice", None, "naïve\n", ("sleep", "1"))
    assert (where.cgroup_path, where.root_pid, where.root_pid_start_ticks) == ("/sys/fs/cgroup/job", 12, 99)
    assert event.note is None


async def test_what_a_json_event_leaves_out_comes_from_its_surroundings(api: Served) -> None:
    """Node and cluster of the daemon, the sender's name, the header's time, a fresh id; `exec` signs as the CLI."""
    started = await api.event("job-started", {"job_id": "local-5", "source": "exec"}, Jobtrail_Event_Time=TIME)
    finished = await api.event("job-finished", {"job_id": "local-5", "exit_code": 3, "final_state": "failed"})
    assert [started.status, finished.status] == [201, 201]
    first, second = api.intake.events
    assert first.facts is not None
    assert (first.job_id, first.node, first.cluster, first.changed_by) == ("local-5", "n1", "local", Actor.CLI)
    assert (first.facts.user_name, first.facts.uid, first.time_us) == ("root", 0, 1_795_224_968_264_142)
    assert (second.kind, second.outcome) == (EventKind.JOB_FINISHED, Outcome(exit_code=3, final_state="failed"))
    assert uuid.UUID(first.event_id) != uuid.UUID(second.event_id)


async def test_a_number_of_gpus_without_names_is_evidence(api: Served) -> None:
    """No device names are invented; none at all is known to be none."""
    await api.event("job-started", {"job_id": "local-1", "gpu_allocation": 2})
    await api.event("job-started", {"job_id": "local-2", "gpu_allocation": 0})
    two, none = api.intake.events
    assert two.facts is not None
    assert none.facts is not None
    assert (two.facts.gpu_devices, two.environment) == (None, {"gpu_allocation": "2"})
    assert (none.facts.gpu_devices, none.environment) == ((), {})


async def test_a_json_retry_is_recognised(api: Served) -> None:
    """By its id and its body, also without a time."""
    identity = str(uuid.uuid4())
    statuses = [
        (await api.event("job-started", {"job_id": "local-1"}, Jobtrail_Event_Id=identity)).status,
        (await api.event("job-started", {"job_id": "local-1"}, Jobtrail_Event_Id=identity)).status,
        (await api.event("job-started", {"job_id": "local-2"}, Jobtrail_Event_Id=identity)).status,
    ]
    assert statuses == [201, 200, 409]


async def test_pages(api: Served) -> None:
    """The reading endpoints, the same on both listeners; a scrape is counted, a HEAD is none."""
    for tcp in (False, True):
        index = await api.request("GET", "/", tcp=tcp)
        assert (index.status, index.body.decode()) == (200, INDEX)
        assert (await api.request("GET", "/healthz", tcp=tcp)).body == b"ok\n"
        assert (await api.request("GET", "/readyz", tcp=tcp)).status == 200
        health = await api.request("GET", "/health", tcp=tcp)
        assert health.json() == {"status": "ok", "problems": [], "warnings": [], "details": {"spool_depth": 0}}
        metrics = await api.request("GET", "/metrics", tcp=tcp)
        assert (metrics.body, metrics.headers["content-type"]) == (api.page, "text/plain; version=0.0.4; charset=utf-8")
        assert metrics.headers["server"] == "jobtrail"
        head = await api.request("HEAD", "/metrics", tcp=tcp)
        assert (head.status, head.body) == (200, b"")
    assert api.scrapes == 2
    assert api.rejections == []


async def test_a_daemon_that_cannot_work_says_why(api: Served) -> None:
    """readyz and health turn 503, healthz does not."""
    api.health = Health(ready=False, problems=("the database is away", "the spool is nearly full"))
    ready, health = await api.request("GET", "/readyz"), await api.request("GET", "/health")
    assert (ready.status, ready.body) == (503, b"the database is away\nthe spool is nearly full\n")
    assert (health.status, health.json()["problems"]) == (503, list(api.health.problems))
    assert (await api.request("GET", "/healthz")).status == 200


async def test_nothing_is_written_over_tcp(api: Served) -> None:
    """Whatever the path; the message says where to go."""
    for path in ("/v1/hooks/slurm/prolog", "/v1/hooks/slurm/task-epilog", "/v1/events/job-started", "/", "/nowhere"):
        answer = await api.request("POST", path, PROLOG, hook_headers(), tcp=True)
        assert (answer.status, answer.json()["error"]) == (403, "forbidden")
        assert api.settings.socket in answer.json()["message"]
    assert api.rejections == ["forbidden"] * 5
    assert api.intake.events == []


def all_routes(routes: Routes) -> list[RouteDef]:
    """The routes of every listener, each hook's once: of those, the one over TCP takes a part."""
    remote = routes.remote_writing()
    (hooks,) = [route for route in remote if route.path.startswith("/v1/hooks")]
    assert (hooks.method, hooks.path) == ("POST", f"/v1/hooks/slurm/{{hook:{'|'.join(CONTROLLER_HOOKS)}}}")
    others = [route for route in remote if route is not hooks]
    return [*routes.reading(), *routes.writing(), *routes.on_poke_socket(), *others]


async def test_what_is_written_over_tcp_is_what_a_token_is_for(api: Served) -> None:
    """Everything else is refused there, whatever is shown."""
    written = {(route.method, route.path) for route in api.api.routes.remote_writing()}
    elsewhere = [route for route in api.api.routes.writing() if (route.method, route.path) not in written]
    assert {route.path for route in elsewhere} >= {"/v1/events/job-started", "/v1/benchmarks/runs"}
    for route in elsewhere:
        path = route.path.replace("{id}", "1").replace("{hook}", "prolog")
        answer = await api.request(route.method, path, b"{}", tcp=True)
        assert (answer.status, "use the Unix socket" in answer.json()["message"]) == (403, True), route.path


async def test_the_description_is_the_routes(api: Served) -> None:
    """openapi.yaml has exactly the endpoints and methods there are, and is served as JSON."""
    described = yaml.safe_load((REPOSITORY / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
    assert (await api.request("GET", "/openapi.json", tcp=True)).json() == described
    routes = {(route.path, route.method.lower()) for route in all_routes(api.api.routes)}
    assert {(path, method) for path, item in described["paths"].items() for method in item} == routes
    assert described["paths"]["/v1/hooks/slurm/{hook}"]["post"]["parameters"][0]["schema"]["enum"] == list(HOOKS)
    for path, _ in routes:
        assert path == "/" or path.rpartition("/")[0] in INDEX


async def test_the_described_fields_are_the_accepted_ones() -> None:
    """Names and numeric limits in openapi.yaml equal those that are checked."""
    from msgspec import json

    from jobtrail.adapters.http.event_json import JobFinished, JobStarted

    schemas = yaml.safe_load((REPOSITORY / "docs" / "openapi.yaml").read_text(encoding="utf-8"))["components"][
        "schemas"
    ]
    for kind in (JobStarted, JobFinished):
        ours = json.schema(kind)["$defs"][kind.__name__]["properties"]
        theirs = schemas[kind.__name__]["properties"]
        assert set(ours) == set(theirs)
        for name, limits in theirs.items():
            choices = ours[name].get("anyOf", [ours[name]])
            for limit in ("minimum", "maximum", "maxItems"):
                if limit in limits:
                    assert [choice[limit] for choice in choices if limit in choice] == [limits[limit]], name


async def test_the_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    """Mode 0660 in a directory that is made, with the group asked for; gone afterwards."""
    path = tmp_path / "run" / "jobtrail" / "hooks.sock"
    async with served(tmp_path, socket=str(path), socket_group="daemon"):
        status = path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), path.group()) == (0o660, "daemon")
    assert list(path.parent.iterdir()) == []


async def test_a_left_over_socket_is_replaced(tmp_path: Path) -> None:
    """What a crash leaves behind does not keep the next start from listening."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "hooks.sock"))
    left.close()
    async with served(tmp_path) as api:
        assert (await api.hook()).status == 201


async def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    """A second daemon is refused by name and the first one goes on."""
    async with served(tmp_path) as api:
        with pytest.raises(ConfigError, match="another process answers"):
            async with served(tmp_path):
                pass
        assert (await api.hook()).status == 201


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"socket_group": "no-such-group"}, "http.socket_group"),
        ({"socket": "/proc/nowhere/hooks.sock"}, "http.socket"),
        ({"socket": "/tmp/" + "x" * 120}, "http.socket"),
        ({"socket": "/etc/passwd"}, "http.socket"),
        ({"host": "192.0.2.1"}, "http.host"),
        ({"host": "192.0.2.1", "insecure": True}, "http.port"),
    ],
)
async def test_an_address_that_cannot_be_taken_is_a_setting_error(
    tmp_path: Path, settings: dict[str, str | bool], where: str
) -> None:
    """The setting is named, and nothing is left behind."""
    with pytest.raises(ConfigError) as refused:
        async with served(tmp_path, **settings):
            pass
    assert refused.value.where == where
    assert list(tmp_path.iterdir()) == []


async def test_a_request_in_progress_is_finished_at_the_stop(tmp_path: Path) -> None:
    """The stop waits for the answer; idle connections are ended at once and new ones not taken."""
    running = Served(tmp_path)
    running.intake.gate = asyncio.Event()
    stop = asyncio.Event()
    listening: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()

    async def serve(api: HttpApi) -> None:
        async with api.serving() as addresses:
            listening.set_result(addresses)
            await stop.wait()

    server = asyncio.create_task(serve(running.api))
    running.addresses = await listening
    idle_reader, idle_writer = await running.tcp()
    hook = asyncio.create_task(running.raw(request_bytes("POST", "/v1/hooks/slurm/prolog", PROLOG, hook_headers())))
    await running.intake.entered.wait()
    stop.set()
    assert await idle_reader.read() == b""
    assert not server.done()
    running.intake.gate.set()
    answer = parse_answer(await hook)
    assert (answer.status, answer.headers["connection"]) == (201, "close")
    await server
    idle_writer.close()
    with pytest.raises(FileNotFoundError):
        await running.unix()
