"""Events on the wire, by hand: HTTP over the Unix socket without any code of the daemon's, and without any library."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.oracle import fingerprint

NODE = "n1"
CLUSTER = "lab"
ANSWER_SECONDS = 10.0
KINDS = {
    "prolog": "job_started", "epilog": "job_finished",
    "prolog-slurmctld": "slurm_reported", "epilog-slurmctld": "slurm_reported",
}  # fmt: skip


@dataclass(frozen=True)
class Sending:
    """One event as it goes over the wire."""

    hook: str
    event_id: str
    time_text: str
    job: int
    environment: dict[str, bytes] = field(hash=False)

    @property
    def body(self) -> bytes:
        """NUL-separated records, as `env -0` prints them."""
        return b"".join(record + b"\0" for record in self.records)

    @property
    def records(self) -> list[bytes]:
        """`KEY=VALUE` of each variable."""
        return [name.encode() + b"=" + value for name, value in self.environment.items()]

    def details(self) -> dict[str, Any]:
        """What the oracle notes of it."""
        return {"kind": KINDS[self.hook], "job": self.job, "sha": fingerprint(self.records)}

    def as_file(self) -> bytes:
        """As a hook leaves it in the spool directory."""
        head = f"JOBTRAIL_HOOK={self.hook}\0JOBTRAIL_EVENT_ID={self.event_id}\0JOBTRAIL_EVENT_TIME={self.time_text}\0"
        return head.encode() + self.body

    def request(self) -> bytes:
        """The whole request."""
        body = self.body
        head = (
            f"POST /v1/hooks/slurm/{self.hook} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Jobtrail-Event-Id: {self.event_id}\r\nJobtrail-Event-Time: {self.time_text}\r\n\r\n"
        )
        return head.encode() + body


def make(hook: str, job: int, draw: random.Random, *, start: int, at: float | None = None, **more: str) -> Sending:
    """What a hook of `job` would send now; a comment of random bytes makes each payload its own."""
    environment = {
        "SLURM_JOB_ID": str(job), "SLURM_CLUSTER_NAME": CLUSTER, "SLURMD_NODENAME": NODE, "SLURM_JOB_NODELIST": NODE,
        "SLURM_JOB_UID": "1001", "SLURM_JOB_USER": "ada", "SLURM_JOB_START_TIME": str(start),
        "SLURM_JOB_CPUS_PER_NODE": "1", "SLURM_JOB_EXIT_CODE": "0", "SLURM_SCRIPT_CONTEXT": f"{hook}_slurmd", **more,
    }  # fmt: skip
    if hook.startswith("prolog"):
        del environment["SLURM_JOB_EXIT_CODE"]
    if hook.endswith("slurmctld"):
        del environment["SLURMD_NODENAME"]
    raw = {name: value.encode() for name, value in environment.items()}
    raw["SLURM_JOB_COMMENT"] = draw.randbytes(draw.randrange(1, 400)).replace(b"\0", b"0")
    event_id = str(uuid.UUID(int=draw.getrandbits(128), version=4))
    return Sending(hook, event_id, f"{time.time() if at is None else at:.9f}", job, raw)


class Line:
    """One connection to the daemon, made anew whenever it broke."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, sending: Sending) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises OSError, EOFError or TimeoutError where there is none."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._writer is None:
                    self._reader, self._writer = await asyncio.open_unix_connection(str(self._socket))
                self._writer.write(sending.request())
                await self._writer.drain()
                return await self._answer()
        except (OSError, EOFError, TimeoutError):
            self.close()
            raise

    async def _answer(self) -> tuple[int, dict[str, Any]]:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        status = int(head[0].split(" ")[1])
        return status, json.loads(body) if body.startswith(b"{") else {}

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
