"""The scenarios of replication to other servers, 31 to 46, each under its number; docs/scenarios.md lists them."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.conftest import FAST
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result
from tests.replication.conftest import (
    QUICK,
    Db,
    Site,
    database,
    drop_slots,
    drop_subscriptions,
    older_bindir,
    private_server,
    remedy,
    until,
)
from tests.school import populate

POISON = "poison@example.org"  # an address that the course on the server refuses, see `refuse_poison`


def line(site: Site, course: str = KEEP) -> dict[str, Any]:
    """A course's line of `replication status`."""
    (found,) = (row for row in site.run("replication", "status", "--json").data if row["course"] == course)
    return dict(found)


def becomes(site: Site, state: str, course: str = KEEP) -> dict[str, Any]:
    """Wait until a course is in this state; return its line."""
    until(lambda: line(site, course)["state"] == state)
    return line(site, course)


def stands_still(site: Site) -> None:
    """Wait until the stream stands still."""
    until(lambda: site.server.execute("select not subenabled from pg_subscription where subdbid = "
          "(select oid from pg_database where datname = current_database())").fetchone() == (True,))  # fmt: skip


def slots(site: Site) -> list[str]:
    """The names of all slots on the portal."""
    return [row[0] for row in site.portal.execute("select slot_name from pg_replication_slots order by 1")]


def another_user(user_id: int) -> str:
    """The statement that makes a user of the course like ada, with another id."""
    return (
        f"insert into {KEEP_SCHEMA}.auth_user select (jsonb_populate_record(u, '{{\"id\": {user_id}}}')).* "
        f"from {KEEP_SCHEMA}.auth_user as u where username = 'ada'"
    )


def new_ids(site: Site) -> None:
    """Let the portal's own ids begin behind those that `populate` chose."""
    for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
        site.portal.execute(f"alter table portal.{table} alter column id restart with 1000")


def enroll(site: Site, count: int, course: str = KEEP) -> None:
    """Enroll new users, in one transaction."""
    with site.portal.transaction():
        site.portal.execute(
            "insert into portal.auth_user (username, email) select 'u' || n, 'u' || n || '@example.org' "
            "from (select max(id) from portal.auth_user) as last (id), generate_series(last.id, last.id + %s - 1) as n",
            [count],
        )  # fmt: skip
        site.portal.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) "
            "select id, %s from portal.auth_user order by id desc limit %s", [course, count],
        )  # fmt: skip


def count_arrivals(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let the course on the server note each user that it is brought, by first copy, apply or repair."""
    site.server.execute(
        f"""create table {schema}.arrival (user_id bigint, operation text);
        grant insert on {schema}.arrival to rollbook_owner;
        create function {schema}.note_arrival() returns trigger language plpgsql set search_path = pg_catalog as $$
        begin
            insert into {schema}.arrival values (coalesce(new.id, old.id), tg_op);
            return null;
        end $$;
        create trigger note_arrival after insert or update or delete on {schema}.auth_user
            for each row execute function {schema}.note_arrival();
        alter table {schema}.auth_user enable always trigger note_arrival"""
    )


def refuse_poison(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let the course on the server refuse one address."""
    site.server.execute(f"alter table {schema}.auth_user add constraint no_poison check (email <> '{POISON}')")


def allow_poison(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let it take that address again."""
    site.server.execute(f"alter table {schema}.auth_user drop constraint no_poison")


def kept_empty(site: Site) -> None:
    """Attach and detach the course, and leave its tables empty on the server: there a course can add to them."""
    site.add()
    site.attach(KEEP)
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    site.as_worker(f"truncate {KEEP_SCHEMA}.auth_user, {KEEP_SCHEMA}.auth_userprofile, "
                   f"{KEEP_SCHEMA}.student_courseenrollment")  # fmt: skip


@contextmanager
def writers(site: Site, count: int) -> Iterator[None]:
    """Let so many clients enroll, rename and remove users of the course until the end."""
    new_ids(site)
    end = threading.Event()
    failures: list[BaseException] = []
    done = [0] * count

    def write(number: int) -> None:
        try:
            with psycopg.connect(site.portal_dsn, autocommit=True) as conn:
                while not end.is_set():
                    name = f"w{number}_{done[number]}"
                    with conn.transaction():
                        row = conn.execute(
                            "insert into portal.auth_user (username, email) values (%s, %s) returning id",
                            [name, f"{name}@example.org"],
                        ).fetchone()
                        assert row is not None
                        conn.execute(
                            "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)",
                            [row[0], KEEP],
                        )
                    if done[number] % 3 == 0:
                        conn.execute("update portal.auth_user set first_name = 'changed' where id = %s", row)
                    done[number] += 1
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: bool(failures) or all(done))
        yield
        before = list(done)
        until(lambda: bool(failures) or all(now > then for now, then in zip(done, before, strict=True)))
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert failures == []


# --- 31, 32: the first copy -------------------------------------------------------------------------------------------


def test_31_changes_during_the_first_copy_arrive_once_each(site: Site) -> None:
    kept_empty(site)
    count_arrivals(site)
    with writers(site, 4):
        site.attach(KEEP)
    site.wait()
    assert site.is_equal(KEEP)
    inserted = [row[0] for row in site.server.execute(
        f"select user_id from {KEEP_SCHEMA}.arrival where operation = 'INSERT' order by 1")]  # fmt: skip
    assert inserted == [row[0] for row in site.copy(KEEP)]
    assert len(inserted) > 10


def test_32_a_constraint_breaks_the_first_copy_and_once_it_is_gone_the_copy_completes(site: Site) -> None:
    kept_empty(site)
    site.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    refuse_poison(site)
    broken = site.run("course", "attach", KEEP, "--to", "east", "--json")
    assert broken.code == 4
    assert "first copy to server east stopped" in broken.err
    assert f"rollbook replication show '{KEEP}'" in broken.err
    found = site.run("replication", "show", KEEP, "--json")
    assert found.code == 4
    assert (found.data["error"]["table"], found.data["error"]["operation"], found.data["error"]["sqlstate"]) == (
        "auth_user", "copy", "23514"
    )  # fmt: skip
    assert "no_poison" in found.data["error"]["message"]
    allow_poison(site)
    site.attach(KEEP)
    assert site.is_equal(KEEP)
    assert slots(site) == ["rollbook_east"]
    assert site.states()[KEEP] == "ok"


def test_32_resume_refuses_while_the_first_copy_cannot_be_done_and_completes_it_then(site: Site) -> None:
    kept_empty(site)
    site.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    refuse_poison(site)
    assert site.run("course", "attach", KEEP, "--to", "east").code == 4
    refused = site.run("replication", "resume", KEEP)
    assert refused.code == 1
    assert "cannot copy auth_user" in refused.err
    assert "23514" in refused.err
    allow_poison(site)
    site.ok("replication", "resume", KEEP)
    until(lambda: site.is_equal(KEEP))
    becomes(site, "copying")  # it has arrived, and was not compared yet
    site.ok("replication", "verify", KEEP)
    assert site.states()[KEEP] == "ok"
    assert slots(site) == ["rollbook_east"]


# --- 33, 34, 35: what the server cannot take --------------------------------------------------------------------------


def test_33_a_row_with_the_same_key_is_counted_named_everywhere_and_gone_by_the_printed_command(
    streaming: Site,
) -> None:
    streaming.as_worker(another_user(104))
    streaming.portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP]
    )
    stands_still(streaming)
    found = becomes(streaming, "broken")
    for word in ("insert auth_user row 104", "23505", "auth_user_pkey"):
        assert word in found["reason"]
    assert found["error_count"] >= 1
    shown = streaming.run("replication", "show", KEEP, "--json").data["error"]
    assert (shown["course"], shown["table"], shown["key"], shown["sqlstate"]) == (KEEP, "auth_user", "104", "23505")
    listed = streaming.run("replication", "conflicts", "--json")
    assert listed.code == 4
    (now,) = (row for row in listed.data if row["kind"] != "counted")
    assert (now["course"], now["table"], now["key"], now["sqlstate"]) == (KEEP, "auth_user", "104", "23505")
    assert "auth_user_pkey" in now["message"]
    counted = {row["message"]: row["count"] for row in listed.data if row["kind"] == "counted"}
    assert counted["apply errors"] >= 1
    if streaming.server.info.server_version >= 180000:
        assert counted["insert exists"] >= 1
    assert found["fix"] == now["resolution"]
    assert remedy(streaming, found["fix"]).code == 0
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def test_34_a_dropped_column_is_named_with_its_remedy_and_apply_goes_on_once_it_is_back(streaming: Site) -> None:
    streaming.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop column email cascade")
    streaming.portal.execute("update portal.auth_user set first_name = 'Ada' where username = 'ada'")
    stands_still(streaming)
    found = line(streaming)
    assert (found["course"], found["state"]) == (KEEP, "broken")
    assert "auth_user: email" in found["reason"]
    shown = streaming.run("replication", "show", KEEP, "--json").data
    assert {row["table"]: row["lacking"] for row in shown["tables"]}["auth_user"] == ["email"]
    assert found["fix"] == f"rollbook replication show '{KEEP}'"
    mend = f"alter table {KEEP_SCHEMA}.auth_user add column email character varying(254)"
    assert mend in shown["fix"]
    assert f"rollbook replication resume '{KEEP}'" in shown["fix"]
    assert streaming.run("replication", "resume", KEEP).code == 1  # refused while it is not mended
    streaming.server.execute(mend)
    streaming.ok("replication", "resume", KEEP)
    streaming.wait()
    assert streaming.run("replication", "verify", KEEP).code == 4  # what the column held is gone
    streaming.ok("replication", "repair", KEEP, "--yes")
    streaming.portal.execute("update portal.auth_user set email = 'again@example.org' where username = 'ada'")
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def stream_early(site: Site) -> None:
    """Let the portal send large transactions while they are still open."""
    name = sql.Identifier(site.portal.info.dbname)
    site.portal.execute(sql.SQL("alter database {} set logical_decoding_work_mem = '64kB'").format(name))


@contextmanager
def streamed(site: Site) -> Iterator[None]:
    """Wait until a part of the transaction written inside has been sent; it must still be open."""
    query = "select stream_count from pg_stat_replication_slots where slot_name = 'rollbook_east'"
    with psycopg.connect(site.portal_dsn, autocommit=True) as observer:
        before = observer.execute(query).fetchone() or (0,)
        yield
        until(lambda: (observer.execute(query).fetchone() or (0,)) > before)


def skip_the_poisoned(site: Site, write: Callable[[], None]) -> None:
    """Write a transaction that the server refuses and one behind it, skip the first, and repair in the end."""
    refuse_poison(site)
    write()
    site.portal.execute("update portal.auth_user set first_name = 'later' where username = 'ada'")
    stands_still(site)
    found = site.run("replication", "show", KEEP, "--json").data
    error = found["error"]
    assert (error["table"], error["sqlstate"]) == ("auth_user", "23514")
    assert f"--skip {error['lsn']}" in found["fix"]
    for wrong in ("0/1", f"{error['lsn'][:-1]}{'0' if error['lsn'][-1] != '0' else '1'}"):
        refused = site.run("replication", "resume", KEEP, "--skip", wrong)
        assert refused.code == 1
        assert error["lsn"] in refused.err
    assert line(site)["state"] == "broken"
    site.ok("replication", "resume", KEEP, "--skip", error["lsn"])
    site.wait()
    names = {row[2] for row in site.copy(KEEP)}
    assert "later" in names
    assert "poisoned" not in names
    allow_poison(site)
    assert site.run("replication", "verify", KEEP).code == 4
    site.ok("replication", "repair", KEEP, "--yes")
    assert "poisoned" in {row[2] for row in site.copy(KEEP)}
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def test_35_a_poisoned_plain_transaction_is_skipped_by_its_lsn_and_later_ones_apply(streaming: Site) -> None:
    def write() -> None:
        with streaming.portal.transaction():
            streaming.portal.execute("update portal.auth_user set first_name = 'poisoned' where username = 'bob'")
            streaming.portal.execute("update portal.auth_user set email = %s where username = 'bob'", [POISON])

    skip_the_poisoned(streaming, write)


def test_35_a_poisoned_streamed_transaction_is_skipped_by_its_lsn_and_later_ones_apply(site: Site) -> None:
    stream_early(site)
    site.add()
    site.attach(KEEP, REMOVE)
    new_ids(site)

    def write() -> None:
        with site.portal.transaction():
            with streamed(site):
                enroll(site, 300)
            site.portal.execute(
                "update portal.auth_user set first_name = 'poisoned', email = %s where id = 102", [POISON]
            )

    skip_the_poisoned(site, write)


# --- 38: a cut connection ---------------------------------------------------------------------------------------------

WALSENDER = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'rollbook_east'"
APPLY_WORKER = "select pg_terminate_backend(pid) from pg_stat_subscription where subname = 'rollbook_east'"


def is_stuck(site: Site) -> bool:
    """Say whether the server's apply worker waits for a lock."""
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() "
        "and backend_type like 'logical replication%' and wait_event_type = 'Lock')"
    )
    return site.server.execute(query).fetchone() == (True,)


def cut_inside(site: Site, victim: str, write: Callable[[], None]) -> None:
    """Write a transaction, and cut its connection when the server has applied a part of it."""
    with psycopg.connect(site.server_dsn) as blocker:
        blocker.execute(f"select from {KEEP_SCHEMA}.auth_user where username = 'bob' for update")
        write()
        until(lambda: is_stuck(site))
        if "walsender" in victim:
            site.portal.execute(WALSENDER)
        if "apply worker" in victim:
            site.server.execute(APPLY_WORKER)
    go_on(site)


def go_on(site: Site) -> None:
    """Wait until the stream goes on, or set it going as the program says."""
    until(lambda: line(site)["state"] in ("ok", "broken"))
    if (found := line(site))["state"] == "broken":
        assert remedy(site, found["fix"]).code == 0
    site.wait()


VICTIMS = ("walsender", "apply worker", "walsender and apply worker")


def test_38_a_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    new_ids(site)
    count_arrivals(site)

    def write() -> None:
        with site.portal.transaction():
            enroll(site, 20)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, victim, write)
    assert_each_came_once(site, 120, "+++")


def test_38_a_streamed_transaction_whose_connection_was_cut_inside_it_is_applied_once(site: Site) -> None:
    stream_early(site)
    site.add()
    site.attach(KEEP)
    new_ids(site)
    count_arrivals(site)

    def write() -> None:
        with site.portal.transaction():
            with streamed(site):
                enroll(site, 300)
            site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'bob'")
            enroll(site, 20)

    for victim in VICTIMS:
        cut_inside(site, victim, write)
    with site.portal.transaction():  # and once before the server has all of it
        with streamed(site):
            enroll(site, 300)
        site.portal.execute(WALSENDER)
        enroll(site, 20)
    go_on(site)
    assert_each_came_once(site, 1280, "+++")


def assert_each_came_once(site: Site, count: int, bob: str) -> None:
    """Assert that so many users came, none twice, and that bob was changed as often as he should."""
    arrived = site.server.execute(
        f"select count(*), count(distinct user_id) from {KEEP_SCHEMA}.arrival where operation = 'INSERT'"
    ).fetchone()
    assert arrived == (count, count)
    assert site.server.execute(f"select last_name from {KEEP_SCHEMA}.auth_user where username = 'bob'").fetchone() == (
        bob,
    )
    assert site.is_equal(KEEP)
    assert site.run("replication", "verify", KEEP).code == 0


def test_38_a_stream_whose_connection_was_cut_goes_on_by_itself(streaming: Site) -> None:
    for on, victim in ((streaming.server, APPLY_WORKER), (streaming.portal, WALSENDER)):
        on.execute(victim.encode())
        streaming.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'ada'")
        until(lambda: set(streaming.states().values()) == {"ok"} and streaming.is_equal(KEEP), 10)


def test_38_a_stream_goes_on_by_itself_when_the_portal_was_restarted(own: Callable[..., Own]) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    site.here.stop()
    site.again()
    site.portal.execute("update portal.auth_user set last_name = last_name || '+' where username = 'ada'")
    until(lambda: site.states() == {KEEP: "ok", REMOVE: "ok"} and site.is_equal(KEEP), 10)


# --- 39, 43: what flows where, and what fires -------------------------------------------------------------------------


def test_39_a_portal_is_refused_as_a_server_so_that_no_ring_can_be_made(
    streaming: Site, course_server: PrivateServer
) -> None:
    with database(course_server) as other:
        schema.upgrade(other)
        for where, words in ((streaming.portal_dsn, "the portal's own database"), (other, "is a portal itself")):
            refused = streaming.run("server", "add", "west", "--admin-dsn", where,
                                    "--subscription-dsn", streaming.portal_dsn)  # fmt: skip
            assert refused.code == 1
            assert words in refused.err
    assert slots(streaming) == ["rollbook_east"]
    assert streaming.ok("server", "list", "--json").column("server") == ["east"]


def test_39_a_server_that_another_portal_feeds_is_refused_under_the_same_name_too(
    streaming: Site, course_server: PrivateServer
) -> None:
    with second_portal(course_server) as other:
        for name in ("east", "west"):
            refused = streaming.call("server", "add", name, "--admin-dsn", streaming.server_dsn,
                                     "--subscription-dsn", other, "-d", other)  # fmt: skip
            assert refused.code == 1
            assert "fed already" in refused.err
            with psycopg.connect(other) as conn:
                assert conn.execute("select count(*) from rollbook.server").fetchone() == (0,)
                assert (
                    conn.execute(
                        "select slot_name from pg_replication_slots where database = current_database()"
                    ).fetchall()
                    == []
                )
    streaming.portal.execute("update portal.auth_user set first_name = 'still' where username = 'ada'")
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def test_39_what_a_server_publishes_on_itself_goes_no_further_with_origin_none(
    streaming: Site, course_server: PrivateServer
) -> None:
    """Rows that came from the portal are re-published to whoever asks for any origin, from 16 on not for none."""
    server = streaming.server
    server.execute(f"create publication further for table {KEEP_SCHEMA}.auth_user")
    origins = ("any", "none") if server.info.server_version >= 160000 else ("any",)
    with ExitStack() as stack:
        third = {}
        for origin in origins:
            where = stack.enter_context(database(course_server))
            third[origin] = stack.enter_context(psycopg.connect(where, autocommit=True))
            third[origin].execute(f"create schema {KEEP_SCHEMA}")
            third[origin].execute(f"create table {KEEP_SCHEMA}.auth_user (like pg_catalog.pg_class)".replace(
                "(like pg_catalog.pg_class)", "(id bigint primary key, username text, first_name text, last_name text, "
                "email text, password text, is_staff boolean, is_active boolean, is_superuser boolean, "
                "last_login timestamptz, date_joined timestamptz)"))  # fmt: skip
            name = f"further_{origin}_{third[origin].info.dbname}"
            server.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
            stack.callback(drop_slots, server)
            stack.callback(drop_subscriptions, third[origin])
            options = f"create_slot = false, slot_name = '{name}', copy_data = false"
            options += f", origin = {origin}" if len(origins) == 2 else ""
            third[origin].execute(
                f"create subscription {name} connection '{streaming.server_dsn}' publication further with ({options})"
            )
        streaming.portal.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) values (103, %s)", [KEEP]
        )
        streaming.wait()
        streaming.as_worker(another_user(999))  # the server's own, which both are sent: the fence
        for conn in third.values():
            until(partial(has, conn, 999))
        assert ids(third["any"]) == [(103,), (999,)]
        if "none" in third:
            assert ids(third["none"]) == [(999,)]
    assert streaming.portal.execute("select count(*) from pg_subscription where subdbid = "
           "(select oid from pg_database where datname = current_database())").fetchone() == (0,)  # fmt: skip
    assert streaming.copy(KEEP, on=streaming.portal) == streaming.copy(KEEP)[:-1]  # nothing came back


def has(conn: Db, user_id: int) -> bool:
    """Say whether the course has a user."""
    return (user_id,) in ids(conn)


def ids(conn: Db) -> list[tuple[Any, ...]]:
    """The ids of a course's users."""
    return conn.execute(f"select id from {KEEP_SCHEMA}.auth_user order by 1").fetchall()


@contextmanager
def second_portal(server: PrivateServer) -> Iterator[str]:
    """Make another portal, empty, in another cluster than the first, and leave no slot of it."""
    with database(server) as where:
        schema.upgrade(where)
        with psycopg.connect(where, autocommit=True) as conn:
            yield where
            drop_slots(conn)


def test_43_statement_triggers_on_the_server_fire_on_the_first_copy_and_not_on_apply(site: Site) -> None:
    kept_empty(site)
    site.server.execute(
        f"""create table {KEEP_SCHEMA}.fired (name text);
        grant insert on {KEEP_SCHEMA}.fired to rollbook_owner;
        create function {KEEP_SCHEMA}.note() returns trigger language plpgsql as $$
        begin
            insert into {KEEP_SCHEMA}.fired values (tg_name);
            return null;
        end $$"""
    )
    for level in ("statement", "row"):
        for when in ("origin", "replica", "always"):
            name = f"{level}_{when}"
            site.server.execute(
                f"create trigger {name} after insert on {KEEP_SCHEMA}.auth_user "
                f"for each {level} execute function {KEEP_SCHEMA}.note()"
            )
            if when != "origin":
                site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user enable {when} trigger {name}")

    def fired() -> dict[str, int]:
        found = site.server.execute(f"select name, count(*) from {KEEP_SCHEMA}.fired group by 1").fetchall()
        site.server.execute(f"truncate {KEEP_SCHEMA}.fired")
        return dict(found)

    site.attach(KEEP)
    assert fired() == {"statement_replica": 1, "statement_always": 1, "row_replica": 2, "row_always": 2}
    site.portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) values (103, %(c)s), (104, %(c)s)",
        {"c": KEEP},
    )
    site.wait()
    assert fired() == {"row_replica": 2, "row_always": 2}
    assert site.is_equal(KEEP)


# --- servers of one's own, which can be stopped, copied and set otherwise ---------------------------------------------


@dataclass
class Own(Site):
    """A site whose portal, and perhaps whose course server, is a PostgreSQL server of the test's own."""

    here: PrivateServer = field(kw_only=True)
    there: PrivateServer = field(kw_only=True)

    def again(self) -> None:
        """Start what is down and connect anew."""
        for server in (self.here, self.there):
            server.start()
        self.portal.close()
        self.server.close()
        self.portal = psycopg.connect(self.portal_dsn, autocommit=True)
        self.server = psycopg.connect(self.server_dsn, autocommit=True)


def copied(data: Path, to: PrivateServer) -> None:
    """Put the data directory of a stopped server, or a backup, in the place of another server's."""
    if not to.home.exists():
        to._make_home()
    to.stop("immediate")
    shutil.rmtree(to.data, ignore_errors=True)
    subprocess.run(["cp", "-a", str(data), str(to.data)], check=True)
    settings = {**to.settings, "unix_socket_directories": str(to.home)}
    with (to.data / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


@pytest.fixture(scope="module")
def seeds() -> Iterator[tuple[Path, Path]]:
    """The data directories of a portal with the platform of `populate`, and of an empty course server."""
    with (
        private_server({**FAST, "max_prepared_transactions": "4"}) as portal,
        private_server({**FAST, **QUICK, "wal_receiver_status_interval": "1"}) as server,
    ):
        for each in (portal, server):
            with psycopg.connect(each.dsn(), autocommit=True) as conn:
                conn.execute("create database site template template0")
        schema.upgrade(portal.dsn("site"))
        with psycopg.connect(portal.dsn("site"), autocommit=True) as conn:
            populate(conn)
        portal.stop()
        server.stop()
        yield portal.data, server.data


@pytest.fixture
def place() -> Iterator[Callable[..., PrivateServer]]:
    """Make places for servers of a test's own; what stands there is taken away in the end."""
    with ExitStack() as stack:

        def make(data: Path | None = None, bindir: Path | None = None, **settings: str) -> PrivateServer:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-test-", ignore_cleanup_errors=True))
            Path(folder).chmod(0o755)
            server = PrivateServer(Path(folder) / "pg", settings={**FAST, **settings}, bindir=bindir or find_bindir())
            stack.callback(server.remove)
            if data is not None:
                copied(data, server)
                server.start()
            return server

        yield make


@pytest.fixture
def own(
    seeds: tuple[Path, Path], place: Callable[..., PrivateServer], call: Callable[..., Result]
) -> Iterator[Callable[..., Own]]:
    """Make a site of two servers of the test's own; settings are the portal's."""
    made: list[Own] = []

    def make(**settings: str) -> Own:
        here, there = place(seeds[0], **settings), place(seeds[1])
        sessions = [psycopg.connect(server.dsn("site"), autocommit=True) for server in (here, there)]
        site = Own(sessions[0], here.dsn("site"), sessions[1], there.dsn("site"), call, here=here, there=there)
        new_ids(site)
        made.append(site)
        return site

    yield make
    for site in made:
        site.portal.close()
        site.server.close()


@pytest.mark.slow
def test_35_a_poisoned_prepared_transaction_is_skipped_by_its_lsn_and_later_ones_apply(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)

    def write() -> None:
        site.portal.execute("begin")
        site.portal.execute("update portal.auth_user set first_name = 'poisoned' where username = 'bob'")
        site.portal.execute("update portal.auth_user set email = %s where username = 'bob'", [POISON])
        site.portal.execute("prepare transaction 'poisoned'")
        site.wait()
        assert "poisoned" not in {row[2] for row in site.copy(KEEP)}
        site.portal.execute("commit prepared 'poisoned'")

    skip_the_poisoned(site, write)


# --- 36, 40: a server that is down ------------------------------------------------------------------------------------


def alarm(site: Site) -> str | None:
    """The alarm of the server's slot."""
    found = site.run("replication", "slots", "--json")
    assert found.code == (4 if found.row["alarm"] else 0)
    return cast("str | None", found.row["alarm"])


def all_clear(site: Site) -> bool:
    """Let the portal note how far it may forget; say whether no slot raises an alarm."""
    site.portal.execute("checkpoint")
    return alarm(site) is None


def fill_wal(site: Site, wanted: str) -> list[str | None]:
    """Write WAL until the slot raises this alarm; return the alarms on the way."""
    seen = []
    for _ in range(100):
        seen.append(alarm(site))
        if seen[-1] == wanted:
            return list(dict.fromkeys(seen))
        site.portal.execute(
            "select pg_logical_emit_message(false, '', repeat('x', 1000000)) from generate_series(1, 6)"
        )
        if wanted == "lost":
            site.portal.execute("checkpoint")
    raise AssertionError(f"no alarm {wanted}: {seen}")


@contextmanager
def reader(site: Site) -> Iterator[list[int]]:
    """Count the course's users on the server all the time; the least that was seen stands in the list in the end."""
    least: list[int] = []
    end = threading.Event()

    def read() -> None:
        counts = []
        with psycopg.connect(site.server_dsn, autocommit=True) as conn:
            while not end.is_set():
                (count,) = conn.execute(f"select count(*) from {KEEP_SCHEMA}.auth_user").fetchone() or (0,)
                counts.append(count)
        least.append(min(counts))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield least
    finally:
        end.set()
        thread.join()


@pytest.mark.slow
def test_36_an_alarm_comes_before_the_slot_of_a_server_that_is_down_is_lost_and_courses_are_rebuilt_one_by_one(
    own: Callable[..., Own],
) -> None:
    site = own(max_slot_wal_keep_size="32MB")
    site.add()
    site.attach(KEEP, REMOVE)
    enroll(site, 50)
    site.wait()
    site.there.stop()
    assert fill_wal(site, "near") == [None, "near"]
    assert "before the slot is lost" in site.run("replication", "slots").err
    site.again()  # in time: nothing was lost
    site.wait()
    until(lambda: all_clear(site))
    assert set(site.states().values()) == {"ok"}
    site.there.stop()
    site.portal.execute("delete from portal.auth_user where id >= 1000 and id % 10 = 0")
    site.portal.execute("update portal.auth_user set first_name = 'away' where id in (101, 102)")
    enroll(site, 20)
    assert fill_wal(site, "lost") == [None, "near", "lost"]
    site.again()
    for found in site.run("replication", "status", "--json").data:
        assert found["state"] == "broken"
        assert "slot was lost" in found["reason"]
        assert found["fix"] == f"rollbook replication resync '{found['course']}'"
    neighbour = site.copy(REMOVE)
    with reader(site) as least:
        assert remedy(site, f"rollbook replication resync '{KEEP}'").code == 0
    assert least[0] >= 47
    assert site.is_equal(KEEP)
    assert site.states() == {REMOVE: "unknown", KEEP: "ok"}
    assert site.copy(REMOVE) == neighbour
    assert not site.is_equal(REMOVE)
    assert remedy(site, line(site, REMOVE)["fix"]).code == 0
    assert site.is_equal(REMOVE)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def left_on_portal(site: Site) -> list[Any]:
    """The slots, publications and walsenders on the portal."""
    return site.portal.execute(
        "select slot_name::text from pg_replication_slots union all select pubname from pg_publication "
        "union all select application_name from pg_stat_replication"
    ).fetchall()


def test_40_a_course_and_its_server_that_is_gone_are_dropped_and_the_portal_keeps_nothing_of_them(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    site.there.stop("immediate")
    before = sorted(left_on_portal(site))
    for command in (("course", "detach", KEEP), ("server", "remove", "east")):
        assert site.run(*command, "--yes").code in (1, 3)
    refused = site.run("course", "delete", KEEP, "--confirm", KEEP)
    assert refused.code == 1
    assert "on server east" in refused.err
    assert {("rollbook_east",)} <= set(before)
    assert set(site.states().values()) == {"unreachable"}
    detached = site.run("course", "detach", KEEP, "--unreachable", "--yes", "--json")
    assert (detached.code, detached.row["outcome"]) == (5, f"left there: schema {KEEP_SCHEMA}")
    site.ok("course", "delete", KEEP, "--confirm", KEEP)
    removed = site.run("server", "remove", "east", "--unreachable", "--yes", "--json")
    assert removed.code == 5
    assert {row["what"] for row in removed.data if row["outcome"] == "left there"} == {
        "subscription on the server", f"schema {REMOVE_SCHEMA} on the server", "schema rollbook on the server"
    }  # fmt: skip
    assert "drop subscription rollbook_east" in removed.err
    assert left_on_portal(site) == []
    assert site.states() == {REMOVE: "ok"}
    assert site.portal.execute("select count(*) from rollbook.server").fetchone() == (0,)


def test_40_a_server_that_only_we_cannot_reach_loses_its_walsender_and_does_not_come_back(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    site.portal.execute("update rollbook.server set admin_dsn = 'host=/nowhere dbname=site'")
    assert site.run("server", "remove", "east", "--unreachable", "--yes").code == 5
    assert left_on_portal(site) == []
    site.portal.execute("update portal.auth_user set first_name = 'alone' where username = 'ada'")
    until(lambda: site.server.execute("select count(*) from pg_stat_activity where datname = current_database() "
                                      "and backend_type like 'logical replication%'").fetchone() == (0,))  # fmt: skip
    assert left_on_portal(site) == []


# --- 41: a promoted standby -------------------------------------------------------------------------------------------


def standby_of(site: Own, place: Callable[..., PrivateServer], **settings: str) -> PrivateServer:
    """Make a standby of the portal, which follows it by a slot of its own."""
    standby = place()
    standby._make_home()
    site.portal.execute("select pg_create_physical_replication_slot('standby', true)")
    site.here._run("pg_basebackup", "-d", site.here.dsn(), "-D", str(site.here.home / "backup"), "-X", "stream",
                   "-c", "fast", "-S", "standby")  # fmt: skip
    (site.here.home / "backup").rename(site.here.home / "standby")
    standby.settings = {
        "primary_conninfo": f"{site.here.dsn('site')} application_name=standby", "primary_slot_name": "standby",
        "hot_standby_feedback": "on", "wal_retrieve_retry_interval": "100ms", **settings,
    }  # fmt: skip
    copied(site.here.home / "standby", standby)
    (standby.data / "standby.signal").touch()
    standby.start()
    return standby


def fed_through(site: Own, standby_home: Path) -> None:
    """Add the server by a route that leads to whichever of the two is the primary; attach a course."""
    route = (
        f"host={site.here.home},{standby_home} port=5432,5432 dbname=site user=postgres target_session_attrs=primary"
    )
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", route)
    site.attach(KEEP)


def fail_over(site: Own, standby: PrivateServer) -> None:
    """Lose the primary, and let its standby take over."""
    site.here.stop("immediate")
    standby._run("pg_ctl", "-D", str(standby.data), "-w", "promote")
    site.here, site.portal_dsn = standby, standby.dsn("site")
    site.again()


@pytest.mark.slow
def test_41_copies_go_on_from_a_promoted_standby_whose_readiness_was_provable(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    if site.portal.info.server_version < 170000:
        pytest.skip("a slot is carried over to a standby from PostgreSQL 17 on; below, the next test is what happens")
    standby = standby_of(site, place, sync_replication_slots="on")
    site.add()
    site.attach(KEEP)
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:
        ready = ("select count(*) from pg_replication_slots where slot_name = 'rollbook_east' and failover and synced "
                 "and not temporary and invalidation_reason is null")  # fmt: skip

        def is_ready() -> bool:
            site.run("replication", "canary")  # something happens on a portal
            return conn.execute(ready.encode()).fetchone() == (1,)

        until(is_ready)
        site.portal.execute("update portal.auth_user set first_name = 'before' where username = 'ada'")
        site.wait()
        until(
            lambda: conn.execute("select count(*) from portal.auth_user where first_name = 'before'").fetchone() == (1,)
        )
    fail_over(site, standby)
    site.portal.execute("update portal.auth_user set first_name = 'after' where username = 'bob'")
    assert line(site)["state"] in ("lagging", "broken")  # the server still looks for the old primary
    refused = site.run("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)
    assert refused.code == 1
    assert "--take-over" in refused.err
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
            "--take-over")  # fmt: skip
    site.wait()
    assert [row[2] for row in site.copy(KEEP)] == ["before", "after"]
    assert site.run("replication", "verify", KEEP).code == 0
    assert line(site)["state"] == "ok"


@pytest.mark.slow
def test_41_a_promoted_standby_without_the_slot_says_so_and_resync_brings_each_course_back(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    site = own()
    standby = standby_of(site, place)
    fed_through(site, standby.home)
    site.portal.execute("update portal.auth_user set first_name = 'before' where username = 'ada'")
    site.wait()
    with psycopg.connect(standby.dsn("site"), autocommit=True) as conn:
        until(
            lambda: conn.execute("select count(*) from portal.auth_user where first_name = 'before'").fetchone() == (1,)
        )
    fail_over(site, standby)
    site.portal.execute("update portal.auth_user set first_name = 'after' where username = 'bob'")
    found = line(site)
    assert (found["state"], found["fix"]) == ("broken", f"rollbook replication resync '{KEEP}'")
    assert "its slot is gone" in found["reason"]
    assert remedy(site, found["fix"]).code == 0
    assert [row[2] for row in site.copy(KEEP)] == ["before", "after"]
    assert line(site)["state"] == "ok"


# --- 42: restored from an older backup --------------------------------------------------------------------------------


def later(site: Site, word: str) -> None:
    """Change, add and remove users, as goes on after a backup; each heartbeat of a command stands among it."""
    site.portal.execute("update portal.auth_user set first_name = %s where username = 'ada'", [word])
    enroll(site, 5)
    site.run("replication", "canary")
    site.portal.execute("delete from portal.student_courseenrollment where user_id = 102")
    enroll(site, 5, REMOVE)
    site.run("replication", "canary")
    site.wait()


def comes_back(site: Site) -> None:
    """Bring back both courses, which are not called well before, and see them follow the portal again."""
    enroll(site, 1)  # bears the id of one that the server may still have
    assert "ok" not in site.states().values()
    resynced = site.run("replication", "resync", KEEP, REMOVE, "--yes")
    assert resynced.code == 0, resynced
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def backup(server: PrivateServer) -> Path:
    """Stop a server and copy its data directory."""
    server.stop()
    subprocess.run(["cp", "-a", str(server.data), str(server.home / "backup")], check=True)
    return server.home / "backup"


@pytest.mark.slow
def test_42_a_portal_restored_with_its_slots_is_seen_to_be_behind_and_resync_makes_the_server_follow(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    data = backup(site.here)
    site.again()
    go_on(site)
    later(site, "lost")
    assert len(site.copy(KEEP)) == 7
    site.here.stop()
    copied(data, site.here)
    site.again()
    assert site.run("replication", "wait", "--timeout", "1").code == 3  # a heartbeat of that number is there: another's
    assert site.run("replication", "canary", "--timeout", "1").code in (3, 4)
    assert site.run("replication", "verify", "--timeout", "1").code in (3, 4)
    comes_back(site)


@pytest.mark.slow
def test_42_a_portal_restored_with_its_slots_is_seen_to_be_behind_where_no_heartbeat_tells(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    data = backup(site.here)
    site.again()
    go_on(site)
    enroll(site, 200)
    until(lambda: site.is_equal(KEEP))
    site.here.stop()
    copied(data, site.here)
    site.again()
    found = line(site)
    assert found["state"] == "unknown"
    assert "never sent" in found["reason"]
    assert found["fix"] == f"rollbook replication resync '{KEEP}'"
    assert remedy(site, found["fix"]).code == 0
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"


@pytest.mark.slow
def test_42_a_portal_restored_without_its_slots_is_seen_to_have_lost_them_and_resync_makes_the_server_follow(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    site.here._run("pg_basebackup", "-d", site.here.dsn(), "-D", str(site.here.home / "backup"), "-c", "fast")
    enroll(site, 5)
    site.wait()
    site.here.stop()
    copied(site.here.home / "backup", site.here)
    site.again()
    found = line(site)
    assert found["state"] == "broken"
    assert "its slot is gone" in found["reason"]
    enroll(site, 2)
    assert remedy(site, found["fix"]).code == 0
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"


def put_back(site: Own, data: Path) -> None:
    """Restore the course server from an older copy, when the portal knows that it had got all."""
    until(
        lambda: (
            site.portal.execute(
                "select bool_and(confirmed_flush_lsn >= pg_current_wal_insert_lsn()) from pg_replication_slots"
            ).fetchone()
            == (True,)
        )
    )
    site.there.stop()
    copied(data, site.there)
    site.again()


@pytest.mark.slow
def test_42_a_server_restored_from_an_older_copy_is_unknown_and_resync_brings_back_what_it_missed(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    data = backup(site.there)
    site.again()
    later(site, "missed")
    put_back(site, data)
    site.wait()
    assert not site.is_equal(KEEP)
    found = line(site)
    assert found["state"] == "unknown"
    assert "heartbeats never arrived" in found["reason"]
    assert found["fix"] == f"rollbook replication resync '{KEEP}'"
    comes_back(site)


@pytest.mark.slow
def test_42_what_a_restored_server_missed_between_two_heartbeats_is_found_by_verify_and_repaired(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP)
    data = backup(site.there)
    site.again()
    enroll(site, 5)
    until(lambda: site.is_equal(KEEP))
    put_back(site, data)
    assert site.run("replication", "verify", KEEP).code == 4
    assert line(site)["state"] == "drifted"
    site.ok("replication", "repair", KEEP, "--yes")
    assert site.is_equal(KEEP)
    assert line(site)["state"] == "ok"


# --- 45, 46: dumped and restored, upgraded ----------------------------------------------------------------------------


def dumped(server: PrivateServer, dbname: str) -> Path:
    """Dump a database with pg_dump, as its DBA would."""
    file = server.home / f"{dbname}.dump"
    server._run("pg_dump", "-Fc", "-f", str(file), "-d", server.dsn(dbname))
    return file


def restored(file: Path, server: PrivateServer, dbname: str) -> None:
    """Restore it into a new database of the same name."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(dbname)))
    server._run("pg_restore", "-d", server.dsn(dbname), str(file))


def gone(site: Own, server: PrivateServer) -> None:
    """Lose the site's database on a server; a lost one cannot tell the other side."""
    server_is_portal = server is site.here
    with psycopg.connect(server.dsn("site"), autocommit=True) as conn:
        if server_is_portal:
            drop_slots(conn)
        else:
            drop_subscriptions(conn)
    (site.portal if server_is_portal else site.server).close()
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("drop database site with (force)")


@pytest.mark.slow
def test_45_a_portal_restored_from_a_dump_is_a_copy_until_it_takes_over_and_then_all_is_right_again(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    file = dumped(site.here, "site")
    later(site, "lost")
    gone(site, site.here)
    restored(file, site.here, "site")
    site.again()
    assert set(site.states().values()) == {"unknown"}
    assert "copy of the portal" in line(site)["reason"]
    refused = site.run("replication", "resync", KEEP, "--yes")
    assert refused.code == 1
    assert "--take-over" in refused.err
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
            "--take-over")  # fmt: skip
    assert site.run("schema", "check").code == 0  # functions, triggers, guards, column lists
    comes_back(site)


@pytest.mark.slow
def test_45_a_server_whose_database_was_restored_from_a_dump_gets_its_stream_back_by_resync(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column points int not null default 7")
    file = dumped(site.there, "site")
    later(site, "missed")
    gone(site, site.there)
    restored(file, site.there, "site")
    site.again()
    assert "ok" not in site.states().values()
    for course in (KEEP, REMOVE):
        resynced = remedy(site, f"rollbook replication resync '{course}'")
        assert resynced.code == 0, resynced
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    assert site.server.execute(f"select distinct points from {KEEP_SCHEMA}.auth_user").fetchall() == [(7,)]
    with pytest.raises(psycopg.Error, match="is a copy"):
        site.server.execute(f"delete from {KEEP_SCHEMA}.auth_user")
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert slots(site) == ["rollbook_east"]


# --- 44: rights -------------------------------------------------------------------------------------------------------


def with_roles(site: Own) -> None:
    """Let the portal be read by a login with a password, and the server be run by somebody who is no superuser."""
    site.portal.execute("create role feeder login replication password 'secret'; grant pg_read_all_data to feeder")
    hba = site.here.data / "pg_hba.conf"
    hba.write_text("local all feeder scram-sha-256\n" + hba.read_text())
    site.portal.execute("select pg_reload_conf()")
    site.server.execute(
        "create role rollbook_owner nologin; create role operator login; grant rollbook_owner to operator; "
        "grant create on database site to operator"
    )


def add_as_operator(site: Own) -> Result:
    """Add the server through these two."""
    return site.run(
        "server", "add", "east", "--admin-dsn", site.server_dsn.replace("user=postgres", "user=operator"),
        "--subscription-dsn", site.portal_dsn.replace("user=postgres", "user=feeder password=secret"),
    )  # fmt: skip


def test_44_who_is_no_superuser_is_refused_by_name_of_the_right_and_nothing_is_left(own: Callable[..., Own]) -> None:
    site = own()
    with_roles(site)
    for _ in range(2):
        refused = add_as_operator(site)
        assert refused.code == 3
        assert "the role on server east may not make a subscription" in refused.err
        assert "pg_create_subscription" in refused.err
        assert "secret" not in refused.out + refused.err
        assert site.remains() == []


def test_44_who_is_no_superuser_may_run_a_server_from_16_on_with_the_rights_in_the_manual(
    own: Callable[..., Own],
) -> None:
    site = own()
    if site.server.info.server_version < 160000:
        pytest.skip("PostgreSQL 15 lets superusers alone make subscriptions; the test above shows the refusal")
    with_roles(site)
    site.server.execute("grant pg_create_subscription to operator")
    added = add_as_operator(site)
    assert added.code == 0, added
    site.attach(KEEP, REMOVE)
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.run("replication", "verify").code == 0
    site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301")
    site.ok("replication", "repair", KEEP, "--yes")
    assert site.is_equal(KEEP)
    site.as_worker(another_user(104))
    site.portal.execute(ENROLL)
    stands_still(site)
    found = line(site)
    assert found["state"] == "broken"
    assert "grant set on parameter session_replication_role to operator" in found["reason"]
    assert site.run("replication", "repair", KEEP, "--yes").code in (3, 4)
    site.server.execute("grant set on parameter session_replication_role to operator")
    assert remedy(site, line(site)["fix"]).code == 0
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    site.ok("course", "detach", KEEP, REMOVE, "--yes")
    site.ok("server", "remove", "east", "--yes")
    assert [left for left in site.remains() if "rollbook" not in left] == []
    assert slots(site) == []


UPDATE = "update portal.auth_user set first_name = 'held' where username = 'ada'"
ENROLL = f"insert into portal.student_courseenrollment (user_id, course_id) values (104, '{KEEP}')"


def refused_rows(site: Site, write: str, forbid: str, allow: str, words: str) -> None:
    """Take a right away that apply needs; see it named, given back, and the stream go on."""
    site.server.execute(forbid.encode())
    site.portal.execute(write.encode())
    if site.server.info.server_version < 160000:  # there apply has the rights of the subscription's owner, a superuser
        site.wait()
    else:
        stands_still(site)
        found = line(site)
        assert found["state"] == "broken"
        assert words in found["reason"]
        assert "42501" in found["reason"]
        shown = site.run("replication", "show", KEEP, "--json").data
        assert (shown["error"]["course"], shown["error"]["table"]) == (KEEP, "auth_user")
        assert site.run("replication", "resume", KEEP).code == 1
        site.server.execute(allow.encode())
        site.ok("replication", "resume", KEEP)
        site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def test_44_forced_row_security_on_the_server_is_named_and_apply_goes_on_without_it(streaming: Site) -> None:
    table = f"{KEEP_SCHEMA}.auth_user"
    for write in (UPDATE, ENROLL):
        refused_rows(
            streaming,
            write,
            f"alter table {table} enable row level security; alter table {table} force row level security",
            f"alter table {table} no force row level security",
            "row-level security",
        )


def test_44_a_revoked_right_on_the_server_is_named_and_apply_goes_on_with_it(streaming: Site) -> None:
    table = f"{KEEP_SCHEMA}.auth_user"
    for write, right in ((UPDATE, "update"), (ENROLL, "insert")):
        refused_rows(
            streaming,
            write,
            f"revoke {right} on {table} from rollbook_owner",
            f"grant {right} on {table} to rollbook_owner",
            "permission denied for table auth_user",
        )


# --- 46: a major upgrade ----------------------------------------------------------------------------------------------


def upgraded(old: PrivateServer, new: PrivateServer) -> None:
    """Upgrade a server by pg_upgrade, with nothing under way, into the place of another one."""
    old.stop()
    new.start()
    new.stop()
    programs = [str(each._program("postgres").parent) for each in (old, new)]
    done = subprocess.run(
        [new._program("pg_upgrade"), "-b", programs[0], "-B", programs[1], "-d", old.data, "-D", new.data,
         "-U", "postgres", "-s", new.home, "--no-sync"],
        cwd=new.home, capture_output=True, text=True, check=False, user=new._user, extra_groups=[],
        group=pwd.getpwnam(new._user).pw_gid if new._user else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    new.start()


@pytest.mark.slow
def test_46_slots_survive_an_upgrade_from_17_on_and_no_resync_is_needed(
    own: Callable[..., Own], place: Callable[..., PrivateServer]
) -> None:
    """From 18 to 18, where pg_upgrade does what it does from 17 to 18."""
    site = own()
    if site.portal.info.server_version < 170000:
        pytest.skip("pg_upgrade keeps slots from PostgreSQL 17 on; the next test has what is done for an older portal")
    site.add()
    site.attach(KEEP)
    enroll(site, 5)
    new = place()
    new.settings = site.here.settings
    upgraded(site.here, new)  # the fast stop before it has sent all to the server
    site.here, site.portal_dsn = new, new.dsn("site")
    site.again()
    site.portal.execute("update portal.auth_user set first_name = 'upgraded' where username = 'ada'")
    assert line(site)["state"] == "unknown"  # another cluster, until it is said to be the portal
    taken = site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
                    "--take-over", "--json")  # fmt: skip
    assert taken.row["outcome"] == "taken over"
    site.wait()
    assert site.is_equal(KEEP)
    assert len(site.copy(KEEP)) == 7
    assert line(site)["state"] == "ok"
    assert site.run("replication", "verify", KEEP).code == 0


@pytest.mark.slow
def test_46_an_upgrade_from_15_loses_the_slot_and_a_planned_resync_brings_each_course_along(
    call: Callable[..., Result], place: Callable[..., PrivateServer], course_server: PrivateServer
) -> None:
    older = older_bindir()
    if older is None:
        pytest.skip("one version of PostgreSQL alone is here, or it is the older one that is under test")
    old = place(bindir=older)
    old.start()
    with psycopg.connect(old.dsn(), autocommit=True) as conn:
        conn.execute("create database site template template0")
    schema.upgrade(old.dsn("site"))
    with (
        database(course_server) as there, psycopg.connect(there, autocommit=True) as server,
        psycopg.connect(old.dsn("site"), autocommit=True) as portal,
    ):  # fmt: skip
        populate(portal)
        site = Site(portal, old.dsn("site"), server, there, call)
        new_ids(site)
        site.add()
        site.attach(KEEP)
        enroll(site, 5)
        site.wait()
        old.stop()
        old._run("pg_checksums", "--enable", "-D", str(old.data))  # as the new one has
        new = place(bindir=find_bindir())
        upgraded(old, new)
        with psycopg.connect(new.dsn("site"), autocommit=True) as upgrade:
            site.portal, site.portal_dsn = upgrade, new.dsn("site")
            assert slots(site) == []
            upgrade.execute("update portal.auth_user set first_name = 'upgraded' where username = 'ada'")
            assert line(site)["state"] == "unknown"
            site.ok("server", "add", "east", "--admin-dsn", there, "--subscription-dsn", site.portal_dsn, "--take-over")
            found = line(site)
            assert (found["state"], found["fix"]) == ("unknown", f"rollbook replication resync '{KEEP}'")
            assert remedy(site, found["fix"]).code == 0
            assert site.is_equal(KEEP)
            assert line(site)["state"] == "ok"
            assert "upgraded" in {row[2] for row in site.copy(KEEP)}
            drop_subscriptions(server)
