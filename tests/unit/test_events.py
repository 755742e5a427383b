"""The encoded form of events."""

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import (
    EARLIEST_US,
    LATEST_US,
    MAX_EXACT_INT,
    Actor,
    Event,
    EventKind,
    check_time_us,
    decode,
    encode,
    request_digest,
)


def strategy_for(kind: object) -> st.SearchStrategy[object]:
    """Values of a field, from its type as msgspec sees it."""
    match kind:
        case msgspec.inspect.UnionType():
            return st.one_of([strategy_for(one) for one in kind.types])
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.IntType():
            return st.integers(0, MAX_EXACT_INT)
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.AnyType():
            return st.recursive(
                st.none() | st.booleans() | st.integers(0, MAX_EXACT_INT) | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
                max_leaves=4,
            )
        case msgspec.inspect.StrType():
            return st.text(max_size=12)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.EnumType():
            return st.sampled_from(kind.cls)
        case msgspec.inspect.VarTupleType():
            return st.lists(strategy_for(kind.item_type), max_size=3).map(tuple)
        case msgspec.inspect.DictType():
            return st.dictionaries(strategy_for(kind.key_type), strategy_for(kind.value_type), max_size=3)
        case msgspec.inspect.StructType():
            fields = {field.name: strategy_for(field.type) for field in kind.fields}
            return st.builds(kind.cls, **fields)
    raise AssertionError(kind)


any_event = strategy_for(msgspec.inspect.type_info(Event))


@given(any_event)
def test_what_was_encoded_decodes_to_the_same(event: Event) -> None:
    """And encoding again gives the same bytes, so the hash of an event is that of its content."""
    payload = encode(event)
    assert decode(payload) == event
    assert encode(decode(payload)) == payload


@given(any_event.map(lambda event: msgspec.structs.replace(event, benchmark=None)))
def test_the_bytes_are_plain_json_with_sorted_keys_and_no_floats(event: Event) -> None:
    """Readers in all languages agree on them: integers stay exact in double precision. What a benchmark measured is
    floats, and stands apart."""

    def no_float(text: str) -> None:
        raise AssertionError(text)

    def checked(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        assert names == sorted(set(names))
        assert all(value <= 2**53 - 1 for _, value in pairs if isinstance(value, int))
        return dict(pairs)

    tree = json.loads(encode(event), object_pairs_hook=checked, parse_float=no_float, parse_constant=no_float)
    assert tree["event_id"] == event.event_id
    assert float(MAX_EXACT_INT) == MAX_EXACT_INT
    assert float(MAX_EXACT_INT + 2) != MAX_EXACT_INT + 2


def minimal(**fields: object) -> Event:
    known = {
        "kind": EventKind.JOB_STARTED,
        "event_id": "0b8f3c6e-2d0a-4f57-8a43-9f1e6cbb0a11",
        "time_us": 1_760_000_000_000_000,
        "cluster": "c1",
        "job_id": "slurm-1",
        "node": "n1",
        "changed_by": Actor.SLURM_PROLOG,
        "source": "hook",
    }
    return msgspec.convert({**known, **fields}, Event)


def test_the_encoded_form_is_pinned() -> None:
    """Stored payloads are read by every later release; absent fields are left out, not null."""
    assert encode(minimal(sluid="s1", environment={"B": "2", "A": "1"})) == (
        b'{"changed_by":"slurm-prolog","cluster":"c1","environment":{"A":"1","B":"2"},'
        b'"event_id":"0b8f3c6e-2d0a-4f57-8a43-9f1e6cbb0a11","job_id":"slurm-1","kind":"job_started","node":"n1",'
        b'"sluid":"s1","source":"hook","time_us":1760000000000000}'
    )


def test_fields_of_a_later_release_are_passed_over() -> None:
    """A node that is ahead of the server loses nothing: the stored bytes keep what this release cannot read."""
    tree = json.loads(encode(minimal()))
    tree["from_the_future"] = {"any": ["thing", 1.5]}
    assert decode(json.dumps(tree).encode()) == minimal()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"{}",
        encode(minimal()).replace(b"job_started", b"job_vanished"),
        encode(minimal()).replace(b'"c1"', b"7"),
        encode(minimal()).replace(b"1760000000000000", b"1.5"),
        encode(minimal()).replace(b"1760000000000000", b'"1760000000000000"'),
        encode(minimal()).replace(b"slurm-prolog", b"nobody"),
        encode(minimal()) + b"x",
        encode(minimal()).replace(b'"c1"', b'"\xc3("'),
        b'{"more":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidEvent, match="payload: ") as refusal:
        decode(payload)
    assert refusal.value.field == "payload"


@pytest.mark.parametrize("time_us", [EARLIEST_US, LATEST_US - 1, 1_760_000_000_000_000])
def test_times_of_this_century_pass(time_us: int) -> None:
    assert check_time_us("timestamp", time_us) == time_us


@pytest.mark.parametrize("time_us", [EARLIEST_US - 1, LATEST_US, 0, -1, 2**63])
def test_absurd_times_are_refused_with_their_field(time_us: int) -> None:
    with pytest.raises(InvalidEvent, match=r"^timestamp: must be a time between the years 2000 and 2100$"):
        check_time_us("timestamp", time_us)


def test_a_request_is_told_by_all_its_parts() -> None:
    """Two requests have one digest only if hook, time and body are the same."""
    one = request_digest("prolog", "1.0", b"A=1\0")
    assert one == hashlib.sha256(b"prolog\x001.0\x00A=1\x00").digest()
    others = [("epilog", "1.0", b"A=1\0"), ("prolog", "1.00", b"A=1\0"), ("prolog", "1.0", b"A=1")]
    assert one not in {request_digest(*other) for other in others}
