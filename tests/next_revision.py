"""A program that ships one revision more: 0003, in which the routing calls a helper of another name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from rollbook.core.migrating import MIGRATIONS, SQL, object_files

OLD, NEW = "touch_routes", "touch_routes_anew"
# Whoever runs old code after the upgrade, or new code before it, calls a function that is not there.
REVISION = f'''"""The next one.

Locks: as 0002.
"""

from rollbook.core.migrating import LOCK_TIMEOUT, apply_objects, run_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    apply_objects("0003")
    run_sql("drop function rollbook.{OLD}(bigint[])")


def downgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    apply_objects("0002")
    run_sql("drop function rollbook.{NEW}(bigint[])")
'''


def write(directory: Path) -> Path:
    """Write the migrations of that program; return their directory."""
    migrations = directory / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    (migrations / "versions" / "0003_next.py").write_text(REVISION)
    for path in object_files(SQL):
        frozen = migrations / "frozen" / "0003" / path.relative_to(SQL)
        frozen.parent.mkdir(parents=True, exist_ok=True)
        frozen.write_text(path.read_text().replace(OLD, NEW))
    return migrations


@contextmanager
def installed(migrations: Path) -> Iterator[None]:
    """Let the program in this process be that one."""
    with (
        patch("rollbook.core.migrating.MIGRATIONS", migrations),
        patch("rollbook.system.migration.MIGRATIONS", migrations),
    ):
        yield
