"""A directory with a socket name and a spool name, and a hook bound to them, under each shell."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.hooks.hook_process import HOOKS, Environment, HookRun, run_hook
from tests.requirements import require_root, require_tool, unmet

WHY_SHELL = "the hooks promise to work under it"


@dataclass(frozen=True)
class Site:
    """Where a hook under test posts and spools, and how it is started."""

    root: Path
    shell: list[str]
    prefix: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.root / "s"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    def settings(self, **more: str | bytes) -> Environment:
        return {
            "JOBTRAIL_SOCKET": str(self.socket),
            "JOBTRAIL_SPOOL": str(self.spool),
            "JOBTRAIL_HOOK_CONF": str(self.root / "hook.conf"),
            "SLURM_JOB_ID": "4711",
            **more,
        }

    def run(self, hook: str = "prolog", **more: str | bytes) -> HookRun:
        return self.run_with(self.settings(**more), hook)

    def run_with(
        self,
        environment: Environment,
        hook: str = "prolog",
        *,
        during: Callable[[int], None] = lambda _: None,
        then: Callable[[], None] = lambda: None,
    ) -> HookRun:
        argv = [*self.prefix, *self.shell, str(HOOKS / f"{hook}.sh")]
        return run_hook(argv, environment, during=during, then=then)


@pytest.fixture(autouse=True)
def _before_all_others() -> Iterator[None]:
    """Let hooks, and what answers them, have a processor at once, where the kernel lets this process say so.

    A hook gives up after tenths of a second what it may have to, also where its machine has no time for it. What it is
    to do is seen only if it has that time (sched(7): SCHED_RR comes before all ordinary processes, and is inherited).
    """
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    yield
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(params=["dash", "bash", "busybox"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    path = require_tool(request.param, WHY_SHELL)
    return [path, "sh"] if request.param == "busybox" else [path]


@pytest.fixture
def site(tmp_path: Path, shell: list[str]) -> Site:
    """The hook under each of the three shells."""
    (tmp_path / "spool" / "incoming").mkdir(parents=True)
    return Site(tmp_path, shell)


@pytest.fixture
def dash_site(tmp_path: Path) -> Site:
    """The hook under dash only, for what no shell can change."""
    (tmp_path / "spool" / "incoming").mkdir(parents=True)
    return Site(tmp_path, [require_tool("dash", WHY_SHELL)])


Replace: TypeAlias = Callable[[dict[str, Path]], tuple[str, ...]]


@pytest.fixture
def replaced() -> Replace:
    """Make a command prefix under which other files lie over programs of the system, for that command alone.

    The hook sets its own PATH, so a program can be taken away or replaced only where it lies: with a bind mount in a
    private mount namespace (mount_namespaces(7)).
    """
    require_root("only root can mount")
    unshare = require_tool("unshare", "private mounts replace a program for one command")
    tried = subprocess.run([unshare, "--mount", "true"], check=False)
    if tried.returncode != 0:
        unmet("this machine lets root make no mount namespace")

    def prefix(files: dict[str, Path]) -> tuple[str, ...]:
        mounts = [word for name, file in files.items() for word in (str(file), require_tool(name, "it is replaced"))]
        script = 'n=$1; shift; while [ "$n" -gt 0 ]; do mount --bind "$1" "$2" || exit 99; shift 2; n=$((n-1)); done'
        # An empty PATH would be handed on by sh; the hook must see none.
        script += '; unset PATH PWD OLDPWD; exec "$@"'
        return (unshare, "--mount", "/bin/sh", "-c", script, "sh", str(len(files)), *mounts)

    return prefix


def recording_curl(root: Path) -> Path:
    """A program to lie over curl(1): writes its arguments into `root`/curl, one a line; nobody answered."""
    script = root / "recording-curl"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{root}/curl\necho "000 28"\n')
    script.chmod(0o755)
    return script


def max_seconds(root: Path) -> float:
    """How long curl was to try, at most; what curl(1) does with that is its own affair."""
    words = (root / "curl").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return float(words[words.index("--max-time") + 1])
