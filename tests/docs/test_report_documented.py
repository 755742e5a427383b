"""docs/report.md names every rule of advice, and no other; docs/cli.md the keys of `top`."""

import re
from pathlib import Path

from jobtrail.cli.top_page import ORDERS

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "report.md").read_text(encoding="utf-8")


def test_every_rule_of_advice_is_documented() -> None:
    sources = (REPOSITORY / "daemon" / "jobtrail" / "domain").glob("advice*.py")
    rules = {rule for source in sources for rule in re.findall(r'rule="(\w+)"', source.read_text(encoding="utf-8"))}
    table = TEXT.partition("## Advice")[2].partition("\nWhat ended a job")[0]
    named = {
        rule for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for rule in re.findall(r"`(\w+)`", line)
    }
    assert named == rules
    assert len(rules) > 10


def test_every_key_of_top_is_documented() -> None:
    text = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [key for key in ORDERS if f"`{key}`" not in text] == []
