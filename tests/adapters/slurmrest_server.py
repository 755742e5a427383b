"""A slurmrestd that answers what it is told to, over TCP or a Unix socket."""

import asyncio
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from tests.adapters.slurmrest_captures import CAPTURES

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None]]

NOT_FOUND = "Unable find requested URL. Please view /openapi/v3 for API reference."
UNAUTHORIZED = "Authentication failure"


@dataclass
class Canned:
    """An answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    location: str | None = None


@dataclass
class Asked:
    """A request as it came."""

    path: str
    query: str
    headers: dict[str, str]


Answer = Canned | Callable[[Asked], Canned]


@dataclass
class RestServer:
    """Answers by path; what it knows no answer to is 404, as a version or path that slurmrestd does not know."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.path, request.rel_url.raw_query_string, dict(request.headers))
        self.asked.append(asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.answers.get(asked.path, Canned(NOT_FOUND.encode(), 404, "text/plain"))
            canned = answer if isinstance(answer, Canned) else answer(asked)
            headers = None if canned.location is None else {"Location": canned.location}
            return web.Response(
                body=canned.body, status=canned.status, content_type=canned.content_type, headers=headers
            )
        finally:
            self.at_once -= 1

    def knows(self, *versions: str) -> None:
        """Let ping answer for these versions and no others."""
        for path in [path for path in self.answers if path.endswith("/ping")]:
            del self.answers[path]
        for version in versions:
            self.answers[f"/slurm/{version}/ping"] = json_of({"errors": [], "pings": [{"ping": "UP"}]})

    def paths(self) -> list[str]:
        """What was asked, pings left out."""
        return [asked.path for asked in self.asked if not asked.path.endswith("/ping")]


@asynccontextmanager
async def rest_server(socket: Path | None = None) -> AsyncIterator[RestServer]:
    """A server on a free port of the loopback, or on `socket`."""
    server = RestServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    if socket is None:
        site: web.BaseSite = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    else:
        site = web.UnixSite(runner, str(socket))
        await site.start()
        server.url = f"unix:{socket}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(
    socket: Path, handle: Callable[[StreamReader, StreamWriter], Awaitable[None]]
) -> AsyncIterator[str]:
    """Yield the URL of a server whose connections `handle` serves; it waits for them at its end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await handle(reader, writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(serve, socket):
        yield f"unix:{socket}"
        await asyncio.wait_for(asyncio.gather(*tasks), 60)


def json_of(value: object, status: int = 200) -> Canned:
    """A JSON answer."""
    return Canned(msgspec.json.encode(value), status)


def captured_exchanges(release: str) -> dict[str, Canned]:
    """The answers to questions without a result, by path: unknown jobs, versions and paths."""
    text = (CAPTURES / release / "00-rest-errors" / "errors.txt").read_text()
    return {title.removeprefix("GET "): canned for title, canned in _exchanges(text)}


def captured_tokens(release: str) -> dict[str, Canned]:
    """The answers to good and bad tokens, by what was tried."""
    text = (CAPTURES / release / "00-rest-errors" / "jwt.txt").read_text()
    return {title.partition(":")[0]: canned for title, canned in _exchanges(text)}


def _exchanges(text: str) -> list[tuple[str, Canned]]:
    found = []
    for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        title, _, answer = block.partition("\n")
        head, _, body = answer.partition("\n\n")
        content_type = re.search(r"^Content-Type: (\S+)", head, flags=re.MULTILINE)
        assert content_type is not None
        found.append((title, Canned(body.strip().encode(), int(head.split()[1]), content_type[1])))
    return found
