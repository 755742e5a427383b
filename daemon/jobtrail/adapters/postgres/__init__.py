"""PostgreSQL: where the trail, the jobs derived from it and the samples are kept.

`migrate` is not imported here: it loads Alembic and SQLAlchemy, which only `jobtrail migrate` needs.
"""

from jobtrail.adapters.postgres.analytics import PostgresAnalytics
from jobtrail.adapters.postgres.benchmark_reading import PostgresBenchmarkReader
from jobtrail.adapters.postgres.benchmarks import PostgresBenchmarks
from jobtrail.adapters.postgres.chains import PostgresChains
from jobtrail.adapters.postgres.energy_samples import PostgresEnergySamples
from jobtrail.adapters.postgres.gpus import PostgresGpuSamples
from jobtrail.adapters.postgres.job_parts import PostgresJobParts
from jobtrail.adapters.postgres.job_samples_reading import PostgresSampleReader
from jobtrail.adapters.postgres.leader import PostgresLeadership
from jobtrail.adapters.postgres.nodes import PostgresNodes
from jobtrail.adapters.postgres.orders import order
from jobtrail.adapters.postgres.over_runs import PostgresOverRuns
from jobtrail.adapters.postgres.pool import close_pool, open_pool, session
from jobtrail.adapters.postgres.reading import PostgresReader, public_job_id
from jobtrail.adapters.postgres.rebuild import Difference, RebuildReport, rebuild, rebuild_check
from jobtrail.adapters.postgres.retention import keep_partitions
from jobtrail.adapters.postgres.runs import PostgresRuns
from jobtrail.adapters.postgres.samples import PostgresSamples
from jobtrail.adapters.postgres.sealing import PostgresSeals
from jobtrail.adapters.postgres.security import PostgresNodeTokens, PostgresSecurity
from jobtrail.adapters.postgres.settled_runs import PostgresSettledRuns
from jobtrail.adapters.postgres.sink import PostgresSink
from jobtrail.adapters.postgres.store import PostgresStore
from jobtrail.adapters.postgres.targets import PostgresTargets
from jobtrail.adapters.postgres.trail_reading import PostgresTrailReader
from jobtrail.adapters.postgres.verification import PostgresVerifier
from jobtrail.core.query_ports import JobFilter, JobList

__all__ = [
    "Difference",
    "JobFilter",
    "JobList",
    "PostgresAnalytics",
    "PostgresBenchmarkReader",
    "PostgresBenchmarks",
    "PostgresChains",
    "PostgresEnergySamples",
    "PostgresGpuSamples",
    "PostgresJobParts",
    "PostgresLeadership",
    "PostgresNodeTokens",
    "PostgresNodes",
    "PostgresOverRuns",
    "PostgresReader",
    "PostgresRuns",
    "PostgresSampleReader",
    "PostgresSamples",
    "PostgresSeals",
    "PostgresSecurity",
    "PostgresSettledRuns",
    "PostgresSink",
    "PostgresStore",
    "PostgresTargets",
    "PostgresTrailReader",
    "PostgresVerifier",
    "RebuildReport",
    "close_pool",
    "keep_partitions",
    "open_pool",
    "order",
    "public_job_id",
    "rebuild",
    "rebuild_check",
    "session",
]
