"""`jobtrail top`: the jobs of this node, live, from the metrics of its daemon."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, NoReturn

import aiohttp
import typer
from rich.live import Live

from jobtrail.cli import exit_codes
from jobtrail.cli.output import console, error_console, print_json
from jobtrail.cli.settings import readable_settings
from jobtrail.cli.top_page import ORDERS, NodeNow, in_order, read, shown
from jobtrail.config import Config
from jobtrail.domain.errors import StoreUnavailable

TIMEOUT_SECONDS = 5.0
# Figures of a job that has ended are kept for a few scrapes: looking is to take none of them from Prometheus.
LOOKING = {"Jobtrail-Look": "top"}
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere listens here


class Order(StrEnum):
    """What the jobs are sorted by."""

    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"
    POWER = "power"
    TIME = "time"


def run_top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="print one table and end; so does a pipe")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one look as JSON and end")] = False,
    sort: Annotated[Order, typer.Option(help="by what, the most first; unknown last")] = Order.CPU,
    every: Annotated[float, typer.Option(min=0.5, max=3600, help="seconds between two looks")] = 2.0,
) -> None:
    """This node's jobs, live: CPU, memory, GPUs and their power. Keys: c m g p t sort, q ends."""
    config = readable_settings(context)
    try:
        now = in_order(_look(config), sort)
    except StoreUnavailable as error:
        _fail(str(error))
    if as_json:
        print_json(now)
    elif once or not sys.stdout.isatty():
        out = console()
        out.print(shown(now, width=out.width))
    else:
        _watch(config, now, sort.value, every)


def _look(config: Config) -> NodeNow:
    return read(asyncio.run(_page(config)))


async def _page(config: Config) -> bytes:
    """The metrics, over the socket where the caller may, else over TCP. Raises StoreUnavailable."""
    problems = []
    for connector, base in _ways(config):
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, headers=LOOKING) as session,
                session.get(f"{base}/metrics") as response,
            ):
                if response.status == 200:
                    return await response.read()
                problems.append(f"{base} answers {response.status}")
        except aiohttp.ClientConnectorError as error:
            problems.append(f"no daemon answers on {base}: {error.os_error.strerror}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problems.append(f"no daemon answers on {base}: {error or 'in time'}")
    raise StoreUnavailable("; ".join(problems) or "no daemon is configured: http.socket and http.port")


def _ways(config: Config) -> Iterator[tuple[aiohttp.BaseConnector, str]]:
    if os.access(config.http.socket, os.W_OK):
        yield aiohttp.UnixConnector(config.http.socket), "http://localhost"
    if config.http.port:
        host = LOOPBACK.get(config.http.host, config.http.host)
        yield aiohttp.TCPConnector(), f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"


def _watch(config: Config, now: NodeNow, order: str, every: float) -> None:
    """Until `q`, Ctrl-C or SIGTERM; the terminal is left as it was."""
    out, problem = console(), None
    with _ending_on_sigterm(), _keys_at_once(), Live(console=out, screen=True, auto_refresh=False) as live:
        next_look = time.monotonic() + every
        while True:
            live.update(shown(in_order(now, order), width=out.width, height=out.height, problem=problem), refresh=True)
            key = _key(next_look - time.monotonic())
            if key in ("q", "\x03", "\x04"):
                return
            if key is not None:
                order = ORDERS[key][0] if key in ORDERS else order
                continue
            next_look = time.monotonic() + every
            try:
                now, problem = _look(config), None
            except StoreUnavailable as error:
                problem = str(error)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM and Ctrl-C end it like `q`: nothing was broken off."""

    def end(*_: object) -> NoReturn:
        raise SystemExit(exit_codes.OK)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys come without Enter and are not shown, where the input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(seconds: float) -> str | None:
    """The key pressed within the time; None when it is over. Without a terminal to press on, the time passes."""
    if not sys.stdin.isatty():
        select.select([], [], [], max(0.0, seconds))
        return None
    ready, _, _ = select.select([sys.stdin], [], [], max(0.0, seconds))
    if not ready:
        return None
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"  # a terminal that is gone reads as nothing


def _fail(message: str) -> NoReturn:
    error_console().print(f"jobtrail: {message}", style="red", markup=False)
    raise typer.Exit(exit_codes.UNREACHABLE)
