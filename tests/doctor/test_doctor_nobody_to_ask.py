"""A server that asks neither slurmrestd nor sacct: told so on purpose, or because something is missing."""

from __future__ import annotations

import pytest

from tests.doctor.patient import Patient


def test_a_server_that_was_told_to_ask_nobody_is_warned(patient: Patient) -> None:
    """It says what is lost; who wants no warnings either says --strict."""
    patient.set(slurm={"sacct": ""})
    told = patient.doctor("slurmrestd,sacct")
    assert (told.code, told.only()["level"]) == (0, "warning")
    for lost in ("cancelled, out of time or preempted", "epilog was lost", "no hook announced"):
        assert lost in told.only()["found"]
    assert "slurm.rest_url or slurm.sacct" in told.only()["remedy"]
    assert patient.doctor("slurmrestd,sacct", "--strict").code == 1


@pytest.mark.parametrize("named", [None, "/nonexistent/sacct"])
def test_sacct_that_is_wanted_and_not_there_is_a_failure(patient: Patient, named: str | None) -> None:
    """The default as well as what the settings name; the way out names all three."""
    if named is not None:
        patient.set(slurm={"sacct": named})
    told = patient.doctor("slurmrestd,sacct", PATH="/nonexistent")
    assert (told.code, told.only()["level"]) == (1, "failure")
    assert f"({named or 'sacct'}, of slurm.sacct" in told.only()["found"]
    for way in ("set slurm.rest_url", "Slurm's client commands", 'slurm.sacct: ""', "scheduler: local"):
        assert way in told.only()["remedy"]


def test_with_slurmrestd_nobody_misses_sacct(patient: Patient) -> None:
    patient.set(slurm={"sacct": "", "rest_url": "http://127.0.0.1:1"})
    assert patient.doctor("sacct").levels("sacct") == []


def test_a_node_alone_asks_nobody(patient: Patient) -> None:
    """Only the role of a server asks, whatever the settings name."""
    patient.set(roles=["node"], slurm={"sacct": "/nonexistent/sacct"})
    told = patient.doctor("slurmrestd,sacct")
    assert (told.code, told.findings) == (0, [])
