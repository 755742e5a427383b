"""Where a cluster's programs come from: this machine, or another Debian in a directory of it; free ports and users."""

import contextlib
import os
import pwd
import random
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.slurm.daemons import ClusterError, Daemon, poll_until

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Below the range that the kernel gives to outgoing connections (ip_local_port_range), of which there are many here.
PORTS = range(20_000, 32_000)
# The mounts are in a namespace of their own, so they are gone when its last process is, however that ends.
ENTER_ROOT = """
set -e
mount --bind {root} {root}
for directory in /proc /sys /dev {shared}; do
    mkdir -p {root}$directory
    mount --rbind $directory {root}$directory
done
cd {root}
pivot_root . mnt
umount --lazy /mnt
echo ready
exec sleep infinity
"""


class Machine:
    """This machine with its own programs."""

    @property
    def has_systemd(self) -> bool:
        """Whether the programs can ask systemd for something, such as a scope for slurmstepd."""
        return Path("/run/systemd/system").is_dir()

    @contextlib.contextmanager
    def opened(self, env: Mapping[str, str], log_directory: Path) -> Iterator[None]:
        """Make commands possible; nothing needs to be done for that here."""
        del env, log_directory
        yield

    def command(self, argv: Sequence[str], *, user: str | None = None, directory: Path | None = None) -> list[str]:
        """Return what runs `argv` as `user` (else root) in `directory` (else anywhere) with this machine's programs."""
        command = list(argv)
        if directory is not None:
            command = ["env", f"--chdir={directory}", *command]
        if user is not None:
            uid, gid = self.account(user)
            command = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *command]
        return command

    def account(self, user: str) -> tuple[int, int]:
        """Return uid and primary gid of a Linux user; raises KeyError when there is none of that name."""
        entry = pwd.getpwnam(user)
        return entry.pw_uid, entry.pw_gid

    def ensure_user(self, name: str) -> None:
        """Create an unprivileged Linux user without a home, unless there is one of that name; it stays afterwards."""
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return
        _useradd(["useradd", "--no-create-home", "--shell", "/bin/sh", name])

    def chown(self, path: Path, user: str) -> None:
        """Give a file to a user and their group."""
        os.chown(path, *self.account(user))

    def write(self, path: Path, content: str | bytes, *, mode: int = 0o644, user: str = "root") -> None:
        """Write a file with its owner and permissions, which do not depend on the umask."""
        path.touch(mode=0o600)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.chown(path, user)
        path.chmod(mode)


class Root(Machine):
    """The programs of another Debian in a directory, with this machine's processes, devices, cgroups and /tmp."""

    def __init__(self, path: Path) -> None:
        """`path`: what scripts/make-slurm-root made."""
        self._path = path
        self._keeper: Daemon | None = None

    @property
    def has_systemd(self) -> bool:
        """Never: systemd's socket is in /run, which is the root's own."""
        return False

    @contextlib.contextmanager
    def opened(self, env: Mapping[str, str], log_directory: Path) -> Iterator[None]:
        """Mount what the programs need, for them alone, and keep that by a process until the end."""
        # Hooks, spools and clusters' directories are at the same path inside and outside.
        shared = shlex.join(sorted({"/tmp", tempfile.gettempdir()}))
        script = ENTER_ROOT.format(root=shlex.quote(str(self._path)), shared=shared)
        argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
        keeper = Daemon("root", argv, env=env, log_directory=log_directory)
        keeper.start()
        try:
            keeper.wait_ready(lambda: keeper.output() == "ready\n")
            self._keeper = keeper
            yield
        finally:
            self._keeper = None
            keeper.kill()

    def command(self, argv: Sequence[str], *, user: str | None = None, directory: Path | None = None) -> list[str]:
        """Return what runs `argv` in the root; raises ClusterError unless it is opened."""
        if self._keeper is None:
            raise ClusterError(f"the root {self._path} is not opened")
        inner = super().command(argv, user=user, directory=directory)
        return ["nsenter", f"--target={self._keeper.pid}", "--mount", "--", *inner]

    def account(self, user: str) -> tuple[int, int]:
        """Return uid and primary gid of a Linux user of the root; raises KeyError when there is none of that name."""
        for line in (self._path / "etc/passwd").read_text().splitlines():
            name, _, uid, gid, *_ = line.split(":")
            if name == user:
                return int(uid), int(gid)
        raise KeyError(user)

    def ensure_user(self, name: str) -> None:
        """Create the user here and there with the same uid, for the processes of both see each other."""
        super().ensure_user(name)
        uid, _ = super().account(name)
        with contextlib.suppress(KeyError):
            if self.account(name)[0] == uid:
                return
            _useradd(["userdel", "--root", str(self._path), name])
        _useradd(["useradd", "--root", str(self._path), "--uid", str(uid), "--no-create-home", "--shell=/bin/sh", name])


def _useradd(argv: Sequence[str]) -> None:
    """Run useradd or userdel; while another one has locked the file of users, wait for it."""

    def succeeded() -> bool:
        done = subprocess.run(argv, env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1, 9):
            raise ClusterError(f"{argv} failed: {done.stderr}")
        # 1: the file is locked; 9: somebody else just made the user (useradd(8), EXIT VALUES).
        return done.returncode != 1

    poll_until(succeeded, what=f"{argv} to succeed")


def free_ports(count: int) -> list[int]:
    """Return `count` TCP ports on which nothing listens now."""
    free: list[int] = []
    for port in random.sample(PORTS, k=len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("", port))
            free.append(port)
        if len(free) == count:
            return free
    raise ClusterError(f"no {count} free TCP ports in {PORTS}")


def accepts(port: int) -> bool:
    """Tell whether something listens on this port of 127.0.0.1."""
    with socket.socket() as connection:
        connection.settimeout(10)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def accepts_on_socket(path: Path) -> bool:
    """Tell whether something listens on a Unix socket; its name is there before that (bind(2), listen(2))."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        return connection.connect_ex(str(path)) == 0
