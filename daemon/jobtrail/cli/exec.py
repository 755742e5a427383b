"""`jobtrail exec -- CMD…`: run a command as an observed local job."""

from __future__ import annotations

import asyncio
import os
import pwd
import resource
import signal
import sys
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from jobtrail.adapters.own_cgroup import NoCgroup, OwnCgroup, make
from jobtrail.cli import exit_codes
from jobtrail.cli.output import duration, error_console, size
from jobtrail.cli.settings import readable_settings
from jobtrail.client_calls import ApiError, Caller, Unreachable
from jobtrail.config import Config

END_RETRY_SECONDS = 5.0
ANSWER_SECONDS = 5.0
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the command used, as printed at the end."""

    job_id: str
    exit_code: int | None
    exit_signal: int | None
    wall_seconds: float
    cpu_seconds: float
    memory_peak_bytes: int | None
    observed_by: str
    recorded: bool


class LocalJob:
    """One observed command: child process, its cgroup if it has one, and its two events."""

    def __init__(self, command: list[str], config: Config, *, name: str | None, socket_path: str) -> None:
        self.command = command
        self.config = config
        self.name = name or os.path.basename(command[0])  # noqa: PTH119 - a command word, not a path of ours
        self.socket_path = socket_path
        # Microseconds: two commands started together must not get one id, and no daemon need be there to give them out.
        self.job_id = f"local-{time.time_ns() // 1_000}"
        self.cgroup = make(Path(config.sampling.cgroup_root), self.job_id)
        self.problem: str | None = None
        self.warning: str | None = None
        self.pid = 0
        self._began = 0.0

    @property
    def observed_by(self) -> str:
        """How the command's usage is read."""
        if isinstance(self.cgroup, NoCgroup):
            return f"process tree from /proc (no own cgroup: {self.cgroup.reason})"
        return f"own cgroup {self.cgroup.path}"

    def run(self) -> Usage:
        """Start, announce, wait, announce the end. Raises OSError when the process cannot be made."""
        gate, release = os.pipe()
        self._began = time.monotonic()
        identity = self._identity()
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(identity)
            _become(self.command, self.cgroup, gate, release)
        os.close(gate)
        for number in FORWARDED_SIGNALS:
            signal.signal(number, lambda received, _frame: os.kill(self.pid, received))
        # The terminal sends ^C to the whole foreground group: the command decides, we only report.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._announce("job-started", self._started_body())
        os.close(release)
        # Leave the dead child unreaped until its end is announced: its counters are in /proc until then.
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if status is None:
            raise AssertionError("waitid without WNOHANG returns a status")
        wall_seconds = time.monotonic() - self._began
        self._announce("job-finished", self._finished_body(status))
        return self._usage(status, wall_seconds)

    def _identity(self) -> dict[str, str]:
        """Tells the command which job it is, where a daemon will know that job."""
        if not Path(self.socket_path).is_socket():
            return {}
        return {"JOBTRAIL_JOB_ID": self.job_id, "JOBTRAIL_JOB_CLUSTER": self.config.local_cluster}

    def _started_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "job_id": self.job_id,
            "user": _user_name(),
            "job_name": self.name,
            "node": self.config.node_name,
            "cluster": self.config.local_cluster,
            "node_list": [self.config.node_name],
            "cpu_allocation": len(os.sched_getaffinity(0)),
            "timestamp": datetime.now(UTC).isoformat(),
            "source": "exec",
        }
        if isinstance(self.cgroup, OwnCgroup):
            return {**body, "cgroup_path": self.cgroup.path}
        return {**body, "root_pid": self.pid, "root_pid_start_ticks": _start_ticks(self.pid)}

    def _finished_body(self, status: os.waitid_result) -> dict[str, Any]:
        ended_by_signal = status.si_code != os.CLD_EXITED
        code = {"signal": status.si_status} if ended_by_signal else {"exit_code": status.si_status}
        final_state = "completed" if code == {"exit_code": 0} else "failed"
        return {
            "job_id": self.job_id,
            "node": self.config.node_name,
            "cluster": self.config.local_cluster,
            "timestamp": datetime.now(UTC).isoformat(),
            "final_state": final_state,
            "source": "exec",
            **code,
        }

    def _announce(self, what: str, body: dict[str, Any]) -> None:
        """Tell the daemon; an end is tried again for a while, for a daemon may be just restarting."""
        event_id = str(uuid.uuid4())
        until = time.monotonic() + (END_RETRY_SECONDS if what == "job-finished" and self.problem is None else 0)
        while True:
            try:
                asyncio.run(self._post(what, body, event_id))
            except Unreachable as error:
                if time.monotonic() < until:
                    time.sleep(0.2)
                    continue
                self.problem = self.problem or str(error)
            except ApiError as error:
                self.problem = self.problem or error.message
            return

    async def _post(self, what: str, body: dict[str, Any], event_id: str) -> None:
        async with Caller(socket=self.socket_path, timeout_seconds=ANSWER_SECONDS) as daemon:
            headers = {"Jobtrail-Event-Id": event_id}
            await daemon.ask("POST", f"/v1/events/{what}", dict, body=msgspec.json.encode(body), headers=headers)

    def _usage(self, status: os.waitid_result, wall_seconds: float) -> Usage:
        os.waitpid(self.pid, 0)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = spent.ru_utime + spent.ru_stime
        peak: int | None = None  # ru_maxrss would tell our own memory before the exec, which the kernel carries over
        if isinstance(self.cgroup, OwnCgroup):
            from jobtrail.cli.own_usage import read_cgroup

            cpu_seconds, peak = read_cgroup(self.config, self.cgroup, cpu_seconds)
            if not self.cgroup.remove():
                self.warning = f"processes left behind keep the cgroup {self.cgroup.path} busy"
        exited = status.si_code == os.CLD_EXITED
        return Usage(
            job_id=self.job_id,
            exit_code=status.si_status if exited else None,
            exit_signal=None if exited else status.si_status,
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
            memory_peak_bytes=peak,
            observed_by=self.observed_by,
            recorded=self.problem is None,
        )


def _become(command: list[str], cgroup: OwnCgroup | NoCgroup, gate: int, release: int) -> None:
    """In the child: enter the cgroup, wait until the start is announced, become the command. Never returns."""
    try:
        os.close(release)
        if isinstance(cgroup, OwnCgroup):
            cgroup.enter()
        os.read(gate, 1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - running the user's command without a shell is the purpose
    except FileNotFoundError:
        os.write(2, f"jobtrail exec: {command[0]}: command not found\n".encode())
        os._exit(exit_codes.COMMAND_NOT_FOUND)
    except OSError as error:
        os.write(2, f"jobtrail exec: {command[0]}: {error.strerror}\n".encode())
        os._exit(exit_codes.NOT_EXECUTABLE)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; the command name before it may hold spaces and parentheses (proc(5))."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def _print(usage: Usage, job: LocalJob, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(msgspec.json.encode(usage).decode() + "\n")
        return
    console = error_console()
    ended = f"exit code {usage.exit_code}" if usage.exit_signal is None else f"killed by signal {usage.exit_signal}"
    peak = "" if usage.memory_peak_bytes is None else f" · {size(usage.memory_peak_bytes)} peak memory"
    spent = f"{duration(usage.wall_seconds)} wall · {duration(usage.cpu_seconds)} CPU{peak}"
    console.print(f"[bold]{usage.job_id}[/]: {ended} · {spent}")
    console.print(f"observed through {usage.observed_by}", style="dim", markup=False)
    if job.warning is not None:
        console.print(job.warning, style="yellow", markup=False)
    if job.problem is not None:
        console.print(f"not recorded: {job.problem}{_remedy(job.socket_path)}", style="yellow", markup=False)


def _remedy(socket_path: str) -> str:
    """What lets this user connect, where that is what was missing."""
    if not Path(socket_path).is_socket() or os.access(socket_path, os.W_OK):
        return ""
    return "; an administrator lets you by naming a group of yours in http.socket_group"


def run_command(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD [ARG…]", help="the command and its arguments")],
    name: Annotated[str | None, typer.Option(help="job name; default: the command's own")] = None,
    require_daemon: Annotated[
        bool, typer.Option("--require-daemon", help="refuse to run when no daemon would record it")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print nothing at the end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the usage as JSON, on standard error")] = False,
) -> None:
    """Run CMD as an observed local job, and print what it used.

    Without a daemon the command runs all the same and its usage is printed but not recorded.
    """
    config = readable_settings(context)
    socket_path = os.environ.get("JOBTRAIL_SOCKET") or config.http.socket
    if require_daemon and not Path(socket_path).is_socket():
        error_console().print(
            f"no daemon listens on {socket_path}; start one with `jobtrail serve`, or leave --require-daemon out",
            style="red",
            markup=False,
        )
        raise typer.Exit(exit_codes.UNREACHABLE)
    job = LocalJob(command, config, name=name, socket_path=socket_path)
    try:
        usage = job.run()
    except OSError as error:
        error_console().print(f"jobtrail exec: cannot start {command[0]}: {error}", style="red", markup=False)
        raise typer.Exit(exit_codes.EXEC_FAILED) from error
    if not quiet:
        with suppress(OSError):  # an unwritable standard error must not change the command's exit code
            _print(usage, job, as_json=as_json)
    code = usage.exit_code if usage.exit_signal is None else exit_codes.SIGNALLED + usage.exit_signal
    raise typer.Exit(code if code is not None else exit_codes.EXEC_FAILED)
