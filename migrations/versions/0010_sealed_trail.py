"""The trail is written through one function, sealed by checkpoints, and forgets by order only"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0010_sealed_trail.up.sql")


def downgrade() -> None:
    run_sql_file("0010_sealed_trail.down.sql")
