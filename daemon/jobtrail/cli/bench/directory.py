"""The directory of one run of a benchmark: the recipe, the run's identity, logs, results and the manifest."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from jobtrail.domain.benchmarks.recipe import Recipe
from jobtrail.domain.benchmarks.recipe_identity import body, from_body, identify
from jobtrail.domain.benchmarks.report import RecipeIdentity
from jobtrail.domain.errors import ConfigError


class RunNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What run.json holds: which run this is, since when (RFC 3339), and the job that was submitted for it."""

    run_uid: str
    created_at: str
    job_id: str | None = None  # as sbatch prints it, without the cluster
    cluster: str | None = None  # where sbatch names one


class RunDirectory:
    """Where everything of one run lies. The path is absolute."""

    def __init__(self, path: Path, run_uid: str, recipe: Recipe, identity: RecipeIdentity) -> None:
        self.path = path
        self.run_uid = run_uid
        self.recipe = recipe
        self.identity = identity

    @classmethod
    def prepare(cls, base: Path, recipe: Recipe, identity: RecipeIdentity) -> RunDirectory:
        """Make a directory below `base` for a new run. Raises OSError when that is not possible."""
        run_uid = str(uuid.uuid4())
        now = datetime.now(UTC)
        path = (base / f"{recipe.name}-{now:%Y%m%dT%H%M%SZ}-{run_uid[:8]}").absolute()
        # For its user alone: who could read the run's uid before the run is over could report it first, as anything.
        path.mkdir(parents=True, mode=0o700)
        made = cls(path, run_uid, recipe, identity)
        write_atomically(made.recipe_file, msgspec.json.format(msgspec.json.encode(body(recipe)), indent=2) + b"\n")
        made._write_note(RunNote(run_uid=run_uid, created_at=now.isoformat(timespec="milliseconds")))
        return made

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A directory that `prepare` made. Raises OSError, or ConfigError naming the file that is not understood."""
        path = path.absolute()
        try:
            recipe = from_body(msgspec.json.decode((path / "recipe.json").read_bytes(), type=dict))
        except msgspec.MsgspecError as error:
            raise ConfigError(str(path / "recipe.json"), f"not the recipe of a run: {error}") from error
        try:
            note = msgspec.json.decode((path / "run.json").read_bytes(), type=RunNote)
        except msgspec.MsgspecError as error:
            raise ConfigError(str(path / "run.json"), f"not the note of a run: {error}") from error
        return cls(path, note.run_uid, recipe, identify(recipe))

    def note(self) -> RunNote:
        """What run.json says now. Raises OSError or msgspec.MsgspecError."""
        return msgspec.json.decode(self.run_file.read_bytes(), type=RunNote)

    def note_job(self, job_id: str, cluster: str | None) -> None:
        """Write down the job that was submitted for this run. Raises OSError."""
        self._write_note(msgspec.structs.replace(self.note(), job_id=job_id, cluster=cluster))

    def _write_note(self, note: RunNote) -> None:
        write_atomically(self.run_file, msgspec.json.format(msgspec.json.encode(note), indent=2) + b"\n")

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe, whole."""
        return self.path / "recipe.json"

    @property
    def run_file(self) -> Path:
        """Which run this is."""
        return self.path / "run.json"

    @property
    def manifest_file(self) -> Path:
        """The run's report; it appears whole when the run is over."""
        return self.path / "manifest.json"

    @property
    def stage_file(self) -> Path:
        """What the run does at the moment."""
        return self.path / "stage.json"

    @property
    def run_log(self) -> Path:
        """What the run itself printed, in the job or here."""
        return self.path / "run.log"

    @property
    def server_log(self) -> Path:
        """What the server printed."""
        return self.path / "server.log"

    def load_log(self, number: int) -> Path:
        """What the load of repeat `number`, from 1, printed; 0 is the warm-up."""
        return self.path / f"load-{number}.log"

    def result_file(self, number: int) -> Path:
        """What the load of repeat `number`, from 1, measured."""
        return self.path / f"result-{number}.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Whoever reads the file sees the old content or the new, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
