"""sql/functions/api/user_copies.sql: the state of each copy of one user, course by course."""

from __future__ import annotations

from tests.sql.helpers import KEEP, PROFILE, REMOVE, USER, Db, add_user, enroll, leave, plant, run, schema

COPIES = "select * from rollbook.user_copies(%s)"


def test_each_course_of_the_user_is_listed_with_ok_copies(school: Db) -> None:
    ada = add_user(school, "ada")
    assert run(school, COPIES, ada) == []
    enroll(school, ada, KEEP, REMOVE)
    assert run(school, COPIES, ada) == [(KEEP, True, "ok", "ok", "ok"), (REMOVE, True, "ok", "ok", "ok")]


def test_a_user_without_a_profile_has_none_and_a_leaver_no_enrollment(school: Db) -> None:
    bob = add_user(school, "bob", profile=False)
    enroll(school, bob, KEEP, REMOVE)
    leave(school, bob, KEEP)
    leave(school, bob, REMOVE)
    assert run(school, COPIES, bob) == [(KEEP, False, "ok", "none", "none")]


def test_missing_changed_extra_and_unknown_are_told_apart(school: Db) -> None:
    ada = add_user(school, "ada")
    enroll(school, ada, KEEP)
    keep = schema(school, KEEP)
    plant(school, "delete from {c}.student_courseenrollment", c=keep)
    plant(school, "update {c}.auth_user set email = 'old@edx.org'", c=keep)
    plant(
        school, "insert into {c}.auth_userprofile select * from portal.auth_userprofile on conflict do nothing", c=keep
    )
    plant(school, "delete from portal.auth_userprofile")
    assert run(school, COPIES, ada) == [(KEEP, True, "changed", "extra", "missing")]
    run(school, "alter table {c}.{t} drop column goals cascade", c=keep, t=PROFILE)
    run(school, "drop table {c}.{t}", c=keep, t=USER)
    assert run(school, COPIES, ada) == [(KEEP, True, "unknown", "unknown", "missing")]
