"""A fresh patient, and another clock."""

import subprocess
from pathlib import Path

import pytest

from tests.doctor.patient import Patient
from tests.requirements import require_tool


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """All that concerns files is well; nothing runs."""
    return Patient(tmp_path)


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that gives a process another clock."""
    compiler = require_tool("gcc", "wrong clocks cannot be made")
    target = tmp_path_factory.mktemp("preload") / "clock.so"
    source = Path(__file__).with_name("preload.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", target, source, "-ldl"], check=True)
    return target
