"""Efficiency is of the time and the nodes it can be of: without suspended time, and by each node's own limit"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0014_efficiency.up.sql")


def downgrade() -> None:
    run_sql_file("0014_efficiency.down.sql")
