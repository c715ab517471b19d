"""`rollbook history erase`: what is old goes, or loses its names and values; what cannot be undone any more says so."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from tests.program import KEEP, Result, snapshot
from tests.school import Rollbook

Db = Connection[Any]
BATCH = f"course_id,user,status\n{KEEP},dan,\n{KEEP},eve,\n".encode()


def texts(db: Db) -> str:
    """All that the history holds, as text."""
    return str(db.execute("select string_agg(h::text, ' ') from rollbook.history as h").fetchone())


def written(rollbook: Rollbook) -> list[Result]:
    """A change, a batch and a merge."""
    return [
        rollbook("user", "update", "ada", "--goals", "Analytical", "--reason", "ada lovelace asked"),
        rollbook("enrollment", "import", "-", stdin=BATCH),
        rollbook("allowed", "add", KEEP, "grace@example.org"),
        rollbook("user", "merge", "eve", "bob", "--yes"),
    ]


def test_names_and_values_go_and_the_entries_stay(rollbook: Rollbook, school: Db) -> None:
    assert [each.code for each in written(rollbook)] == [0, 0, 0, 0]
    before, batch = snapshot(school), rollbook("import", "list", "--json").data[0]["batch"]
    asked = rollbook("history", "erase", "--before", "0s")
    assert (asked.code, "not confirmed: erase 7 entries" in asked.err, "undone any more: 1" in asked.err) == (
        6, True, True,
    ), asked.err  # fmt: skip
    dry = rollbook("history", "erase", "--before", "0s", "--keep-entries", "-n", "--json")
    assert (dry.code, dry.data[0]["entries"], snapshot(school)) == (0, 7, before), dry.err
    assert rollbook("history", "erase", "--before", "2030-01-01", "--yes").code == 2
    assert rollbook("history", "erase", "--before", "1w", "--yes", "--json").data == []
    done = rollbook("history", "erase", "--before", "0s", "--keep-entries", "--yes", "--json")
    assert done.code == 0, done.err
    assert [(row["outcome"], row["entries"], row["batches"]) for row in done.data] == [("cleared", 7, 1)]
    assert not [word for word in ("Analytical", "lovelace", "grace@", "eve", "dan") if word in texts(school)]
    listed = rollbook("history", "list", "--user", "bob", "--json").data  # eve's entries are found under bob
    assert {"id:102", "id:104"} <= {row["object"] for row in listed}
    again = rollbook("history", "undo", str(batch), "--yes")
    assert (again.code, "its values were erased on " in again.err) == (1, True), again.err
    assert rollbook("history", "erase", "--before", "0s", "--keep-entries", "--yes", "--json").data == []


def test_entries_go_but_for_those_of_erasures(rollbook: Rollbook, school: Db) -> None:
    written(rollbook)
    batch = rollbook("import", "list", "--json").data[0]["batch"]
    assert rollbook("history", "erase", "--before", "0s", "--yes", "--reason", "two years").code == 0
    query = "select command, object, outcome, before, after, reason from rollbook.history order by id"
    left = school.execute(query).fetchall()
    assert left[:2] == [
        ("user merge", "id:102", "merged", {"id": 104}, {"id": None}, None),
        ("user merge", "id:104", "merged", {"id": None}, {"id": 102}, None),
    ]
    assert [(row[0], row[2], row[4]["outcome"], row[5]) for row in left[2:]] == [
        ("history erase", "erased", "removed", "two years"), ("history erase", "erased", "cleared", "two years"),
    ]  # fmt: skip
    gone = rollbook("history", "undo", str(batch), "--yes")
    assert (gone.code, f"no history entry {batch}" in gone.err, "were erased: see entry" in gone.err) == (1, True, True)
    assert rollbook("import", "list", "--json").data == []
    assert rollbook("history", "erase", "--before", "0s", "--yes").code == 0
    assert len(school.execute(query).fetchall()) == 4


def test_only_the_role_that_migrates_may(rollbook: Rollbook, school: Db, dsn: str) -> None:
    school.execute("drop role if exists rb_forgetful")
    school.execute("create role rb_forgetful login in role rollbook_operator, rollbook_owner")
    answer = rollbook(
        "history", "erase", "--before", "0s", "--yes", dsn=dsn.replace("user=postgres", "user=rb_forgetful")
    )
    school.execute("drop role rb_forgetful")
    assert (answer.code, "role rb_forgetful may not erase the history" in answer.err) == (3, True), answer.err
    assert "tables belong to postgres" in answer.err
