"""What a cluster takes from this machine: free ports, Linux users, files with the right owner."""

import contextlib
import pwd
import random
import shutil
import socket
import subprocess
from pathlib import Path

from tests.slurm.daemons import ClusterError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Below the range that the kernel gives to outgoing connections (ip_local_port_range), of which there are many here.
PORTS = range(20_000, 32_000)


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
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def ensure_user(name: str) -> None:
    """Create an unprivileged Linux user without a home, unless there is one of that name; it stays afterwards."""
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return
    argv = ["useradd", "--no-create-home", "--shell", "/bin/sh", name]
    done = subprocess.run(argv, env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"useradd could not create the user {name}: {done.stderr}")


def write(path: Path, content: str | bytes, *, mode: int = 0o644, user: str = "root") -> None:
    """Write a file with its permissions, which do not depend on the umask."""
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    shutil.chown(path, user)
    path.chmod(mode)
