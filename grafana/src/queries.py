"""Questions to the two data sources; which ones, the variables `prometheus` and `postgresql` say."""

from __future__ import annotations

import inspect
import re

from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusBuilder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

POSTGRESQL_TYPE = "grafana-postgresql-datasource"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${prometheus}")
POSTGRESQL = DataSourceRef(type_val=POSTGRESQL_TYPE, uid="${postgresql}")

# The page's own cluster, which prometheus.yml gives to every target. hpc_job_info alone has the job's own, and stands
# beside another family of its page (instance), which is chosen already.
_FAMILY = re.compile(r"\b(?!hpc_job_info\b)((?:hpc|jobtrail|process)_\w+)(\{?)")
CLUSTER = 'cluster=~"${cluster:regex}"'

Query = Builder[Dataquery]


class PostgresqlQuery(Dataquery, Builder[Dataquery]):
    """A question in SQL; `series` has columns time, metric and value, else it is a table."""

    def __init__(self, statement: str, *, series: bool = False, ref_id: str = "A") -> None:
        self.statement = inspect.cleandoc(statement).strip()
        self.series = series
        self.ref_id = ref_id

    def build(self) -> Dataquery:
        """Itself: it is complete when it is made."""
        return self

    def to_json(self) -> dict[str, object]:
        """As Grafana's PostgreSQL data source stores it."""
        return {
            "refId": self.ref_id,
            "datasource": POSTGRESQL,
            "editorMode": "code",
            "format": "time_series" if self.series else "table",
            "rawQuery": True,
            "rawSql": self.statement,
        }


def over_time(expression: str, legend: str, ref_id: str = "A") -> Query:
    """A PromQL expression at every step of the time range; `legend` names its series."""
    query = PrometheusBuilder().expr(_one_line(expression)).legend_format(legend).range().ref_id(ref_id)
    return query.datasource(PROMETHEUS)


def everywhere(expression: str) -> Query:
    """A PromQL expression at the end of the time range, of all clusters whichever are chosen."""
    return PrometheusBuilder().expr(expression).instant().ref_id("A").datasource(PROMETHEUS)


def now(expression: str, legend: str = "", ref_id: str = "A") -> Query:
    """A PromQL expression at the end of the time range."""
    query = PrometheusBuilder().expr(_one_line(expression)).instant().ref_id(ref_id).datasource(PROMETHEUS)
    return query.legend_format(legend) if legend else query


def rows_now(expression: str, ref_id: str = "A") -> Query:
    """The same as rows of a table, with a column for each label."""
    query = PrometheusBuilder().expr(_one_line(expression)).instant().ref_id(ref_id).datasource(PROMETHEUS)
    return query.format(PromQueryFormat.TABLE)


def rows(statement: str, ref_id: str = "A") -> Query:
    """A statement whose rows are shown."""
    return PostgresqlQuery(statement, ref_id=ref_id)


def series(statement: str, ref_id: str = "A") -> Query:
    """A statement with columns time, metric and value, in order of time."""
    return PostgresqlQuery(statement, series=True, ref_id=ref_id)


def source_of(query: Query) -> DataSourceRef:
    """The data source that answers a query."""
    return POSTGRESQL if isinstance(query, PostgresqlQuery) else PROMETHEUS


def _one_line(expression: str) -> str:
    """On one line, and of the chosen clusters, unless it says itself of which."""
    if "$cluster" not in expression:
        expression = _FAMILY.sub(lambda found: f"{found[1]}{{{CLUSTER}{',' if found[2] else '}'}", expression)
    return " ".join(expression.split())
