"""The tree of relays and servers: which rows it has, and what it says of those that have none."""

from __future__ import annotations

import re

import pytest

from rollbook.core.rows import Row
from rollbook.replication.tree import Hop, drawn


def hop(server: str, through: str | None = None, state: str = "ok", courses: int = 1) -> Hop:
    """A server."""
    return Hop(server, through, state, courses, 0, 0.02, 0.01, None, None)


def servers(rows: list[Row]) -> int:
    """How many servers the rows stand for."""
    more = [re.search(r"─ (\d+) more", row["server"]) for row in rows]
    return sum(int(found[1]) if found else 1 for found in more) - 1  # the portal


@pytest.mark.parametrize("relays", [0, 1, 2, 14])
@pytest.mark.parametrize("each", [0, 1, 7, 50])
def test_every_server_has_a_row_or_is_counted(relays: int, each: int) -> None:
    found = [hop(f"relay{n:02}") for n in range(relays)]
    found += [hop(f"s{n:02}-{m:03}", f"relay{n:02}") for n in range(relays) for m in range(each)]
    found += [hop("direct"), hop("idle", courses=0)]
    for room in (None, *range(2, 40)):
        rows = drawn(found, room=room)
        assert (servers(rows), room is None or len(rows) <= room) == (len(found), True)
        assert sum(row["courses"] or 0 for row in rows) == sum(each.courses for each in found)
    rows = drawn(found, whole=True)
    assert sorted(row["server"].split()[-1] for row in rows[1:]) == sorted(each.server for each in found)


def test_what_is_not_well_comes_first_in_little_room() -> None:
    found = [hop("east"), hop("west"), *(hop(f"e{n}", "east") for n in range(9))]
    found += [hop(f"w{n}", "west", "broken" if n == 8 else "lagging" if n == 7 else "ok") for n in range(9)]
    rows = drawn(found, room=7)
    assert [(row["server"], row["state"]) for row in rows] == [
        ("portal", None), ("├─ west", "ok"), ("│  ├─ w8", "broken"), ("│  └─ 8 more, worst", "lagging"),
        ("└─ east", "ok"), ("   ├─ e0", "ok"), ("   └─ 8 more", "ok"),
    ]  # fmt: skip
    rows = drawn(found, room=3)
    assert [(row["server"], row["state"]) for row in rows] == [
        ("portal", None), ("├─ west", "ok"), ("└─ 19 more, worst", "broken"),
    ]  # fmt: skip


def test_a_server_behind_a_relay_that_is_down_is_unreachable_through_it() -> None:
    down = "unreachable"
    hops = [
        ("hub", None, down),
        ("east", "hub", down),
        ("well", None, "ok"),
        ("west", "well", down),
        ("solo", None, down),
    ]
    rows = drawn([hop(*each) for each in hops])
    assert {row["server"].split()[-1]: row["state"] for row in rows} == {
        "portal": None, "hub": "unreachable", "east": "unreachable through hub", "well": "ok", "west": "unreachable",
        "solo": "unreachable",
    }  # fmt: skip


def test_servers_that_the_portal_feeds_need_no_tree_unless_it_is_asked_for() -> None:
    found = [hop("east"), hop("west")]
    assert (drawn(found), drawn([]), drawn([], whole=True)) == ([], [], [])
    assert [row["server"] for row in drawn(found, whole=True)] == ["portal", "├─ east", "└─ west"]
