"""Slurm's own commands, as users and administrators call them: submit, watch and account jobs."""

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.slurm import remains
from tests.slurm.daemons import PATIENCE_SECONDS, ClusterError, poll_until
from tests.slurm.machine import Machine
from tests.slurm.program import Program

DEFAULT_USER = "jt-alice"
FINAL_STATES = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
        "TIMEOUT",
    }
)  # fmt: skip
"""States in which a job stays (squeue(1), JOB STATE CODES); COMPLETING, while epilogs run, is not one of them."""

COMMAND_SECONDS = 180
DEFAULT_FIELDS = ("JobID", "JobIDRaw", "State", "ExitCode", "User", "Account", "NodeList", "TotalCPU", "Elapsed")


class SlurmCommands(ABC):
    """What can be done with a cluster once it runs. All methods raise ClusterError when a command of Slurm fails."""

    @property
    @abstractmethod
    def env(self) -> dict[str, str]:
        """An environment in which Slurm's commands talk to this cluster."""

    @property
    @abstractmethod
    def directory(self) -> Path:
        """The cluster's own directory."""

    @property
    @abstractmethod
    def machine(self) -> Machine:
        """Whose programs the cluster runs."""

    @property
    def jobs_directory(self) -> Path:
        """Working directory and output of the jobs; sticky and open to all, like /tmp."""
        return self.directory / "jobs"

    def run_tool(self, *argv: str, user: str | None = None, stdin: str = "") -> str:
        """Run a command with the cluster's environment as root or as `user`; return what it printed on stdout."""
        done = subprocess.run(
            self.machine.command(argv, user=user, directory=self.jobs_directory), env=self.env, input=stdin,
            capture_output=True, text=True, errors="replace", check=False, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            command = " ".join(argv)
            raise ClusterError(f"{command!r} ended with exit status {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def submit(self, script: str, *args: str, user: str = DEFAULT_USER) -> int:
        """Submit the shell text `script` with sbatch's `args` as the Linux user `user`; return the job id.

        Unless `args` say otherwise, the job writes to the file that `output` reads.
        """
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"
        printed = self.run_tool("sbatch", "--parsable", "--output=%j.out", *args, user=user, stdin=text)
        return int(printed.strip().partition(";")[0])

    def submit_array(self, script: str, indices: str, *args: str, user: str = DEFAULT_USER) -> int:
        """Submit a job array, `indices` as for sbatch --array; return its id, which one of its tasks bears too."""
        return self.submit(script, f"--array={indices}", *args, user=user)

    def submit_het(self, script: str, *components: Sequence[str], user: str = DEFAULT_USER) -> list[int]:
        """Submit a heterogeneous job, sbatch's arguments for each component; return its job ids, the leader's first."""
        args: list[str] = []
        for component in components:
            args += [":"] if args else []
            args += component
        leader = self.submit(script, *args, user=user)
        printed = self.run_tool("scontrol", "--oneliner", "show", "job", str(leader)).splitlines()
        return [int(parse_record(line)["JobId"]) for line in printed]

    def start_program(self, *argv: str, user: str = DEFAULT_USER) -> Program:
        """Start srun or salloc in the background, as a user at a terminal would; a context manager that ends it.

        Let what it runs begin with `echo job $SLURM_JOB_ID`, so that Program.job_id can tell it.
        """
        command = self.machine.command(argv, user=user, directory=self.jobs_directory)
        return Program(command, env=self.env, directory=self.jobs_directory)

    def array_tasks(self, array_job_id: int, count: int, *, timeout: float = PATIENCE_SECONDS) -> dict[int, int]:
        """Return the job ids by array index, once all `count` tasks have one (they get it when they start)."""

        def tasks() -> dict[int, int] | None:
            found = {}
            for line in self.run_tool("scontrol", "--oneliner", "show", "job", str(array_job_id)).splitlines():
                record = parse_record(line)
                if record.get("ArrayTaskId", "").isdecimal() and record["JobState"] != "PENDING":
                    found[int(record["ArrayTaskId"])] = int(record["JobId"])
            return found if len(found) == count else None

        return poll_until(tasks, seconds=timeout, what=f"{count} tasks of array {array_job_id} to start")

    def scontrol_show(self, job_id: int) -> dict[str, str]:
        """Return slurmctld's record of one job, as `scontrol show job` prints it (kept for MinJobAge after its end)."""
        # For a job array's id scontrol prints all its tasks, one of which bears that id itself.
        printed = self.run_tool("scontrol", "--oneliner", "show", "job", str(job_id)).splitlines()
        return next(record for record in map(parse_record, printed) if record["JobId"] == str(job_id))

    def state(self, job_id: int) -> str:
        """Return slurmctld's state of the job, such as PENDING, RUNNING, COMPLETING, COMPLETED."""
        return self.scontrol_show(job_id)["JobState"]

    def wait_state(self, job_id: int, states: Collection[str], *, timeout: float = PATIENCE_SECONDS) -> str:
        """Wait until the job is in one of `states` and return which; raise ClusterError after `timeout` seconds."""
        seen = "never seen"

        def reached() -> str | None:
            nonlocal seen
            record = self.scontrol_show(job_id)
            seen = f"{record['JobState']} ({record['Reason']})"
            return record["JobState"] if record["JobState"] in states else None

        try:
            return poll_until(reached, seconds=timeout, what=f"job {job_id} to be {'|'.join(sorted(states))}")
        except ClusterError as error:
            raise ClusterError(f"{error}; it is {seen}") from None

    def wait_running(self, job_id: int, *, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the job runs (its Prolog may still be at work, and its script not yet started)."""
        self.wait_state(job_id, {"RUNNING"}, timeout=timeout)

    def wait_script(self, job_id: int, *, timeout: float = PATIENCE_SECONDS) -> None:
        """Wait until the job's script runs on its node, which means that its prologs have succeeded."""
        poll_until(
            (self.jobs_directory / f"{job_id}.out").exists, seconds=timeout, what=f"the script of job {job_id} to run"
        )

    def wait_finished(self, job_id: int, *, timeout: float = PATIENCE_SECONDS) -> str:
        """Wait until the job and its epilogs have ended; return its final state."""
        try:
            return self.wait_state(job_id, FINAL_STATES, timeout=timeout)
        except ClusterError as error:
            if "Invalid job id" not in str(error):
                raise
            # Its MinJobAge was over before it was looked at again.
            return self.sacct(job_id)[-1]["State"].split()[0]

    def sacct(
        self,
        job_id: int,
        fields: Sequence[str] = DEFAULT_FIELDS,
        *,
        steps: bool = False,
        timeout: float = PATIENCE_SECONDS,
    ) -> list[dict[str, str]]:
        """Return the accounting rows of an ended job, one for each run of it, oldest first; with `steps` theirs too.

        Waits until slurmdbd has heard of the end, which can be after slurmctld says so.
        """

        def rows() -> list[dict[str, str]] | None:
            table = self.sacct_rows(job_id, ["End", *fields], steps=steps)
            if not table or any(row["End"] in {"Unknown", ""} for row in table):
                return None
            return [{field: row[field] for field in fields} for row in table]

        return poll_until(rows, seconds=timeout, what=f"slurmdbd to know the end of job {job_id}")

    def sacct_rows(
        self, job_id: int, fields: Sequence[str] = DEFAULT_FIELDS, *, steps: bool = False, duplicates: bool = True
    ) -> list[dict[str, str]]:
        """Return what slurmdbd knows of the job now, ended or not: one row for each run of it, oldest first.

        Without `duplicates` only the last run's, as sacct(1) does by itself.
        """
        printed = self.run_tool(
            "sacct", "--noheader", "--parsable2", "--delimiter=\x1f", f"--jobs={job_id}",
            f"--format=JobIDRaw,{','.join(fields)}", *([] if steps else ["--allocations"]),
            *(["--duplicates"] if duplicates else []),
        )  # fmt: skip
        # For a job array's id sacct, too, prints all tasks.
        table = [row for line in printed.splitlines() if (row := line.split("\x1f"))[0].split(".")[0] == str(job_id)]
        return [dict(zip(fields, row[1:], strict=True)) for row in table]

    def output(self, job_id: int) -> str:
        """Return what the job wrote to stdout and stderr."""
        return (self.jobs_directory / f"{job_id}.out").read_text(errors="replace")

    def cancel(self, job_id: int, *options: str, user: str | None = None) -> None:
        """Cancel or signal the job with scancel's `options`, as root unless told; an array's id means all its tasks."""
        self.run_tool("scancel", *options, str(job_id), user=user)

    def requeue(self, job_id: int) -> None:
        """End the run and let the job start anew, under the same id (scontrol requeue)."""
        self.run_tool("scontrol", "requeue", str(job_id))

    def requeue_hold(self, job_id: int) -> None:
        """End the run and keep the job from starting until it is released (scontrol requeuehold)."""
        self.run_tool("scontrol", "requeuehold", str(job_id))

    def hold(self, job_id: int) -> None:
        """Keep a pending job from starting."""
        self.run_tool("scontrol", "hold", str(job_id))

    def release(self, job_id: int) -> None:
        """Let a held job start."""
        self.run_tool("scontrol", "release", str(job_id))

    def suspend(self, job_id: int) -> None:
        """Stop the processes of a running job (SIGSTOP); it stays on its nodes."""
        self.run_tool("scontrol", "suspend", str(job_id))

    def resume(self, job_id: int) -> None:
        """Let a suspended job go on."""
        self.run_tool("scontrol", "resume", str(job_id))

    def start_now(self, job_id: int) -> None:
        """Let a requeued job start in 2 s; slurmctld puts that off by two minutes (BeginTime).

        Not sooner: slurmd tells runs of one job apart by whole seconds, and would take the new one for the killed one.
        """
        self.run_tool("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")

    def set_node(self, node: str, state: str) -> None:
        """Tell slurmctld that a node is `state`: DRAIN, RESUME, or DOWN, which ends its jobs.

        A node that is DOWN though its slurmd is well comes back by itself, here (slurm.conf(5), ReturnToService=2).
        """
        self.run_tool("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")

    def token(self, user: str, *, seconds: int = 3600) -> str:
        """Return a token with which slurmrestd takes its bearer for the Linux user `user` (scontrol(1), token)."""
        printed = self.run_tool("scontrol", "token", f"username={user}", f"lifespan={seconds}")
        return printed.strip().partition("=")[2]

    def job_cgroups(self, job_id: int) -> list[Path]:
        """Return the job's cgroups that exist now: one for each controller of cgroup v1 and node, one a node in v2."""
        found: set[Path] = set()
        for top in remains.cgroups_of(self.directory):
            found |= {*top.glob(f"uid_*/job_{job_id}"), *top.glob(f"job_{job_id}")}
        return sorted(found)

    def node_state(self, node: str) -> str:
        """Return sinfo's short state of a node, such as idle, mix, drain; with a * while it does not respond."""
        return self.run_tool("sinfo", "--noheader", f"--nodes={node}", "--format=%t").strip()


def parse_record(line: str) -> dict[str, str]:
    """Parse one line of `scontrol --oneliner show`.

    It quotes nothing, so a value holding ` Name=` is cut there: do not use it to read what a user may name freely.
    """
    pairs = re.split(r" (?=[A-Za-z][A-Za-z/:_]*=)", line.strip())
    return dict(pair.partition("=")[::2] for pair in pairs)
