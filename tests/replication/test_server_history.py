"""What the history keeps of course servers: each write of the program, none of a dry run, no password."""

from __future__ import annotations

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import Site

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

HISTORY = "select command, object, outcome, before, after, reason, course_id from rollbook.history order by id"


def test_each_write_to_a_server_is_kept_with_its_reason_and_no_dry_run_is(site: Site) -> None:
    def does(*command: str) -> list[tuple[object, ...]]:
        """Try the command dry, then do it; return what the history has gained."""
        before = site.portal.execute(HISTORY).fetchall()
        site.ok(*command, "--dry-run")
        assert site.portal.execute(HISTORY).fetchall() == before
        site.ok(*command, "--reason", "moving")
        gained = site.portal.execute(HISTORY).fetchall()[len(before) :]
        assert {row[5] for row in gained} <= {"moving"}
        assert all((row[6] == row[1]) or row[6] is None for row in gained)
        return [(*row[:5],) for row in gained]

    east, there = {"server": "east"}, site.server_dsn + " password=planted"
    added = does("server", "add", "east", "--admin-dsn", there, "--subscription-dsn", site.portal_dsn)
    assert [row[:3] for row in added] == [("server add", "east", "created")]
    assert "password=" in str(added[0][4])
    assert "planted" not in str(added)
    assert does("course", "attach", KEEP, REMOVE, "--to", "east") == [
        ("course attach", KEEP, "attached", None, east), ("course attach", REMOVE, "attached", None, east),
    ]  # fmt: skip
    assert does("course", "attach", KEEP, "--to", "east") == []
    switched = {**east, "skipped_lsn": None}
    for verb, outcome in (("pause", "paused"), ("resume", "resumed")):
        assert does("replication", verb, KEEP) == [
            (f"replication {verb}", course, outcome, None, switched) for course in (KEEP, REMOVE)
        ]
    site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where user_id = 102")
    written = [{"table": "student_courseenrollment", "course": KEEP, "inserted": 1, "updated": 0, "deleted": 0}]
    assert does("replication", "repair", KEEP, "--yes") == [
        ("replication repair", KEEP, "repaired", None, {**east, "written_there": written})
    ]
    assert does("replication", "resync", KEEP, "--yes") == [
        ("replication resync", KEEP, "resynced", None, {**east, "portal": [], "written_there": []})
    ]
    assert does("course", "detach", KEEP, REMOVE, "--yes") == [
        ("course detach", course, "detached", east, {"rows_there": "removed"}) for course in (KEEP, REMOVE)
    ]
    assert does("server", "remove", "east", "--yes") == [
        ("server remove", "east", "removed", {"courses": [], "left_there": []}, None)
    ]


def test_a_repair_in_the_portals_own_database_is_kept_in_its_transaction(site: Site) -> None:
    with site.portal.transaction():
        site.portal.execute("set local session_replication_role = replica")
        site.portal.execute(f"delete from {KEEP_SCHEMA}.student_courseenrollment where user_id = 102")
    site.ok("replication", "repair", "--dry-run")
    assert site.portal.execute(HISTORY).fetchall() == []
    site.ok("replication", "repair", "--yes")
    ((command, name, outcome, _, after, _, _),) = site.portal.execute(HISTORY).fetchall()
    assert (command, name, outcome) == ("replication repair", KEEP, "repaired")
    assert [(row["table"], row["inserted"]) for row in after["portal"]] == [("student_courseenrollment", 1)]
