"""Settings: one YAML file, every key also in the environment, unknown keys refused.

A key `section.name` is read from `JOBTRAIL_SECTION__NAME` too, and the environment wins. The names DATABASE_URL, HOST,
PORT, SCHEDULER_BACKEND, SLURM_BASE_URL, SLURM_API_VERSION, SLURM_AUTH_TOKEN, METRICS_RETENTION_DAYS and SEED_DEMO are
honoured as well.
"""

from __future__ import annotations

import os
import platform
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from jobtrail.config_link import Link, check_link
from jobtrail.domain.emissions import check_pue, read_factor
from jobtrail.domain.errors import ConfigError

DEFAULT_PATHS = (Path("/etc/jobtrail/jobtrail.yaml"), Path(".jobtrail/jobtrail.yaml"))

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Role = Literal["node", "server"]
GpuVendor = Literal["nvidia", "amd"]
AliasOf = Literal["slurm-job-exporter", "cgroup_exporter", "jobstats", "dcgm-exporter"]
# Written with commas in the environment; of the second, nothing there is a list of nothing.
LISTS = frozenset({
    "roles", "gpu.vendors", "metrics.aliases", "http.account_readers", "audit.accepted_chains", "link.clusters",
    "link.controllers",
})  # fmt: skip
MAY_BE_EMPTY = LISTS - {"roles", "gpu.vendors"}
NO_LISTS = frozenset({"auto", "none"})  # words that may stand in a list's place


class Http(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon's sockets."""

    host: str = "127.0.0.1"
    port: Port = 8080
    socket: str = "/run/jobtrail/hooks.sock"
    poke_socket: str = "auto"  # open to all users, for what is theirs; auto: poke.sock beside socket, empty: none
    read_token_file: str = ""  # holds the token with which jobs may be read over TCP; empty refuses that
    write_token_file: str = ""  # holds the token with which decisions come in over TCP; empty refuses them
    admin_token_file: str = ""  # holds the token of who looks after the daemon over TCP; empty refuses that
    tokens_file: str = ""  # more tokens, with names and scopes, as digests; empty: none
    web_config_file: str = ""  # TLS and users for TCP, in the format of Prometheus' --web.config.file; empty: neither
    client_crl_file: str = ""  # revoked client certificates, PEM; empty: none are
    insecure: bool = False  # listen beyond loopback without TLS, or where nobody need be known
    node_domain: str = ""  # DNS domain of the nodes: node n1 may show a certificate for n1.DOMAIN
    readers_group: str = ""  # group whose members may read of all jobs on the Unix sockets
    account_readers: tuple[str, ...] = ()  # GROUP:ACCOUNT: whose members may read of all jobs of that account
    node_token_file: str = ""  # holds the token that nodes show which forward to this server; empty refuses them
    socket_group: str = ""  # group that may connect, beside root; empty keeps the daemon's own group
    slurm_user: str = "slurm"  # besides root, this user may post hook events
    max_body_bytes: Count = 1_048_576
    header_timeout_seconds: Seconds = 5.0
    body_timeout_seconds: Seconds = 5.0
    max_connections: Count = 256


class Slurm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the server role asks Slurm what became of the jobs."""

    rest_url: str = ""  # http://host:6820, https://host, unix:/run/slurmrestd.sock; empty asks no slurmrestd
    rest_version: str = ""  # such as v0.0.40; empty takes the newest that both sides know
    rest_user: str = ""  # X-SLURM-USER-NAME; old slurmrestd refuse a token without it
    token: str = ""  # JSON web token of rest_user; better in token_file
    token_file: str = ""  # read anew when it changes
    timeout_seconds: Seconds = 10.0
    poll_seconds: Seconds = 5.0  # no two questions about all jobs lie closer together
    compare_seconds: Seconds = 180.0  # how often all open runs are compared with what Slurm runs
    nodes_seconds: Seconds = 60.0  # how often the state of the nodes is asked
    sacct: str = "sacct"  # the command asked where slurmrestd gives no accounting; empty asks none
    conf: str = ""  # SLURM_CONF for sacct; empty leaves it to sacct
    admin_comment: Literal["none", "summary"] = "none"  # summary: a line about each ended job is written for sacct
    admin_comment_replace: bool = False  # also where somebody else has written one
    admin_comment_seconds: Seconds = 30.0  # how often, and how long nothing new was said of a job that is settled
    sacctmgr: str = "sacctmgr"  # the command that writes it
    hook_token_file: str = ""  # holds the token with which the controller's hooks may post over TCP; empty refuses them


class Spool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The durable event queue on this node."""

    directory: str = "/var/lib/jobtrail/spool"
    max_bytes: Annotated[int, msgspec.Meta(ge=1_048_576)] = 536_870_912
    keep_forwarded_days: Annotated[float, msgspec.Meta(ge=0)] = 7.0


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PostgreSQL, or the servers that a node forwards to. Without a URL events wait in the spool."""

    url: str = ""
    pool_size: Count = 4
    timeout_seconds: Seconds = 10.0


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the trail is sealed and verified."""

    seal_seconds: Seconds = 60.0  # how often a checkpoint covers what is new
    signing_key_file: str = ""  # Ed25519 private key in PEM; empty: checkpoints are not signed
    public_key_file: str = ""  # all public keys that are believed, one after another; empty: that of signing_key_file
    anchor_file: str = ""  # checkpoints are added there, one line each; empty: nowhere
    verify_seconds: Seconds = 300.0  # how often a server recomputes what is new
    full_verify_seconds: Seconds = 604_800.0  # how often it recomputes everything
    security_retention_days: Annotated[int, msgspec.Meta(ge=7)] = 365  # how long who was turned away is kept
    heartbeat_seconds: Seconds = 3600.0  # after so long without an event a chain gets one about itself
    accepted_chains: tuple[uuid.UUID, ...] = ()  # somebody looked into why they do not say what they follow


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How running jobs are measured."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=3600)] = 15.0
    first_seconds: Annotated[float, msgspec.Meta(ge=0.05)] = 0.1
    checkpoint_seconds: Seconds = 600.0
    runaway_seconds: Seconds = 120.0  # how often open runs are looked through for those that are over
    gone_seconds: Seconds = 300.0  # how long a Slurm job's cgroup is gone before the job counts as over
    retention_days: Count = 7
    buffer_rows: Annotated[int, msgspec.Meta(ge=100)] = 20_000  # samples held in memory while the database is away
    cgroup_root: str = "/sys/fs/cgroup"
    proc_root: str = "/proc"


class GpuSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How GPUs are read, and energy with them."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=3600)] = 15.0
    vendors: Literal["auto", "none"] | tuple[GpuVendor, ...] = "auto"  # auto: those whose driver is there
    gres_conf: str = ""  # slurm.conf lies beside it; empty: where SLURM_CONF is, else Slurm's usual places
    deadline_seconds: Seconds = 2.0  # of one look at all GPUs of a vendor
    idle_window_seconds: Seconds = 1800.0  # hpc_job_gpu_idle_seconds looks back that far
    root: str = "/"  # the drivers' dev, proc and sys lie below it
    library_directory: str = ""  # where libnvidia-ml.so.1 is, if not where ld.so(8) looks


class Energy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Energy of CPUs and memory, and what energy emits."""

    rapl: bool = True
    emission_factor: str | float = ""  # grams CO2e per kWh, or a country's code; empty: no emissions are worked out
    pue: float = 1.0  # 1.0 is not applied


class Benchmarks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Benchmarks that ran as jobs."""

    drop_directory: str = ""  # where anybody may leave a report while the daemon is away; empty: none
    settle_seconds: Seconds = 15.0  # how often links, energy and verdicts of new runs are worked out
    max_error_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = (
        0.01  # runs with more failed requests are not compared
    )
    stale_days: Annotated[float, msgspec.Meta(gt=0)] = 30.0  # gauges of a run older than this end
    max_series: Count = 1000  # sets of labels on /metrics


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What /metrics shows, and where Prometheus finds it."""

    max_jobs: Count = 1000
    target_port: Port = 0  # of the nodes' daemons, in the list for Prometheus; 0: http.port
    aliases: tuple[AliasOf, ...] = ()  # tools whose metrics stand on the page as well, under their names


class Logging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"  # auto: console on a terminal, else JSON


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings."""

    scheduler: Literal["slurm", "local", "demo"] = "slurm"
    cluster: str = ""  # overrides SLURM_CLUSTER_NAME; names the cluster of local jobs
    node: str = ""  # this node's name for local jobs and node metrics; default: the host name
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)] = ("node", "server")
    seed_demo: bool = False
    http: Http = Http()
    slurm: Slurm = Slurm()
    spool: Spool = Spool()
    database: Database = Database()
    audit: AuditSettings = AuditSettings()
    link: Link = Link()
    sampling: Sampling = Sampling()
    gpu: GpuSettings = GpuSettings()
    energy: Energy = Energy()
    benchmarks: Benchmarks = Benchmarks()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()

    @property
    def node_name(self) -> str:
        """The name this daemon goes by."""
        return self.node or platform.node().split(".")[0]

    @property
    def forwards_to_servers(self) -> bool:
        """Whether `database.url` names servers, which have the database, and not a database."""
        return self.database.url.startswith(("https://", "http://"))

    @property
    def takes_from_nodes(self) -> bool:
        """Whether this daemon has the database, and nodes without it are meant to forward to it."""
        known = self.roles == ("server",) or bool(self.http.node_token_file)
        return "server" in self.roles and bool(self.database.url) and not self.forwards_to_servers and known

    @property
    def forward_target(self) -> str | None:
        """Where events go, without a password; None where they wait in the spool."""
        if self.forwards_to_servers:
            return self.database.url
        return "postgresql" if self.database.url else None

    @property
    def poke_socket(self) -> str:
        """Path of the socket open to all users; empty where no job of Slurm can be looked at or read of."""
        if self.scheduler != "slurm" or ("node" not in self.roles and not self.database.url):
            return ""
        auto = self.http.poke_socket == "auto"
        return str(Path(self.http.socket).with_name("poke.sock")) if auto else self.http.poke_socket

    @property
    def local_cluster(self) -> str:
        """The cluster local jobs belong to."""
        return self.cluster or "local"


ALIASES: Mapping[str, str] = {
    "DATABASE_URL": "database.url",
    "HOST": "http.host",
    "PORT": "http.port",
    "SCHEDULER_BACKEND": "scheduler",
    "SLURM_BASE_URL": "slurm.rest_url",
    "SLURM_API_VERSION": "slurm.rest_version",
    "SLURM_AUTH_TOKEN": "slurm.token",
    "METRICS_RETENTION_DAYS": "sampling.retention_days",
    "SEED_DEMO": "seed_demo",
}
PREFIX = "JOBTRAIL_"
# What a text must look like, and how that is said. Not by msgspec's patterns: with one in a type, msgspec 0.22 at times
# ends an interpreter that exits with a segmentation fault.
_FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "slurm.rest_url": (
        re.compile(r"|https?://.+|unix:/.+"), "http://HOST:PORT, https://HOST, unix:/PATH of a socket, or empty"
    ),
    "slurm.rest_version": (re.compile(r"|v0\.0\.[0-9]{2,3}"), "such as v0.0.40, or empty"),
    "gpu.gres_conf": (re.compile(r"|/(.*/)?gres\.conf"), "the path of a file gres.conf from the root on, or empty"),
    "gpu.root": (re.compile(r"/.*"), "a path from the root on"),
}  # fmt: skip
_SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Config)
    if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
}
# Read by other programs of the project under the same prefix; not settings of the daemon.
NOT_SETTINGS = frozenset(
    {
        "JOBTRAIL_CONFIG", "JOBTRAIL_SOCKET", "JOBTRAIL_SPOOL", "JOBTRAIL_TIMEOUT", "JOBTRAIL_HOOK_CONF",
        "JOBTRAIL_POKE_SOCKET", "JOBTRAIL_URL", "JOBTRAIL_TOKEN_FILE", "JOBTRAIL_CA_FILE", "JOBTRAIL_BENCH_DROP",
        "JOBTRAIL_CERT_FILE", "JOBTRAIL_KEY_FILE", "JOBTRAIL_RECIPES", "JOBTRAIL_JOB_ID", "JOBTRAIL_JOB_CLUSTER",
    }
)  # fmt: skip


def find_file(environment: Mapping[str, str]) -> Path | None:
    """The settings file: JOBTRAIL_CONFIG, else the first of the default places that exists."""
    if named := environment.get("JOBTRAIL_CONFIG"):
        return Path(named)
    return next((path for path in DEFAULT_PATHS if path.is_file() and _is_ours(path)), None)


def _is_ours(path: Path) -> bool:
    """Whether nobody but the caller or root wrote this file: one in the working directory may be anybody's."""
    status = path.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def load(path: Path | None, environment: Mapping[str, str]) -> Config:
    """Settings from `path` and `environment`. Raises ConfigError naming the key and what it may be."""
    tree = _read_yaml(path) if path is not None else {}
    for section in _SECTIONS:
        if section in tree and tree[section] is None:  # a heading above nothing but comments
            tree[section] = {}
    origins: dict[str, str] = {}
    for name, dotted, value in _from_environment(environment):
        _put(tree, dotted, value, name)
        origins[dotted] = name
    try:
        _refuse_unknown(tree, Config, "")
        config = msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`").partition("[")[0]
        source = next((name for dotted, name in origins.items() if key and f"{dotted}.".startswith(f"{key}.")), None)
        raise ConfigError(source or str(path or "environment"), f"`{key}`: {problem}{_choices(key)}") from error
    for key, (form, allowed) in _FORMS.items():
        section, _, name = key.partition(".")
        text = getattr(getattr(config, section), name)
        if not form.fullmatch(text):
            raise ConfigError(origins.get(key) or str(path), f"`{key}`: must be {allowed}; not {text!r}")
    if {"cgroup_exporter", "jobstats"} <= set(config.metrics.aliases):
        where = f"{origins.get('metrics.aliases', path)}: `metrics.aliases`"
        raise ConfigError(where, "cgroup_exporter and jobstats give the same names to other labels; name one of them")
    _check_link(config, origins.get("database.url", str(path)))
    key = "energy.emission_factor"
    read_factor(config.energy.emission_factor, where=f"{origins.get(key, path)}: `{key}`")
    check_pue(config.energy.pue, where=f"{origins.get('energy.pue', path)}: `energy.pue`")
    return config


def _check_link(config: Config, where: str) -> None:
    """Raise ConfigError for settings of the link between nodes and servers that cannot be meant."""
    if config.forwards_to_servers and "server" in config.roles:
        problem = "names a server, so this daemon has no database and cannot be one itself; set `roles: [node]`"
        raise ConfigError(f"{where}: `database.url`", problem)
    check_link(config.link, forwards=config.forwards_to_servers)


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Name, dotted key and value of each setting; the project's own names last, so that they win."""
    for name, dotted in ALIASES.items():
        if environment.get(name):
            yield name, dotted, environment[name]
    for name, value in environment.items():
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            yield name, name.removeprefix(PREFIX).lower().replace("__", "."), value


def _refuse_unknown(tree: Mapping[Any, Any], section: type[msgspec.Struct], place: str) -> None:
    """Raise ValidationError, in msgspec's own words, for a key that is no setting; it says which there are."""
    for key, value in tree.items():
        if key not in section.__struct_fields__:
            known = ", ".join(section.__struct_fields__)
            raise msgspec.ValidationError(f"is not a setting; there are {known} - at `$.{place}{key}`")
        if key in _SECTIONS and isinstance(value, dict) and not place:
            _refuse_unknown(value, _SECTIONS[key], f"{key}.")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not YAML{_where(error)}") from None  # its own words quote the line
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(str(path), "must hold sections such as `database:`, not a single value")
    return tree


def _where(error: Exception) -> str:
    """The problem and its place, without the text that stands there: it may be a password."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or error
    return f": {problem}" + ("" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}")


def _put(tree: dict[str, Any], dotted: str, value: str, name: str) -> None:
    """Set a dotted key; a list is written with commas."""
    *sections, last = dotted.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(name, f"`{section}` is not a section")
        tree = inner
    is_list = dotted in LISTS and value not in NO_LISTS
    parts = value.split(",") if value or dotted not in MAY_BE_EMPTY else []
    tree[last] = [part.strip() for part in parts] if is_list else value


def _choices(key: str) -> str:
    """The words a setting may be, where it is one of some."""
    kind: Any = Config
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if isinstance(kind, type) else None
    words = list(_words(kind))
    return f"; it is one of {', '.join(words)}" if words else ""


def _words(kind: Any) -> Iterator[str]:
    for part in get_args(kind):
        if get_origin(kind) is Literal:
            yield part
        else:
            yield from _words(part)
