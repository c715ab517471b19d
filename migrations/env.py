"""Alembic's entry: one transaction per revision, a version table of our own, the connection from libpq's conninfo."""

import os
from collections.abc import Callable
from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool

from rollbook.core.migrating import MIGRATION_LOCK, VERSION_TABLE

options: dict[str, Any] = {
    "version_table": VERSION_TABLE,
    "version_table_schema": "public",
    "transaction_per_migration": True,
}


def connector() -> Callable[[], Any]:
    """Return how to connect: the program's own connection function, else ROLLBOOK_DSN and libpq's variables."""
    import psycopg

    dsn = os.environ.get("ROLLBOOK_DSN", "")
    return context.config.attributes.get("connect") or (
        lambda: psycopg.connect(dsn if "=" in dsn or "://" in dsn or not dsn else f"dbname={dsn}")
    )


if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql", literal_binds=True, output_buffer=context.config.output_buffer, **options
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine("postgresql+psycopg://", creator=connector(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        # One upgrade at a time: a second one waits here, and then finds nothing left to do. Commands that write finish
        # their transactions before, and read the revision after.
        connection.exec_driver_sql(f"select pg_catalog.pg_advisory_lock({MIGRATION_LOCK})")
        connection.commit()
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
