"""Auditors' and managers' questions are answered through indexes"""

from jobtrail.adapters.postgres.migrate import run_sql_file

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql_file("0009_questions.up.sql")


def downgrade() -> None:
    run_sql_file("0009_questions.down.sql")
