"""What the Dockerfile must keep to; the rules of linters for Dockerfiles that matter here."""

import re
from pathlib import Path

import pytest

from tests.daemon_process import REPOSITORY
from tests.deploy.dockerfile import Instruction, Stage, instructions, read_stages

DOCKERFILE = REPOSITORY / "deploy" / "docker" / "Dockerfile"
SECRET_NAME = re.compile(r"(PASSWORD|TOKEN|SECRET|KEY)", re.IGNORECASE)
PINNED = re.compile(r"[a-z0-9./-]+:[0-9]+\.[0-9]+[a-z0-9.-]*")


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_stages(DOCKERFILE)


def problems(stages: dict[str, Stage]) -> list[str]:
    """Every broken rule, with the line."""
    found = [f"{stage.base} is not pinned to a release" for stage in stages.values()
             if stage.base not in stages and not PINNED.fullmatch(stage.base)]  # fmt: skip
    for stage in stages.values():
        for one in stage.instructions:
            found += [f"line {one.line}: {text}" for text in _broken_by(one)]
    return found


def _broken_by(one: Instruction) -> list[str]:
    broken = []
    if one.word == "ADD":
        broken.append("ADD fetches and unpacks; COPY is what is meant")
    if one.word in {"ENV", "ARG"} and SECRET_NAME.search(one.text):
        broken.append("a secret would stay in the image")
    if one.word == "ENTRYPOINT" and not one.text.startswith("["):
        broken.append("a shell would be process 1 and keep SIGTERM to itself")
    if one.word != "RUN":
        return broken
    if re.search(r"\b(curl|wget)\b", one.text):
        broken.append("fetches what nobody locked")
    if re.search(r"pip install(?!.*(--require-hashes|--no-index))", one.text):
        broken.append("pip install without --require-hashes")
    if "apt-get install" in one.text:
        for wanted in ("--no-install-recommends", "-y", "rm -rf /var/lib/apt/lists/*"):
            if wanted not in one.text:
                broken.append(f"apt-get install without {wanted}")
    if re.search(r"\bsudo\b|chmod (-R )?0?777", one.text):
        broken.append("sudo or a mode for all")
    return broken


def test_the_dockerfile_keeps_the_rules(stages: dict[str, Stage]) -> None:
    assert problems(stages) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("FROM debian AS a", "debian is not pinned to a release"),
        ("FROM debian:latest AS a", "debian:latest is not pinned to a release"),
        ("FROM d:1.2 AS a\nADD https://example.org/x /x", "line 2: ADD fetches and unpacks; COPY is what is meant"),
        ("FROM d:1.2 AS a\nENV DB_PASSWORD=x", "line 2: a secret would stay in the image"),
        ("FROM d:1.2 AS a\nRUN pip install x", "line 2: pip install without --require-hashes"),
        ("FROM d:1.2 AS a\nRUN curl x | sh", "line 2: fetches what nobody locked"),
        ("FROM d:1.2 AS a\nENTRYPOINT serve", "line 2: a shell would be process 1 and keep SIGTERM to itself"),
        (
            "FROM d:1.2 AS a\nRUN apt-get install -y \\\n  --no-install-recommends x",
            "line 2: apt-get install without rm -rf /var/lib/apt/lists/*",
        ),
    ],
)
def test_each_rule_finds_what_breaks_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(text + "\n")
    assert problems(read_stages(path)) == [complaint]


def test_what_runs_for_long_says_its_user_and_its_health(stages: dict[str, Stage]) -> None:
    for name in ("daemon", "slurm"):
        assert stages[name].all("USER"), name
        assert stages[name].all("HEALTHCHECK"), name
        (entrypoint,) = stages[name].all("ENTRYPOINT")
        assert entrypoint.arguments[0] == "/usr/bin/tini"
    assert stages["daemon"].all("USER")[-1].text == "10001:10001"


def test_what_only_builds_is_not_in_the_images(stages: dict[str, Stage]) -> None:
    """Compilers, pip and apt's lists stay behind: of the stage `build` only the environment is taken."""
    for name in ("daemon", "slurm"):
        copied = [one.arguments for one in stages[name].all("COPY") if one.flags.get("from") == "build"]
        assert copied == [["/opt/jobtrail", "/opt/jobtrail"]]


def test_the_builder_is_sent_all_that_is_copied_and_no_secret(stages: dict[str, Stage]) -> None:
    """.dockerignore begins with everything left out."""
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    sent = [line[1:] for line in lines if line.startswith("!")]
    for stage in stages.values():
        for one in stage.all("COPY"):
            if "from" in one.flags:
                continue
            for source in one.arguments[:-1]:
                assert (REPOSITORY / source).exists(), source
                below = [path for path in sent if path == source or path.startswith(f"{source}/")]
                above = [path for path in sent if source.startswith(f"{path}/")]
                assert below or above, f"{source} is not sent to the builder"
    assert "deploy/docker/secrets" in lines[lines.index("!deploy/docker") :]


def test_continued_lines_are_one_instruction() -> None:
    text = "# a\nRUN one \\\n    # in between\n    && two\nCOPY --from=x a \\\n  b\n"
    found = list(instructions(text))
    assert [(one.word, one.text, one.line) for one in found] == [
        ("RUN", "one && two", 2),
        ("COPY", "--from=x a b", 5),
    ]
    assert found[1].flags == {"from": "x"}
    assert found[1].arguments == ["a", "b"]
