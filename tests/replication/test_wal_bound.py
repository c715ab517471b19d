"""A server that is down while the WAL retained for it nears its bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import psycopg
import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Own,
    Site,
    remedy,
    until,
)
from tests.replication.doctor import findings
from tests.replication.scenes import enroll, line


def alarm(site: Site) -> str | None:
    """The alarm of the server's slot."""
    found = site.run("replication", "slots", "--json")
    assert found.code == (4 if found.row["alarm"] else 0)
    return cast("str | None", found.row["alarm"])


def all_clear(site: Site) -> bool:
    """Let the portal note how far it may forget; say whether no slot raises an alarm."""
    site.portal.execute("checkpoint")
    return alarm(site) is None


def fill_wal(site: Site, wanted: str) -> list[str | None]:
    """Write WAL until the slot raises this alarm; return the alarms on the way."""
    seen = []
    for _ in range(100):
        seen.append(alarm(site))
        if seen[-1] == wanted:
            return list(dict.fromkeys(seen))
        site.portal.execute(
            "select pg_logical_emit_message(false, '', repeat('x', 1000000)) from generate_series(1, 6)"
        )
        if wanted == "lost":
            site.portal.execute("checkpoint")
    raise AssertionError(f"no alarm {wanted}: {seen}")


@contextmanager
def reader(site: Site) -> Iterator[list[int]]:
    """Count the course's users on the server all the time; the least that was seen stands in the list in the end."""
    least: list[int] = []
    end = threading.Event()

    def read() -> None:
        counts = []
        with psycopg.connect(site.server_dsn, autocommit=True) as conn:
            while not end.is_set():
                (count,) = conn.execute(f"select count(*) from {KEEP_SCHEMA}.auth_user").fetchone() or (0,)
                counts.append(count)
        least.append(min(counts))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield least
    finally:
        end.set()
        thread.join()


@pytest.mark.slow
def test_an_alarm_comes_before_the_slot_of_a_server_that_is_down_is_lost_and_courses_are_rebuilt_one_by_one(
    own: Callable[..., Own],
) -> None:
    site = own(max_slot_wal_keep_size="32MB")
    site.add()
    site.attach(KEEP, REMOVE)
    enroll(site, 50)
    site.wait()
    site.there.stop()
    assert fill_wal(site, "near") == [None, "near"]
    assert "before the slot is lost" in site.run("replication", "slots").err
    answer = site.run("doctor", "--json")
    near = [each for each in answer.data if each["check"] == "slot" and "near its bound" in each["found"]]
    assert (answer.code, len(near)) == (3, 1)
    assert near[0]["fix"].startswith("alter system set max_slot_wal_keep_size = '")
    site.again()  # in time: nothing was lost
    site.wait()
    until(lambda: all_clear(site))
    assert set(site.states().values()) == {"ok"}
    site.there.stop()
    site.portal.execute("delete from portal.auth_user where id >= 1000 and id % 10 = 0")
    site.portal.execute("update portal.auth_user set first_name = 'away' where id in (101, 102)")
    enroll(site, 20)
    assert fill_wal(site, "lost") == [None, "near", "lost"]
    site.again()
    for found in site.run("replication", "status", "--json").data:
        assert found["state"] == "broken", found
        assert "slot was lost" in found["reason"]
        assert found["fix"] == f"rollbook replication resync '{found['course']}'"
    (slot,) = [each for each in findings(site) if each["check"] == "slot"]
    assert slot["found"] == "slot rollbook_east is lost: its server lacks what was committed since"
    assert slot["fix"] == f"rollbook replication resync '{KEEP}' '{REMOVE}'"
    neighbour = site.copy(REMOVE)
    with reader(site) as least:
        assert remedy(site, f"rollbook replication resync '{KEEP}'").code == 0
    assert least[0] >= 47
    assert site.is_equal(KEEP)
    assert site.states() == {REMOVE: "unknown", KEEP: "ok"}
    assert site.copy(REMOVE) == neighbour
    assert not site.is_equal(REMOVE)
    assert remedy(site, line(site, REMOVE)["fix"]).code == 0
    assert site.is_equal(REMOVE)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
