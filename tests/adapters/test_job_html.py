"""The page of a report: well-formed, whole in itself, harmless whatever a job is called, and readable without eyes."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import msgspec
import pytest

from jobtrail.adapters import job_html
from jobtrail.adapters.job_html.charts import COLOURS, HEIGHT, WIDE
from jobtrail.adapters.job_html.markup import el, join, text
from jobtrail.adapters.job_html.scales import BYTES, PERCENT, WATTS, energy, moments
from jobtrail.domain.job_report import JobReport
from jobtrail.domain.job_report_making import make_report
from jobtrail.domain.job_report_timeline import (
    ALL_POINTS,
    EnergyPoint,
    EnergyTimeline,
    GpuPoint,
    GpuTimeline,
    Mark,
    NodePoint,
    NodeTimeline,
    Timeline,
    points_of_a_line,
)
from tests.job_rows import gpu_row, job_row, node_row
from tests.measured_job import HOSTILE_NAME

BEGIN = datetime(2026, 11, 21, 8, tzinfo=UTC)
END = BEGIN + timedelta(hours=2)
GIB = 1 << 30
SVG = "svg"
ADDRESS = re.compile(r"""(?i)(?:https?:)?//[\w.]|\burl\(|@import|<link|<script|<img|<iframe|\bon\w+=|\bsrc=|\bhref=""")


def report(**job: object) -> JobReport:
    known = {"start_time": BEGIN, "end_time": END, "submit_time": BEGIN - timedelta(minutes=9), **job}
    nodes = [
        node_row(name, started_at=BEGIN, ended_at=END, cpus=4, cpu_seconds=seconds, energy_joules=5e6)
        for name, seconds in (("n1", 28000.0), ("n2", 100.0))
    ]
    gpus = [gpu_row("GPU-a", observed_seconds=7200.0, busy_seconds=3600.0, unused_seconds=0.0, errors={"79": 2}),
            gpu_row("GPU-b", resolved_by=None, attribution_mismatch="job slurm-8 used it")]  # fmt: skip
    row = job_row(
        nodes=["n1", "n2"], cpus_allocated=8, cpu_seconds=28100.0, memory_peak_bytes=3 * GIB, nodes_reporting=2,
        memory_limit_bytes=16 * GIB, coverage_ratio=0.99, nodes_total=2, time_limit_seconds=8 * 3600, **known,
    )  # fmt: skip
    return make_report(row, sentence="The job completed.", nodes=nodes, gpus=gpus, other_runs=[("c1", 2)], now=END)


def lines(points: int = 20, nodes: int = 2, gpus: int = 2) -> Timeline:
    """A line with a gap and a value that nobody knows in each."""
    at = [7200 * number / points for number in range(points)]
    gaps = [number == points // 2 for number in range(points)]
    of_node = tuple(
        NodePoint(
            seconds=seconds, gap=gap, cpu_percent=None if number == 3 else 50.0 + number % 7,
            memory_bytes=number * GIB // points, memory_limit_bytes=16 * GIB,
        )
        for number, (seconds, gap) in enumerate(zip(at, gaps, strict=True))
    )  # fmt: skip
    of_gpu = tuple(
        GpuPoint(seconds=seconds, gap=gap, utilization_percent=99.5, memory_bytes=GIB, power_watts=312.4)
        for seconds, gap in zip(at, gaps, strict=True)
    )
    joules = tuple(EnergyPoint(seconds=seconds, joules=800 * seconds) for seconds in at)
    return Timeline(
        seconds=7200.0, bucket_seconds=7200 / points,
        nodes=tuple(NodeTimeline(node=f"n{number}", points=of_node) for number in range(1, nodes + 1)),
        gpus=tuple(GpuTimeline(node="n1", gpu_id=f"GPU-{number}", points=of_gpu) for number in range(gpus)),
        energy=(EnergyTimeline(component="dram", points=joules), EnergyTimeline(component="gpu", points=joules)),
        marks=(Mark(seconds=0.0, what="started", by="slurm-prolog", node="n1"), Mark(seconds=0.5, what="started"),
               Mark(seconds=9e9, what="ended")),
        nodes_total=nodes, gpus_total=gpus,
    )  # fmt: skip


def page_of(told: JobReport | None = None, timeline: Timeline | None = None) -> str:
    return job_html.render(told or report(), timeline or lines(), END)


def parsed(page: str) -> ET.Element:
    """As XML, which is stricter than HTML."""
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def words(element: ET.Element) -> str:
    return " ".join(part.strip() for part in element.itertext() if part.strip())


class Balance(HTMLParser):
    """Reads as a browser does, and notes what was left open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_every_chart_says_what_it_shows() -> None:
    page = page_of()
    root = parsed(page)
    reader = Balance()
    reader.feed(page)
    assert reader.open == []
    charts = {figure.get("id"): figure for figure in root.iter("figure")}
    assert set(charts) == {"cpu", "memory", "gpu-utilisation", "gpu-memory", "gpu-power", "energy"}
    for key, figure in charts.items():
        (plot,) = [one for one in figure.iter(SVG) if one.get("role") == "img"]
        named = (plot.get("aria-labelledby") or "").split()
        titles = {one.get("id"): one.text for one in plot if one.tag in ("title", "desc")}
        assert named == [f"{key}-title", f"{key}-about"] == list(titles)
        assert "least" in (titles[f"{key}-about"] or "")
        assert figure.find(".//table/thead") is not None
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(ids) == len(set(ids))
    assert root.get("lang") == "en"
    assert [heading.text for heading in root.iter("h2")] == [
        "What it used", "What to do", "Over time", "Nodes", "GPUs", "Events",
    ]  # fmt: skip


@pytest.mark.parametrize("place", ["job_name", "user_name", "account", "partition", "cluster_name"])
def test_a_hostile_name_is_shown_and_does_nothing(place: str) -> None:
    page = page_of(report(**{place: HOSTILE_NAME}))
    root = parsed(page)
    assert list(root.iter("script")) == []
    assert "\x1b" not in page
    assert "<script>alert('1')</script> \"&amp; \\x1b[31mred" in words(root)


def test_nothing_outside_the_page_is_asked_for() -> None:
    """Not even where a job's name looks like an address: that is text."""
    page = page_of()
    assert ADDRESS.search(page) is None
    named = parsed(page_of(report(job_name="https://example.org/x")))
    attributes = [value for one in named.iter() for value in one.attrib.values()]
    assert not [value for value in attributes if "example.org" in value]
    policy = next(one.get("content") or "" for one in named.iter("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert f"{policy}; frame-ancestors 'none'" == job_html.POLICY


def test_the_policy_is_that_of_the_pages_own_style() -> None:
    import base64
    import hashlib

    style = page_of().partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in job_html.POLICY
    for query in ("prefers-color-scheme: dark", "prefers-contrast: more", "@media print"):
        assert query in style


def paths(page: str, key: str) -> list[str]:
    """The drawn lines of a chart, without its limits."""
    (figure,) = [one for one in parsed(page).iter("figure") if one.get("id") == key]
    return [one.get("d") or "" for one in figure.iter("path") if "limit" not in (one.get("class") or "")]


def test_a_line_breaks_at_a_gap_and_where_nobody_knows() -> None:
    (cpu, _), (memory, _) = (paths(page_of(), key) for key in ("cpu", "memory"))
    assert (cpu.count("M"), memory.count("M")) == (3, 2)
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", cpu)]
    assert max(numbers[::2]) <= WIDE
    assert 0 <= min(numbers[1::2]) <= max(numbers[1::2]) <= HEIGHT


def test_a_point_alone_is_a_dot() -> None:
    alone = (NodePoint(seconds=5.0, cpu_percent=10.0), NodePoint(seconds=6.0, gap=True, cpu_percent=20.0))
    timeline = Timeline(seconds=10.0, bucket_seconds=1.0, nodes=(NodeTimeline(node="n1", points=alone),), nodes_total=9)
    page = page_of(timeline=timeline)
    (cpu,) = paths(page, "cpu")
    assert re.fullmatch(r"M5000 [\d.]+h0M6000 [\d.]+h0", cpu)
    assert "1 of 9 nodes are drawn" in page
    assert "memory" not in [figure.get("id") for figure in parsed(page).iter("figure")]


def test_the_memory_limit_is_drawn_once_for_each_value_and_with_its_changes() -> None:
    def of(limits: list[int]) -> tuple[NodePoint, ...]:
        return tuple(
            NodePoint(seconds=float(at), memory_bytes=GIB, memory_limit_bytes=limit) for at, limit in enumerate(limits)
        )

    nodes = (NodeTimeline(node="n1", points=of([4 * GIB] * 9)), NodeTimeline(node="n2", points=of([4 * GIB] * 9)),
             NodeTimeline(node="n3", points=of([2 * GIB, 8 * GIB])))  # fmt: skip
    page = page_of(timeline=Timeline(seconds=10.0, bucket_seconds=1.0, nodes=nodes, nodes_total=3))
    (figure,) = [one for one in parsed(page).iter("figure") if one.get("id") == "memory"]
    limits = [one.get("d") or "" for one in figure.iter("path") if "limit" in (one.get("class") or "")]
    assert [re.sub(r"\d+ ", "", path).count("L") for path in limits] == [1, 1]
    assert "limit (n3)" in words(figure)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["GPU-5f2d77a1-0c1b-4e0f", "GPU-6a1c0f3e-0c1b-4e0f"], ["GPU-5f2d77a1", "GPU-6a1c0f3e"]),
        (["GPU-5f2d77a1-0c1b-4e0f", "GPU-5f2d77a1-1c1b-4e0f"], ["GPU-5f2d77a1-0", "GPU-5f2d77a1-1"]),
        (["0000:03:00.0", "0000:83:00.0"], ["0000:03:00.0", "0000:83:00.0"]),
        (["GPU-5f2d77a1-0c1b-4e0f"], ["GPU-5f2d77a1"]),
    ],
)
def test_a_gpu_is_called_by_as_much_of_its_id_as_tells_it_from_the_others(ids: list[str], told: list[str]) -> None:
    points = (GpuPoint(seconds=1.0, power_watts=300.0), GpuPoint(seconds=2.0, power_watts=300.0))
    gpus = tuple(GpuTimeline(node="n1", gpu_id=one, points=points) for one in ids)
    page = page_of(timeline=Timeline(seconds=10.0, bucket_seconds=1.0, gpus=gpus, gpus_total=len(ids)))
    (figure,) = [one for one in parsed(page).iter("figure") if one.get("id") == "gpu-power"]
    assert [words(head) for head in figure.iter("th") if head.get("scope") == "row"] == told


def test_the_ninth_line_is_told_from_the_first() -> None:
    page = page_of(timeline=lines(gpus=COLOURS + 1))
    (figure,) = [one for one in parsed(page).iter("figure") if one.get("id") == "gpu-power"]
    classes = [one.get("class") for one in figure.iter("path")]
    assert len(set(classes)) == COLOURS + 1


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 0), (1, 4), (8, 16)])
def test_the_page_stays_small_however_much_there_was(nodes: int, gpus: int) -> None:
    points = points_of_a_line(nodes, gpus)
    assert 60 <= points <= 600
    assert points == 60 or points * (2 * nodes + 3 * gpus + 3) <= ALL_POINTS
    marks = tuple(Mark(seconds=60.0 * number, what="GPU error " * 5, by="driver", node="n1") for number in range(60))
    timeline = msgspec.structs.replace(lines(points, nodes, gpus), marks=marks)
    told = report()
    many = msgspec.structs.replace(told, gpu_lines=told.gpu_lines * 200, nodes=told.nodes * 200)
    assert len(page_of(many, timeline).encode()) < 300 * 1024
    assert "144 more are left out" in page_of(many, timeline)


def test_a_run_without_samples_says_so_and_one_that_waits_too() -> None:
    nothing = Timeline(seconds=7200.0, bucket_seconds=12.0)
    page = page_of(timeline=nothing)
    assert "No samples of this run are stored" in page
    assert list(parsed(page).iter("figure")) == []
    waiting = report(start_time=None, end_time=None, state="pending", verdict=None)
    assert "The run has not started." in page_of(waiting, nothing)


def test_unknown_is_said_and_never_nought() -> None:
    bare = make_report(job_row(), sentence="Nobody knows.", nodes=[], gpus=[], other_runs=[], now=END)
    root = parsed(page_of(bare, Timeline(seconds=0.0, bucket_seconds=0.0)))
    tiles = {words(tile[0]): words(tile[1]) for tile in root.iter("div") if tile.get("class") == "tile"}
    assert tiles == dict.fromkeys(["CPU", "Memory", "Time", "Disk read, written", "Energy", "Covered"], "not known")


def test_text_is_escaped_and_markup_is_not() -> None:
    assert text("<&>\"'\n\x00") == "&lt;&amp;&gt;&quot;&#x27;\\n\\x00"
    assert el("p", "a<b", None, join(el("br"), 5 and "&")) == "<p>a&lt;b<br/>&amp;</p>"
    assert el("rect", stroke_width="1", class_='"', x=None) == '<rect stroke-width="1" class="&quot;"/>'


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.5, ["0 s"]), (4.0, ["0 s", "1 s", "2 s", "3 s", "4 s"]), (200.0, ["0 min", "1 min", "2 min", "3 min"]),
        (5400.0, ["0 min", "30 min", "1:00 h", "1:30 h"]), (10 * 3600.0, ["0 h", "2 h", "4 h", "6 h", "8 h", "10 h"]),
        (86_400 * 3.5, ["0 d", "1 d", "2 d", "3 d"]), (86_400 * 30.0, ["0 d", "6 d", "12 d", "18 d", "24 d", "30 d"]),
    ],
)  # fmt: skip
def test_moments_are_round_times(seconds: float, told: list[str]) -> None:
    assert [word for _, word in moments(seconds)] == told


def scales() -> Iterator[tuple[object, float]]:
    for scale in (PERCENT, BYTES, WATTS, energy(1e3), energy(1e7)):
        for most in (0.0, 0.3, 1.0, 7.0, 99.0, 100.0, 101.0, 1023.0, 1e6, 17 * GIB, 1e13):
            yield scale, most


@pytest.mark.parametrize(("scale", "most"), list(scales()))
def test_an_axis_ends_at_a_round_number_above_everything(scale: object, most: float) -> None:
    top = scale.top(most)  # type: ignore[attr-defined]
    ticks = scale.ticks(top)  # type: ignore[attr-defined]
    assert top >= most
    assert top <= max(2.6 * most, 100.0, 8e5) or most == 0
    assert (ticks[0], ticks[-1]) == (0, pytest.approx(top))
    assert 2 <= len(ticks) <= 6
