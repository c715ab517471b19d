"""The first copy of a course while others write, and one that a constraint stops."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.conftest import (
    Site,
    new_ids,
    until,
)
from tests.replication.scenes import POISON, allow_poison, becomes, count_arrivals, kept_empty, refuse_poison, slots

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it


@contextmanager
def writers(site: Site, count: int) -> Iterator[None]:
    """Let so many clients enroll, rename and remove users of the course until the end."""
    new_ids(site)
    end = threading.Event()
    failures: list[BaseException] = []
    done = [0] * count

    def write(number: int) -> None:
        try:
            with psycopg.connect(site.portal_dsn, autocommit=True) as conn:
                while not end.is_set():
                    name = f"w{uuid.uuid4().hex[:12]}"
                    with conn.transaction():
                        row = conn.execute(
                            "insert into portal.auth_user (username, email) values (%s, %s) returning id",
                            [name, f"{name}@example.org"],
                        ).fetchone()
                        assert row is not None
                        conn.execute(
                            "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)",
                            [row[0], KEEP],
                        )
                    if done[number] % 3 == 0:
                        conn.execute("update portal.auth_user set first_name = 'changed' where id = %s", row)
                    done[number] += 1
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: bool(failures) or all(done))
        yield
        before = list(done)
        until(lambda: bool(failures) or all(now > then for now, then in zip(done, before, strict=True)))
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_changes_during_the_first_copy_arrive_once_each(site: Site) -> None:
    kept_empty(site)
    count_arrivals(site)
    with writers(site, 4):
        site.attach(KEEP)
    site.wait()
    assert site.is_equal(KEEP)
    inserted = [row[0] for row in site.server.execute(
        f"select user_id from {KEEP_SCHEMA}.arrival where operation = 'INSERT' order by 1")]  # fmt: skip
    assert inserted == [row[0] for row in site.copy(KEEP)]
    assert len(inserted) > 10


def test_a_constraint_breaks_the_first_copy_and_once_it_is_gone_the_copy_completes(site: Site) -> None:
    kept_empty(site)
    site.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    refuse_poison(site)
    broken = site.run("course", "attach", KEEP, "--to", "east", "--json")
    assert broken.code == 4
    assert "first copy to server east stopped" in broken.err
    assert "drop constraint no_poison; then: rollbook" in broken.err
    found = site.run("replication", "show", KEEP, "--json")
    assert found.code == 4
    assert (found.data["error"]["table"], found.data["error"]["operation"], found.data["error"]["sqlstate"]) == (
        "auth_user", "copy", "23514"
    )  # fmt: skip
    assert "no_poison" in found.data["error"]["message"]
    allow_poison(site)
    site.attach(KEEP)
    assert site.is_equal(KEEP)
    assert slots(site) == ["rollbook_east"]
    assert site.states()[KEEP] == "ok"


def test_resume_refuses_while_the_first_copy_cannot_be_done_and_completes_it_then(site: Site) -> None:
    kept_empty(site)
    site.portal.execute("update portal.auth_user set email = %s where username = 'ada'", [POISON])
    refuse_poison(site)
    assert site.run("course", "attach", KEEP, "--to", "east").code == 4
    refused = site.run("replication", "resume", KEEP)
    assert refused.code == 1
    assert "cannot copy auth_user" in refused.err
    assert "23514" in refused.err
    allow_poison(site)
    site.ok("replication", "resume", KEEP)
    until(lambda: site.is_equal(KEEP))
    becomes(site, "copying")  # it has arrived, and was not compared yet
    site.ok("replication", "verify", KEEP)
    assert site.states()[KEEP] == "ok"
    assert slots(site) == ["rollbook_east"]
