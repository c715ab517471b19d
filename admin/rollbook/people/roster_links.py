"""Which account a person of a source has: set and removed by an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core import importing as bulk
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.shell import quoted
from rollbook.core.users import user_word
from rollbook.people.queries import roster_people
from rollbook.people.queries.user import lock

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.users import User

SOURCE = "default"  # where a platform takes bundles of one system alone
TURN = "rollbook user import"  # no import judges the account meanwhile
WIDTH = {"--source": 100, "a sourcedId": 255}


def checked(name: str, text: str) -> str:
    """Return a name of a source, or a sourcedId. Raises UsageError for a blank, long or unprintable one."""
    if not text.strip() or text != text.strip() or len(text) > WIDTH[name] or not text.isprintable():
        raise UsageError(
            f"{name} {text!r} is not a name",
            fix=f"1 to {WIDTH[name]} characters, none of them a control character, no blank at either end",
        )
    return text


def link(conn: Conn, run: Run, user: User, source: str, sourced_id: str) -> bool:
    """Link an account to a person of a source; return False where it was linked. Raises RefusedError, UsageError."""
    where = (checked("--source", source), checked("a sourcedId", sourced_id))
    bulk.take_turn(conn, run, TURN)
    lock(conn, [user["id"]])
    linked = roster_people.linked_user(conn, *where)
    if linked is not None and linked["id"] != user["id"]:
        raise RefusedError(
            f"{sourced_id} of {source} is linked to {linked['username']}", why="a person has one account",
            fix=f"rollbook user unlink {words(linked, source, sourced_id)}",
        )  # fmt: skip
    if linked is not None:
        return False
    roster_people.add_link(conn, *where, user["id"])
    record(conn, run, user, "linked", after={"source": source, "sourced_id": sourced_id})
    return True


def unlink(conn: Conn, run: Run, user: User, source: str, sourced_id: str) -> None:
    """Remove a link. Raises RefusedError where there is none."""
    bulk.take_turn(conn, run, TURN)
    if not roster_people.remove_link(conn, source, sourced_id, user["id"]):
        raise RefusedError(
            f"{user['username']} is not linked to {sourced_id} of {source}", fix=f"rollbook user show {user_word(user)}"
        )
    record(conn, run, user, "unlinked", before={"source": source, "sourced_id": sourced_id})


def words(user: User, source: str, sourced_id: str) -> str:
    """Return the arguments of `user link` and `unlink`."""
    return f"{user_word(user)} {quoted(sourced_id)}" + ("" if source == SOURCE else f" --source {quoted(source)}")


def record(
    conn: Conn, run: Run, user: User, outcome: str, *, before: dict[str, str] | None = None,
    after: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """Record it under the user."""
    history.record(conn, run, user["username"], outcome, before=before, after=after, user_id=user["id"])
