"""Tasks of arrays are found by the id they have in it"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0006_array_tasks.up.sql")


def downgrade() -> None:
    run_sql_file("0006_array_tasks.down.sql")
