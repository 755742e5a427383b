"""How a number of things is written."""

from __future__ import annotations

import pytest

from jobtrail.domain.phrases import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 nodes"), (1, "1 node"), (2, "2 nodes")])
def test_one_thing_is_no_several(number: int, said: str) -> None:
    """In English only one of a thing is without an s."""
    assert counted(number, "node") == said
