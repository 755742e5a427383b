"""Fixtures of the fault tests: a seed that is told and can be given, figures, and trials."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.faults.clusters import cluster, cluster_template
from tests.faults.figures import FULL, Figures
from tests.faults.trial import Trial

__all__ = ["cluster", "cluster_template"]

SEED = int(os.environ.get("JOBTRAIL_FAULT_SEED") or random.SystemRandom().randrange(2**32))
_told: list[str] = []
NewTrial: TypeAlias = Callable[..., Trial]


def pytest_report_header() -> str:
    """The seed of every draw."""
    return f"faults: JOBTRAIL_FAULT_SEED={SEED} replays; {'all' if FULL else 'quick, JOBTRAIL_FAULTS=full runs all'}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures, and the seed once more: a log is often read from its end."""
    if _told:
        terminalreporter.section(f"faults, JOBTRAIL_FAULT_SEED={SEED}")
        for line in _told:
            terminalreporter.write_line(line)


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Random draws of this test: of the seed and the test's name, so that one test alone replays as it did."""
    return random.Random(SEED ^ zlib.crc32(request.node.name.encode()))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What the test measures; its id is the mark `fault`'s. Kept and told when the test passed."""
    mark = request.node.get_closest_marker("fault")
    assert mark is not None, "a fault test names its place in the catalogue: @pytest.mark.fault('T-01')"
    path = Path(request.node.path).relative_to(Path(__file__).parents[2])
    noted = Figures(mark.args[0], f"{path}::{request.node.name}", SEED)
    failed_before = request.session.testsfailed
    yield noted
    _told.append(noted.line())
    if noted.numbers and request.session.testsfailed == failed_before:
        noted.write()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, as Unix sockets need; its file system is a real one."""
    directory = Path(tempfile.mkdtemp(prefix="jt-", dir=os.environ.get("JOBTRAIL_FAULT_DIRECTORY")))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def new_trial(place: Path, database: str, figures: Figures, draw: random.Random) -> Iterator[NewTrial]:
    """Makes trials on a database of the test's own; each runs as long as its block, at most as long as the test."""
    with ExitStack() as stack:

        def make(name: str = "t", **settings: Any) -> Trial:
            directory = place / name
            directory.mkdir(exist_ok=True)
            given = {"figures": figures, "draw": draw, **settings}
            trial = Trial(directory, given.pop("url", database), **given)
            stack.callback(trial.close)
            return trial

        yield make


@pytest.fixture
def trial(new_trial: NewTrial) -> Iterator[Trial]:
    """One trial with the usual settings, running."""
    with new_trial() as running:
        yield running
