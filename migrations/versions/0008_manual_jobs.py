"""Jobs that people keep by hand, and who said what"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0008_manual_jobs.up.sql")


def downgrade() -> None:
    run_sql_file("0008_manual_jobs.down.sql")
