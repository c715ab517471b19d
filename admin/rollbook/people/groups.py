"""Groups created, filled, emptied and deleted, each write recorded in the history."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core.errors import RefusedError, UsageError
from rollbook.people.queries import group as queries
from rollbook.replication.queries.courses import known_courses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.users import User
    from rollbook.people.queries.group import Group

WIDTH = 32  # characters of a name


def checked_name(name: str) -> str:
    """Return the name of a new group. Raises RefusedError for one that cannot be stored."""
    if not name.strip():
        raise RefusedError("a group needs a name")
    if len(name) > WIDTH:
        raise RefusedError(f"the name {name[:WIDTH]}… has {len(name)} characters, at most {WIDTH} fit")
    if not name.isprintable():
        raise RefusedError("a group name cannot contain control characters")
    return name


def create(conn: Conn, run: Run, name: str, description: str | None, *, if_not_exists: bool) -> tuple[Group, str]:
    """Create a group; return it, and the outcome: created, or unchanged if it may exist. Raises RefusedError."""
    if queries.exists(conn, name):
        if not if_not_exists:
            raise RefusedError(f"{name} already exists!", fix="choose another name, or --if-not-exists")
        return queries.group(conn, name), "unchanged"
    queries.create(conn, name, description)
    created = queries.group(conn, name)
    record_created(conn, run, created)
    return created, "created"


def record_created(conn: Conn, run: Run, group: Group) -> None:
    """Record a new group."""
    after = {"id": group.id, "description": group.description}
    history.record(conn, run, group.name, "created", after=after, kind="group")


def delete(conn: Conn, run: Run, group: Group) -> None:
    """Delete a group with its memberships."""
    queries.delete(conn, group.id)
    history.record(
        conn, run, group.name, "removed", before={"description": group.description, "members": group.members}
    )


@dataclass(frozen=True)
class Linked:
    """What a command did to the membership of a user: created, removed or unchanged."""

    group: str
    username: str
    email: str
    outcome: str


def link(conn: Conn, run: Run, name: str, users: Sequence[User], *, join: bool) -> list[Linked]:
    """Put users into a group, or remove them from it. `join` creates a default group on first use."""
    outcome = "created" if join else "removed"
    if join and queries.create_default(conn, name):
        record_created(conn, run, queries.group(conn, name))
    group = queries.group(conn, name)
    touched = (queries.add if join else queries.remove)(conn, group.id, [user["id"] for user in users])
    history.record_many(conn, run, [
        {"kind": "member", "object": f"{name}: {user['username']}", "outcome": outcome, "user_id": user["id"],
         "after" if join else "before": {"id": touched[user["id"]], "group": name}}
        for user in users if user["id"] in touched
    ])  # fmt: skip
    return [
        Linked(name, user["username"], user["email"], outcome if user["id"] in touched else "unchanged")
        for user in users
    ]


# --- split ------------------------------------------------------------------------------------------------------------


def parsed_shares(parts: Sequence[str]) -> dict[str, Decimal]:
    """Return NAME:SHARE as name -> share. Raises UsageError for another form, RefusedError for a name."""
    shares: dict[str, Fraction] = {}
    for part in parts:
        name, _, text = part.rpartition(":")
        try:
            share = Fraction(text)
        except (ValueError, ZeroDivisionError):
            share = Fraction(0)
        if not name or not 0 < share <= 1:
            raise UsageError(
                f"{part} is not NAME:SHARE", fix="write a share above 0 as 0.25 or 1/4, such as trial:0.25"
            )
        if name in shares:
            raise UsageError(f"the group {name} is named twice", fix="name each group once")
        shares[checked_name(name)] = share
    return {name: Decimal(share.numerator) / Decimal(share.denominator) for name, share in shares.items()}


def parsed_filters(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the kind and the value of each filter. Raises UsageError."""
    filters = []
    for text in texts:
        kind, colon, value = text.partition(":")
        takes_value = kind in ("course", "group")
        if kind not in queries.AMONG or bool(value) is not takes_value or bool(colon) is not bool(value):
            raise UsageError(
                f"--among {text}: there is no such filter",
                fix="course:ID, group:NAME, active, inactive, staff or superuser",
            )
        filters.append((kind, value))
    return filters


@dataclass(frozen=True)
class Part:
    """A group that a split created; `share` is between 0 and 1."""

    id: int
    name: str
    share: float
    members: int
    seed: int


def split(
    conn: Conn, run: Run, shares: dict[str, Decimal], seed: int | None, filters: Sequence[tuple[str, str]],
    description: str,
) -> list[Part]:  # fmt: skip
    """Create groups and put users into them at random; without a seed, a random one is used.

    Raises RefusedError for an unknown course or group in a filter (RB013, 23R14 for what cannot be split).
    """
    among = [":".join(filter(None, pair)) for pair in filters]
    seed = secrets.randbelow(2**31) if seed is None else seed
    for kind, value in filters:
        if kind == "course":
            known_courses(conn, [value])
        elif kind == "group":
            queries.group(conn, value)
    created = queries.split(conn, shares, seed, queries.among(conn, filters), description)
    history.record_many(conn, run, [
        {"object": group.name, "outcome": "created", "after": {
            "share": str(shares[group.name]), "members": group.members, "seed": seed, "among": among}}
        for group in created
    ])  # fmt: skip
    return [Part(group.id, group.name, float(shares[group.name]), group.members, seed) for group in created]
