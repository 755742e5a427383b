"""The large tables may lie on several machines"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0012_distribution.up.sql")


def downgrade() -> None:
    run_sql_file("0012_distribution.down.sql")
