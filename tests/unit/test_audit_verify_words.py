"""What `jobtrail audit verify` says at its end."""

from __future__ import annotations

import pytest

from jobtrail.cli.audit_verify import summary
from jobtrail.core.trail.ports import Checked
from jobtrail.domain.verification import Finding


def checked(each: int, *findings: Finding) -> Checked:
    """A verification that saw so many of everything."""
    return Checked(
        kind="full", rows=each, chains=each, removed=each, unsealed=each, checkpoint=7, findings=findings
    )  # fmt: skip


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (1, "1 row of 1 chain recomputed, up to checkpoint 7; 1 row is not covered by a checkpoint yet, 1 payload "
            "removed by order, compared with 1 anchor"),
        (2, "2 rows of 2 chains recomputed, up to checkpoint 7; 2 rows are not covered by a checkpoint yet, 2 payloads "
            "removed by order, compared with 2 anchors"),
        (0, "0 rows of 0 chains recomputed, up to checkpoint 7; 0 rows are not covered by a checkpoint yet"),
    ],
)  # fmt: skip
def test_one_of_a_thing_is_no_several(each: int, said: str) -> None:
    """A trail of one node has one chain."""
    assert summary(checked(each), anchored=each) == f"nothing is wrong: {said}"


@pytest.mark.parametrize(("many", "said"), [(1, "1 thing is wrong: "), (2, "2 things are wrong: ")])
def test_what_is_wrong_is_counted(many: int, said: str) -> None:
    """Each is printed on a line of its own before."""
    wrong = Finding(code="row_changed", detail="y")
    assert summary(checked(3, *[wrong] * many), anchored=0).startswith(said)
