"""The database, the servers and Slurm's services: each thing that can be wrong with them is made wrong, and told."""

from __future__ import annotations

import secrets
from pathlib import Path

import psycopg
import pytest
import yaml

from jobtrail.adapters.postgres import migrate
from tests.acceptance.test_servers import port_of
from tests.certificates import Authority
from tests.daemon_process import Daemon
from tests.doctor.patient import RUN_SECONDS, Patient
from tests.postgres import PostgresServer


def login(server: PostgresServer, url: str, role: str = "") -> str:
    """The URL of a fresh login, in `role` if that is given."""
    name = f"login_{secrets.token_hex(4)}"
    server.execute(f"CREATE ROLE {name} LOGIN {f'IN ROLE {role}' if role else ''}")
    return url.replace("//postgres@", f"//{name}@")


def test_no_database(patient: Patient) -> None:
    assert patient.doctor("database").worst("no database is configured: events wait in the spool") == "failure"


@pytest.mark.parametrize("url", ["postgresql://somebody:secret@127.0.0.1:1/jobtrail", "postgresql:/me:secret@db/x"])
def test_a_database_that_does_not_answer(patient: Patient, url: str) -> None:
    """Nor may its password be told, not even of a URL that libpq cannot read and quotes."""
    patient.set(database={"url": url})
    told = patient.doctor("database")
    assert told.worst("it cannot be asked") == "failure"
    assert "secret" not in told.printed


def test_a_database_as_it_should_be(patient: Patient, postgres_server: PostgresServer, database: str) -> None:
    patient.set(database={"url": login(postgres_server, database, "jobtrail_ingest")})
    assert patient.doctor("database").only()["level"] == "ok"


def test_a_login_that_may_not_store(patient: Patient, postgres_server: PostgresServer, database: str) -> None:
    patient.set(database={"url": login(postgres_server, database)})
    told = patient.doctor("database")
    assert told.worst("may not store events: it is not in the role jobtrail_ingest") == "failure"


def test_a_login_that_may_do_too_much(patient: Patient, postgres_server: PostgresServer, database: str) -> None:
    patient.set(database={"url": database})
    assert patient.doctor("database").worst("the login postgres is a superuser: it could change the trail") == "warning"
    url = login(postgres_server, database, "jobtrail_ingest")
    name = url.partition("//")[2].partition("@")[0]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"GRANT DELETE ON audit_log TO {name}".encode())
    patient.set(database={"url": url})
    assert patient.doctor("database").worst("may change or delete rows of the trail") == "warning"


def test_a_database_of_another_release(patient: Patient, postgres_server: PostgresServer, empty_database: str) -> None:
    patient.set(database={"url": empty_database})
    assert patient.doctor("database").worst("it has no tables of Jobtrail's") == "failure"
    migrate.upgrade(empty_database, "0008")
    told = patient.doctor("database")
    assert told.worst(f"it is at revision 0008, this release needs {migrate.head()}") == "failure"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert patient.doctor("database").worst("it is at revision 9999") == "warning"


@pytest.mark.parametrize(("seconds", "level"), [("-3", "warning"), ("3600", "failure")])
def test_a_clock_that_is_not_the_databases(
    patient: Patient, postgres_server: PostgresServer, database: str, preload: Path, seconds: str, level: str
) -> None:
    patient.set(database={"url": login(postgres_server, database, "jobtrail_ingest")})
    told = patient.doctor("database", LD_PRELOAD=str(preload), FAKE_SHIFT=seconds)
    side = "ahead of" if seconds.startswith("-") else "behind"
    assert told.worst(f"s {side} this machine's") == level


def test_a_database_that_answers_late_is_not_taken_for_one_with_a_wrong_clock(
    patient: Patient, postgres_server: PostgresServer, database: str
) -> None:
    """When its clock was read, in the time that the answer took, nobody knows."""
    url = login(postgres_server, database, "jobtrail_ingest")
    name = url.partition("//")[2].partition("@")[0]
    slow = (
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
        " 'SELECT now FROM (SELECT pg_catalog.clock_timestamp() AS now OFFSET 0) AS read, pg_sleep(3)'"
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(slow.encode())
        connection.execute(f"ALTER ROLE {name} SET search_path = public, pg_catalog".encode())
    patient.set(database={"url": url})
    assert patient.doctor("database").only()["level"] == "ok"


def test_servers(patient: Patient, tmp_path: Path, database: str) -> None:
    """One that takes what comes; then with another token; whose certificate nobody signed; that is not there."""
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    certificate, key = authority.server()
    web, token, wrong = tmp_path / "web.yml", tmp_path / "nodes.token", tmp_path / "wrong.token"
    web.write_text(yaml.safe_dump({"tls_server_config": {"cert_file": str(certificate), "key_file": str(key)}}))
    for path in (token, wrong):
        path.write_text(secrets.token_hex(16))
    for path in (web, token, wrong):
        path.chmod(0o600)
    server = Daemon(
        tmp_path / "server", roles=["server"], node="s1", slurm={"sacct": ""}, database={"url": database},
        http={"web_config_file": str(web), "node_token_file": str(token)},
    )  # fmt: skip
    with server:
        url = f"https://127.0.0.1:{port_of(server)}"
        link = {"ca_file": str(authority.certificate), "token_file": str(token)}
        patient.set(roles=["node"], node="n1", database={"url": f"{url},https://127.0.0.1:1"}, link=link)
        told = patient.doctor("servers")
        assert told.worst(f"{url} answers, and takes what n1 sends") == "ok"
        assert told.worst("the server https://127.0.0.1:1 is not reached") == "failure"
        patient.set(database={"url": url}, link={"token_file": str(wrong)})
        assert patient.doctor("servers").levels("servers") == ["failure"]
        patient.set(link={"ca_file": str(other.certificate), "token_file": str(token)})
        assert patient.doctor("servers").worst("its certificate is not good") == "failure"


def test_slurmrestd_that_is_not_there(patient: Patient) -> None:
    patient.set(slurm={"rest_url": "http://127.0.0.1:1"})
    assert patient.doctor("slurmrestd").levels("slurmrestd") == ["failure"]


@pytest.mark.parametrize(
    ("script", "seconds", "level"),
    [
        ("echo 'sacct: error: slurm_persist_conn_open: Connection refused' >&2; exit 1", 60.0, "failure"),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", 60.0, "warning"),
        (f"exec sleep {2 * RUN_SECONDS}", 1.0, "failure"),
    ],
)
def test_sacct_that_does_not_answer(patient: Patient, script: str, seconds: float, level: str) -> None:
    sacct = patient.directory / "sacct"
    sacct.write_text(f"#!/bin/sh\n{script}\n")
    sacct.chmod(0o755)
    patient.set(slurm={"sacct": str(sacct), "timeout_seconds": seconds})
    assert patient.doctor("sacct").levels("sacct") == [level]


def test_sacct_without_accounting_where_slurmrestd_is_asked(patient: Patient) -> None:
    """There is nothing to mend: slurmrestd tells what sacct cannot."""
    sacct = patient.directory / "sacct"
    sacct.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2; exit 1\n")
    sacct.chmod(0o755)
    patient.set(slurm={"sacct": str(sacct), "timeout_seconds": 60.0, "rest_url": "unix:/nowhere.sock"})
    assert patient.doctor("sacct").levels("sacct") == []


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1", "Unable to contact slurm"),
        (f"exec sleep {2 * RUN_SECONDS}", "scontrol did not answer within 5 s"),
        ("echo 'Prolog                  = /elsewhere/prolog.sh'", "slurmctld uses another Prolog, Epilog"),
    ],
)
def test_slurmctld(patient: Patient, script: str, text: str) -> None:
    programs = patient.directory / "bin"
    programs.mkdir()
    scontrol = programs / "scontrol"
    scontrol.write_text(f"#!/bin/sh\n{script}\n")
    scontrol.chmod(0o755)
    assert patient.doctor("slurmctld", PATH=f"{programs}:/usr/bin:/bin").worst(text) == "warning"
