"""The record of who was turned away has an end"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0013_security_retention.up.sql")


def downgrade() -> None:
    run_sql_file("0013_security_retention.down.sql")
