"""Memberships by a condition: a flip is an enrollment or a leave, with all that hangs on it."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Cluster
from tests.sql.helpers import (
    COURSES,
    KEEP,
    REMOVE,
    Db,
    add_user,
    create,
    declare,
    enroll,
    everybody,
    faults,
    findings,
    flip,
    held,
    run,
    schema,
    value,
    versions,
)

THIRD = "third"
NOBODY = everybody()


@pytest.fixture
def at(flagged: Db) -> Db:
    """The two courses where enrollments count while is_active, and a third that keeps leavers."""
    for course, on_leave in (COURSES | {THIRD: "keep"}).items():
        create(flagged, course, on_leave)
    return flagged


def add(db: Db, how_many: int) -> list[int]:
    """Add users with profiles, in one statement each; return their ids."""
    run(
        db,
        """insert into portal.auth_user (username, email)
        select 'many' || n, 'many' || n || '@edx.org' from generate_series(1, %s) as n""",
        how_many,
    )
    run(db, "insert into portal.auth_userprofile (user_id, name) select id, username from portal.auth_user")
    return [row[0] for row in run(db, "select id from portal.auth_user order by id")]


def everywhere(db: Db, user_id: int, *courses: str, to: bool = True) -> None:
    """Insert enrollments, in one statement."""
    run(
        db,
        """insert into portal.student_courseenrollment (user_id, course_id, is_active)
        select %s, c.id, %s from unnest(%s::text[]) as c (id)""",
        user_id, to, list(courses),
    )  # fmt: skip


def test_a_flip_is_a_leave_and_an_enrollment(at: Db) -> None:
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    everywhere(at, ada, KEEP, REMOVE)
    everywhere(at, bob, KEEP, REMOVE, to=False)
    assert (held(at, KEEP), held(at, REMOVE)) == (everybody(ada), everybody(ada))
    flip(at, ada, KEEP, REMOVE, to=False)
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada], [ada], []), NOBODY)
    run(
        at, "update portal.auth_user set first_name = 'Ada' where id = %s", ada
    )  # who left a keep course is kept current
    assert faults(at) == []
    flip(at, ada, KEEP, REMOVE, to=True)
    flip(at, bob, REMOVE, to=True)
    assert (held(at, KEEP), held(at, REMOVE)) == (everybody(ada), everybody(ada, bob))
    assert faults(at) == []


def test_what_changes_nothing_writes_nothing(at: Db) -> None:
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    everywhere(at, ada, KEEP)
    everywhere(at, bob, KEEP, REMOVE, to=False)
    before = versions(at)
    routes = run(at, "select user_id, written from rollbook.route order by 1")
    flip(at, ada, KEEP, to=True)
    flip(at, bob, KEEP, REMOVE, to=False)
    run(at, "update portal.student_courseenrollment set created = now() where user_id = %s", bob)  # it does not count
    run(at, "delete from portal.student_courseenrollment where user_id = %s", bob)
    assert versions(at) == before
    assert run(at, "select user_id, written from rollbook.route order by 1") == routes
    assert faults(at) == []


def test_null_is_not_true(at: Db) -> None:
    ada = add_user(at, "ada")
    run(at, "alter table portal.student_courseenrollment alter is_active drop not null")
    everywhere(at, ada, KEEP)
    run(at, "update portal.student_courseenrollment set is_active = null")
    assert held(at, KEEP) == ([ada], [ada], [])
    run(at, "update portal.student_courseenrollment set is_active = true")
    assert (held(at, KEEP), faults(at)) == (everybody(ada), [])


def test_rows_of_the_courses_own_are_referred_to_in_order(at: Db) -> None:
    """The copies' foreign keys hold at each statement; a key that does not cascade forbids the flip, by name."""
    ada = add_user(at, "ada")
    for course in COURSES:
        name = schema(at, course)
        for table in ("auth_userprofile", "student_courseenrollment"):
            run(at, "alter table {c}.{t} add foreign key (user_id) references {c}.auth_user", c=name, t=table)
        run(
            at,
            """create table {c}.note (user_id bigint references {c}.auth_user on delete cascade,
            enrollment_id bigint references {c}.student_courseenrollment deferrable initially deferred)""",
            c=name,
        )
    everywhere(at, ada, KEEP, REMOVE)
    flip(at, ada, REMOVE, to=False)
    flip(at, ada, REMOVE, to=True)
    removed = schema(at, REMOVE)
    run(at, "insert into {c}.note (user_id) values (%s)", ada, c=removed)
    flip(at, ada, REMOVE, to=False)
    assert value(at, "select count(*) from {c}.note", c=removed) == 0
    flip(at, ada, REMOVE, to=True)
    run(at, "insert into {c}.note (enrollment_id) select id from {c}.student_courseenrollment", c=removed)
    with pytest.raises(psycopg.IntegrityError) as refusal:
        flip(at, ada, REMOVE, to=False)
    assert (refusal.value.sqlstate, removed in str(refusal.value)) == ("23R04", True)
    assert (held(at, REMOVE), faults(at)) == (everybody(ada), [])


def test_a_move_that_flips(at: Db) -> None:
    """One statement that moves rows to another course, or another user, and flips them."""
    ada, bob, eve, dan, fay = (add_user(at, name) for name in ("ada", "bob", "eve", "dan", "fay"))
    for user, is_in in ((ada, True), (bob, False), (eve, True), (dan, False)):
        everywhere(at, user, REMOVE, to=is_in)
    run(
        at,
        """update portal.student_courseenrollment set course_id = %s, is_active = user_id in (%s, %s)""",
        KEEP, bob, eve,
    )  # fmt: skip
    assert (held(at, KEEP), held(at, REMOVE)) == (everybody(bob, eve), NOBODY)
    run(
        at,
        "update portal.student_courseenrollment set user_id = %s, course_id = %s where user_id = %s",
        dan,
        THIRD,
        bob,
    )
    assert (held(at, KEEP), held(at, THIRD)) == (([bob, eve], [bob, eve], [eve]), everybody(dan))
    # A row that does not count moves to another user of the same course: nothing happens; then it counts.
    flip(at, eve, KEEP, to=False)
    run(at, "update portal.student_courseenrollment set user_id = %s where user_id = %s", fay, eve)
    assert held(at, KEEP) == ([bob, eve], [bob, eve], [])
    run(at, "update portal.student_courseenrollment set is_active = true, id = id + 100 where user_id = %s", fay)
    assert (held(at, KEEP), faults(at)) == (([bob, eve, fay], [bob, eve, fay], [fay]), [])


def test_ids_that_two_rows_exchange(at: Db) -> None:
    """A row that stops to count gives its id to one that counts."""
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    everywhere(at, ada, KEEP, REMOVE)
    everywhere(at, bob, KEEP, REMOVE, to=False)
    run(at, "alter table portal.student_courseenrollment drop constraint student_courseenrollment_pkey")
    run(at, "alter table portal.student_courseenrollment add primary key (id) deferrable")
    ids: dict[int, int] = dict(run(at, "select user_id, min(id) from portal.student_courseenrollment group by 1"))
    run(
        at,
        """update portal.student_courseenrollment
        set is_active = not is_active, id = case user_id when %(a)s then id + %(d)s else id - %(d)s end"""
        .replace("%(a)s", str(ada)).replace("%(d)s", str(ids[bob] - ids[ada])),
    )  # fmt: skip
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada, bob], [ada, bob], [bob]), everybody(bob))
    assert faults(at) == []


def test_thousands_flip_in_one_statement(at: Db) -> None:
    users = add(at, 4000)
    run(
        at,
        """insert into portal.student_courseenrollment (user_id, course_id, is_active)
        select u.id, c.id, u.id %% 2 = 0 from portal.auth_user as u, unnest(%s::text[]) as c (id)""",
        [KEEP, REMOVE],
    )
    even, odd = [u for u in users if u % 2 == 0], [u for u in users if u % 2]
    assert held(at, REMOVE) == everybody(*even)
    run(at, "update portal.student_courseenrollment set is_active = not is_active")
    assert held(at, REMOVE) == everybody(*odd)
    assert held(at, KEEP) == (users, users, odd)
    run(at, "update portal.student_courseenrollment set is_active = false")
    assert (held(at, REMOVE), faults(at)) == (NOBODY, [])


def test_copy_upsert_and_merge(at: Db) -> None:
    users = add(at, 9)
    with at.cursor().copy("copy portal.student_courseenrollment (user_id, course_id, is_active) from stdin") as copier:
        for user in users:
            copier.write_row((user, REMOVE, user % 3 != 0))
    assert held(at, REMOVE) == everybody(*(u for u in users if u % 3))
    run(
        at,
        """insert into portal.student_courseenrollment (user_id, course_id, is_active)
        select id, %s, true from portal.auth_user where id <= 6
        on conflict (user_id, course_id) do update set is_active = not student_courseenrollment.is_active""",
        REMOVE,
    )
    now = [3, 6, 7, 8]
    assert held(at, REMOVE) == everybody(*now)
    run(
        at,
        """merge into portal.student_courseenrollment as e
        using (select id, id % 2 = 0 as is_in from portal.auth_user) as s on e.user_id = s.id and e.course_id = '{c}'
        when matched and s.id = 9 then delete
        when matched then update set is_active = s.is_in
        when not matched then insert (user_id, course_id, is_active) values (s.id, '{c}', s.is_in)""".replace(
            "{c}", REMOVE
        ),
    )
    assert held(at, REMOVE) == everybody(*(u for u in users if u % 2 == 0))
    assert faults(at) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_triggers_of_the_application_that_flip(at: Db, moment: str) -> None:
    """The application decides in a trigger of its own: BEFORE it is stored, or by a second statement AFTER it."""
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    action = (
        "new.is_active := new.course_id <> '{c}'; return new;"
        if moment == "before"
        else "update portal.student_courseenrollment set is_active = course_id <> '{c}' "
        "where id = new.id and is_active <> (course_id <> '{c}'); return null;"
    ).replace("{c}", REMOVE)
    run(
        at,
        f"""create function public.decide() returns trigger language plpgsql as $$ begin {action} end $$;
        create trigger a_decide {moment} insert or update on portal.student_courseenrollment
        for each row execute function public.decide()""",
    )
    everywhere(at, ada, KEEP, REMOVE)
    everywhere(at, bob, KEEP, to=False)
    assert (held(at, KEEP), held(at, REMOVE)) == (everybody(ada, bob), NOBODY)
    flip(at, ada, REMOVE, to=True)
    flip(at, bob, KEEP, to=False)
    assert (held(at, KEEP), held(at, REMOVE), faults(at)) == (everybody(ada, bob), NOBODY, [])


def test_one_transaction_that_flips_to_and_fro(at: Db) -> None:
    """Each statement sees the last; deferred keys of the portal change nothing."""
    ada = add_user(at, "ada")
    everywhere(at, ada, KEEP, REMOVE, THIRD)
    run(at, "alter table portal.student_courseenrollment alter constraint student_courseenrollment_user_id_fkey "
            "deferrable initially deferred")  # fmt: skip
    with at.transaction():
        flip(at, ada, REMOVE, KEEP, to=False)
        run(at, "update portal.auth_user set first_name = 'Ada' where id = %s", ada)
        flip(at, ada, REMOVE, to=True)
        with at.transaction(force_rollback=True):
            flip(at, ada, KEEP, REMOVE, THIRD, to=False)
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada], [ada], []), everybody(ada))
    assert faults(at) == []
    with at.transaction():  # the person goes first, as deferred keys allow
        run(at, "alter table portal.student_courseenrollment drop constraint student_courseenrollment_user_id_fkey")
        run(at, "delete from portal.auth_user where id = %s", ada)
        flip(at, ada, KEEP, to=True)
        run(at, "delete from portal.student_courseenrollment where user_id = %s", ada)
    assert [held(at, course) for course in (KEEP, REMOVE, THIRD)] == [NOBODY] * 3
    assert faults(at) == []


def test_pause_resume_and_repair_meet_flips(at: Db) -> None:
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    everywhere(at, ada, KEEP, REMOVE)
    everywhere(at, bob, KEEP, REMOVE, to=False)
    run(at, "select rollbook.pause_course(%s), rollbook.pause_course(%s)", KEEP, REMOVE)
    run(at, "update portal.student_courseenrollment set is_active = not is_active")
    assert (held(at, KEEP), held(at, REMOVE)) == (everybody(ada), everybody(ada))
    run(at, "select rollbook.resume_course(%s), rollbook.resume_course(%s)", KEEP, REMOVE)
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada, bob], [ada, bob], [bob]), everybody(bob))
    run(at, "set session_replication_role = replica")
    run(at, "update portal.student_courseenrollment set is_active = not is_active")  # behind Rollbook's back
    run(at, "reset session_replication_role")
    assert {row[2] for row in findings(at)} == {"missing", "extra"}
    run(at, "select rollbook.repair()")
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada, bob], [ada, bob], [ada]), everybody(ada))
    assert faults(at) == []


def test_truncate_and_deletion(at: Db) -> None:
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    for user in (ada, bob):
        everywhere(at, user, KEEP, REMOVE, to=user == ada)
    flip(at, ada, KEEP, to=False)
    run(at, "delete from portal.auth_user where id = %s", bob)
    assert (held(at, KEEP), held(at, REMOVE)) == (([ada], [ada], []), everybody(ada))
    run(at, "truncate portal.student_courseenrollment")
    assert (held(at, KEEP), held(at, REMOVE), faults(at)) == (([ada], [ada], []), NOBODY, [])
    everywhere(at, ada, REMOVE)
    assert (held(at, REMOVE), faults(at)) == (everybody(ada), [])


def test_a_course_is_made_of_who_counts(at: Db) -> None:
    ada, bob = add_user(at, "ada"), add_user(at, "bob")
    everywhere(at, ada, "late")
    everywhere(at, bob, "late", to=False)
    create(at, "late", "remove")
    assert held(at, "late") == everybody(ada)
    flip(at, bob, "late", to=True)
    assert (held(at, "late"), faults(at)) == (everybody(ada, bob), [])
    assert value(at, "select count(*) from rollbook.memberships_of('late')") == 2


def test_several_rows_of_a_person_in_a_course(at: Db) -> None:
    """The person stays until the last one stops to count, and each row that counts is copied."""
    ada = add_user(at, "ada")
    run(
        at, "alter table portal.student_courseenrollment drop constraint student_courseenrollment_user_id_course_id_key"
    )
    for _ in range(3):
        everywhere(at, ada, KEEP, REMOVE)
    first, second, third = (
        row[0]
        for row in run(at, "select id from portal.student_courseenrollment where course_id = %s order by 1", REMOVE)
    )
    assert held(at, REMOVE) == ([ada], [ada], [ada, ada, ada])
    run(at, "update portal.student_courseenrollment set is_active = false where id = %s", first)
    assert (held(at, REMOVE), faults(at)) == (([ada], [ada], [ada, ada]), [])
    run(at, "delete from portal.student_courseenrollment where id = %s", second)
    assert (held(at, REMOVE), faults(at)) == (([ada], [ada], [ada]), [])
    run(at, "update portal.student_courseenrollment set is_active = id = %s where course_id = %s", first, REMOVE)
    assert (held(at, REMOVE), faults(at)) == (([ada], [ada], [ada]), [])
    run(at, "update portal.student_courseenrollment set course_id = %s where id = %s", THIRD, first)
    assert (held(at, REMOVE), held(at, THIRD), faults(at)) == (NOBODY, everybody(ada), [])
    run(at, "update portal.student_courseenrollment set is_active = true where id = %s", third)
    run(at, "update portal.student_courseenrollment set is_active = false where course_id = %s", KEEP)
    assert (held(at, KEEP), held(at, REMOVE), faults(at)) == (([ada], [ada], []), everybody(ada), [])


@pytest.fixture
def plain(flagged: Db, cluster: Cluster) -> tuple[Db, str]:
    """The same table, without a condition."""
    dsn = cluster.server.dsn(flagged.info.dbname)
    declare(dsn, None)
    for course, on_leave in COURSES.items():
        create(flagged, course, on_leave)
    return flagged, dsn


def test_declared_over_rows_that_are_already_false(plain: tuple[Db, str]) -> None:
    """After the repair that follows the declaration, who does not count has left; another condition lets them back."""
    db, dsn = plain
    ada, bob = add_user(db, "ada"), add_user(db, "bob")
    enroll(db, ada, KEEP, REMOVE)
    enroll(db, bob, KEEP, REMOVE)
    flip(db, bob, KEEP, REMOVE, to=False)
    assert (held(db, KEEP), held(db, REMOVE)) == (everybody(ada, bob), everybody(ada, bob))
    declare(dsn, "is_active")
    run(db, "select rollbook.repair()")
    assert (held(db, KEEP), held(db, REMOVE)) == (([ada, bob], [ada, bob], [ada]), everybody(ada))
    assert faults(db) == []
    declare(dsn, "is_active or created > '2000-01-01Z'")
    run(db, "select rollbook.repair()")
    assert (held(db, KEEP), held(db, REMOVE)) == (everybody(ada, bob), everybody(ada, bob))
    assert findings(db) == []
