"""Benchmarks that ran as jobs, their energy and their verdicts"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0005_benchmarks.up.sql")


def downgrade() -> None:
    run_sql_file("0005_benchmarks.down.sql")
