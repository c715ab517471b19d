"""Undo an adoption: the tables of the site as they were, with the rows of now."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.system.adoption.run import Report


def undo(conn: Conn, *, keep_fixes: bool = False, drop_local: bool = False) -> Report:
    """Remove Rollbook and what adopt added; rows of the site are never touched.

    Raises RefusedError after --fix unless `keep_fixes`, with course servers, and with courses that hold local data
    unless `drop_local`.
    """
    raise NotImplementedError
