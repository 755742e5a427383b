"""What Grafana does to a query before it sends it: variables and macros are put in.

Variables, as in Grafana's documentation of variable syntax: `$name` and `${name}` are the value itself, `${name:regex}`
the values escaped and joined with |, `${name:sqlstring}` each in single quotes with commas between them. A variable's
own value of "All" is put in as it is, whatever the format says.

Macros of the PostgreSQL data source: `$__timeFilter(column)` is a BETWEEN of the time range, `$__timeFrom()` and
`$__timeTo()` its ends, `$__timeGroup(column, period)` the time rounded down to the period in seconds since 1970, and
`$__timeGroupAlias` the same AS "time". Macros of Prometheus: `$__rate_interval`, `$__interval`, `$__range`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Everything:
    """The choice of all values, for which the dashboard says what is put in."""

    text: str


Value = str | tuple[str, ...] | Everything


def promql(expression: str, values: dict[str, Value], *, rate_interval: str) -> str:
    """The expression as Prometheus gets it."""
    for macro in ("__rate_interval", "__interval", "__range"):
        expression = expression.replace(f"${macro}", rate_interval)
    return _variables(expression, values)


def sql(statement: str, values: dict[str, Value], begin: datetime, end: datetime, *, interval_seconds: int) -> str:
    """The statement as PostgreSQL gets it."""
    first, last = f"'{begin.isoformat()}'", f"'{end.isoformat()}'"
    statement = statement.replace("$__interval", f"{interval_seconds}s")
    statement = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 BETWEEN {first} AND {last}", statement)
    statement = re.sub(
        r"\$__timeGroup(Alias)?\(([\w.]+),\s*(\d+)s\)",
        lambda found: (
            f"floor(extract(epoch FROM {found[2]}) / {found[3]}) * {found[3]}" + (' AS "time"' if found[1] else "")
        ),
        statement,
    )
    statement = statement.replace("$__timeFrom()", first).replace("$__timeTo()", last)
    statement = _variables(statement, values)
    assert "$__" not in statement, f"a macro that is not known: {statement}"
    return statement


def _variables(text: str, values: dict[str, Value]) -> str:
    def put_in(found: re.Match[str]) -> str:
        name, form = found["braced"] or found["plain"], found["form"]
        assert name in values, f"no variable {name}, in {text}"
        value = values[name]
        if isinstance(value, Everything):
            return value.text
        several = (value,) if isinstance(value, str) else value
        if form == "sqlstring":
            return ",".join("'" + one.replace("'", "''") + "'" for one in several)
        if form == "regex":
            return "|".join(re.escape(one) for one in several)
        assert form is None, f"the format {form} is not known, in {text}"
        assert len(several) == 1, f"{name} has several values and no format, in {text}"
        return several[0]

    pattern = r"\$(?:\{(?P<braced>\w+)(?::(?P<form>\w+))?\}|(?P<plain>[a-zA-Z]\w*))"
    return re.sub(pattern, put_in, text)
