"""The state of each course on a server, in one word, from what both sides say now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import AdminError, UnreachableError
from rollbook.core.rows import Row, one
from rollbook.replication import apply_error as pending
from rollbook.replication import stream
from rollbook.replication.link import Server, arrival, ask, identity, let_commit, send_beat, servers

LAG_SECONDS = 10.0  # from here on a course is `lagging`
ARRIVAL_SECONDS = 1.0  # how long a look at the state waits for its heartbeat

HEARTBEATS = "select beat, sent_at from rollbook.heartbeat order by beat"

SENT = """
select beat, sent_at, extract(epoch from clock_timestamp() - sent_at)::float8 as age
from rollbook.heartbeat order by beat
"""

SLOTS = """
select
    slot_name, server, active, wal_status, held_bytes, safe_bytes, lag_bytes, inactive_since, invalidation_reason, alarm
from rollbook.slot_status order by server nulls last, slot_name
"""

COURSES = """
select
    s.course_id as course, s.schema_name::text as schema_name, s.state, c.state as noted, s.server, s.verified_at,
    s.verdict, s.differing_rows, now() as observed_at
from rollbook.course_status as s
inner join rollbook.course as c on c.course_id = s.course_id
where %(ids)s::text[] is null or s.course_id = any(%(ids)s)
order by s.course_id
"""

SEVERITY = ("broken", "unreachable", "drifted", "unknown", "detached", "lagging", "paused", "copying", "ok")


@dataclass(frozen=True)
class Answer:
    """What a server says of itself."""

    subscription: Row | None
    copies: dict[str, list[Row]]  # by schema
    beats: list[Row]
    waited: float | None  # seconds until the heartbeat had come; None: it has not
    version: str  # of PostgreSQL
    applied: int  # the position of the portal's WAL up to which it has applied; 0: not known


@dataclass(frozen=True)
class Seen:
    """What is known of one server: its answer, or why there is none; the portal's own side; why it stands still."""

    to: Server
    slot: Row | None
    published: dict[str, int]
    answer: Answer | UnreachableError
    is_ours: bool
    sent: list[Row]  # the portal's heartbeats, read after the answer
    position: int  # where the portal's WAL ended then
    fault: pending.Fault | None = None
    hindrance: str | None = None  # why no fault could be found
    is_published: bool = True  # the publication is there, and was when what the slot holds was written

    @property
    def reached(self) -> Answer | None:
        """Return the answer, None if there is none."""
        return self.answer if isinstance(self.answer, Answer) else None

    @property
    def flows(self) -> bool:
        """Say whether the subscription is there and enabled."""
        return bool(self.reached and self.reached.subscription and self.reached.subscription["enabled"])

    @property
    def lag_bytes(self) -> int | None:
        """Return the WAL that the server has not confirmed."""
        return self.slot["lag_bytes"] if self.slot else None

    def lag_seconds(self) -> float | None:
        """Return how long the heartbeat took; while it has not come, the age of the oldest that has not.

        None where that would say nothing: no answer, no slot, or a stream that stood still before the first of them.
        """
        if self.reached is None or not self.sent or self.slot is None or self.slot["alarm"] == "lost":
            return None
        if self.reached.waited is not None:
            return round(self.reached.waited, 3)
        newest = max((row["beat"] for row in self.reached.beats), default=0)
        missing = [row for row in self.sent if row["beat"] > newest]
        enabled = self.reached.subscription and self.reached.subscription["enabled"]
        return round(missing[0]["age"], 1) if missing and (enabled or len(missing) > 1) else None


def courses(portal: Conn, course_ids: list[str] | None) -> list[Row]:
    """Return what the portal alone knows of the courses, all for None: state (with it) and noted (without), server."""
    return portal.execute(COURSES, {"ids": course_ids}).fetchall()


def slots(portal: Conn) -> list[Row]:
    """Return the logical slots of the portal's database, those of course servers first."""
    return portal.execute(SLOTS).fetchall()


def beat_if_allowed(portal: Conn) -> Row | None:
    """Send a heartbeat and return it; None for a role or a server that may not write."""
    try:
        return send_beat(portal)
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        return None


def look(portal: Conn, asked: Sequence[Server], caller: Caller, *, deep: bool = True) -> list[Seen]:
    """Ask all these servers at once; `deep`: find out why a stream has stopped. Silent ones cost the timeout."""
    if not asked:
        return []
    columns = stream.whitelist(portal)
    schemas = {to.name: [row["schema_name"] for row in stream.attached(portal, to)] for to in asked}
    beat = beat_if_allowed(portal)

    def question(to: Server, conn: Conn) -> Answer:
        found = stream.subscription(conn, to)
        there = one(conn, "select to_regclass('rollbook.heartbeat') is not null as ready")["ready"]
        seconds = min(ARRIVAL_SECONDS, caller.timeout or ARRIVAL_SECONDS)
        waited = arrival(conn, to, beat, seconds) if beat is not None and there and found else None
        copies: dict[str, list[Row]] = {}
        for row in stream.copies(conn, columns, schemas[to.name], found):
            copies.setdefault(row["schema_name"], []).append(row)
        beats = conn.execute(HEARTBEATS).fetchall() if there else []
        version = str(conn.info.parameter_status("server_version")).split()[0]
        return Answer(found, copies, beats, waited, version, pending.applied_until(conn, to))

    answers = ask(asked, question, caller)
    sent = portal.execute(SENT).fetchall()
    newest = max((row["beat"] for row in sent), default=0)
    if any(row["beat"] > newest for answer in answers.values() if isinstance(answer, Answer) for row in answer.beats):
        let_commit(portal)  # somebody else's, sent a moment ago
        sent = portal.execute(SENT).fetchall()
    by_slot = {row["slot_name"]: row for row in slots(portal)}
    me = identity(portal)
    written = pending.position(one(portal, "select pg_current_wal_insert_lsn()::text as lsn")["lsn"])
    publications = {row["pubname"] for row in portal.execute("select pubname from pg_publication")}
    found = [
        Seen(
            to, by_slot.get(to.stream), stream.published(portal, to), answers[to.name], to.portal_identity == me, sent,
            written, is_published=to.stream in publications,
        )
        for to in asked
    ]  # fmt: skip
    return [explained(portal, seen, caller) if deep else seen for seen in found]


def explained(portal: Conn, seen: Seen, caller: Caller) -> Seen:
    """Return what is known, with the reason why a stream stands still, if it does."""
    answer = seen.reached
    if (
        answer is None or not answer.subscription or answer.subscription["enabled"] or seen.to.paused_at
        or seen.slot is None or seen.slot["alarm"] == "lost" or not seen.is_ours
    ):  # fmt: skip
        return seen

    def question(to: Server, conn: Conn) -> pending.Fault | None:
        return pending.fault(portal, conn, to)

    try:
        found = ask([seen.to], question, caller)[seen.to.name]
    except AdminError as exc:
        return replace(seen, hindrance=exc.why or exc.message)
    except errors.UndefinedObject:  # up to PostgreSQL 17 a slot cannot be read past a time without its publication
        return replace(seen, is_published=False)
    except psycopg.Error as exc:  # the portal's: a role that only looks may not read a slot
        return replace(seen, hindrance=f"why is not known: {exc.diag.message_primary or exc}")
    if isinstance(found, UnreachableError):
        return replace(seen, hindrance=found.why or found.message)
    if found is None and seen.is_published and not lost_beats(seen)[1]:
        return revived(portal, seen, caller)
    return replace(seen, fault=found)


def revived(portal: Conn, seen: Seen, caller: Caller) -> Seen:
    """Let a stream go on that stopped although the server would take what it stands at, and look again.

    disable_on_error counts a lost connection as an error: a portal that restarts stops its streams. What the server
    would refuse again stays stopped, and so does what an operator has paused.
    """
    try:
        answer = ask([seen.to], lambda to, conn: stream.enable(conn, to), caller)[seen.to.name]
    except psycopg.Error as exc:
        return replace(seen, hindrance=f"it may go on, but: {exc.diag.message_primary or exc}")
    if isinstance(answer, UnreachableError):
        return replace(seen, hindrance=f"it may go on, but: {answer.why or answer.message}")
    (again,) = look(portal, [seen.to], caller, deep=False)
    return again


def lost_beats(seen: Seen) -> tuple[list[Row], bool]:
    """Return the heartbeats that the server should have and has not, and whether it has what was never sent.

    The first are a hole: the server was restored, or its slot made anew. The second, heartbeats or a position that
    this portal has not reached: the portal was restored.
    """
    is_ahead = seen.reached is not None and seen.reached.applied > seen.position
    if seen.reached is None or not seen.sent or not seen.reached.beats:
        return [], is_ahead
    theirs = {row["beat"]: row["sent_at"] for row in seen.reached.beats}
    mine = {row["beat"]: row["sent_at"] for row in seen.sent}
    first, last, oldest = min(theirs), max(theirs), min(mine)
    holes = [row for row in seen.sent if first < row["beat"] < last and row["beat"] not in theirs]
    never_sent = any(beat >= oldest and mine.get(beat) != at for beat, at in theirs.items())
    return holes, never_sent or is_ahead


def severed(seen: Seen) -> tuple[str, str] | None:
    """Return the state of a server's courses, and why, where something is lost for good; None where nothing is."""
    if seen.slot is None or seen.slot["alarm"] == "lost":
        reason = seen.slot and (seen.slot["invalidation_reason"] or "WAL removed")
        why = f"its slot was lost: {reason}" if reason else "its slot is gone"
        return "broken", f"{why}; what was committed since is not on the server"
    found = seen.reached.subscription if seen.reached else None
    if found is None or found["slot"] != seen.to.stream or not found["is_whole"]:
        return "broken", "its subscription is gone, or feeds no table: was the server restored?"
    if not seen.is_published:
        return "broken", "its publication is gone, or was for a while; what was committed then is not there"
    if lost_beats(seen)[1]:
        return "unknown", "the server holds what this portal never sent: was the portal restored?"
    return None


def judged(course: Row, seen: Seen) -> tuple[str, str | None, str | None]:
    """Return the state of a course on a server, why, and the command that helps."""
    to = seen.to
    quoted = f"'{course['course']}'"
    resync = f"rollbook replication resync {quoted}"
    if isinstance(seen.answer, UnreachableError):
        return "unreachable", seen.answer.why, f"rollbook server ping {to.name}"
    if not seen.is_ours:
        why = f"this database is a copy of the portal that feeds server {to.name}, or a restored one"
        return "unknown", why, f"if it is the portal now: rollbook server add {to.name} ... --take-over"
    if course["noted"] == "detached":
        return "detached", "its detach was not finished", f"rollbook course detach {quoted}"
    if why_severed := severed(seen):
        return (*why_severed, resync)
    answer = seen.answer
    found = answer.subscription or {}
    copies = answer.copies.get(course["schema_name"], [])
    lacking = [f"{row['table']}: {', '.join(row['lacking'])}" for row in copies if row["is_there"] and row["lacking"]]
    if lacking:
        return (
            "broken",
            f"on the server columns are missing of {'; '.join(lacking)}",
            (f"rollbook replication show {quoted}"),
        )
    if to.paused_at is not None:
        return "paused", f"since {to.paused_at:%Y-%m-%d %H:%M} UTC", f"rollbook replication resume {quoted}"
    if not found["enabled"]:
        return stopped(course, seen, copies)
    if not copies or not all(row["is_there"] for row in copies):
        return "broken", "on the server its tables are missing", resync
    if seen.published.get(course["schema_name"], 0) < len(stream.TABLES) or any(row["sync"] is None for row in copies):
        return "broken", "its attach was not finished", f"rollbook course attach {quoted} --to {to.name}"
    if any(row["sync"] != "r" for row in copies):
        done = sum(row["sync"] == "r" for row in copies)
        return "copying", f"{done} of {len(copies)} tables have arrived", None
    return flowing(course, seen, resync)


def flowing(course: Row, seen: Seen, resync: str) -> tuple[str, str | None, str | None]:
    """Return the state of a course whose stream runs: whether all is there, and in time."""
    quoted = f"'{course['course']}'"
    holes, _ = lost_beats(seen)
    since = course["verified_at"]
    if holes and (since is None or holes[-1]["sent_at"] > since):
        return (
            "unknown",
            f"{len(holes)} heartbeats never arrived, the last of {holes[-1]['sent_at']:%Y-%m-%d %H:%M} UTC",
            resync,
        )
    if course["state"] in ("broken", "drifted"):
        verb = "repair" if course["verdict"] == "differs" else "verify"
        return course["state"], None, f"rollbook replication {verb} {quoted}"
    if course["noted"] == "unknown":
        return "unknown", "the stream was made anew; what it missed was not brought back", resync
    if course["noted"] == "copying":
        return "copying", "it has arrived, but was not compared yet", f"rollbook replication verify {quoted}"
    lag = seen.lag_seconds()
    if seen.slot and seen.slot["alarm"] == "near":
        return "lagging", "its slot is about to be lost", "rollbook replication slots"
    answer = seen.reached
    if lag is not None and answer is not None and answer.waited is None:
        idle = answer.subscription is not None and answer.subscription["worker"] is None
        why = "no worker applies changes there now" if idle else None
        return "lagging", why, f"rollbook replication show {quoted}"
    if lag is not None and lag >= LAG_SECONDS:
        return "lagging", None, f"rollbook replication show {quoted}"
    return "ok", None, None


def stopped(course: Row, seen: Seen, copies: list[Row]) -> tuple[str, str | None, str | None]:
    """Return the state of a course whose stream stopped on an error: its own, or a neighbour's."""
    quoted = f"'{course['course']}'"
    fault = seen.fault
    if fault is None:
        if not copies or not all(row["is_there"] for row in copies):
            return "broken", "on the server its tables are missing", f"rollbook replication resync {quoted}"
        why = seen.hindrance or "it was disabled; what it stands at would be applied now"
        return "broken", why, f"rollbook replication resume {quoted}"
    if fault.schema_name != course["schema_name"]:
        return (
            "broken",
            f"its stream stands still because of {fault.schema_name}.{fault.table}",
            (f"rollbook replication show {quoted}"),
        )
    key = f" row {fault.key}" if fault.key else ""
    verb = "repair" if fault.is_conflict else "show"
    return (
        "broken", f"{fault.operation} {fault.table}{key}: {fault.message} (SQLSTATE {fault.sqlstate})",
        f"rollbook replication {verb} {quoted}",
    )  # fmt: skip


def row(course: Row, seen: Seen | None) -> Row:
    """Return a course's line of `status`; `seen` None: its copies stand in the portal's database alone."""
    common = {name: course[name] for name in ("course", "verified_at", "verdict", "differing_rows", "observed_at")}
    if seen is None:
        verb = "repair" if course["verdict"] == "differs" else "verify"
        fix = None if course["state"] == "ok" else f"rollbook replication {verb} '{course['course']}'"
        return common | {
            "target": f"schema {course['schema_name']}", "kind": "schema", "state": course["state"], "lag_bytes": 0,
            "lag_seconds": 0, "pending_changes": 0, "oldest_pending_seconds": None, "error_count": 0, "reason": None,
            "fix": fix,
        }  # fmt: skip
    state, reason, fix = judged(course, seen)
    answer = seen.reached
    counted = pending.counted(answer.subscription) if answer and answer.subscription else None
    lag = seen.lag_seconds()
    waiting = lag if answer and answer.waited is None else None
    return common | {
        "target": f"server {seen.to.name}", "kind": "server", "state": state, "lag_bytes": seen.lag_bytes,
        "lag_seconds": lag, "pending_changes": None, "oldest_pending_seconds": waiting, "error_count": counted,
        "reason": reason, "fix": fix,
    }  # fmt: skip


def status(portal: Conn, course_ids: list[str] | None, caller: Caller) -> list[Row]:
    """Return a line a course, the worst first. The session must be in autocommit."""
    asked = courses(portal, course_ids)
    wanted = {course["server"] for course in asked}
    seen = {s.to.name: s for s in look(portal, [to for to in servers(portal) if to.name in wanted], caller)}
    found = [row(course, seen.get(course["server"])) for course in asked]
    return sorted(found, key=lambda each: (SEVERITY.index(each["state"]), each["course"]))


def detail(portal: Conn, course: Row, seen: Seen) -> dict[str, Any]:
    """Return all that is known of one course on its server, for `replication show`."""
    line = row(course, seen)
    answer = seen.reached
    found = answer.subscription if answer else None
    fault = seen.fault
    return {
        "course": line["course"], "server": seen.to.name, "state": line["state"], "reason": line["reason"],
        "fix": remedy(portal, course, seen) or line["fix"], "lag_bytes": line["lag_bytes"],
        "lag_seconds": line["lag_seconds"],
        "slot": dict(seen.slot) if seen.slot else None,
        "subscription": None if found is None else {
            "name": seen.to.stream, "enabled": found["enabled"], "worker": found["worker"],
            "apply_errors": found["apply_errors"], "sync_errors": found["sync_errors"],
            "conflicts": {name: count for name, count in (found["conflicts"] or {}).items() if count},
        },
        "tables": [
            {"table": copy["table"], "is_there": copy["is_there"], "guarded": copy["guarded"],
             "copy": SYNC.get(copy["sync"] or "", "not fed"), "lacking": copy["lacking"]}
            for copy in (answer.copies.get(course["schema_name"], []) if answer else [])
        ],
        "error": None if fault is None else {
            "course": stream_course(portal, fault.schema_name), "table": fault.table, "key": fault.key,
            "operation": fault.operation, "sqlstate": fault.sqlstate, "message": fault.message,
            "lsn": fault.finish_lsn,
        },
    }  # fmt: skip


def remedy(portal: Conn, course: Row, seen: Seen) -> str | None:
    """Return what a person must do where no command mends the stream; None where one does, or nothing is wrong."""
    copies = seen.reached.copies.get(course["schema_name"], []) if seen.reached else []
    lacking = [(copy["table"], name) for copy in copies if copy["is_there"] for name in copy["lacking"]]
    if lacking:
        asked = {"schema": course["schema_name"], "tables": [t for t, _ in lacking], "names": [n for _, n in lacking]}
        mend = str(one(portal, ADD_COLUMNS, asked)["words"])  # type: ignore[arg-type]
    elif seen.fault is not None and not seen.fault.is_conflict:
        fault, mend = seen.fault, f"let {seen.fault.schema_name}.{seen.fault.table} take that row"
        if fault.finish_lsn:
            mend += f" (or leave its transaction out: replication resume with --skip {fault.finish_lsn})"
    else:
        return None
    quoted = f"'{course['course']}'"
    return f"on server {seen.to.name}: {mend}; then rollbook replication resume {quoted}, and repair {quoted}"


ADD_COLUMNS = """
select string_agg(
    format('alter table %%I.%%I add column %%I %%s', %(schema)s::text, c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod)), '; ' order by l.position
) as words
from unnest(%(tables)s::text[], %(names)s::text[]) with ordinality as l (table_name, column_name, position)
inner join pg_class as c on c.relname = l.table_name and c.relnamespace = 'portal'::regnamespace
inner join pg_attribute as a on a.attrelid = c.oid and a.attname = l.column_name
"""

SYNC = {"i": "waiting", "d": "copying", "f": "copied", "s": "catching up", "r": "ready"}


def stream_course(portal: Conn, schema_name: str) -> str | None:
    """Return the course of a schema, None for Rollbook's own."""
    found = portal.execute("select course_id from rollbook.course where schema_name = %s", [schema_name]).fetchone()
    return str(found["course_id"]) if found else None
