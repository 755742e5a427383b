"""What a Slurm hook forwards, decoded: real captures byte for byte, and everything that could go wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.adapters.slurm_env import MAX_RECORDS, environment_bytes, hook_decoder
from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import Event, EventKind, decode, encode
from jobtrail.domain.job_facts import Outcome

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("slurm-*/**/*.env0"))
ID = "6f1f2c3a-0b5e-4c5d-9d43-7d3f5a1f4e21"
TIME_US = 1_795_224_968_264_142
DECODE = hook_decoder(own_node="ctl")
MINIMAL = {
    "SLURM_JOB_ID": "17",
    "SLURMD_NODENAME": "n2",
    "SLURM_CLUSTER_NAME": "lab",
}


def body(variables: dict[str, str | bytes]) -> bytes:
    """The records of `variables`."""
    texts = {name: value if isinstance(value, bytes) else value.encode() for name, value in variables.items()}
    return b"".join(name.encode() + b"=" + value + b"\0" for name, value in texts.items())


def decoded(hook: str = "prolog", **variables: str | bytes) -> Event:
    """The event of a minimal environment with more variables."""
    return DECODE(hook, body({**MINIMAL, **variables}), event_id=ID, time_us=TIME_US)


def hook_of(path: Path) -> str:
    return "prolog" if "-prolog-" in path.name else "epilog"


def test_there_are_fixtures_of_both_releases() -> None:
    """The parametrised test below has something to run on."""
    assert {path.relative_to(Path(__file__).parents[1] / "fixtures").parts[0] for path in FIXTURES} == {
        "slurm-22.05",
        "slurm-24.11",
    }
    assert len(FIXTURES) >= 40


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: "/".join(path.parts[-4:]))
def test_a_real_capture_keeps_every_byte(path: Path) -> None:
    """Evidence and identity are what Slurm gave, also after a round through the stored form."""
    raw = path.read_bytes()
    event = decode(encode(DECODE(hook_of(path), raw, event_id=ID, time_us=TIME_US)))
    original = dict(record.split(b"=", 1) for record in raw.rstrip(b"\0").split(b"\0"))
    assert {name.encode(): value for name, value in environment_bytes(event).items()} == original
    assert event.facts is not None
    assert event.facts.nodes is not None
    assert event.job_id == f"slurm-{original[b'SLURM_JOB_ID'].decode()}"
    assert event.cluster.encode() == original[b"SLURM_CLUSTER_NAME"]
    assert event.node.encode() == original[b"SLURMD_NODENAME"]
    assert event.node in event.facts.nodes
    assert event.facts.user_name == original[b"SLURM_JOB_USER"].decode()
    assert event.facts.uid == int(original[b"SLURM_JOB_UID"])
    assert event.facts.gid == int(original[b"SLURM_JOB_GID"])
    assert event.facts.partition == original[b"SLURM_JOB_PARTITION"].decode()
    assert event.facts.account == (original.get(b"SLURM_JOB_ACCOUNT") or b"").decode() or event.facts.account is None
    assert event.facts.cpus == int(original[b"SLURM_JOB_CPUS_PER_NODE"].split(b"(")[0])
    assert event.slurm_start_time == (
        int(original[b"SLURM_JOB_START_TIME"]) if b"SLURM_JOB_START_TIME" in original else None
    )
    assert (event.outcome is None) == (hook_of(path) == "prolog")


def test_a_latin1_comment_is_escaped_and_comes_back() -> None:
    """A value that is not UTF-8 is kept readable and exact; its neighbours are not touched."""
    event = decoded(SLURM_JOB_COMMENT=b"caf\xe9 \\x41 \\", SLURM_JOB_WORK_DIR="/a\\b\nc\x1b[31m")
    assert event.facts is not None
    assert event.facts.comment == r"caf\xe9 \\x41 \\"
    assert event.environment_escaped == ("SLURM_JOB_COMMENT",)
    assert event.facts.work_dir == "/a\\b\nc\x1b[31m"
    assert environment_bytes(event)["SLURM_JOB_COMMENT"] == b"caf\xe9 \\x41 \\"


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True), st.binary(max_size=40), max_size=8)
)
def test_any_environment_round_trips(variables: dict[str, bytes]) -> None:
    """Any bytes but NUL come back from the stored event; no lone surrogate is ever made."""
    cleaned = {f"X_{name}": value.replace(b"\0", b"") for name, value in variables.items()}
    event = decode(encode(decoded(**cleaned)))
    assert environment_bytes(event) == {**{name: value.encode() for name, value in MINIMAL.items()}, **cleaned}
    encode(event).decode("utf-8")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_refused(raw: bytes) -> None:
    """Nothing but InvalidEvent comes out of a body that is none."""
    with pytest.raises(InvalidEvent):
        DECODE("prolog", raw, event_id=ID, time_us=TIME_US)


@pytest.mark.parametrize(
    "value", ["0", "-1", "+1", " 1", "1 ", "1.0", "0x11", "٣", "4294967296", "1e3", "017", "9" * 5000, "1\n"]
)
def test_a_job_id_is_a_plain_decimal(value: str) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InvalidEvent) as refused:
        decoded(SLURM_JOB_ID=value)
    assert refused.value.field == "SLURM_JOB_ID"


@pytest.mark.parametrize(
    ("field", "variables"),
    [
        ("SLURM_JOBID", {"SLURM_JOBID": "18"}),
        ("SLURMD_NODENAME", {"SLURMD_NODENAME": ""}),
        ("SLURMD_NODENAME", {"SLURMD_NODENAME": "n 1"}),
        ("SLURM_CLUSTER_NAME", {"SLURM_CLUSTER_NAME": "(null)"}),
        ("SLURM_CLUSTER_NAME", {"SLURM_CLUSTER_NAME": "x" * 256}),
        ("SLURM_JOB_UID", {"SLURM_JOB_UID": "root"}),
        ("SLURM_UID", {"SLURM_UID": "-1"}),
        ("SLURM_JOB_START_TIME", {"SLURM_JOB_START_TIME": "soon"}),
        ("SLURM_JOB_NODELIST", {"SLURM_JOB_NODELIST": "n[1-999999999]"}),
        ("SLURM_NODELIST", {"SLURM_NODELIST": "n[2-1]"}),
        ("SLURM_JOB_EXIT_CODE", {"SLURM_JOB_EXIT_CODE": "70000"}),
        ("SLURM_JOB_EXIT_CODE", {"SLURM_JOB_EXIT_CODE": "-1"}),
        ("SLURM_JOB_EXIT_CODE2", {"SLURM_JOB_EXIT_CODE2": "1"}),
        ("SLURM_JOB_EXIT_CODE2", {"SLURM_JOB_EXIT_CODE2": "256:0"}),
        ("SLURM_JOB_DERIVED_EC", {"SLURM_JOB_DERIVED_EC": "x"}),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, variables: dict[str, str]) -> None:
    """The refusal names the variable."""
    with pytest.raises(InvalidEvent) as refused:
        decoded("epilog", **variables)
    assert refused.value.field == field


@pytest.mark.parametrize("name", MINIMAL)
def test_a_missing_variable_is_refused_by_name(name: str) -> None:
    """Job, node and cluster are needed."""
    rest = {key: value for key, value in MINIMAL.items() if key != name}
    with pytest.raises(InvalidEvent) as refused:
        DECODE("prolog", body(rest), event_id=ID, time_us=TIME_US)
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("field", "raw"),
    [
        ("body", b""),
        ("body", b"\0"),
        ("body", b"\0" * 100_000),
        ("body", b"hello"),
        ("body", b"=x\0"),
        ("body", b"A=1\0\0B=2\0"),
        ("body", b"A=1\0\0"),
        ("body", b"1A=2\0"),
        ("body", b"A B=2\0"),
        ("body", "ä=2\0".encode()),
        ("body", b"".join(b"A%d=\0" % number for number in range(MAX_RECORDS + 1))),
        ("A", b"A=1\0A=1\0"),
    ],
)
def test_a_body_that_is_no_environment_is_refused(field: str, raw: bytes) -> None:
    """Nothing of it is guessed at."""
    with pytest.raises(InvalidEvent) as refused:
        DECODE("prolog", raw, event_id=ID, time_us=TIME_US)
    assert refused.value.field == field


def test_a_value_with_lines_adds_no_variable() -> None:
    """A comment holding a line `SLURM_JOB_ID=999` stays a comment."""
    event = decoded(SLURM_JOB_COMMENT="line1\nline2\nSLURM_JOB_ID=999")
    assert event.job_id == "slurm-17"


@pytest.mark.parametrize("hook", ["task-epilog", "", "PROLOG"])
def test_an_unknown_hook_is_refused(hook: str) -> None:
    """Only the four that report something are known."""
    with pytest.raises(InvalidEvent) as refused:
        decoded(hook)
    assert refused.value.field == "hook"


def test_the_cluster_of_the_settings_wins() -> None:
    """An override replaces SLURM_CLUSTER_NAME, which need not be there then."""
    raw = body({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n2"})
    assert hook_decoder("own", own_node="ctl")("prolog", raw, event_id=ID, time_us=TIME_US).cluster == "own"
    assert hook_decoder("", own_node="ctl")("prolog", body(MINIMAL), event_id=ID, time_us=TIME_US).cluster == "lab"


def test_facts_of_a_whole_environment() -> None:
    """Each fact is where it belongs."""
    event = decoded(
        SLURM_JOBID="17",
        SLURM_JOB_USER="alice",
        SLURM_JOB_UID="1001",
        SLURM_JOB_GID="1002",
        SLURM_JOB_ACCOUNT="(null)",
        SLURM_JOB_PARTITION="debug",
        SLURM_JOB_QOS="normal",
        SLURM_JOB_NODELIST="n[3,1-2]",
        SLURM_NODELIST="other",
        SLURM_JOB_CPUS_PER_NODE="4(x2),2",
        SLURM_JOB_RESTART_COUNT="2",
        SLURM_JOB_RESERVATION="maint",
        SLURM_JOB_GPUS="0,1",
        SLURM_JOB_START_TIME="1795224968",
        SLURM_JOB_SLUID="s1ABC",
    )
    facts = event.facts
    assert facts is not None
    assert (facts.user_name, facts.uid, facts.gid, facts.account) == ("alice", 1001, 1002, None)
    assert (facts.partition, facts.qos, facts.reservation, facts.restart_count) == ("debug", "normal", "maint", 2)
    assert (facts.nodes, facts.node_list, facts.cpus) == (("n3", "n1", "n2"), "n[3,1-2]", 2)
    assert facts.gpu_devices == ("0", "1")
    assert (event.slurm_start_time, event.sluid, event.kind) == (1795224968, "s1ABC", EventKind.JOB_STARTED)
    assert (event.time_us, event.event_id, event.changed_by, event.source) == (TIME_US, ID, "slurm-prolog", "hook")


@pytest.mark.parametrize(
    ("cpus", "nodes", "share"),
    [
        ("1", "n2", 1),
        ("4(x2),2", "n1,n2,n3", 4),
        ("2,4(x2)", "n1,n2,n3", 4),
        ("4(x1)", "n1,n2", None),
        ("4", "n1,n3", None),
        ("many", "n2", None),
        ("4(x2", "n2", None),
        ("", "n2", None),
    ],
)
def test_the_nodes_own_share_of_the_cpus(cpus: str, nodes: str, share: int | None) -> None:
    """Found by the node's place in the list; unknown, not wrong, where it does not fit."""
    facts = decoded(SLURM_JOB_CPUS_PER_NODE=cpus, SLURM_JOB_NODELIST=nodes).facts
    assert facts is not None
    assert facts.cpus == share


@pytest.mark.parametrize("value", ["0,,1", "0,0", "$(id)", "a b"])
def test_gpus_that_are_no_list_stay_evidence_only(value: str) -> None:
    """Nonsense is no fact."""
    event = decoded(SLURM_JOB_GPUS=value)
    assert event.facts is not None
    assert event.facts.gpu_devices is None
    assert event.environment["SLURM_JOB_GPUS"] == value


@pytest.mark.parametrize(
    ("variables", "outcome"),
    [
        ({"SLURM_JOB_EXIT_CODE": "0", "SLURM_JOB_EXIT_CODE2": "0:0"}, Outcome(exit_code=0, raw_status=0)),
        ({"SLURM_JOB_EXIT_CODE": "256"}, Outcome(exit_code=1, raw_status=256)),
        ({"SLURM_JOB_EXIT_CODE": "65280"}, Outcome(exit_code=255, raw_status=65280)),
        ({"SLURM_JOB_EXIT_CODE": "11"}, Outcome(exit_signal=11, raw_status=11)),
        ({"SLURM_JOB_EXIT_CODE": "139"}, Outcome(exit_signal=11, raw_status=139)),
        ({"SLURM_JOB_EXIT_CODE": "253"}, Outcome(out_of_memory=True, raw_status=253)),
        ({"SLURM_JOB_EXIT_CODE2": "0:125"}, Outcome(out_of_memory=True)),
        ({"SLURM_JOB_EXIT_CODE2": "42:0"}, Outcome(exit_code=42)),
        ({"SLURM_JOB_EXIT_CODE2": "0:9"}, Outcome(exit_signal=9)),
        ({"SLURM_JOB_EXIT_CODE": "256", "SLURM_JOB_EXIT_CODE2": "7:0"}, Outcome(exit_code=1, raw_status=256)),
        (
            {"SLURM_JOB_EXIT_CODE": "0", "SLURM_JOB_DERIVED_EC": "768"},
            Outcome(exit_code=0, raw_status=0, derived_raw_status=768),
        ),
        ({"SLURM_JOB_EXIT_CODE": "4294967294"}, Outcome()),
        ({}, Outcome()),
    ],
)
def test_how_a_job_ended(variables: dict[str, str], outcome: Outcome) -> None:
    """Wait statuses as wait(2) lays them out; 125 is Slurm's mark for memory and no signal; nothing known is no 0."""
    assert decoded("epilog", **variables).outcome == outcome


def test_a_name_longer_than_an_index_takes_is_evidence_only() -> None:
    """PostgreSQL would refuse the job's row for it."""
    names = ("SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS")
    longest = decoded("epilog", **dict.fromkeys(names, "x" * 1024)).facts
    assert (longest.user_name, longest.account, longest.partition, longest.qos) == ("x" * 1024,) * 4
    event = decoded("epilog", **dict.fromkeys(names, "x" * 1025))
    assert (event.facts.user_name, event.facts.account, event.facts.partition, event.facts.qos) == (None,) * 4
    assert event.environment["SLURM_JOB_USER"] == "x" * 1025
