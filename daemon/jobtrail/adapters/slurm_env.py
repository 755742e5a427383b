"""Reads what a Slurm hook forwards: its environment as NUL-separated KEY=VALUE records.

Every value is hostile: users choose job names, comments and paths, with any bytes in them but NUL. Which variables
there are differs between Slurm releases; only the job's id, the cluster and (of a node's hook) the node are needed.

The hooks of slurmctld know more of the job (name, array, heterogeneous job) and nothing of nodes: they have neither
SLURMD_NODENAME nor GPUs. Theirs is Slurm's word on the run, not a node's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from jobtrail.core.ports import HookDecoder
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Actor, Event, EventKind, check_time_us
from jobtrail.domain.hostlist import expand_nodes
from jobtrail.domain.job_facts import JobFacts, Outcome
from jobtrail.domain.slurm import Origin, SlurmRecord

MAX_RECORDS = 512
MAX_LABEL_BYTES = 1024  # of names that the database has in its indexes
MAX_NUMBER = 2**32 - 1  # Slurm's ids, counts and times are uint32_t or fit one until 2106
NO_VALUE = 0xFFFF_FFFE  # Slurm's NO_VAL; INFINITE is one more (slurm/slurm.h)
MAX_WAIT_STATUS = 0xFFFF
# Slurm's mark for "killed for memory": wait status 253, that is signal 125 with the core flag (slurm/slurm_errno.h).
OUT_OF_MEMORY_SIGNAL = 125

NODE_HOOKS: Mapping[str, tuple[EventKind, Actor]] = MappingProxyType(
    {
        "prolog": (EventKind.JOB_STARTED, Actor.SLURM_PROLOG),
        "epilog": (EventKind.JOB_FINISHED, Actor.SLURM_EPILOG),
    }
)
CONTROLLER_HOOKS: Mapping[str, str] = MappingProxyType(  # and the source of their events
    {"prolog-slurmctld": "prolog_slurmctld", "epilog-slurmctld": "epilog_slurmctld"}
)
HOOKS = (*NODE_HOOKS, *CONTROLLER_HOOKS)
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}")
_WORD = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_UNSET = frozenset({"", "(null)"})


class Environment:
    """A hook's variables: text where it is UTF-8, else escaped, `\\` for a backslash and `\\xNN` for a byte."""

    def __init__(self, body: bytes) -> None:
        self.values: dict[str, str] = {}
        self.escaped: list[str] = []
        for name, value in _records(body):
            try:
                self.values[name] = value.decode()
            except UnicodeDecodeError:
                self.values[name] = value.replace(b"\\", rb"\\").decode(errors="backslashreplace")
                self.escaped.append(name)

    def text(self, *names: str) -> str | None:
        """The first of `names` that is set to something."""
        return next((value for name in names if (value := self.values.get(name, "")) not in _UNSET), None)

    def label(self, name: str) -> str | None:
        """The value of `name` where it can be the name of a person, an account or a partition; None for a longer one.

        PostgreSQL refuses a row whose indexed values are longer than 2,704 bytes, and the job's end with it. The event
        keeps the value as it came.
        """
        value = self.text(name)
        return None if value is None or len(value.encode()) > MAX_LABEL_BYTES else value

    def required(self, name: str) -> str:
        """The value of `name`. Raises InvalidEvent when it is not set."""
        value = self.text(name)
        if value is None:
            raise InvalidEvent(name, "is missing; Slurm always gives it to this hook")
        return value

    def name(self, variable: str) -> str:
        """The value of `variable` as a name of a node or cluster. Raises InvalidEvent for anything else."""
        value = self.required(variable)
        if not _WORD.fullmatch(value):
            raise InvalidEvent(variable, "must be a name of at most 255 visible characters without spaces")
        return value

    def count(self, *names: str) -> int | None:
        """The first of `names` that is set, as a number of 32 bits. Raises InvalidEvent for anything else."""
        for name in names:
            value = self.text(name)
            if value is not None:
                return _number(name, value)
        return None

    def wait_status(self, name: str) -> int | None:
        """A status of wait(2), None where Slurm has none. Raises InvalidEvent for anything else."""
        value = self.count(name)
        if value is None or value >= NO_VALUE:
            return None
        if value > MAX_WAIT_STATUS:
            raise InvalidEvent(name, f"must be a wait status of 0 to {MAX_WAIT_STATUS}")
        return value


def environment_bytes(event: Event) -> dict[str, bytes]:
    """The variables as Slurm gave them, byte for byte."""
    return {
        name: _unescape(value) if name in event.environment_escaped else value.encode()
        for name, value in event.environment.items()
    }


def _unescape(value: str) -> bytes:
    def original(match: re.Match[bytes]) -> bytes:
        return b"\\" if match[0] == rb"\\" else bytes([int(match[1], 16)])

    return re.sub(rb"\\(?:\\|x([0-9a-f]{2}))", original, value.encode())


def _records(body: bytes) -> list[tuple[str, bytes]]:
    if not body.strip(b"\0"):
        raise InvalidEvent("body", "is empty; expected NUL-separated KEY=VALUE records, as `env -0` prints them")
    records = body.removesuffix(b"\0").split(b"\0")
    if len(records) > MAX_RECORDS:
        raise InvalidEvent("body", f"has more than {MAX_RECORDS} records")
    found: dict[str, bytes] = {}
    for number, record in enumerate(records, 1):
        name, equals, value = record.partition(b"=")
        if not equals or not _NAME.fullmatch(name):
            raise InvalidEvent("body", f"record {number} is not KEY=VALUE with KEY of letters, digits and underscores")
        key = name.decode("ascii")
        if key in found:
            raise InvalidEvent(key, "is given twice")
        found[key] = value
    return list(found.items())


def _number(name: str, value: str) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) > MAX_NUMBER:
        raise InvalidEvent(name, f"must be a decimal number of 0 to {MAX_NUMBER}")
    return int(value)


def hook_decoder(cluster_override: str = "", *, own_node: str) -> HookDecoder:
    """A decoder of hooks; `cluster_override` stands in for SLURM_CLUSTER_NAME when not empty.

    `own_node` is the node of events from slurmctld's hooks: the daemon that took them in.
    """

    def decode(hook: str, body: bytes, *, event_id: str, time_us: int) -> Event:
        if hook not in HOOKS:
            raise InvalidEvent("hook", f"must be one of {', '.join(HOOKS)}")
        environment = Environment(body)
        common = _Common(
            environment=environment,
            job_id=f"slurm-{_job_id(environment)}",
            event_id=event_id,
            time_us=check_time_us("Jobtrail-Event-Time", time_us),
            cluster=cluster_override or environment.name("SLURM_CLUSTER_NAME"),
        )
        return _node_event(hook, common) if hook in NODE_HOOKS else _controller_event(hook, common, own_node)

    return decode


def decode_poke(body: bytes) -> str:
    """The public id of the job in what the task epilog sends. Raises InvalidEvent naming the variable."""
    return f"slurm-{_job_id(Environment(body))}"


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    """What the events of all hooks have in common."""

    environment: Environment
    job_id: str
    event_id: str
    time_us: int
    cluster: str


def _node_event(hook: str, common: _Common) -> Event:
    kind, actor = NODE_HOOKS[hook]
    environment = common.environment
    node = environment.name("SLURMD_NODENAME")
    return Event(
        kind=kind,
        event_id=common.event_id,
        time_us=common.time_us,
        cluster=common.cluster,
        job_id=common.job_id,
        node=node,
        changed_by=actor,
        source="hook",
        slurm_start_time=_start_time(environment),
        sluid=environment.text("SLURM_JOB_SLUID"),
        facts=_facts(environment, node),
        outcome=_outcome(environment) if kind is EventKind.JOB_FINISHED else None,
        environment=environment.values,
        environment_escaped=tuple(environment.escaped),
    )


def _controller_event(hook: str, common: _Common, own_node: str) -> Event:
    """Slurm's word on the run. It has no state: a cancelled job's exit status is 0 here too."""
    environment = common.environment
    start_time, sluid = _start_time(environment), environment.text("SLURM_JOB_SLUID")
    return Event(
        kind=EventKind.SLURM_REPORTED,
        event_id=common.event_id,
        time_us=common.time_us,
        cluster=common.cluster,
        job_id=common.job_id,
        node=own_node,
        changed_by=Actor.SLURM_CONTROLLER,
        source=CONTROLLER_HOOKS[hook],
        slurm_start_time=start_time,
        sluid=sluid,
        slurm=SlurmRecord(
            origin=Origin.CONTROLLER_HOOK,
            job_id=common.job_id,
            cluster=common.cluster,
            sluid=sluid,
            start_time=start_time,
            facts=_controller_facts(environment),
            outcome=_outcome(environment) if hook == "epilog-slurmctld" else Outcome(),
        ),
        environment=environment.values,
        environment_escaped=tuple(environment.escaped),
    )


def _start_time(environment: Environment) -> int | None:
    return environment.count("SLURM_JOB_START_TIME") or None  # 0 is Slurm's "not known"


def _job_id(environment: Environment) -> int:
    job_id = _number("SLURM_JOB_ID", environment.required("SLURM_JOB_ID"))
    if job_id == 0:
        raise InvalidEvent("SLURM_JOB_ID", f"must be a number of 1 to {MAX_NUMBER}")
    other = environment.count("SLURM_JOBID")
    if other not in (None, job_id):
        raise InvalidEvent("SLURM_JOBID", f"differs from SLURM_JOB_ID ({job_id})")
    return job_id


def _facts(environment: Environment, node: str) -> JobFacts:
    """What a node's hook knows."""
    facts = _common_facts(environment)
    return msgspec.structs.replace(
        facts,
        cpus=_cpus(environment.text("SLURM_JOB_CPUS_PER_NODE"), facts.nodes, node),
        gpu_devices=_gpus(environment.text("SLURM_JOB_GPUS")),
    )


def _controller_facts(environment: Environment) -> JobFacts:
    """What only slurmctld's hooks know, and what all do."""
    facts = _common_facts(environment)
    shares = _cpu_shares(environment.text("SLURM_JOB_CPUS_PER_NODE"))
    whole = facts.nodes is not None and len(facts.nodes) == sum(nodes for _, nodes in shares)
    return msgspec.structs.replace(
        facts,
        job_name=environment.text("SLURM_JOB_NAME"),
        cpus_total=sum(cpus * nodes for cpus, nodes in shares) if whole else None,
        array_job_id=_job_of(environment, "SLURM_ARRAY_JOB_ID"),
        array_task_id=_offset(environment, "SLURM_ARRAY_TASK_ID"),
        het_leader_job_id=_job_of(environment, "SLURM_HET_JOB_ID"),
        het_job_offset=_offset(environment, "SLURM_HET_JOB_OFFSET"),
    )


def _job_of(environment: Environment, name: str) -> str | None:
    """The public id of the job whose number `name` holds; 0 is Slurm's "none"."""
    number = environment.count(name)
    return f"slurm-{number}" if number else None


def _offset(environment: Environment, name: str) -> int | None:
    number = environment.count(name)
    return None if number is None or number >= NO_VALUE else number


def _common_facts(environment: Environment) -> JobFacts:
    name = "SLURM_JOB_NODELIST" if environment.text("SLURM_JOB_NODELIST") else "SLURM_NODELIST"
    node_list = environment.text(name)
    return JobFacts(
        user_name=environment.label("SLURM_JOB_USER"),
        uid=environment.count("SLURM_JOB_UID", "SLURM_UID"),
        gid=environment.count("SLURM_JOB_GID"),
        account=environment.label("SLURM_JOB_ACCOUNT"),
        partition=environment.label("SLURM_JOB_PARTITION"),
        qos=environment.label("SLURM_JOB_QOS"),
        nodes=None if node_list is None else expand_nodes(name, node_list),
        node_list=node_list,
        restart_count=environment.count("SLURM_JOB_RESTART_COUNT"),
        work_dir=environment.text("SLURM_JOB_WORK_DIR"),
        comment=environment.text("SLURM_JOB_COMMENT"),
        reservation=environment.text("SLURM_JOB_RESERVATION"),
    )


def _cpu_shares(text: str | None) -> list[tuple[int, int]]:
    """CPUs and number of nodes for each part of a list such as `4(x2),2`; empty for what is none."""
    shares = []
    for part in (text or "").split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part)
        if match is None:
            return []
        shares.append((int(match[1]), int(match[2] or 1)))
    return shares


def _cpus(text: str | None, nodes: tuple[str, ...] | None, node: str) -> int | None:
    """This node's share of a list such as `4(x2),2`; None where it does not tell."""
    if nodes is None or node not in nodes:
        return None
    place = nodes.index(node)
    for cpus, count in _cpu_shares(text):
        place -= count
        if place < 0:
            return cpus
    return None


def _gpus(text: str | None) -> tuple[str, ...] | None:
    """Device names of a list such as `0,1`; None for what is no list. The text itself stays in the evidence."""
    if text is None:
        return None
    devices = text.split(",")
    plain = all(re.fullmatch(r"[A-Za-z0-9_/.:-]{1,80}", device) for device in devices)
    return tuple(devices) if plain and len(set(devices)) == len(devices) else None


def _outcome(environment: Environment) -> Outcome:
    raw = environment.wait_status("SLURM_JOB_EXIT_CODE")
    derived = environment.wait_status("SLURM_JOB_DERIVED_EC")
    code, signal = (None, None) if raw is None else (raw >> 8, raw & 0x7F)
    if raw is None and (pair := environment.text("SLURM_JOB_EXIT_CODE2")) is not None:
        code, signal = _exit_pair(pair)
    if signal == OUT_OF_MEMORY_SIGNAL:
        return Outcome(out_of_memory=True, raw_status=raw, derived_raw_status=derived)
    if signal:
        return Outcome(exit_signal=signal, raw_status=raw, derived_raw_status=derived)
    return Outcome(exit_code=code, raw_status=raw, derived_raw_status=derived)


def _exit_pair(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", text)
    if match is None or int(match[1]) > 255 or int(match[2]) > 127:
        raise InvalidEvent("SLURM_JOB_EXIT_CODE2", "must be <exit code>:<signal>, such as 1:0 or 0:9")
    return int(match[1]), int(match[2])
