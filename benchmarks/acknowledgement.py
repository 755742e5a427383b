"""Durable acknowledgement over the Unix socket, beside what the same disk takes to flush."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.daemon import prolog_body, running
from benchmarks.figures import Figure, at_least, at_most

ROUNDS = 5
EVENTS_ALONE = 200
EVENTS_EACH = 400
CLIENTS = 8


class Poster:
    """One keep-alive connection that posts a prolog and an epilog in turn, so that jobs do not pile up."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def post(self, number: int) -> float:
        """Seconds from sending an event to its acknowledgement: odd numbers start a job, the next one ends it."""
        body = prolog_body(number - (number + 1) % 2)
        hook = "prolog" if number % 2 else "epilog"
        head = (
            f"POST /v1/hooks/slurm/{hook} HTTP/1.1\r\nHost: localhost\r\n"
            f"Jobtrail-Event-Id: {uuid.uuid4()}\r\nJobtrail-Event-Time: {time.time():.6f}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        self._socket.sendall(head.encode() + body)
        answer = self._socket.recv(4096)
        if not answer.startswith(b"HTTP/1.1 201"):
            raise RuntimeError(f"not acknowledged: {answer[:200]!r}")
        return time.perf_counter() - began

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _flushes(directory: Path, times: int) -> list[float]:
    """Seconds of an append of 4 KiB and its fdatasync, as a write-ahead log does."""
    seconds = []
    descriptor = os.open(directory / "reference", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            began = time.perf_counter()
            os.write(descriptor, b"x" * 4096)
            os.fdatasync(descriptor)
            seconds.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return seconds


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _burst(path: Path, job_ids: Iterator[int]) -> float:
    """Acknowledgements a second with CLIENTS connections at once."""
    posters = [Poster(path) for _ in range(CLIENTS)]
    numbers = [[next(job_ids) for _ in range(EVENTS_EACH)] for _ in posters]

    def work(poster: Poster, mine: list[int]) -> None:
        for number in mine:
            poster.post(number)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(posters, numbers, strict=True)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = CLIENTS * EVENTS_EACH / (time.perf_counter() - began)
    for poster in posters:
        poster.close()
    return rate


def measure() -> list[Figure]:
    """p99 of one client beside the disk's own flush, and the rate of eight clients. Rounds are interleaved."""
    with running() as daemon:
        job_ids = count(1)
        flushes: list[float] = []
        alone: list[float] = []
        rates: list[float] = []
        for _ in range(ROUNDS):
            flushes += _flushes(daemon.directory, EVENTS_ALONE)
            poster = Poster(daemon.socket)
            alone += [poster.post(next(job_ids)) for _ in range(EVENTS_ALONE)]
            poster.close()
            rates.append(_burst(daemon.socket, job_ids))
    limit_ms = 5 * _p99(flushes) * 1e3 + 2
    return [
        Figure(
            what="durable acknowledgement, 1 client, p99",
            value=_p99(alone) * 1e3,
            unit="ms",
            reference="4 KiB append + fdatasync, p99",
            reference_value=_p99(flushes) * 1e3,
            target=f"≤ 5 × reference + 2 ms = {limit_ms:.2f} ms",
            met=at_most(limit_ms, _p99(alone) * 1e3),
        ),
        Figure(
            what=f"durable acknowledgements, {CLIENTS} clients",
            value=statistics.median(rates),
            unit="1/s",
            target="≥ 2000 /s",
            met=at_least(2000, statistics.median(rates)),
        ),
    ]
