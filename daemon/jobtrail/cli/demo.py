"""`jobtrail demo`: the whole of Jobtrail on one machine, with three short jobs to look at."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from jobtrail import config as configuration
from jobtrail.cli import exit_codes
from jobtrail.cli.output import console
from jobtrail.cli.settings import settings
from jobtrail.domain.errors import ConfigError, JobtrailError

LONGEST_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes (unix(7)); asyncio and PostgreSQL append to it
SHOW_SECONDS = 20.0

EXAMPLE_QUERY = (
    "SELECT job_id, job_name, state, exit_code, cpu_seconds, memory_peak_bytes, coverage_ratio"
    " FROM jobs ORDER BY start_time DESC NULLS LAST LIMIT 5"
)
PYTHON = sys.executable
WORKLOADS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "cpu-bound",
        "4 seconds of arithmetic",
        (
            PYTHON,
            "-c",
            "import time\nend = time.process_time() + 4\nwhile time.process_time() < end: sum(range(10**5))",
        ),
    ),
    (
        "memory-hungry",
        "300 MiB for 3 seconds",
        (PYTHON, "-c", "import time\nheld = bytearray(b'x') * (300 << 20)\ntime.sleep(3)"),
    ),
    ("failing", "exits with code 3", ("sh", "-c", "sleep 1; exit 3")),
)


def run_demo(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(help="where the database and the spool are kept")] = Path(".jobtrail"),
    once: Annotated[bool, typer.Option("--once", help="leave after the jobs have been shown")] = False,
) -> None:
    """Try it: a database, the daemon and three measured jobs.

    Starts an embedded PostgreSQL and the daemon, measures three short jobs, shows them, and serves until Ctrl-C. What
    is measured stays in the directory; a second start keeps it. SEED_DEMO=true adds 100 synthetic jobs in a cluster
    named `demo`.
    """
    from jobtrail.adapters import embedded_postgres

    out = console()
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with _alone_in(directory), embedded_postgres.running(directory / "postgres") as url:
            config = _write_settings(context, directory, url)
            _migrate(url, out)
            asyncio.run(_demo(config, directory, out, once=once))
    except ConfigError as error:
        hint = "; try another port: PORT=8081 make run" if error.where == "http.port" else ""
        typer.echo(f"jobtrail demo: {error}{hint}", err=True)
        raise typer.Exit(exit_codes.USAGE) from error
    except JobtrailError as error:
        typer.echo(f"jobtrail demo: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from error
    out.print("stopped; the data stays in", str(directory), markup=False)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory, so that a second demo in it does not stop the first one's database. Raises ConfigError."""
    descriptor = os.open(directory / "demo.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(
            str(directory), "another `jobtrail demo` (make run) is using it; stop that one first"
        ) from error
    finally:
        os.close(descriptor)


def _write_settings(context: typer.Context, directory: Path, url: str) -> configuration.Config:
    """Write the demo's settings file, so that every other command finds this daemon, and load it."""
    tree: dict[str, Any] = {
        "scheduler": "local",
        "spool": {"directory": str(directory / "spool")},
        "http": {"socket": str(_socket_path(directory))},
        "database": {"url": url},
        "sampling": {"interval_seconds": 1.0},
        "logging": {"level": "warning"},
    }
    path = directory / "jobtrail.yaml"
    text = yaml.safe_dump(tree, sort_keys=False)
    path.write_text(f"# Written by `jobtrail demo` at each start.\n{text}", encoding="utf-8")
    path.chmod(0o600)  # it names the database
    os.environ["JOBTRAIL_CONFIG"] = str(path)
    os.environ.pop("DATABASE_URL", None)  # the demo never writes into somebody's real database
    context.obj = path
    return settings(context)


def _socket_path(directory: Path) -> Path:
    path = directory / "hooks.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"jobtrail-{os.getuid()}-{digest}" / "hooks.sock"


def _migrate(url: str, out: Console) -> None:
    from jobtrail.adapters.postgres import migrate

    with out.status("preparing the database"):
        migrate.upgrade(url)


async def _demo(config: configuration.Config, directory: Path, out: Console, *, once: bool) -> None:
    """Serve, show the jobs, and stop in order: the commands first, so that their ends are still recorded."""
    from jobtrail import app
    from jobtrail.adapters.log_lines import configure_logging
    from jobtrail.core.waiting import wait_for_any

    configure_logging(config.logging.level, config.logging.format)
    interrupted, stop, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    daemon = asyncio.create_task(app.serve(config, stop, ready=ready))
    try:
        await wait_for_any(ready.wait(), asyncio.shield(daemon))
        if not daemon.done():
            await _show(config, directory, out, interrupted)
        if not once and not daemon.done() and not interrupted.is_set():
            out.print("\nserving until Ctrl-C")
            await wait_for_any(interrupted.wait(), asyncio.shield(daemon))
    finally:
        stop.set()
        await daemon


async def _show(config: configuration.Config, directory: Path, out: Console, interrupted: asyncio.Event) -> None:
    """Run the workloads, wait until the database has them, and say what to look at."""
    from jobtrail.cli.demo_seed import seed

    if config.seed_demo:
        with out.status("adding 100 synthetic jobs in cluster `demo`"):
            added = await seed(config, directory)
        out.print(f"cluster `demo`: {added} synthetic jobs added" if added else "cluster `demo`: already there")
    for name, does, _ in WORKLOADS:
        out.print(f"running {name}: {does}")
    job_ids = await asyncio.gather(*(_run_workload(name, command, interrupted) for name, _, command in WORKLOADS))
    if interrupted.is_set():
        return
    rows = await _recorded(config, [job_id for job_id in job_ids if job_id], interrupted)
    _print_results(out, rows)
    _print_pointers(out, config, rows)


async def _run_workload(name: str, command: tuple[str, ...], interrupted: asyncio.Event) -> str | None:
    """One workload through `jobtrail exec`; its job id. Ended early, and recorded so, when the demo is interrupted."""
    import msgspec

    from jobtrail.core.waiting import wait_for_any

    process = await asyncio.create_subprocess_exec(
        *(PYTHON, "-m", "jobtrail", "exec", "--json", "--name", name, "--", *command),
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which passes it on in order
    )
    reading = asyncio.create_task(process.communicate())
    await wait_for_any(asyncio.shield(reading), interrupted.wait())
    if not reading.done():
        process.terminate()
    _, text = await reading
    lines = [line for line in text.splitlines() if line.startswith(b"{")]
    return str(msgspec.json.decode(lines[-1])["job_id"]) if lines else None


async def _recorded(config: configuration.Config, job_ids: list[str], stop: asyncio.Event) -> list[dict[str, Any]]:
    """The jobs' rows once the database has their final usage, or what it has after SHOW_SECONDS."""
    from jobtrail.adapters.postgres import PostgresReader, close_pool, open_pool
    from jobtrail.core.waiting import wait_for_any

    pool = await open_pool(config.database.url, size=1, timeout_seconds=config.database.timeout_seconds)
    try:
        reader = PostgresReader(pool, timeout_seconds=config.database.timeout_seconds)
        deadline = asyncio.get_running_loop().time() + SHOW_SECONDS
        rows: list[dict[str, Any]] = []
        while not stop.is_set():
            found = (await reader.list_jobs(limit=200)).jobs
            rows = [row for row in found if row["job_id"] in job_ids]
            settled = [row for row in rows if row["end_time"] is not None and row["cpu_seconds"] is not None]
            if len(settled) == len(job_ids) or asyncio.get_running_loop().time() > deadline:
                break
            await wait_for_any(stop.wait(), timeout_seconds=0.2)
        return rows
    finally:
        await close_pool(pool, timeout_seconds=2.0)


def _print_results(out: Console, rows: list[dict[str, Any]]) -> None:
    from jobtrail.cli.jobs import print_jobs

    out.print("\n[bold]what was measured[/]")
    print_jobs(out, sorted(rows, key=lambda row: row["start_time"]))


def _psql() -> str:
    """How to call psql here: by name where it is installed, else the one that came with the embedded PostgreSQL."""
    from jobtrail.adapters import embedded_postgres

    return "psql" if shutil.which("psql") else str(embedded_postgres.psql_path() or "psql")


def _print_pointers(out: Console, config: configuration.Config, rows: list[dict[str, Any]]) -> None:
    base = f"http://{config.http.host}:{config.http.port}"
    command = Path(sys.argv[0]).name if Path(sys.argv[0]).name == "jobtrail" else "python -m jobtrail"
    example = rows[0]["job_id"] if rows else "JOB"
    lines = (
        ("metrics", f"{base}/metrics"),
        ("health", f"{base}/readyz"),
        ("one job", f"{command} jobs show {example}"),
        ("its trail", f"{command} audit log {example}"),
        ("your own", f"{command} exec -- sleep 2"),
        ("settings", os.environ["JOBTRAIL_CONFIG"]),
        ("SQL", f"{_psql()} '{config.database.url}' -c \"{EXAMPLE_QUERY}\""),
    )
    out.print("\n[bold]what to look at[/]")
    for name, text in lines:
        out.print(f"  {name:<10}{text}", markup=False)
