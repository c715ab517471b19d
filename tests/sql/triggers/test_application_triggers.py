"""An application's own triggers on the portal's tables: whatever they change, the copies equal the portal."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    USER,
    Db,
    add_user,
    enroll,
    everybody,
    faults,
    held,
    leave,
    run,
)

# Name -> table, event, body of a row trigger; `new` and `old` are the row that the statement wrote.
TRIGGERS: dict[str, tuple[str, LiteralString, LiteralString]] = {
    "user again, after update": (
        USER,
        "after update",
        "update portal.auth_user set email = upper(email) where id = new.id and email <> upper(email)",
    ),
    "user back, after update": (
        USER,
        "after update",
        "if new.first_name <> '' then update portal.auth_user set first_name = '' where id = new.id; end if",
    ),
    "user again, after insert": (
        USER,
        "after insert",
        "update portal.auth_user set first_name = 'by trigger' where id = new.id",
    ),
    "profile for a new user": (USER, "after insert", "insert into portal.auth_userprofile (user_id) values (new.id)"),
    "user deleted, after update": (USER, "after update", "delete from portal.auth_user where id = new.id"),
    "user joins and leaves, after update": (
        USER,
        "after update",
        """insert into portal.student_courseenrollment (user_id, course_id)
            select new.id, course_id from rollbook.course on conflict do nothing;
        delete from portal.student_courseenrollment where user_id = new.id""",
    ),
    "user leaves, after update": (
        USER,
        "after update",
        "delete from portal.student_courseenrollment where user_id = new.id",
    ),
    "user joins, after insert": (
        USER,
        "after insert",
        """insert into portal.student_courseenrollment (user_id, course_id)
            select new.id, course_id from rollbook.course""",
    ),
    "profile again, after insert or update": (
        PROFILE,
        "after insert or update",
        "update portal.auth_userprofile set goals = 'G' where id = new.id and goals is distinct from 'G'",
    ),
    "profile deleted, after insert or update": (
        PROFILE,
        "after insert or update",
        "delete from portal.auth_userprofile where id = new.id",
    ),
    "profile put back, after delete": (
        PROFILE,
        "after delete",
        """insert into portal.auth_userprofile
            select old.* where exists (select from portal.auth_user where id = old.user_id)""",
    ),
    "profile made anew, after delete": (
        PROFILE,
        "after delete",
        "insert into portal.auth_userprofile (user_id) select id from portal.auth_user where id = old.user_id",
    ),
    "user changed, after profile update": (
        PROFILE,
        "after update",
        "update portal.auth_user set last_name = new.name where id = new.user_id",
    ),
    "enrollment again, after insert": (
        ENROLLMENT,
        "after insert",
        "update portal.student_courseenrollment set created = '2012-01-01' where id = new.id",
    ),
    "enrollment deleted, after insert": (
        ENROLLMENT,
        "after insert",
        "delete from portal.student_courseenrollment where id = new.id",
    ),
    "enrollment deleted, after update": (
        ENROLLMENT,
        "after update",
        "delete from portal.student_courseenrollment where id = new.id",
    ),
    "enrollment elsewhere, after insert": (
        ENROLLMENT,
        "after insert",
        """update portal.student_courseenrollment set course_id = 'edX/none/' || id
            where id = new.id and course_id not like 'edX/n%'""",
    ),
    "enrollment in the other course, after insert": (
        ENROLLMENT,
        "after insert",
        """update portal.student_courseenrollment set course_id = 'edX/toy/2012_Fall'
            where id = new.id and course_id <> 'edX/toy/2012_Fall' and not exists (
                select from portal.student_courseenrollment
                where user_id = new.user_id and course_id = 'edX/toy/2012_Fall')""",
    ),
    "enrollment for another user, after insert": (
        ENROLLMENT,
        "after insert",
        """update portal.student_courseenrollment e set user_id = 5 where id = new.id and not exists (
            select from portal.student_courseenrollment where user_id = 5 and course_id = new.course_id)""",
    ),
    "enrollment moved back, after update": (
        ENROLLMENT,
        "after update",
        """update portal.student_courseenrollment set course_id = old.course_id
            where id = new.id and old.course_id <> new.course_id and new.course_id like 'edx/%'""",
    ),
    "enrollment put back, after delete": (
        ENROLLMENT,
        "after delete",
        """insert into portal.student_courseenrollment
            select old.* where exists (select from portal.auth_user where id = old.user_id)""",
    ),
    "user deleted, after enrollment": (
        ENROLLMENT,
        "after insert",
        "delete from portal.auth_user where id = new.user_id",
    ),
    "enrollment refused, before insert": (ENROLLMENT, "before insert", "if new.user_id = 1 then return null; end if"),
    "enrollment renamed, before insert": (ENROLLMENT, "before insert", "new.course_id := trim(new.course_id, '/')"),
    "user changed, before update": (USER, "before update", "new.email := lower(new.email)"),
}

# What then happens to the portal.
WORK: list[LiteralString] = [
    "insert into portal.student_courseenrollment (user_id, course_id) select 1, course_id from rollbook.course",
    "insert into portal.student_courseenrollment (user_id, course_id) values (4, 'edx/full/6.002_Spring_2012')",
    "update portal.auth_user set first_name = 'New', email = 'New@edx.org' where id = 1",
    "update portal.auth_user set first_name = 'Newer'",
    "update portal.auth_userprofile set goals = 'New', name = 'New'",
    "update portal.auth_userprofile set location = 'New' where user_id = 2",
    """update portal.student_courseenrollment set course_id = 'edx/full/6.002_Spring_2012'
        where user_id = 3 and course_id = 'edX/toy/2012_Fall'""",
    "update portal.student_courseenrollment set created = null where user_id = 2",
    """insert into portal.student_courseenrollment (user_id, course_id)
        select id, 'edx/full/6.002_Spring_2012' from portal.auth_user where id < 5 on conflict do nothing""",
    "delete from portal.auth_userprofile where user_id = 1",
    "insert into portal.auth_user (username) values ('new')",
    "delete from portal.student_courseenrollment where user_id = 2",
    "delete from portal.auth_user where id = 3",
]


def attach(db: Db, table: str, event: LiteralString, body: LiteralString) -> None:
    """Give the portal's table a row trigger."""
    run(
        db,
        "create function public.app() returns trigger language plpgsql as $$ begin "
        + body
        + "; return coalesce(new, old); end $$",
    )
    run(db, "create trigger app " + event + " on portal.{t} for each row execute function public.app()", t=table)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_copies_end_equal_whatever_a_trigger_does_to_the_rows(school: Db, trigger: str) -> None:
    for name, courses in (("ada", []), ("bob", [KEEP, REMOVE]), ("cy", [KEEP]), ("di", []), ("eve", [])):
        enroll(school, add_user(school, name), *courses)
    attach(school, *TRIGGERS[trigger])
    for statement in WORK:
        run(school, statement)
        assert faults(school) == [], statement


@pytest.mark.parametrize("name", ["a_first", "zz_last"])
@pytest.mark.parametrize("table", [USER, PROFILE])
def test_a_statement_trigger_may_write_before_or_after_the_routing(school: Db, table: str, name: str) -> None:
    for user in ("ada", "bob"):
        enroll(school, add_user(school, user), KEEP, REMOVE)
    column = "last_name" if table == USER else "location"
    run(
        school,
        """create function public.app() returns trigger language plpgsql as $$ begin
            if pg_trigger_depth() = 1 then update portal.{t} set {k} = {k} || 'x'; end if; return null; end $$""",
        t=table,
        k=column,
    )
    run(
        school,
        "create trigger {n} after update on portal.{t} for each statement execute function public.app()",
        n=name,
        t=table,
    )
    run(school, "update portal.{t} set {k} = 'a' where id % 10 = 1", t=table, k=column)
    run(school, "update portal.{t} set {k} = 'b'", t=table, k=column)
    assert faults(school) == []


def test_an_enrollment_that_is_deleted_at_once_leaves_nothing_in_a_remove_course(school: Db) -> None:
    add_user(school, "ada")
    attach(school, *TRIGGERS["enrollment deleted, after insert"])
    enroll(school, 1, REMOVE)
    assert held(school, REMOVE) == everybody()
    run(school, "drop trigger app on portal.student_courseenrollment")
    enroll(school, 1, REMOVE)
    assert held(school, REMOVE) == everybody(1)
    leave(school, 1, REMOVE)
    assert held(school, REMOVE) == everybody()
