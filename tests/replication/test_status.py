"""The state of a course on a server in one word, each brought about for real; and the looks that go with it.

Also tests rollbook.slot_status, rollbook.server_route and rollbook.beat.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rollbook.replication.commands import status as whole
from rollbook.replication.heartbeat import WRITING
from rollbook.replication.link import HIDDEN
from tests.conftest import Cluster
from tests.program import COPIED, KEEP, KEEP_SCHEMA, PROGRAM, REMOVE, environment, process
from tests.replication.conftest import (
    ACTIVE,
    Db,
    Site,
    Standing,
    drop_slots,
    drop_subscriptions,
    remedy,
    until,
)
from tests.replication.doctor import findings
from tests.replication.scenes import line, refusal, stands_still
from tests.school import database as portal_database

ENROLL = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"
RENAME = "update portal.auth_user set last_name = %s where id = 101"
SLOT = "rollbook_east"


def state(site: Site, course: str = KEEP) -> str:
    """The word alone."""
    return str(line(site, course)["state"])


def ask(site: Site, *arguments: str) -> Any:
    """The JSON answer of a command, which may find something."""
    return site.run("replication", *arguments, "--json").data


@contextmanager
def held_up(site: Site, table: str = "auth_user") -> Iterator[None]:
    """Hold up the apply worker on the server: somebody there locks a copy of the first course."""
    with psycopg.connect(site.server_dsn) as conn:
        conn.execute(sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(KEEP_SCHEMA, table)))
        site.portal.execute(RENAME, [f"held {time.monotonic()}"])
        until(lambda: waits(site))
        yield
        conn.rollback()


def waits(site: Site) -> bool:
    """Say whether the apply worker on the server waits for a lock."""
    query = (
        "select exists (select from pg_locks as l inner join pg_stat_activity as a on a.pid = l.pid "
        "where not l.granted and a.backend_type like 'logical replication%' and a.datname = current_database())"
    )
    return site.server.execute(query).fetchone() == (True,)


def poison(site: Site) -> int:
    """Enroll a new user whose row has been put on the server before, by somebody else; return the id."""
    name = f"new_{uuid.uuid4().hex[:8]}"
    row = site.portal.execute("insert into portal.auth_user (username) values (%s) returning id", [name]).fetchone()
    assert row is not None
    user_id = int(row[0])
    site.as_worker(
        f"insert into {KEEP_SCHEMA}.auth_user (id, username, first_name, last_name, email, password, is_staff, "
        "is_active, is_superuser, date_joined) values (%s, 'squatter', '', '', '', '', false, false, false, now())",
        user_id,
    )
    site.portal.execute(ENROLL, [user_id, KEEP])
    return user_id


def forbid(site: Site, last_name: str) -> None:
    """Let the course refuse a name on the server, by a constraint of its own."""
    site.server.execute(
        f"alter table {KEEP_SCHEMA}.auth_user add constraint not_this check (last_name <> '{last_name}') not valid"
    )


# --- the words --------------------------------------------------------------------------------------------------------


def test_ok_says_lag_in_bytes_and_seconds_and_needs_nothing(shared: Site) -> None:
    shared.wait()
    shared.server.execute("select pg_stat_reset_subscription_stats(null)")  # the errors of the tests before
    answer = shared.run("replication", "status", "--json")
    assert answer.code == 0
    assert [
        (row["course"], row["target"], row["kind"], row["state"], row["reason"], row["fix"]) for row in answer.data
    ] == [(course, "server east", "server", "ok", None, None) for course in (KEEP, REMOVE)]
    for row in answer.data:
        assert 0 <= row["lag_seconds"] < 1
        assert isinstance(row["lag_bytes"], int)
        assert row["oldest_pending_seconds"] is None
        assert row["error_count"] == 0


def test_the_keys_are_those_of_the_contract_here_and_on_a_server(shared: Site) -> None:
    shared.portal.execute("select rollbook.create_course('edX/here')")
    try:
        for rows in (ask(shared, "status"), shared.run("status", "--json").data["courses"]):
            assert {row["course"] for row in rows} == {KEEP, REMOVE, "edX/here"}
        assert [list(row) for row in ask(shared, "status")] == [list(whole.COLUMNS)] * 3
        here = line(shared, "edX/here")
        assert (here["kind"], here["state"], here["lag_bytes"], here["lag_seconds"]) == ("schema", "ok", 0, 0)
        header = shared.run("replication", "status", "--csv").cells()[0]
        assert header == list(whole.COLUMNS)
    finally:
        shared.portal.execute("select rollbook.drop_course('edX/here')")


def test_lagging_while_apply_is_held_up_with_seconds_that_grow_and_bytes_of_the_slot(shared: Site) -> None:
    with held_up(shared):
        first = line(shared, KEEP, "--timeout", "1")
        again = line(shared, KEEP, "--timeout", "1")
        slot = shared.portal.execute(
            "select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) from pg_replication_slots "
            "where slot_name = %s",
            [SLOT],
        ).fetchone()
        assert slot is not None
        assert line(shared, REMOVE, "--timeout", "1")["state"] == "lagging"
    for row in (first, again):
        assert (row["state"], row["oldest_pending_seconds"]) == ("lagging", row["lag_seconds"])
    assert 0.2 <= first["lag_seconds"] < again["lag_seconds"]
    assert 0 < first["lag_bytes"] < again["lag_bytes"] <= slot[0]
    shown = remedy(shared, first["fix"])
    assert "state" in shown.out
    shared.wait()
    assert state(shared) == "ok"
    assert line(shared)["oldest_pending_seconds"] is None


def test_lagging_without_a_worker_says_so(shared: Site) -> None:
    shared.server.execute("alter subscription rollbook_east connection 'host=/nonexistent dbname=nowhere'")
    try:
        row: dict[str, Any] = {}

        def has_none() -> bool:
            row.update(line(shared, KEEP, "--timeout", "1"))
            return (row["reason"] or "").startswith("no worker")

        until(has_none)  # in between the launcher starts one, which fails
        assert row["state"] == "lagging"
        last = shared.server.execute("select max(sent_at) from rollbook.heartbeat").fetchall()[0][0]
        assert row["reason"].endswith(f"the last heartbeat there is of {last:%Y-%m-%d %H:%M:%S} UTC")
    finally:
        shared.server.execute(sql.SQL("alter subscription rollbook_east connection {}").format(shared.portal_dsn))
    shared.wait()
    assert state(shared) == "ok"


def test_copying_until_the_first_copy_has_come_and_was_compared(shared: Site) -> None:
    name = "edX/new"
    shared.portal.execute("select rollbook.create_course(%s)", [name])
    shared.portal.execute(ENROLL, [103, name])
    with psycopg.connect(shared.portal_dsn) as open_transaction:
        open_transaction.execute(RENAME, ["long"])  # a first copy waits for whoever has written
        attached = shared.run("course", "attach", name, "--to", "east", "--timeout", "0.5", "--json")
        assert attached.code == 4
        row = line(shared, name)
        assert (row["state"], row["reason"], row["fix"]) == ("copying", "0 of 3 tables are copied", None)
        assert [state(shared, course) for course in (KEEP, REMOVE)] == ["ok", "ok"]
        open_transaction.commit()
    until(lambda: "compared" in line(shared, name)["reason"])
    assert state(shared, name) == "copying"
    assert remedy(shared, line(shared, name)["fix"]).code == 0
    assert state(shared, name) == "ok"
    shared.ok("course", "detach", name, "--yes")
    shared.portal.execute("select rollbook.drop_course(%s)", [name])


def test_paused_says_since_when_and_resume_helps(shared: Site) -> None:
    shared.ok("replication", "pause", KEEP)
    row = line(shared)
    assert (row["state"], row["reason"][:13], row["reason"][-4:]) == ("paused", "paused since ", " UTC")
    shared.portal.execute(RENAME, ["paused"])
    until(lambda: line(shared)["lag_bytes"] > row["lag_bytes"])
    assert state(shared, REMOVE) == "paused"
    assert remedy(shared, row["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_broken_by_a_row_in_the_way_names_it_and_repair_helps(shared: Site) -> None:
    number = poison(shared)
    stands_still(shared)
    row = line(shared)
    assert row["state"] == "broken"
    assert row["reason"].startswith(f"insert auth_user row {number}: duplicate key value violates unique constraint")
    assert "(SQLSTATE 23505)" in row["reason"]
    neighbour = line(shared, REMOVE)
    last = shared.server.execute("select max(sent_at) from rollbook.heartbeat").fetchall()[0][0]
    assert (neighbour["state"], neighbour["reason"]) == (
        "broken",
        f"replication stopped because of {KEEP_SCHEMA}.auth_user; the last heartbeat there is of "
        f"{last:%Y-%m-%d %H:%M:%S} UTC",
    )
    assert neighbour["fix"] == row["fix"]
    assert remedy(shared, row["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    assert shared.is_equal(KEEP)


def test_broken_by_a_constraint_of_the_courses_own_quotes_the_server_and_goes_on_when_it_is_gone(shared: Site) -> None:
    forbid(shared, "zed")
    shared.portal.execute(RENAME, ["zed"])
    stands_still(shared)
    row = line(shared)
    drop = f"on server east: alter table {KEEP_SCHEMA}.auth_user drop constraint not_this"
    assert (row["state"], row["fix"]) == ("broken", f"{drop}; then: rollbook replication resume '{KEEP}'")
    assert row["reason"].startswith("update auth_user row 101: new row for relation")
    assert "not_this" in row["reason"]
    assert "zed@" not in row["reason"]
    shown = shared.run("replication", "show", KEEP, "--json")
    assert shown.code == 4
    error = shown.data["error"]
    assert {**error, "message": "", "lsn": ""} == {
        "course": KEEP, "table": "auth_user", "key": "101", "operation": "update", "sqlstate": "23514", "message": "",
        "lsn": "",
    }  # fmt: skip
    refused = shared.run("replication", "resume", KEEP, "--json")
    assert refused.code == 1
    assert refusal(refused)["details"]["lsn"] == error["lsn"]
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop constraint not_this")
    until(lambda: state(shared) == "ok")  # the worker retries
    assert shared.is_equal(KEEP)


def test_a_transaction_is_skipped_by_the_lsn_that_show_names_and_by_no_other(shared: Site) -> None:
    forbid(shared, "yak")
    shared.portal.execute(RENAME, ["yak"])
    shared.portal.execute(RENAME, ["after"])
    stands_still(shared)
    lsn = shared.run("replication", "show", KEEP, "--json").data["error"]["lsn"]
    wrong = shared.run("replication", "resume", KEEP, "--skip", "0/1", "--json")
    assert (wrong.code, refusal(wrong)["why"]) == (1, f"it stopped at {lsn}")
    resumed = shared.run("replication", "resume", KEEP, "--skip", lsn, "--json")
    assert (resumed.code, set(resumed.column("outcome"))) == (0, {"resumed"})
    assert shared.is_equal(KEEP)  # as "after" came behind it
    row = line(shared)
    assert (row["state"], row["fix"]) == ("drifted", f"rollbook replication verify '{KEEP}'"), "a change was left out"
    assert remedy(shared, row["fix"]).code == remedy(shared, line(shared, REMOVE)["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    assert shared.run("replication", "resume", KEEP, "--skip", "garbage").code == 2
    unneeded = shared.run("replication", "resume", KEEP, "--skip", lsn, "--json")
    assert (unneeded.code, refusal(unneeded)["why"]) == (1, "it has not stopped")
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop constraint not_this")


def test_broken_without_its_subscription_and_resync_helps(shared: Site) -> None:
    drop_subscriptions(shared.server)
    row = line(shared)
    assert (row["state"], row["reason"][:24]) == ("broken", "its subscription is gone")
    assert remedy(shared, row["fix"]).code == 0
    assert state(shared) == "ok"
    neighbour = line(shared, REMOVE)
    assert (neighbour["state"], neighbour["reason"]) == (
        "unknown",
        "its stream was rebuilt; the changes that it missed were not brought back",
    )
    assert remedy(shared, neighbour["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_broken_without_its_slot_knows_no_lag_and_resync_helps(shared: Site) -> None:
    shared.server.execute("alter subscription rollbook_east disable")
    drop_slots(shared.portal)
    shared.portal.execute(RENAME, ["lost"])
    shared.server.execute("alter subscription rollbook_east enable")
    row = line(shared, KEEP, "--timeout", "1")
    assert (row["state"], row["lag_bytes"], row["lag_seconds"]) == ("broken", None, None)
    assert row["reason"] == "its slot is gone; changes committed since are not on the server"
    assert alarms(shared) == {SLOT: "gone"}
    assert remedy(shared, row["fix"]).code == 0
    assert remedy(shared, line(shared, REMOVE)["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    assert shared.is_equal(KEEP)


def test_broken_without_a_table_there_and_resync_helps(shared: Site) -> None:
    shared.server.execute(f"drop table {KEEP_SCHEMA}.auth_userprofile")
    row = line(shared)
    assert (row["state"], row["reason"]) == ("broken", "its tables are missing on the server")
    assert state(shared, REMOVE) == "ok"
    shown = ask(shared, "show", KEEP)
    assert [(table["table"], table["is_there"]) for table in shown["tables"]] == [
        ("auth_user", True), ("auth_userprofile", False), ("student_courseenrollment", True),
    ]  # fmt: skip
    assert remedy(shared, row["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    assert shared.is_equal(KEEP)


def test_broken_without_a_column_there_names_it_and_flows_when_it_is_back(shared: Site) -> None:
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop column email cascade")
    row = line(shared)
    assert (row["state"], row["reason"]) == ("broken", "columns are missing on the server: auth_user: email")
    assert ask(shared, "show", KEEP)["tables"][0]["lacking"] == ["email"]
    shared.portal.execute(RENAME, ["lacking"])
    stands_still(shared)
    assert line(shared)["reason"] == row["reason"]
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column email varchar(254) not null default ''")
    until(lambda: state(shared, REMOVE) == "ok")
    assert shared.run("replication", "verify", "--json").code == 4
    shared.ok("replication", "repair", KEEP, "--yes")
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_broken_where_a_first_copy_is_refused_names_the_table_and_goes_on_when_it_is_not(shared: Site) -> None:
    name, schema = "edX/refused", "course_edx_refused"
    shared.portal.execute("select rollbook.create_course(%s)", [name])
    shared.portal.execute(ENROLL, [104, name])
    shared.attach(name)
    shared.ok("course", "detach", name, "--keep-data", "--yes")
    for table in COPIED:
        shared.as_worker(f"delete from {schema}.{table}")
    shared.server.execute(f"alter table {schema}.auth_user add constraint not_this check (username <> 'eve')")
    attached = shared.run("course", "attach", name, "--to", "east", "--json")
    assert attached.code == 4
    assert refusal(attached)["why"].startswith("copy auth_user: new row for relation")
    row = line(shared, name)
    assert row["state"] == "broken"
    assert row["reason"].startswith("copy auth_user: new row for relation")
    assert ask(shared, "show", name)["error"]["course"] == name
    shared.server.execute(f"alter table {schema}.auth_user drop constraint not_this")
    until(lambda: state(shared, name) in ("copying", "ok"))
    shared.attach(name)
    assert shared.states() == {KEEP: "ok", REMOVE: "ok", name: "ok"}
    shared.ok("course", "detach", name, "--yes")
    shared.portal.execute("select rollbook.drop_course(%s)", [name])


def test_drifted_after_a_verify_found_a_difference_there_until_it_is_repaired(shared: Site) -> None:
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 101")
    assert state(shared) == "ok"  # nobody has looked
    assert shared.run("replication", "verify").code == 4
    row = line(shared)
    assert (row["state"], row["verdict"], state(shared, REMOVE)) == ("drifted", "differs", "ok")
    assert remedy(shared, row["fix"]).code == 0
    assert state(shared) == "ok"
    assert shared.is_equal(KEEP)


def test_drifted_by_a_difference_here_says_so_too(shared: Site) -> None:
    with shared.portal.transaction():
        shared.portal.execute("set local session_replication_role = replica")
        shared.portal.execute(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301")
    shared.portal.execute("select pg_stat_force_next_flush()")  # else the statistics have it some seconds later
    row = line(shared)
    assert row["state"] == "drifted"
    assert remedy(shared, row["fix"]).code == 4  # it compares
    assert remedy(shared, line(shared)["fix"]).code == 0
    assert state(shared) == "ok"
    assert shared.is_equal(KEEP)


def test_detached_when_a_detach_was_not_finished_and_the_same_again_helps(shared: Site) -> None:
    shared.server.execute(
        "create function public.no() returns event_trigger language plpgsql as $$ begin raise 'not today'; end $$"
    )
    shared.server.execute(
        "create event trigger no on ddl_command_start when tag in ('DROP SCHEMA') execute function public.no()"
    )
    assert shared.run("course", "detach", REMOVE, "--yes").code != 0
    row = line(shared, REMOVE)
    assert (row["state"], row["reason"]) == ("detached", "its detach was not finished")
    assert state(shared) == "ok"
    shared.server.execute("drop event trigger no")
    shared.server.execute("drop function public.no()")
    assert remedy(shared, row["fix"]).code == 0
    assert line(shared, REMOVE)["kind"] == "schema"
    shared.attach(REMOVE)
    assert state(shared, REMOVE) == "ok"


def test_unknown_where_heartbeats_are_missing_in_between(shared: Site) -> None:
    for _ in range(3):
        shared.wait()
    newest = shared.portal.execute("select max(beat) from rollbook.heartbeat").fetchone()
    assert newest is not None
    shared.server.execute("set role rollbook_owner")
    shared.server.execute("delete from rollbook.heartbeat where beat = %s", [newest[0] - 1])
    shared.server.execute("reset role")
    row = line(shared)
    assert row["state"] == "unknown"
    assert row["reason"].startswith("1 heartbeats never arrived")
    recorded = "update rollbook.course set state = %s where course_id = %s"
    shared.portal.execute(recorded, ["copying", REMOVE])
    new = line(shared, REMOVE)  # its rows came later, or are compared in any case
    assert (new["state"], new["fix"]) == ("copying", f"rollbook replication verify '{REMOVE}'")
    shared.portal.execute(recorded, ["ok", REMOVE])
    route = "update rollbook.server set admin_dsn = %s"
    shared.portal.execute(route, ["host=/nowhere dbname=x"])
    assert shared.run("replication", "verify").code == 3
    shared.portal.execute(route, [shared.server_dsn])
    assert shared.states() == {KEEP: "unknown", REMOVE: "unknown"}, "nothing was compared"
    assert [each["state"] for each in shared.run("server", "list", "--json").data] == ["unknown"]
    assert remedy(shared, row["fix"]).code == 0
    assert remedy(shared, line(shared, REMOVE)["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


@pytest.mark.parametrize("identity", ["full", "nothing", "using index local_key"])
def test_a_published_copy_with_another_replica_identity_is_named_with_the_line_that_helps(
    shared: Site, identity: str
) -> None:
    copy = f"{KEEP_SCHEMA}.auth_user"
    if "index" in identity:
        shared.portal.execute(f"create unique index local_key on {copy} (username)".encode())
        shared.portal.execute(f"alter table {copy} alter username set not null".encode())
    shared.portal.execute(f"alter table {copy} replica identity {identity}".encode())
    help_line = f"alter table {copy} replica identity default;"
    try:
        found = line(shared)
        assert (found["state"], found["fix"]) == ("broken", help_line)
        assert "the replica identity is not the primary key" in found["reason"]
        assert line(shared, REMOVE)["state"] == "ok"
        change = "update portal.auth_user set first_name = %s where username = 'ada'"
        if "index" not in identity:
            with pytest.raises(psycopg.Error, match=f"course {KEEP} cannot be written") as caught:
                shared.portal.execute(change.encode(), [identity])
            assert caught.value.sqlstate == "RB020"
            assert help_line in str(caught.value.diag.message_hint)
            answer = shared.run("user", "update", "ada", "--first-name", identity, "--json")
            assert answer.code == 1
            assert help_line in answer.err
        shared.portal.execute(help_line.encode())
        shared.portal.execute(change.encode(), [identity])
        shared.wait()
        assert line(shared)["state"] == "ok"
        assert shared.is_equal(KEEP)
    finally:
        shared.portal.execute(help_line.encode())
        shared.portal.execute(f"drop index if exists {KEEP_SCHEMA}.local_key".encode())


def test_a_course_with_another_replica_identity_is_not_attached(shared: Site) -> None:
    schema = shared.portal.execute("select rollbook.create_course('identity/1')").fetchone()
    assert schema is not None
    shared.portal.execute(f"alter table {schema[0]}.auth_user replica identity full".encode())
    for options in (("--dry-run",), ()):
        answer = shared.run("course", "attach", "identity/1", "--to", "east", *options)
        assert answer.code == 1, answer
        assert f"alter table {schema[0]}.auth_user replica identity default;" in answer.err
    assert line(shared, "identity/1")["state"] == "ok"
    shared.ok("course", "delete", "identity/1", "--confirm", "identity/1")


def test_unknown_on_a_clone_of_the_portal_which_may_change_nothing_there(shared: Site, cluster: Cluster) -> None:
    shared.ok("replication", "pause", KEEP)
    until(lambda: shared.portal.execute(ACTIVE).fetchall() == [(False,)])
    shared.portal.close()
    name = conninfo_name(shared)
    try:
        with portal_database(cluster, f"{name}_clone", name) as where:
            clone = Site(shared.portal, where, shared.server, shared.server_dsn, shared.call)
            row = line(clone)
            assert (row["state"], row["lag_bytes"], row["lag_seconds"]) == ("unknown", None, None)
            assert row["reason"] == (
                "this database does not feed server east: it is a clone or a restored backup of the portal"
            )
            assert row["fix"].startswith("if it is the portal now: rollbook server add east")
            for command in (
                ("replication", "resume", KEEP), ("replication", "pause", KEEP),
                ("replication", "resync", KEEP, "--yes"), ("course", "detach", KEEP, "--yes"),
            ):  # fmt: skip
                refused = clone.run(*command, "--json")
                assert refused.code == 1, (command, refused)
            enabled = shared.server.execute("select subenabled from pg_subscription").fetchall()
            assert enabled == [(False,)]
    finally:
        shared.portal = psycopg.connect(shared.portal_dsn, autocommit=True)
    shared.ok("replication", "resume", KEEP)
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def conninfo_name(site: Site) -> str:
    """The name of the portal's database."""
    return str(psycopg.conninfo.conninfo_to_dict(site.portal_dsn)["dbname"])


# --- slots ------------------------------------------------------------------------------------------------------------


@contextmanager
def kept_wal(portal: Db, size: str) -> Iterator[None]:
    """The portal keeps at most so much WAL for a slot."""
    name = "select current_setting('max_slot_wal_keep_size')"
    before = portal.execute(name).fetchone()
    assert before is not None

    def set_to(setting: str) -> None:
        portal.execute(sql.SQL("alter system set max_slot_wal_keep_size = {}").format(setting))
        portal.execute("select pg_reload_conf()")
        until(lambda: portal.execute(name).fetchone() == (setting,))

    set_to(size)
    try:
        yield
    finally:
        set_to(before[0])


def alarms(site: Site) -> dict[str, str | None]:
    """The alarm of each slot."""
    return {row["slot"]: row["alarm"] for row in ask(site, "slots")}


def fill(portal: Db, segments: int) -> None:
    """Write so many segments of WAL."""
    for _ in range(segments):
        portal.execute("select pg_logical_emit_message(false, 'rollbook', 'x'), pg_switch_wal()")


def test_slots_says_what_each_holds_and_alarms_where_nothing_bounds_it(shared: Site) -> None:
    answer = shared.run("replication", "slots", "--json")
    (row,) = answer.data
    assert list(row) == [
        "slot", "server", "where", "courses", "active", "wal_status", "held_bytes", "safe_bytes", "inactive_since",
        "alarm",
    ]  # fmt: skip
    assert (answer.code, row["slot"], row["server"], row["courses"], row["active"], row["alarm"]) == (
        4, SLOT, "east", 2, True, "unbounded",
    )  # fmt: skip
    assert (row["wal_status"], row["held_bytes"] > 0, row["safe_bytes"]) == ("reserved", True, None)
    assert "max_slot_wal_keep_size" in answer.err
    with kept_wal(shared.portal, "1GB"):
        answer = shared.run("replication", "slots", "--json")
        assert (answer.code, answer.row["alarm"], answer.err) == (0, None, "")
        assert answer.row["safe_bytes"] > 2**29
        shared.portal.execute("select pg_create_logical_replication_slot('of_nobody', 'pgoutput')")
        assert alarms(shared) == {SLOT: None, "of_nobody": "foreign"}
        foreign = shared.run("replication", "slots")
        assert foreign.code == 4
        drop = foreign.err.partition("if nobody will read it again: ")[2].strip()
        assert drop == "select pg_drop_replication_slot('of_nobody');"
        shared.portal.execute(drop.encode())
        assert alarms(shared) == {SLOT: None}


def test_the_slot_of_a_first_copy_belongs_to_the_server_whose_subscription_it_names(shared: Site) -> None:
    row = shared.portal.execute("select subscription from rollbook.server where name = 'east'").fetchone()
    assert row is not None
    own, foreign = f"pg_{row[0]}_sync_16999_7345000000000000001", f"pg_{row[0]}0_sync_16999_7345000000000000001"
    with kept_wal(shared.portal, "1GB"):
        try:
            for name in (own, foreign):
                shared.portal.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
            assert alarms(shared) == {SLOT: None, own: None, foreign: "foreign"}
            owners = {each["slot"]: each["server"] for each in ask(shared, "slots")}
            assert owners == {SLOT: "east", own: "east", foreign: None}
            assert [each["found"].split()[1] for each in findings(shared) if each["check"] == "slot"
                    and "belongs to no server" in each["found"]] == [foreign]  # fmt: skip
            shared.portal.execute("select pg_drop_replication_slot(%s)", [foreign])
            assert shared.run("replication", "slots").code == 0
            assert shared.run("server", "show", "east", "--json").data["slot"]["slot_name"] == SLOT
        finally:
            shared.portal.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                                  "where slot_name = any (%s)", [[own, foreign]])  # fmt: skip


def is_calm(site: Site) -> bool:
    """Say whether the slot has moved on since a test before wrote much: a checkpoint lets it, or 15 seconds.

    To be asked while nothing bounds what the slot holds: a checkpoint is also when a slot is lost.
    """
    site.portal.execute("checkpoint")
    return bool(ask(site, "slots")[0]["held_bytes"] < 2**24)


def test_a_slot_alarms_before_it_is_lost_and_resync_helps_when_it_is(shared: Site) -> None:
    until(lambda: is_calm(shared))
    with kept_wal(shared.portal, "64MB"):
        shared.server.execute("alter subscription rollbook_east disable")
        until(lambda: ask(shared, "slots")[0]["active"] is False)
        assert alarms(shared) == {SLOT: None}
        safe = ask(shared, "slots")[0]["safe_bytes"]
        fill(shared.portal, 1)
        assert 0 < ask(shared, "slots")[0]["safe_bytes"] < safe
        while alarms(shared)[SLOT] is None:
            fill(shared.portal, 1)
        assert alarms(shared) == {SLOT: "near"}
        row = ask(shared, "slots")[0]
        assert row["safe_bytes"] < 2**24
        shared.ok("replication", "pause", KEEP)
        shared.ok("replication", "resume", KEEP)  # it reads on, and all is well again
        shared.server.execute("alter subscription rollbook_east disable")
        fill(shared.portal, 7)
        shared.portal.execute("checkpoint")
        until(lambda: alarms(shared) == {SLOT: "lost"})
        found = line(shared)
        assert (found["state"], found["lag_seconds"]) == ("broken", None)
        assert found["reason"].startswith("its slot was lost")
        assert "resync" in shared.run("replication", "slots").err
        shared.portal.execute(RENAME, ["after"])
        assert remedy(shared, found["fix"]).code == 0
        assert remedy(shared, line(shared, REMOVE)["fix"]).code == 0
        assert alarms(shared) == {SLOT: None}
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    assert shared.is_equal(KEEP)


def test_a_slot_that_is_nearly_lost_makes_its_courses_need_attention(shared: Site) -> None:
    until(lambda: is_calm(shared))
    with kept_wal(shared.portal, "64MB"), held_up(shared):
        while alarms(shared)[SLOT] is None:
            fill(shared.portal, 1)
        assert alarms(shared) == {SLOT: "near"}
        row = line(shared, KEEP, "--timeout", "1")
        assert (row["state"], row["reason"]) == ("lagging", "its slot is about to be lost")
        assert remedy(shared, row["fix"]).code == 4
    shared.wait()


# --- who may only look ------------------------------------------------------------------------------------------------


@pytest.fixture
def monitor(shared: Site) -> Iterator[Site]:
    """The shared site, seen by a member of rollbook_monitor."""
    shared.portal.execute(
        "do $$ begin create role rb_monitor login; "
        "exception when duplicate_object or unique_violation then null; end $$"
    )
    shared.portal.execute("grant rollbook_monitor to rb_monitor")
    where = shared.portal_dsn.replace("user=postgres", "user=rb_monitor")
    yield Site(shared.portal, where, shared.server, shared.server_dsn, shared.call)
    shared.portal.execute("revoke rollbook_monitor from rb_monitor")


def beats(site: Site) -> list[tuple[Any, ...]]:
    """The heartbeats that the portal has sent."""
    return site.portal.execute("select beat from rollbook.heartbeat order by 1").fetchall()


def test_who_may_only_look_sees_every_state_and_writes_no_heartbeat(monitor: Site, shared: Site) -> None:
    before = beats(shared)
    assert monitor.states() == {KEEP: "ok", REMOVE: "ok"}
    assert monitor.run("server", "list", "--json").data[0]["courses"] == 2
    assert monitor.run("replication", "slots", "--json").data[0]["slot"] == SLOT
    assert monitor.run("replication", "show", KEEP, "--json").data["state"] == "ok"
    assert beats(shared) == before
    with held_up(shared):
        shared.run("replication", "wait", "--timeout", "0.1")
        row = line(monitor)
        assert (row["state"], row["lag_seconds"] > 0) == ("lagging", True)
    shared.wait()


@pytest.mark.slow
def test_who_may_only_look_sees_a_stream_that_stands_still_and_is_told_what_is_hidden(
    monitor: Site, shared: Site
) -> None:
    poison(shared)
    stands_still(shared)
    age = "update rollbook.heartbeat set sent_at = sent_at - interval '40 s' where beat > %s"
    last = shared.server.execute("select max(beat) from rollbook.heartbeat").fetchone()
    for is_late, state in ((False, "lagging"), (True, "broken")):
        if is_late:
            shared.portal.execute("select rollbook.beat()")
            shared.portal.execute(age, last)
        for course in (KEEP, REMOVE):
            row = line(monitor, course)
            assert (row["state"], "the reason is not known: " in row["reason"]) == (state, True)
    shown = monitor.run("replication", "show", KEEP, "--json")
    assert (shown.code, shown.data["state"], shown.data["error"]) == (4, "broken", None)
    assert monitor.run("replication", "conflicts", "--json").code == 3, "not to know is not to have none"
    shared.ok("replication", "repair", "--yes")


def test_who_may_only_look_can_wait_and_compare(monitor: Site, shared: Site) -> None:
    before = beats(shared)
    assert monitor.run("replication", "wait", "--timeout", "20").code == 0
    assert monitor.run("replication", "wait", KEEP, "--timeout", "20").code == 0
    assert monitor.run("replication", "verify").code == 0
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set password = 'x', first_name = 'y' where id = 101")
    found = monitor.run("replication", "verify", "--rows", "--json")
    assert (found.code, found.row["row_id"], found.row["columns"]) == (4, 101, ["first_name", "password"])
    assert beats(shared) == before
    with held_up(shared):
        assert monitor.run("replication", "wait", "--timeout", "0.5").code == 3
    shared.ok("replication", "repair", "--yes")
    assert monitor.states() == {KEEP: "ok", REMOVE: "ok"}


def test_who_may_only_look_does_not_wait_for_wal_that_nobody_flushes(monitor: Site, shared: Site) -> None:
    with psycopg.connect(shared.portal_dsn) as writer:
        for number in range(3):  # without a commit PostgreSQL leaves the end of the WAL in memory for up to 15 s
            writer.execute(RENAME, [f"open {number}"])
            assert monitor.run("replication", "wait", "--timeout", "5").code == 0
        writer.rollback()


def test_writers_of_other_roles_are_seen_by_who_may_only_look(monitor: Site) -> None:
    with psycopg.connect(monitor.portal_dsn) as looker, monitor.portal.transaction():
        monitor.portal.execute(RENAME, ["seen"])
        pids = [row[0] for row in looker.execute(WRITING)]
    assert pids == [monitor.portal.info.backend_pid]


def test_a_server_whose_route_is_hidden_is_unknown_to_who_may_only_look(monitor: Site, shared: Site) -> None:
    route = f"{shared.server_dsn} password=geheim"
    shared.portal.execute("update rollbook.server set admin_dsn = %(route)s, moving_dsn = %(route)s", {"route": route})
    try:
        with psycopg.connect(monitor.portal_dsn) as looker:
            assert looker.execute("select admin_dsn, moving_dsn from rollbook.server_route").fetchall() == [
                (None, None)
            ]
        row = line(monitor)
        assert (row["state"], row["reason"]) == ("unknown", HIDDEN)
        assert monitor.run("server", "list", "--json").row["state"] == "unknown"
        shown = monitor.run("server", "show", "east", "--json")
        assert (shown.code, shown.data["admin_dsn"], shown.data["reason"]) == (4, None, HIDDEN)
        assert "geheim" not in shown.out + shown.err
        assert state(shared) == "ok"
    finally:
        shared.portal.execute("update rollbook.server set admin_dsn = %s, moving_dsn = null", [shared.server_dsn])


# --- the looks --------------------------------------------------------------------------------------------------------


def test_show_tells_the_stream_table_by_table(shared: Site) -> None:
    shown = shared.run("replication", "show", KEEP, "--json")
    assert (shown.code, shown.err) == (0, "")
    found = shown.data
    assert list(found) == [
        "course", "server", "state", "reason", "fix", "lag_bytes", "lag_seconds", "slot", "subscription", "tables",
        "error", "moving_to", "leaving",
    ]  # fmt: skip
    assert (found["course"], found["server"], found["state"], found["error"]) == (KEEP, "east", "ok", None)
    assert found["slot"]["slot_name"] == SLOT
    assert (found["subscription"]["name"], found["subscription"]["enabled"]) == (SLOT, True)
    assert found["subscription"]["worker"] is not None
    keys = ("table", "is_there", "copy", "lacking")
    assert [tuple(table[key] for key in keys) for table in found["tables"]] == [
        (name, True, "ready", []) for name in COPIED
    ]
    assert "ready" in shared.run("replication", "show", KEEP).out


def test_every_look_at_an_unknown_course_or_one_on_no_server_is_refused_in_parsable_words(shared: Site) -> None:
    shared.portal.execute("select rollbook.create_course('edX/here')")
    for command in ("status", "show", "wait", "canary", "conflicts", "pause", "resume", "verify", "resync"):
        result = shared.run("replication", command, "edX/toy/2013", "--json")
        assert (result.code, refusal(result)["why"]) == (1, f"the nearest is {REMOVE}"), command
    for command in ("wait", "canary", "conflicts", "pause", "resume", "resync"):
        result = shared.run("replication", command, "edX/here", "--json")
        assert (result.code, refusal(result)["message"]) == (1, "course edX/here is not on a server"), command
    shared.portal.execute("select rollbook.pause_course('edX/here')")
    resumed = shared.run("replication", "resume", "edX/here", "--json")
    assert refusal(resumed)["hint"] == "rollbook course resume 'edX/here'"
    shared.portal.execute("select rollbook.resume_course('edX/here')")
    shown = shared.run("replication", "show", "edX/here", "--json")
    assert (shown.code, shown.data["server"], shown.data["state"]) == (0, None, "ok")
    unknown = shared.run("replication", "pause", "--server", "weast", "--json")
    assert (unknown.code, refusal(unknown)["code"]) == (1, "refused")
    for command in ("pause", "resume"):
        assert refusal(shared.run("replication", command, "--json"))["exit_code"] == 2
    shared.portal.execute("select rollbook.drop_course('edX/here')")


def test_looks_at_a_portal_without_servers_are_empty_and_well(shared: Site, standing: Standing) -> None:
    with portal_database(standing.cluster, "no_servers", standing.template) as where:
        alone = Site(shared.portal, where, shared.server, shared.server_dsn, shared.call)
        for command in ("status", "wait", "canary", "slots", "conflicts"):
            result = alone.run("replication", command, "--json")
            assert (result.code, result.data, result.err) == (0, [], ""), command


def test_wait_returns_when_all_is_there_up_to_now_or_up_to_a_position(shared: Site) -> None:
    shared.portal.execute(RENAME, ["waited for"])
    waited = shared.run("replication", "wait", "--json")
    assert (waited.code, waited.err) == (0, "")
    assert [(list(row), row["course"], row["reached"]) for row in waited.data] == [
        (["course", "waited_seconds", "reached"], course, True) for course in (KEEP, REMOVE)
    ]
    assert shared.is_equal(KEEP)
    here = shared.portal.execute(
        "select pg_current_wal_lsn()::text, (pg_current_wal_lsn() + 2000000000)::text"
    ).fetchone()
    assert here is not None
    assert shared.run("replication", "wait", REMOVE, "--until", here[0], "--json").column("course") == [REMOVE]
    for position, code in (("nonsense", 2), ("", 2), (here[1], 1)):
        result = shared.run("replication", "wait", "--until", position, "--json")
        assert (result.code, refusal(result)["exit_code"]) == (code, code), position


def test_wait_and_canary_do_not_wait_for_ever_for_a_server_that_is_behind(shared: Site) -> None:
    with held_up(shared):
        began = time.monotonic()
        waited = shared.run("replication", "wait", "--timeout", "0.3", "--json")
        assert (waited.code, waited.column("reached"), waited.column("waited_seconds")) == (3, [False] * 2, [None] * 2)
        canary = shared.run("replication", "canary", KEEP, "--timeout", "0.3", "--json")
        assert (canary.code, canary.row) == (4, {"course": KEEP, "server": "east", "seconds": None, "state": "lagging"})
        assert time.monotonic() - began < 3
    canary = shared.run("replication", "canary", "--json")
    assert (canary.code, canary.column("state"), canary.err) == (0, ["ok", "ok"], "")
    assert all(0 < seconds < 2 for seconds in canary.column("seconds"))


def test_conflicts_names_what_stands_in_the_way_and_what_has_been_counted(shared: Site) -> None:
    number = poison(shared)
    stands_still(shared)
    found = shared.run("replication", "conflicts", "--json")
    assert found.code == 4
    first = found.data[0]
    assert list(first) == [
        "course", "server", "table", "key", "kind", "sqlstate", "message", "count", "resolution",
    ]  # fmt: skip
    assert (first["course"], first["server"], first["table"], first["key"], first["kind"], first["sqlstate"]) == (
        KEEP, "east", "auth_user", str(number), "insert", "23505",
    )  # fmt: skip
    assert "duplicate key" in first["message"]
    assert shared.run("replication", "conflicts", REMOVE, "--json").code == 4
    assert remedy(shared, first["resolution"]).code == 0
    until(lambda: any(row["message"] == "apply errors" and row["count"] for row in ask(shared, "conflicts")))
    after = shared.run("replication", "conflicts", "--json")
    assert (after.code, {row["kind"] for row in after.data}) == (0, {"counted"})
    assert line(shared)["error_count"] > 0


def test_pause_names_the_neighbours_and_twice_is_once(shared: Site) -> None:
    planned = shared.run("replication", "pause", KEEP, "-n", "--json")
    assert (planned.code, planned.column("outcome")) == (0, ["would pause"] * 2)
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    paused = shared.run("replication", "pause", KEEP, "--json")
    assert [list(row) for row in paused.data] == [["course", "server", "outcome", "held_bytes", "safe_bytes"]] * 2
    assert [(row["course"], row["server"], row["outcome"]) for row in paused.data] == [
        (KEEP, "east", "paused"), (REMOVE, "east", "paused"),
    ]  # fmt: skip
    assert "max_slot_wal_keep_size" in paused.err
    since = line(shared)["reason"]
    assert shared.run("replication", "pause", "--server", "east", "--json").column("outcome") == ["paused"] * 2
    assert line(shared)["reason"] == since
    waited = shared.run("replication", "wait", "--timeout", "5", "--json")
    assert (waited.code, waited.column("reached")) == (3, [False, False])
    for _ in range(2):
        resumed = shared.run("replication", "resume", REMOVE, "--json")
        assert (resumed.code, resumed.column("outcome")) == (0, ["resumed"] * 2)
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_stream_that_would_meet_an_error_is_resumed_and_refused_with_the_way_on(shared: Site) -> None:
    shared.ok("replication", "pause", KEEP)
    number = poison(shared)
    refused = shared.run("replication", "resume", KEEP, "--json")
    error = refusal(refused)
    words = f"server east cannot insert auth_user row {number} of course {KEEP}"
    assert (refused.code, error["message"]) == (1, words)
    row = line(shared)
    assert (row["state"], row["fix"]) == ("broken", error["hint"])
    assert remedy(shared, error["hint"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_watch_looks_again_as_often_as_it_is_told_and_sees_what_changes(shared: Site) -> None:
    watch = ("replication", "status", KEEP, "--watch", "0.2", "--format", "jsonl", "--fields", "course,state", "-d",
             shared.portal_dsn)  # fmt: skip
    with subprocess.Popen([PROGRAM, *watch], stdout=subprocess.PIPE, text=True, env=environment()) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["state"] == "ok"
        shared.ok("replication", "pause", KEEP)
        states = (json.loads(text)["state"] for text in watching.stdout)
        assert "paused" in states
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
    three = process(*watch, "--count", "3")
    shared.ok("replication", "resume", KEEP)
    assert (three.code, [json.loads(text)["state"] for text in three.out.splitlines()]) == (4, ["paused"] * 3)


def test_a_copy_whose_guard_is_gone_on_the_server_is_not_ok_and_the_printed_fix_puts_it_back(shared: Site) -> None:
    shared.server.execute(f"drop trigger rollbook_guard_copy on {KEEP_SCHEMA}.auth_user")
    row = line(shared)
    assert (row["state"], "the guard of auth_user is missing there" in row["reason"]) == ("unknown", True)
    assert remedy(shared, row["fix"]).code == 0
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    with pytest.raises(psycopg.errors.Error, match="auth_user"):
        shared.server.execute(f"update {KEEP_SCHEMA}.auth_user set email = 'x'")


def test_a_portal_without_a_free_slot_is_told_why_nothing_is_diagnosed(shared: Site) -> None:
    poison(shared)
    stands_still(shared)
    free = shared.portal.execute(
        "select current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)"
    ).fetchall()[0][0]
    for n in range(free):
        shared.portal.execute("select pg_create_physical_replication_slot(%s)", [f"taken_{n}"])
    try:
        row = line(shared)
        words = "the portal has no free replication slot: all "
        assert (row["state"], words in row["reason"]) == ("lagging", True), row
        assert row["fix"].startswith("on the portal: alter system set max_replication_slots = ")
        shared.server.execute("alter subscription rollbook_east disable")
        row = line(shared)
        assert (row["state"], row["fix"]) == ("broken", f"rollbook replication resume '{KEEP}'")
        assert row["reason"].startswith(f"its subscription was disabled; {words}")
        shared.server.execute("alter subscription rollbook_east enable")
    finally:
        shared.portal.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                              "where slot_name ~ '^taken'")  # fmt: skip
    shared.ok("replication", "repair", "--yes")
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
