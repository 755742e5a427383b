"""What runs had used of energy, look by look"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0004_energy_samples.up.sql")


def downgrade() -> None:
    run_sql_file("0004_energy_samples.down.sql")
