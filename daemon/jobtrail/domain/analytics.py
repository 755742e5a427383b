"""Questions about figures of many runs over time: what may be asked, and how the answer is put together.

A run counts where it ended, with all it used, however long it ran; what is said of starts and of waiting counts where
it began. A run that goes on has no totals yet and counts nowhere but among the starts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.events import check_time_us
from jobtrail.domain.states import State

MAX_QUESTION_BYTES = 65_536
MAX_BUCKETS = 5000
MAX_GROUPS = 500
MAX_CELLS = 50_000  # buckets times groups
MAX_SPAN = timedelta(days=3653)  # ten years
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unit(StrEnum):
    """What buckets are counted in. All are of fixed length: a day is 24 h, whatever clocks in a country do."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


SECONDS_OF = {Unit.MINUTE: 60, Unit.HOUR: 3600, Unit.DAY: 86_400, Unit.WEEK: 604_800}


class Dimension(StrEnum):
    """What runs may be grouped by, in the order in which the store gives a group's keys."""

    USER = "user"
    ACCOUNT = "account"
    PARTITION = "partition"
    QOS = "qos"
    STATE = "state"
    CLUSTER = "cluster"
    NODE = "node"


class Basis(StrEnum):
    """The runs a figure could rest on."""

    STARTED = "of_started"  # those that began in the time
    ENDED = "of_ended"  # those that ended in it
    GPUS = "of_gpus"  # of these, those that had GPUs, or of which it is not known


class Metric(StrEnum):
    """What may be asked for."""

    JOBS_STARTED = "jobs_started"
    JOBS_ENDED = "jobs_ended"
    JOBS_FAILED = "jobs_failed"
    FAILED_RATIO = "failed_ratio"
    WAIT_SECONDS_MEAN = "wait_seconds_mean"
    RUN_SECONDS = "run_seconds"
    CPU_SECONDS = "cpu_seconds"
    CPU_EFFICIENCY = "cpu_efficiency"
    MEMORY_PEAK_MAX = "memory_peak_max"
    GPU_SECONDS = "gpu_seconds"
    GPU_UTILIZATION_MEAN = "gpu_utilization_mean"
    GPU_UNUSED_SECONDS = "gpu_unused_seconds"
    ENERGY_JOULES = "energy_joules"
    EMISSIONS_GRAMS = "emissions_grams"


class Definition(msgspec.Struct, frozen=True):
    """A metric's unit, the runs it could rest on, and whether it counts runs, so that none is 0 and not unknown."""

    unit: str
    basis: Basis = Basis.ENDED
    counts: bool = False


METRICS = {
    Metric.JOBS_STARTED: Definition("jobs", Basis.STARTED, counts=True),
    Metric.JOBS_ENDED: Definition("jobs", counts=True),
    Metric.JOBS_FAILED: Definition("jobs", counts=True),
    Metric.FAILED_RATIO: Definition("ratio"),
    Metric.WAIT_SECONDS_MEAN: Definition("seconds", Basis.STARTED),
    Metric.RUN_SECONDS: Definition("seconds"),
    Metric.CPU_SECONDS: Definition("seconds"),
    Metric.CPU_EFFICIENCY: Definition("ratio"),
    Metric.MEMORY_PEAK_MAX: Definition("bytes"),
    Metric.GPU_SECONDS: Definition("seconds", Basis.GPUS),
    Metric.GPU_UTILIZATION_MEAN: Definition("percent", Basis.GPUS),
    Metric.GPU_UNUSED_SECONDS: Definition("seconds", Basis.GPUS),
    Metric.ENERGY_JOULES: Definition("joules"),
    Metric.EMISSIONS_GRAMS: Definition("grams of CO2 equivalents"),
}

# Control characters are refused in `check`: with a `pattern` here, msgspec 0.22 ends some programs with a
# segmentation fault, whatever the program did.
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(min_length=1, max_length=100)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Bucket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How time is cut: every `interval` units, from the question's begin on; the last piece may be shorter."""

    unit: Unit
    interval: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1

    @property
    def seconds(self) -> int:
        """The length of one."""
        return self.interval * SECONDS_OF[self.unit]


class Filters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs; each is one value or several, of which any will do. None is all."""

    user: Word | Words | None = None
    account: Word | Words | None = None
    partition: Word | Words | None = None
    cluster: Word | Words | None = None
    state: State | Annotated[tuple[State, ...], msgspec.Meta(min_length=1, max_length=6)] | None = None
    node: Word | Words | None = None


class TopK(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Only the groups that have most of a metric over the whole time."""

    metric: Metric
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_GROUPS)]


class Question(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}
):
    """What is asked. With a node among filters or groups, figures are of the runs' parts on nodes."""

    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1, max_length=len(Metric))]
    begin: Moment
    end: Moment
    bucket: Bucket
    filters: Filters = Filters()
    group_by: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=len(Dimension))] = ()
    top_k: TopK | None = None
    compare_previous: bool = False
    fill_gaps: bool = False

    @property
    def buckets(self) -> int:
        """How many there are."""
        return -((self.begin - self.end) // timedelta(seconds=self.bucket.seconds))

    @property
    def previous_begin(self) -> datetime:
        """Where the period of the same length before this one begins."""
        return self.begin - (self.end - self.begin)

    @property
    def by_node(self) -> bool:
        """Whether figures are of parts of runs."""
        return self.filters.node is not None or Dimension.NODE in self.group_by

    def bounds(self, bucket: int) -> tuple[datetime, datetime]:
        """Begin and end of a bucket."""
        begin = self.begin + timedelta(seconds=bucket * self.bucket.seconds)
        return begin, min(self.end, begin + timedelta(seconds=self.bucket.seconds))


_question = msgspec.json.Decoder(Question)


def read_question(body: bytes) -> Question:
    """The question in a request's body. Raises InvalidEvent naming the field and what is allowed."""
    try:
        question = _question.decode(body)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise InvalidEvent(place.strip("`").lstrip(".") or "body", _allowed(problem.replace("`", ""))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent("body", f"must be JSON in UTF-8: {error}") from error
    check(question)
    return question


def _allowed(problem: str) -> str:
    """The problem with the words that are allowed, where one is not."""
    if "enum" not in problem:
        return problem[:300]
    words = {"metrics": Metric, "group_by": Dimension, "unit": Unit, "state": State}
    return f"{problem[:200]}; " + "; ".join(f"{name}: {', '.join(kind)}" for name, kind in words.items())


def check(question: Question) -> None:
    """Raises InvalidEvent for a question that has too large an answer, or none."""
    for field, moment in (("from", question.begin), ("to", question.end)):
        check_time_us(field, (moment - EPOCH) // timedelta(microseconds=1))
    if question.end <= question.begin:
        raise InvalidEvent("to", "must be after from")
    if question.end - question.begin > MAX_SPAN:
        raise InvalidEvent("to", f"must be at most {MAX_SPAN.days} days after from")
    if question.buckets > MAX_BUCKETS:
        raise InvalidEvent("bucket", f"gives {question.buckets} buckets; at most {MAX_BUCKETS} are answered")
    for field in Filters.__struct_fields__:
        held = getattr(question.filters, field) or ()
        if any(ord(ch) < 32 or ord(ch) == 127 for ch in "".join(held)):
            raise InvalidEvent(f"filters.{field}", "must have no control characters")
    for field, words in (("metrics", question.metrics), ("group_by", question.group_by)):
        if len(set(words)) < len(words):
            raise InvalidEvent(field, "names the same twice")
    if question.top_k is not None and not question.group_by:
        raise InvalidEvent("top_k", "needs group_by: there is but one group without")
