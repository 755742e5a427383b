"""The audit trail: who changed what, and whether the trail itself is whole."""

from __future__ import annotations

from grafana.src import choices, looks
from grafana.src.frame import dashboard, from_sql, sources
from grafana.src.panels import HALF, THIRD, WHOLE, Column, Panel, lines, listing, number
from grafana.src.queries import everywhere, rows, series
from grafana_foundation_sdk.models.dashboard import Dashboard

NOTHING = "Nothing was recorded in this time"

_ACTORS = """
    SELECT name FROM unnest(ARRAY['slurm-prolog', 'slurm-epilog', 'slurm-controller', 'collector', 'reconciler', 'api',
                                  'cli']) AS known (name)
"""
_JOBS = """
    SELECT job_id FROM jobs WHERE start_time <= $__timeTo() ORDER BY start_time DESC NULLS LAST LIMIT 200
"""
_CHOSEN = """$__timeFilter(a.changed_at)
      AND ('*' IN (${cluster:sqlstring}) OR a.cluster_name IN (${cluster:sqlstring}))
      AND ('*' IN (${actor:sqlstring}) OR a.changed_by IN (${actor:sqlstring}))
      AND ('*' IN (${job:sqlstring}) OR a.job_id IN (${job:sqlstring}))"""

CHANGES = f"""
    SELECT a.changed_at, a.job_id, a.cluster_name, a.run, a.event_kind, a.change_type, a.changed_by, a.person,
           a.source, a.node, a.job_snapshot ->> 'user_name' AS user_name, a.job_snapshot ->> 'state' AS state_after,
           a.correlation_id::text AS correlation_id, a.event_id::text AS event_id
    FROM job_audit_events a
    WHERE {_CHOSEN}
    ORDER BY a.changed_at DESC LIMIT 500
"""  # noqa: S608 - constants of this module
BY_ACTOR = f"""
    SELECT $__timeGroupAlias(a.changed_at, $__interval), coalesce(a.changed_by, 'unknown') AS metric, count(*) AS value
    FROM audit_log a WHERE {_CHOSEN}
    GROUP BY 1, 2 ORDER BY 1
"""  # noqa: S608 - constants of this module
BY_KIND = f"""
    SELECT $__timeGroupAlias(a.changed_at, $__interval), a.kind AS metric, count(*) AS value
    FROM audit_log a WHERE {_CHOSEN}
    GROUP BY 1, 2 ORDER BY 1
"""  # noqa: S608 - constants of this module
DELAY = f"""
    SELECT $__timeGroupAlias(a.changed_at, $__interval), coalesce(a.node, 'unknown') AS metric,
           max(extract(epoch FROM a.stored_at - a.received_at)) AS value
    FROM audit_log a WHERE {_CHOSEN}
    GROUP BY 1, 2 ORDER BY 1
"""  # noqa: S608 - constants of this module
# A row whose predecessor is not held, and was not removed in order (jobtrail_prune, which notes where a chain begins).
# By the primary key, one look a row of the time range.
_GAPS = """
    FROM audit_log a
    WHERE $__timeFilter(a.changed_at)
      AND a.seq > 1 + coalesce((SELECT c.pruned_seq FROM audit_chain c WHERE c.chain_id = a.chain_id), 0)
      AND NOT EXISTS (SELECT FROM audit_log p WHERE p.chain_id = a.chain_id AND p.seq = a.seq - 1)
"""
GAPS = f"""
    SELECT a.chain_id::text AS chain_id, a.node,
           coalesce((SELECT max(p.seq) FROM audit_log p WHERE p.chain_id = a.chain_id AND p.seq < a.seq),
                    (SELECT c.pruned_seq FROM audit_chain c WHERE c.chain_id = a.chain_id), 0) + 1
               AS first_missing, a.seq - 1 AS last_missing, a.changed_at
    {_GAPS} ORDER BY a.changed_at DESC LIMIT 200
"""  # noqa: S608 - constants of this module
UNAPPLIED = """
    SELECT a.changed_at, a.job_id, a.cluster_name, a.kind, a.changed_by, a.node, a.unapplied
    FROM audit_log a
    WHERE $__timeFilter(a.changed_at) AND a.unapplied IS NOT NULL
    ORDER BY a.changed_at DESC LIMIT 200
"""
CHAINS = """
    SELECT c.node, c.chain_id::text AS chain_id, c.head_seq, h.seq AS held_to, c.head_seq - h.seq AS behind,
           h.changed_at,
           c.updated_at, encode(c.head_hash, 'hex') AS head_hash
    FROM audit_chain c
    LEFT JOIN LATERAL (
        SELECT a.seq, a.changed_at FROM audit_log a WHERE a.chain_id = c.chain_id ORDER BY a.seq DESC LIMIT 1
    ) h ON true
    ORDER BY c.updated_at DESC LIMIT 1000
"""


def build() -> Dashboard:
    """The dashboard."""
    return dashboard(
        "audit", "Audit trail", "Who changed what and when, and whether the trail is whole.",
        variables=(
            *sources(), choices.clusters(), from_sql("actor", "Changed by", _ACTORS, several=True),
            from_sql("job", "Job", _JOBS, several=True, description="The newest 200; another id can be typed."),
        ),
        panels=(*_numbers(), *_changes()), rows={"Is the trail whole": _wholeness()}, past="now-24h",
    )  # fmt: skip


def _numbers() -> tuple[Panel, ...]:
    counted = f"SELECT nullif(count(*), 0) AS events FROM audit_log a WHERE {_CHOSEN}"  # noqa: S608 - constants
    unapplied = """
        SELECT count(a.unapplied) AS unapplied FROM audit_log a
        WHERE $__timeFilter(a.changed_at) HAVING count(*) > 0
    """
    return (
        number("Events", "Recorded changes of the chosen.", rows(counted), unit="short", absent=NOTHING),
        number(
            "Gaps", "Events in the time range whose predecessor in their chain is not held. Any is a loss, or "
            "tampering.",
            rows(f"SELECT count(*) AS gaps {_GAPS}"),
            unit="short", absent=NOTHING, steps=looks.NONE_IS_GOOD,
        ),
        number(
            "Not applied", "Events that should have changed a job and could not; the table below says why.",
            rows(unapplied), unit="short", absent=NOTHING, steps=looks.NONE_IS_BETTER,
        ),
        number(
            "Conflicts", "Of all clusters: events that the database refused since the daemons started, because it "
            "holds others in their place: tampering, or two daemons on one chain (jobtrail_forward_conflicts_total). "
            "The auditor's role sees them in audit_conflict.",
            everywhere("sum(jobtrail_forward_conflicts_total)"), unit="short", absent="No daemon is being scraped",
            steps=looks.NONE_IS_GOOD,
        ),
        number("Writers", "Chains on record: one for each spool that ever wrote.",
               rows("SELECT nullif(count(*), 0) AS chains FROM audit_chain"), unit="short",
               absent="No chain is on record"),
        number(
            "Last stored", "How long ago the database took the newest event in.",
            rows("SELECT extract(epoch FROM now() - max(updated_at)) AS seconds FROM audit_chain"), unit="dtdurations",
            absent="No chain is on record",
        ),
    )  # fmt: skip


def _changes() -> tuple[Panel, ...]:
    return (
        lines("Changes by whom", "Hooks of Slurm, the daemon itself, the reconciler with Slurm's word, and people by "
              "API and command line.", series(BY_ACTOR), unit="short", absent=NOTHING, width=THIRD, bars=True,
              colours=looks.ACTORS),
        lines("Changes by kind", "What the events were.", series(BY_KIND), unit="short", absent=NOTHING, width=THIRD,
              bars=True),
        lines("Time from node to database", "The longest time an event waited in a node's spool until it was stored.",
              series(DELAY), unit="s", absent=NOTHING, width=THIRD),
        listing(
            "Who changed what", "Events of jobs, the newest first, with the job's state after them (view "
            "job_audit_events). One correlation id goes through all events of a run.",
            rows(CHANGES),
            columns=(
                Column("changed_at", "dateTimeAsIso", "When"),
                Column("job_id", "string", "Job", link=looks.job_link(times=False)),
                Column("cluster_name", "string", "Cluster"),
                Column("run", "none", "Run"),
                Column("event_kind", "string", "What"),
                Column("change_type", "string", "Change"),
                Column("changed_by", "string", "By", colours=looks.ACTORS),
                Column("person", "string", "Person"),
                Column("source", "string", "Source"),
                Column("node", "string", "Node", link=looks.node_link("cluster_name")),
                Column("user_name", "string", "Job of"),
                Column("state_after", "string", "State after", colours=looks.JOB_STATES),
                Column("correlation_id", "string", "Correlation"),
                Column("event_id", "string", "Event"),
            ),
            absent=NOTHING, width=WHOLE, height=12,
        ),
    )  # fmt: skip


def _wholeness() -> tuple[Panel, ...]:
    return (
        listing(
            "Missing events", "Numbers of a chain that are not held, before an event of the time range. jobtrail audit "
            "verify checks hashes as well.",
            rows(GAPS),
            columns=(
                Column("node", "string", "Node", link=looks.node_link("")),
                Column("chain_id", "string", "Chain"),
                Column("first_missing", "none", "First missing"),
                Column("last_missing", "none", "Last missing"),
                Column("changed_at", "dateTimeAsIso", "Before"),
            ),
            absent="None: every event has its predecessor", width=HALF,
        ),
        listing(
            "Events that changed nothing", "They are in the trail, and their job could not be changed by them.",
            rows(UNAPPLIED),
            columns=(
                Column("changed_at", "dateTimeAsIso", "When"),
                Column("job_id", "string", "Job", link=looks.job_link(times=False)),
                Column("cluster_name", "string", "Cluster"),
                Column("kind", "string", "What"),
                Column("changed_by", "string", "By", colours=looks.ACTORS),
                Column("node", "string", "Node", link=looks.node_link("cluster_name")),
                Column("unapplied", "string", "Why not"),
            ),
            absent="None in this time", width=HALF,
        ),
        listing(
            "Chains", "Every writer of the trail: how far its chain is held, and the hash of its head, to be "
            "compared with what was noted elsewhere. Behind is anything but 0 only if rows were deleted.",
            rows(CHAINS),
            columns=(
                Column("node", "string", "Node", link=looks.node_link("")),
                Column("chain_id", "string", "Chain"),
                Column("head_seq", "none", "Head"),
                Column("held_to", "none", "Held to"),
                Column("behind", "none", "Behind", steps=looks.NONE_IS_GOOD),
                Column("changed_at", "dateTimeAsIso", "Newest event"),
                Column("updated_at", "dateTimeAsIso", "Stored"),
                Column("head_hash", "string", "Hash of the head"),
            ),
            absent="No chain is on record", width=WHOLE,
        ),
    )  # fmt: skip
