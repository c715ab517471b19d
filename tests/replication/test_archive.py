"""`rollbook course archive` and `restore`; sql/functions/api/readmit.sql.

Also tests readmit_course, readmit_schema and claim_course_id; core/programs.py and replication/archive_file.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core import programs
from rollbook.core.errors import RefusedError
from rollbook.replication import archive as archiving
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result, postgres_program, process, rows
from tests.replication.conftest import Site
from tests.school import Rollbook, advance_sequences

Db = Connection[Any]
pytestmark = pytest.mark.usefixtures("pg_dump")


@pytest.fixture
def pg_dump() -> Path:
    """The program; without it these tests are skipped."""
    return postgres_program("pg_dump")


def add_own(db: Db) -> None:
    """Let a course have what a course may have."""
    db.execute(
        b"""do $$ begin create role circuits_team; exception when duplicate_object then null; end $$;
        alter table course_mitx_6_002x_2012_fall.auth_user add column note text default 'none';
        create table course_mitx_6_002x_2012_fall.grade (
            id bigint generated always as identity primary key,
            user_id bigint references course_mitx_6_002x_2012_fall.auth_user, words text);
        create view course_mitx_6_002x_2012_fall.best as select * from course_mitx_6_002x_2012_fall.grade;
        create function course_mitx_6_002x_2012_fall.one() returns text language sql as $body$
select '
COPY x FROM stdin;
SET row_security = off;
'$body$;
        insert into course_mitx_6_002x_2012_fall.grade (user_id, words) values (101, E'a\\tb\\nc\\\\.'), (null, '');
        create table course_mitx_6_002x_2012_fall."a ""
COPY x FROM stdin;" (words text);
        insert into course_mitx_6_002x_2012_fall."a ""
COPY x FROM stdin;" values (E'\\n\\\\.\\n');
        grant select on course_mitx_6_002x_2012_fall.grade to circuits_team"""
    )
    db.execute(f"update {KEEP_SCHEMA}.auth_user set note = 'mine' where id = 101")


def own(db: Db) -> list[Any]:
    """What the course holds of its own."""
    return [
        rows(db, f"{KEEP_SCHEMA}.auth_user", "id", "note"),
        rows(db, f"{KEEP_SCHEMA}.grade", "id", "user_id", "words"),
        db.execute(f'select words from {KEEP_SCHEMA}."a ""\nCOPY x FROM stdin;"').fetchall(),
        db.execute(f"select {KEEP_SCHEMA}.one(), has_table_privilege('circuits_team', '{KEEP_SCHEMA}.grade', 'select')")
        .fetchall(),
        db.execute("select rollbook.local_objects(%s)", [KEEP_SCHEMA]).fetchall(),
    ]  # fmt: skip


def rewritten(path: Path, change: dict[str, Any]) -> Path:
    """Return a copy of an archive with other values in its manifest, and right checksums."""
    copy = path.with_name("changed.tar.gz")
    with tarfile.open(path) as old, tarfile.open(copy, "w:gz") as new:
        sums: dict[str, str] = {}
        for info in old:
            content = old.extractfile(info).read()  # type: ignore[union-attr]
            if info.name == "manifest.json":
                content = json.dumps(json.loads(content) | change).encode()
            if info.name == "SHA256SUMS":
                content = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
            sums[info.name] = hashlib.sha256(content).hexdigest()
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return copy


def test_a_course_goes_into_a_file_and_comes_back_as_the_portal_has_it(
    rollbook: Rollbook, school: Db, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_own(school)
    school.execute(f"select rollbook.close_course('{KEEP}'), rollbook.set_on_leave('{KEEP}', 'keep')")
    file = tmp_path / "course.tar.gz"
    assert rollbook("course", "archive", KEEP, "-o", str(file), "-n", "--json").row["outcome"] == "would archive"
    unconfirmed = rollbook("course", "archive", KEEP, "-o", str(file), "--drop")
    assert (unconfirmed.code, list(tmp_path.glob("*.gz"))) == (6, [])
    before = own(school)

    # killed in the middle: nothing half is left
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archiving, "dump", interrupt)
        assert rollbook("course", "archive", KEEP, "-o", str(file), "--drop", "--confirm", KEEP).code == 130
    assert [path.name for path in tmp_path.iterdir() if path.name != "rollbook.log"] == []
    assert own(school) == before

    done = rollbook("course", "archive", KEEP, "-o", str(file), "--drop", "--confirm", KEEP, "--json")
    assert {**done.row, "bytes": None} == {
        "course": KEEP, "place": "portal", "file": str(file), "bytes": None, "enrollments": 2, "copied_users": 2,
        "outcome": "archived and removed",
    }, done.err  # fmt: skip
    assert (file.stat().st_mode & 0o777, done.row["bytes"]) == (0o600, file.stat().st_size)
    assert rows(school, "rollbook.course", "course_id") == [(REMOVE,)]
    assert school.execute("select from pg_namespace where nspname = %s", [KEEP_SCHEMA]).fetchall() == []

    # meanwhile: ada has another name, bob's account goes, dan enrolls, eve never was in it
    school.execute("update portal.auth_user set first_name = 'Ada' where id = 101")
    school.execute("delete from portal.auth_user where id = 102")
    school.execute(f"insert into portal.student_courseenrollment (user_id, course_id) values (103, '{KEEP}')")
    school.execute("do $$ begin create role rb_dba login; exception when duplicate_object then null; end $$")
    school.execute(f"grant create on database {school.info.dbname} to rb_dba; grant rollbook_monitor to rb_dba")
    where = dsn.replace("user=postgres", "user=rb_dba")
    monitor = rollbook("course", "restore", str(file), "-n", dsn=where)
    assert (monitor.code, "membership in rollbook_owner" in monitor.err) == (3, True)
    planned = rollbook("course", "restore", str(file), "-n", "--json")
    assert (planned.code, planned.row["outcome"]) == (0, "would restore"), planned.err
    assert rows(school, "rollbook.course", "course_id") == [(REMOVE,)]
    school.execute("grant rollbook_owner, rollbook_operator, circuits_team to rb_dba")
    member = rollbook("course", "restore", str(file), dsn=where)  # the table is a superuser's
    assert (member.code, "as a superuser" in member.err) == (3, True)
    restored = rollbook("course", "restore", str(file), "--json").row
    assert [(each["what"], each["count"]) for each in restored.pop("remains")] == [
        ("users who were enrolled and have no account any more: id:102", 1),
    ]
    assert (restored["enrolled"], restored["copied_users"], restored["outcome"]) == (2, 2, "restored")
    assert rollbook("replication", "verify").code == 0
    advance_sequences(school)
    assert rollbook("schema", "check").code == 0
    names, *rest = own(school)
    assert (names, rest) == ([(101, "mine"), (103, "none")], before[1:])
    course = school.execute(
        "select on_leave, closed_at is not null, paused_at, state from rollbook.course_status where course_id = %s",
        [KEEP],
    ).fetchall()
    assert course == [("keep", True, None, "ok")]
    school.execute("update portal.auth_user set first_name = 'Ida' where id = 101")
    assert school.execute(f"select first_name from {KEEP_SCHEMA}.auth_user where id = 101").fetchall() == [("Ida",)]
    assert rollbook("history", "list", "--course", KEEP, "--command", "course", "--json").column("outcome") == [
        "restored", "removed", "archived",
    ]  # fmt: skip
    school.execute("drop owned by rb_dba; drop role rb_dba")
    exists = rollbook("course", "restore", str(file))
    assert (exists.code, f"course {KEEP} already exists" in exists.err) == (1, True)
    assert f"fix:   rollbook course show '{KEEP}'\n" in exists.err


def test_restore_refuses_what_it_cannot_read_and_leaves_nothing(
    rollbook: Rollbook, school: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_own(school)
    file = tmp_path / "course.tar.gz"

    def refused(path: Path, words: str) -> Result:
        answer = rollbook("course", "restore", str(path))
        assert (answer.code, words in answer.err, "fix:" in answer.err) == (1, True, True), answer
        assert rows(school, "rollbook.course", "course_id") == [(REMOVE,)]
        assert school.execute("select from pg_namespace where nspname = %s", [KEEP_SCHEMA]).fetchall() == []
        return answer

    monkeypatch.setattr(programs, "places", lambda _: [])
    answer = rollbook("course", "archive", KEEP, "-o", str(file))
    assert (answer.code, "no pg_dump of PostgreSQL" in answer.err, file.exists()) == (1, True, False)
    monkeypatch.undo()
    with pytest.raises(RefusedError):
        programs.find_program("pg_dump", 990_000)
    assert rollbook("course", "archive", KEEP, "-o", str(file)).code == 0
    school.execute("delete from portal.student_courseenrollment where user_id = 102")
    school.execute("select rollbook.drop_course(%s, true)", [KEEP])
    whole = file.read_bytes()
    bad = tmp_path / "bad.tar.gz"
    for content in (whole[:-40], whole[: len(whole) // 2], whole[:700] + b"\0" + whole[701:], b"no archive", b""):
        bad.write_bytes(content)
        refused(bad, "is damaged, or not an archive of a course")
    refused(tmp_path / "none", "there is no file")
    refused(rewritten(file, {"format": 2, "rollbook": "9.9"}), "format 2")
    refused(rewritten(file, {"server_version": 990_001}), "PostgreSQL 99")
    refused(rewritten(file, {"tables": []}), "another shape")
    refused(rewritten(file, {"kept": []}), "its manifest.json is none")
    kept = {"schema_name": "portal", "on_leave": "keep", "on_fault": "refuse", "without": []}
    refused(rewritten(file, {"kept": kept}), "schema portal is not one of a course")
    taken = refused(rewritten(file, {"kept": kept | {"schema_name": REMOVE_SCHEMA}}), f"belongs to course {REMOVE}")
    assert "drop schema" not in taken.err
    # a row of its own needs a copy of a user who is gone
    school.execute("delete from portal.auth_user where id = 101")
    gone = refused(file, "course_mitx_6_002x_2012_fall")
    assert "add --remove-references" in gone.err
    without = rollbook("course", "restore", str(file), "--remove-references", "-n", "--json").row
    assert (without["copied_users"], without["remains"][-1]["count"]) == (1, 1), without
    school.execute("insert into portal.auth_user (id, username, email) values (101, 'ada', 'ada@example.org')")
    # an id is somebody else's now: not enrolled again
    school.execute("update portal.auth_user set username = 'stranger', email = 's@example.org' where id = 102")
    other = rollbook("course", "restore", str(file), "-n", "--enroll", "--json").row
    assert (other["enrolled_again"], [each["what"] for each in other["remains"]]) == (1, [
        "users who were enrolled and are not now: id:102",
        "users who have another username and another e-mail address than then: id:102",
    ])  # fmt: skip
    school.execute("update portal.auth_user set username = 'bob', email = 'bob@example.org' where id = 102")
    # who was enrolled is enrolled again when asked, under the old id
    ended = rollbook("course", "restore", str(file), "-n", "--json").row
    assert (ended["copied_users"], ended["enrolled"], len(ended["remains"])) == (2, 0, 1)
    again = rollbook("course", "restore", str(file), "--enroll", "--json").row
    assert (again["enrolled_again"], again["enrolled"], again["remains"]) == (2, 2, [])
    assert rows(school, f"{KEEP_SCHEMA}.student_courseenrollment", "id", "user_id") == [(301, 101), (302, 102)]
    assert rollbook("replication", "verify").code == 0
    # the schema is another's
    school.execute("select rollbook.drop_course(%s, true)", [KEEP])
    school.execute(f"create schema {KEEP_SCHEMA}")
    taken = rollbook("course", "restore", str(file))
    assert (taken.code, "exists already" in taken.err) == (1, True), taken


def test_what_no_archive_holds_is_not_dropped(rollbook: Rollbook, school: Db, tmp_path: Path) -> None:
    file = tmp_path / "course.tar.gz"
    words = ("course", "archive", KEEP, "-o", str(file))
    drop = (*words, "--drop", "--confirm", KEEP)
    school.execute(
        f"""create table {KEEP_SCHEMA}.grade (id bigint primary key); create type {KEEP_SCHEMA}.mood as enum ('a');
        create schema report; create view report.grades as select * from {KEEP_SCHEMA}.grade;
        create table report.seen (grade bigint references {KEEP_SCHEMA}.grade, mood {KEEP_SCHEMA}.mood)""".encode()
    )
    outside = rollbook(*drop)
    named = ("view report.grades", "on table report.seen", "column mood of table report.seen")
    assert (outside.code, [name for name in named if name not in outside.err], file.exists()) == (1, [], False)
    assert rollbook(*drop, "-n").code == 1
    assert rollbook(*words).code == 0
    file.unlink()
    school.execute("drop schema report cascade")
    school.execute(f"create extension citext schema {KEEP_SCHEMA}")
    extended = rollbook(*words)
    assert (extended.code, "alter extension citext set schema public" in extended.err, file.exists()) == (
        1,
        True,
        False,
    )
    school.execute("alter extension citext set schema public")
    assert rollbook(*drop).code == 0
    assert rollbook("course", "restore", str(file)).code == 0


@pytest.mark.slow
def test_a_course_on_a_server_is_archived_there(streaming: Site, tmp_path: Path) -> None:
    site = streaming
    site.server.execute(f"create table {KEEP_SCHEMA}.grade (id bigint primary key, words text)")
    site.server.execute(f"insert into {KEEP_SCHEMA}.grade values (1, 'there')")
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column note text default 'x'")
    site.server.execute(
        f"create function {KEEP_SCHEMA}.me() returns name language sql security definer as 'select current_user'"
    )
    # a rename reaches the server as ordinary updates; nothing is copied again
    first = site.server.execute("select srrelid, srsublsn from pg_subscription_rel order by 1").fetchall()
    site.ok("course", "rename", KEEP, "new/1")
    site.wait()
    ids = site.server.execute(f"select distinct course_id from {KEEP_SCHEMA}.student_courseenrollment").fetchall()
    assert ids == [("new/1",)]
    site.ok("replication", "verify")
    assert site.states()["new/1"] == "ok"
    assert site.server.execute("select srrelid, srsublsn from pg_subscription_rel order by 1").fetchall() == first
    site.ok("course", "rename", "new/1", KEEP)
    file = tmp_path / "course.tar.gz"
    site.portal.execute(f"create table {KEEP_SCHEMA}.here (id bigint)")
    two = site.run("course", "archive", KEEP, "-o", str(file), "--drop", "--confirm", KEEP)
    assert (two.code, "in the portal too" in two.err, file.exists()) == (1, True, False)
    site.portal.execute(f"drop table {KEEP_SCHEMA}.here")
    site.portal.execute(f"create view portal.everybody as select * from {KEEP_SCHEMA}.auth_user")
    seen = site.run("course", "archive", KEEP, "-o", str(file), "--drop", "--confirm", KEEP)
    assert (seen.code, "view portal.everybody" in seen.err, file.exists()) == (1, True, False)
    site.portal.execute("drop view portal.everybody")
    done = site.ok("course", "archive", KEEP, "-o", str(file), "--drop", "--confirm", KEEP, "--json").row
    assert (done["place"], done["outcome"]) == ("server east", "archived and removed")
    for db in (site.portal, site.server):
        assert db.execute("select from pg_namespace where nspname = %s", [KEEP_SCHEMA]).fetchall() == []
    # what a team wrote on its server does not run with a superuser's rights
    refused = site.run("course", "restore", str(file))
    assert (refused.code, "rollbook_owner and rollbook_operator" in refused.err) == (1, True)
    site.portal.execute("create role keeper login; grant rollbook_owner, rollbook_operator to keeper")
    site.portal.execute(f"grant create on database {site.portal.info.dbname} to keeper")
    keeper = site.portal_dsn.replace("user=postgres", "user=keeper")
    try:
        restored = site.call("course", "restore", str(file), "--json", "-d", keeper).row
    finally:
        site.portal.execute("reassign owned by keeper to rollbook_owner; drop owned by keeper; drop role keeper")
    assert (restored["copied_users"], restored["enrolled"]) == (2, 2)
    # its owner's rights are not those of whoever restored it
    assert [each["what"] for each in restored["remains"]] == [
        f"functions that run with the rights of their callers now: {KEEP_SCHEMA}.me()"
    ]
    assert site.portal.execute("select from pg_proc where proname = 'me' and prosecdef").fetchall() == []
    assert site.portal.execute(f"select words from {KEEP_SCHEMA}.grade").fetchall() == [("there",)]
    assert site.portal.execute(f"select distinct note from {KEEP_SCHEMA}.auth_user").fetchall() == [("x",)]
    site.ok("replication", "verify")
    advance_sequences(site.portal)
    site.ok("schema", "check")


def test_no_secret_is_in_the_arguments_of_pg_dump(school: Db, dsn: str, tmp_path: Path) -> None:
    file, seen = tmp_path / "course.tar.gz", set[bytes]()
    school.execute(f"create table {KEEP_SCHEMA}.grade (words text)".encode())
    secrets = {"ROLLBOOK_DSN": f"{dsn} password=hunter2 sslpassword=hunter3"}
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute(f"lock table {KEEP_SCHEMA}.grade in access exclusive mode".encode())
        done = pool.submit(process, "course", "archive", KEEP, "-o", str(file), env=secrets)
        while not seen:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    line = path.read_bytes()
                    if line.split(b"\0")[0].endswith(b"pg_dump") and KEEP_SCHEMA.encode() in line:
                        seen.add(line)
            assert not done.done(), done.result()
        other.rollback()
        answer = done.result()
    assert (answer.code, [line for line in seen if b"hunter" in line]) == (0, []), answer
    # What is there may be the only copy of another course.
    before = file.read_bytes()
    again = process("course", "archive", REMOVE, "-o", str(file), env=secrets)
    assert (again.code, "there is a file" in again.err, file.read_bytes()) == (1, True, before)
