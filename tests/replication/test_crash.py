"""Scenario 37: any process of either side is killed, again and again, while clients write; nothing is lost or doubled.

Both sides are restarted too, cleanly and at once, and no command is run in between: the stream goes on by itself.

Every client knows what it has committed, also where the answer to its COMMIT was lost: each of its transactions leaves
a mark, which it looks for when it is back. The course server keeps, by triggers of its own, a journal of what was
applied there: a change that came twice would stand in it twice.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.program import COPIED, KEEP, REMOVE, Result
from tests.replication.conftest import (
    QUICK,
    SCHEMAS,
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    private_server,
    until,
)

pytestmark = pytest.mark.slow

ROUNDS, CLIENTS, SEED = 24, 4, 37
# What was acknowledged outlives a killed server, as the system keeps its pages; so synchronous_commit stays on.
SETTINGS = {**QUICK, "fsync": "off", "deadlock_timeout": "50ms"}
LEVELS: tuple[LiteralString, ...] = ("read committed", "read committed", "repeatable read", "serializable")
RETRIED = {"40001", "40P01"}
SHARED = list(range(1, 7))  # users whom all clients write: their last names and goals count the changes

# For apply workers alone. A copy's triggers run as somebody else, without a search path.
JOURNAL: LiteralString = """
create table public.journal (
    n bigint generated always as identity, schema_name text, what text, row_id bigint, value text
);
create function public.note() returns trigger language plpgsql security definer as $$
begin
    insert into public.journal (schema_name, what, row_id, value) values (
        tg_table_schema, lower(tg_op) || ' ' || tg_table_name, coalesce(new.id, old.id),
        to_jsonb(new) ->> case tg_table_name when 'auth_user' then 'last_name' else 'goals' end
    );
    return null;
end $$;
"""
NOTED: LiteralString = """
create trigger note after insert or update or delete on {0} for each row execute function public.note();
alter table {0} enable replica trigger note
"""


@dataclass
class Log:
    """What one client has committed: its own users as they must be now, and what it did to those of all."""

    users: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # id -> username, e-mail, name
    enrolled: set[tuple[int, str]] = field(default_factory=set)
    joined: Counter[tuple[int, str]] = field(default_factory=Counter)  # +1 for each enrollment of all's users, -1 ...
    enrollments: list[tuple[int, str]] = field(default_factory=list)  # id and course of every enrollment ever made
    names: Counter[int] = field(default_factory=Counter)  # changes of a user of all's
    goals: Counter[int] = field(default_factory=Counter)  # changes of a profile of all's


class Client(threading.Thread):
    """Writes to the portal without a pause until it is told to end."""

    def __init__(self, number: int, dsn: str, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.dsn, self.end = number, dsn, end
        self.random = random.Random(SEED * 100 + number)
        self.mine = [number * 100 + n for n in range(1, 9)]
        self.log = Log()
        self.committed = 0
        self.met: Counter[str] = Counter()  # how attempts ended that did not simply commit
        self.error: BaseException | None = None
        self.conn: Db | None = None

    def run(self) -> None:
        try:
            while not self.end.is_set():
                self.transaction()
        except BaseException as error:
            self.error = error
        finally:
            if self.conn:
                self.conn.close()

    def session(self) -> Db:
        """Return the session, made anew where it was lost."""
        deadline = time.monotonic() + 30
        while self.conn is None or self.conn.closed:
            try:
                self.conn = psycopg.connect(self.dsn, autocommit=True)
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the portal does not come back"
                time.sleep(0.02)
        return self.conn

    def transaction(self) -> None:
        """Attempt a transaction until it is committed, then note what it did."""
        mark = self.committed + 1
        while not self.end.is_set():
            draft = deepcopy(self.log)
            try:
                self.attempt(draft, mark)
                is_committed = True
            except psycopg.Error as error:
                is_committed = self.is_committed_after(error, mark)
            if is_committed:
                self.committed, self.log = mark, draft
                return

    def attempt(self, draft: Log, mark: int) -> None:
        """Do some writes in one transaction."""
        conn = self.session()
        conn.execute(sql.SQL("begin isolation level {}").format(sql.SQL(self.random.choice(LEVELS))))
        conn.execute("insert into public.mark values (%s, %s)", [self.number, mark])
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            self.random.choice(WRITES)(self, draft, conn, mark)
        conn.execute("commit")

    def is_committed_after(self, error: psycopg.Error, mark: int) -> bool:
        """Say whether a transaction was committed all the same, which only a lost session leaves open."""
        assert self.conn is not None
        if error.sqlstate in RETRIED:
            self.met[error.sqlstate or ""] += 1
            with suppress(psycopg.OperationalError):
                self.conn.execute("rollback")
            return False
        if not isinstance(error, psycopg.OperationalError):
            raise error
        self.met["lost"] += 1
        query = "select exists (select from public.mark where client = %s and n = %s)"
        while True:
            self.conn.close()
            with suppress(psycopg.OperationalError):
                row = self.session().execute(query, [self.number, mark]).fetchone()
                self.met["committed, but not told"] += bool(row and row[0])
                return bool(row and row[0])


# --- what clients write -----------------------------------------------------------------------------------------------


def add_or_delete_user(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Delete one of the client's users with all that hangs on it, or make it again, under the same id."""
    user = client.random.choice(client.mine)
    if user in log.users:
        conn.execute("delete from portal.auth_user where id = %s", [user])
        del log.users[user]
        log.enrolled = {(who, course) for who, course in log.enrolled if who != user}
        return
    row = (f"user{user}_{mark}", f"user{user}_{mark}@example.org", f"Name {mark}")
    conn.execute("insert into portal.auth_user (id, username, email) values (%s, %s, %s)", [user, *row[:2]])
    conn.execute("insert into portal.auth_userprofile (user_id, name) values (%s, %s)", [user, row[2]])
    log.users[user] = row


def enroll_or_leave(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Enroll one of the client's users in a course, or let it leave."""
    del mark
    if not log.users:
        return
    user, course = client.random.choice(sorted(log.users)), client.random.choice((KEEP, REMOVE))
    if (user, course) in log.enrolled:
        conn.execute(
            "delete from portal.student_courseenrollment where user_id = %s and course_id = %s", [user, course]
        )
        log.enrolled.remove((user, course))
        return
    query = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s) returning id"
    log.enrollments += [(row[0], course) for row in conn.execute(query, [user, course])]
    log.enrolled.add((user, course))


def rename(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Change the sign-in name and the address of one of the client's users, and perhaps the profile."""
    if not log.users:
        return
    user = client.random.choice(sorted(log.users))
    row = (f"user{user}_{mark}", f"user{user}_{mark}@example.com", log.users[user][2])
    conn.execute("update portal.auth_user set username = %s, email = %s where id = %s", [*row[:2], user])
    if client.random.random() < 0.5:
        row = (*row[:2], f"Name {mark}")
        conn.execute("update portal.auth_userprofile set name = %s where user_id = %s", [row[2], user])
    log.users[user] = row


def count_names(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Count up the last names of some of all's users, in one statement."""
    del mark
    users = client.random.sample(SHARED, client.random.choice((1, 1, 3)))
    conn.execute("update portal.auth_user set last_name = last_name::int + 1 where id = any(%s)", [users])
    log.names.update(users)


def count_goals(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Count up the goals of one of all's profiles."""
    del mark
    user = client.random.choice(SHARED)
    conn.execute("update portal.auth_userprofile set goals = goals::int + 1 where user_id = %s", [user])
    log.goals[user] += 1


def move_shared(client: Client, log: Log, conn: Db, mark: int) -> None:
    """Enroll one of all's users in the course that forgets its leavers, or let it leave."""
    del mark
    user = client.random.choice(SHARED)
    gone = conn.execute(
        "delete from portal.student_courseenrollment where user_id = %s and course_id = %s", [user, REMOVE]
    )
    if gone.rowcount:
        log.joined[user, REMOVE] -= 1
        return
    query = (
        "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s) on conflict do nothing "
        "returning id"
    )
    for row in conn.execute(query, [user, REMOVE]):
        log.enrollments.append((row[0], REMOVE))
        log.joined[user, REMOVE] += 1


Write = Callable[[Client, Log, Db, int], None]
WRITES: tuple[Write, ...] = (
    add_or_delete_user, enroll_or_leave, enroll_or_leave, rename, count_names, count_names, count_goals, move_shared,
)  # fmt: skip


# --- what kills -------------------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """A portal and a course server, each a server of its own, with a database on each."""

    portal: PrivateServer
    server: PrivateServer
    portal_dsn: str
    server_dsn: str
    call: Callable[..., Result]


def asked(dsn: str, query: LiteralString) -> Any:
    """Return the only value that a server says, which may be recovering; None for no row."""
    found: list[Any] = []

    def answers() -> bool:
        try:
            with psycopg.connect(dsn, autocommit=True) as conn:
                found[:] = conn.execute(query).fetchall()
        except psycopg.OperationalError:
            return False
        return True

    until(answers)
    return found[0][0] if found else None


def kill_found(dsn: str, query: LiteralString) -> None:
    """Kill the process that a query finds, as soon as it finds one."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid in [asked(dsn, query)] if pid]
        return bool(found)

    until(is_there)
    with suppress(ProcessLookupError):
        os.kill(found[0], signal.SIGKILL)


def kill_apply_worker(pair: Pair) -> None:
    query: LiteralString = "select pid from pg_stat_subscription where subname = 'rollbook_east' and relid is null"
    kill_found(pair.server_dsn, query)


def kill_walsender(pair: Pair) -> None:
    kill_found(pair.portal_dsn, "select active_pid from pg_replication_slots where slot_name = 'rollbook_east'")


def kill_postmaster(server: PrivateServer) -> None:
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    until(lambda: not server.is_running())
    server.start()


def restart(server: PrivateServer, mode: str) -> None:
    server.stop(mode)
    server.start()


KILLS: tuple[Callable[[Pair], None], ...] = (
    kill_apply_worker, kill_walsender, lambda pair: kill_postmaster(pair.server),
    lambda pair: kill_postmaster(pair.portal), lambda pair: restart(pair.server, "fast"),
    lambda pair: restart(pair.portal, "fast"), lambda pair: restart(pair.server, "immediate"),
    lambda pair: restart(pair.portal, "immediate"),
)  # fmt: skip


# --- what must be -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[PrivateServer, PrivateServer]]:
    """A portal's and a course server of their own, as the tests here kill them."""
    with private_server(SETTINGS) as portal, private_server(SETTINGS) as server:
        yield portal, server


@pytest.fixture
def pair(machines: tuple[PrivateServer, PrivateServer], call: Callable[..., Result]) -> Iterator[Pair]:
    """A database on each: a portal with two courses and the users of all, and nothing."""
    with ExitStack() as stack:
        portal, server = (stack.enter_context(database(machine)) for machine in machines)
        schema.upgrade(portal)
        with psycopg.connect(portal, autocommit=True) as conn:
            conn.execute("create table public.mark (client integer, n integer, primary key (client, n))")
            conn.execute("select rollbook.create_course(%s), rollbook.create_course(%s, 'remove')", [KEEP, REMOVE])
            for statement in (
                "insert into portal.auth_user (id, username, last_name) select n, 'all' || n, '0' "
                "from unnest(%(users)s::int[]) as n",
                "insert into portal.auth_userprofile (user_id, goals) select n, '0' from unnest(%(users)s::int[]) as n",
                "insert into portal.student_courseenrollment (user_id, course_id) select n, %(course)s "
                "from unnest(%(users)s::int[]) as n",
            ):
                conn.execute(statement, {"users": SHARED, "course": KEEP})
        yield Pair(*machines, portal, server, call)
        for machine in machines:
            machine.start()
        with psycopg.connect(server, autocommit=True) as conn:
            drop_subscriptions(conn)
        with psycopg.connect(portal, autocommit=True) as conn:
            drop_slots(conn)


@contextmanager
def sited(pair: Pair) -> Iterator[Site]:
    """Yield the pair with a session on either side, as other tests have it."""
    with (
        psycopg.connect(pair.portal_dsn, autocommit=True) as portal,
        psycopg.connect(pair.server_dsn, autocommit=True) as server,
    ):
        yield Site(portal, pair.portal_dsn, server, pair.server_dsn, pair.call)


def test_whatever_is_killed_while_clients_write_nothing_is_lost_and_nothing_comes_twice(pair: Pair) -> None:
    with sited(pair) as site:
        site.add()
        site.attach(KEEP, REMOVE)
        site.server.execute(JOURNAL)
        for name in SCHEMAS.values():
            for table in COPIED:
                site.server.execute(sql.SQL(NOTED).format(sql.Identifier(name, table)))

    end = threading.Event()
    clients = [Client(number, pair.portal_dsn, end) for number in range(1, CLIENTS + 1)]
    for client in clients:
        client.start()
    chance = random.Random(SEED)
    kills = [kill for _ in range(ROUNDS // len(KILLS)) for kill in chance.sample(KILLS, len(KILLS))]
    try:
        for kill in kills:
            goals = [client.committed + chance.randrange(2, 12) for client in clients]
            until(lambda goals=goals: all(  # type: ignore[misc]
                client.committed >= goal or client.error for client, goal in zip(clients, goals, strict=True)
            ))  # fmt: skip
            kill(pair)
    finally:
        end.set()
        for client in clients:
            client.join()
    assert [client.error for client in clients] == [None] * CLIENTS
    # The kills have met them in the middle of their work.
    assert all(client.met["lost"] >= ROUNDS // 4 for client in clients), [client.met for client in clients]

    with sited(pair) as site:
        until(lambda: site.is_equal(KEEP) and site.is_equal(REMOVE))
        until(lambda: set(site.states().values()) == {"ok"})
        site.wait()
        verified = site.ok("replication", "verify", "--json").data
        assert {(row["course"], row["verdict"]) for row in verified} == {(KEEP, "match"), (REMOVE, "match")}
        assert site.is_equal(KEEP)
        assert site.is_equal(REMOVE)
        assert enabled(site) == [("rollbook_east", True)]
        assert site.portal.execute("select slot_name from pg_replication_slots").fetchall() == [("rollbook_east",)]
        check_logs(site, clients)
        check_journal(site, clients)


def enabled(site: Site) -> list[tuple[Any, ...]]:
    """The subscriptions of the server, and whether each is enabled."""
    return site.server.execute("select subname, subenabled from pg_subscription").fetchall()


def total(clients: list[Client], what: str) -> dict[Any, int]:
    """Return what all clients have counted together."""
    counted: dict[Any, int] = Counter()
    for client in clients:
        for key, count in getattr(client.log, what).items():
            counted[key] += count
    return counted


def check_logs(site: Site, clients: list[Client]) -> None:
    """All that the clients have committed stands on the server, and nothing else."""
    users = {user: row for client in clients for user, row in client.log.users.items()}
    joined = total(clients, "joined")
    assert set(joined.values()) <= {0, 1}
    enrolled = {place for client in clients for place in client.log.enrolled}
    enrolled |= {place for place, count in joined.items() if count} | {(user, KEEP) for user in SHARED}
    for course in (KEEP, REMOVE):
        members = {user for user, where in enrolled if where == course}
        profiles = {row[1]: row for row in site.copy(course, "auth_userprofile")}
        there = {row[0]: (row[1], row[4], profiles[row[0]][2]) for row in site.copy(course) if row[0] not in SHARED}
        assert {row[1] for row in site.copy(course, "student_courseenrollment")} == members
        assert members - set(SHARED) <= there.keys()
        assert there.items() <= users.items()  # also who left the course that keeps leavers is as it is now
    shared = {row[0]: int(row[3]) for row in site.copy(KEEP) if row[0] in SHARED}
    goals = {row[1]: int(row[11]) for row in site.copy(KEEP, "auth_userprofile") if row[1] in SHARED}
    assert shared == total(clients, "names")
    assert goals == total(clients, "goals")


def check_journal(site: Site, clients: list[Client]) -> None:
    """Every change has come to the server once, in its order."""
    names, goals = total(clients, "names"), total(clients, "goals")
    profiles = {row[1]: row[0] for row in site.copy(KEEP, "auth_userprofile")}
    came: dict[tuple[str, str, int], list[str]] = {}
    query = "select schema_name, what, row_id, value from public.journal order by n"
    for schema_name, what, row_id, value in site.server.execute(query):
        came.setdefault((schema_name, what, row_id), []).append(value)
    for user in SHARED:
        for what, row_id, count in (
            ("auth_user", user, names[user]),
            ("auth_userprofile", profiles[user], goals[user]),
        ):
            assert came[SCHEMAS[KEEP], f"update {what}", row_id] == [str(n) for n in range(1, count + 1)]
    added, gone = (
        Counter(
            {key[0::2]: len(values) for key, values in came.items() if key[1] == f"{what} student_courseenrollment"}
        )
        for what in ("insert", "delete")
    )
    assert added == Counter(
        (SCHEMAS[course], row_id) for client in clients for row_id, course in client.log.enrollments
    )
    assert set(added.values()) == set(gone.values()) == {1}


@pytest.fixture
def lazy(pair: Pair) -> Pair:
    """A course server that writes its WAL late, unless a commit demands it: what it loses in a crash is certain."""
    with psycopg.connect(pair.server_dsn, autocommit=True) as conn:
        for setting in ("wal_writer_delay = '10s'", "wal_writer_flush_after = '1GB'", "autovacuum = off"):
            conn.execute(f"alter system set {setting}".encode())
        conn.execute("select pg_reload_conf()")
    return pair


def test_what_a_server_has_confirmed_outlives_its_crash_though_another_worker_confirmed_it(lazy: Pair) -> None:
    rename = "update portal.auth_user set first_name = %s where id = 1"
    with sited(lazy) as site:
        site.add()
        site.attach(KEEP)
        site.server.execute("checkpoint")
        site.portal.execute(rename, ["first"])
        end = asked(lazy.portal_dsn, "select pg_current_wal_flush_lsn()")
        until(lambda: site.is_equal(KEEP))
        # The next worker begins behind what its predecessor has applied, and confirms that at once.
        site.server.execute("select pg_terminate_backend(pid) from pg_stat_subscription where relid is null")
        until(lambda: site.portal.execute(
            "select active and confirmed_flush_lsn >= %s from pg_replication_slots", [end]).fetchall() == [(True,)]
        )  # fmt: skip
    kill_postmaster(lazy.server)
    with sited(lazy) as site:
        site.portal.execute("update portal.auth_user set first_name = 'second' where id = 2")
        site.wait()
        assert site.is_equal(KEEP)
