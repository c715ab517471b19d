"""Persons on the course servers: what each holds of some users, and its removal. Servers are asked at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql

from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.shell import course_word
from rollbook.replication import catalog, feeding, link
from rollbook.replication.arrivals import confirmed
from rollbook.replication.heartbeat import arrival, send_if_allowed
from rollbook.replication.link import ANSWER_SECONDS, Server
from rollbook.replication.queries import person_rows
from rollbook.replication.queries.person_rows import PersonRows
from rollbook.replication.queries.users import can_find_users

if TYPE_CHECKING:
    from rollbook.core.db import Caller, Conn
    from rollbook.core.rows import Row
    from rollbook.replication.catalog import Copied

Answer = TypeVar("Answer")
RowIds = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Held:
    """What one side holds of a person in one table; `rows` None: not readable by this role."""

    object: str
    count: int | None
    rows: list[Row] | None = None
    forbids: bool = False  # a foreign key of a course's own, which forbids the removal of the copy


@dataclass
class There:
    """What one server holds, or what was removed there; `position`: lsn and at."""

    held: list[Held] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)
    position: dict[str, Any] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)  # what is still there
    why: str | None = None


def described(conn: Conn, copied: Copied, found: PersonRows, *, whole: bool) -> list[Held]:
    """Return what was found, by table; `whole`: with the rows."""
    held = []
    for (schema, table), ids in sorted(found.copies.items()):
        place = sql.Identifier(schema, table)
        rows = person_rows.read(conn, place, person_rows.of_copy(copied, table, ids)) if whole else None
        held.append(Held(f"{schema}.{table}", len(ids), rows))
    for each, count in person_rows.count(conn, found.own):
        rows = person_rows.read(conn, sql.Identifier(each.schema, each.table), each.condition) if whole else None
        held.append(Held(each.name, count, rows, each.forbids))
    return held


def ask_all(
    portal: Conn, caller: Caller, question: Callable[[Server, Conn], Answer], waits: float = 0.0
) -> dict[str, Answer | UnreachableError]:
    """Ask all servers at once. One that obeys another portal, or that is of an older version, gives no answer."""
    own, servers, lock = link.identity(portal), link.list_servers(portal), threading.Lock()

    def guarded(server: Server, conn: Conn) -> Answer:
        known = feeding.known(conn, server, own)
        with lock:  # one session, several threads
            unread = feeding.unread_since(portal, server)
        refusal = feeding.objection(server, own, known, unread)
        if refusal:
            raise refusal
        if not can_find_users(conn):
            raise UnreachableError(
                f"server {server.name} was prepared by an older version of Rollbook",
                fix=f"rollbook course attach {course_word('COURSE')} --to {server.name}",
            )
        return question(server, conn)

    return link.ask(servers, guarded, caller, waits=waits)


def look(
    portal: Conn, user_ids: Sequence[int], row_ids: RowIds, caller: Caller, *, whole: bool
) -> dict[str, There | UnreachableError]:
    """Return by server what it holds of these users now."""
    copied = catalog.copied(portal)

    def question(_: Server, conn: Conn) -> There:
        found = person_rows.find(conn, copied, user_ids, row_ids)
        return There(described(conn, copied, found, whole=whole), found.unsearched, person_rows.position(conn))

    return ask_all(portal, caller, question)


def remove(
    portal: Conn, user_ids: Sequence[int], row_ids: RowIds, caller: Caller, paused: Collection[str]
) -> dict[str, There | UnreachableError]:
    """Remove these users, whom the portal has deleted, from all servers; return by server what was removed.

    Copies that a stream feeds go by it. What it does not feed, such as schemas that a detach has left, and what belongs
    to copies in tables of a course's own (apply fires no foreign key), is deleted there. `paused`: schemas of courses
    that are not written.
    """
    copied, seconds = catalog.copied(portal), caller.timeout or ANSWER_SECONDS
    beat = send_if_allowed(portal)
    servers = link.list_servers(portal)
    fed = {server.name: {row.schema_name for row in catalog.fed(portal, server)} for server in servers}
    reports = {} if beat else confirmed(portal, servers, caller, seconds)

    def question(server: Server, conn: Conn) -> There:
        before = person_rows.find(conn, copied, user_ids, row_ids)
        count = {f"{schema}.{table}": len(ids) for (schema, table), ids in before.copies.items()}
        waited = arrival(conn, server, beat, seconds) if beat else reports[server.name]
        late = fed[server.name] if waited is None else set()
        found = person_rows.find(conn, copied, user_ids, row_ids)
        due = [schema for schema in found.schemas if schema not in late and schema not in paused]
        try:
            with conn.transaction():
                gone = person_rows.remove(conn, copied, found, due)
        except psycopg.Error as exc:
            if exc.sqlstate is None or exc.sqlstate.startswith(("08", "57P")):
                raise
            return There(left=sorted(count), why=exc.diag.message_primary, position=person_rows.position(conn))
        after = person_rows.find(conn, copied, user_ids, row_ids)
        left = sorted({f"{schema}.{table}" for schema, table in after.copies} | {
            each.name for each, _ in person_rows.count(conn, after.own)
        })  # fmt: skip
        count |= {f"{schema}.{table}": rows for (schema, table), rows in gone.items()}
        held = [Held(name, rows) for name, rows in sorted(count.items()) if rows and name not in left]
        why = None
        if left:
            why = "its course is paused" if waited is not None else (
                f"it has not received the deletion within {seconds:g} s: rollbook replication status"
            )  # fmt: skip
        return There(held, before.unsearched, person_rows.position(conn), left, why)

    return ask_all(portal, caller, question, waits=seconds)


def refused(here: Sequence[Held], found: Mapping[str, There | UnreachableError]) -> RefusedError | None:
    """Return the refusal of a removal that foreign keys of courses' own tables forbid; None if none does."""
    forbidding = [(held.object, held.count) for held in here if held.forbids]
    forbidding += [
        (f"server {name}: {held.object}", held.count)
        for name, there in found.items() if isinstance(there, There)
        for held in there.held if held.forbids
    ]  # fmt: skip
    if not forbidding:
        return None
    return RefusedError(
        "rows of courses' own tables refer to this user",
        why=", ".join(f"{name}: {'not readable' if count is None else count}" for name, count in forbidding),
        fix="delete those rows first, or add --remove-references, which deletes them",
    )
