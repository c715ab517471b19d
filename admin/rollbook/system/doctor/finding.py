"""What a check is, and what it finds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, LiteralString

from psycopg import errors

from rollbook.core.rows import one
from rollbook.core.shell import course_word
from rollbook.replication import answered

if TYPE_CHECKING:
    from rollbook.core.db import Conn

State = Literal["ok", "attention", "unknown"]
PORTAL = "portal"
HERE = "this machine"
STEPS = re.compile("(; then: |; or: )")
HAS_PLACE = re.compile("; (?:then|or): |rollbook |pip |on |look at it on |restart it")
MONITOR = "grant pg_monitor to {role};"  # {role}: who looks


@dataclass(frozen=True)
class Finding:
    """A row of `doctor`; the fields are its columns."""

    check: str
    where: str  # portal, the name of a server, or this machine
    state: State
    found: str
    wanted: str | None
    # SQL for the portal where it ends with a semicolon, else for a shell; a step for a server names it, see `placed`.
    fix: str | None  # steps: `; then: `, `; or: `


@dataclass(frozen=True)
class Check:
    """A question to a database: its query returns found, wanted and fix of each trap."""

    name: str
    query: LiteralString
    right: str | None = None  # what a role needs to look, if every role may not
    since: int = 0  # the version of PostgreSQL from which on it can be asked
    of_sessions: bool = False  # it reads columns that are null for who may not see other roles' sessions


def attention(check: str, where: str, found: str, wanted: str | None, fix: str | None) -> Finding:
    """Return a trap that holds."""
    return Finding(check, where, "attention", found, wanted, fix)


def unknown(check: str, where: str, why: str, fix: str | None) -> Finding:
    """Return that nothing could be found out."""
    return Finding(check, where, "unknown", why, None, fix)


def run(conn: Conn, where: str, checks: Iterable[Check], asked: Mapping[str, Any]) -> list[Finding]:
    """Ask a database everything; what this role may not look at is `unknown`, with the grant. Needs a transaction."""
    found: list[Finding] = []
    sees = one(conn, "select pg_has_role('pg_read_all_stats', 'usage') as sees")["sees"]
    for check in checks:
        if check.since > conn.info.server_version:
            continue
        if check.of_sessions and not sees:
            found.append(forbidden(conn, check.name, where, "sessions of other roles are hidden", MONITOR))
            continue
        try:
            with conn.transaction():
                rows = conn.execute(check.query, asked).fetchall()
        except errors.InsufficientPrivilege as exc:
            found.append(forbidden(conn, check.name, where, str(exc.diag.message_primary), check.right))
            continue
        found += [attention(check.name, where, row["found"], row["wanted"], row["fix"]) for row in rows]
        if not rows:
            found.append(Finding(check.name, where, "ok", "nothing", None, None))
    return found


def fit(
    found: Iterable[Finding], *, ours: Collection[str] = (), servers: Collection[str] = (),
    courses: Collection[str] = (),
) -> list[Finding]:  # fmt: skip
    """Return what a server answers; in place of a fix that is not one of ours, where to look.

    `ours`: commands that the queries were given; `servers` and `courses`: what other commands may be about.
    """
    return [
        each if each.fix is None or answered.is_known(each.fix, ours=ours, servers=servers, courses=courses)
        else replace(each, fix=answered.look(each.where))
        for each in found
    ]  # fmt: skip


def placed(found: Iterable[Finding], servers: Collection[str]) -> list[Finding]:
    """Return findings with the server before each step of a fix that is for one: pasted at the portal it would do harm.

    A command of this program runs anywhere, and a step that names a place has it.
    """
    return [
        each if each.fix is None or each.where not in servers
        else replace(each, fix="".join(
            part if HAS_PLACE.match(part) else f"on server {each.where}: {part}" for part in STEPS.split(each.fix)
        ))
        for each in found
    ]  # fmt: skip


def forbidden(conn: Conn, check: str, where: str, why: str, right: str | None = None) -> Finding:
    """Return that this role may not look, and the grant that lets it."""
    role = one(conn, "select quote_ident(session_user) as role")["role"]
    fix = (right or "grant rollbook_monitor to {role};").format(role=role)
    return unknown(check, where, f"this role may not look: {why}", fix)


def resync(courses: Sequence[str]) -> str | None:
    """Return the command that rebuilds the stream of these courses, None for none."""
    return f"rollbook replication resync {' '.join(map(course_word, courses))}" if courses else None


def identifier(name: str) -> str:
    """Return a name for SQL: in quotes where it needs them."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))
