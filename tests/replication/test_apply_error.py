"""What a slot still holds for a server: the changes as they are decoded, and the fault at which a stream stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.core.db import Caller, Conn, session
from rollbook.replication import apply_error as pending
from rollbook.replication import link
from rollbook.replication.apply_error import Change, Fault
from rollbook.replication.session import Session
from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.conftest import Db, Site, drop_slots, until
from tests.replication.scenes import stands_still
from tests.school import populate

USER, PROFILE, ENROLLMENT = "auth_user", "auth_userprofile", "student_courseenrollment"
STREAM = "rollbook_east"
LONG = "select string_agg(md5(n::text), '') from generate_series(1, 400) as n"  # does not fit into a row, compressed


@dataclass
class Slot:
    """A portal whose course is published, and a slot that nobody reads."""

    portal: Db

    def changes(self, after: int = 0) -> list[Change]:
        """Decode all that it holds behind a position."""
        asked = {"slot": STREAM, "publication": STREAM, "limit": pending.PEEKED}
        rows = self.portal.execute(pending.PEEK, asked, binary=True)
        return list(pending.decoded((bytes(row[0]) for row in rows), after))

    def as_owner(self, statement: str) -> None:
        """Write a copy on the portal itself, without the routing."""
        with self.portal.transaction():
            self.portal.execute("set local role rollbook_owner")
            self.portal.execute(statement.format(KEEP_SCHEMA).encode())


@pytest.fixture
def slot(db: Db) -> Iterator[Slot]:
    populate(db)
    tables = [
        sql.SQL("{} ({})").format(
            sql.Identifier(KEEP_SCHEMA, table), sql.SQL(", ").join(map(sql.Identifier, columns[0]))
        )
        for table in (USER, PROFILE, ENROLLMENT)
        if (columns := db.execute("select rollbook.replicated_columns(%s)", [table]).fetchone())
    ]
    db.execute(sql.SQL("create publication {} for table {}").format(sql.Identifier(STREAM), sql.SQL(", ").join(tables)))
    db.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [STREAM])
    yield Slot(db)
    drop_slots(db)


# --- decoding ---------------------------------------------------------------------------------------------------------


def test_an_enrollment_is_three_inserts_in_their_order_with_all_values_as_text_and_nulls_apart(slot: Slot) -> None:
    slot.portal.execute("insert into portal.student_courseenrollment (id, user_id, course_id, created) "
                        "values (401, 104, %s, null)", [KEEP])  # fmt: skip
    user, profile, enrollment = slot.changes()
    assert [(c.operation, c.schema_name, c.table, c.key) for c in (user, profile, enrollment)] == [
        ("insert", KEEP_SCHEMA, USER, "104"), ("insert", KEEP_SCHEMA, PROFILE, "204"),
        ("insert", KEEP_SCHEMA, ENROLLMENT, "401"),
    ]  # fmt: skip
    assert list(user.values) == [
        "id", "username", "first_name", "last_name", "email", "password", "is_staff", "is_active", "is_superuser",
        "last_login", "date_joined",
    ]  # fmt: skip
    assert user.values | {"username": "eve", "email": "", "is_active": "f", "last_login": None} == user.values
    assert profile.values["name"] == "Eve Foo"
    assert enrollment.values == {"id": "401", "user_id": "104", "course_id": KEEP, "created": None}
    assert user.finish_lsn == profile.finish_lsn == enrollment.finish_lsn


def test_any_text_arrives_as_it_is(slot: Slot) -> None:
    text = "Zoë 李 🎓 'quoted' \"twice\" back\\slash\ttab\nline %s {x}"
    slot.portal.execute(
        "update portal.auth_userprofile set goals = %s, mailing_address = '' where user_id = 101", [text]
    )
    (change,) = slot.changes()
    assert (change.values["goals"], change.values["mailing_address"], change.values["gender"]) == (text, "", None)


def test_an_update_has_the_key_by_which_the_row_is_found_also_when_the_key_itself_changes(slot: Slot) -> None:
    slot.portal.execute("update portal.auth_user set first_name = 'Ada' where id = 101")
    slot.as_owner("update {}.auth_userprofile set id = 900 where id = 202")
    named, moved = slot.changes()
    assert (named.operation, named.table, named.key, named.values["first_name"]) == ("update", USER, "101", "Ada")
    assert (moved.operation, moved.table, moved.key, moved.values["id"]) == ("update", PROFILE, "202", "900")


def test_a_long_value_that_an_update_leaves_alone_is_absent_and_the_others_stay_in_their_places(slot: Slot) -> None:
    slot.portal.execute(f"update portal.auth_userprofile set meta = '', goals = ({LONG}) where user_id = 101")
    slot.as_owner("update {}.auth_userprofile set gender = 'f' where user_id = 101")
    whole, rest = slot.changes()
    assert len(whole.values["goals"] or "") == 32 * 400
    assert "goals" not in rest.values
    assert rest.values == {name: text for name, text in whole.values.items() if name != "goals"} | {"gender": "f"}
    slot.as_owner("update {}.auth_userprofile set mailing_address = goals, goals = null where user_id = 101")
    assert slot.changes()[-1].values["mailing_address"] == whole.values["goals"]
    assert slot.changes()[-1].values["goals"] is None


def test_a_delete_has_its_key_and_no_values(slot: Slot) -> None:
    slot.portal.execute("delete from portal.auth_user where id = 102")
    assert [(c.operation, c.table, c.key, c.values) for c in slot.changes()] == [
        ("delete", ENROLLMENT, "302", {}), ("delete", PROFILE, "202", {}), ("delete", USER, "102", {}),
    ]  # fmt: skip


def test_transactions_come_in_the_order_of_their_commits_and_what_was_rolled_back_does_not_come(
    slot: Slot, dsn: str
) -> None:
    rename = "update portal.auth_user set last_name = %s where id = %s"
    with psycopg.connect(dsn) as early:
        early.execute(rename, ["began first", 101])
        slot.portal.execute(rename, ["committed first", 102])
    with psycopg.connect(dsn) as conn:
        conn.execute(rename, ["never", 101])
        conn.rollback()
        conn.execute(rename, ["kept", 101])
        with conn.transaction(force_rollback=True):
            conn.execute(rename, ["only in a savepoint", 102])
        conn.execute(rename, ["kept too", 102])
    found = [(change.key, change.values["last_name"]) for change in slot.changes()]
    assert found == [("102", "committed first"), ("101", "began first"), ("101", "kept"), ("102", "kept too")]
    positions = [pending.position(change.finish_lsn) for change in slot.changes()]
    assert positions[0] < positions[1] < positions[2] == positions[3]


def test_what_ends_at_or_before_a_position_is_left_out(slot: Slot) -> None:
    ends = []
    for name in ("one", "two", "three"):
        slot.portal.execute("update portal.auth_user set last_name = %s where id = 101", [name])
        ends.append(slot.portal.execute("select pg_current_wal_insert_lsn()::text").fetchall()[0][0])

    def names(after: int) -> list[str | None]:
        return [change.values["last_name"] for change in slot.changes(after)]

    assert names(0) == ["one", "two", "three"]
    assert [names(pending.position(end)) for end in ends] == [["two", "three"], ["three"], []]
    # The position within a transaction does not: only its end says that it has been applied.
    assert names(pending.position(slot.changes()[1].finish_lsn)) == ["two", "three"]


@pytest.mark.parametrize("text", ["0/0", "0/16B3748", "1/0", "FF/FFFFFFFF", "12345/6789ABCD"])
def test_a_position_is_read_and_written_as_postgresql_does(text: str) -> None:
    assert pending.lsn(pending.position(text)) == text


def test_looking_at_the_slot_leaves_it_as_it_was(slot: Slot) -> None:
    query = "select restart_lsn, confirmed_flush_lsn from pg_replication_slots"
    slot.portal.execute("delete from portal.auth_user where id = 102")
    before = slot.portal.execute(query).fetchall()
    assert slot.changes() == slot.changes() != []
    assert slot.portal.execute(query).fetchall() == before


def test_a_server_finds_what_it_has_not_applied_and_no_more(streaming: Site) -> None:
    site, rename = streaming, "update portal.auth_user set last_name = %s where id = 101"
    site.portal.execute(rename, ["applied"])
    site.wait()
    site.ok("replication", "pause", KEEP)
    until(lambda: is_idle(site))
    for name in ("waits", "waits too"):
        site.portal.execute(rename, [name])
    with sessions(site) as (portal, server, to):
        waiting = pending.changes(Session(portal, server, to, 5))
        found = [(change.values["last_name"], change.schema_name) for change in waiting if change.table == USER]
    assert [name for name, _ in found] == ["waits", "waits", "waits too", "waits too"]
    schemas = {KEEP_SCHEMA, "course_edx_toy_2013_spring"}
    assert {schema for _, schema in found[:2]} == {schema for _, schema in found[2:]} == schemas


def test_keys_that_pending_inserts_bring_are_expected_absent_unless_something_pending_takes_them_away_before(
    streaming: Site,
) -> None:
    site = streaming
    site.ok("replication", "pause", KEEP)
    until(lambda: is_idle(site))
    site.portal.execute("delete from portal.auth_user where id = 102")
    site.portal.execute("insert into portal.auth_user (id, username) values (102, 'bob')")
    for user, row_id in ((102, 402), (104, 404)):
        site.portal.execute("insert into portal.student_courseenrollment (id, user_id, course_id) values (%s, %s, %s)",
                            [row_id, user, KEEP])  # fmt: skip
    with sessions(site) as (portal, server, to):
        absent = pending.expected_absent(Session(portal, server, to, 5))
    assert {table: keys for (schema_name, table, _), keys in absent.items() if schema_name == KEEP_SCHEMA} == {
        USER: [104], PROFILE: [204], ENROLLMENT: [402, 404]
    }  # fmt: skip


# --- faults -----------------------------------------------------------------------------------------------------------


@contextmanager
def sessions(site: Site) -> Iterator[tuple[Conn, Conn, link.Server]]:
    """Yield what `fault` is given: a session on the portal, one on the server, and the server's row."""
    with session(site.portal_dsn, name="test") as portal:
        portal.autocommit = True
        to = link.find_server(portal, site.name)
        with link.reached(to, Caller("test")) as server:
            yield portal, server, to


def is_idle(site: Site) -> bool:
    """Say whether nobody reads the slot."""
    query = "select active from pg_replication_slots where slot_name = %s"
    return site.portal.execute(query, [STREAM]).fetchall() == [(False,)]


def everything(site: Site) -> list[Any]:
    """All that a look must leave alone: slots, the subscription, heartbeats, rows on both sides."""
    found = [
        conn.execute(query.encode()).fetchall()
        for conn, query in (
            (site.portal, "select slot_name from pg_replication_slots where slot_name !~ '_sync_'"),
            (site.portal, "select beat from rollbook.heartbeat order by 1"),
            (site.server, "select beat from rollbook.heartbeat order by 1"),
            (site.server, "select s::text from pg_subscription as s order by 1"),
            (site.server, "select s::text from pg_subscription_rel as s order by 1"),
        )
    ]
    for conn in (site.portal, site.server):
        query = "select relname from pg_class where relkind = 'r' and relnamespace = %s::regnamespace order by 1"
        for (table,) in conn.execute(query, [KEEP_SCHEMA]).fetchall():
            rows = sql.SQL("select t::text, ctid from {} as t order by 1").format(sql.Identifier(KEEP_SCHEMA, table))
            found.append(conn.execute(rows).fetchall())
    return found


@dataclass(frozen=True)
class Said:
    """What the server's log says of an error: the message, and what was being applied."""

    sqlstate: str
    message: str
    detail: str
    operation: str
    relation: str
    finish_lsn: str


ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [^\n]*?\[(\d+)\] (\w+):  (.*(?:\n\t.*)*)", re.MULTILINE)
APPLYING = re.compile(
    r'processing remote data .*? during (?:message type )?"(\w+)"(?: for replication target relation "([^"]+)")? '
    r"in transaction \d+,? finished at ([0-9A-F/]+)"
)


def said(log: Path, since: int) -> Said:
    """Return the last error of an apply worker that stands in a server's log behind an offset."""
    errors: list[dict[str, str]] = []
    for pid, kind, words in ENTRY.findall(log.read_text()[since:]):
        if kind == "ERROR":
            errors.append({"pid": pid, "ERROR": words})
        elif errors and errors[-1]["pid"] == pid:
            errors[-1].setdefault(kind, words)
    for entry in reversed(errors):
        if found := APPLYING.search(entry.get("CONTEXT", "")):
            sqlstate, message = re.sub(r" at character \d+$", "", entry["ERROR"]).split(": ", 1)
            named = re.search(r'target relation "([^"]+)"', message)  # where it cannot even be opened
            relation = found[2] or (named[1] if named else "")
            return Said(sqlstate, message, entry.get("DETAIL", ""), found[1].lower(), relation, found[3])
    raise AssertionError(f"no error of an apply worker in the log: {errors}")


@dataclass(frozen=True)
class Case:
    """A way to break a course on its server, a change of the portal's that cannot be applied then, and the way back."""

    harm: str
    change: str
    mend: str
    operation: str
    key: str | None
    sqlstate: str
    table: str = USER


ENROLL = f"insert into portal.student_courseenrollment (user_id, course_id) values (104, '{KEEP}')"
TRIGGER = """
    create function {0}.audit() returns trigger language plpgsql as $$
    begin
        insert into audit_of_leavers values (old.id);
        return null;
    end $$;
    create table {0}.audit_of_leavers (id bigint);
    create trigger audit after delete on {0}.auth_userprofile for each row execute function {0}.audit();
    alter table {0}.auth_userprofile enable always trigger audit
"""
DEFERRED = """
    create function {0}.balance() returns trigger language plpgsql as $$
    begin
        raise exception 'there are not seats enough' using errcode = 'XX123';
    end $$;
    create constraint trigger balance after insert on {0}.auth_user deferrable initially deferred
        for each row execute function {0}.balance();
    alter table {0}.auth_user enable always trigger balance
"""
CASES = {
    "a row with its key": Case(
        "insert into {0}.auth_user select 104, 'local', first_name, last_name, 'local@example.org', password, "
        "is_staff, is_active, is_superuser, last_login, date_joined from {0}.auth_user where id = 101",
        ENROLL, "delete from {0}.auth_user where id = 104", "insert", "104", "23505",
    ),
    "a missing column": Case(
        "alter table {0}.auth_user rename email to address", ENROLL,
        "alter table {0}.auth_user rename address to email", "insert", "104", "55000",
    ),
    "a missing table": Case(
        "alter table {0}.auth_user rename to users", "update portal.auth_user set last_name = 'Foo' where id = 102",
        "alter table {0}.users rename to auth_user", "update", "102", "55000",
    ),
    "a check": Case(
        "alter table {0}.auth_user add constraint short check (length(last_name) < 5)",
        "update portal.auth_user set last_name = 'Lovelace' where id = 101",
        "alter table {0}.auth_user drop constraint short", "update", "101", "23514",
    ),
    "a column that must be filled": Case(
        "alter table {0}.auth_user add room text; update {0}.auth_user set room = '1'; "
        "alter table {0}.auth_user alter room set not null",
        ENROLL, "alter table {0}.auth_user alter room drop not null", "insert", "104", "23502",
    ),
    "a trigger that finds its table by the search path": Case(
        TRIGGER, "delete from portal.auth_userprofile where user_id = 102",
        "drop trigger audit on {0}.auth_userprofile", "delete", "202", "42P01", PROFILE,
    ),
}  # fmt: skip


@pytest.fixture
def outspoken(site: Site, course_server: PrivateServer) -> tuple[Site, Path]:
    """A stream whose server logs the SQLSTATE of errors; and that log."""
    where = sql.Identifier(site.server.info.dbname)
    site.server.execute(sql.SQL("alter database {} set log_error_verbosity = verbose").format(where))
    site.add()
    site.attach(KEEP)
    return site, course_server.home / "postgres.log"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fault_is_what_the_server_says_in_its_log(outspoken: tuple[Site, Path], case: Case) -> None:
    site, log = outspoken
    began = len(log.read_text())
    site.as_worker(case.harm.format(KEEP_SCHEMA))
    site.portal.execute("update portal.auth_user set first_name = 'Before' where id = 103")  # nothing for the course
    site.portal.execute(case.change.encode())
    site.portal.execute("update portal.auth_user set first_name = 'After' where id = 101")
    stands_still(site)
    before = everything(site)
    with sessions(site) as (portal, server, to):
        fault = pending.fault(Session(portal, server, to, 5))
        assert everything(site) == before
        assert fault is not None
        there = said(log, began)
        assert (fault.sqlstate, fault.operation, fault.finish_lsn) == (
            there.sqlstate, there.operation, there.finish_lsn
        )  # fmt: skip
        assert there.relation in (f"{fault.schema_name}.{fault.table}", "")  # at a commit it names none
        assert (fault.sqlstate, fault.operation, fault.table, fault.key) == (
            case.sqlstate, case.operation, case.table, case.key
        )  # fmt: skip
        assert fault.is_conflict == (case.sqlstate == "23505")
        if fault.is_conflict:
            # From PostgreSQL 18 on a conflict has words of its own; they too name the index and the key.
            words = f"{there.message} {there.detail}"
            assert [name in words for name in ('"auth_user_pkey"', "(id)=(104)")] == [True, True]
            assert [name in fault.message for name in ('"auth_user_pkey"', "(id)=(104)")] == [True, True]
        else:
            assert fault.message == there.message
        assert "ada@example.org" not in fault.message

        site.as_worker(case.mend.format(KEEP_SCHEMA))
        assert pending.fault(Session(portal, server, to, 5)) is None
    site.ok("replication", "resume", KEEP)
    assert site.is_equal(KEEP)


def test_a_trigger_that_fires_at_commit_is_a_fault_and_its_transaction_is_not_passed_over(
    outspoken: tuple[Site, Path],
) -> None:
    """PostgreSQL 15 takes such a transaction as applied if the error disables the subscription; this one retries."""
    site, log = outspoken
    began, is_queued = len(log.read_text()), site.server.info.server_version < 160000
    site.ok("replication", "pause", KEEP)
    until(lambda: is_idle(site))
    site.as_worker(DEFERRED.format(KEEP_SCHEMA))
    site.portal.execute(ENROLL.encode())
    with sessions(site) as (portal, server, to):
        fault = pending.fault(Session(portal, server, to, 5))
        assert fault is not None
        assert (fault.table, fault.operation, fault.key, fault.sqlstate, fault.message) == (
            (USER, "commit", None, "XX123", "there are not seats enough") if is_queued
            else (USER, "insert", "104", "42501", "cannot fire deferred trigger within security-restricted operation")
        )  # fmt: skip
        assert site.run("replication", "resume", KEEP).code == 1
        stands_still(site)
        there = said(log, began)
        assert (fault.sqlstate, fault.message, fault.operation, fault.finish_lsn) == (
            there.sqlstate, there.message, there.operation, there.finish_lsn
        )  # fmt: skip
        site.as_worker(f"drop trigger balance on {KEEP_SCHEMA}.auth_user")
        assert pending.fault(Session(portal, server, to, 5)) is None
    site.ok("replication", "resume", KEEP)
    assert site.is_equal(KEEP)


def test_a_stream_that_was_merely_disabled_has_no_fault(streaming: Site) -> None:
    site = streaming
    site.server.execute("alter subscription rollbook_east disable")
    until(lambda: is_idle(site))
    site.portal.execute("update portal.auth_user set first_name = 'Waits' where id = 101")
    before = everything(site)
    with sessions(site) as (portal, server, to):
        assert pending.fault(Session(portal, server, to, 5)) is None
    assert everything(site) == before


def test_only_the_transaction_at_which_the_stream_stands_is_a_fault(streaming: Site) -> None:
    site = streaming
    site.ok("replication", "pause", KEEP)
    until(lambda: is_idle(site))
    site.as_worker(CASES["a check"].harm.format(KEEP_SCHEMA))
    site.portal.execute("update portal.auth_user set first_name = 'Fits' where id = 101")
    site.portal.execute(CASES["a check"].change.encode())
    with sessions(site) as (portal, server, to):
        assert pending.fault(Session(portal, server, to, 5)) is None


def test_a_first_copy_that_a_course_refuses_is_a_fault_of_its_table_alone(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    for table in (USER, PROFILE, ENROLLMENT):
        site.as_worker(f"delete from {KEEP_SCHEMA}.{table}")
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile add constraint short check (length(name) < 3)")
    assert site.run("course", "attach", KEEP, "--to", "east").code == 4
    stands_still(site)
    before = everything(site)
    with sessions(site) as (portal, server, to):
        fault = pending.fault(Session(portal, server, to, 5))
        assert everything(site) == before
        assert fault == Fault(
            KEEP_SCHEMA, PROFILE, None, "copy", "23514",
            'new row for relation "auth_userprofile" violates check constraint "short"', None, KEEP,
            f"alter table {KEEP_SCHEMA}.auth_userprofile drop constraint short",
        )  # fmt: skip
        site.server.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile drop constraint short")
        assert pending.fault(Session(portal, server, to, 5)) is None
