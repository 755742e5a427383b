"""docs/configuration.md, deploy/jobtrail.yaml and the settings' code tell the same keys, defaults and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from jobtrail import config as configuration
from jobtrail.config import ALIASES, NOT_SETTINGS, PREFIX, Config
from jobtrail.domain.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "deploy" / "jobtrail.yaml"
TEXT = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `(?P<key>[\w.]+)` \| (?P<type>[^|]+) \| `(?P<default>[^|]*)` \| (?P<names>[^|]+) \| (?P<meaning>[^|]+) \|$",
    re.M,
)


def keys(section: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and default of every setting."""
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


DEFAULTS = dict(keys(Config()))
ROWS = {row["key"]: row for row in ROW.finditer(TEXT)}


def written(value: Any) -> str:
    """A default as the document writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return '""' if value == "" else str(value)


def test_every_key_is_documented_once() -> None:
    """Nothing can be set that the document does not name, and the reverse."""
    assert [row["key"] for row in ROW.finditer(TEXT)] == list(DEFAULTS)


@pytest.mark.parametrize("key", DEFAULTS)
def test_default_and_names_are_documented_as_they_are(key: str) -> None:
    """Default and environment names of a row are the code's."""
    names = [PREFIX + key.upper().replace(".", "__"), *(alias for alias, dotted in ALIASES.items() if dotted == key)]
    assert ROWS[key]["default"] == written(DEFAULTS[key])
    assert re.findall(r"`(\w+)`", ROWS[key]["names"]) == names


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_documented_name_sets_its_key(key: str) -> None:
    """Each name in the environment really reaches its key."""
    value = DEFAULTS[key]
    text = ",".join(value) if isinstance(value, tuple) else written(value).strip('"')
    changed = {
        "scheduler": "local", "logging.level": "error", "logging.format": "json", "roles": "node",
        "slurm.rest_url": "http://slurm:6820", "slurm.rest_version": "v0.0.40",
        "slurm.admin_comment": "summary",
        "gpu.vendors": "nvidia,amd", "gpu.gres_conf": "/etc/slurm/gres.conf", "energy.emission_factor": "LU",
        "http.account_readers": "pis:physics,pis:chemistry", "benchmarks.max_error_ratio": "0.5",
        "metrics.aliases": "slurm-job-exporter,jobstats",
        "link.clusters": "lab,local", "link.controllers": "ctl[1,3],db",
        "audit.accepted_chains": "11111111-0000-4000-8000-000000000000,22222222-0000-4000-8000-000000000000",
    }.get(key)  # fmt: skip
    if changed is None:
        changed = (
            str(not value).lower()
            if isinstance(value, bool)
            else f"{text}x"
            if isinstance(value, str)
            else f"{value + 1}"
        )
    for name in re.findall(r"`(\w+)`", ROWS[key]["names"]):
        loaded = dict(keys(configuration.load(None, {name: changed})))
        assert loaded.pop(key) != value
        assert loaded == {other: default for other, default in DEFAULTS.items() if other != key}


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if re.search(r"\d|over|,", row["type"])])
def test_the_documented_bounds_hold(key: str) -> None:
    """A value outside the documented range or choice is refused, and the message names the key."""
    name = PREFIX + key.upper().replace(".", "__")
    with pytest.raises(ConfigError, match=re.escape(key)):
        configuration.load(None, {name: "-1" if isinstance(DEFAULTS[key], int | float) else "nonsense"})


def test_the_example_file_holds_every_key_with_its_default() -> None:
    """Copying the example changes nothing, and no key is missing in it."""
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    listed = [
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in tree.items()
        for inner in (value if isinstance(value, dict) else [""])
    ]
    assert listed == list(DEFAULTS)
    assert configuration.load(EXAMPLE, {}) == Config()


def test_names_that_are_no_settings_are_told() -> None:
    """Whoever meets one of the hooks' variables finds out whose it is."""
    assert set(re.findall(rf"`({PREFIX}\w+)`", TEXT.partition("Fifteen names")[2])) == NOT_SETTINGS
