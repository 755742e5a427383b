"""The daemon's socket, the running daemon itself, and what systemd keeps it from."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import resource
import socket
import stat
from pathlib import Path

from jobtrail.cli.doctor.findings import Finding, Place, Saying

START = "systemctl start jobtrail, and read `journalctl -u jobtrail`"
ANSWER_SECONDS = 5.0
FILES_NEEDED = 4096  # a dozen for each job, and connections
UNIT_PLACES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
UNITS = ("jobtrail.service", "jobtrail-server.service")
SANDBOX = ("NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=@system-service", "CapabilityBoundingSet=")
STATUS = re.compile(r"^(NoNewPrivs|Seccomp|CapEff):\s*(\S+)$", re.M)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(self._path)


def check_socket(place: Place) -> list[Finding]:
    """The sockets: there, whose they are, and who may connect."""
    findings = _of_socket(Saying("socket"), "http.socket", place.config.http.socket, for_all=False)
    if place.config.poke_socket:
        findings += _of_socket(Saying("socket"), "http.poke_socket", place.config.poke_socket, for_all=True)
    return findings


def _of_socket(say: Saying, setting: str, path: str, *, for_all: bool) -> list[Finding]:
    try:
        status = Path(path).lstat()
    except FileNotFoundError:
        return [say.failure(f"{setting}: there is no {path}: no daemon runs, and hooks leave files", START)]
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISSOCK(status.st_mode):
        return [say.failure(f"{setting}: {path} is no socket", f"move it away, and {START}")]
    if status.st_uid not in _trusted():
        return [
            say.failure(f"{setting}: {path} belongs to uid {status.st_uid}: whoever that is takes the events", START)
        ]
    if for_all and mode & 0o006 != 0o006:
        return [say.warning(f"{setting}: users may not connect to {path} (mode {mode:04o})", "restart the daemon")]
    if not for_all and mode & 0o007:
        return [
            say.failure(
                f"{setting}: everybody may connect to {path} (mode {mode:04o})",
                f"chmod 660 {path}, or restart the daemon",
            )
        ]
    return [say.ok(f"{setting}: {path} (mode {mode:04o})")]


def _trusted() -> set[int]:
    """root, the caller, and the user that the server's unit runs as."""
    found = {0, os.geteuid()}
    with contextlib.suppress(KeyError):
        found.add(pwd.getpwnam("jobtrail").pw_uid)
    return found


def check_daemon(place: Place) -> list[Finding]:
    """That it answers, and what it says of itself."""
    say, path = Saying("daemon"), place.config.http.socket
    if not os.access(path, os.W_OK) and Path(path).exists():
        if not place.config.poke_socket:
            return [say.unchecked(f"you may not connect to {path}", "run it as root")]
        return _answers_at_all(say, place.config.poke_socket)
    connection = _Unix(path)
    try:
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read())
    except TimeoutError:
        hangs = f"the daemon does not answer within {ANSWER_SECONDS:g} s on {path}"
        return [say.failure(hangs, "see what it waits for: `journalctl -u jobtrail`; then systemctl restart jobtrail")]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return [say.failure(f"nobody answers on {path}: {error}", START)]
    finally:
        connection.close()
    findings = [
        say.failure(f"it says: {problem}", "`jobtrail doctor --only database,servers,spool`")
        for problem in told["problems"]
    ]
    findings += [say.warning(f"it says: {warning}", "see docs/security.md") for warning in told["warnings"]]
    return findings or [say.ok("it answers, and events reach where they shall")]


def _answers_at_all(say: Saying, path: str) -> list[Finding]:
    connection = _Unix(path)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        return [say.failure(f"nobody answers on {path}: {error}", "tell your administrator")]
    finally:
        connection.close()
    return [say.ok(f"it answers on {path}")]


def running_pid(place: Place) -> int | None:
    """The process that holds the spool, if it runs and may be looked at."""
    try:
        text = Path(place.config.spool.directory, "lock").read_text(encoding="ascii", errors="replace").strip()
        words = Path("/proc", text, "cmdline").read_bytes() if text.isdigit() else b""
    except OSError:
        return None
    return int(text) if b"jobtrail" in words or b"serve" in words else None


def check_limits(place: Place) -> list[Finding]:
    """How many files the running daemon may open; without one, what it would get here."""
    say, pid = Saying("limits"), running_pid(place)
    if pid is None:
        return [say.unchecked("no daemon runs here that may be looked at")]
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        found = f"the daemon (pid {pid}) may open {soft} files: with many jobs it will not read all of them"
        return [say.warning(found, "set LimitNOFILE=16384 in its unit")]
    return [say.ok(f"the daemon (pid {pid}) may open {soft} files, {hard} at most")]


def check_sandbox(place: Place) -> list[Finding]:
    """What the running daemon is kept from, and whether its unit is one of ours."""
    say, pid = Saying("sandbox"), running_pid(place)
    findings = _of_units(say)
    if pid is None:
        return [*findings, say.unchecked("no daemon runs here that may be looked at")]
    status = dict(STATUS.findall(Path("/proc", str(pid), "status").read_text(encoding="utf-8", errors="replace")))
    open_doors = []
    if status.get("NoNewPrivs") != "1":
        open_doors.append("may gain privileges")
    if status.get("Seccomp") == "0":
        open_doors.append("may call all of the kernel")
    if int(status.get("CapEff", "0"), 16) != 0:
        open_doors.append("has capabilities")
    if open_doors:
        found = f"the daemon (pid {pid}) runs without the unit's sandbox: it {', '.join(open_doors)}"
        findings.append(say.warning(found, "start it by systemd with the unit of deploy/systemd"))
    return findings or [say.ok(f"the daemon (pid {pid}) has no capabilities and can gain none")]


def _of_units(say: Saying) -> list[Finding]:
    findings = []
    for unit in UNITS:
        path = next((Path(place, unit) for place in UNIT_PLACES if Path(place, unit).is_file()), None)
        if path is None:
            continue
        lines = set(path.read_text(encoding="utf-8", errors="replace").splitlines())
        if missing := [line for line in SANDBOX if line not in lines]:
            findings.append(
                say.warning(
                    f"{path} lacks {', '.join(missing)}",
                    "take the unit of deploy/systemd, and put changes into a drop-in",
                )
            )
    return findings
