"""`rollbook doctor` with a course server: each trap is brought about, named, and gone once its printed fix has run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.program import KEEP, KEEP_SCHEMA, REMOVE_SCHEMA, postgres_program, snapshot
from tests.replication.conftest import Db, Site, remedy, until

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

A, B = KEEP_SCHEMA, REMOVE_SCHEMA
Finding = dict[str, Any]


@dataclass(frozen=True)
class Trap:
    """What is done on the portal (`here`) or on the server, and the line that names it."""

    harm: str
    check: str
    found: str
    where: str = "portal"
    since: int = 150000  # the version of PostgreSQL from which on it can be


def findings(site: Site, *arguments: str) -> list[Finding]:
    """What doctor finds, `ok` apart."""
    answer = site.run("doctor", "--json", *arguments)
    assert answer.code in (0, 3, 4), answer
    assert all(list(row) == ["check", "where", "state", "found", "wanted", "fix"] for row in answer.data)
    return list(answer.data)


def named(found: list[Finding], trap: Trap) -> list[Finding]:
    """The lines that name a trap."""
    return [each for each in found if (each["check"], each["where"]) == (trap.check, trap.where)
            and trap.found in each["found"]]  # fmt: skip


def follow(site: Site, finding: Finding) -> None:
    """Run what is printed, step by step, each at its place."""
    place = finding["where"]
    for printed in str(finding["fix"]).split("; or: ")[0].split("; then: "):
        step, side = printed, site.server if place == site.name else site.portal
        if found := re.match(r"on (the portal|server \w+): (.*)", step, re.DOTALL):
            side, step = site.portal if found[1] == "the portal" else site.server, found[2]
        if step.startswith("rollbook "):
            answer = remedy(site, step)
            assert answer.code == 0, (step, answer)
        elif re.match(r"(sed|chmod|echo) ", step):
            subprocess.run(["bash", "-c", step], check=True)
        else:
            run_sql(side, step)


def run_sql(side: Db, text: str) -> None:
    """Run statements one by one, as psql does: some do not run in a block of several."""
    for statement in filter(None, (part.strip() for part in re.split(r";(?=(?:[^']*'[^']*')*[^']*$)", text))):
        side.execute(statement.encode())


@contextmanager
def kept_settings(*sides: Db) -> Iterator[None]:
    """Put the settings back that fixes change with ALTER SYSTEM, and pg_hba.conf."""
    files = []
    for side in sides:
        row = side.execute("select current_setting('hba_file'), current_setting('data_directory')").fetchone()
        assert row is not None
        files += [(Path(name), Path(name).read_text()) for name in (row[0], f"{row[1]}/postgresql.auto.conf")]
    try:
        yield
    finally:
        for path, text in files:
            path.write_text(text)
        for side in sides:
            side.execute("select pg_reload_conf()")


PORTAL = [
    Trap("alter system set plan_cache_mode = force_custom_plan; select pg_reload_conf()", "setting", "plan_cache_mode"),
    Trap("alter system set wal_sender_timeout = 0; select pg_reload_conf()", "setting", "wal_sender_timeout"),
    Trap("alter system set track_counts = off; select pg_reload_conf()", "setting", "track_counts"),
    Trap("alter system set idle_replication_slot_timeout = '7d'; select pg_reload_conf()", "setting",
         "idle_replication_slot_timeout", since=180000),
    Trap("select pg_create_physical_replication_slot('dr_left', true)", "slot", "slot dr_left belongs to no server"),
    Trap("select pg_create_logical_replication_slot('pg_1_sync_2_3', 'pgoutput')", "slot", "pg_1_sync_2_3"),
    Trap("create publication rollbook_gone", "publication", "rollbook_gone belongs to no server"),
    Trap("alter publication rollbook_east set (publish = 'insert, update, delete, truncate')", "publication",
         "publishes TRUNCATE"),
    Trap("alter publication rollbook_east add table portal.auth_registration", "publication",
         "portal.auth_registration, which is not a copy"),
    Trap(f"alter publication rollbook_east drop table {B}.student_courseenrollment; alter publication rollbook_east "
         f"add table {B}.student_courseenrollment (id, user_id, course_id, created) where (id > 0)", "publication",
         "with a filter"),
    Trap("create publication dr_other for table portal.student_usertestgroup (name)", "identity",
         "whose list of columns lacks id"),
    Trap("create table portal.dr_note (t text); create publication dr_notes for table portal.dr_note", "identity",
         "has no primary key"),
    Trap("grant rollbook_writer to dr_team", "role", "dr_team is a member of rollbook_writer"),
    Trap("grant rollbook_application, rollbook_operator to dr_site", "role", "dr_site may act for rollbook_operator"),
    Trap("grant rollbook_owner to dr_dba", "role", "records nothing in the history"),
    Trap("", "role", "dr_dba may act for rollbook_owner and cannot create a course"),
    Trap("grant set on parameter session_replication_role to dr_dba", "role", "may turn the triggers off"),
    Trap("alter role dr_app superuser", "superuser", "1 session of superuser dr_app: django"),
    Trap(f"select rollbook.grant_course('{KEEP}', 'dr_team')", "idle", "role dr_team of a course"),
    Trap(f"create unique index dr_email on {A}.auth_user (email)", "unique index", "dr_email"),
    Trap(f"alter table {A}.auth_userprofile add constraint dr_name unique (name, user_id)", "unique index", "dr_name"),
    Trap(f"alter table {A}.auth_user add constraint dr_check check (email <> 'x')", "constraint", "check dr_check"),
    Trap(f"alter table {A}.auth_user add dr_room text default '1' not null; alter table {A}.auth_user alter dr_room "
         "drop default", "constraint", "column dr_room"),
    Trap(f"create table {A}.dr_answer (user_id bigint constraint dr_fk references {A}.auth_user)", "constraint",
         "foreign key dr_fk"),
    Trap(f"alter table {B}.auth_user alter id add generated by default as identity", "constraint", "is an identity"),
    Trap("update rollbook.heartbeat set sent_at = sent_at - interval '2 hours'", "heartbeat", "the last heartbeat"),
    Trap("delete from rollbook.verification; update rollbook.course set created_at = now() - interval '2 days'",
         "verify", "2 of 2 courses were not compared"),
    Trap("create schema dr_old authorization rollbook_owner", "left-over", "schema dr_old"),
    Trap("alter function rollbook.beat() security invoker", "function", "rollbook.beat"),
    Trap("", "setting", "max_slot_wal_keep_size is -1"),  # as the servers of tests have it
]  # fmt: skip

SERVER = [
    Trap("alter system set timezone = 'Asia/Tokyo'; select pg_reload_conf()", "time zone",
         "the time zone is Asia/Tokyo"),
    Trap("alter system set wal_receiver_timeout = 0; select pg_reload_conf()", "setting", "wal_receiver_timeout"),
    Trap("alter subscription rollbook_east set (disable_on_error = true)", "subscription", "stops at each error"),
    Trap("alter subscription rollbook_east set (synchronous_commit = off)", "subscription", "does not flush"),
    Trap("alter subscription rollbook_east set (run_as_owner = true)", "subscription",
         "runs the triggers of courses as", since=160000),
    Trap("create subscription rollbook_other connection 'dbname=x' publication x with (connect = false)",
         "subscription", "rollbook_other is of another"),
    Trap("set allow_system_table_mods = on; insert into pg_replication_origin values (60000, 'pg_99999_1'); "
         "reset allow_system_table_mods", "origin", "pg_99999_1 belongs to no subscription"),
    Trap("comment on schema rollbook is 'Rollbook: version 0'", "server version", "of another version"),
    Trap(f"create unique index dr_email on {A}.auth_user (email) where email <> ''", "unique index", "dr_email"),
    Trap(f"alter table {A}.auth_user add constraint dr_name unique (username) deferrable", "unique index",
         "is deferrable: the worker does not check it"),
    Trap(f"alter table {A}.auth_user add constraint dr_check check (email <> 'x')", "constraint", "check dr_check"),
    Trap("create function public.dr_note() returns trigger language plpgsql as 'begin return null; end'; "
         f"create trigger dr_statement after insert on {A}.auth_user execute function public.dr_note(); "
         f"alter table {A}.auth_user enable always trigger dr_statement", "trigger", "dr_statement"),
    Trap(f"create trigger dr_row after insert on {A}.auth_user for each row execute function public.dr_note(); "
         f"alter table {A}.auth_user enable replica trigger dr_row", "trigger", "calls public.dr_note()"),
    Trap("create schema dr_old authorization rollbook_owner", "left-over", "schema dr_old"),
    Trap("grant trigger on rollbook.heartbeat to dr_team", "grant", "dr_team may add triggers"),
    Trap("alter role dr_team set session_replication_role = replica", "setting", "role dr_team"),
]  # fmt: skip
SERVER = [replace(trap, where="east") for trap in SERVER]

# Local objects that stop nothing: an index of rows of the course's own, and a column without a duty.
HARMLESS = f"""
alter table {A}.auth_user add dr_own text;
create unique index dr_fine on {A}.auth_user (dr_own);
create unique index dr_mine on {A}.auth_user (email) where dr_own is not null;
create unique index dr_key on {A}.auth_user (id, email);
"""

ROLES = ("dr_team", "dr_site", "dr_dba", "dr_app")


@pytest.fixture
def roles(shared: Site) -> Iterator[Site]:
    """The shared site with roles on both sides, which go in the end."""
    for side in (shared.portal, shared.server):
        for role in ROLES:
            side.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    yield shared
    for side in (shared.portal, shared.server):
        for role in ROLES:
            side.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(role)))


def dump(dsn: str) -> str:
    """A database as pg_dump sees it."""
    done = subprocess.run([postgres_program("pg_dump"), dsn], check=True, capture_output=True, text=True)
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def test_each_trap_is_named_and_gone_once_its_fix_has_run(roles: Site) -> None:
    site = roles
    version = site.portal.info.server_version
    site.wait()
    known = findings(site)
    with (
        kept_settings(site.portal, site.server),
        psycopg.connect(site.portal_dsn.replace("user=postgres", "user=dr_app"), application_name="django"),
    ):
        for side, traps in ((site.portal, PORTAL), (site.server, SERVER)):
            run_sql(side, HARMLESS)
            for trap in traps:
                if trap.since <= version:
                    run_sql(side, trap.harm)
        traps = [trap for trap in (*PORTAL, *SERVER) if trap.since <= version]
        found = findings(site)
        assert [trap for trap in traps if len(named(found, trap)) != 1] == []
        wanted = [each for trap in traps for each in named(found, trap)]
        new = [each for each in found if each not in known and each not in wanted]
        assert [each for each in new if "dr_" in each["found"] and "dr_dba" not in each["found"]] == []
        before = (snapshot(site.portal), dump(site.portal_dsn), dump(site.server_dsn))
        assert site.run("doctor").code == 4
        assert (snapshot(site.portal), dump(site.portal_dsn), dump(site.server_dsn)) == before
        for each in wanted:
            follow(site, each)
        left = findings(site)
        assert [each for trap in traps for each in named(left, trap)] == []
        site.wait()
        assert site.is_equal(KEEP)
    for side in (site.portal, site.server):
        run_sql(side, f"alter table {A}.auth_user drop column dr_own; drop index {A}.dr_key; "
                      f"alter table {A}.auth_user drop column if exists dr_room; drop table if exists {A}.dr_answer; "
                      "drop publication if exists dr_other; drop table if exists portal.dr_note; "
                      "drop function if exists public.dr_note() cascade")  # fmt: skip


def test_a_stream_that_lost_a_part_is_rebuilt_by_what_is_printed(shared: Site) -> None:
    site = shared
    harms = [
        (site.server, "alter subscription rollbook_east disable", "subscription", "is disabled", "east"),
        (site.portal, "drop publication rollbook_east", "publication", "of server east is gone", "portal"),
        (site.portal, "drop publication rollbook_east; create publication rollbook_east for all tables", "publication",
         "lists all tables", "portal"),
        (site.server, "alter subscription rollbook_east disable; "
                      "alter subscription rollbook_east set (slot_name = none); drop subscription rollbook_east",
         "subscription", "rollbook_east is gone", "east"),
    ]  # fmt: skip
    for side, harm, check, found, where in harms:
        run_sql(side, harm)
        trap = Trap(harm, check, found, where)
        (line,) = named(findings(site, KEEP), trap)
        follow(site, line)
        assert named(findings(site, KEEP), trap) == [], harm
        site.run("replication", "resync", KEEP, "--yes")
        site.wait()
    assert site.is_equal(KEEP)


def test_a_course_is_looked_at_alone_with_its_server_and_the_portal(shared: Site) -> None:
    site = shared
    for side in (site.portal, site.server):
        run_sql(side, f"create unique index dr_keep on {A}.auth_user (email); "
                      f"create unique index dr_remove on {B}.auth_user (email); "
                      f"alter table {B}.auth_user disable trigger rollbook_guard_copy")  # fmt: skip
    try:
        words = [each["found"] for each in findings(site, KEEP)]
        assert sum("dr_keep" in each for each in words) == 2
        assert [each for each in words if B in each] == []
        assert sum(B in each["found"] for each in findings(site)) >= 4
        assert site.run("doctor", "x/y").code == 1
        site.portal.execute("update rollbook.server set admin_dsn = 'host=/nonexistent dbname=x'")
        answer = site.run("doctor", "--json", KEEP)
        assert answer.code == 3
        (line,) = [each for each in answer.data if each["check"] == "server"]
        assert (line["where"], line["state"], line["fix"]) == ("east", "unknown", "rollbook server ping east")
        assert "dr_keep" in answer.out
    finally:
        site.portal.execute("update rollbook.server set admin_dsn = %s", [site.server_dsn])
        for side in (site.portal, site.server):
            run_sql(side, f"drop index {A}.dr_keep; drop index {B}.dr_remove; "
                          f"alter table {B}.auth_user enable trigger rollbook_guard_copy")  # fmt: skip


def test_the_login_of_a_subscription_has_its_rights_and_no_others(shared: Site) -> None:
    site = shared
    superuser = Trap("", "superuser", "the subscription of server east logs in as superuser postgres")
    backup = Trap("", "base backup", "may copy the whole cluster")
    reader = "select usename from pg_stat_replication where application_name = 'rollbook_east'"
    with kept_settings(site.portal):
        try:
            site.wait()
            (line,) = named(findings(site), superuser)
            follow(site, line)
            until(lambda: site.portal.execute(reader).fetchone() == ("east_stream",))
            site.wait()
            found = findings(site)
            assert named(found, superuser) == []
            (line,) = named(found, backup)
            follow(site, line)
            rows = "select count(*) from pg_hba_file_rules where error is not null"
            assert site.portal.execute(rows).fetchone() == (0,)
            run_sql(site.portal, "alter role east_stream createdb createrole bypassrls; grant pg_monitor to "
                                 "east_stream;"
                                 f"revoke all on all tables in schema {A} from east_stream")  # fmt: skip
            found = findings(site)
            assert named(found, backup) == []
            lines = [each for each in found if each["check"] == "subscription login"]
            assert sorted(each["found"].split("east_stream ")[1] for each in lines) == [
                "of a subscription has BYPASSRLS", "of a subscription has CREATEDB", "of a subscription has CREATEROLE",
                "of a subscription has membership in pg_monitor", f"of server east may not read {A}, {A}, {A}",
            ]  # fmt: skip
            for line in lines:
                follow(site, line)
            assert [each for each in findings(site) if each["check"] == "subscription login"] == []
        finally:
            site.portal.execute("update rollbook.server set subscription_dsn = %s", [site.portal_dsn])
            connection = sql.SQL("alter subscription rollbook_east connection {}").format(site.portal_dsn)
            site.server.execute(connection)
            until(lambda: site.portal.execute(reader).fetchone() == ("postgres",))
            site.portal.execute("drop owned by east_stream; drop role east_stream")


def test_open_lines_of_pg_hba_are_named_and_closed(shared: Site) -> None:
    site = shared
    row = site.server.execute("select current_setting('hba_file')").fetchone()
    assert row is not None
    with kept_settings(site.portal, site.server):
        path = Path(row[0])
        path.write_text(path.read_text() + "host all all 192.0.2.0/24 trust\nhost all all 192.0.2.7/32 password\n"
                        "host all all 198.51.100.0/24 nonsense\n")  # fmt: skip
        lines = [each for each in findings(site) if each["check"] == "pg_hba"]
        assert sorted(each["found"].split(path.name)[1][:20] for each in lines) == [
            " is wrong, and none ", " lets in other machi", " lets passwords cros",
        ]  # fmt: skip
        for line in lines:
            follow(site, line)
        assert [each for each in findings(site) if each["check"] == "pg_hba"] == []
        query = "select auth_method from pg_hba_file_rules where address like '192.0.2.%' order by line_number"
        assert site.server.execute(query).fetchall() == [("scram-sha-256",)] * 2


def test_who_may_not_look_is_told_the_grant_that_lets_it(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site = shared
    for side in (site.portal, site.server):
        side.execute("create role dr_looker login; grant rollbook_monitor to dr_looker")
    site.portal.execute("update rollbook.server set admin_dsn = %s", [site.server_dsn.replace(" user=postgres", "")])
    monkeypatch.setenv("PGUSER", "dr_looker")
    looker = replace(site, portal_dsn=site.portal_dsn.replace("user=postgres", "user=dr_looker"))
    try:
        answer = looker.run("doctor", "--json")
        assert answer.code == 4
        hidden = [each for each in answer.data if each["state"] == "unknown"]
        assert {(each["check"], each["where"]) for each in hidden} == {
            *((check, where) for check in ("WAL", "pg_hba", "transaction") for where in ("portal", "east")),
            ("standby", "portal"),
        }
        assert "7 checks could not be made" in answer.err
        for each in hidden:
            follow(site, each)
        after = looker.run("doctor", "--json").data
        assert [each for each in after if each["state"] == "unknown"] == []
        assert any(each["check"] == "base backup" for each in after)
    finally:
        site.portal.execute("update rollbook.server set admin_dsn = %s", [site.server_dsn])
        for side in (site.portal, site.server):
            side.execute("drop owned by dr_looker; drop role dr_looker")


def test_what_removed_servers_have_left_is_found_as_long_as_they_answer(site: Site) -> None:
    site = replace(site, name="west")  # the cluster has a slot of the shared site
    site.add()
    site.attach(KEEP)
    site.portal.execute("update rollbook.server set admin_dsn = 'host=/nonexistent dbname=x'")
    assert site.run("server", "remove", "west", "--unreachable", "--yes").code == 5
    (line,) = [each for each in findings(site) if each["check"] == "left-over"]
    assert line["found"] == f"it was removed, and still has subscription rollbook_west, schema {A}"
    follow(site, line)
    assert [each for each in findings(site) if each["check"] == "left-over"] == []
    assert [word for word in site.remains() if word.startswith("server")] == []
    site.portal.execute(
        "update rollbook.history set after = jsonb_set(after, '{admin_route}', '\"host=/nonexistent dbname=x\"') "
        "where object = 'west' and after ? 'admin_route'"
    )
    answer = site.run("doctor", "--json")
    (line,) = [each for each in answer.data if each["check"] == "left-over"]
    assert (answer.code, line["state"], line["where"]) == (4, "unknown", "west")
    site.portal.execute("delete from rollbook.history")


def test_changes_that_found_no_row_and_other_portals_are_named(shared: Site) -> None:
    site = shared
    if site.server.info.server_version >= 180000:
        trap = Trap("", "missed changes", "1 updates and deletes", "east")
        site.as_worker(f"delete from {A}.auth_userprofile where user_id = 101; "
                       f"delete from {A}.auth_user where id = 101")  # fmt: skip
        site.portal.execute("update portal.auth_user set first_name = 'Missed' where id = 101")
        site.wait()
        until(lambda: bool(named(findings(site), trap)))
        (line,) = named(findings(site), trap)
        follow(site, line)
        assert named(findings(site), trap) == []
        assert site.is_equal(KEEP)
    site.portal.execute("update rollbook.server set portal_identity = '1/1'")
    (line,) = [each for each in findings(site) if each["check"] == "portal"]
    assert line["fix"].endswith("rollbook server add east ... --take-over")
    site.ok("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn,
            "--take-over")  # fmt: skip
    assert [each for each in findings(site) if each["check"] == "portal"] == []
