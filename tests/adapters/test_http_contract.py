"""The description of the API against the API: valid OpenAPI 3.1, and thousands of odd requests answered as it says."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

from jobtrail.adapters.http.node_identity import shared_token
from jobtrail.adapters.postgres import (
    PostgresBenchmarkReader,
    PostgresNodes,
    PostgresReader,
    PostgresSamples,
    PostgresSecurity,
    PostgresTargets,
)
from tests.adapters.stored_jobs import served_from, store, stories
from tests.adapters.test_http_tokens import TOKEN
from tests.served_api import hang_up
from tests.served_link import in_postgres, write_token

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.yaml"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
SECONDS = 900  # alone on two processors it takes one minute; between many other tests it took more than two minutes


def test_the_description_is_valid() -> None:
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


@asynccontextmanager
async def relayed(socket: str) -> AsyncIterator[str]:
    """The URL of a TCP port that leads to a Unix socket: what makes the requests speaks TCP alone."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            await hang_up(sink)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def with_hooks() -> dict[str, str]:
    """An environment in which it knows how bodies of the node link are sent."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(root / "daemon"), str(root), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"}


async def run(url: str, directory: Path, *options: str) -> str:
    """What is said of a run against `url` in which all was well."""
    said = directory / "schemathesis.out"
    with said.open("wb") as file:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", url, "--checks", CHECKS,
            "--max-examples", "12", "--seed", "20261121", "--no-color",
            "--generation-database", "none", "--suppress-health-check", "all", "--request-timeout", "60", *options,
            cwd=directory, env=with_hooks(), stdout=file, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    try:
        await asyncio.wait_for(program.wait(), SECONDS)
    except TimeoutError:
        pytest.fail(f"not done after {SECONDS} s: {said.read_text(errors='replace')[-6000:]}")
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    text = said.read_text(errors="replace")
    assert program.returncode == 0, text[-6000:]
    return text


def readers(pool: Any) -> dict[str, Any]:
    """All that is asked of beside the jobs."""
    seconds = {"timeout_seconds": 10.0}
    return {
        "jobs": PostgresReader(pool, **seconds),
        "nodes": PostgresNodes(pool, **seconds),
        "targets": PostgresTargets(pool, **seconds),
        "security": PostgresSecurity(pool, **seconds),
        "benchmarks": PostgresBenchmarkReader(pool, **seconds),
        "target_port": 8080,
        "posted_samples": PostgresSamples(pool, **seconds, tell=lambda _: None),
    }


@pytest.mark.parametrize("way", ["tcp", "hooks"])
async def test_no_request_gets_an_answer_that_is_not_described(tmp_path: Path, pool: Any, way: str) -> None:
    """Over TCP with the token for reading, and on the socket of the hooks, where events and reports are taken."""
    await store(pool, stories())
    nodes = shared_token(str(write_token(tmp_path / "nodes.token", TOKEN)))
    link = {"forwarded_to": in_postgres(pool), "node_identity": nodes}
    async with served_from(pool, tmp_path, **readers(pool), **link) as api:
        if way == "tcp":
            header = f"Authorization: Bearer {TOKEN}"
            said = await run(api.addresses.url, tmp_path, "--phases", "examples,fuzzing", "--header", header)
        else:
            async with relayed(api.settings.socket) as url:
                said = await run(url, tmp_path, "--phases", "examples,coverage,fuzzing")
            assert {event.kind for event in api.intake.events}  # some of what was made up was good
        assert not any("internal" in reason for reason in api.rejections)
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    assert f"Tested: {sum(len(item) for item in document['paths'].values())}\n" in said
