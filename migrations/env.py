"""Alembic's entry. The connection and the observer of progress come from jobtrail.adapters.postgres.migrate."""

from alembic import context

config = context.config

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", transaction_per_migration=True)
else:
    context.configure(
        connection=config.attributes["connection"],
        transaction_per_migration=True,
        on_version_apply=config.attributes["on_version_apply"],
    )

with context.begin_transaction():
    context.run_migrations()
