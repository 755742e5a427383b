"""Settings, the files they name, and the settings of the hooks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jobtrail.cli.doctor.findings import Finding, Place, Saying, who_may_write
from jobtrail.config import DEFAULT_PATHS, Config
from jobtrail.config_link import left_open

HOOK_CONF = "/etc/jobtrail/hook.conf"
HOOK_KEYS = frozenset(
    {"JOBTRAIL_SOCKET", "JOBTRAIL_SPOOL", "JOBTRAIL_TIMEOUT", "JOBTRAIL_URL", "JOBTRAIL_TOKEN_FILE"}
    | {"JOBTRAIL_POKE_SOCKET"}
)
SECRET_ENDINGS = ("token_file", "key_file")  # nobody but the daemon may read these
FILE_ENDINGS = ("_file",)
_PASSWORD = re.compile(r"://[^/@]*:[^/@]+@")


def check_settings(place: Place) -> list[Finding]:
    """That they are read, by whom they may be changed, and the files they name. They were found to be valid before."""
    say, path = Saying("settings"), place.settings_file
    if path is None:
        if not place.is_root and DEFAULT_PATHS[0].exists():
            return [say.unchecked(f"{DEFAULT_PATHS[0]} may be read by root alone; defaults are taken instead")]
        named = ", ".join(map(str, DEFAULT_PATHS))
        return [
            say.warning(
                f"there is no settings file ({named}); all are defaults", "copy the example: deploy/jobtrail.yaml"
            )
        ]
    return [_of_file(say, place.config, path), *_of_named_files(say, place.config), *_of_nodes(say, place.config)]


def _of_file(say: Saying, config: Config, path: Path) -> Finding:
    if (problem := who_may_write(path)) is not None:
        return say.failure(f"{path} {problem}", f"chown root {path} && chmod 600 {path}")
    secret = bool(config.slurm.token) or _PASSWORD.search(config.database.url) is not None
    if secret and path.stat().st_mode & 0o004:
        return say.failure(f"{path} holds a password, and everybody may read it", f"chmod o-r {path}")
    return say.ok(f"{path} is valid")


def _of_named_files(say: Saying, config: Config) -> Iterator[Finding]:
    for section in config.__struct_fields__:
        values = getattr(config, section)
        if not isinstance(values, msgspec.Struct):
            continue
        for name in values.__struct_fields__:
            value = getattr(values, name)
            if name.endswith(FILE_ENDINGS) and isinstance(value, str) and value:
                yield from _of_named_file(say, f"{section}.{name}", Path(value))


def _of_named_file(say: Saying, setting: str, path: Path) -> Iterator[Finding]:
    if setting == "audit.anchor_file":  # made when first needed
        if not path.parent.is_dir():
            yield say.failure(f"{setting}: there is no directory {path.parent}", f"mkdir -p {path.parent}")
        return
    if not path.exists():
        yield say.failure(f"{setting}: there is no {path}", f"make {path}, or take {setting} out of the settings")
    elif not os.access(path, os.R_OK):
        yield say.unchecked(f"{setting}: {path} is not readable for you")
    elif (problem := who_may_write(path)) is not None:
        yield say.failure(f"{setting}: {path} {problem}", f"chown root {path} && chmod 600 {path}")
    elif setting.endswith(SECRET_ENDINGS) and path.stat().st_mode & 0o007:
        yield say.failure(f"{setting}: everybody may read {path}", f"chmod 600 {path}")


def _of_nodes(say: Saying, config: Config) -> Iterator[Finding]:
    """What a server that takes from nodes holds against none of them."""
    examples = {
        "link.clusters": "the ClusterName of its nodes, [lab]",
        "link.controllers": "where slurmctld runs, [ctl1]",
    }
    told = left_open(config.link) if config.takes_from_nodes else {}
    for setting, meaning in told.items():
        yield say.warning(f"{setting} is empty: {meaning}", f"set {setting}: {examples[setting]} (docs/security.md)")


def check_hook_settings(place: Place) -> list[Finding]:
    """hook.conf: what it says is understood, and is the same as the daemon's settings."""
    say = Saying("hook-settings")
    if not place.has_slurm_jobs:
        return []
    path = Path(place.environment.get("JOBTRAIL_HOOK_CONF") or HOOK_CONF)
    told: dict[str, str] = {}
    findings = []
    if path.exists():
        if (problem := who_may_write(path)) is not None:
            findings.append(say.failure(f"{path} {problem}", f"chown root {path} && chmod 644 {path}"))
        told = _read(path)
        if unknown := sorted(key for key in told if key.startswith("JOBTRAIL_") and key not in HOOK_KEYS):
            findings.append(
                say.warning(f"{path}: no hook knows {', '.join(unknown)}", f"allowed: {', '.join(sorted(HOOK_KEYS))}")
            )
    spool, socket = place.config.spool.directory, place.config.http.socket
    for key, default, ours, setting in (
        ("JOBTRAIL_SOCKET", "/run/jobtrail/hooks.sock", socket, "http.socket"),
        ("JOBTRAIL_SPOOL", "/var/lib/jobtrail/spool", spool, "spool.directory"),
    ):
        if (theirs := told.get(key, default)) != ours:
            findings.append(
                say.failure(
                    f"the hooks use {theirs}, the daemon {ours}", f"write {key}={ours} into {path}, or mend {setting}"
                )
            )
    timeout = told.get("JOBTRAIL_TIMEOUT", "1.0")
    if not re.fullmatch(r"\d+(\.\d+)?", timeout) or not 0.1 <= float(timeout) <= 1.5:
        findings.append(say.warning(f"{path}: JOBTRAIL_TIMEOUT={timeout} is not used", "give seconds from 0.1 to 1.5"))
    return findings or [
        say.ok(f"{path if path.exists() else 'no hook.conf: defaults'}; the hooks and the daemon agree")
    ]


def _read(path: Path) -> dict[str, str]:
    """KEY=value lines as the hooks read them: a comment begins after a blank, quotes are taken off."""
    told = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.strip().startswith("#"):
            value = value.strip()
            quoted = re.fullmatch(r"""(["'])(.*?)\1.*""", value)
            told[key.strip()] = quoted[2] if quoted else re.split(r"\s#", value)[0].strip()
    return told
