"""Which users a command line names: a username, an e-mail address, id:N, username:X or email:X."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString, TypedDict

import typer

from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import nearest, typed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import sql

    from rollbook.core.db import Conn


class User(TypedDict):
    """A user that a name refers to."""

    id: int
    username: str
    email: str


FIND_USERS = """
select r.place, u.id, u.username, u.email
from rollbook.resolve_users(%s::text[]) as r inner join portal.auth_user as u on u.id = r.user_id
order by r.place, u.id
"""

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")

NEAR_USERS = "select username from portal.auth_user where lower(username) like %s order by username limit 2000"

# Where the person table is another one than the default's, its column username names people, if it has one.
PERSON = """
select
    t.relation, t.key_column as key, t.relation = 'portal.auth_user' as is_default,
    exists (
        select from pg_attribute as a
        where a.attrelid = to_regclass(t.relation) and a.attname = 'username' and not a.attisdropped
    ) as is_named
from rollbook.copied_tables() as t where t.role = 'person'
"""


@dataclass(frozen=True)
class Person:
    """The table of persons: its name as SQL spells it, its key, and whether a column username names people."""

    relation: str
    key: str
    is_default: bool
    is_named: bool

    def query(self, words: LiteralString) -> sql.Composed:
        """Return a statement in which {people} is the table, {key} its key and {name} its username, or null."""
        from psycopg import sql  # psycopg costs 0.2 s, which --help must not pay

        return sql.SQL(words).format(
            people=sql.SQL(self.relation),  # pyright: ignore[reportArgumentType] (quoted there)
            key=sql.Identifier(self.key), name=sql.SQL("username::text" if self.is_named else "null::text"),
        )  # fmt: skip


def expanded(users: list[str], what: str = "users") -> list[str]:
    """Return what is named, with `-` (stdin) and @FILE replaced by their lines. Raises UsageError; RefusedError."""
    named: list[str] = []
    for user in users:
        if user == "-" or user.startswith("@"):
            try:
                lines = (
                    typer.get_text_stream("stdin").read().removeprefix("\ufeff")
                    if user == "-"
                    else Path(user[1:]).read_text("utf-8-sig")
                )
            except (OSError, UnicodeDecodeError) as exc:
                raise UsageError(f"cannot read {user}", why=str(exc)) from exc
            named += [line.strip() for line in lines.splitlines() if line.strip()]
        else:
            named.append(user)
    if any("\x00" in name for name in named):
        raise RefusedError(f"a NUL character among the {what}", fix="pipe in text, one a line")
    if not named:
        raise UsageError(f"no {what} named", fix=f"name {what}, or pipe them in, one a line")
    return named


def is_number(text: str) -> bool:
    """Return whether a text can be the id of a user."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def find_users(conn: Conn, tokens: Sequence[str]) -> list[User]:
    """Return the users that names refer to, each once, in the order of the names.

    All or nothing. Raises RefusedError for a name that is unknown or ambiguous.
    """
    hits: dict[int, list[User]] = {}
    for row in conn.execute(FIND_USERS, [list(tokens)]):
        user = User(id=row["id"], username=row["username"], email=row["email"])
        hits.setdefault(row["place"], []).append(user)
    found: dict[int, User] = {}
    for place, token in enumerate(tokens, start=1):
        users = hits.get(place, [])
        if not users:
            near = conn.execute(NEAR_USERS, [token[:1].lower() + "%"]).fetchall()
            why = nearest(token, (row["username"] for row in near))
            fix = "rollbook user list --match TEXT"
            if is_number(number := token.removeprefix("id:")):
                fix += f"; copies of a deleted user: rollbook replication verify --user id:{number}"
            raise RefusedError(f"there is no user {token}", why=why, fix=fix)
        if len(users) > 1:
            several = ", ".join(f"id:{user['id']} ({user['username']}, {user['email']})" for user in users)
            raise RefusedError(
                f"{token} matches several users", why=several, fix="name one as id:N, username:X or email:X"
            )  # fmt: skip
        found[users[0]["id"]] = users[0]
    return list(found.values())


def find_user(conn: Conn, token: str) -> User:
    """Return the user that a name refers to. Raises RefusedError if it is unknown or ambiguous."""
    return find_users(conn, [token])[0]


def person_table(conn: Conn) -> Person:
    """Return the table of persons that this installation copies."""
    return typed(Person, conn, PERSON)[0]


def find_recorded(conn: Conn, tokens: Sequence[str]) -> list[User]:
    """Return the users as find_users does; id:N, and a number that is not a username, may be a user who was deleted.

    Such a user has neither username nor e-mail address. Where the person table is not the default's, e-mail addresses
    name nobody. Raises RefusedError.
    """
    people = person_table(conn)
    if not people.is_default:
        return list({user["id"]: user for user in (find_person(conn, people, token) for token in tokens)}.values())
    found: dict[int, User] = {}
    for token in tokens:
        try:
            user = find_user(conn, token)
        except RefusedError:
            number = token.removeprefix("id:")
            if not is_number(number):
                raise
            try:
                user = find_user(conn, f"id:{number}")
            except RefusedError:
                user = User(id=int(number), username="", email="")
        found[user["id"]] = user
    return list(found.values())


def find_person(conn: Conn, people: Person, token: str) -> User:
    """Return the user that id:N, username:X or X refers to, in any table. Raises RefusedError."""
    kind, _, rest = token.rpartition(":")
    if kind not in ("id", "username"):
        kind, rest = "", token
    if kind != "id" and people.is_named:
        query = people.query("select {key}::bigint as id, {name} as username from {people} where username = %s")
        rows = conn.execute(query, [rest]).fetchall()
        if len(rows) > 1:
            raise RefusedError(f"{token} matches several users", fix=f"name one by its key: id:{rows[0]['id']}")
        if rows:
            return User(id=rows[0]["id"], username=rows[0]["username"], email="")
    if kind != "username" and is_number(rest):
        names = usernames(conn, [int(rest)], people)
        return User(id=int(rest), username=names.get(int(rest), ""), email="")
    if people.is_named:
        query = people.query("select {name} as username from {people} where username::text ilike %s limit 2000")
        near = nearest(rest, (row["username"] for row in conn.execute(query, [rest[:1] + "%"])))
        raise RefusedError(f"there is no user {token}", why=near, fix="name users by username, or by key: id:N")
    raise RefusedError(
        f"{token} names no user", why=f"{people.relation} has no column username", fix="name users by key: id:N"
    )


def usernames(conn: Conn, user_ids: Sequence[int], people: Person | None = None) -> dict[int, str]:
    """Return the usernames by id, of the users that the portal has; id:N of one that has none."""
    people = people or person_table(conn)
    query = people.query("select {key}::bigint as id, {name} as username from {people} where {key} = any(%s)")
    return {row["id"]: row["username"] or f"id:{row['id']}" for row in conn.execute(query, [list(user_ids)])}


def user_word(user: User) -> str:
    """Return a user as a word of a command: the username where it is a plain one that is read as nothing else."""
    return user["username"] if PLAIN.fullmatch(user["username"]) else f"id:{user['id']}"
