"""Variables that several dashboards have, with their SQL."""

from __future__ import annotations

from grafana.src.frame import Variable, from_labels, from_sql

# A walk along the primary key: one look for each cluster, however many jobs there are.
_CLUSTERS = """
    WITH RECURSIVE known (name) AS (
        (SELECT cluster_name FROM jobs ORDER BY cluster_name LIMIT 1)
        UNION ALL
        SELECT (SELECT j.cluster_name FROM jobs j WHERE j.cluster_name > k.name ORDER BY j.cluster_name LIMIT 1)
        FROM known k WHERE k.name IS NOT NULL
    )
    SELECT name FROM known WHERE name IS NOT NULL
"""
_USERS = """
    SELECT DISTINCT user_name FROM jobs
    WHERE $__timeFilter(start_time) AND user_name IS NOT NULL ORDER BY user_name LIMIT 1000
"""
_ACCOUNTS = """
    SELECT DISTINCT account FROM jobs
    WHERE $__timeFilter(start_time) AND account IS NOT NULL ORDER BY account LIMIT 1000
"""
# In two parts, each with an index of its own: those that ended since the range began, and those that still run.
_JOBS = """
    SELECT DISTINCT ON (j.start_time, j.job_id) j.job_id AS __value,
           concat_ws(' · ', j.job_id, j.user_name, j.job_name, j.state) AS __text
    FROM (
        SELECT * FROM jobs WHERE end_time >= $__timeFrom() AND start_time <= $__timeTo()
        UNION ALL
        SELECT * FROM jobs WHERE state = 'running' AND end_time IS NULL AND start_time <= $__timeTo()
    ) AS j
    WHERE j.cluster_name = ${cluster:sqlstring}
      AND ('*' IN (${user:sqlstring}) OR j.user_name IN (${user:sqlstring}))
      AND ('*' IN (${account:sqlstring}) OR j.account IN (${account:sqlstring}))
    ORDER BY j.start_time DESC, j.job_id LIMIT 500
"""


def cluster() -> Variable:
    """One cluster."""
    return from_sql("cluster", "Cluster", _CLUSTERS)


def clusters() -> Variable:
    """Some clusters, or all."""
    return from_sql("cluster", "Cluster", _CLUSTERS, several=True)


def scraped_cluster() -> Variable:
    """One of the clusters that Prometheus scrapes."""
    return from_labels("cluster", "Cluster", "jobtrail_build_info")


def scraped_clusters() -> Variable:
    """Some of the clusters that Prometheus scrapes, or all."""
    return from_labels("cluster", "Cluster", "jobtrail_build_info", several=True)


def users() -> Variable:
    """Some users who started jobs in the time range, or all."""
    return from_sql("user", "User", _USERS, several=True)


def accounts() -> Variable:
    """Some accounts under which jobs started in the time range, or all."""
    return from_sql("account", "Account", _ACCOUNTS, several=True)


def job() -> Variable:
    """One job of the chosen cluster, users and accounts; any other id may be typed."""
    told = "The newest 500 that ran in the time range; another id can be typed, as slurm-123."
    return from_sql("job", "Job", _JOBS, description=told)
