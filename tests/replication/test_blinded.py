"""`status` says what is known where its heartbeat cannot be sent, or the servers cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.program import KEEP, REMOVE
from tests.school import Rollbook


@pytest.fixture
def elsewhere(school: Connection[Any], tmp_path: Path) -> Connection[Any]:
    """The portal with a course on a server that does not answer."""
    school.execute(
        """insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity)
        values ('east', %(dsn)s, %(dsn)s, 'x')""",
        {"dsn": f"host={tmp_path} dbname=east"},
    )
    school.execute("update rollbook.course set server = 'east' where course_id = %s", [KEEP])
    return school


def states(answer: Any) -> dict[str, str]:
    """The state of each course."""
    assert answer.out, answer.err
    return {row["course"]: row["state"] for row in answer.data["courses"]}


def test_a_beat_that_somebody_left_open_does_not_blind_status(
    rollbook: Rollbook, elsewhere: Connection[Any], dsn: str
) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("select rollbook.beat()")
        answer = rollbook("status", "--json")
        assert (answer.code, states(answer)) == (3, {KEEP: "unreachable", REMOVE: "ok"}), answer.err
    del elsewhere


def test_a_role_that_may_not_read_the_servers_sees_the_others(
    rollbook: Rollbook, elsewhere: Connection[Any], dsn: str
) -> None:
    elsewhere.execute("drop role if exists rb_looker")
    elsewhere.execute("create role rb_looker login in role rollbook_monitor")
    elsewhere.execute("grant select on public.rollbook_revision to rb_looker")
    try:
        where = dsn.replace("user=postgres", "user=rb_looker")
        answer = rollbook("status", "--json", dsn=where)
        assert (answer.code, states(answer)) == (3, {KEEP: "unreachable", REMOVE: "ok"}), answer.err
        elsewhere.execute("update rollbook.course set server = null")
        assert rollbook("status", dsn=where).code == 3, "a server without courses that does not answer"
        elsewhere.execute("delete from rollbook.server")
        answer = rollbook("status", "--json", dsn=where)
        assert (answer.code, states(answer)) == (0, {KEEP: "ok", REMOVE: "ok"}), answer.err
    finally:
        elsewhere.execute("drop owned by rb_looker")
        elsewhere.execute("drop role rb_looker")
