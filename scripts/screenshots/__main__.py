"""Takes every picture of docs/images: a real daemon on an embedded PostgreSQL, seeded with a made-up cluster.

Usage: python -m scripts.screenshots [NAME…]     (NAME is a file of docs/images; default: all)

Needs Chromium for the pages. Files are overwritten; look at them before committing.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from scripts import build_docs
from scripts.screenshots import browser, seed, terminal
from tests.daemon_process import Daemon, wait_until

from jobtrail.adapters import embedded_postgres
from jobtrail.adapters.postgres import migrate, open_pool

IMAGES = build_docs.REPOSITORY / "docs" / "images"
LARGEST_BYTES = 200_000
# What `top` shows: real jobs, measured while the picture is taken. Name and what it does.
LIVE = (
    ("arithmetic", "while True: sum(range(10**5))"),
    ("memory", "import time\nheld = bytearray(b'x') * (400 << 20)\ntime.sleep(120)"),
    ("sleeper", "import time\nwhile True: sum(range(2 * 10**5)); time.sleep(0.05)"),
)
# A headless browser takes a page's top, so a later part is shown through a frame that is shifted up.
FRAME = """<!doctype html><body style="margin:0;overflow:hidden">
<iframe src="{page}" scrolling="no" style="display:block;border:0;width:980px;height:{height}px;margin-top:-{top}px">
</iframe>"""


class Scene(NamedTuple):
    """The running daemon and a directory for files in between."""

    daemon: Daemon
    directory: Path


def _command(*arguments: str, columns: int = 100) -> Callable[[Scene, Path], None]:
    def take(scene: Scene, file: Path) -> None:
        terminal.take(file, arguments, scene.daemon.environment(), columns)

    return take


def _top(scene: Scene, file: Path) -> None:
    with _live_jobs(scene.daemon):
        terminal.take(file, ("top", "--once"), scene.daemon.environment(), 90)


def _report(*, dark: bool = False, top: int = 0, height: int = 800) -> Callable[[Scene, Path], None]:
    def take(scene: Scene, file: Path) -> None:
        page = scene.directory / "report.html"
        scene.daemon.cli("report", seed.JOB, "--html", str(page))
        frame = scene.directory / "frame.html"
        frame.write_text(FRAME.format(page=page.name, top=top, height=top + height), encoding="utf-8")
        browser.take(file, frame.as_uri(), width=980, height=height, dark=dark)

    return take


def _api(scene: Scene, file: Path) -> None:
    del scene
    build_docs.build(strict=False)
    browser.take(file, (build_docs.SITE / "api-reference.html").as_uri(), width=1100, height=1000)


PICTURES: dict[str, Callable[[Scene, Path], None]] = {
    "jobs-list.svg": _command("jobs", "list", columns=100),
    "why.svg": _command("jobs", "show", seed.KILLED),
    "report.svg": _command("report", seed.JOB),
    "top.svg": _top,
    "leaderboard.svg": _command("bench", "leaderboard", columns=128),
    "report-light.png": _report(height=785),
    "report-lines.png": _report(top=1232, height=935),
    "report-dark.png": _report(dark=True, height=785),
    "api.png": _api,
}


@contextmanager
def _live_jobs(daemon: Daemon) -> Iterator[None]:
    """A few commands under `jobtrail exec`, once each has figures."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "jobtrail", "exec", "--quiet", "--name", name, "--", sys.executable, "-c", code],
            env=daemon.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for name, code in LIVE
    ]  # fmt: skip
    try:
        wait_until(lambda: len(daemon.metrics().get("hpc_job_cpu_usage_percent", [])) == len(LIVE), "figures of jobs")
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > 4, "a few more looks", timeout_seconds=10)
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


@contextmanager
def _scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="jobtrail-pictures-") as name:
        directory = Path(name)
        with embedded_postgres.running(directory / "postgres") as url:
            migrate.upgrade(url)
            asyncio.run(_seed(url))
            daemon = Daemon(
                directory / "daemon", database={"url": url}, scheduler="local", sampling={"interval_seconds": 1.0},
                logging={"level": "warning"}, cluster=seed.CLUSTER, node="demo-login",
            )  # fmt: skip
            with daemon:
                yield Scene(daemon, directory)


async def _seed(url: str) -> None:
    async with open_pool(url, size=1, timeout_seconds=30.0) as pool:
        await seed.store(pool, datetime.now(UTC).replace(microsecond=0))


def main(names: list[str]) -> int:
    """Take the pictures of `names`, or all; 2 for a name that is none of them, 1 for a picture that is too large."""
    if unknown := [name for name in names if name not in PICTURES]:
        print(f"screenshots: no picture {', '.join(unknown)}; there are {', '.join(PICTURES)}", file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    large = False
    with _scene() as scene:
        for name in names or PICTURES:
            PICTURES[name](scene, IMAGES / name)
            size = (IMAGES / name).stat().st_size
            large |= size > LARGEST_BYTES
            print(f"{name}: {size / 1000:.0f} kB" + (", which is too much" if size > LARGEST_BYTES else ""))
    return int(large)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
