"""What grafana/prometheus holds: rules, their unit tests, and the metrics they speak of."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

REPOSITORY = Path(__file__).parents[2]
DIRECTORY = REPOSITORY / "grafana" / "prometheus"
RULES = sorted((DIRECTORY / "rules").glob("*.yml"))
UNIT_TESTS = sorted((DIRECTORY / "tests").glob("*.yml"))
RUNBOOKS = (REPOSITORY / "docs" / "runbooks.md").read_text(encoding="utf-8")


@functools.cache
def read(path: Path) -> dict[str, Any]:
    """A YAML file's mapping."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def rules() -> Iterator[dict[str, Any]]:
    """Every rule of every group."""
    for path in RULES:
        for group in read(path)["groups"]:
            yield from group["rules"]


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED: dict[str, dict[str, Any]] = {rule["record"]: rule for rule in rules() if "record" in rule}


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector in an expression."""
    return list(_walk(promql_parser.parse(expression)))


def _walk(node: Any) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _walk(node.lhs)
        yield from _walk(node.rhs)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _walk(argument)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    elif hasattr(node, "expr"):
        yield from _walk(node.expr)


def series_name(selector: promql_parser.VectorSelector) -> str:
    """The metric's name, which every selector of ours has."""
    assert selector.name, f"a selector without a name: {selector}"
    return str(selector.name)


def run(*command: str | Path, directory: Path = DIRECTORY) -> str:
    """What a program prints; AssertionError with all of it where it finds something wrong."""
    done = subprocess.run(
        [str(part) for part in command], cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
