"""The captured answers of slurmrestd, and what sacct and scontrol said at the same moment."""

import re
from datetime import UTC, datetime
from pathlib import Path

from jobtrail.adapters.slurmrest.accounting import slurmdb_record
from jobtrail.adapters.slurmrest.answers import job_answer, open_envelope
from jobtrail.adapters.slurmrest.jobs import slurmctld_record
from jobtrail.domain.slurm import SlurmAnswer

CAPTURES = Path(__file__).parent.parent / "fixtures" / "slurmrest"
SCENARIOS = sorted(path.parent for path in CAPTURES.glob("slurm-*/*/end.sacct.txt"))


def named(path: Path) -> str:
    """A capture's name in a test's id: slurm-22.05/09a-requeue/end.rest-jobs-v0.0.38.json."""
    return str(path.relative_to(CAPTURES))


def version_of(path: Path) -> int:
    """The data version of an answer: 38 of v0.0.38."""
    return int(path.stem.rpartition(".")[2])


def controller_answer(path: Path) -> SlurmAnswer:
    """The records of an answer of slurmctld's part."""
    return job_answer(open_envelope(path.read_bytes()).jobs, slurmctld_record)


def accounting_answer(path: Path) -> SlurmAnswer:
    """The records of an answer of slurmdb's part; root is uid 0 and nobody else is known."""
    return job_answer(
        open_envelope(path.read_bytes()).jobs,
        lambda fields: slurmdb_record(fields, version=version_of(path), uid_of={"root": 0}.get),
    )


def sacct_rows(scenario: Path) -> dict[tuple[str, int | None], list[dict[str, str]]]:
    """What `sacct -P --duplicates` printed, by job and time of submission: the run's own row, then those of its steps.

    Rows of jobs whose texts hold the delimiter or a newline are left out; they cannot be told apart.
    """
    header, *lines = (scenario / "end.sacct.txt").read_bytes().decode(errors="replace").splitlines()
    columns = header.split("|")
    runs: dict[tuple[str, int | None], list[dict[str, str]]] = {}
    run: list[dict[str, str]] | None = None
    for line in lines:
        values = line.split("|")
        job, _, step = values[1].partition(".") if len(values) == len(columns) else ("", "", "")
        if not job.isdecimal():
            run = None
            continue
        row = dict(zip(columns, values, strict=True))
        if not step:
            run = runs.setdefault((f"slurm-{job}", seconds(row["Submit"])), [])
        if run is not None:
            run.append(row)
    return runs


def scontrol_records(scenario: Path) -> dict[str, dict[str, str]]:
    """What `scontrol show job` printed, by job."""
    text = (scenario / "end.scontrol.txt").read_bytes().decode(errors="replace")
    found = {}
    for block in re.split(r"^(?=JobId=)", text, flags=re.MULTILINE):
        if match := re.match(r"JobId=([0-9]+) ", block):
            # The first line ends with the job's name, which can hold anything.
            pairs = re.findall(r"(?<=[ \n])([A-Z][\w/:]*)=(\S*)", block.partition("\n   UserId=")[2])
            pairs.append(("UserId", block.partition("\n   UserId=")[2].partition(" ")[0]))
            found[f"slurm-{match[1]}"] = dict(reversed(pairs))
    return found


def seconds(text: str) -> int | None:
    """Unix seconds of a time of the machine on which the captures were made, which kept UTC; None for no time."""
    if text in {"Unknown", "None", "N/A", ""}:
        return None
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def cpu_milliseconds(text: str) -> int:
    """sacct's TotalCPU: [days-][hours:]minutes:seconds[.thousandths]."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    whole, _, thousandths = parts[-1].partition(".")
    total = int(whole) + 60 * int(parts[-2]) + (3600 * int(parts[0]) if len(parts) == 3 else 0)
    return (total + 86_400 * int(days or 0)) * 1000 + int(thousandths or 0)


def memory_bytes(text: str) -> int:
    """sacct's MaxRSS: 225K, 4304K, 1.5M."""
    return int(float(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1))
