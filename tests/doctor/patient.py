"""A machine as the doctor sees it: a settings file, Slurm's files, and the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.daemon_process import REPOSITORY

HOOKS = REPOSITORY / "hooks" / "slurm"
SLURM_CONF = """\
ClusterName=lab
SlurmUser=slurm
PrologFlags=Contain,Alloc
PrologEpilogTimeout=30
ProctrackType=proctrack/cgroup
TaskPlugin=task/affinity,task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
"""
CHECK_SECONDS = 60.0  # for one check, unless a test says less: nothing is measured by it
RUN_SECONDS = 240.0


class Told(msgspec.Struct, frozen=True):
    """What the doctor said."""

    code: int
    findings: list[dict[str, str]]
    as_root: bool
    printed: str

    def levels(self, check: str) -> list[str]:
        """Levels of one check's findings."""
        return [one["level"] for one in self.findings if one["check"] == check]

    def only(self) -> dict[str, str]:
        """The one finding there is."""
        assert len(self.findings) == 1, self.findings
        return self.findings[0]

    def worst(self, text: str) -> str:
        """The level of the finding that says `text`, which must name a way out where something is wrong."""
        found = [one for one in self.findings if text in one["found"]]
        assert len(found) == 1, (text, self.findings)
        assert found[0]["remedy"] or found[0]["level"] in {"ok", "not checked"}, found
        return found[0]["level"]


class Patient:
    """Settings and Slurm's files in a directory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.settings_file = directory / "jobtrail.yaml"
        self.slurm_conf = directory / "slurm" / "slurm.conf"
        self.hooks = directory / "slurm" / "jobtrail"
        self.hook_conf = directory / "hook.conf"
        self.spool = directory / "spool"
        self.socket = directory / "hooks.sock"
        self.hooks.mkdir(parents=True)
        self.settings: dict[str, Any] = {
            "http": {"socket": str(self.socket), "port": 0},
            "spool": {"directory": str(self.spool), "max_bytes": 64 << 20},
        }
        self.set(**settings)
        for name in ("prolog.sh", "epilog.sh"):
            self.install_hook(name)
        self.write_slurm_conf()
        self.hook_conf.write_text(f"JOBTRAIL_SOCKET={self.socket}\nJOBTRAIL_SPOOL={self.spool}\n")

    def set(self, **settings: Any) -> None:
        """Change settings."""
        for section, values in settings.items():
            old = self.settings.get(section, {})
            self.settings[section] = {**old, **values} if isinstance(values, dict) else values
        self.settings_file.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        self.settings_file.chmod(0o600)

    def install_hook(self, name: str) -> Path:
        """A hook as the installation puts it."""
        path = self.hooks / name
        path.write_bytes((HOOKS / name).read_bytes())
        path.chmod(0o755)
        return path

    def write_slurm_conf(self, *, without: str = "", **lines: str) -> None:
        """slurm.conf with what is needed, but for the key `without`, and with `lines` instead of others."""
        hooks = {"Prolog": str(self.hooks / "prolog.sh"), "Epilog": str(self.hooks / "epilog.sh")}
        told = dict(line.split("=", 1) for line in SLURM_CONF.splitlines()) | hooks | lines
        self.slurm_conf.write_text("".join(f"{key}={value}\n" for key, value in told.items() if key != without))

    def environment(self, **more: str) -> dict[str, str]:
        """What the doctor is run with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBTRAIL_", "SLURM_"))}
        for name in ("DATABASE_URL", "HOST", "PORT", "SCHEDULER_BACKEND"):
            kept.pop(name, None)
        return {
            **kept, "PYTHONPATH": str(REPOSITORY / "daemon"), "JOBTRAIL_CONFIG": str(self.settings_file),
            "SLURM_CONF": str(self.slurm_conf), "JOBTRAIL_HOOK_CONF": str(self.hook_conf), **more,
        }  # fmt: skip

    def doctor(self, only: str = "", *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> Told:
        """Run the command. It is at its end within RUN_SECONDS."""
        chosen = ["--deadline", str(CHECK_SECONDS), *(["--only", only] if only else [])]
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "jobtrail", "doctor", "--json", *chosen, *arguments],
            env=self.environment(**environment), capture_output=True, text=True, timeout=RUN_SECONDS,
            check=False, cwd="/",
        )  # fmt: skip
        assert done.stdout, done.stderr
        told = json.loads(done.stdout)
        return Told(code=done.returncode, findings=told["findings"], as_root=told["as_root"], printed=done.stdout)
