"""A command that waits for a lock says for whom, and how to end that session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Thread
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core.db import connect
from rollbook.core.errors import UnreachableError
from rollbook.core.lock_wait import holders_of
from rollbook.core.sqlstate import translated
from tests.conftest import Cluster
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
    assert "UTC: update portal.auth_user set first_name = '...')" in answer.err, "what it ran, without its values"
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


def test_the_root_of_a_chain_is_named_and_who_may_end_it(
    rollbook: Rollbook, school: Connection[Any], session: Callable[[], Connection[Any]], dsn: str
) -> None:
    school.execute(
        "do $$ begin create role rb_waiter login; exception when duplicate_object or unique_violation then null; end $$"
    )
    school.execute("grant rollbook_operator to rb_waiter")
    update = "update portal.auth_user set first_name = 'New' where username = 'ada'"
    root, second = psycopg.connect(dsn, autocommit=True), session()
    root.execute("begin")
    root.execute(update)
    waiting = Thread(target=lambda: second.execute(update.encode()))
    waiting.start()
    query = "select cardinality(pg_blocking_pids(%s)) = 1"
    while school.execute(query, [second.info.backend_pid]).fetchone() != (True,):
        pass
    for where, who in ((dsn, ""), (dsn.replace("user=postgres", "user=rb_waiter"), "(as a superuser) ")):
        answer = rollbook("user", "update", "ada", "--first-name", "Newer", "--timeout", "2", dsn=where)
        assert answer.code == 3
        assert f"{who}select pg_terminate_backend({root.info.backend_pid});" in answer.err, answer.err
        assert f"pg_terminate_backend({second.info.backend_pid})" not in answer.err
    school.execute(answer.err.partition("(as a superuser) ")[2].partition(";")[0].encode())
    waiting.join()
    root.close()
    assert rollbook("user", "update", "ada", "--first-name", "Newer", "--timeout", "5").code == 0


def test_a_lock_is_explained_where_the_database_has_no_functions_of_rollbook(cluster: Cluster) -> None:
    with (
        psycopg.connect(cluster.server.dsn(), autocommit=True) as holder,
        connect(cluster.server.dsn(), name="rollbook test", timeout=2, migrated=False) as conn,
    ):
        holder.execute("select pg_advisory_lock(4711)")
        with pytest.raises(UnreachableError) as refused, translated():
            conn.execute("select pg_advisory_xact_lock(4711)")
        assert f"select pg_terminate_backend({holder.info.backend_pid});" in (refused.value.fix or "")


def test_one_thread_looks_after_all_statements_each_in_its_time(dsn: str) -> None:
    with ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        holder.execute("select pg_advisory_lock(4712)")
        one, two = (
            stack.enter_context(connect(dsn, name="rollbook test", timeout=seconds, migrated=False))
            for seconds in (2.5, 0.8)  # the one that is asked later waits less
        )
        one.execute("select 1")
        threads = threading.active_count()
        for _ in range(100):
            one.execute("select 1")
        assert threading.active_count() == threads
        pool = stack.enter_context(ThreadPoolExecutor())
        waiting = []
        for conn in (one, two):
            waiting.append(pool.submit(conn.execute, "select pg_advisory_xact_lock(4712)"))
            while (
                holder.execute(
                    "select from pg_locks where pid = %s and not granted", [conn.info.backend_pid]
                ).fetchone()
                is None
            ):
                pass
        for each in waiting:
            error = each.exception()
            assert isinstance(error, psycopg.errors.QueryCanceled)
            assert [found.remedy for found in holders_of(error)] == [
                f"select pg_terminate_backend({holder.info.backend_pid});"
            ]
