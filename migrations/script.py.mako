"""${message}.

Locks: say which, for how long, and whether old code still runs.
"""

from rollbook.core.migrating import LOCK_TIMEOUT, apply_objects, run_sql

revision = "${up_revision}"
down_revision = ${'"' + down_revision + '"' if down_revision else None}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    run_sql(LOCK_TIMEOUT)
    ${downgrades if downgrades else "pass"}
