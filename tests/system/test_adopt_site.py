"""A Django site adopted, in place and moved: what it is afterwards, what stops it, and the way back.

rollbook.portal_table finds the site's own table under each name.
"""

from __future__ import annotations

import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from rollbook.core.db import Session
from rollbook.core.db import session as open_session
from rollbook.core.errors import AdminError, RefusedError, UnreachableError
from rollbook.system import migration, portal_tables, schema_check
from rollbook.system.adoption import run as runs
from rollbook.system.adoption.plan import make_plan, plan_lines
from rollbook.system.adoption.run import adopt, rehearse
from rollbook.system.adoption.site import read_site
from rollbook.system.adoption.structure import blocked, structure
from rollbook.system.adoption.undo import undo
from rollbook.system.old_names import remarks
from tests.bench import adoption
from tests.conftest import Cluster
from tests.program import postgres_program
from tests.school import Rollbook
from tests.stock_site import fill_site, inside, make_site

pytestmark = pytest.mark.slow  # servers or sites of its own

Db = Connection[Any]


@contextmanager
def new_database(cluster: Cluster) -> Iterator[str]:
    """Yield the conninfo of an empty database that goes in the end."""
    name = sql.Identifier(f"site_{uuid.uuid4().hex[:10]}")
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(name))
        yield cluster.server.dsn(name.as_string().strip('"'))
        conn.execute(sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture
def site(cluster: Cluster) -> Iterator[str]:
    """An empty database."""
    with new_database(cluster) as dsn:
        yield dsn


@contextmanager
def program(dsn: str) -> Iterator[Session]:
    """Yield a session as a command has it."""
    with open_session(dsn, name="test", long=True) as conn:
        yield conn


def schema_of(dsn: str) -> str:
    """Return the definitions of everything, without what differs from dump to dump."""
    run = subprocess.run([postgres_program("pg_dump"), "-s", "-d", dsn], check=True, capture_output=True, text=True)
    return re.sub(r"(?m)^(\\|--).*\n", "", run.stdout)


def rows_of(dsn: str, schema: str) -> list[Any]:
    """Return the users and enrollments of the site, in order."""
    with psycopg.connect(dsn) as conn:
        query = "select u::text from {}.auth_user as u union all select e::text from {}.student_courseenrollment as e"
        home = sql.Identifier(schema)
        return sorted(conn.execute(sql.SQL(query).format(home, home)).fetchall())


def made(dsn: str, schema: str = "public", **how: int) -> None:
    """Make a site with people."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        make_site(conn, schema)
        fill_site(conn, schema, **how)


def adopted(dsn: str, schema: str = "public", **how: Any) -> runs.Report:
    """Adopt the site."""
    with program(dsn) as conn:
        return adopt(conn, read_site(conn, schema), **{"in_place": True, **how})


def findings(dsn: str) -> list[Any]:
    """Return what `schema check` and verify find."""
    with program(dsn) as conn:
        return [*schema_check.differences(conn), *conn.execute("select * from rollbook.verify()")]


WAYS = [
    pytest.param("public", True, id="in place"),
    pytest.param("public", False, id="moved"),
    pytest.param("My Site", True, id="in place, quoted", marks=pytest.mark.slow),
    pytest.param("portal", True, id="in schema portal", marks=pytest.mark.slow),
    pytest.param("My Site", False, id="moved, quoted", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("schema", "in_place"), WAYS)
def test_a_site_is_adopted_lives_on_and_goes_back(site: str, schema: str, in_place: bool) -> None:
    made(site, schema)
    before, rows = schema_of(site), rows_of(site, schema)
    report = adopted(site, schema, in_place=in_place)

    home = schema if in_place or schema == "portal" else "portal"
    assert (report.place, report.findings, report.left) == (home, 0, [])
    assert [row.before == row.after for row in report.rows if row.before is not None] == [True] * 9
    assert len(report.courses) == 3
    assert any("forum_post (user_id)" in words for words in report.followed)
    assert findings(site) == []
    with psycopg.connect(site, autocommit=True) as conn:
        inside(conn, home, """
            insert into auth_user (username, first_name, last_name, email, password, is_superuser, is_staff, is_active,
                date_joined) values ('ada', '', '', 'ada@example.org', 'x', false, false, true, now());
            insert into auth_userprofile (name, meta, courseware, language, location, avatar, user_id)
            select 'Ada', '', '', '', '', 'a.png', id from auth_user where username = 'ada';
            insert into student_courseenrollment (user_id, course_id, is_active)
            select id, 'edX/course0/2012', true from auth_user where username = 'ada';
            update auth_user set first_name = 'Ada' where username = 'ada'
        """)  # fmt: skip
        copy = "select u.first_name, p.name from course_edx_course0_2012.auth_user as u "
        copy += "join course_edx_course0_2012.auth_userprofile as p on p.user_id = u.id where u.username = 'ada'"
        assert conn.execute(copy).fetchone() == ("Ada", "Ada")
        inside(conn, home, "delete from auth_user where username = 'ada'")
        assert conn.execute(copy).fetchone() is None
    assert findings(site) == []

    with program(site) as conn:
        back = undo(conn)
    assert (back.left, rows_of(site, schema), schema_of(site)) == ([], rows, before)


def test_usernames_that_differ_in_capitals_stay_and_no_further_one_is_made(site: str) -> None:
    made(site)
    before = schema_of(site)
    new = """insert into auth_user (username, first_name, last_name, email, password, is_superuser, is_staff, is_active,
        date_joined) values (%s, '', '', '', 'x', false, false, true, now())"""
    with psycopg.connect(site, autocommit=True) as conn:
        for name in ("anna", "Anna", "Bob", "o'neil"):
            conn.execute(new, [name])
    with program(site) as conn:
        notes = [line["detail"] for line in plan_lines(make_plan(conn, None, in_place=True, widen=False))
                 if line["kind"] == "note"]  # fmt: skip
    assert notes == ["differ in case alone, and stay; no further one is made: anna"]
    assert adopted(site).left == []
    assert findings(site) == []
    with program(site) as conn:
        said = remarks(conn)
    assert "anna, Anna" in said[0]
    assert said[0].endswith("--username NAME")
    assert said[1].startswith("1 username from before")
    with psycopg.connect(site, autocommit=True) as conn:
        for name, state in (("ANNA", "23R14"), ("bob", "23505"), ("a/b", "23R13")):
            with pytest.raises(psycopg.IntegrityError) as refused:
                conn.execute(new, [name])
            assert refused.value.sqlstate == state
        conn.execute("update auth_user set last_login = now() where username in ('Anna', 'o''neil')")
        conn.execute("update auth_user set username = 'anna2' where username = 'Anna'")
        with program(site) as other:
            (found,) = portal_tables.differences(other)
        assert (found.object, found.difference) == (
            "auth_user_username_lower_key on public.auth_user", "is not the one shipped",
        )  # fmt: skip
        conn.execute(str(found.fix).encode())
        assert findings(site) == []
        with pytest.raises(psycopg.errors.UniqueViolation):
            conn.execute(new, ["ANNA"])
        conn.execute("delete from auth_user where username in ('anna', 'anna2', 'Bob', 'o''neil')")
    with program(site) as conn:
        undo(conn)
    assert schema_of(site) == before


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [True, False])
def test_an_adoption_that_is_stopped_after_each_step_goes_on(site: str, in_place: bool) -> None:
    made(site)
    before = schema_of(site)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    for _ in range(200):
        try:
            report = adopted(site, in_place=in_place, progress=stop)
        except KeyboardInterrupt:
            continue
        break
    assert (len(report.rows), findings(site)) == (11, [])
    with program(site) as conn:
        undo(conn)
    assert schema_of(site) == before


@pytest.mark.slow
def test_a_stopped_adoption_goes_back(site: str) -> None:
    made(site)
    before = schema_of(site)
    done: list[str] = []

    def stop(step: str) -> None:
        done.append(step)
        if len(done) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopted(site, progress=stop)
    with program(site) as conn:
        undo(conn)
    assert schema_of(site) == before


def test_a_rehearsal_changes_nothing(site: str) -> None:
    made(site)
    before = schema_of(site)
    for in_place in (True, False):
        with program(site) as conn:
            report = rehearse(conn, read_site(conn, "public"), in_place=in_place)
        assert (report.findings, len(report.courses), report.lock_seconds > 0) == (0, 3, True)
    assert schema_of(site) == before


def test_a_rehearsal_reports_how_long_it_locked_the_tables(site: str) -> None:
    made(site)

    def wait(_: str) -> None:
        time.sleep(0.1)

    with program(site) as conn:
        report = rehearse(conn, read_site(conn, "public"), in_place=True, progress=wait)  # tells of three courses
    assert report.lock_seconds > 0.3


def test_a_rehearsal_lets_a_transaction_finish_that_has_read_and_writes(site: str) -> None:
    made(site)
    with psycopg.connect(site) as user, program(site) as conn:
        user.execute("select from auth_user")

        def write(step: str) -> None:
            if "trying again" in step:
                user.execute("update auth_user set first_name = 'Ada' where id = 1")
                user.commit()

        report = rehearse(conn, read_site(conn, "public"), in_place=True, lock_timeout=0.1, progress=write)
    assert (report.findings, len(report.courses)) == (0, 3)


# What is done to the site -> what stops it, or a part of the error of the step that meets the row.
STOPS = {
    "alter table auth_user rename to people; create view auth_user as select * from people": "it is a view",
    "alter table auth_user alter last_login type timestamp": "timestamp without time zone",
    "alter table auth_userprofile alter year_of_birth type text": "it is text",
    "create schema portal; create table portal.auth_user (id integer)": "has something of this name",
    "create schema portal; create sequence portal.auth_user_id_seq": "has something of this name",
    "create table more () inherits (student_courseenrollment)": "it inherits or has children",
}


@pytest.mark.parametrize("change", STOPS)
def test_what_no_step_can_overcome_stops_the_adoption_at_once(site: str, change: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        inside(conn, "public", change)
    before = schema_of(site)
    with program(site) as conn:
        found = blocked(conn, "public", in_place=False)
    assert [STOPS[change] in each.reason for each in found] == [True]
    assert "drop" not in (found[0].fix or "")
    with pytest.raises(RefusedError, match=re.escape(found[0].object)):
        adopted(site, in_place=False)
    assert schema_of(site) == before


def test_a_row_that_slips_in_stops_a_step_cleanly_and_the_adoption_goes_on_after_it(site: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute("update auth_user set email = 'USER1@example.org' where username = 'user2'")
        with pytest.raises(RefusedError) as refused:
            adopted(site)
        assert ("auth_user_email_key" in refused.value.message, refused.value.fix) == (True, "rollbook schema adopt -n")
        assert conn.execute("select count(*) from pg_index where not indisvalid").fetchone() == (0,)
        conn.execute("update auth_user set email = '' where username = 'user2'")
    adopted(site)
    assert findings(site) == []


def test_a_text_that_slips_in_and_is_not_json_is_refused_as_a_row_without_its_words(site: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute("update auth_userprofile set meta = 'private words' where user_id = 2")
    with pytest.raises(RefusedError, match="invalid input syntax for type json") as refused:
        adopted(site)
    assert (refused.value.fix, "private" in f"{refused.value.message} {refused.value.why}") == (
        "rollbook schema adopt -n", False,
    )  # fmt: skip


def test_an_index_that_a_killed_adoption_left_is_built_again(site: str) -> None:
    made(site)
    before = schema_of(site)
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute("create unique index auth_user_email_key on auth_user (lower(email)) where email <> ''")
        conn.execute("update pg_index set indisvalid = false where indexrelid = 'auth_user_email_key'::regclass")
    adopted(site)
    assert findings(site) == []
    with program(site) as conn:
        undo(conn)
    assert schema_of(site) == before


# What is taken from an adopted site -> what `schema check` reports.
LOSSES = {
    "alter table auth_user alter is_staff drop default": "has the default None, not false",
    "drop index auth_user_email_key": "is missing",
    "alter table auth_userprofile drop constraint auth_userprofile_gender_check": "is missing",
    "alter table student_usertestgroup alter name type varchar(9)": "is character varying(9), not",
    "select setval('auth_user_id_seq', 1)": "gives 2 next, but",
    "alter table auth_user alter id drop identity": "has no identity",
    "alter table student_courseenrollment alter course_id drop not null": "may be null",
    "drop trigger rollbook_route_user_update on auth_user": "missing",
    "alter table student_courseenrollment disable trigger rollbook_route_enrollment_insert": "disabled, or",
}


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [True, False])
def test_schema_check_finds_what_an_adopted_site_lost_and_its_fix_works(site: str, in_place: bool) -> None:
    made(site)
    adopted(site, in_place=in_place)
    for change, words in LOSSES.items():
        if in_place and " type " in change:
            continue  # PostgreSQL refuses it, as the view reads the column
        with psycopg.connect(site, autocommit=True) as conn:
            inside(conn, "public" if in_place else "portal", change)
            with program(site) as session:
                found = schema_check.differences(session)
            assert [words in each.difference for each in found] == [True], (change, found)
            conn.execute(str(found[0].fix).encode())
        if "identity" in change:  # the new one begins at 1
            adopted_again = [each.fix for each in findings(site)]
            with psycopg.connect(site, autocommit=True) as conn:
                conn.execute(str(adopted_again[0]).encode())
        assert findings(site) == [], change


@pytest.mark.parametrize("shape", ["serial", "always", "owned by nobody", "text", "without keys"])
def test_other_shapes_of_a_site_are_judged_by_meaning(site: str, shape: str) -> None:
    with psycopg.connect(site, autocommit=True) as conn:
        make_site(conn)
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
            change = {
                "serial": "alter table {0} alter id drop identity; create sequence {0}_n owned by {0}.id; "
                "alter table {0} alter id set default nextval('{0}_n')",
                "owned by nobody": "alter table {0} alter id drop identity; create sequence {0}_n; "
                "alter table {0} alter id set default nextval('{0}_n')",
                "always": "alter table {0} alter id set generated always",
                "text": "",
                "without keys": "alter table {0} alter id drop identity",
            }[shape]
            conn.execute(change.format(table).encode())
        if shape == "text":
            conn.execute("alter table auth_user alter username type text, alter email type varchar(300)")
        if shape == "without keys":
            conn.execute("alter table auth_userprofile drop constraint auth_userprofile_pkey, "
                         "drop constraint auth_userprofile_user_id_key, alter meta drop not null")  # fmt: skip
        else:
            fill_site(conn)
    adopted(site)
    with psycopg.connect(site, autocommit=True) as conn:
        if shape == "without keys":
            fill_site(conn)
        conn.execute("insert into portal.auth_user (username) values ('new')")
    assert findings(site) == []


def test_columns_that_cannot_be_compared_and_generated_ones_are_in_nobodys_way(site: str) -> None:
    with psycopg.connect(site, autocommit=True) as conn:
        make_site(conn)
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
            conn.execute(
                sql.SQL(
                    "alter table {} add own json not null default '{{}}', "
                    "add twice bigint generated always as (id * 2) stored"
                ).format(sql.Identifier(table))
            )
        fill_site(conn)
    adopted(site)
    with psycopg.connect(site, autocommit=True) as conn:
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
            update = sql.SQL("update {} set own = {} where id = 1")
            for value in ("{}", "[]"):
                assert conn.execute(update.format(sql.Identifier(table), value)).rowcount == 1
        conn.execute("update auth_user set first_name = 'Ada', email = 'ada@example.com' where id = 1")
        assert conn.execute("select * from rollbook.verify()").fetchall() == []
    assert findings(site) == []


def test_ids_become_bigint_only_if_wanted(site: str) -> None:
    made(site)
    adopted(site, widen=True, in_place=False)
    with psycopg.connect(site) as conn:
        query = "select count(*) from pg_attribute where attrelid = any (select c.oid from pg_class as c where "
        query += "relnamespace = 'portal'::regnamespace and relkind = 'r') and attname ~ 'id$' and atttypid = 23"
        assert conn.execute(query + " and attname not in ('candidate_id', 'authorization_id')").fetchone() == (0,)
    assert findings(site) == []


def test_upgrade_points_to_adopt_where_there_is_a_site(site: str) -> None:
    made(site)
    before = schema_of(site)
    with pytest.raises(AdminError) as refused:
        migration.upgrade(site)
    assert ("public.auth_user" in refused.value.message, refused.value.fix) == (True, "rollbook schema adopt -n")
    assert schema_of(site).replace(before, "") == "" or "auth_userprofile" not in schema_of(site).replace(before, "")


@pytest.mark.parametrize("in_place", [True, False])
def test_an_adopted_site_is_downgraded_upgraded_and_not_dropped(site: str, in_place: bool) -> None:
    made(site)
    adopted(site, in_place=in_place, courses="none")
    migration.move(site, "0001", up=False)
    migration.upgrade(site)
    assert findings(site) == []
    migration.move(site, "0001", up=False)
    with pytest.raises(RefusedError) as refused:
        migration.move(site, "base", up=False)
    assert refused.value.fix == "rollbook schema adopt --undo"
    with program(site) as conn:
        undo(conn)
    assert len(rows_of(site, "public")) == 90


def test_the_tables_of_another_role_are_no_finding_and_stay_its_own(site: str) -> None:
    made(site)
    role = sql.Identifier(f"web_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {}").format(role))
        for (table,) in conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall():
            conn.execute(sql.SQL("alter table {} owner to {}").format(sql.Identifier(table), role))
        before = schema_of(site)
        for in_place in (True, False):
            adopted(site, in_place=in_place)
            assert findings(site) == []
            conn.execute(sql.SQL("set role {}").format(role))
            inside(conn, "public" if in_place else "portal", "update auth_user set first_name = 'x' where id = 1")
            conn.execute("reset role")
            with program(site) as session:
                assert undo(session).left == []
        assert schema_of(site) == before
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


def test_a_downgrade_to_base_is_refused_before_it_drops_a_course(site: str, rollbook: Rollbook) -> None:
    made(site)
    adopted(site)
    answer = rollbook("schema", "downgrade", "--to", "base", "--yes", dsn=site)
    assert (answer.code, "rollbook schema adopt --undo" in answer.err) == (1, True)
    assert findings(site) == []
    with psycopg.connect(site) as conn:
        assert conn.execute("select count(*) from rollbook.course").fetchone() == (3,)


def test_a_column_that_the_site_adds_later_travels_to_the_courses(site: str, rollbook: Rollbook) -> None:
    made(site)
    adopted(site)
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute("alter table public.auth_userprofile add column shoe text not null default ''")
        added = rollbook("shape", "column", "add", "auth_userprofile", "shoe", dsn=site)
        assert (added.code, added.err) == (0, "")
        conn.execute("update public.auth_userprofile set shoe = '44'")
        copies = conn.execute("select distinct shoe from course_edx_course0_2012.auth_userprofile").fetchall()
    assert copies == [("44",)]
    assert findings(site) == []


def test_who_reaches_the_tables_reaches_them_after_the_move(site: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        role = sql.Identifier(f"web_{uuid.uuid4().hex[:8]}")
        conn.execute(sql.SQL("create role {}").format(role))
        conn.execute(sql.SQL("grant select on auth_user to {}").format(role))
        adopted(site, in_place=False)
        conn.execute(sql.SQL("set role {}").format(role))
        assert conn.execute("select count(*) from portal.auth_user").fetchone() == (30,)
        conn.execute("reset role")
        with program(site) as session:
            assert undo(session).left == []
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


@pytest.mark.slow
def test_an_adopted_site_survives_dump_and_restore(site: str, cluster: Cluster, tmp_path: Any) -> None:
    made(site)
    adopted(site)
    subprocess.run([postgres_program("pg_dump"), "-Fc", "-f", str(tmp_path / "dump"), "-d", site], check=True)
    with new_database(cluster) as other:
        subprocess.run([postgres_program("pg_restore"), "-d", other, str(tmp_path / "dump")], check=True)
        assert findings(other) == []
        with program(other) as conn:
            assert structure(conn, "public", in_place=True, widen=False) == []


@pytest.mark.slow
def test_a_large_dirty_site_is_adopted_while_visitors_write(cluster: Cluster) -> None:
    with adoption.site(cluster.server, "large_site") as dsn:
        took = adoption.measured(dsn, adoption.by_program(in_place=True))  # asserts verify and the number of courses
        with psycopg.connect(dsn) as conn:
            counts = "select (select count(*) from auth_user), (select count(*) from student_courseenrollment), "
            counts += "(select count(*) from rollbook.history where command = 'schema adopt')"
            assert conn.execute(counts.encode()).fetchone() == (20000, 60000, 400)
        assert took.lock > 0
        with program(dsn) as conn:
            assert undo(conn, keep_fixes=True).left == []
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as conn:
        conn.execute("drop database large_site with (force)")


def test_a_lock_that_is_held_is_waited_for_again(site: str) -> None:
    made(site)
    with psycopg.connect(site) as holder:
        holder.execute("update auth_user set is_staff = false where id = 1")
        waited: list[str] = []

        def release(step: str) -> None:
            if "trying again" in step:
                waited.append(step)
                holder.rollback()

        adopted(site, lock_timeout=0.1, progress=release, courses="none")
    assert (bool(waited), findings(site)) == (True, [])


def test_who_holds_a_lock_to_the_end_is_named(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(site)
    monkeypatch.setattr(runs, "TRIES", 2)
    with psycopg.connect(site) as holder, program(site) as conn:
        holder.execute("select from auth_userprofile")
        with pytest.raises(UnreachableError) as error:
            rehearse(conn, read_site(conn, "public"), in_place=True, lock_timeout=0.1)
        pid = holder.info.backend_pid
        words = f"session {pid} of role postgres (idle in transaction) holds public.auth_userprofile"
        assert (error.value.message, words in str(error.value.why)) == ("rehearsal: a lock was not free", True)
        assert f"pg_terminate_backend({pid})" in str(error.value.fix)


def test_repairs_of_an_adoption_that_was_undone_are_not_those_of_the_next(site: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        conn.execute("update auth_userprofile set year_of_birth = 0 where user_id = 2")
        for year, repaired in ((0, 1), (None, 0), (5, 1)):
            conn.execute("update auth_userprofile set year_of_birth = %s where user_id = 2", [year])
            adopted(site, fixes=("year=null",) if year is not None else (), courses="none")
            history = "select count(*) from rollbook.history where command = 'schema adopt'"
            assert conn.execute(history).fetchone() == (repaired,)
            with program(site) as there:
                if repaired:
                    with pytest.raises(RefusedError, match="rows were repaired"):
                        undo(there)
                undo(there, keep_fixes=bool(repaired))
        assert conn.execute("select count(*), count(undone_at) from rollbook_adoption_fix").fetchone() == (2, 2)


def test_nobody_else_writes_what_an_undo_runs(site: str) -> None:
    made(site)
    with psycopg.connect(site, autocommit=True) as conn:
        web = f"web_{uuid.uuid4().hex[:8]}"
        conn.execute(f"create role {web}")
        try:
            conn.execute(f"grant create on schema public to {web}; set role {web}")
            conn.execute(
                "create table public.rollbook_adoption as select 'begun' as step, '' as undo, '{}'::jsonb as detail"
            )
            conn.execute("reset role")
            with pytest.raises(RefusedError, match="belongs to") as refused:
                adopted(site)
            conn.execute(str(refused.value.fix).split("in psql: ")[1])
            conn.execute("drop table public.rollbook_adoption")
            # Default privileges, and a GRANT ALL of later.
            conn.execute(f"alter default privileges in schema public grant all on tables to {web}")
            adopted(site, fixes=("year=null",))
            granted = "select c.oid::regclass from pg_class as c, aclexplode(c.relacl) as a "
            granted += f"where c.relname like 'rollbook_adoption%' and a.grantee = '{web}'::regrole"
            assert conn.execute(granted).fetchall() == []
            assert findings(site) == []
            conn.execute(f"grant all on all tables in schema public to {web}")
            with program(site) as there, pytest.raises(RefusedError, match="may write or read") as refused:
                undo(there, keep_fixes=True)
            fixes = [each.fix for each in findings(site) if each.object.startswith("public.rollbook_adoption")]
            assert fixes[0] == str(refused.value.fix).split("in psql: ")[1]
            for fix in fixes:
                conn.execute(fix)
            with program(site) as there:
                undo(there, keep_fixes=True)
        finally:
            conn.execute(f"reset role; drop owned by {web} cascade; drop role {web}")
