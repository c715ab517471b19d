"""Nobody waits for long behind create_course, drop_course, pause_course and resume_course while these wait for a lock.

Also tests what bounds them: take_turns, refuse_wait; what names the holder: blockers, describe_holder, lock_wait; and
the two halves: build_course, demolish_course, withdraw_course.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import KEEP, REMOVE, Db, add_user, enroll, faults, refused, run, schema, value
from tests.sql.stepping import Stepper

Session = Callable[[], Db]
# What the holder does in a transaction that it leaves open, and what waits for it.
HOLDERS: dict[str, tuple[LiteralString, LiteralString]] = {
    "drop behind a reader": ("select count(*) from {c}.auth_user", f"select rollbook.drop_course('{KEEP}')"),
    "drop behind a writer": (
        "update portal.auth_user set first_name = 'New' where id = 1",
        f"select rollbook.drop_course('{KEEP}')",
    ),
    "drop behind a reader of a local table": (
        "select count(*) from {c}.local",
        f"select rollbook.drop_course('{KEEP}', true)",
    ),
    "create behind a student": (
        "update portal.auth_user set first_name = 'New' where id = 1",
        "select rollbook.create_course('new')",
    ),
    "create behind an enrollment": (
        "insert into portal.student_courseenrollment (user_id, course_id) values (2, 'new')",
        "select rollbook.create_course('new')",
    ),
    "create behind a deletion": ("delete from portal.auth_user where id = 1", "select rollbook.create_course('new')"),
    "resume behind a student": (
        "update portal.auth_user set first_name = 'New' where id = 1",
        f"select rollbook.resume_course('{KEEP}')",
    ),
    "resume behind a row of a copy": (
        "select from {c}.auth_user where id = 1 for update",
        f"select rollbook.resume_course('{KEEP}')",
    ),
    "pause behind an attach": (
        f"update rollbook.course set state = 'copying' where course_id = '{KEEP}'",
        f"select rollbook.pause_course('{KEEP}')",
    ),
}
# What others do meanwhile: to a student of the course, too, and to the set of courses.
OTHERS: list[LiteralString] = [
    "update portal.auth_user set last_name = 'Other' where id in (2, 3)",
    "delete from portal.auth_user where id = 4",
    f"insert into portal.student_courseenrollment (user_id, course_id) values (3, '{REMOVE}') on conflict do nothing",
    "select rollbook.create_course('third ' || txid_current())",
]


@pytest.fixture
def pupils(live: Db) -> Db:
    """Users 1 and 2 in both courses and in `new`, which does not exist yet; users 3 and 4 in none."""
    for name in ("ada", "bob", "cy", "di"):
        user_id = add_user(live, name)
        if user_id <= 2:
            enroll(live, user_id, KEEP, REMOVE)
    enroll(live, 1, "new")
    run(live, "create table {c}.local (id bigint)", c=schema(live, KEEP))
    return live


@pytest.mark.parametrize("name", HOLDERS)
def test_it_gives_up_names_the_holder_and_holds_up_nobody(pupils: Db, session: Session, name: str) -> None:
    hold, wait = HOLDERS[name]
    holder, waiter, other = session(), Stepper(session(), pupils), session()
    if name.startswith("resume"):
        run(pupils, "select rollbook.pause_course(%s)", KEEP)
        if "row of a copy" in name:
            run(pupils, "update portal.auth_user set first_name = 'Behind' where id = 1")
    if name in {"drop behind a reader", "drop behind a writer"}:
        run(pupils, "drop table {c}.local", c=schema(pupils, KEEP))
    holder.execute("set application_name = 'left open'")
    holder.execute("begin")
    run(holder, hold, c=schema(pupils, KEEP))
    waiter.connection.execute("set lock_timeout = '60s'")
    assert waiter.step(wait), "it waits"
    for statement in OTHERS[:1] if name == "pause behind an attach" else OTHERS:
        if "create_course" not in statement or "deletion" not in name:  # which has to wait for it too
            other.execute(statement)
    assert not waiter.running.done(), "they had to wait until it gave up"
    waiter.connection.cancel_safe()
    assert isinstance(waiter.running.exception(30), psycopg.errors.QueryCanceled)
    waiter.connection.execute("set lock_timeout = '300ms'")
    said = refused(waiter.connection, "RB022", wait)
    pid = holder.info.backend_pid
    assert f"session {pid} (role postgres, application left open, idle in transaction, transaction since 2" in str(
        said.message_detail
    )
    assert f"select pg_terminate_backend({pid});" in str(said.message_hint)
    holder.execute("commit")
    waiter.connection.execute("reset lock_timeout")
    if name != "pause behind an attach":
        run(waiter.connection, wait)  # nothing of the first attempt is in the way
        assert faults(pupils) == []


def test_it_goes_on_as_soon_as_the_holder_ends(pupils: Db, session: Session) -> None:
    holder, waiter = session(), Stepper(session(), pupils)
    holder.execute("begin")
    holder.execute("update portal.auth_user set first_name = 'New' where id = 1")
    assert waiter.step("select rollbook.create_course('new')")
    holder.execute("commit")
    waiter.running.result(30)
    assert (value(pupils, "select count(*) from course_new.auth_user"), faults(pupils)) == (1, [])
    assert value(waiter.connection, "select current_setting('lock_timeout')") == "0"


def test_lock_wait_shows_who_waits_for_whom(pupils: Db, session: Session) -> None:
    holder, waiter = session(), Stepper(session(), pupils)
    holder.execute("begin")
    holder.execute("lock table portal.auth_user in access exclusive mode")
    assert waiter.step("update portal.auth_user set first_name = 'New' where id = 1")
    found = run(
        pupils,
        """select waiting_pid, waits_for, pid, state, remedy from rollbook.lock_wait
        where since is not null and query_start is not null""",
    )
    pid = holder.info.backend_pid
    assert found == [
        (
            waiter.connection.info.backend_pid,
            "table portal.auth_user",
            pid,
            "idle in transaction",
            f"select pg_terminate_backend({pid});",
        )
    ]
    holder.execute("rollback")
    assert waiter.running.result(30)
    assert run(pupils, "select * from rollbook.lock_wait") == []


def test_a_monitor_sees_the_waits(pupils: Db) -> None:
    run(pupils, "set role rollbook_monitor")
    assert run(pupils, "select * from rollbook.lock_wait") == []
    assert run(pupils, "select * from rollbook.blockers(%s)", KEEP) == []
    run(pupils, "reset role")


def test_without_a_holder_the_refusal_says_so(pupils: Db) -> None:
    said = refused(pupils, "RB022", "select rollbook.refuse_wait('this', %s, '0')", KEEP)
    assert "not known" in str(said.message_detail)
