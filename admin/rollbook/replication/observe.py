"""What is observed of course servers now: they are asked at once, and one that cannot apply a row is diagnosed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.rows import tuple_row

from rollbook.core.db import Caller, Conn, session
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.rows import one, typed
from rollbook.replication import apply_error, catalog, feeding
from rollbook.replication.catalog import Copied, Copy, Subscription
from rollbook.replication.heartbeat import arrival, clock, let_commit, newest_heartbeat, send_if_allowed, travelled
from rollbook.replication.link import (
    ANSWER_SECONDS,
    Identity,
    Server,
    ask,
    clone,
    cut_off,
    identity,
    list_servers,
)
from rollbook.replication.queries.servers import SlotStatus, list_slots, slots_of
from rollbook.replication.session import joined

ARRIVAL_SECONDS = 1.0  # how long a look at a server waits for its heartbeat
RETRY_SECONDS = 0.2  # between two looks at a worker by a role that sends no heartbeat
DIAGNOSED_AT_ONCE = 8  # each needs a free slot at its source for a moment
STUCK_SECONDS = 30.0  # from here on errors without a known reason are not just a lost connection

ARRIVED = "select beat, sent_at from rollbook.heartbeat order by beat"

# As pg_publication_tables has it, without the names of the columns, which take longer than all else; null: all columns.
PUBLICATIONS = """
select
    p.pubname::text as publication, n.nspname::text as schema_name, count(*) as tables,
    jsonb_object_agg(c.relname, cardinality(t.attrs::smallint[])) filter (where t.attrs is not null) as columns
from pg_publication as p
left join (
    lateral pg_get_publication_tables(p.pubname) as t
    inner join pg_class as c on c.oid = t.relid
    inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname <> 'rollbook'
) on true
where starts_with(p.pubname, 'rollbook_')
group by 1, 2
"""

SENT = """
select beat, sent_at, greatest(0, extract(epoch from clock_timestamp() - sent_at))::float8 as age
from rollbook.heartbeat order by beat
"""

UNHEALED = """
select c.course_id as course from rollbook.course as c
left join rollbook.verification as v
    on v.course_id = c.course_id and v.verified_at <= statement_timestamp() and v.verdict in ('match', 'differs')
where c.schema_name = any(%s) and c.state in ('ok', 'unknown') and (v.verified_at is null or v.verified_at < %s)
order by 1
"""


class Arrived(NamedTuple):
    """A heartbeat that a server has. There are 2,000 a server: a dataclass takes ten times as long to make."""

    beat: int
    sent_at: datetime


@dataclass(frozen=True)
class Sent:
    """A heartbeat that the portal has sent, and its age in seconds."""

    beat: int
    sent_at: datetime
    age: float


@dataclass(frozen=True)
class Source:
    """What a database that feeds servers reports of their streams: the portal, or a relay."""

    slots: Mapping[str, SlotStatus]  # by name
    publications: Mapping[str, Mapping[str, int]]  # by name: how many tables of each schema it lists
    position: int  # where its WAL ended then
    ahead: float = 0.0  # its clock, in seconds before the monotonic clock of this program
    # By publication, schema and table: the columns that travel and that it does not list.
    unsent: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a server reports of itself."""

    subscription: Subscription | None
    copies: dict[str, list[Copy]]  # by schema
    beats: list[Arrived]  # in their order
    took: float | None  # seconds until the heartbeat of this look had arrived; None: it has not, or none was sent
    is_current: bool  # whether the portal's newest heartbeat has arrived
    is_failing: bool  # whether its worker meets errors and applies nothing
    has_failed_copy: bool  # whether a first copy has failed, and is still to be done
    version: str  # of PostgreSQL
    known: feeding.Known  # what it knows of the portals that have fed it
    applied: int  # the position of its source's WAL up to which it has applied; 0: not known
    feeds: Source | None = None  # of a relay: the streams of the servers behind it


@dataclass(frozen=True)
class Seen:
    """What is known of one server: its answer, or why there is none; its source's side; why it has stopped.

    A server whose relay does not answer counts as silent: nothing is known of its stream.
    """

    server: Server
    slot: SlotStatus | None
    published: Mapping[str, int]
    answer: Answer | UnreachableError
    objection: RefusedError | None  # why this database must not change it; None: it is the portal that feeds it
    sent: list[Sent]  # the portal's heartbeats, read after the answer
    position: int  # where the WAL of its source ended then
    fault: apply_error.Fault | None = None
    diagnosis_error: str | None = None  # why no fault could be found
    diagnosis_fix: str | None = None  # what lets it be found
    additions: Mapping[str, str] = field(default_factory=dict)  # by schema: SQL that adds the columns that it lacks
    is_published: bool = True  # the publication exists, and did when the WAL that the slot holds was written
    relay: Seen | None = None  # what feeds it, if the portal does not
    behind: Sequence[str] = ()  # the servers that it feeds, if it is a relay
    fed: Sequence[str] = ()  # the courses that it receives
    unsent: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)  # as in Source, of its publication
    unhealed: Sequence[str] = ()  # those of its courses that were not compared since a heartbeat was lost

    @property
    def courses(self) -> int:
        """Return how many courses it is fed with."""
        return len(self.fed)

    @property
    def reached(self) -> Answer | None:
        """Return the answer, None if there is none."""
        return self.answer if isinstance(self.answer, Answer) else None

    @property
    def hops(self) -> list[Seen]:
        """Return what is known of the relay that feeds it, if there is one, then of the server itself."""
        return [self] if self.relay is None else [self.relay, self]

    @property
    def runs(self) -> bool:
        """Return whether the subscription exists and is enabled."""
        return bool(self.reached and self.reached.subscription and self.reached.subscription.enabled)

    @property
    def hop_bytes(self) -> int | None:
        """Return the WAL of its source that the server has not confirmed."""
        return self.slot.lag_bytes if self.slot else None

    @property
    def lag_bytes(self) -> int | None:
        """Return the WAL that it has not confirmed, and with it what its relay has not."""
        hops = [seen.hop_bytes for seen in (self.relay, self) if seen is not None]
        return None if None in hops else sum(filter(None, hops))

    @property
    def slot_name(self) -> str:
        """Return its slot in words: where a relay is involved, with the place."""
        if self.relay is not None:
            return f"its slot on relay {self.relay.server.name}"
        return "its slot on the portal" if self.behind else "its slot"

    @property
    def is_stuck(self) -> bool:
        """Return whether its worker meets the same error again and again."""
        if self.fault is not None:
            return self.fault.operation != "copy"  # that concerns one table
        missing = self.missing()
        is_late = bool(missing and missing[0].age > STUCK_SECONDS)
        return bool(self.diagnosis_error and is_late and self.reached and self.reached.is_failing)

    def missing(self) -> list[Sent]:
        """Return the heartbeats behind the newest one that the server has."""
        newest = self.reached.beats[-1].beat if self.reached and self.reached.beats else 0
        return [*takewhile(lambda row: row.beat > newest, reversed(self.sent))][::-1]

    @cached_property
    def lost_beats(self) -> tuple[list[Sent], bool]:
        """Return the heartbeats that the server should have and has not, and whether it has what was never sent.

        The first are a gap: the server was restored, or its slot recreated. The second, heartbeats or a position that
        this portal has not reached: the portal was restored.
        """
        is_ahead = self.reached is not None and self.reached.applied > self.position
        if self.reached is None or not self.sent or not self.reached.beats:
            return [], is_ahead
        theirs = dict(self.reached.beats)
        mine = {row.beat: row.sent_at for row in self.sent}
        first, last, oldest = min(theirs), max(theirs), min(mine)
        gaps = [row for row in self.sent if first < row.beat < last and row.beat not in theirs]
        never_sent = any(beat >= oldest and mine.get(beat) != at for beat, at in theirs.items())
        return gaps, never_sent or is_ahead

    def lag_seconds(self) -> float | None:
        """Return how long the heartbeat took; until it arrives, the age of the oldest that is missing.

        Behind a relay at least what it took to the relay, however exactly the clocks are known. None where that would
        mean nothing: no answer, no slot, or a stream that stopped before the first of them.
        """
        own, above = self.measured_lag(), None if self.relay is None else self.relay.lag_seconds()
        return own if own is None or above is None else max(own, above)

    def measured_lag(self) -> float | None:
        """Return its lag as it was measured, whatever was measured of its relay."""
        if self.reached is None or not self.sent or self.slot is None or self.slot.alarm == "lost":
            return None
        if self.reached.took is not None:
            return round(self.reached.took, 3)
        missing = self.missing()
        return round(missing[0].age, 1) if missing and (self.runs or len(missing) > 1) else None

    def hop_seconds(self) -> float | None:
        """Return the part of the lag that its own hop takes: all of it, or what comes on top of the lag of its relay.

        None where one of both is not known, or nothing comes on top: that is too little to be measured.
        """
        lag = self.lag_seconds()
        if self.relay is None or lag is None:
            return lag
        above = self.relay.lag_seconds()
        return None if above is None or lag <= above else round(lag - above, 3)


def look(portal: Conn, asked: Sequence[Server], caller: Caller, *, deep: bool = True) -> list[Seen]:
    """Ask all these servers at once; `deep`: diagnose those that apply nothing. Silent ones cost the timeout.

    A role that may not send a heartbeat asks for the newest one that was sent.
    """
    if not asked:
        return []
    copied = catalog.copied(portal)
    known = list_servers(portal)
    every = with_relays(known, asked)
    behind = {
        server.name: [each for each in known if server.name in (each.through, each.moving_through)]
        for server in every
    }  # fmt: skip
    fed = {server.name: catalog.fed(portal, server) for server in every}
    schemas = {name: [row.schema_name for row in rows] for name, rows in fed.items()}
    me, own = identity(portal), send_if_allowed(portal)
    beat, portal_clock = own or newest_heartbeat(portal), clock(portal)

    def question(server: Server, conn: Conn) -> Answer:
        heard = feeding.known(conn, server, me)  # before the slots of a relay are read, or they seem long unread
        before = found = catalog.subscription(conn, server)
        is_ready = one(conn, "select to_regclass('rollbook.heartbeat') is not null as ready")["ready"]
        seconds = min(ARRIVAL_SECONDS, caller.timeout or ARRIVAL_SECONDS)
        waited = arrival(conn, server, beat, seconds) if beat and is_ready and found else None
        is_current = waited is not None or beat is None
        if own is None and found and found.apply_errors:
            time.sleep(RETRY_SECONDS)  # without a heartbeat of this look, only a worker that stays is known to work
        if own is None or not is_current:
            found = catalog.subscription(conn, server)
        copies = by_schema(catalog.copies(conn, copied, schemas[server.name], found))
        rows = conn.cursor(row_factory=tuple_row).execute(ARRIVED).fetchall() if is_ready else []
        version = str(conn.info.parameter_status("server_version")).split()[0]
        try:
            applied = apply_error.applied_until(conn, server)
        except UnreachableError:  # a role that only looks
            applied = 0
        is_failing = found is not None and (own is None or not is_current) and found.is_failing(before)
        has_due = any(copy.is_due for each in copies.values() for copy in each)
        has_failed_copy = found is not None and found.sync_errors > 0 and has_due
        return Answer(
            found,
            copies,
            [*map(Arrived._make, rows)],
            travelled(conn, own, portal_clock, waited) if own and waited is not None else None,
            is_current,
            is_failing,
            has_failed_copy,
            version,
            heard,
            applied,
            read_source(conn, slots_of(conn, behind[server.name], server.name), copied)
            if behind[server.name]
            else None,
        )

    answers = ask(every, question, caller, waits=ARRIVAL_SECONDS)
    sent = typed(Sent, portal, SENT)
    newest = max((row.beat for row in sent), default=0)
    if any(row.beat > newest for each in answers.values() if isinstance(each, Answer) for row in each.beats[-1:]):
        let_commit(portal)  # another command's, sent a moment ago
        sent = typed(Sent, portal, SENT)
    own_source = read_source(portal, list_slots(portal), copied)
    answers |= caught_up(every, answers, caller)
    found: dict[str, Seen] = {}
    for are_behind in (False, True):  # relays first
        hop: list[Seen] = []
        for server in [each for each in every if (each.through is not None) == are_behind]:
            relay, source, answer = found.get(server.through or ""), own_source, answers[server.name]
            if relay is not None:
                source = (relay.reached and relay.reached.feeds) or Source({}, {}, 0)
                if isinstance(relay.answer, UnreachableError):
                    answer = cut_off(server, relay.server, relay.answer)
            slot = source.slots.get(server.stream)
            seen = Seen(
                server, slot, source.publications.get(server.stream, {}), answer,
                objection(server, me, answer, slot, source.ahead), sent, source.position,
                is_published=server.stream in source.publications, additions=additions(portal, answer), relay=relay,
                behind=[each.name for each in behind[server.name]], fed=[row.course for row in fed[server.name]],
                unsent=travelling(portal, source.unsent.get(server.stream, {})),
            )  # fmt: skip
            hop.append(replace(seen, unhealed=unhealed(portal, seen, schemas[server.name])))
        found |= {seen.server.name: seen for seen in (diagnosed(portal, hop, caller) if deep else hop)}
    return [found[server.name] for server in asked]


def unhealed(portal: Conn, seen: Seen, schemas: Sequence[str]) -> list[str]:
    """Return the courses of a server, in these schemas, that were not compared since a heartbeat was lost."""
    gaps, _ = seen.lost_beats
    return [row["course"] for row in portal.execute(UNHEALED, [schemas, gaps[-1].sent_at])] if gaps else []


def by_schema(copies: Sequence[Copy]) -> dict[str, list[Copy]]:
    """Return the copies of each schema."""
    found: dict[str, list[Copy]] = {}
    for copy in copies:
        found.setdefault(copy.schema_name, []).append(copy)
    return found


def with_relays(known: Sequence[Server], asked: Sequence[Server]) -> list[Server]:
    """Return these servers, and the relays that feed some of them, of the known ones."""
    every = {server.name: server for server in asked}
    wanted = {server.through for server in asked} - every.keys()
    return [*every.values(), *(server for server in known if server.name in wanted)]


def caught_up(
    asked: Sequence[Server], answers: Mapping[str, Answer | UnreachableError], caller: Caller
) -> dict[str, Answer | UnreachableError]:
    """Return the answers of those relays, asked again how far they are, that a server was ahead of.

    All are asked at once: a server may have applied what its relay wrote after it had answered.
    """
    ahead: dict[str, Server] = {}
    for server in asked:
        answer, relay = answers[server.name], answers.get(server.through or "")
        if (
            isinstance(answer, Answer) and isinstance(relay, Answer)
            and relay.feeds is not None and answer.applied > relay.feeds.position
        ):  # fmt: skip
            ahead |= {each.name: each for each in asked if each.name == server.through}
    found: dict[str, Answer | UnreachableError] = {}
    for name, now in ask(ahead.values(), lambda _, conn: written_until(conn), caller).items():
        before = answers[name]
        if isinstance(now, UnreachableError):
            found[name] = now
        elif isinstance(before, Answer) and before.feeds is not None:
            found[name] = replace(before, feeds=replace(before.feeds, position=now))
    return found


def written_until(source: Conn) -> int:
    """Return where the WAL of a database ends now."""
    return apply_error.position(one(source, "select pg_current_wal_insert_lsn()::text as lsn")["lsn"])


def read_source(source: Conn, slots: Sequence[SlotStatus], copied: Copied) -> Source:
    """Return what a database reports of the streams that it feeds, these slots apart."""
    publications: dict[str, dict[str, int]] = {}
    short: dict[str, list[str]] = {}  # by publication: schemas of which a table is listed with too few columns
    due = {table.name: len(table.columns) for table in copied.tables}
    for row in source.execute(PUBLICATIONS):
        listed = publications.setdefault(row["publication"], {})
        if row["schema_name"] is not None:
            schema, counts = row["schema_name"], row["columns"] or {}
            listed[schema] = row["tables"]
            wanted = {name: len(copied.of(schema, name)) for name in due} if schema in copied.left_out else due
            if any(count < wanted.get(table, 0) for table, count in counts.items()):
                short.setdefault(row["publication"], []).append(schema)
    unsent = {stream: catalog.unsent(source, stream, copied, schemas) for stream, schemas in short.items()}
    ahead = one(source, "select clock_timestamp() as at")["at"].timestamp() - time.monotonic()
    return Source({row.slot_name: row for row in slots}, publications, written_until(source), ahead, unsent)


def travelling(portal: Conn, unsent: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, dict[str, list[str]]]:
    """Return what a publication lacks, as in Source, without columns that a course has left out meanwhile."""
    if not unsent:
        return {}
    copied, found = catalog.copied(portal), dict[str, dict[str, list[str]]]()
    for schema, tables in unsent.items():
        for table, names in tables.items():
            if left := [name for name in names if name in copied.of(schema, table)]:
                found.setdefault(schema, {})[table] = left
    return found


def additions(portal: Conn, answer: Answer | UnreachableError) -> dict[str, str]:
    """Return by schema the SQL that adds to the copies of a server the columns that they lack."""
    copies = answer.copies if isinstance(answer, Answer) else {}
    lacking = {schema: [copy for copy in each if copy.is_there and copy.lacking] for schema, each in copies.items()}
    return {schema: catalog.add_columns(portal, schema, each) for schema, each in lacking.items() if each}


def objection(
    server: Server, me: Identity, answer: Answer | UnreachableError, slot: SlotStatus | None, ahead: float
) -> RefusedError | None:
    """Return why this database must not change a server, as far as is known; None if nothing speaks against it.

    `ahead`: the clock of what feeds it, as in Source.
    """
    if server.portal_identity != me.database:
        return clone(server)
    since = slot.inactive_since if slot and not slot.active and slot.wal_status != "lost" else None
    unread = feeding.Unread(since, since.timestamp() - ahead) if since else None
    return feeding.objection(server, me, answer.known, unread) if isinstance(answer, Answer) else None


def is_to_diagnose(seen: Seen) -> bool:
    """Return whether a server applies nothing, and for a reason that is not known yet."""
    answer = seen.reached
    return not (
        answer is None or not answer.subscription or seen.server.paused_at or seen.slot is None
        or answer.subscription.slot is None  # it is on its way to another source
        or seen.slot.alarm == "lost" or seen.objection
        or (seen.runs and not (answer.is_failing or answer.has_failed_copy))
    )  # fmt: skip


def diagnosed(portal: Conn, looked: Sequence[Seen], caller: Caller) -> list[Seen]:
    """Return what is known of these servers, with what each cannot apply, if there is such a row.

    Several are diagnosed at the same time, each with a session of its own on the portal.
    """
    due = {seen.server.name: seen for seen in looked if is_to_diagnose(seen)}

    def question(server: Server, conn: Conn) -> Seen:
        seen = due[server.name]
        try:
            with ExitStack() as stack:
                own = portal if len(due) == 1 else stack.enter_context(again(portal, caller))
                seconds = caller.timeout or ANSWER_SECONDS
                session = stack.enter_context(joined(own, conn, server, caller, seconds))
                return with_fault(seen, apply_error.fault(session))
        except psycopg.Error as exc:
            if getattr(exc, "server", None) == server.name:
                raise  # `ask` knows what it means
            return with_fault(seen, exc)  # the portal's

    found = ask([seen.server for seen in due.values()], question, caller, at_once=DIAGNOSED_AT_ONCE) if due else {}
    return [after(seen, found.get(seen.server.name, seen)) for seen in looked]


def after(seen: Seen, found: Seen | UnreachableError) -> Seen:
    """Return what a diagnosis found of a server, or why there was none."""
    if isinstance(found, UnreachableError):
        return replace(seen, diagnosis_error=found.why or found.message, diagnosis_fix=found.fix)
    return found


def again(portal: Conn, caller: Caller) -> Conn:
    """Return another session with the portal, in autocommit."""
    route = make_conninfo(portal.info.dsn, **({"password": portal.info.password} if portal.info.password else {}))
    conn = session(route, name=caller.name, timeout=caller.timeout or ANSWER_SECONDS)
    conn.autocommit = True
    return conn


def with_fault(seen: Seen, found: apply_error.Fault | psycopg.Error | None) -> Seen:
    """Return what is known of a server, with the answer of its diagnosis."""
    if isinstance(found, errors.UndefinedObject):
        return replace(seen, is_published=False)  # up to 17 a slot cannot be read past a time without its publication
    if isinstance(found, psycopg.Error):  # a role that only looks may not read a slot
        return replace(seen, diagnosis_error=f"the reason is not known: {found.diag.message_primary or found}")
    answer, name = seen.reached, seen.server.name
    if found is None and seen.runs and answer and answer.is_failing and not answer.has_failed_copy:
        why = (
            f"no row that waits is refused: the log of server {name} has the error, such as a full disk or a refused "
            "connection"
        )  # fmt: skip
        fix = f"rollbook server ping {name}; or: read the last errors in the log of server {name}"
        return replace(seen, diagnosis_error=why, diagnosis_fix=fix)
    return replace(seen, fault=found)
