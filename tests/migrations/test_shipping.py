"""What a database at head has is what stands in sql/, and `schema check` finds where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from rollbook import cli
from rollbook.core.db import connect
from rollbook.core.migrating import MIGRATIONS, SQL, known_revisions, object_files
from rollbook.core.shape import default, shaped
from rollbook.system.schema_check import differences
from tests.catalog import catalog, changed

COURSE, COPY = "edX/toy/2013_Spring", "course_edx_toy_2013_spring"


def texts(folder: Path) -> dict[str, str]:
    """The files below a folder: path -> text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def frozen() -> dict[str, str]:
    """The newest frozen copy of every object; none until a release has frozen a revision."""
    newest: dict[str, str] = {}
    for revision in known_revisions():
        newest |= texts(MIGRATIONS / "frozen" / revision)
    return newest


def portal_texts() -> dict[str, str]:
    """What stands in sql/ for the portal; sql/server/ is applied on course servers, by their commands."""
    return {name: text for name, text in texts(SQL).items() if not name.startswith("server/")}


def test_head_ships_what_stands_in_sql() -> None:
    if not frozen():
        head = (next((MIGRATIONS / "versions").glob(f"{known_revisions()[-1]}_*.py"))).read_text()
        assert "apply_objects(" in head  # takes sql/ itself
        return
    newest, current = frozen(), portal_texts()
    assert sorted(name for name in newest.keys() | current.keys() if newest.get(name) != current.get(name)) == []


def test_every_file_in_sql_is_applied_by_a_revision() -> None:
    applied = {str(path.relative_to(SQL)) for path in object_files(SQL)}
    assert applied == set(portal_texts())


def test_every_file_makes_the_object_that_it_is_named_after(db: Connection[Any]) -> None:
    names = {row[0] for row in db.execute("select proname from pg_proc where pronamespace = 'rollbook'::regnamespace")}
    views = {row[0] for row in db.execute("select viewname from pg_views where schemaname = 'rollbook'")}
    files = {kind: {path.stem for path in (SQL / kind).rglob("*.sql")} for kind in ("functions", "triggers", "views")}
    assert (files["functions"] | files["triggers"], files["views"]) == (names, views)


def test_applying_sql_to_head_changes_nothing(db: Connection[Any]) -> None:
    db.execute("select rollbook.create_course(%s)", [COURSE])
    before = catalog(db)
    for path in object_files(SQL):
        db.execute(shaped(path.read_text(), default()).encode())
    assert changed(before, catalog(db)) == []


def found(dsn: str) -> list[tuple[str, str]]:
    """What the check finds: object and difference."""
    with connect(dsn, name="test") as conn:
        return [(each.object, each.difference) for each in differences(conn)]


@pytest.mark.parametrize(
    ("object_name", "word", "statement"),
    [
        ("rollbook.verify", "body",
         """create or replace function rollbook.verify(only_course_id text default null) returns setof rollbook.finding
            language sql stable security definer set search_path = pg_catalog, pg_temp
            as 'select null::rollbook.finding limit 0'"""),
        ("rollbook.verify", "INVOKER", "alter function rollbook.verify(text) security invoker"),
        ("rollbook.repair_copies", "search_path", "alter function rollbook.repair_copies(text[]) reset search_path"),
        ("rollbook.repair_copies", "owned by", "alter function rollbook.repair_copies(text[]) owner to postgres"),
        ("rollbook.repair_copies", "PUBLIC", "grant execute on function rollbook.repair_copies(text[]) to public"),
        ("rollbook.repair_copies", "missing", "drop function rollbook.repair_copies(text[])"),
        ("rollbook.backdoor", "not shipped",
         "create function rollbook.backdoor() returns int language sql as 'select 1'"),
        ("rollbook.repair", "",
         "create function rollbook.repair(bigint) returns int language sql as 'select 1'"),
        ("rollbook_route_user_update on portal.auth_user", "missing",
         "drop trigger rollbook_route_user_update on portal.auth_user"),
        ("rollbook_route_user_update on portal.auth_user", "disabled",
         "alter table portal.auth_user disable trigger rollbook_route_user_update"),
        ("rollbook_route_user_update on portal.auth_user", "replica",
         "alter table portal.auth_user enable replica trigger rollbook_route_user_update"),
        ("rollbook_route_user_delete on portal.auth_user", "definition",
         """create or replace trigger rollbook_route_user_delete after delete on portal.auth_user
            referencing old table as old_rows for each statement when (false)
            execute function rollbook.route_user_delete()"""),
        ("rollbook.course_status", "query",
         """do $$ begin execute 'create or replace view rollbook.course_status as '
            || replace(pg_get_viewdef('rollbook.course_status'), '''drifted''', '''ok'''); end $$"""),
        ("rollbook.enrollment_status", "missing", "drop view rollbook.enrollment_status"),
        (f"{COPY}.auth_user", "guard", f"drop trigger rollbook_guard_copy on {COPY}.auth_user"),
        (f"{COPY}.auth_user", "guard", f"alter table {COPY}.auth_user disable trigger rollbook_guard_copy"),
        (f"{COPY}.auth_user", "guard", f"alter table {COPY}.auth_user disable trigger rollbook_guard_copy_update"),
        (f"{COPY}.auth_user", "guard",
         f"""drop trigger rollbook_guard_copy on {COPY}.auth_user;
            create trigger rollbook_guard_copy before truncate on {COPY}.auth_user
            for each statement execute function rollbook.guard_copy()"""),
        (f"{COPY}.auth_userprofile", "goals", f"alter table {COPY}.auth_userprofile drop column goals cascade"),
        (f"{COPY}.student_courseenrollment", "lacks", f"drop table {COPY}.student_courseenrollment"),
    ],
)  # fmt: skip
def test_the_check_finds_what_is_not_as_shipped(
    db: Connection[Any], dsn: str, capsys: pytest.CaptureFixture[str], object_name: str, word: str, statement: str
) -> None:  # fmt: skip
    db.execute("select rollbook.create_course(%s)", [COURSE])
    db.execute(statement.encode())
    assert cli.run(["schema", "check", "--json", "-d", dsn]) == 4
    differing = json.loads(capsys.readouterr().out)
    assert {each["object"] for each in differing} == {object_name}
    assert any(word in each["difference"] for each in differing), differing


def test_the_check_finds_nothing_on_a_fresh_database_with_courses(db: Connection[Any], dsn: str) -> None:
    assert found(dsn) == []
    db.execute("select rollbook.create_course(%s), rollbook.create_course('b', 'remove')", [COURSE])
    db.execute(f"alter table {COPY}.auth_user add column note text")
    assert found(dsn) == []


def test_the_check_writes_nothing(db: Connection[Any], dsn: str) -> None:
    before = catalog(db)
    found(dsn)
    assert changed(before, catalog(db)) == []
    assert db.execute("select count(*) from pg_class where relname = 'rollbook_checked'").fetchone() == (0,)
