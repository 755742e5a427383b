"""docs/migrating.md names every alias and only metrics that there are."""

import re

from jobtrail.adapters.exposition import ALIAS_FAMILIES, FAMILIES
from tests.daemon_process import REPOSITORY

TEXT = (REPOSITORY / "docs" / "migrating.md").read_text(encoding="utf-8")
BEFORE, AFTER = TEXT.split("## slurm-job-exporter")
OURS = {family.name for family in FAMILIES}


def without_alias() -> set[str]:
    """Names that the document says have no alias."""
    told = re.findall(r"No alias: (.*?)(?:\n\n|\Z)", AFTER, re.DOTALL)
    return {name for text in told for name in re.findall(r"`((?:slurm_job|cgroup|DCGM_FI)_\w+)`", text)}


def test_every_tool_has_a_word_and_a_list() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", BEFORE, re.MULTILINE) == list(ALIAS_FAMILIES)


def test_every_alias_is_in_a_table() -> None:
    rows = "\n".join(line.split(" | ")[0] for line in AFTER.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`((?:slurm_job|cgroup|DCGM_FI)_\w+)`", rows))
    assert named == {family.name for families in ALIAS_FAMILIES.values() for family in families}


def test_what_has_no_alias_has_none() -> None:
    assert without_alias(), "the document says what is left out"
    assert not without_alias() & {family.name for families in ALIAS_FAMILIES.values() for family in families}


def test_every_name_of_ours_is_one() -> None:
    named = set(re.findall(r"\b(hpc_\w+)", TEXT)) - {"hpc_job"}
    assert named <= OURS, named - OURS
