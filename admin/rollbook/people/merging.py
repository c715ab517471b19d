"""Two accounts of one person made one: what the first has goes to the second, then the first is deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg import errors, sql

from rollbook.core import history
from rollbook.core.errors import RefusedError
from rollbook.core.rows import Row
from rollbook.core.users import user_word
from rollbook.people.queries import merge as queries
from rollbook.people.queries import user as accounts
from rollbook.people.queries.remains import of_user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.referring import Reference
    from rollbook.core.remains import Remain
    from rollbook.core.users import User

SHOWN = ("account", "profile")  # the parts of `user show` whose differences a merge shows
NOT_SHOWN = ("id", "username", "email", "last_login", "date_joined", "meta")

RETRIES = 3

# A row that would stand twice in a unique index: what both have. The columns are those of the index.
UNIQUE = """
select a.attname::text as name
from pg_index as i
cross join lateral unnest(i.indkey::int2[]) as k (number)
inner join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.number
where i.indexrelid = to_regclass(%s)
"""


@dataclass(frozen=True)
class Part:
    """What a merge does with one thing that the first account has: moved, removed or kept."""

    what: str
    name: str
    outcome: str
    detail: str | None = None
    remains: list[Remain] = field(default_factory=list)


def merge(conn: Conn, run: Run, source: User, target: User, *, move_references: bool) -> list[Part]:
    """Give what the first account has to the second, delete the first, and record it.

    Where the site's foreign keys are deferred, who enrolls the first may wait for us at the commit while we wait for
    their route: we begin again then, and find their enrollment.

    Raises RefusedError if one of them is gone meanwhile, if the first has rights or a candidate that the second cannot
    take over, and for rows of other tables that refer to the first, unless `move_references` changes them.
    """
    for _ in range(RETRIES):
        try:
            with conn.transaction():
                return merged(conn, run, source, target, move_references=move_references)
        except errors.DeadlockDetected:
            continue
    return merged(conn, run, source, target, move_references=move_references)


def merged(conn: Conn, run: Run, source: User, target: User, *, move_references: bool) -> list[Part]:
    """Do what merge() does, once."""
    ids = {"source": source["id"], "target": target["id"]}
    found = queries.lock(conn, ids)
    for user in (source, target):
        if user["id"] not in found:
            raise RefusedError(f"there is no user {user['username']} any more", fix="rollbook user list --match TEXT")
    check_rights(found[source["id"]], found[target["id"]])
    check_candidates(conn, queries.candidates(conn, ids), source, target)
    parts = differences(conn, source, target)
    own = queries.own_columns(conn, ids)
    follow(conn, source, target, queries.dormant_references(conn, ids), parts, move=move_references)
    for what, outcome, statement in queries.STEPS:
        parts += [Part(what, row["name"], outcome, row["detail"]) for row in conn.execute(statement, ids)]
    queries.keep_in_meta(conn, ids, run.reason or "")
    follow(conn, source, target, queries.references(conn, ids), parts, move=move_references)
    parts += [Part("columns of a course", row["name"], "removed", row["detail"]) for row in own]
    queries.tell_discussion(conn, ids)
    left = [each for each in of_user(conn, source["id"]) if each.place not in ("history", "test centre")]
    accounts.delete(conn, source["id"])
    parts.append(Part("user", source["username"], "removed", f"id:{source['id']}", left))
    record(conn, run, source, target, parts)
    return parts


def check_rights(source: Row, target: Row) -> None:
    """Raise RefusedError if the first is staff or a superuser and the second is not: a merge gives no rights."""
    for flag, word in (("is_staff", "staff"), ("is_superuser", "superuser")):
        if source[flag] and not target[flag]:
            raise RefusedError(
                f"{source['username']} is {word} and {target['username']} is not", why="a merge gives nobody rights",
                fix=f"rollbook user revoke {user_word(source)} --{word}"  # type: ignore[arg-type]
                f", or rollbook user grant {user_word(target)} --{word}",  # type: ignore[arg-type]
            )  # fmt: skip


def check_candidates(conn: Conn, found: dict[int, Row], source: User, target: User) -> None:
    """Raise RefusedError if both are candidates and the test centre has heard of the first."""
    first, second = found.get(source["id"]), found.get(target["id"])
    if first is None or second is None or not first["is_sent"]:
        return
    why = f"{first['client_candidate_id']} of {source['username']} was sent to the test centre"
    if not second["is_sent"]:
        raise RefusedError(
            "both accounts are candidates", why=f"{why}, {second['client_candidate_id']} was not",
            fix=f"rollbook user merge {user_word(target)} {user_word(source)}",
        )  # fmt: skip
    removal = sql.SQL("delete from portal.student_testcenteruser where client_candidate_id = {}")
    raise RefusedError(
        "both accounts are candidates", why=f"{why}, so was {second['client_candidate_id']}",
        fix="agree with the test centre which of them stays, cancel the authorizations of the other one with "
        "`rollbook authorization cancel`, export that, and remove it: "
        + removal.format(first["client_candidate_id"]).as_string(conn),
    )  # fmt: skip


def differences(conn: Conn, source: User, target: User) -> list[Part]:
    """Return the fields of the second that stay although the first has another value."""
    first, second = fields(conn, source), fields(conn, target)
    return [
        Part("field", name, "kept", f"{shown(second.get(name))}; id:{source['id']} has {shown(value)}")
        for name, value in first.items()
        if name not in NOT_SHOWN and value not in (None, "") and name in second and value != second[name]
    ]


def fields(conn: Conn, user: User) -> Row:
    """Return the fields of account and profile; of the password only its kind."""
    report = accounts.report(conn, user["id"])
    return {name: value for part in SHOWN for name, value in (report[part] or {}).items()}


def shown(value: object) -> str:
    """Return a value of a field in words."""
    return "nothing" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


# --- tables of others -------------------------------------------------------------------------------------------------


def follow(
    conn: Conn, source: User, target: User, found: Iterable[Reference], parts: list[Part], *, move: bool
) -> None:
    """Change the references of other tables to the second account, or refuse them. Raises RefusedError."""
    references = list(found)
    if (references and not move) or any(each.change is None or each.rows is None for each in references):
        raise refusal(conn, references, source, target)
    for each in references:
        if each.change is None:
            continue
        try:
            with conn.transaction():
                rows = conn.execute(each.change).rowcount
        except errors.UniqueViolation as exc:
            raise doubled(conn, each, exc, source, target) from exc
        parts.append(Part("reference", each.name, "moved", f"{each.key}: {rows}"))


def refusal(conn: Conn, references: Sequence[Reference], source: User, target: User) -> RefusedError:
    """Return the error that names the rows of other tables that refer to the first account, and what to do."""
    unread = sorted({each.name for each in references if each.rows is None})
    alone = sorted({each.name for each in references if each.change is None})
    if unread:
        fix = "run it as a role that may read and change " + ", ".join(unread)
    elif alone:
        fix = (
            f"delete the rows of {', '.join(alone)}, or enroll {target['username']} in that course first: "
            "there is no row that they could refer to instead"
        )
    else:
        fix = "add --move-references, which runs in the same transaction:\n" + ";\n".join(
            each.change.as_string(conn) for each in references if each.change
        )
    return RefusedError(
        f"rows of other tables refer to {source['username']}",
        why=", ".join(f"{each.name}: {'not readable' if each.rows is None else each.rows}" for each in references),
        fix=fix,
        references=[
            {"table": each.name, "key": each.key, "rows": each.rows,
             "fix": each.change.as_string(conn) if each.change else None}
            for each in references
        ],
    )  # fmt: skip


def doubled(conn: Conn, reference: Reference, exc: errors.UniqueViolation, source: User, target: User) -> RefusedError:
    """Return the error for rows of which both accounts have the same."""
    index = sql.Identifier(reference.schema, exc.diag.constraint_name or "").as_string(conn)
    unique = [row["name"] for row in conn.execute(UNIQUE, [index])]
    return RefusedError(
        f"{source['username']} and {target['username']} have the same row in {reference.name}",
        why=f"{exc.diag.constraint_name} allows one",
        fix=f"keep one of them: {reference.doubles(unique).as_string(conn)}",
    )


# --- history ----------------------------------------------------------------------------------------------------------


def record(conn: Conn, run: Run, source: User, target: User, parts: Sequence[Part]) -> None:
    """Record the merge under both ids; `history list` then shows the first one's entries under the second.

    The entry has no value of a field: what was the deleted account's own is forgotten.
    """
    done: dict[str, dict[str, list[str]]] = {}
    for part in parts:
        if part.what != "field":
            done.setdefault(part.outcome, {}).setdefault(part.what, []).append(part.name)
    history.record_many(conn, run, [
        {"object": target["username"], "outcome": "merged", "user_id": target["id"],
         "before": {"id": source["id"], "username": source["username"]}, "after": done},
        {"object": source["username"], "outcome": "merged", "user_id": source["id"],
         "after": {"id": target["id"], "username": target["username"]}},
    ])  # fmt: skip
