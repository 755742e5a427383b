"""Who else is needed: the database or the servers, slurmrestd, sacct, and slurmctld's own view of its settings."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable

from jobtrail.cli.doctor.findings import Finding, Place, Saying
from jobtrail.cli.doctor.slurm_files import RECONFIGURE, slurm_conf_of
from jobtrail.domain.errors import (
    ConfigError,
    JobtrailError,
    SlurmDenied,
    SlurmError,
    SlurmHasNone,
    StoreRefused,
    StoreUnavailable,
)
from jobtrail.domain.phrases import counted

SLURM_SECONDS = 5.0
CLOCK_SECONDS = 1.0
WRONG_CLOCK_SECONDS = 30.0
COMPARED = (
    "Prolog",
    "Epilog",
    "PrologFlags",
    "PrologEpilogTimeout",
    "TaskEpilog",
    "PrologSlurmctld",
    "EpilogSlurmctld",
)


def check_database(place: Place) -> list[Finding]:
    """Reachable, of this release, with the rights that are needed and no more, and of the same time."""
    say, config = Saying("database"), place.config
    if config.forwards_to_servers:
        return []
    if not config.database.url:
        if not place.is_root:
            return [say.unchecked("its address is in settings that root alone may read")]
        return [say.failure("no database is configured: events wait in the spool", "set database.url")]
    import psycopg

    try:
        with psycopg.connect(config.database.url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SET statement_timeout = '5s'")
            return _of_database(say, connection) or [say.ok("it answers, and is of this release")]
    except psycopg.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = _without_password(said, config.database.url)
        remedy = "see host, port, login and password of database.url, pg_hba.conf, and whether PostgreSQL runs"
        return [say.failure(f"it cannot be asked: {said}", remedy)]


def _without_password(text: str, url: str) -> str:
    """libpq's words without what it quotes of a URL that it cannot read."""
    for secret in (url, *re.findall(r":([^:/@]+)@", url)):
        text = text.replace(secret, "…")
    return text


def _of_database(say: Saying, connection: object) -> list[Finding]:
    import psycopg

    from jobtrail.adapters.postgres import migrate

    assert isinstance(connection, psycopg.Connection)
    findings = []

    def one(query: str) -> tuple[object, ...]:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return tuple(row)

    began = time.time()
    (theirs,) = one("SELECT extract(epoch FROM clock_timestamp())::float8")
    ended = time.time()
    assert isinstance(theirs, float)
    # Its clock was read at some moment between the question and the answer: nothing within these is wrong.
    apart = max(theirs - ended, began - theirs)
    if apart > CLOCK_SECONDS:
        told = f"its clock is {apart:.1f} s {'ahead of' if theirs > ended else 'behind'} this machine's"
        make = say.failure if apart > WRONG_CLOCK_SECONDS else say.warning
        findings.append(make(told, "synchronise both (see the check `clock`)"))
    (there,) = one("SELECT to_regclass('public.alembic_version') IS NOT NULL")
    if not there:
        return [
            *findings,
            say.failure("it has no tables of Jobtrail's", "run `jobtrail migrate` with the owner's login"),
        ]
    # Not a name of a revision where the login may not even read it; which is told of below.
    (may_read,) = one("SELECT has_table_privilege('public.alembic_version', 'SELECT')")
    revision = one("SELECT version_num FROM public.alembic_version")[0] if may_read else None
    if may_read and revision != migrate.head():
        told = f"it is at revision {revision}, this release needs {migrate.head()}"
        older = str(revision) < migrate.head()
        remedy = (
            "run `jobtrail migrate` with the owner's login" if older else "install the release that it was migrated by"
        )
        findings.append(say.failure(told, remedy) if older else say.warning(told, remedy))
    return [
        *findings,
        *_of_login(say, one("SELECT current_user::text, rolsuper FROM pg_roles WHERE rolname = current_user"), one),
    ]


def _of_login(say: Saying, login: tuple[object, ...], one: object) -> list[Finding]:
    assert callable(one)
    name, is_super = login
    if is_super:
        remedy = "use a login that is IN ROLE jobtrail_ingest and nothing more (docs/installation.md)"
        return [say.warning(f"the login {name} is a superuser: it could change the trail", remedy)]
    (ingests,) = one(
        "SELECT coalesce(bool_or(pg_has_role(oid, 'USAGE')), false) FROM pg_roles WHERE rolname = 'jobtrail_ingest'"
    )
    (changes,) = one("SELECT coalesce(bool_or(has_table_privilege(oid, 'UPDATE, DELETE')), false) "
                     "FROM pg_class WHERE oid = to_regclass('public.audit_log')")  # fmt: skip
    findings = []
    if not ingests:
        found = f"the login {name} may not store events: it is not in the role jobtrail_ingest"
        findings.append(say.failure(found, f"GRANT jobtrail_ingest TO {name};"))
    if changes:
        found = f"the login {name} may change or delete rows of the trail"
        findings.append(say.warning(found, "use a login that owns no table (docs/installation.md)"))
    return findings


def check_servers(place: Place) -> list[Finding]:
    """Each server that this node forwards to: reached, trusted, and letting this node in."""
    if not place.config.forwards_to_servers:
        return []
    from jobtrail.adapters.server_link import LinkEvents, LinkSettings, ServerLink, server_urls

    say, config, named = Saying("servers"), place.config, place.config.link
    findings = []
    try:
        urls = server_urls(config.database.url)
    except ConfigError as error:
        return [say.failure(str(error), "mend database.url")]
    for url in urls:
        settings = LinkSettings(
            urls=(url,), node=config.node_name, ca_file=named.ca_file, certificate_file=named.certificate_file,
            key_file=named.key_file, token_file=named.token_file, connect_seconds=named.connect_timeout_seconds,
            timeout_seconds=SLURM_SECONDS,
        )  # fmt: skip

        async def ask(settings: LinkSettings = settings) -> None:
            link = ServerLink(settings, tell=lambda _: None)
            try:
                await LinkEvents(link).head(str(uuid.uuid4()))  # of a chain that nobody has: nothing is changed
            finally:
                await link.close()

        try:
            asyncio.run(ask())
            findings.append(say.ok(f"{url} answers, and takes what {config.node_name} sends"))
        except (StoreUnavailable, StoreRefused) as error:
            remedy = "see link.ca_file, link.certificate_file, link.token_file (docs/security.md), and the server's log"
            findings.append(say.failure(str(error), remedy))
    return findings


def check_slurmrestd(place: Place) -> list[Finding]:
    """That it answers with this token."""
    say, slurm = Saying("slurmrestd"), place.config.slurm
    if not place.asks_slurm or not slurm.rest_url:
        return []

    from jobtrail.adapters.clock import SystemClock
    from jobtrail.adapters.slurmrest import RestSettings, SlurmRest

    async def ask() -> int:
        settings = RestSettings(
            url=slurm.rest_url, version=slurm.rest_version, user=slurm.rest_user, token=slurm.token,
            token_file=slurm.token_file, timeout_seconds=min(SLURM_SECONDS, slurm.timeout_seconds), poll_seconds=0.1,
        )  # fmt: skip
        async with SlurmRest.opened(settings, clock=SystemClock()) as rest:
            return len(await rest.nodes())

    remedy = "see slurm.rest_url, and whether slurmrestd and slurmctld run"
    return _of_slurm(say, ask(), lambda nodes: f"{counted(nodes, 'node')} known to it", remedy)


def check_sacct(place: Place) -> list[Finding]:
    """That it answers, within its time."""
    say, slurm = Saying("sacct"), place.config.slurm
    if not place.asks_slurm:
        return []
    if not slurm.sacct or shutil.which(slurm.sacct) is None:
        if slurm.rest_url:
            return []
        return [_nobody_to_ask(say, slurm.sacct)]
    from jobtrail.adapters.sacct import Sacct

    sacct = Sacct(slurm.sacct, slurm.conf, timeout_seconds=min(SLURM_SECONDS, slurm.timeout_seconds), pace_seconds=0.0)

    async def ask() -> int:
        return len((await sacct.runs_of([1], since=int(time.time()))).records)

    # Without accounting there is nothing to be asked for where slurmrestd is asked.
    remedy = "do what it says; whether slurmdbd answers: `sacctmgr show cluster`"
    return _of_slurm(say, ask(), lambda _: "it answers", remedy, may_have_none=bool(slurm.rest_url))


def _nobody_to_ask(say: Saying, sacct: str) -> Finding:
    """No failure where somebody wrote `sacct: ""`: what is recorded is true and safe, and less of it."""
    if not sacct:
        found = (
            'slurm.sacct is "" and slurm.rest_url is not set, so nobody is asked what became of jobs: whether one that '
            "ended with 0 was cancelled, out of time or preempted stays unknown; one whose epilog was lost ends when "
            "its node infers that, or stays open; one that no hook announced is not recorded"
        )
        remedy = "set slurm.rest_url or slurm.sacct; as it was meant so, there is nothing to do"
        return say.warning(found, remedy)
    found = (
        f"there is neither slurmrestd (slurm.rest_url) nor sacct ({sacct}, of slurm.sacct, is not installed or not in "
        "PATH): whether a job that ended with 0 was cancelled stays unknown"
    )
    remedy = (
        "set slurm.rest_url, or install Slurm's client commands, or set slurm.sacct to where sacct is; where neither "
        'shall be asked, slurm.sacct: ""; where no Slurm is, scheduler: local'
    )
    return say.failure(found, remedy)


def _of_slurm(
    say: Saying, question: Awaitable[int], well: Callable[[int], str], remedy: str, *, may_have_none: bool = False
) -> list[Finding]:
    async def answer() -> int:
        return await question

    try:
        return [say.ok(well(asyncio.run(answer())))]
    except SlurmHasNone as error:
        if may_have_none:
            return []
        return [say.warning(str(error), "set slurm.rest_url, or have slurmdbd keep accounting")]
    except SlurmDenied as error:
        return [say.failure(str(error), "see slurm.token_file and slurm.rest_user, and whether the token has run out")]
    except (SlurmError, JobtrailError) as error:
        return [say.failure(str(error), remedy)]


def check_slurmctld(place: Place) -> list[Finding]:
    """That slurmctld uses the slurm.conf that was looked at. Its command is ended at its deadline."""
    say = Saying("slurmctld")
    scontrol = shutil.which("scontrol")
    if not place.has_slurm_jobs or scontrol is None:
        return []
    conf = slurm_conf_of(place)
    if conf.problem is not None:
        return []
    import subprocess

    environment = {"PATH": place.environment.get("PATH", "/usr/bin:/bin"), "SLURM_CONF": conf.path}
    try:
        done = subprocess.run(
            [scontrol, "show", "config"], env=environment, capture_output=True, timeout=SLURM_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [say.warning(f"scontrol did not answer within {SLURM_SECONDS:g} s", "see whether slurmctld runs")]
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return [say.warning(f"scontrol: {said[-1] if said else 'failed'}", "see whether slurmctld and munge run")]
    used = dict(re.findall(r"^(\w+)(?:\[\d+\])?\s+= (.*)$", done.stdout.decode(errors="replace"), re.M))
    other = [key for key in COMPARED if not _same(conf.value(key), used.get(key, ""))]
    if other:
        return [
            say.warning(
                f"slurmctld uses another {', '.join(other)} than {conf.path} says", f"see which is right, {RECONFIGURE}"
            )
        ]
    return [say.ok(f"it uses what {conf.path} says")]


def _same(written: str | None, used: str) -> bool:
    """Whether a value is in what scontrol prints: of several hooks it prints all, of flags more than were asked for."""
    used = "" if used.strip() in ("(null)", "NONE") else used.strip()
    if written is None:
        return used in ("", "65534", "Alloc,Contain") or bool(used)
    wanted = {word.casefold() for word in written.split(",")}
    return wanted <= {word.casefold() for word in re.split(r"[,\s]+|sec", used)}
