"""A page as a headless Chromium shows it, as a PNG."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
)  # fmt: skip
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
TIMEOUT_SECONDS = 120


class NoBrowser(Exception):
    """There is no Chromium on this machine."""


def take(file: Path, page: str, *, width: int, height: int, dark: bool = False) -> None:
    """Write a picture of the address `page` to `file`. Raises NoBrowser."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser(), *QUIET, *(DARK if dark else ()), f"--user-data-dir={profile}", "--virtual-time-budget=5000",
             f"--window-size={width},{height}", f"--screenshot={file}", page],
            check=True, capture_output=True, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip


def browser() -> str:
    """Path of Chromium. Raises NoBrowser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise NoBrowser("chromium is not installed (Debian: apt-get install chromium)")
