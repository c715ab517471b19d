"""Alembic behind the `schema` commands and the tests: its API, not its command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

from admin.migrating import MIGRATIONS

if TYPE_CHECKING:
    from alembic.config import Config


def configuration(output: TextIO | None = None, **attributes: Any) -> Config:  # noqa: ANN401
    """Return Alembic's configuration for the shipped migrations; offline SQL goes to `output`."""
    from alembic.config import Config  # noqa: PLC0415 (0.8 s, only for migrations)

    config = Config(output_buffer=output)  # type: ignore[arg-type]
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


def upgrade(dsn: str, revision: str = "head") -> None:
    """Upgrade the database; one transaction a revision."""
    import psycopg  # noqa: PLC0415
    from alembic import command  # noqa: PLC0415

    command.upgrade(configuration(connect=lambda: psycopg.connect(dsn)), revision)


def downgrade(dsn: str, revision: str) -> None:
    """Downgrade the database; one transaction a revision."""
    import psycopg  # noqa: PLC0415
    from alembic import command  # noqa: PLC0415

    command.downgrade(configuration(connect=lambda: psycopg.connect(dsn)), revision)
