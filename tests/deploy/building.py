"""Carries out a Dockerfile's steps in plain directories with chroot(8), where there is no Docker.

The base is what debootstrap makes of the same release. COPY, RUN, ENV, WORKDIR and USER do as Docker's do for what our
Dockerfile says; .dockerignore is asked by the tests of the rules. No layers, and no seccomp or capabilities are tried.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.deploy.dockerfile import Instruction, Stage

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "jobtrail"
MOUNTS = ("/proc", "/sys", "/dev")
RUN_SECONDS = 540


class BuildError(Exception):
    """A step failed; says which, with the end of what it printed."""


def base_root(suite: str) -> Path:
    """A minimal Debian `suite` in a directory, made once for the machine. Raises BuildError."""
    root = CACHE / f"debian-{suite}"
    if (root / "etc/debian_version").exists():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = CACHE / f"debian-{suite}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    call(["debootstrap", "--variant=minbase", suite, str(fresh), "http://deb.debian.org/debian"])
    # An image has no services to start, and debootstrap leaves the packages it fetched.
    shutil.rmtree(fresh / "var/cache/apt/archives")
    (fresh / "var/cache/apt/archives/partial").mkdir(parents=True)
    fresh.rename(root)
    return root


class Builder:
    """Builds stages below `directory` from the files of `context`."""

    def __init__(self, stages: Mapping[str, Stage], *, context: Path, base: Path, directory: Path) -> None:
        self._stages = stages
        self._context = context
        self._base = base
        self._directory = directory
        self.environment: dict[str, dict[str, str]] = {}
        self.users: dict[str, str] = {}

    def root_of(self, name: str) -> Path:
        """The directory of a stage's files."""
        return self._directory / name

    def build(self, name: str) -> Path:
        """Carry out all steps of a stage, its predecessors first; return its root. Raises BuildError."""
        root = self.root_of(name)
        if root.exists():
            return root
        stage = self._stages[name]
        for copied in stage.all("COPY"):
            if source := copied.flags.get("from"):
                self.build(source)
        call(["cp", "-a", "--reflink=auto", str(self._base), str(root)])
        self.environment[name] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.users[name] = "root"
        work = "/"
        for one in stage.instructions:
            work = self._step(stage.name, one, work)
        return root

    def _step(self, name: str, one: Instruction, work: str) -> str:
        root = self.root_of(name)
        if one.word == "WORKDIR":
            work = one.text
            (root / work.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif one.word == "ENV":
            self.environment[name] |= dict(part.split("=", 1) for part in one.arguments)
        elif one.word == "USER":
            self.users[name] = one.text
        elif one.word == "COPY":
            self._copy(root, one, work)
        elif one.word == "RUN":
            self.run(name, ["sh", "-c", one.text], work=work)
        return work

    def _copy(self, root: Path, one: Instruction, work: str) -> None:
        *sources, target = one.arguments
        into = root / os.path.join(work, target).lstrip("/")
        origin = self.root_of(one.flags["from"]) if "from" in one.flags else self._context
        many = len(sources) > 1 or target.endswith("/")
        for source in sources:
            found = origin / source.lstrip("/")
            place = into / found.name if many else into
            place.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                call(["cp", "-a", f"{found}/.", str(place)])
            else:
                shutil.copy(found, place)
                place.chmod(int(one.flags.get("chmod", oct(found.stat().st_mode)[-4:]), 8))

    def run(self, name: str, argv: Sequence[str], *, work: str = "/", user: str = "", check: bool = True) -> str:
        """Run a program in a stage's root as its user at that point, or as `user`; return what it printed."""
        root = self.root_of(name)
        with mounted(root):
            environment = self.environment[name] | host_settings(root)
            command = ["chroot", f"--userspec={user or self.users[name]}", str(root), "env", f"--chdir={work}", *argv]
            return call(command, environment=environment, check=check)


def host_settings(root: Path) -> dict[str, str]:
    """What a daemon's host gives each RUN as well: names resolve, and a proxy of this machine is trusted."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/hosts", root / "etc/hosts")
    settings = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ}
    if certificates := os.environ.get("PIP_CERT"):
        shutil.copy(certificates, root / "tmp/certificates.pem")
        settings["PIP_CERT"] = "/tmp/certificates.pem"
    return settings


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """Mount /proc, /sys and /dev into a root, and take them out again."""
    mounts = [root / path.lstrip("/") for path in MOUNTS]
    done: list[Path] = []
    try:
        for path, place in zip(MOUNTS, mounts, strict=True):
            call(["mount", "--rbind", "--make-rslave", path, str(place)])
            done.append(place)
        yield
    finally:
        for place in reversed(done):
            call(["umount", "--recursive", "--lazy", str(place)])


def call(argv: Sequence[str], *, environment: Mapping[str, str] | None = None, check: bool = True) -> str:
    """Run a program; return what it printed. Raises BuildError with the end of that."""
    done = subprocess.run(
        argv, env=None if environment is None else dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=RUN_SECONDS,
    )  # fmt: skip
    if check and done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise BuildError(f"{' '.join(argv)[:300]} ended with exit status {done.returncode}:\n{tail}")
    return done.stdout
