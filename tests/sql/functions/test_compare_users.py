"""sql/functions/api/compare_users.sql, with repair_users, repair_course and user_rows: rows found by user."""

from __future__ import annotations

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    TABLES,
    USER,
    Db,
    Rows,
    add_user,
    enroll,
    leave,
    plant,
    refused,
    run,
    schema,
    value,
)

EVERYWHERE = "select * from rollbook.compare_users(%s, array(select course_id from rollbook.course))"
COMPARE = "select * from rollbook.compare_users(%s)"
REPAIR = "select * from rollbook.repair_users(%s, %s)"


def findings(db: Db, *users: int) -> Rows:
    """What differs of these users in any course."""
    return [row for row in run(db, EVERYWHERE, list(users)) if row[4] != "ok"]


def test_each_row_of_the_users_is_returned_and_no_other(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob, eve):
        enroll(school, user, KEEP, REMOVE)
    leave(school, bob, KEEP)
    leave(school, bob, REMOVE)
    rows = run(school, COMPARE, [ada, bob])
    assert {row[4] for row in rows} == {"ok"}
    assert [row[:3] for row in rows] == [
        (KEEP, USER, ada), (KEEP, USER, bob), (KEEP, PROFILE, ada), (KEEP, PROFILE, bob), (KEEP, ENROLLMENT, ada),
        *((REMOVE, table, ada) for table in TABLES),
    ]  # fmt: skip
    assert run(school, EVERYWHERE, [ada, bob]) == rows
    assert run(school, "select * from rollbook.compare_users(%s, %s)", [ada], [REMOVE]) == rows[5:]
    assert run(school, COMPARE, [-1]) == []


def test_it_finds_what_verify_finds_and_the_repair_touches_nobody_else(school: Db) -> None:
    ada, bob, eve = (add_user(school, name) for name in ("ada", "bob", "eve"))
    for user in (ada, bob):
        enroll(school, user, KEEP)
    keep, remove = schema(school, KEEP), schema(school, REMOVE)
    plant(school, "update {c}.auth_user set email = 'old@edx.org', last_name = 'x'", c=keep)  # ada and bob
    plant(school, "delete from {c}.student_courseenrollment", c=keep)
    for copy in (keep, remove):  # eve is enrolled nowhere
        plant(
            school, "insert into {c}.auth_user select {x} from portal.auth_user where id = %s"
            .replace("{x}", ", ".join(value(school, "select rollbook.replicated_columns('auth_user')"))),
            eve, c=copy,
        )  # fmt: skip
    plant(school, "update rollbook.route set schemas = '{}' where user_id = %s", bob)
    mine = [
        (KEEP, USER, ada, ada, "changed", ["last_name", "email"]),
        (KEEP, ENROLLMENT, ada, value(school, "select id from portal.student_courseenrollment where user_id = %s", ada),
         "missing", None),
    ]  # fmt: skip
    assert findings(school, ada) == mine
    assert findings(school, eve) == [(course, USER, eve, eve, "extra", None) for course in (KEEP, REMOVE)]
    assert run(school, COMPARE, [eve]) == []  # in her own courses: none
    others = findings(school, bob, eve)
    everyone = run(school, "select course_id, table_name, finding, row_id, columns from rollbook.verify()")
    assert sorted((row[0], row[1], row[4], row[3], row[5]) for row in findings(school, ada, bob, eve)) == sorted(
        everyone
    )
    run(
        school, "insert into rollbook.verification (course_id, verdict, differing_rows) values (%s, 'differs', 9)", KEEP
    )
    assert run(school, REPAIR, [ada], [KEEP, REMOVE]) == [(KEEP, USER, 0, 1, 0), (KEEP, ENROLLMENT, 1, 0, 0)]
    assert (findings(school, ada), findings(school, bob, eve)) == ([], others)
    assert value(school, "select count(*) from rollbook.verification") == 1  # it is about others too
    assert run(school, REPAIR, [ada], [KEEP, REMOVE]) == []
    run(school, REPAIR, [bob, eve], [KEEP, REMOVE])
    assert run(school, "select * from rollbook.verify()") == []


def test_copies_of_a_deleted_user_and_rows_under_anothers_id_are_found(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, KEEP)
    keep = schema(school, KEEP)
    plant(school, "update {c}.auth_userprofile set user_id = 999", c=keep)
    plant(school, "update {c}.auth_user set id = 999", c=keep)
    profile = value(school, "select id from portal.auth_userprofile where user_id = %s", ada)
    changed = (KEEP, PROFILE, ada, profile, "changed", ["user_id"])
    assert findings(school, ada) == [(KEEP, USER, ada, ada, "missing", None), changed]
    assert findings(school, 999) == [(KEEP, USER, 999, 999, "extra", None), changed]
    assert findings(school, bob) == []
    assert run(school, REPAIR, [999], [KEEP]) == [(KEEP, USER, 1, 0, 1), (KEEP, PROFILE, 0, 1, 0)]
    assert run(school, "select * from rollbook.verify()") == []
    assert value(school, "select count(*) from rollbook.route where user_id = 999") == 0


def test_a_wrong_route_is_found_and_repaired(school: Db) -> None:
    ada, bob = add_user(school, "ada"), add_user(school, "bob")
    enroll(school, ada, KEEP)
    plant(school, "update rollbook.route set schemas = '{}' where user_id = %s", ada)
    plant(school, "update rollbook.route set schemas = array[%s] where user_id = %s", schema(school, REMOVE), bob)
    assert findings(school, ada, bob) == [
        (KEEP, "route", ada, ada, "missing", None), (REMOVE, "route", bob, bob, "extra", None),
    ]  # fmt: skip
    assert run(school, REPAIR, [ada, bob], [KEEP, REMOVE]) == []  # no row of a copy
    assert findings(school, ada, bob) == []


def test_a_broken_or_paused_or_unknown_course_is_refused(school: Db) -> None:
    ada = add_user(school, "ada")
    enroll(school, ada, KEEP, REMOVE)
    run(school, "drop table {c}.{t}", c=schema(school, KEEP), t=PROFILE)
    assert findings(school, ada) == [(KEEP, PROFILE, ada, None, "not_comparable", None)]
    assert "rollbook.repair('edX/toy/2012_Fall')" in str(refused(school, "RB008", REPAIR, [ada], [KEEP]).message_hint)
    refused(school, "RB006", REPAIR, [ada], ["none"])
    run(school, "select rollbook.pause_course(%s)", REMOVE)
    refused(school, "RB021", REPAIR, [ada], [REMOVE])
