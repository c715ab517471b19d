"""Shell completion of values: names from the database, within a second, and silence where no database answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import LiteralString

import typer

SECONDS = 1.0  # what a person at a prompt waits for without wondering
AT_MOST = 200  # names; more than a screen holds helps nobody

Completer = Callable[[typer.Context, str], list[str]]


def names(query: LiteralString) -> Completer:
    """Return what completes a word with the names that `query` finds: parameters are the word and a limit."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from rollbook.core.config import settings
        from rollbook.core.db import session

        found: list[str] = []

        def ask() -> None:
            try:
                typed = ctx.params
                dsn = settings(typed.get("config"), typed.get("profile"), {"dsn": typed.get("dsn")})["dsn"].value
                with session(dsn, name="rollbook completion", timeout=SECONDS) as conn:
                    found.extend(row["name"] for row in conn.execute(query, [incomplete, AT_MOST]))
            except Exception:  # noqa: S110 (a prompt cannot show an error)
                pass

        # A thread, as no timeout bounds the look-up of a host's name.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(SECONDS)
        return [] if asking.is_alive() else found

    return complete


copied_tables = names(
    "select table_name as name from rollbook.copied_tables() where starts_with(table_name, %s) "
    "order by ordinal limit %s"
)
courses = names("select course_id as name from rollbook.course where starts_with(course_id, %s) order by 1 limit %s")
groups = names("select name from portal.student_usertestgroup where starts_with(name, %s) order by 1 limit %s")
servers = names("select name::text from rollbook.server where starts_with(name::text, %s) order by 1 limit %s")
