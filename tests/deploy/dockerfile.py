"""Reads a Dockerfile: its stages and their instructions, as the reference has them.

Of the format it knows what ours uses: comments, continued lines, ARG before the first FROM, flags such as --from=.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, what follows in one line, and the number of its first line."""

    word: str
    text: str
    line: int

    @property
    def flags(self) -> dict[str, str]:
        """What stands before the arguments as --name=value."""
        return dict(re.findall(r"(?:^|\s)--([a-z]+)=(\S+)", self.text)) if self.word in {"COPY", "FROM", "RUN"} else {}

    @property
    def arguments(self) -> list[str]:
        """The words without the flags; of the JSON form, its list."""
        if self.text.startswith("["):
            return [str(part) for part in json.loads(self.text)]
        return [part for part in self.text.split() if not part.startswith("--")]


@dataclass
class Stage:
    """What FROM begins: the image or stage it builds on, its name, its instructions."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, *words: str) -> list[Instruction]:
        """The instructions with one of these words."""
        return [one for one in self.instructions if one.word in words]


def read_stages(path: Path) -> dict[str, Stage]:
    """The stages by name, with ARGs put into FROM; raises ValueError for one without a name."""
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for one in instructions(path.read_text(encoding="utf-8")):
        if one.word == "ARG" and not stages:
            name, _, value = one.text.partition("=")
            arguments[name] = value
        elif one.word == "FROM":
            found = re.fullmatch(r"(\S+)\s+AS\s+(\S+)", one.text, re.IGNORECASE)
            if found is None:
                raise ValueError(f"line {one.line}: a stage must have a name: FROM {one.text}")
            base = re.sub(r"\$\{?(\w+)\}?", lambda match: arguments[match[1]], found[1])
            stages[found[2]] = Stage(base, found[2])
        else:
            list(stages.values())[-1].instructions.append(one)
    return stages


def instructions(text: str) -> Iterator[Instruction]:
    """Each instruction in one line, comments left out."""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#") or not (held or line.strip()):
            continue
        first = first or number
        held += line.rstrip()
        if held.endswith("\\"):
            held = held[:-1].rstrip() + " "
            continue
        word, _, rest = held.strip().partition(" ")
        yield Instruction(word.upper(), re.sub(r"\s+", " ", rest.strip()), first)
        held, first = "", 0
