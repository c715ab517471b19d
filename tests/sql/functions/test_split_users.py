"""sql/functions/accounts/split_users.sql: everybody in exactly one group, by share, repeatable by seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.helpers import Db, add_user, refused, run, value
from tests.sql.stepping import Stepper

SPLIT = "select rollbook.split_users(%s::text[], %s::numeric[], %s, %s::bigint[], %s)"
GROUPS = "select name, description from portal.student_usertestgroup order by id"
MEMBERS = """
select m.user_id, g.name from portal.student_usertestgroup_users as m
inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id order by m.user_id, g.name
"""


def split(db: Db, shares: dict[str, str], seed: int = 1, among: list[int] | None = None, text: str = "") -> int:
    """Split users; return how many were placed."""
    return int(value(db, SPLIT, list(shares), [Decimal(share) for share in shares.values()], seed, among, text))


def users(db: Db, count: int) -> list[int]:
    """So many users; return their ids."""
    found = run(
        db,
        "insert into portal.auth_user (username, email) "
        "select 'user' || n, 'user' || n || '@edx.org' from generate_series(1, %s) as n returning id",
        count,
    )
    return [row[0] for row in found]


def state(db: Db) -> list[list[tuple[Any, ...]]]:
    """All groups and memberships."""
    return [run(db, GROUPS), run(db, MEMBERS)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100, 1001])
@pytest.mark.parametrize(
    "shares", [{"a": "0.3", "b": "0.4", "c": "0.3"}, {"a": "1"}, {"a": "0.33", "b": "0.33", "c": "0.33"},
               {"a": "0.001", "b": "0.999"}],
    ids=lambda shares: ",".join(shares.values()),
)  # fmt: skip
def test_everybody_is_in_exactly_one_group_of_the_right_size(portal: Db, count: int, shares: dict[str, str]) -> None:
    ids = users(portal, count)
    assert split(portal, shares) == count
    placed = run(portal, MEMBERS)
    assert [row[0] for row in placed] == ids
    sizes, total = Counter(row[1] for row in placed), sum(map(Decimal, shares.values()))
    for name, share in shares.items():
        assert abs(sizes[name] - count * Decimal(share) / total) <= 1


def test_the_same_seed_gives_the_same_groups_and_another_seed_others(portal: Db) -> None:
    users(portal, 200)
    shares = {"a": "0.5", "b": "0.5"}
    found = []
    for seed in (7, 7, 8, -(2**63), 2**63 - 1):
        split(portal, shares, seed)
        found.append(run(portal, MEMBERS))
        run(portal, "delete from portal.student_usertestgroup")
    assert found[0] == found[1]
    assert len({tuple(assignment) for assignment in found}) == 4
    # Nothing but ids and seed decides: not where the rows lie, and not what else is known of the users.
    run(portal, "update portal.auth_user set first_name = 'x' where id % 2 = 0")
    split(portal, shares, 7)
    assert run(portal, MEMBERS) == found[0]


def test_the_assignment_of_a_seed_is_the_same_on_every_server(portal: Db) -> None:
    ids = users(portal, 8)
    assert ids == list(range(1, 9))
    split(portal, {"a": "0.5", "b": "0.5"}, 42)
    import hashlib

    order = sorted(ids, key=lambda user: hashlib.sha256(f"42:{user}".encode()).digest())
    assert run(portal, MEMBERS) == [(user, "a" if user in order[:4] else "b") for user in ids]


def test_only_those_named_are_placed(portal: Db) -> None:
    ids = users(portal, 20)
    assert split(portal, {"a": "0.5", "b": "0.5"}, among=[*ids[:6], ids[0], 4711]) == 6
    assert [row[0] for row in run(portal, MEMBERS)] == ids[:6]


def test_the_description_is_json_with_text_and_time(portal: Db) -> None:
    users(portal, 4)
    split(portal, {"a": "0.25", "b": "0.75"}, 3, text='Trial "one"\nünï')
    ((_, first), (_, second)) = run(portal, GROUPS)
    found = json.loads(first)
    at = found.pop("time")
    assert found == {"text": 'Trial "one"\nünï', "seed": 3, "share": 0.25}
    assert (at[-6:], datetime.fromisoformat(at)) == ("+00:00", value(portal, "select now()"))
    assert json.loads(second)["share"] == 0.75


@pytest.mark.parametrize(
    ("names", "shares", "code", "text"),
    [
        (["x", "y"], ["0.5", "0.4"], "RB013", "Total not 1"),
        (["x", "y"], ["0.5", "0.52"], "RB013", "Total not 1"),
        (["x", "y"], ["0.5", "NaN"], "RB013", "Total not 1"),
        (["x", "y"], ["1.5", "-0.5"], "RB013", "each group needs a share above 0"),
        (["x", "y"], ["1", "0"], "RB013", "each group needs a share above 0"),
        (["x", "y"], ["1", None], "RB013", "each group needs a share above 0"),
        (["x", "y"], ["1"], "RB013", "each group needs a share above 0"),
        ([], [], "RB013", "each group needs a share above 0"),
        (None, None, "RB013", "each group needs a share above 0"),
        (["x", "x"], ["0.5", "0.5"], "RB013", "group x is named twice"),
        (["x", "there"], ["0.5", "0.5"], "23R14", "there already exists!"),
    ],
)
def test_what_cannot_be_split_is_refused_and_nothing_changes(
    portal: Db, names: list[str] | None, shares: list[str | None] | None, code: str, text: str
) -> None:
    users(portal, 5)
    run(portal, "insert into portal.student_usertestgroup (name) values ('there')")
    before = state(portal)
    assert refused(portal, code, SPLIT, names, shares, 1, None, "").message_primary == text
    assert state(portal) == before


def test_nobody_to_place_is_refused(portal: Db) -> None:
    refused(portal, "RB013", SPLIT, ["a"], [1], 1, None, "")
    users(portal, 3)
    refused(portal, "RB013", SPLIT, ["a"], [1], 1, [], "")
    assert state(portal) == [[], []]


def test_shares_may_miss_1_by_a_hundredth_and_count_relative_to_their_sum(portal: Db) -> None:
    users(portal, 1000)
    split(portal, {"a": "0.33", "b": "0.33", "c": "0.33"})
    sizes = Counter(row[1] for row in run(portal, MEMBERS))
    assert sorted(sizes.values()) == [333, 333, 334]
    split(portal, {"d": "0.5", "e": "0.51"})


def test_of_two_sessions_that_split_into_one_name_the_second_is_refused(live: Db, session: Callable[[], Db]) -> None:
    users(live, 10)
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    call = "select rollbook.split_users(array['a', 'b'], array[0.5, 0.5], %(seed)s)"
    assert not one.step(call, {"seed": 1})
    assert two.step(call, {"seed": 2})
    assert (one.end(), two.end()) == ("", "23505")
    assert [row[0] for row in run(live, MEMBERS)] == list(range(1, 11))


def test_a_user_deleted_meanwhile_is_passed_over(live: Db, session: Callable[[], Db]) -> None:
    users(live, 5)
    add_user(live, "ada")
    one, two = Stepper(session(), live), Stepper(session(), live)
    one.begin()
    two.begin()
    assert not one.step("delete from portal.auth_user where id = 3")
    assert two.step("select rollbook.split_users(array['a', 'b'], array[0.5, 0.5], 1)")
    assert (one.end(), two.end()) == ("", "")
    assert [row[0] for row in run(live, MEMBERS)] == [1, 2, 4, 5, 6]
