"""What a test needs from its machine, and what happens where the machine has it not."""

import os
import shutil
from typing import NoReturn

import pytest


def unmet(reason: str) -> NoReturn:
    """Fail the test where CI=true, because there everything must be present; elsewhere skip it and say why."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI lacks what this test needs: {reason}", pytrace=False)
    pytest.skip(reason)


def require_tool(name: str, why: str) -> str:
    """Return the path of the program `name`; `why` says what cannot be tested without it."""
    path = shutil.which(name)
    if path is None:
        unmet(f"{name} is not installed: {why}")
    return path


def require_root(why: str) -> None:
    """Leave the test where it is not run by root; `why` says what only root can arrange."""
    if os.geteuid() != 0:
        unmet(f"needs root: {why}")
