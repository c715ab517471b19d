"""An upgrade while people write, and programs of two versions beside one database: docs/upgrade.md."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.core.db import connect
from rollbook.core.errors import AttentionError
from tests import next_revision
from tests.program import KEEP, REMOVE, snapshot
from tests.school import Rollbook, advance_sequences

Db = Connection[Any]


@dataclass
class Writer:
    """A session that enrolls, changes and removes users of its own until it is stopped."""

    number: int
    done: int = 0
    errors: list[str] = field(default_factory=list)

    def work(self, dsn: str, stop: threading.Event) -> None:
        """Write: in transactions, in both orders of the tables, and in statements of their own."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.is_set():
                name = f"writer{self.number}-{self.done}"
                try:
                    with conn.transaction():
                        row = conn.execute(
                            "insert into portal.auth_user (username, email) values (%s, %s) returning id",
                            [name, f"{name}@example.org"],
                        ).fetchone() or (0,)  # fmt: skip
                        conn.execute("insert into portal.auth_userprofile (user_id, name) values (%s, 'New')", row)
                        for course in (KEEP, REMOVE):
                            conn.execute(
                                "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)",
                                [*row, course],
                            )
                    with conn.transaction():
                        conn.execute("update portal.auth_userprofile set name = 'Newer' where user_id = %s", row)
                        conn.execute("update portal.auth_user set first_name = 'Newer' where id = %s", row)
                    if self.done % 3 == 0:
                        conn.execute(
                            "delete from portal.student_courseenrollment where user_id = %s and course_id = %s",
                            [*row, REMOVE],
                        )
                    if self.done % 7 == 0:
                        conn.execute("delete from portal.auth_user where id = %s", row)
                except psycopg.Error as exc:
                    self.errors.append(f"{exc.sqlstate} {exc}")
                self.done += 1


@contextmanager
def writing(dsn: str, count: int = 3) -> Iterator[list[Writer]]:
    """Let writers write inside."""
    stop = threading.Event()
    writers = [Writer(number) for number in range(count)]
    threads = [threading.Thread(target=each.work, args=[dsn, stop]) for each in writers]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """The migrations of the next program."""
    return next_revision.write(tmp_path)


@pytest.mark.slow
def test_an_upgrade_and_a_downgrade_under_running_writers_leave_no_gap(
    rollbook: Rollbook, school: Db, dsn: str, migrations: Path
) -> None:
    advance_sequences(school)
    moved = []
    with writing(dsn) as writers, next_revision.installed(migrations):
        for way in (["upgrade"], ["downgrade", "--to", "0002", "--yes"]):
            before = [writer.done for writer in writers]
            while any(writer.done < done + 3 for writer, done in zip(writers, before, strict=True)):
                time.sleep(0.01)
            moved.append(rollbook("schema", *way, "--json"))
    assert [(each.code, each.err) for each in moved if each.code] == []
    assert [each.row["to"] for each in moved] == ["0003", "0002"]
    assert [error for writer in writers for error in writer.errors] == []
    assert school.execute("select * from rollbook.verify()").fetchall() == []
    enrolled = "select count(*) from portal.student_courseenrollment where course_id = %s"
    assert (school.execute(enrolled, [KEEP]).fetchone() or (0,))[0] > 20
    assert rollbook("schema", "check", "--json").data == []


@pytest.mark.slow
def test_a_step_that_finds_a_lock_taken_lets_writers_pass_and_is_tried_again(
    rollbook: Rollbook, school: Db, session: Callable[[], Db], migrations: Path
) -> None:
    holder, other = session(), session()
    other.execute("set statement_timeout = '10s'")
    holder.execute("begin; update portal.auth_user set first_name = 'x' where username = 'ada'")
    ended: list[object] = []

    def end() -> None:
        """Once the upgrade had to wait, write beside it, and end the transaction."""
        waits = "select from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
        until = time.monotonic() + 60
        while not ended and time.monotonic() < until:
            if other.execute(waits, [holder.info.backend_pid]).fetchone() is not None:
                ended.append(other.execute("update portal.auth_user set first_name = 'y' where username = 'bob'"))
                time.sleep(0.6)
        holder.execute("commit")

    thread = threading.Thread(target=end)
    thread.start()
    with next_revision.installed(migrations):
        answer = rollbook("schema", "upgrade", "--json")
    thread.join()
    assert answer.code == 0, answer.err
    assert answer.row["to"] == "0003"
    assert "trying again: portal.auth_user is written all the time, or by a transaction that stays open" in answer.err
    assert f"session {holder.info.backend_pid} (" in answer.err
    names = school.execute("select first_name from course_mitx_6_002x_2012_fall.auth_user order by 1").fetchall()
    assert names == [("x",), ("y",)]


READS = ("user list", "course list", "status", "replication verify", "schema check", "history list")
WRITES = (
    "user update ada --first-name Ada", "enrollment add eve " + KEEP, "course create edX/new/2013", "schema upgrade",
    "course pause " + KEEP, "schema grant", "replication repair --yes", "shape without last_login",
    "schema downgrade --to 0001 --yes",
)  # fmt: skip


def test_an_old_program_on_a_newer_schema_reads_and_writes_nothing(
    rollbook: Rollbook, school: Db, migrations: Path
) -> None:
    with next_revision.installed(migrations):
        for command in (*READS, "user update ada --first-name Ada"):
            answer = rollbook(*command.split())  # a new program on an old schema
            assert (answer.code, answer.out, "rollbook schema upgrade" in answer.err) == (4, "", True), answer
        assert rollbook("schema", "upgrade").code == 0
    before = snapshot(school)
    for command in (*READS, *WRITES):
        answer = rollbook(*command.split())
        assert (answer.code, answer.out, "newer than this program" in answer.err) == (4, "", True), (command, answer)
    assert snapshot(school) == before
    assert rollbook("schema", "current", "--json").row["is_head"] is False
    assert rollbook("version").code == 0


@pytest.mark.slow
def test_a_command_that_writes_when_an_upgrade_comes_ends_before_its_next_transaction(
    school: Db, dsn: str, rollbook: Rollbook, migrations: Path
) -> None:
    """Its transaction under way commits before the upgrade; the next one writes nothing."""
    rename = "update portal.auth_user set first_name = %s where username = 'ada'"
    answers = []

    def upgrade() -> None:
        answers.append(rollbook("schema", "upgrade", "--json"))

    with connect(dsn, name="rollbook test", writes=True) as old:
        old.execute(rename, ["before"])
        with next_revision.installed(migrations):
            thread = threading.Thread(target=upgrade)
            thread.start()
            time.sleep(1.5)  # longer than an upgrade needs
            assert school.execute("select version_num from public.rollbook_revision").fetchone() == ("0002",)
            old.commit()
            thread.join()
        assert answers[0].code == 0, answers[0].err
        for mode in (False, True):
            old.autocommit = mode
            with pytest.raises(AttentionError, match="newer than this program"), old.transaction():
                old.execute(rename, ["after"])
            old.rollback()
    assert school.execute("select first_name from portal.auth_user where username = 'ada'").fetchone() == ("before",)
