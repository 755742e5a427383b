"""`jobtrail top`: the jobs of this node, or of the one that --url names, live, from the metrics of its daemon."""

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

import typer
from rich.live import Live

from jobtrail.cli import exit_codes
from jobtrail.cli.output import console, error_console, print_json
from jobtrail.cli.settings import readable_settings
from jobtrail.cli.top_page import ORDERS, NodeNow, in_order, read, shown
from jobtrail.cli.whom import TOKEN_VARIABLE, UNAUTHORIZED, Place, asks_daemon, named_by_option
from jobtrail.client_calls import OK, Caller, Unreachable
from jobtrail.config import Config
from jobtrail.domain.errors import StoreUnavailable

TIMEOUT_SECONDS = 5.0
FORBIDDEN = 403
# Figures of a job that has ended are kept for a few scrapes: looking is to take none of them from Prometheus.
LOOKING = {"Jobtrail-Look": "top", "Accept": "text/plain"}
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere listens here


class Order(StrEnum):
    """What the jobs are sorted by."""

    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"
    POWER = "power"
    TIME = "time"


@asks_daemon
def run_top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="print one table and end; so does a pipe")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one look as JSON and end")] = False,
    sort: Annotated[Order, typer.Option(help="by what, the most first; unknown last")] = Order.CPU,
    every: Annotated[float, typer.Option(min=0.5, max=3600, help="seconds between two looks")] = 2.0,
) -> None:
    """This node's jobs, live: CPU, memory, GPUs and their power.

    Keys: c, m, g, p and t sort by CPU, memory, GPU, power and time; q ends. With --url the jobs of that node.
    """
    named, out = named_by_option(context), console()
    places = _places(readable_settings(context)) if named is None else [named]
    try:
        now = in_order(_look(places), sort)
    except StoreUnavailable as error:
        _fail(str(error))
    if as_json:
        print_json(now)
    elif once or not sys.stdout.isatty() or out.is_dumb_terminal:  # which cannot be drawn over
        out.print(shown(now, width=out.width))
    else:
        _watch(places, now, sort.value, every)


def _look(places: list[Place]) -> NodeNow:
    return read(asyncio.run(_page(places)))


async def _page(places: list[Place]) -> bytes:
    """The metrics, of the first that gives them. Raises StoreUnavailable."""
    problems = []
    for place in places:
        async with place.client(Caller, seconds=TIMEOUT_SECONDS) as daemon:
            try:
                answer = await daemon.call("GET", "/metrics", headers=LOOKING)
            except Unreachable as error:
                problems.append(str(error))
                continue
        if answer.status == OK:
            return answer.body
        problems.append(_refused(daemon.where, answer.status))
    raise StoreUnavailable("; ".join(problems) or "no daemon is configured: http.socket and http.port")


def _refused(where: str, status: int) -> str:
    wanted = f"; name a file with a token for it in {TOKEN_VARIABLE}" if status in (UNAUTHORIZED, FORBIDDEN) else ""
    return f"{where} answers {status}{wanted}"


def _places(config: Config) -> list[Place]:
    """Where this machine's daemon answers: on the socket where the caller may use it, else over TCP."""
    found = [Place(socket=config.http.socket)] if os.access(config.http.socket, os.W_OK) else []
    if config.http.port:
        host = LOOPBACK.get(config.http.host, config.http.host)
        found.append(Place(url=f"http://{f'[{host}]' if ':' in host else host}:{config.http.port}"))
    return found


def _watch(places: list[Place], now: NodeNow, order: str, every: float) -> None:
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
                now, problem = _look(places), None
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
