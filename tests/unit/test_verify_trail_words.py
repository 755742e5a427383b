"""What scripts/verify_trail.py says of files that are none, and where it is told too little."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sealed_trail import SCRIPT


def said(*arguments: object) -> tuple[int, str]:
    argv = [sys.executable, "-I", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def export(tmp_path: Path) -> Path:
    path = tmp_path / "trail.jsonl"
    path.write_text('{"jobtrail_export":1,"scope":"trail"}\n')
    return path


def test_files_that_cannot_be_used_are_named_in_words(tmp_path: Path, export: Path) -> None:
    assert said(tmp_path / "nofile") == (2, f"verify_trail: {tmp_path}/nofile cannot be verified: "
                                            f"{tmp_path}/nofile: No such file or directory\n")  # fmt: skip
    for content in ("", "-----BEGIN\n", '{"jobtrail_export":1}\n', '{"jobtrail_export":1,"scope":"trail"}\n[]\n'):
        export.write_text(content)
        code, words = said(export)
        assert (code, "it is not as `jobtrail audit export`" in words) == (2, True), words
    export.write_text('{"jobtrail_export":2}\n')
    assert "is no export of this version\n" in said(export)[1]


def test_without_anchors_it_says_what_that_cannot_show(tmp_path: Path, export: Path) -> None:
    code, words = said(export)
    assert (code, words.splitlines()[-2:]) == (
        0, ["nothing is wrong", "without --anchors a trail that was recomputed as a whole looks right too"]
    )  # fmt: skip
    anchors = tmp_path / "anchors"
    anchors.write_text("1\t0123456789abcdef\n")
    code, words = said(export, "--anchors", anchors)
    assert (code, "without --anchors" in words) == (1, False)
    assert json.loads(said(export, "--json")[1])["findings"] == []


def test_it_is_short_enough_to_be_read_before_it_is_believed() -> None:
    """docs/audit.md says that it is; who grows it is to find what it can do without."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 300
    assert max(map(len, lines)) <= 120
