"""nodes; what Slurm itself says of runs and what is still to be asked of it"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0002_nodes_and_outcomes.up.sql")


def downgrade() -> None:
    run_sql_file("0002_nodes_and_outcomes.down.sql")
