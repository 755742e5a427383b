"""A Slurm to ask in a contract test: in memory, or a slurmrestd that writes the same runs in its versions' shapes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import parse_qs

from jobtrail.adapters.clock import SystemClock
from jobtrail.adapters.slurmrest import RestSettings, SlurmRest
from jobtrail.core.ports import SlurmAccounting, SlurmController
from jobtrail.domain.errors import SlurmDenied, SlurmUnavailable
from jobtrail.domain.slurm import NodeRecord, Origin, SlurmRecord, Unreadable
from tests.adapters.slurmrest_server import Asked, Canned, RestServer, json_of, rest_server
from tests.fake_slurm import MemorySlurm

T = 1_760_000_000  # Unix seconds, a moment of 2025: Slurm has no jobs of 1970
NOTHING = {"errors": [{"error_number": 9003, "error": "Nothing found with query"}], "jobs": []}
UNKNOWN = {"errors": [{"error_number": 2017, "error": "Invalid job id specified"}], "jobs": []}


class Bench(Protocol):
    """A controller, its accounting, and hands to change what they know."""

    controller: SlurmController
    accounting: SlurmAccounting

    def add_run(
        self, number: int, state: str, *, submit: int, start: int | None = None, end: int | None = None
    ) -> None:
        """Let the job have one more run."""

    def add_unreadable(self, number: int) -> None:
        """Let there be a job whose state nobody knows."""

    def add_node(self, node: NodeRecord) -> None:
        """Let there be a node."""

    def forget(self, number: int) -> None:
        """Let slurmctld forget the job, as it does after MinJobAge."""

    def break_down(self) -> None:
        """Answer nothing from now on."""

    def refuse(self) -> None:
        """Refuse whoever asks."""

    def recover(self) -> None:
        """Answer again."""


@asynccontextmanager
async def benches(name: str) -> AsyncIterator[Bench]:
    """The bench `memory`, or `slurmrestd <version>`."""
    if name == "memory":
        yield MemoryBench()
        return
    version = name.partition(" ")[2]
    async with rest_server() as server:
        settings = RestSettings(url=server.url, poll_seconds=0.001, timeout_seconds=60.0)
        async with SlurmRest.opened(settings, clock=SystemClock()) as rest:
            yield RestBench(server, version, rest)


class MemoryBench:
    def __init__(self) -> None:
        self.slurm = MemorySlurm()
        self.controller: SlurmController = self.slurm
        self.accounting: SlurmAccounting = self.slurm

    def add_run(
        self, number: int, state: str, *, submit: int, start: int | None = None, end: int | None = None
    ) -> None:
        self.slurm.runs.append(
            SlurmRecord(
                origin=Origin.SLURMDBD,
                job_id=f"slurm-{number}",
                state=state,
                submit_time=submit,
                start_time=start,
                end_time=end,
            )
        )

    def add_unreadable(self, number: int) -> None:
        self.slurm.unreadable.append(
            Unreadable(path=f"jobs[{number}].job_state", reason="is new", job_id=f"slurm-{number}")
        )

    def add_node(self, node: NodeRecord) -> None:
        self.slurm.node_records.append(node)

    def forget(self, number: int) -> None:
        self.slurm.forgotten.add(f"slurm-{number}")

    def break_down(self) -> None:
        self.slurm.failure = SlurmUnavailable("down")

    def refuse(self) -> None:
        self.slurm.failure = SlurmDenied("not you")

    def recover(self) -> None:
        self.slurm.failure = None


class RestBench:
    def __init__(self, server: RestServer, version: str, rest: SlurmRest) -> None:
        self.controller: SlurmController = rest
        self.accounting: SlurmAccounting = rest
        self._server = server
        self._version = version
        self._is_old = version < "v0.0.40"
        self._runs: list[tuple[int, str, int, int, int]] = []
        self._forgotten: set[int] = set()
        self._nodes: list[dict[str, Any]] = []
        self.recover()

    def add_run(
        self, number: int, state: str, *, submit: int, start: int | None = None, end: int | None = None
    ) -> None:
        self._runs.append((number, state, submit, start or 0, end or 0))
        self._server.answers[f"/slurm/{self._version}/job/{number}"] = lambda _: self._one(number)

    def add_unreadable(self, number: int) -> None:
        self.add_run(number, "SPLENDID", submit=T)

    def add_node(self, node: NodeRecord) -> None:
        state: dict[str, Any] = (
            {"state": node.state, "state_flags": [flag.upper() for flag in node.flags]}
            if self._is_old
            else {"state": [word.upper() for word in (node.state, *node.flags)]}
        )
        self._nodes.append(
            {
                "name": node.name,
                "cpus": node.cpus,
                "alloc_cpus": node.cpus_allocated,
                "reason": node.reason or "",
                **state,
            }
        )

    def forget(self, number: int) -> None:
        self._forgotten.add(number)

    def break_down(self) -> None:
        self._always(json_of({"errors": [{"error_number": -1, "error": "Unspecified error"}]}, 500))

    def refuse(self) -> None:
        self._always(Canned(b"Authentication failure", 401, "text/plain"))

    def recover(self) -> None:
        self._server.knows(self._version)
        self._server.answers |= {
            f"/slurm/{self._version}/jobs": lambda _: json_of({"errors": [], "jobs": list(self._held().values())}),
            f"/slurm/{self._version}/job/9": lambda _: json_of(UNKNOWN, 500 if self._is_old else 404),
            f"/slurm/{self._version}/nodes": lambda _: json_of({"errors": [], "nodes": self._nodes}),
            f"/slurmdb/{self._version}/jobs": self._accounting,
        }

    def _always(self, answer: Canned) -> None:
        self._server.answers |= dict.fromkeys([*self._server.answers, f"/slurm/{self._version}/job/1"], answer)

    def _one(self, number: int) -> Canned:
        held = self._held().get(number)
        return json_of({"errors": [], "jobs": [held]}) if held else json_of(UNKNOWN, 500 if self._is_old else 404)

    def _held(self) -> dict[int, dict[str, Any]]:
        return {
            number: {
                "job_id": number,
                "job_state": state if self._is_old else [state],
                "submit_time": self._number(submit),
                "start_time": self._number(start),
                "end_time": self._number(end or 2**32 + start),
                "nodes": "n1" if start else "",
            }
            for number, state, submit, start, end in self._runs
            if number not in self._forgotten
        }

    def _number(self, value: int) -> Any:
        return value if self._is_old else {"set": True, "infinite": False, "number": value}

    def _accounting(self, asked: Asked) -> Canned:
        query = parse_qs(asked.query, strict_parsing=True)
        wanted = {int(number) for number in query["step"][0].split(",")}
        runs = [run for run in self._runs if run[0] in wanted]
        if not self._is_old and query.get("show_duplicates") != ["true"]:
            runs = list({run[0]: run for run in runs}.values())
        if not runs:
            return json_of(
                NOTHING if self._is_old else {"errors": [], "warnings": [{"description": "nothing"}], "jobs": []}
            )
        return json_of({"errors": [], "jobs": [self._run(*run) for run in runs]})

    def _run(self, number: int, state: str, submit: int, start: int, end: int) -> dict[str, Any]:
        words = ["PENDING", "REQUEUED"] if state == "REQUEUED" else [state]
        return {
            "job_id": number,
            "state": {"current": state if self._is_old else words},
            "time": {"submission": submit, "start": start, "end": end},
            "nodes": "n1" if start else "None assigned",
        }
