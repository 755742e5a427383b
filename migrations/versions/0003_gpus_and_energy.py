"""GPUs of runs and their readings; energy and emissions"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0003_gpus_and_energy.up.sql")


def downgrade() -> None:
    run_sql_file("0003_gpus_and_energy.down.sql")
