"""`rollbook shape` where no course is on a server: show, columns, where, apply; what is refused, and what fails."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core import shape
from rollbook.replication import columns, condition, widening
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA
from tests.school import Rollbook

Db = Connection[Any]


@pytest.fixture
def school(school: Db) -> Db:
    """The small platform, with a column of next year."""
    school.execute("alter table portal.auth_userprofile add column pronouns varchar(20) not null default ''")
    school.execute("update portal.auth_userprofile set pronouns = 'she' where user_id = 101")
    return school


def sound(rollbook: Rollbook, school: Db) -> None:
    """Assert that all copies are equal, the database as it should be, and nothing under way."""
    assert rollbook("replication", "verify").code == 0
    found = rollbook("schema", "check", "--json").data
    assert [row for row in found if row["kind"] != "sequence"] == []
    assert school.execute("select course_id from rollbook.course where due <> '{}'").fetchall() == []
    assert school.execute("select leaving, renamed from rollbook.shape").fetchall() == [([], {})]


@pytest.mark.usefixtures("school")
def test_show_and_its_toml_is_a_plan_of_nothing(rollbook: Rollbook, tmp_path: Path) -> None:
    rows = rollbook("shape", "show", "--json").data
    assert [(row["role"], row["table"], row["due"]) for row in rows] == [
        ("person", "portal.auth_user", 0), ("profile", "portal.auth_userprofile", 0),
        ("membership", "portal.student_courseenrollment", 0),
    ]  # fmt: skip
    rollbook("shape", "without", "last_login")
    rollbook("course", "update", KEEP, "--without", "password")
    file = tmp_path / "shape.toml"
    file.write_text(rollbook("shape", "show", "--toml").out)
    assert shape.load(file).without == {"default": ("last_login",), KEEP: ("password",), REMOVE: ()}
    answer = rollbook("shape", "apply", str(file), "--json")
    assert (answer.code, answer.data) == (0, [])


def test_a_column_joins_gets_a_name_and_a_type_and_leaves(rollbook: Rollbook, school: Db) -> None:
    rollbook("course", "update", REMOVE, "--without", "goals")
    for words in (("auth_user", "pronouns"), ("auth_users", "x"), ("auth_userprofile", "pronoun")):
        assert rollbook("shape", "column", "add", *words).code == 1
    assert rollbook("shape", "column", "add", "auth_userprofile", "pronouns", "-n", "--json").row["courses"] == 2
    row = rollbook("shape", "column", "add", "auth_userprofile", "pronouns", "--json").row
    assert (row["outcome"], row["courses"], row["rows"], row["failed"]) == ("updated", 2, 2, 0)
    values = f"select user_id, pronouns from {KEEP_SCHEMA}.auth_userprofile order by 1"
    assert school.execute(values.encode()).fetchall() == [(101, "she"), (102, "")]
    school.execute("update portal.auth_userprofile set pronouns = 'they' where user_id = 102")
    assert school.execute(values.encode()).fetchall() == [(101, "she"), (102, "they")]
    sound(rollbook, school)
    assert rollbook("shape", "column", "add", "auth_userprofile", "pronouns", "--json").row["outcome"] == "unchanged"
    assert rollbook("course", "create", "new").code == 0
    rollbook("course", "update", "new", "--without", "pronouns")

    for old in ("user_id", "goals", "nothing"):
        assert rollbook("shape", "column", "rename", "auth_userprofile", old, "pronoun").code == 1
    row = rollbook("shape", "column", "rename", "auth_userprofile", "pronouns", "pronoun", "--json").row
    assert (row["outcome"], row["failed"]) == ("updated", 0)
    assert school.execute(values.replace("pronouns", "pronoun").encode()).fetchall() == [(101, "she"), (102, "they")]
    lists = dict(school.execute("select course_id, without from rollbook.course").fetchall())
    assert lists == {KEEP: [], REMOVE: ["goals"], "new": ["pronoun"]}
    sound(rollbook, school)

    widen = ("shape", "column", "widen", "auth_userprofile", "pronoun")
    for kind in ("varchar(10)", "integer", "varchar(30) not null", "nothing", "timestamp"):
        assert rollbook(*widen, kind).code in (1, 2), kind
    assert rollbook(*widen, "varchar(300)", "-n", "--json").row["courses"] == 3
    assert rollbook(*widen, "varchar(300)", "--json").row["outcome"] == "updated"
    assert rollbook(*widen, "varchar(300)", "--json").row["outcome"] == "unchanged"
    school.execute("update portal.auth_userprofile set pronoun = repeat('x', 300)")
    sound(rollbook, school)

    assert rollbook("shape", "column", "drop", "auth_userprofile", "pronoun").code == 6
    assert rollbook("shape", "column", "drop", "auth_userprofile", "user_id", "--yes").code == 1
    row = rollbook("shape", "column", "drop", "auth_userprofile", "pronoun", "--yes", "--json").row
    assert (row["outcome"], row["failed"]) == ("updated", 0)
    left = "select attrelid::regclass::text from pg_attribute where attname in ('pronoun', 'pronouns')"
    assert school.execute(left.encode()).fetchall() == [("portal.auth_userprofile",)]
    sound(rollbook, school)
    assert rollbook("shape", "column", "drop", "auth_userprofile", "pronoun", "--yes", "--json").row["courses"] == 0
    commands = [row["command"] for row in rollbook("history", "list", "--json").data]
    assert {"shape column add", "shape column rename", "shape column widen", "shape column drop"} <= set(commands)


def test_a_course_with_something_of_its_own_is_named_and_the_others_are_done(rollbook: Rollbook, school: Db) -> None:
    school.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile add column pronouns text default 'mine'")
    add = ("shape", "column", "add", "auth_userprofile", "pronouns", "--json")
    failed = rollbook(*add)
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 1, 1)
    assert KEEP in failed.err
    assert "of its own" in failed.err
    assert rollbook("replication", "verify").code == 0
    own = f"select distinct pronouns from {KEEP_SCHEMA}.auth_userprofile".encode()
    assert school.execute(own).fetchall() == [("mine",)]
    assert rollbook("course", "show", KEEP, "--json").data["without"] == ["pronouns"]
    school.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile rename pronouns to nick")
    assert f"rollbook course update '{KEEP}' --without ''" in " ".join(failed.err.split())
    assert rollbook("course", "update", KEEP, "--without", "").code == 0
    sound(rollbook, school)

    school.execute(f"create view {REMOVE_SCHEMA}.names as select pronouns from {REMOVE_SCHEMA}.auth_userprofile")
    drop = ("shape", "column", "drop", "auth_userprofile", "pronouns", "--yes", "--json")
    failed = rollbook(*drop)
    assert (failed.code, failed.row["courses"], failed.row["failed"]) == (5, 1, 1)
    assert f"view {REMOVE_SCHEMA}.names depends" in failed.err
    assert rollbook("shape", "column", "widen", "auth_userprofile", "pronouns", "text").code == 5
    school.execute(f"drop view {REMOVE_SCHEMA}.names")
    assert rollbook(*drop).code == 0
    sound(rollbook, school)


def killed(*_: object, **__: object) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


UNFINISHED: tuple[
    tuple[Any, tuple[str, ...], list[str]], ...
] = (  # where it is killed, and what has to be there before
    ((columns, "arrive"), ("column", "add", "auth_userprofile", "pronouns"), []),
    ((columns, "rename_declared"), ("column", "rename", "auth_userprofile", "pronouns", "pronoun"), ["add"]),
    ((columns, "arrive"), ("column", "rename", "auth_userprofile", "pronouns", "pronoun"), ["add"]),
    ((columns, "leave"), ("column", "drop", "auth_userprofile", "pronouns", "--yes"), ["add"]),
    ((widening, "switch"), ("column", "widen", "auth_userprofile", "pronouns", "character varying(30)"), ["add"]),
    ((condition, "arrive"), ("where", "(id > 0)"), []),
)


@pytest.mark.slow
def test_a_change_that_is_not_finished_is_named_with_the_command_that_goes_on(
    rollbook: Rollbook, school: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: set[str] = set()
    for (module, step), words, needs in UNFINISHED:
        if needs and "pronouns" not in str(school.execute("select columns from rollbook.shape_table").fetchall()):
            assert rollbook("shape", "column", "add", "auth_userprofile", "pronouns").code == 0
        with monkeypatch.context() as patch:
            patch.setattr(module, step, killed)
            assert rollbook("shape", *words).code == 130
        answer = rollbook("status", "--json")
        (fault,) = answer.data["portal"]["faults"]
        fix = shlex.split(fault["fix"])
        assert (answer.code, fault["kind"], fix) == (4, "shape", ["rollbook", "shape", *words]), words
        assert {row["state"] for row in answer.data["courses"]} == {"ok"}
        if words[1] not in done:
            done.add(words[1])
            screen = rollbook("status", "--format", "table").out
            assert f"a change of the shape is not finished:\n  {fault['object']}: " in screen
            assert f"\n    {fault['fix']}\n" in screen
            (line,) = [row for row in rollbook("check", "replication", "--json").data if row["check"] == "shape"]
            assert (line["state"], fault["fix"] in line["message"]) == ("warning", True)
            found = rollbook("shape", "show").err
            assert fault["fix"] in " ".join(found.split())
        if words[0] == "where":
            (found,) = [row for row in rollbook("doctor", "--json").data if row["check"] == "shape"]
            assert (found["state"], found["fix"]) == ("attention", fault["fix"])
        school.execute("select pg_advisory_lock(hashtext('rollbook shape'))")  # as a command that is at work
        assert rollbook("status", "--json").data["portal"]["faults"] == []
        school.execute("select pg_advisory_unlock(hashtext('rollbook shape'))")
        assert rollbook(*fix[1:]).code == 0
        assert rollbook("status", "--json").data["portal"]["faults"] == []
        if words[1] == "rename":
            assert rollbook("shape", "column", "rename", "auth_userprofile", "pronoun", "pronouns").code == 0
    sound(rollbook, school)
    assert school.execute("select widening from rollbook.shape").fetchall() == [({},)]


CONDITIONS = (
    "created > now()",
    "exists (select from portal.auth_user)",
    "1",
    "nothing",
    "true) or (true",
    "a b",
    "count(*) > 0",
)


def test_where_is_checked_and_rows_that_are_false_leave_at_once(rollbook: Rollbook, school: Db) -> None:
    for each in CONDITIONS:
        answer = rollbook("shape", "where", each)
        assert (answer.code, "fix:" in answer.err) == (1, True), each
    assert rollbook("shape", "where", "").code == 0
    school.execute("alter table portal.student_courseenrollment add column is_active boolean not null default true")
    school.execute("update portal.student_courseenrollment set is_active = false where user_id = 101")
    planned = rollbook("shape", "where", "is_active", "-n", "--json").row
    assert (planned["courses"], planned["rows"]) == (2, 2)
    row = rollbook("shape", "where", "is_active", "--json").row
    assert (row["outcome"], row["courses"]) == ("updated", 2)
    copies = "select user_id from {}.student_courseenrollment union all select -id from {}.auth_user order by 1"
    assert school.execute(copies.format(KEEP_SCHEMA, KEEP_SCHEMA).encode()).fetchall() == [(-102,), (-101,), (102,)]
    assert school.execute(copies.format(REMOVE_SCHEMA, REMOVE_SCHEMA).encode()).fetchall() == []
    sound(rollbook, school)
    school.execute("update portal.student_courseenrollment set is_active = not is_active")
    assert school.execute(copies.format(KEEP_SCHEMA, KEEP_SCHEMA).encode()).fetchall() == [(-102,), (-101,), (101,)]
    assert rollbook("shape", "where", "( is_active )", "--json").row["outcome"] == "unchanged"
    assert rollbook("shape", "where", "", "--json").row["rows"] > 0
    sound(rollbook, school)


def test_apply_plans_asks_and_does_all_of_it(rollbook: Rollbook, school: Db, tmp_path: Path) -> None:
    file = tmp_path / "shape.toml"
    text = rollbook("shape", "show", "--toml").out
    text = text.replace('"goals"', '"pronouns"').replace(
        'course = "course_id"\n', 'course = "course_id"\ncondition = "id > 301"\n'
    )
    file.write_text(text + f'\n[without]\ndefault = ["last_login"]\n"{KEEP}" = ["password", "auth_userprofile.meta"]\n')
    planned = rollbook("shape", "apply", str(file), "-n", "--json")
    assert [(row["change"], row["object"]) for row in planned.data] == [
        ("column add", "auth_userprofile.pronouns"), ("column drop", "auth_userprofile.goals"),
        ("where", "student_courseenrollment"), ("without", "new courses"), ("without", KEEP),
    ]  # fmt: skip
    assert "rollbook shape column rename auth_userprofile goals pronouns" in planned.err
    assert rollbook("shape", "apply", str(file)).code == 6
    done = rollbook("shape", "apply", str(file), "--yes", "--json")
    assert (done.code, {row["outcome"] for row in done.data}) == (0, {"updated"})
    assert rollbook("shape", "apply", str(file), "--json").data == []
    sound(rollbook, school)
    file.write_text(text.replace("portal.auth_user", "public.person", 1))
    assert rollbook("shape", "apply", str(file)).code == 1


def test_an_old_snapshot_and_a_writer_are_waited_for_and_named(rollbook: Rollbook, school: Db, dsn: str) -> None:
    add = ("shape", "column", "add", "auth_userprofile", "pronouns", "--json", "--timeout", "0.5")
    with psycopg.connect(dsn) as other:
        pid = other.info.backend_pid
        other.execute("set transaction isolation level repeatable read")
        other.execute("select from portal.auth_user")
        refused = rollbook(*add)
        assert (refused.code, f"process {pid} reads since" in refused.err) == (1, True)
        other.execute("update portal.auth_userprofile set goals = 'Old'")  # by the snapshot of before
        other.rollback()
        other.execute("update portal.auth_userprofile set goals = 'New'")
        refused = rollbook(*add)
        assert (refused.code, f"process {pid} writes since" in refused.err) == (1, True)
        other.commit()
    declared = "select '{pronouns}' <@ columns from rollbook.shape_table where role = 'profile'"
    assert school.execute(declared.encode()).fetchone() == (False,)
    assert rollbook(*add).code == 0
    sound(rollbook, school)
