"""Slurm's host lists, expanded in their own order and never beyond the cap."""

import pytest
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from hypothesis import given
from hypothesis import strategies as st

from jobtrail.domain.errors import InvalidEvent
from jobtrail.domain.hostlist import MAX_NODES, expand_nodes


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("vm", ("vm",)),
        ("n2,n1", ("n2", "n1")),
        ("n[3,1-2]", ("n3", "n1", "n2")),
        ("n[001-003,007],gpu1", ("n001", "n002", "n003", "n007", "gpu1")),
        ("r[1-2]n[1,3]", ("r1n1", "r1n3", "r2n1", "r2n3")),
        ("n[9-11]-ib", ("n9-ib", "n10-ib", "n11-ib")),
        ("[1-2]", ("1", "2")),
        ("n1,n[1-2]", ("n1", "n2")),
        (f"n[1-{MAX_NODES}]", tuple(f"n{number}" for number in range(1, MAX_NODES + 1))),
    ],
)
def test_the_order_is_slurms_own(text: str, nodes: tuple[str, ...]) -> None:
    """The first node is the batch host, so nothing is sorted."""
    assert expand_nodes("list", text) == nodes


@pytest.mark.parametrize(
    "text",
    [
        "", ",", "n1,", ",n1", "n1,,n2", "n[", "n]", "n[]", "n[1-", "n[5-1]", "n[a-b]", "n[1--2]", "n[1,]", "n 1",
        "n1\n", "n[[1]]", "n[1]]",
        f"n[1-{MAX_NODES + 1}]", "n[1-999999999]", "n[1-999999999999999999]", "n[1-400][1-400]",
        "n[1-99999],m[1-99999]", f"n[{'9' * 19}]", "x" * 256, f"{'x' * 200}[1-99999]",
    ],
)  # fmt: skip
def test_nonsense_and_bombs_are_refused_by_name(text: str) -> None:
    """Whatever is no host list, or a huge one, is refused with the name of the variable it came in."""
    with pytest.raises(InvalidEvent) as refused:
        expand_nodes("SLURM_NODELIST", text)
    assert refused.value.field == "SLURM_NODELIST"


names = st.sets(
    st.tuples(st.sampled_from(["n", "gpu-", "r1c"]), st.integers(0, 120)), min_size=1, max_size=40
).map(lambda parts: [f"{prefix}{number:03d}" for prefix, number in sorted(parts)])  # fmt: skip


@given(names)
def test_agrees_with_clustershell(nodes: list[str]) -> None:
    """ClusterShell folds a set of nodes, this unfolds it again: the same nodes."""
    folded = str(NodeSet.fromlist(nodes, resolver=RESOLVER_NOGROUP))
    assert sorted(expand_nodes("list", folded)) == nodes
