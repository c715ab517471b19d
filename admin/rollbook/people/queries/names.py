"""Who is meant by the name of a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row, nearest

if TYPE_CHECKING:
    from rollbook.core.db import Conn

FIND_USERS = """
select id, username, email, lower(email) as folded
from portal.auth_user
where id = any(%(ids)s) or username = any(%(names)s)
    or (email <> '' and lower(email) = any(array(select lower(x) from unnest(%(emails)s::text[]) as x)))
"""


NEAR_USERS = "select username from portal.auth_user where lower(username) like %s order by username limit 2000"


def kind_of(token: str) -> tuple[str | None, str]:
    """Return what a USER is named by (id, username, email; None: either of the last two) and the name itself."""
    kind, colon, value = token.partition(":")
    return (kind, value) if colon and kind in ("id", "username", "email") else (None, token)


def find_users(conn: Conn, tokens: Sequence[str]) -> list[Row]:
    """Return id, username and email of each USER: a username, an e-mail, id:N, username:X or email:X.

    All or nothing. Raises RefusedError for one that is unknown, or that fits two users.
    """
    kinds: dict[str, list[Any]] = {"ids": [], "names": [], "emails": []}
    for kind, value in map(kind_of, tokens):
        if kind == "id" and value.isdecimal() and len(value) < 19:  # a bigint
            kinds["ids"].append(int(value))
        if kind in ("username", None):
            kinds["names"].append(value)
        if kind in ("email", None):
            kinds["emails"].append(value)
    found = conn.execute(FIND_USERS, kinds).fetchall()
    by: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        for key in (("id", str(row["id"])), ("username", row["username"]), ("email", row["folded"])):
            if key[1]:
                by.setdefault(key, []).append(row)
    chosen: dict[int, Row] = {}
    for token in tokens:
        kind, value = kind_of(token)
        hits: dict[int, Row] = {}
        for key in (("id", value.lstrip("0")), ("username", value), ("email", value.lower())):
            if kind == key[0] or (kind is None and key[0] != "id"):
                hits |= {row["id"]: row for row in by.get(key, [])}
        if not hits:
            near = conn.execute(NEAR_USERS, [token[:1].lower() + "%"]).fetchall()
            why = nearest(token, (row["username"] for row in near))
            raise RefusedError(f"there is no user {token}", why=why, fix="rollbook user list --match TEXT")
        if len(hits) > 1:
            both = ", ".join(
                f"id:{row['id']} ({row['username']}, {row['email']})" for row in found if row["id"] in hits
            )
            raise RefusedError(f"{token} fits several users", why=both, fix="name one as id:N, username:X or email:X")
        chosen |= hits
    return list(chosen.values())
