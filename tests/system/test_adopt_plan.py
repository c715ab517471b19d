"""`rollbook schema adopt`: the plan, what stops it, and the whole way with repairs: history, again, and back."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql

from rollbook.system.adoption.repairs import REPAIRS
from tests.django_site import DIRTY, LOOSE, add_clean
from tests.program import ROOT, Result
from tests.school import Rollbook

Db = Connection[Any]

FIXES = (
    "username=underscore,email=blank-younger,email-form=blank,gender=letter,level=other,meta=wrap,year=null,"
    "course=delete,allowed=delete,group=id,taken=id-younger,request=delete,key=renew"
)


def content(site: Db) -> dict[str, list[Any]]:
    """Every row of every table of the site, and what else there is in its database."""
    tables = site.execute(
        """select c.oid::regclass::text from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'v') and n.nspname !~ '^(pg_|information_schema)' order by 1"""
    ).fetchall()
    query = sql.SQL("select t::text from {} as t order by 1")
    return {table: site.execute(query.format(sql.SQL(table))).fetchall() for (table,) in tables}


def lines(answer: Result, kind: str, *names: str) -> list[tuple[Any, ...]]:
    """The lines of one kind of a JSON answer."""
    return [tuple(line[name] for name in names) for line in answer.data if line["kind"] == kind]


def test_the_plan_shows_everything_at_once_and_changes_nothing(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    add_clean(site)
    site.execute(DIRTY)
    site.execute(
        """create view people as select username from auth_user; create materialized view ages as
            select year_of_birth from auth_userprofile;
        create function noted() returns trigger language plpgsql as 'begin return new; end';
        create trigger noted before update on auth_user for each row execute function noted();
        create publication forum for table auth_user, forum_post"""
    )
    before, where, file = content(site), site.info.dsn, tmp_path / "faults.csv"

    plan = rollbook("schema", "adopt", "--dry-run", "--json", "--rejects", str(file), dsn=where)
    assert plan.code == 4
    assert plan.err == "the Django site in schema public cannot be adopted yet: 40 faults in rows, of 15 kinds\n"
    assert lines(plan, "table", "object", "rows", "detail")[:4] == [
        ("auth_user", 11, "columns equal: 10; other type: id integer; keys: 2"),
        ("auth_userprofile", 9, "columns equal: 10; other type: id integer, user_id integer; extra: city; keys: 3"),
        ("auth_registration", 2, "columns equal: 1; other type: id integer, user_id integer; "
                                 "missing: created_at, expires_at, activated_at; keys: 4"),
        ("student_courseenrollment", 5, "columns equal: 2; other type: id integer, user_id integer; keys: 3"),
    ]  # fmt: skip
    assert lines(plan, "table", "object", "rows", "detail")[-1] == (
        "student_testcenterregistration", None, "missing: is made",
    )  # fmt: skip
    references = lines(plan, "reference", "object", "detail")
    assert ("public.forum_post", "(author_id) refers to auth_user, on delete no action: stays") in references
    assert len([detail for _, detail in references if detail.endswith("becomes cascade")]) == 7
    assert lines(plan, "dependent", "object", "detail") == [
        ("forum", "publication of auth_user: stays"),
        ("noted", "trigger of auth_user: stays"),
        ("public.people", "view of auth_user: stays"),
        ("public.ages", "materialized view of auth_userprofile: stays"),
    ]
    assert ("public.auth_user_id_seq", "next 5, largest 107: is advanced") in lines(
        plan, "sequence", "object", "detail"
    )
    steps = lines(plan, "step", "object", "detail", "is_online", "seconds")
    assert ("index auth_user_email_key on auth_user", "on auth_user", True, 0.0) in steps
    assert ("default of auth_user.email", "on auth_user", False, 0.0) in steps
    assert lines(plan, "fault", "rule", "object", "rows", "ids", "fix")[2] == (
        "email", "auth_user.email", 3, [101, 102, 103], "--fix email=blank-younger (or blank-older, blank-idle)",
    )  # fmt: skip
    with file.open(newline="") as written:
        assert len(list(csv.reader(written))) == 41

    repaired = rollbook("schema", "adopt", "-n", "--json", "--fix", FIXES, dsn=where)
    assert (repaired.code, repaired.err) == (0, "the Django site in schema public can be adopted\n")
    assert lines(repaired, "fault", "rule") == []
    assert lines(repaired, "repair", "object", "rule", "rows", "detail")[:2] == [
        ("auth_user.username", "username", 4, "--fix username=underscore"),
        ("auth_user.email", "email-form", 3, "--fix email-form=blank"),
    ]
    half = rollbook("schema", "adopt", "-n", "--json", "--fix", "username=underscore", dsn=where)
    assert (half.code, len(lines(half, "fault", "rule"))) == (4, 14)

    refused = rollbook("schema", "adopt", "--fix", "username=underscore", dsn=where)
    assert refused.code == 1
    assert "year: 5 rows of auth_userprofile, id 201, 202, 203, 204, 205\n" in refused.err
    fixes = refused.err.partition("fix:")[2].split("\n")
    assert fixes[0].strip() == "rollbook schema adopt --fix username=underscore --dry-run --rejects faults.csv"
    command = fixes[1].strip().removeprefix("rollbook ").split()
    assert rollbook(*command, "-n", dsn=where).code == 0  # what it prints repairs everything
    assert content(site) == before


@pytest.mark.parametrize("more", [[], ["--widen"]])
def test_the_steps_of_the_plan_fit_into_80_columns(rollbook: Rollbook, site: Db, more: list[str]) -> None:
    add_clean(site)
    plan = rollbook("schema", "adopt", "-n", "--format", "table", *more, dsn=site.info.dsn)
    steps = plan.out.partition("\nsteps\n")[2].partition("\n\n")[0].split("\n")
    assert (len(steps) > 10, max(map(len, steps)) <= 80) == (True, True)
    assert ("ACCESS EXCLUSIVE, rewritten" in plan.out) == bool(more)


def test_options_that_do_not_fit(rollbook: Rollbook, site: Db) -> None:
    site.execute(
        """create schema other; create table other.auth_user (id int, username text, email text, password text);
        create table other.django_migrations ()"""
    )
    for arguments, code, words in [
        (["--fix", "email=first"], 2, "there is no repair email=first"),
        (["-n"], 2, "several schemas have a Django site: other, public"),
        (["-n", "--from", "nowhere"], 1, "schema nowhere has no Django table auth_user"),
        (["--in-place", "--to", "portal"], 2, "--in-place and --to exclude each other"),
        (["--to", "public"], 2, "--to takes portal, not public"),
        (["--keep-fixes"], 2, "--keep-fixes goes with --undo"),
        (["-n", "--lock-timeout", "soon"], 2, "--lock-timeout takes a time above zero, not soon"),
        (["-n", "--from", "public", "--lock-timeout", "0"], 2, "--lock-timeout takes a time above zero, not 0"),
        (["--undo", "--yes"], 1, "no site was adopted in this database"),
        (["-n", "--from", "public", "--lock-timeout", "500ms"], 0, "the Django site in schema public can be adopted"),
    ]:
        answer = rollbook("schema", "adopt", *arguments, dsn=site.info.dsn)
        assert (answer.code, words in answer.err) == (code, True), (arguments, answer.err)
    site.execute("drop schema other cascade; drop schema public cascade; create schema public")
    assert "there is no Django site" in rollbook("schema", "adopt", "-n", dsn=site.info.dsn).err


def test_an_undo_where_nothing_was_adopted_points_to_nothing_that_drops(
    rollbook: Rollbook, site: Db, db: Db, dsn: str
) -> None:
    add_clean(site)
    refused = rollbook("schema", "adopt", "--undo", "--yes", dsn=site.info.dsn)
    assert (refused.code, refused.err.splitlines()[-1]) == (1, "fix:   rollbook schema adopt --dry-run")
    assert db.execute("select to_regnamespace('rollbook') is not null").fetchone() == (True,)
    installed = rollbook("schema", "adopt", "--undo", "--yes", dsn=dsn)
    assert (installed.code, "nothing to undo" in installed.err, "fix:" in installed.err) == (1, True, False)


def test_an_empty_portal_beside_the_site_is_refused_and_goes_again(
    rollbook: Rollbook, site: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_clean(site)
    where = site.info.dsn
    refused = rollbook("schema", "upgrade", dsn=where)
    assert (refused.code, "rollbook schema adopt -n" in refused.err) == (1, True)
    monkeypatch.setenv("PGOPTIONS", "-c rollbook.beside=on")
    assert rollbook("schema", "upgrade", dsn=where).code == 0
    beside = rollbook("schema", "adopt", "-n", "--json", dsn=where)
    ((reason, fix),) = lines(beside, "obstacle", "detail", "fix")
    assert reason == "Rollbook is installed in this database: it has a portal of its own, with 0 accounts"
    assert rollbook(*fix.removeprefix("rollbook ").split(), "--yes", dsn=where).code == 0
    assert rollbook("schema", "adopt", "-n", dsn=where).code == 0


def test_the_portal_of_rollbook_is_not_a_site(rollbook: Rollbook, db: Db, dsn: str) -> None:
    db.execute("select rollbook.create_course('edX/toy/2013')")
    db.execute("insert into portal.auth_user (username) values ('ada')")
    none = rollbook("schema", "adopt", "-n", dsn=dsn)
    assert (none.code, "there is no Django site" in none.err) == (1, True)
    db.execute("create table public.auth_user (id int primary key, username text, email text, password text)")
    beside = rollbook("schema", "adopt", "-n", "--json", dsn=dsn)
    assert (beside.code, "of its own, with 1 accounts" in beside.out) == (4, True)


def test_a_site_moved_by_hand_that_only_says_it_is_rollbooks_is_adopted(rollbook: Rollbook, site: Db) -> None:
    add_clean(site)
    site.execute("alter schema public rename to portal; create schema public")
    site.execute("create table public.rollbook_revision (version_num varchar(32) primary key)")
    site.execute("insert into public.rollbook_revision values ('0001')")
    refused = rollbook("schema", "upgrade", dsn=site.info.dsn)
    assert (refused.code, "rollbook schema adopt" in refused.err) == (1, True)
    plan = rollbook("schema", "adopt", "-n", "--json", dsn=site.info.dsn)
    ((reason, fix),) = lines(plan, "obstacle", "detail", "fix")
    assert reason.endswith("but the tables in schema portal are Django's")
    site.execute(fix.encode())
    assert rollbook("schema", "adopt", "-n", dsn=site.info.dsn).code == 0


def test_a_role_without_rights_gets_no_half_of_a_plan(rollbook: Rollbook, site: Db) -> None:
    add_clean(site)
    site.execute("drop role if exists rb_reader; create role rb_reader login; grant select on auth_user to rb_reader")
    try:
        answer = rollbook("schema", "adopt", "-n", dsn=f"{site.info.dsn} user=rb_reader")
        assert (answer.code, answer.out, "permission denied" in answer.err) == (3, "", True)
        assert answer.err.endswith("fix:   run it as the role postgres\n")  # nobody is told to grant a superuser
        site.execute("grant select on all tables in schema public to rb_reader")
        site.execute("grant select on all sequences in schema public to rb_reader")
        reader = rollbook("schema", "adopt", "-n", "--json", dsn=f"{site.info.dsn} user=rb_reader")
        assert (reader.code, lines(reader, "fault", "rule")) == (4, [])
        assert ("public.auth_user", "it belongs to postgres") in lines(reader, "obstacle", "object", "detail")
        site.execute("alter table auth_user enable row level security")
        hidden = rollbook("schema", "adopt", "-n", dsn=f"{site.info.dsn} user=rb_reader")
        assert (hidden.code, hidden.out, "row-level security" in hidden.err) == (3, "", True)
    finally:
        site.execute("drop owned by rb_reader; drop role rb_reader")


def test_a_role_without_rights_is_told_which_role_owns_the_site(rollbook: Rollbook, site: Db) -> None:
    add_clean(site)
    site.execute('create role "rb Owner"; create role rb_visitor login')
    try:
        for (table,) in site.execute("select tablename from pg_tables where schemaname = 'public'").fetchall():
            site.execute(sql.SQL('alter table {} owner to "rb Owner"').format(sql.Identifier(table)))
        where = f"{site.info.dsn} user=rb_visitor"
        answer = rollbook("schema", "adopt", "-n", dsn=where)
        before, _, grant = answer.err.partition("fix:   in psql, as a DBA: ")
        assert (answer.code, "permission denied" in before, grant) == (3, True, 'grant "rb Owner" to rb_visitor;\n')
        site.execute(grant.encode())
        plan = rollbook("schema", "adopt", "-n", "--json", dsn=where)
        assert (plan.code, bool(lines(plan, "table", "object"))) == (4, True)  # what else is missing are obstacles
    finally:
        site.execute('drop owned by "rb Owner", rb_visitor cascade; drop role "rb Owner", rb_visitor')


def test_other_types_and_names_are_obstacles_not_errors_and_nothing_is_deleted_for_them(
    rollbook: Rollbook, site: Db
) -> None:
    add_clean(site)
    site.execute(LOOSE)
    site.execute(
        """alter table student_courseenrollment rename user_id to student_id;
        alter table auth_userprofile alter year_of_birth type text;
        alter table auth_user alter is_staff type integer using is_staff::integer;
        alter table auth_registration alter user_id type text; alter table student_usertestgroup drop column name;
        alter table forum_post drop constraint if exists forum_post_author_id_609b7963_fk_auth_user_id;
        alter table student_pendingnamechange alter id drop identity;
        alter table student_pendingnamechange alter id type text"""
    )
    plan = rollbook("schema", "adopt", "-n", "--json", dsn=site.info.dsn)
    assert (plan.code, lines(plan, "fault", "rule", "object")) == (4, [])
    assert {name for (name,) in lines(plan, "obstacle", "object")} >= {
        "public.student_courseenrollment.user_id", "public.auth_userprofile.year_of_birth",
        "public.auth_user.is_staff", "public.auth_registration.user_id", "public.student_usertestgroup.name",
        "public.student_pendingnamechange.id",
    }  # fmt: skip
    site.execute("alter table auth_user alter id drop identity; alter table auth_user alter id type text")
    assert rollbook("schema", "adopt", "-n", dsn=site.info.dsn).code == 4


def test_every_repair_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "adoption.md").read_text()
    assert [f"{rule}={word}" for rule in REPAIRS for word in REPAIRS[rule] if f"{rule}={word}" not in text] == []


@pytest.mark.slow  # it adopts twice
def test_the_whole_way_in_and_back(rollbook: Rollbook, site: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    add_clean(site)
    site.execute(DIRTY)
    before, where = content(site), site.info.dsn
    monkeypatch.setenv("ROLLBOOK_ACTOR", "Grace")
    ways = ("schema", "adopt", "--fix", FIXES, "--reason", "moving in", "--json")

    asked = rollbook(*ways, dsn=where)
    assert asked.code == 6
    said = asked.err.splitlines()
    assert said[0].startswith("rehearsing, to be rolled back")
    assert said[1:3] == ["course MITx/6.002x/2012_Fall", "course edX/toy/2013_Spring"]
    assert said[3].startswith("rehearsed, and rolled back: the tables were locked for ")
    assert content(site) == before

    done = rollbook(*ways, "--yes", dsn=where)
    assert done.code == 0, done.err
    assert lines(done, "table", "object", "rows", "detail")[0] == ("public.auth_user", 11, "11 before")
    assert lines(done, "course", "object") == [("MITx/6.002x/2012_Fall",), ("edX/toy/2013_Spring",)]
    assert lines(done, "column", "object") == [("public.auth_userprofile.city",)]
    names = site.execute("select id, username, email from auth_user where id in (101, 102) order by id").fetchall()
    assert names == [(101, "John_Doe", "john@example.org"), (102, "tab_here", "")]
    history = rollbook("history", "list", "--json", "--all", dsn=where)
    assert len(history.data) == 38
    assert {(row["command"], row["on_behalf_of"]) for row in history.data} == {("schema adopt", "Grace")}
    (entry,) = (row for row in history.data if row["object"] == "auth_user 101")
    shown = rollbook("history", "show", str(entry["id"]), "--json", dsn=where).out
    assert all(word in shown for word in ("John Doe", "John_Doe", "username=underscore: moving in"))
    assert rollbook("schema", "check", dsn=where).code == 0
    copies = rollbook("user", "show", "ada", "--json", dsn=where).row["copies"]
    assert [copy["course"] for copy in copies] == ["MITx/6.002x/2012_Fall", "edX/toy/2013_Spring"]

    again = rollbook("schema", "adopt", "--yes", "--json", dsn=where)
    assert (again.code, lines(again, "course", "object")) == (0, [])
    assert rollbook("schema", "adopt", "-n", "--json", dsn=where).data == []

    refused = rollbook("schema", "adopt", "--undo", "--yes", dsn=where)
    assert (refused.code, "add --keep-fixes" in refused.err) == (1, True)
    assert rollbook("schema", "adopt", "--undo", "--keep-fixes", dsn=where).code == 6
    back = rollbook("schema", "adopt", "--undo", "--keep-fixes", "--yes", dsn=where)
    assert back.code == 0, back.err
    after = content(site)
    assert after.keys() - before.keys() == {"rollbook_adoption_fix"}
    assert after["forum_post"] == before["forum_post"]
    assert len(after["auth_user"]) == 11

    moved = rollbook("schema", "adopt", "--to", "portal", "--courses", "none", "--yes", "--json", dsn=where)
    assert (moved.code, lines(moved, "setting", "object")) == (0, [("search_path=portal,public",)])
    assert site.execute("select count(*) from portal.auth_user").fetchone() == (11,)
    assert rollbook("history", "list", "--json", "--all", dsn=where).data == []  # those repairs were another's
    assert site.execute("select count(*) from public.rollbook_adoption_fix").fetchone() == (38,)


@pytest.mark.slow  # it adopts once
def test_what_the_obstacles_print_lets_the_owner_of_the_tables_adopt(rollbook: Rollbook, site: Db) -> None:
    add_clean(site)
    site.execute("create role rb_owner login")
    for (table,) in site.execute("select tablename from pg_tables where schemaname = 'public'").fetchall():
        site.execute(sql.SQL("alter table {} owner to rb_owner").format(sql.Identifier(table)))
    where = f"{site.info.dsn} user=rb_owner"
    try:
        plan = rollbook("schema", "adopt", "-n", "--json", "--fix", "year=null", dsn=where)
        fixes = [str(fix) for (fix,) in lines(plan, "obstacle", "fix")]
        assert (plan.code, len(fixes)) == (4, 3)
        for fix in fixes:
            site.execute(fix.encode())
        assert rollbook("schema", "adopt", "-n", dsn=where).code == 0
        done = rollbook("schema", "adopt", "--yes", dsn=where)
        assert done.code == 0, done.err
        assert rollbook("schema", "check", dsn=where).code == 0
        assert rollbook("schema", "adopt", "--undo", "--yes", dsn=where).code == 0
    finally:
        site.execute("drop schema if exists portal, rollbook cascade")
        site.execute("drop owned by rb_owner cascade; drop role rb_owner")


def commands(page: Path) -> list[list[str]]:
    """The lines of a page that run the program."""
    return [shlex.split(line)[2:] for line in page.read_text().splitlines() if line.startswith("$ rollbook ")]


@pytest.mark.slow  # it adopts once
def test_the_runbook_runs_as_it_is_printed(
    rollbook: Rollbook, site: Db, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_clean(site)
    site.execute(
        """update auth_user set username = 'a b' where id = 2; update auth_userprofile set year_of_birth = 0;
        update auth_user set email = 'ADA@example.org' where id = 3"""
    )
    monkeypatch.chdir(tmp_path)
    codes = []
    for words in commands(ROOT / "docs" / "adoption.md"):
        # The clone is the site here, and nobody answers a question.
        asks = words[1:2] == ["adopt"] and "--dry-run" not in words
        line = [word for word in words if word not in ("-d", "rehearsal")]
        codes.append(rollbook(*line, *(["--yes"] if asks else []), dsn=site.info.dsn).code)
    assert codes == [4, 4, 4, 0, 0, 0, 0, 0, 1]  # the last asks for --keep-fixes
    assert (tmp_path / "faults.csv").stat().st_size > 100
    assert rollbook("schema", "adopt", "--undo", "--keep-fixes", "--yes", dsn=site.info.dsn).code == 0
