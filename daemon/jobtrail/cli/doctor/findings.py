"""What a check found, and what checks are given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from jobtrail.config import Config

Level = Literal["ok", "warning", "failure", "not checked"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence about what is, and, where something is wrong, one about what to do."""

    check: str
    level: Level
    found: str
    remedy: str = ""


class Saying:
    """Makes the findings of one check."""

    def __init__(self, check: str) -> None:
        self._check = check

    def ok(self, found: str) -> Finding:
        """As it should be."""
        return Finding(check=self._check, level="ok", found=found)

    def warning(self, found: str, remedy: str) -> Finding:
        """Events are safe, but less is known or promised than could be."""
        return Finding(check=self._check, level="warning", found=found, remedy=remedy)

    def failure(self, found: str, remedy: str) -> Finding:
        """Jobs or nodes come to harm, or nothing is recorded."""
        return Finding(check=self._check, level="failure", found=found, remedy=remedy)

    def unchecked(self, why: str, remedy: str = "") -> Finding:
        """Nothing can be said."""
        return Finding(check=self._check, level="not checked", found=why, remedy=remedy)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the checks look."""

    config: Config
    settings_file: Path | None
    environment: Mapping[str, str]
    is_root: bool

    @property
    def is_node(self) -> bool:
        """Whether jobs run here."""
        return "node" in self.config.roles

    @property
    def has_slurm_jobs(self) -> bool:
        """Whether jobs of Slurm run here."""
        return self.is_node and self.config.scheduler == "slurm"

    @property
    def asks_slurm(self) -> bool:
        """Whether the daemon here asks Slurm what became of jobs."""
        return "server" in self.config.roles and self.config.scheduler == "slurm"


Check = Callable[[Place], list[Finding]]


def who_may_write(path: Path) -> str | None:
    """Why a file that root runs or reads is not safe from others; None where it is. Raises OSError."""
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {status.st_uid}"
    if status.st_mode & 0o022:
        return f"may be written by others (mode {status.st_mode & 0o7777:04o})"
    return None
