"""What only the role that migrates may do: it owns the tables of schema rollbook, which nobody else changes at will."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core.errors import UnreachableError
from rollbook.core.rows import one
from rollbook.core.shell import quoted

if TYPE_CHECKING:
    from rollbook.core.db import Conn

OWNER = """
select quote_ident(pg_get_userbyid(n.nspowner)) as owner, pg_has_role(n.nspowner, 'usage') as is_ours,
    session_user::text as caller
from pg_namespace as n where n.nspname = 'rollbook'
"""


def require_migrator(conn: Conn, work: str) -> None:
    """Raise UnreachableError unless this role may act for the owner of schema rollbook."""
    found = one(conn, OWNER)
    if not found["is_ours"]:
        raise UnreachableError(
            f"role {found['caller']} may not {work}",
            why=f"the tables belong to {found['owner']}, the role that migrates",
            fix=f"run it as that role: -d {quoted('user=' + found['owner'])}, with the rest of the conninfo; "
            "or ask a DBA to",
        )  # fmt: skip
