"""`jobtrail jobs create|amend|withdraw`: what people say of jobs, through a daemon."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import typer

from jobtrail.cli import exit_codes
from jobtrail.cli.daemon_client import first_answer
from jobtrail.cli.job_argument import JobId
from jobtrail.cli.output import console, error_console, print_json
from jobtrail.cli.times import ALLOWED
from jobtrail.cli.times import moment as parse_moment
from jobtrail.cli.whom import asks_daemon, whom
from jobtrail.client import ApiError, Author, Client, Unreachable
from jobtrail.client_rows import Written
from jobtrail.domain.states import State

SOURCE = "cli"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
INVALID, MISSING = 400, 404
FIELDS = (
    "user_name", "account", "partition", "qos", "job_name", "comment", "work_dir", "nodes", "cpus_allocated",
    "gpus_allocated", "memory_limit_bytes", "time_limit_seconds", "state", "exit_code", "exit_signal", "submit_time",
    "start_time", "end_time",
)  # fmt: skip

TIMES = ("submit_time", "start_time", "end_time")

Text = str | None
Number = int | None
User = Annotated[Text, typer.Option("--user", help="whose job it is; root's and Slurm's user's choice alone")]
Account = Annotated[Text, typer.Option(help="account")]
Partition = Annotated[Text, typer.Option(help="partition, queue or place")]
Qos = Annotated[Text, typer.Option(help="quality of service")]
Name = Annotated[Text, typer.Option("--name", help="the job's name")]
Comment = Annotated[Text, typer.Option(help="remark")]
WorkDir = Annotated[Text, typer.Option(help="working directory")]
Nodes = Annotated[Text, typer.Option(help="nodes, as n[1-4],gpu7")]
Cpus = Annotated[Number, typer.Option("--cpus", min=0, help="CPUs allocated, all nodes together")]
Gpus = Annotated[Number, typer.Option("--gpus", min=0, help="GPUs allocated, all nodes together")]
Memory = Annotated[Text, typer.Option("--memory-limit", help="bytes it may use on a node: 512M, 16G, or a number")]
TimeLimit = Annotated[Number, typer.Option("--time-limit", min=0, help="seconds it may run")]
JobState = Annotated[
    State | None,
    typer.Option("--state", metavar="STATE", help=f"how it stands: {', '.join(State)}; left out, the times say it"),
]
ExitCode = Annotated[Number, typer.Option(min=0, max=255, help="exit code of a job that is over")]
ExitSignal = Annotated[Number, typer.Option(min=1, max=64, help="the signal that ended it")]
Submitted = Annotated[Text, typer.Option("--submit-time", help=f"when it was submitted: {ALLOWED}")]
Started = Annotated[Text, typer.Option("--start-time", help="when it started; same forms")]
Ended = Annotated[Text, typer.Option("--end-time", help="when it ended; same forms")]
Cluster = Annotated[Text, typer.Option(help="cluster of the job; default: the daemon's")]
ChangedBy = Annotated[Text, typer.Option("--changed-by", help="who makes the change; default: your login name")]
Correlation = Annotated[Text, typer.Option("--correlation-id", help="a UUID kept with the change, to find it by")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


@asks_daemon
def create(
    context: typer.Context,
    job_id: Annotated[Text, typer.Option("--id", help="manual-NAME; default: one is made")] = None,
    user: User = None,
    account: Account = None,
    partition: Partition = None,
    qos: Qos = None,
    name: Name = None,
    comment: Comment = None,
    work_dir: WorkDir = None,
    nodes: Nodes = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory_limit: Memory = None,
    time_limit: TimeLimit = None,
    state: JobState = None,
    exit_code: ExitCode = None,
    exit_signal: ExitSignal = None,
    submit_time: Submitted = None,
    start_time: Started = None,
    end_time: Ended = None,
    cluster: Cluster = None,
    changed_by: ChangedBy = None,
    correlation_id: Correlation = None,
    as_json: Json = False,
) -> None:
    """Keep a job by hand that no hook tells of, and print its id."""
    fields = _said(locals())
    fields |= {field: said for field, said in (("job_id", job_id), ("cluster_name", cluster)) if said is not None}
    author = _author(changed_by, correlation_id)
    written = _send(context, lambda client: client.create_job(author, **fields))
    _print(written, written.job_id, as_json=as_json)


@asks_daemon
def amend(
    context: typer.Context,
    job_id: JobId,
    run: Annotated[Number, typer.Option(min=1, help="which run of a requeued job; default: the newest")] = None,
    user: User = None,
    account: Account = None,
    partition: Partition = None,
    qos: Qos = None,
    name: Name = None,
    comment: Comment = None,
    work_dir: WorkDir = None,
    nodes: Nodes = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory_limit: Memory = None,
    time_limit: TimeLimit = None,
    state: JobState = None,
    exit_code: ExitCode = None,
    exit_signal: ExitSignal = None,
    submit_time: Submitted = None,
    start_time: Started = None,
    end_time: Ended = None,
    clear: Annotated[list[str] | None, typer.Option(help="take back what was said of this column; repeatable")] = None,
    cluster: Cluster = None,
    changed_by: ChangedBy = None,
    correlation_id: Correlation = None,
    as_json: Json = False,
) -> None:
    """Change what is said of a manual job.

    Of any other job, its account and comment can be changed.
    """
    fields = _said(locals())
    for field in clear or []:
        if field not in FIELDS:
            raise typer.BadParameter(f"{field!r} is none of {', '.join(FIELDS)}", param_hint="--clear")
        if field in fields:
            raise typer.BadParameter(f"{field} is both set and cleared", param_hint="--clear")
        fields[field] = None
    if not fields:
        raise typer.BadParameter("name at least one thing to change; `jobtrail jobs amend --help` lists them")
    author = _author(changed_by, correlation_id)
    written = _send(context, lambda client: client.amend_job(job_id, author, run=run, cluster=cluster, **fields))
    _print(written, f"{written.job_id} amended", as_json=as_json)


@asks_daemon
def withdraw(
    context: typer.Context,
    job_id: JobId,
    cluster: Cluster = None,
    changed_by: ChangedBy = None,
    correlation_id: Correlation = None,
    as_json: Json = False,
) -> None:
    """Take a manual job back for good.

    It is counted nowhere any more. Its trail stays.
    """
    author = _author(changed_by, correlation_id)
    written = _send(context, lambda client: client.withdraw_job(job_id, author, cluster=cluster))
    _print(
        written, f"{written.job_id} withdrawn; `jobtrail audit log {written.job_id}` tells its trail", as_json=as_json
    )


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """What the options say, by column."""
    by_column = {
        "user_name": options["user"],
        "job_name": options["name"],
        "cpus_allocated": options["cpus"],
        "gpus_allocated": options["gpus"],
        "memory_limit_bytes": _bytes(options["memory_limit"]),
        "time_limit_seconds": options["time_limit"],
        **{field: parse_moment(options[field], f"--{field.replace('_', '-')}") for field in TIMES},
    }
    for field in FIELDS:
        by_column.setdefault(field, options.get(field))
    return {field: by_column[field] for field in FIELDS if by_column[field] is not None}


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    form = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text, re.ASCII)
    if form is None:
        raise typer.BadParameter(f"{text!r} is no size such as 512M, 16G or 1048576", param_hint="--memory-limit")
    return int(form[1]) * UNITS[form[2]]


def _author(changed_by: str | None, correlation_id: str | None) -> Author:
    """Who says it: whoever used sudo, else the login name. What the daemon knows of the sender stands beside it."""
    name = changed_by or os.environ.get("SUDO_USER") or _login_name()
    return Author(changed_by=name, source=SOURCE, correlation_id=correlation_id, event_id=str(uuid.uuid4()))


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid:{os.getuid()}"


def _send(context: typer.Context, write: Callable[[Client], Awaitable[Written]]) -> Written:
    """What the daemon answers; its refusals end the command with their exit code."""
    to = whom(context, writes=True)
    try:
        return asyncio.run(first_answer(to.places, Client, write))
    except Unreachable as error:
        _fail(str(error))
        raise typer.Exit(exit_codes.UNREACHABLE) from error
    except ApiError as error:
        _fail(to.words(error))
        codes = {INVALID: exit_codes.USAGE, MISSING: exit_codes.NOT_FOUND}
        unavailable = error.code == "unavailable"
        code = exit_codes.UNREACHABLE if unavailable else codes.get(error.status, exit_codes.FAILED)
        raise typer.Exit(code) from error


def _print(written: Written, line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(written))
        return
    console().print(line, markup=False, highlight=False)
    if not written.stored:
        error_console().print(
            "jobtrail: on record; the database does not have it yet, so that lists show it later", markup=False
        )


def _fail(message: str) -> None:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
