"""A command that waits for a lock says for whom, and how to end that session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from tests.school import Rollbook


def test_a_statement_that_waited_too_long_names_the_holder(
    rollbook: Rollbook, school: Connection[Any], session: Callable[[], Connection[Any]]
) -> None:
    ((name,),) = school.execute("select username from portal.auth_user order by id limit 1").fetchall()
    holder = session()
    holder.execute("set application_name = 'left open'")
    holder.execute("begin")
    holder.execute("update portal.auth_user set first_name = 'Held'")
    answer = rollbook("user", "update", name, "--first-name", "New", "--timeout", "2")
    pid = holder.info.backend_pid
    assert answer.code == 3
    assert f"session {pid} (role postgres, application left open, idle in transaction" in answer.err
    assert f"select pg_terminate_backend({pid});" in answer.err
    holder.execute("rollback")
    assert rollbook("user", "update", name, "--first-name", "New", "--timeout", "2").code == 0


def test_course_commands_name_the_holder(
    rollbook: Rollbook, school: Connection[Any], session: Callable[[], Connection[Any]], monkeypatch: Any
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=300ms")
    holder = session()
    holder.execute("begin")
    holder.execute("delete from portal.auth_user")
    answer = rollbook("course", "create", "new")
    assert answer.code == 1
    assert f"select pg_terminate_backend({holder.info.backend_pid});" in answer.err
    assert school.execute("select 1 from rollbook.course where course_id = 'new'").fetchall() == []
