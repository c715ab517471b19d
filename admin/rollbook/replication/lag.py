"""The lag of course servers over time: when each heartbeat of the portal was applied there.

The portal records when it sent a heartbeat, the server when it applied it, each by its own clock. The difference of the
clocks is measured now and taken off; a clock that was set in between shows as lag that was not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.rows import one, typed
from rollbook.replication.heartbeat import NOW, Clock, clock
from rollbook.replication.link import Server, ask, list_servers
from rollbook.replication.observe import with_relays

HOLD_SECONDS = 120.0  # without a heartbeat for so long, at least, the lag is not known; `status` may run every minute

SENT = "select beat, sent_at from rollbook.heartbeat order by beat"

# A heartbeat that came with the first copy of the table was sent before the position that this copy shows. Behind a
# relay that is a position of the relay: there those of the first copy are the ones of one transaction. Through jsonb: a
# server that was added by an older version has no such column.
ARRIVED = """
select
    h.beat, h.sent_at,
    case
        when case when %(is_behind)s then count(*) over (partition by h.xmin::text) = 1
            else h.lsn > coalesce(r.srsublsn, '0/0') end
            then (to_jsonb(h) ->> 'arrived_at')::timestamptz
    end as arrived_at
from rollbook.heartbeat as h
left join pg_subscription as s
    on s.subname = %(stream)s and s.subdbid = (select d.oid from pg_database as d where d.datname = current_database())
left join pg_subscription_rel as r on r.srsubid = s.oid and r.srrelid = 'rollbook.heartbeat'::regclass
order by h.beat
"""

RECORDS = """
select exists (
    select from pg_attribute where attrelid = to_regclass('rollbook.heartbeat') and attname = 'arrived_at'
) as records
"""


@dataclass(frozen=True)
class Sent:
    """A heartbeat that the portal has sent, by its clock."""

    beat: int
    sent_at: datetime


@dataclass(frozen=True)
class Arrived:
    """A heartbeat that a server has; `arrived_at` by its clock, None where that was not recorded."""

    beat: int
    sent_at: datetime
    arrived_at: datetime | None


@dataclass(frozen=True)
class Beat:
    """A row of `replication lag`; the fields are its columns.

    `arrived_at` None: it has not arrived, and `lag_seconds` is its age; both None: when it arrived is not known.
    """

    server: str
    sent_at: datetime  # by the portal's clock
    arrived_at: datetime | None  # by the server's clock
    lag_seconds: float | None


@dataclass(frozen=True)
class Unknown:
    """A time of which nothing is known of a server: the heartbeats that were sent then are not there."""

    start: datetime
    end: datetime  # when the next heartbeat was sent of which the server knows
    is_before: bool  # all that the server knows came later: its stream was rebuilt, or that of its relay


@dataclass(frozen=True)
class History:
    """What is known of one server: its heartbeats, in the order in which they were sent."""

    beats: list[Beat]
    ahead_seconds: float  # how far its clock is ahead of the portal's
    records: bool  # whether it records arrivals
    unknown: Sequence[Unknown] = ()  # since it was added, in their order

    @property
    def waiting_seconds(self) -> float | None:
        """Return the age of the oldest heartbeat that has not arrived; None if all have."""
        return max(
            (row.lag_seconds for row in self.beats if row.arrived_at is None and row.lag_seconds is not None),
            default=None,
        )


@dataclass(frozen=True)
class Period:
    """The history of servers between two times of the portal's clock."""

    start: datetime
    end: datetime
    servers: dict[str, History | UnreachableError]
    reaches_back_to: datetime | None  # where the portal keeps no heartbeats since `start`


@dataclass(frozen=True)
class Answer:
    """What a server has, and its clock as a number of seconds before this program's."""

    beats: list[Arrived]
    records: bool
    clock: Clock


def lag_of(portal: Conn, servers: Sequence[Server], since: timedelta | datetime, caller: Caller) -> Period:
    """Return the history of each server since a time, or for as long as this. Sends no heartbeat.

    The session must be in autocommit. Relays are asked too: nothing arrives behind one before it has arrived there.
    """

    def question(server: Server, conn: Conn) -> Answer:
        records = one(conn, RECORDS)["records"]
        asked = {"stream": server.stream, "is_behind": server.through is not None}
        beats = typed(Arrived, conn, ARRIVED, asked) if records else []
        return Answer(beats, records, clock(conn))

    every = with_relays(list_servers(portal), servers)
    answers = ask(every, question, caller)
    ours = clock(portal)
    sent = typed(Sent, portal, SENT)  # after the answers: what a server has was sent
    end: datetime = one(portal, NOW)["now"]
    start = end - since if isinstance(since, timedelta) else since
    by_name = {server.name: server for server in every}
    found = {
        name: answer if isinstance(answer, UnreachableError) else history(sent, answer, ours, start, end, by_name[name])
        for name, answer in answers.items()
    }
    for server in servers:
        own, relay = found[server.name], found.get(server.through or "")
        if isinstance(own, History) and isinstance(relay, History):
            found[server.name] = behind(own, relay)
    is_whole = not sent or sent[0].beat == 1 or sent[0].sent_at <= start
    found = {server.name: found[server.name] for server in servers}
    return Period(start, end, found, None if is_whole else sent[0].sent_at)


def history(
    sent: Sequence[Sent], answer: Answer, ours: Clock, start: datetime, end: datetime, server: Server
) -> History:  # fmt: skip
    """Return the heartbeats that were on their way to a server between two times, and their lag.

    A rebuilt stream begins with heartbeats of its own: when those before it arrived, if they did, is not known.
    """
    ahead = answer.clock.before(ours)
    theirs = {(row.beat, row.sent_at): row.arrived_at for row in answer.beats}
    numbers = [row.beat for row in answer.beats]
    found: list[Beat] = []
    unknown: list[Unknown] = []
    is_lost = False  # the one before
    for row in sent if answer.records else ():
        is_before = not numbers or row.beat < numbers[0]
        if is_before and (server.created_at is None or row.sent_at < server.created_at):
            continue  # before the server
        was_lost, is_lost = is_lost, is_before or (row.beat < numbers[-1] and (row.beat, row.sent_at) not in theirs)
        if is_lost and not was_lost:
            unknown.append(Unknown(row.sent_at, end, is_before))
        elif was_lost and not is_lost:
            unknown[-1] = replace(unknown[-1], end=row.sent_at)
        arrived_at, lag = theirs.get((row.beat, row.sent_at)), None
        if not is_before and row.beat > numbers[-1]:
            lag = max(0.0, (end - row.sent_at).total_seconds())
        elif arrived_at is not None:
            lag = max(0.0, (arrived_at - row.sent_at).total_seconds() - ahead)
        if row.sent_at + timedelta(seconds=lag or 0) >= start:
            found.append(Beat(server.name, row.sent_at, arrived_at, None if lag is None else round(lag, 4)))
    within = [replace(each, start=max(each.start, start)) for each in unknown if each.end > start]
    return History(found, ahead, answer.records, within)


def behind(own: History, relay: History) -> History:
    """Return the history of a server behind a relay: what the clocks say, but no heartbeat sooner than at its relay."""
    above = {row.sent_at: row.lag_seconds or 0.0 for row in relay.beats}
    beats = [
        replace(row, lag_seconds=None if row.lag_seconds is None else max(row.lag_seconds, above.get(row.sent_at, 0.0)))
        for row in own.beats
    ]
    return replace(own, beats=beats)


def curve(beats: Sequence[Beat], start: datetime, end: datetime, columns: int) -> list[float | None]:
    """Return the worst lag in each part of a period, as `status` would have reported it; None: no heartbeat shows it.

    That is the age of the oldest heartbeat under way. Between two heartbeats the lag is that of the first.
    """
    known = [(beat.sent_at, beat.lag_seconds) for beat in beats if beat.lag_seconds is not None]
    width = (end - start).total_seconds() / columns
    pauses = [(after - before).total_seconds() for (before, _), (after, _) in pairwise(known)]
    hold = max(HOLD_SECONDS, 2 * median(pauses)) if pauses else HOLD_SECONDS
    worst: list[float | None] = [None] * columns
    last: dict[int, float] = {}  # the lag of the last one that arrived in this part
    for sent_at, lag in known:
        sent = (sent_at - start).total_seconds()
        final = min(columns - 1, int((sent + lag) / width))
        for part in range(max(0, int(sent / width)), final + 1):
            worst[part] = max(worst[part] or 0, min(lag, (part + 1) * width - sent))
        last[final] = lag
    carried, since = 0.0, columns  # parts since the last heartbeat
    for part in range(columns):
        if worst[part] is not None:
            carried, since = last.get(part, worst[part] or 0), 0
        elif since < columns and (since := since + 1) * width <= hold:
            worst[part] = carried
    return worst
