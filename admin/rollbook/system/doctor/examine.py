"""Everything that `rollbook doctor` looks at: the portal, this machine, and all course servers at once.

Nothing is written: each database is asked in a transaction that only reads. The comparison of shipped views makes
temporary ones; it has a transaction of its own, which is rolled back.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors

from rollbook.core.db import POOLED, Caller, Conn, revision
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.migrating import known_revisions
from rollbook.core.rows import as_json, one
from rollbook.core.shell import course_word, quoted
from rollbook.replication import build, feeding, heartbeat, link
from rollbook.replication.forward import SENT
from rollbook.replication.link import Server
from rollbook.replication.queries.courses import known_courses
from rollbook.replication.queries.servers import list_slots
from rollbook.replication.queries.shape import unfinished
from rollbook.replication.requirements import ROOM, SERVER_ROOM, server_room, source_room, try_route
from rollbook.system import schema_check
from rollbook.system.doctor import (
    access,
    copies,
    here,
    leftovers,
    logins,
    relay,
    roles,
    settings,
    slots,
    stream,
    upkeep,
)
from rollbook.system.doctor.finding import (
    PORTAL,
    Check,
    Finding,
    State,
    attention,
    fit,
    forbidden,
    placed,
    resync,
    run,
    unknown,
)

if TYPE_CHECKING:
    from rollbook.core.rows import Row
    from rollbook.system.queries import Difference

VERSIONS = range(15, 19)  # of PostgreSQL, as tested
CLOCKS_DIFFER = 0.5  # seconds; from here on lag and times of rows mislead
WANTED = "as this program ships it"

COURSES = """
select c.course_id as course, c.schema_name::text as schema, c.server, c.moving_to, c.leaving
from rollbook.course as c order by 1
"""


@dataclass(frozen=True)
class Place:
    """A course and the servers that hold it."""

    course: str
    schema: str
    server: str | None
    moving_to: str | None
    leaving: str | None

    def is_on(self, names: Container[str]) -> bool:
        """Return whether one of these servers is fed with it, or still has it."""
        return any(name in names for name in (self.server, self.moving_to, self.leaving) if name is not None)


@dataclass(frozen=True)
class Answer:
    """What a course server answers."""

    findings: list[Finding]
    differences: list[Row]
    clock: heartbeat.Clock
    known: feeding.Known
    kept: list[Finding]
    unread: Mapping[str, feeding.Unread | None]  # of a relay: the slots of the servers behind it


def examine(conn: Conn, dsn: str | None, asked: Sequence[str], caller: Caller) -> tuple[list[Finding], bool]:
    """Return what was found, and whether all servers answered. The session must be in autocommit.

    `asked`: only these courses and their servers, all for none; what concerns the portal is always looked at. Raises
    RefusedError for an unknown course, UnreachableError for a role that may not look at all.
    """
    found = [*version(conn, PORTAL), *session(conn), *here.look(dsn, [])]
    installed = revision(conn)
    if installed != known_revisions()[-1]:
        return settled([*found, not_migrated(installed), *bare(conn)]), True
    ids = known_courses(conn, asked)
    every = [Place(**row) for row in conn.execute(COURSES)]
    places = [place for place in every if place.course in set(ids)]
    known = link.list_servers(conn)
    servers = [server for server in known if not asked or any(place.is_on(feeds(server, known)) for place in places)]
    found += here.look(dsn, servers)
    found += portal(conn, [place.schema for place in places], has_servers=bool(known))
    others = {place.schema for place in every} - {place.schema for place in places}
    found += shipped(conn, others)
    seen, are_all = of_servers(conn, servers, every, others, caller, removed=not asked)
    return settled(found + seen), are_all


@contextmanager
def read_only(conn: Conn) -> Iterator[None]:
    """Ask inside a transaction that cannot write."""
    with conn.transaction():
        conn.execute("set transaction read only")
        yield


def settled(found: Sequence[Finding]) -> list[Finding]:
    """Return the findings, the worst first; a check is `ok` at a place where nothing of it was found there."""
    order: dict[State, int] = {"attention": 0, "unknown": 1, "ok": 2}
    spoilt = {(each.check, each.where) for each in found if each.state != "ok"}
    kept = dict.fromkeys(each for each in found if each.state != "ok" or (each.check, each.where) not in spoilt)
    return sorted(kept, key=lambda each: (order[each.state], each.where != PORTAL, each.where))


# --- the portal -------------------------------------------------------------------------------------------------------


def version(conn: Conn, where: str) -> list[Finding]:
    """Check that the version of PostgreSQL is one that this program is tested with."""
    major = conn.info.server_version // 10000
    if major in VERSIONS:
        return [Finding("version", where, "ok", f"PostgreSQL {major}", None, None)]
    words = f"PostgreSQL {VERSIONS[0]} to {VERSIONS[-1]}"
    newer = "pip install --upgrade rollbook"
    return [attention("version", where, f"PostgreSQL {major}", words, newer if major > VERSIONS[-1] else "pg_upgrade")]


def session(conn: Conn) -> Iterator[Finding]:
    """Check the way by which this session came, and what it came to."""
    if getattr(conn, "is_pooled", False):
        yield attention(
            "pooler", PORTAL, "a pooler in transaction mode is in between",
            "PostgreSQL itself, for what changes servers",
            "rollbook doctor -d 'host=HOST port=5432 dbname=NAME'",
        )  # fmt: skip
    if one(conn, "select pg_is_in_recovery() as is_standby")["is_standby"]:
        yield attention(
            "standby", PORTAL, "this is a standby: slots and streams are the primary's", "the primary",
            "rollbook doctor -d 'host=PRIMARY dbname=NAME'",
        )  # fmt: skip


def not_migrated(installed: str | None) -> Finding:
    """Return what is wrong with the revision of the database."""
    head = known_revisions()[-1]
    if installed is not None and installed > head:
        return attention(
            "revision", PORTAL, f"revision {installed} is newer than this program", f"a program with {installed}",
            "pip install --upgrade rollbook",
        )  # fmt: skip
    words = "not migrated" if installed is None else f"revision {installed}"
    return attention("revision", PORTAL, words, f"revision {head}", "rollbook schema upgrade")


def bare(conn: Conn) -> list[Finding]:
    """Return what is wrong with a database in which Rollbook is not yet."""
    with read_only(conn):
        found = run(conn, PORTAL, settings.EVERYWHERE, settings.asked(feeds=True))
        found += run(conn, PORTAL, upkeep.EVERYWHERE, {"old": upkeep.OLD})
        found += access.look(conn, PORTAL)
        row = one(conn, ROOM)
        found += settings.room(PORTAL, source_room(row, "the portal"))
    return found + as_findings(schema_check.encoding(conn), PORTAL)


def portal(conn: Conn, schemas: Sequence[str], *, has_servers: bool) -> list[Finding]:
    """Return what is wrong with the portal, apart from what schema_check compares."""
    with read_only(conn):
        document = one(conn, "select rollbook.copied_columns() as columns, rollbook.left_out_columns() as left_out")
        asked = {
            **settings.asked(feeds=has_servers), "old": upkeep.OLD, "schemas": list(schemas),
            "columns": as_json(document["columns"]), "left_out": as_json(document["left_out"]),
            **slots.Fed(conn).asked(None),
        }  # fmt: skip
        checks: tuple[Check, ...] = (
            *settings.OF_PORTAL, *slots.CHECKS, *roles.OF_PORTAL, *copies.EVERYWHERE, *upkeep.OF_PORTAL,
        )  # fmt: skip
        found = run(conn, PORTAL, checks, asked)
        routes = {server.name: server.subscription_dsn for server in link.list_servers(conn)}
        found += logins.superusers(conn, PORTAL, asked, routes)
        found += access.look(conn, PORTAL, asked)
        if has_servers:
            found += settings.room(PORTAL, source_room(one(conn, ROOM), "the portal"))
        every = {row["schema"]: (row["course"], row["server"]) for row in conn.execute(COURSES)}
        found += leftovers.kept(conn, PORTAL, list(every), {})
        found += [
            attention("shape", PORTAL, f"{each.name}: {each.words}", "a change of the shape that is finished", each.fix)
            for each in unfinished(conn)
        ] or [Finding("shape", PORTAL, "ok", "nothing", None, None)]
    return found


def shipped(conn: Conn, others: set[str]) -> list[Finding]:
    """Return what is not as shipped in the portal's database; `others`: schemas of courses that were not asked for."""
    try:
        with conn.transaction(force_rollback=True):
            found = [*schema_check.portal_differences(conn), *schema_check.published(conn)]
    except errors.InsufficientPrivilege as exc:
        return [forbidden(conn, "schema", PORTAL, str(exc.diag.message_primary))]
    return as_findings(found, PORTAL, others)


def as_findings(differences: Sequence[Difference], where: str, others: Container[str] = ()) -> list[Finding]:
    """Return what `schema check` finds, but for the schemas of `others`; `schema` is ok where there is nothing."""
    found = [
        attention(each.kind.split(" on server ")[0], where, f"{each.object}: {each.difference}", WANTED, each.fix)
        for each in differences if each.object.split(".")[0] not in others
    ]  # fmt: skip
    return found or [Finding("schema", where, "ok", "nothing", None, None)]


def feeds(server: Server, known: Sequence[Server]) -> set[str]:
    """Return the names of the servers whose courses a server holds: its own and, of a relay, those behind it."""
    return {each.name for each in known if server.name in (each.name, each.through, each.moving_through)}


# --- servers ----------------------------------------------------------------------------------------------------------


def of_servers(
    conn: Conn, servers: Sequence[Server], every: Sequence[Place], others: Container[str], caller: Caller, *,
    removed: bool,
) -> tuple[list[Finding], bool]:  # fmt: skip
    """Ask all servers at once, those that were removed too; return what was found, and whether all of them answered."""
    gone = {each.name: each for each in leftovers.removed_servers(conn)} if removed else {}
    examiner = Examiner(conn, every, others, servers)

    def question(server: Server, there: Conn) -> Any:  # noqa: ANN401 (an Answer, or what is left)
        if server.name in gone:
            with read_only(there):
                return leftovers.question(gone[server.name], there)
        return examiner.ask(server, there)

    reachable = [each.server for each in gone.values()]
    answers = link.ask([*servers, *reachable], question, caller)
    found: list[Finding] = []
    for name, each in gone.items():
        found += fit(leftovers.of_removed(each, answers[name]))
    ours = heartbeat.clock(conn)
    me = link.identity(conn)
    for server in servers:
        answer = answers[server.name]
        if isinstance(answer, UnreachableError):
            found.append(silent(server, answer))
            continue
        unread = feeding.unread_since(conn, server)
        if server.through is not None:
            source = answers.get(server.through)
            unread = source.unread.get(server.name) if isinstance(source, Answer) else None
        found += [*answer.findings, *answer.kept, *clocks(server, answer, ours), *identity(server, me, answer, unread)]
        found += as_findings(examiner.asked.differences(server.name, answer.differences), server.name, others)
    are_all = not any(each.state == "unknown" and each.check == "server" for each in found)
    return placed(found, {*gone, *(server.name for server in servers)}), are_all


class Examiner:
    """What course servers are asked with: read from the portal once, before they are asked at the same time."""

    def __init__(self, conn: Conn, every: Sequence[Place], others: Container[str], servers: Sequence[Server]) -> None:
        self.asked = schema_check.to_ask(conn, servers)
        known = link.list_servers(conn)
        self.feeds = {server.name: feeds(server, known) for server in servers}
        self.comment = build.version_comment(build.shipped_texts(conn))
        self.me = link.identity(conn)
        self.time_zone = one(conn, "select reset_val as zone from pg_settings where name = 'TimeZone'")["zone"]
        self.read = {slot.slot_name for slot in list_slots(conn) if slot.active}
        self.others = others
        self.courses = {place.schema: (place.course, place.server) for place in every}
        self.every = every
        self.fed = slots.Fed(conn)
        self.routes = {server.name: server.subscription_dsn for server in known}
        self.sent = {  # by servers behind relays: what the portal sends of their courses
            server.name: conn.execute(SENT, [server.name, [
                place.schema for place in every if place.is_on({server.name}) and place.schema not in others
            ]]).fetchall()
            for server in known if server.through in self.feeds and not server.is_moving
        }  # fmt: skip

    def ask(self, server: Server, there: Conn) -> Answer:
        """Ask one server."""
        names, behind = self.feeds[server.name], self.fed.by(server.name)
        fed = [place for place in self.every if place.is_on(names)]
        schemas = [place.schema for place in fed]
        words = [place.course for place in fed if place.server in names]
        rebuild, prepare = resync(words) or self.add(server), self.add(server) or resync(words[:1])
        found = [*version(there, server.name)]
        with read_only(there):
            found += run(
                there, server.name,
                (*settings.OF_SERVER, *stream.CHECKS, *roles.OF_SERVER, *copies.OF_SERVER, *upkeep.EVERYWHERE),
                {
                    **settings.asked(feeds=bool(behind), receives=True, time_zone=self.time_zone),
                    "old": upkeep.OLD, "name": server.name,
                    "stream": server.stream, "is_paused": server.paused_at is not None,
                    "comment": self.comment, "rebuild": rebuild, "prepare": prepare, "columns": self.asked.columns,
                    "left_out": self.asked.left_out,
                    "repair": f"rollbook replication repair {' '.join(map(course_word, words))}" if words else None,
                    "schemas": [schema for schema in schemas if schema not in self.others],
                },
            )  # fmt: skip
            unread, subscribers = {}, list[Finding]()
            if behind:
                asked = self.fed.asked(server.name)
                checks = (*slots.CHECKS, *relay.CHECKS, *upkeep.OF_SOURCE)
                found += run(there, server.name, checks, {**asked, "feeds": True, "place": server.name})
                courses = {place.schema: place.course for place in fed}
                for name in behind:
                    found += relay.column_lists(there, server.name, name, self.sent.get(name, []), courses)
                subscribers = list(logins.superusers(there, server.name, asked, self.routes))
                found += settings.room(server.name, source_room(one(there, ROOM), f"relay {server.name}"))
                found += access.look(there, server.name, asked)
                unread = {name: feeding.unread_since(there, Server(name, None, None, "")) for name in behind}
            else:
                found += access.look(there, server.name)
            row = one(there, SERVER_ROOM, {"stream": server.stream})  # type: ignore[arg-type]
            found += settings.room(server.name, server_room(row, server.name))
            kept = list(leftovers.kept(there, server.name, schemas, {} if behind else self.courses))
            differences = self.asked.of(server, there)
            known = feeding.known(there, server, self.me)
            clock = heartbeat.clock(there)
        is_read = server.stream in self.read if server.through is None else known.received is not None
        if not is_read and server.subscription_dsn is not None:
            found += route(there, server)
        found = fit(
            found, ours={words for words in (rebuild, prepare) if words}, servers={server.name, *behind},
            courses={place.course for place in self.every},
        )  # fmt: skip
        return Answer([*found, *subscribers], differences, clock, known, kept, unread)

    @staticmethod
    def add(server: Server) -> str | None:
        """Return the command that makes again what a server lacks; None where its routes hold a password."""
        given = (server.admin_dsn, server.subscription_dsn)
        if any(each is None or link.has_password(each) for each in given):
            return None
        return (
            f"rollbook server add {server.name} --admin-dsn {quoted(str(given[0]))} "
            f"--subscription-dsn {quoted(str(given[1]))}"
        )


def silent(server: Server, answer: UnreachableError) -> Finding:
    """Return the line of a server that does not answer, or that is behind a pooler."""
    if answer.why == POOLED:
        return attention(
            "pooler", server.name, "--admin-dsn leads to a pooler in transaction mode", "PostgreSQL itself",
            f"rollbook server add {server.name} --admin-dsn 'host=HOST port=5432 dbname=NAME' --subscription-dsn "
            f"{quoted(link.shown(server.subscription_dsn) or 'SAME')} --take-over",
        )  # fmt: skip
    return unknown("server", server.name, f"it does not answer: {answer.why}", answer.fix)


def route(there: Conn, server: Server) -> Iterator[Finding]:
    """Try the route by which the server reaches its source, as nobody reads its slot; leaves nothing."""
    try:
        try_route(there, server)
    except UnreachableError as exc:
        if exc.details.get("sqlstate"):  # PostgreSQL does not let this role try it
            yield attention("subscription route", server.name, exc.message, "a connection", str(exc.fix))
            return
        is_pooler = "unsupported startup parameter" in str(exc.why)
        yield attention(
            "pooler" if is_pooler else "subscription route", server.name,
            f"--subscription-dsn leads to a pooler: {exc.why}"
            if is_pooler else f"{'the portal' if server.through is None else 'its relay'} is not reached: {exc.why}",
            "PostgreSQL itself" if is_pooler else "a connection", f"rollbook server ping {server.name}",
        )  # fmt: skip
    except errors.InsufficientPrivilege:
        return


def clocks(server: Server, answer: Answer, ours: heartbeat.Clock) -> Iterator[Finding]:
    """Compare the clock of a server with the portal's; what the questions took is not measured."""
    ahead = answer.clock.ahead - ours.ahead
    if abs(ahead) - answer.clock.error - ours.error > CLOCKS_DIFFER:
        yield attention(
            "clock", server.name,
            f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the portal's",
            "the same time", "timedatectl set-ntp true",
        )  # fmt: skip


def identity(
    server: Server, me: link.Identity, answer: Answer, unread: feeding.Unread | None
) -> Iterator[Finding]:  # fmt: skip
    """Check that this database is the portal that feeds the server; `unread`: since when nobody reads its slot."""
    try:
        if server.portal_identity != me.database:
            raise link.clone(server)
        if objection := feeding.objection(server, me, answer.known, unread):
            raise objection
    except RefusedError as exc:
        yield attention("portal", server.name, f"{exc.message}: {exc.why}", "one portal", exc.fix)
