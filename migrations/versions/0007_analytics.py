"""Runs are found by when they ended, and by whose they are"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0007_analytics.up.sql")


def downgrade() -> None:
    run_sql_file("0007_analytics.down.sql")
