"""What the records of one answer have in common, kept once: the same users, partitions and nodes stand in thousands."""

from __future__ import annotations

from jobtrail.domain.errors import SlurmAnswerInvalid
from jobtrail.domain.hostlist import expand_nodes

MAX_NODE_NAMES = 1_000_000  # in the node lists of one answer together, 8 bytes each beside the names


class Shared:
    """Texts and node lists seen so far in an answer."""

    __slots__ = ("_names_left", "_nodes", "_texts")

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._nodes: dict[str, tuple[str, ...]] = {}
        self._names_left = MAX_NODE_NAMES

    def text(self, text: str) -> str:
        """The first text like this one."""
        return self._texts.setdefault(text, text)

    def nodes(self, path: str, node_list: str) -> tuple[str, ...]:
        """The nodes of a host list. Raises InvalidEvent for what is none.

        Raises SlurmAnswerInvalid naming `path` once the lists of the answer come to more than a million nodes.
        """
        known = self._nodes.get(node_list)
        if known is not None:
            return known
        names = expand_nodes(path, node_list)
        if len(names) > self._names_left:
            raise SlurmAnswerInvalid(path, f"is not expanded: the answer's lists name over {MAX_NODE_NAMES} nodes")
        self._names_left -= len(names)
        return self._nodes.setdefault(node_list, tuple(map(self.text, names)))
