"""jobs, job_nodes, the audit trail, job_samples and the roles"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0001_jobs_and_trail.up.sql")


def downgrade() -> None:
    run_sql_file("0001_jobs_and_trail.down.sql")
