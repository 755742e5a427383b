"""Nodes are known by tokens, and who was turned away is on record"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0011_who_gets_in.up.sql")


def downgrade() -> None:
    run_sql_file("0011_who_gets_in.down.sql")
