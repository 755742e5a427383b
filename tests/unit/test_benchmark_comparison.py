"""Two runs side by side."""

import math

import pytest

from jobtrail.domain.benchmarks.comparison import Comparison, Noise, Side, compare
from jobtrail.domain.benchmarks.metrics import Direction

HIGHER, LOWER = Direction.HIGHER, Direction.LOWER


@pytest.mark.parametrize(
    ("values", "direction", "judgement"),
    [
        ((100.0, 90.0), HIGHER, "worse"),
        ((100.0, 110.0), HIGHER, "better"),
        ((100.0, 90.0), LOWER, "better"),
        ((100.0, 110.0), LOWER, "worse"),
        ((100.0, 100.0), LOWER, "same"),
        ((100.0, 90.0), Direction.NONE, None),
    ],
)
def test_a_change_is_judged_by_the_metrics_direction(
    values: tuple[float, float], direction: Direction, judgement: str | None
) -> None:
    found = compare(Side(values[0]), Side(values[1]), direction)
    assert (found.judgement, found.relative_change) == (judgement, pytest.approx(values[1] / values[0] - 1))
    assert (found.significant, found.noise) == (None, None)


def test_a_change_from_nothing_has_no_ratio() -> None:
    known = Side(0.0, history_mad_log=0.01)
    assert compare(known, Side(0.5), LOWER) == Comparison(judgement="worse")
    back = compare(Side(0.5), known, LOWER)
    assert (back.relative_change, back.judgement, back.significant) == (-1.0, "better", None)


@pytest.mark.parametrize(("mad", "detectable"), [(0.02, 1 - math.exp(-3.5 * math.sqrt(2) * 1.4826 * 0.02)),
                                                 (0.0, 1 - math.exp(-3.5 * math.sqrt(2) * 0.01))])  # fmt: skip
def test_the_noise_of_the_history_decides_where_it_is_known(mad: float, detectable: float) -> None:
    one, other = Side(100.0, (1, 2, 3), mad), Side(100 * (1 - detectable - 0.001), (), None)
    worse = compare(one, other, HIGHER)
    assert (worse.significant, worse.noise, worse.detectable) == (True, Noise.HISTORY, pytest.approx(detectable))
    assert compare(one, Side(100 * (1 - detectable + 0.001)), HIGHER).significant is False
    assert compare(Side(1.0), Side(1.0, (), mad), LOWER).noise is Noise.HISTORY


def test_else_the_spread_of_the_repeats_decides_where_there_are_three_of_both() -> None:
    quiet, noisy = (99.0, 100.0, 101.0), (80.0, 100.0, 120.0)
    assert compare(Side(100.0, quiet), Side(90.0, quiet), HIGHER).significant is True
    found = compare(Side(100.0, noisy), Side(90.0, quiet), HIGHER)
    assert (found.significant, found.noise) == (False, Noise.REPEATS)
    for one, other in ((quiet[:2], quiet), (quiet, quiet[:2]), (quiet, (0.0, 1.0, 2.0))):
        assert compare(Side(100.0, one), Side(90.0, other), HIGHER).significant is None
