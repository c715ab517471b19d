"""The erasure of one person: in the portal's database, on every course server, and in the history.

The portal comes first, in one transaction, and decides: what forbids the deletion refuses it, and nothing is changed.
What is not reached then is remembered by number, and is finished by the same command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psycopg import errors

from rollbook.core import history
from rollbook.core.errors import NotConfirmedError, RefusedError, UnreachableError
from rollbook.core.history_erase import clear_users
from rollbook.core.rights import require_migrator
from rollbook.core.shell import course_word, quoted
from rollbook.core.users import find_user, is_number
from rollbook.people.queries import privacy
from rollbook.people.queries import user as users
from rollbook.replication import catalog, person_places
from rollbook.replication.person_places import There
from rollbook.replication.queries import person_rows
from rollbook.replication.queries.courses import known_courses
from rollbook.replication.queries.users import place_states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.people.queries.privacy import Holding, Kept, Mentions, Opened, Words
    from rollbook.replication.person_places import Held

    Seen = tuple[person_rows.PersonRows, privacy.Mentions]  # what was looked up before anything was locked

RETRIES = 3
PORTAL = "portal"
HISTORY, EXCHANGE_ROWS = "rollbook.history", "rollbook.exchange_row"


@dataclass(frozen=True)
class Line:
    """A line of the receipt; the fields are its columns. `at`: by the clock of the place."""

    place: str
    object: str
    rows: int | None
    outcome: str  # removed cleared unlinked kept sent; open: not reached; unknown: not searched
    detail: str | None = None
    lsn: str | None = None
    at: Any = None


@dataclass
class Person:
    """Whose erasure it is. `username` None: the account is gone."""

    ids: list[int]  # the account last
    username: str | None
    opened: Opened | None
    row_ids: dict[str, list[int]] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """Return the id of the account."""
        return self.ids[-1]

    @property
    def tag(self) -> str:
        """Return what stands for the person from now on."""
        return f"id:{self.id}"


@dataclass(frozen=True)
class Options:
    """The options of an erasure."""

    kept: Sequence[Kept] = ()
    remove_references: bool = False
    with_kept: bool = False


def find(conn: Conn, token: str) -> Person:
    """Return whom a name refers to: an account, or one that is gone, by id:N or as an open erasure knows it.

    Raises RefusedError for an unknown name, and for one that means two persons.
    """
    number = token.removeprefix("id:")
    user_id = int(number) if is_number(number) else None
    opened = privacy.find_open(conn, user_id, token.removeprefix("username:").removeprefix("email:"))
    try:
        account = find_user(conn, token)
    except RefusedError:
        if not opened and not (token.startswith("id:") and user_id is not None):
            raise
        if len(opened) > 1:
            raise several(token, opened) from None
        found = opened[0] if opened else None
        gone = found.user_id if found else user_id
        assert gone is not None  # noqa: S101 (one of them is there)
        ids = found.user_ids if found else privacy.accounts(conn, gone)
        return Person(ids, None, found, found.row_ids if found else {})
    mine = [each for each in opened if each.user_id == account["id"]]
    if len(opened) > len(mine):
        raise several(token, opened, account["id"])
    return Person(privacy.accounts(conn, account["id"]), account["username"], mine[0] if mine else None)


def several(token: str, opened: Sequence[Opened], account: int | None = None) -> RefusedError:
    """Return the refusal of a name that an account has, and that somebody had whose erasure is open."""
    names = [f"id:{each.user_id}: erased, not everywhere yet" for each in opened]
    if account is not None:
        names.insert(0, f"id:{account}: an account")
    return RefusedError(f"{token} means several persons", why=", ".join(names), fix="name one as id:N")


def check_confirmed(person: Person, token: str, confirm: str | None, lines: Sequence[Line]) -> None:
    """Raise NotConfirmedError, with what would be done, unless the name is repeated."""
    name = person.username or person.tag
    if confirm == name or (person.opened and confirm in (token, person.tag)):
        return
    fix = f"add --confirm {quoted(name)}"
    if confirm is not None:
        raise NotConfirmedError(f"--confirm {confirm} is not {name}", fix=fix)
    places: dict[str, list[str]] = {}
    for line in lines:
        count = "" if line.rows is None else f" {line.rows}"
        places.setdefault(f"{line.place}, {line.outcome}", []).append(f"{line.object}{count}")
    raise NotConfirmedError(
        f"not confirmed: this erases {name} everywhere, for good",
        why="; ".join(f"{place}: {', '.join(what)}" for place, what in places.items()), fix=fix,
        plan=[vars(line) for line in lines],
    )  # fmt: skip


def erase(run: Run, token: str, confirm: str | None, options: Options) -> tuple[int, list[Line]]:
    """Erase a person and return the id and the receipt. A dry run, and one that is not confirmed, changes nothing.

    Raises RefusedError where something forbids it, NotConfirmedError with the plan, UnreachableError for a role that
    may not.
    """
    with run.connect() as conn:
        require_migrator(conn, "erase users")
        person = find(conn, token)
        conn.rollback()
        conn.autocommit = True
        here = look_here(conn, person)
        held = person_places.described(conn, catalog.copied(conn), here, whole=False)
        seen = privacy.mentions(conn, person.ids, privacy.words(conn, person.ids))  # before anything is locked
        there = person_places.look(conn, person.ids, person.row_ids, run.caller(), whole=False)
        if not options.remove_references and (refusal := person_places.refused(held, there)):
            raise refusal
        if run.dry_run or confirm is None:
            lines = planned(conn, run, person, options, (here, seen), held, there)
            if not run.dry_run:
                check_confirmed(person, token, confirm, lines)
            return person.id, lines
        check_confirmed(person, token, confirm, [])
        lines = in_turn(conn, run, person, options, (here, seen))
        position = person_rows.position(conn)
        lines = [replace(line, **position) for line in lines]
        lines += copies_here(conn, person, held, here.unsearched)
        lines += servers(conn, run, person, there)
        lines += afterwards(conn, person, options)
        privacy.end(conn, person.id, [f"{line.place}: {line.object}" for line in lines if line.outcome == "open"])
        return person.id, lines


def look_here(conn: Conn, person: Person) -> person_rows.PersonRows:
    """Return what the course schemas of the portal's database hold; remember the keys of the rows."""
    found = person_rows.find(conn, catalog.copied(conn), person.ids, person.row_ids)
    keys = privacy.row_keys(conn, person.ids) | {}
    for (_, table), ids in found.copies.items():
        keys[table] = sorted({*keys.get(table, ()), *ids})
    for table, ids in keys.items():
        person.row_ids[table] = sorted({*person.row_ids.get(table, ()), *ids})
    return found


def planned(
    conn: Conn, run: Run, person: Person, options: Options, seen: Seen, held: Sequence[Held],
    there: dict[str, There | UnreachableError],
) -> list[Line]:  # fmt: skip
    """Return what an erasure would do: the portal's part is done and rolled back."""
    with conn.transaction(force_rollback=True):
        lines = in_portal(conn, run, person, options, seen)
        lines += kept_lines(conn, person)
    lines += [Line(PORTAL, each.object, each.count, "removed") for each in held]
    for name, answer in there.items():
        if isinstance(answer, UnreachableError):
            lines.append(Line(f"server {name}", "all courses", None, "open", answer.why or answer.message))
        else:
            lines += [Line(f"server {name}", held.object, held.count, "removed") for held in answer.held]
            lines += not_searched(f"server {name}", answer.unsearched)
    return lines


def not_searched(place: str, names: Sequence[str]) -> list[Line]:
    """Return the lines for tables of courses' own that no foreign key connects with a copy."""
    detail = "a table of the course's own, without a foreign key to a copy: not searched"
    return [Line(place, name, None, "unknown", detail) for name in names]


def in_turn(conn: Conn, run: Run, person: Person, options: Options, seen: Seen) -> list[Line]:
    """Do the portal's part in one transaction; again, where somebody else enrolls the person meanwhile."""
    for _ in range(RETRIES):
        try:
            with conn.transaction():
                return in_portal(conn, run, person, options, seen)
        except errors.DeadlockDetected:
            continue
    with conn.transaction():
        return in_portal(conn, run, person, options, seen)


def in_portal(conn: Conn, run: Run, person: Person, options: Options, seen: Seen) -> list[Line]:
    """Remove the person from the portal's tables and from the history, in the caller's transaction.

    Writers of the account wait from the first statement on; they find it gone.
    """
    ids = person.ids
    there = privacy.lock(conn, ids)
    found = privacy.words(conn, ids)
    kept = {name: each for each in options.kept if (name := real_name(conn, each))}
    if there or person.opened is None:
        keys = {**person.row_ids, **privacy.row_keys(conn, ids)} if there else person.row_ids
        privacy.begin(conn, ids, keys, found if there else None)
    files = privacy.files(conn, ids)
    lines: list[Line] = []
    held = privacy.holdings(conn, ids, found.emails)
    for holding in held:
        lines.append(line_of(holding))
        if law := kept.get(holding.name):
            privacy.keep(conn, ids, holding, law)
    if EXCHANGE_ROWS not in kept and (cleared := privacy.clear_messages(conn, ids)):
        lines.append(Line(PORTAL, EXCHANGE_ROWS, cleared, "cleared", "the test centre's messages"))
    lines += forget(conn, ids, found, kept, seen[1])
    if options.remove_references:
        privacy.remove_referring(conn, ids)
        for each in seen[0].own:
            if each.forbids:
                conn.execute(each.removal())
    for number in there:
        delete(conn, number, held)
    privacy.remove_loose(conn, ids, found.emails, with_kept=options.with_kept)
    lines = [line for line in lines if line.object != "rollbook.kept_record" or options.with_kept]
    for row in files:
        detail = "the file stays as it was sent" if row["direction"] == "out" else "the file stays as it was received"
        lines.append(Line("exchange files", row["name"], row["rows"], "sent", detail))
    fact = {f"{line.place}: {line.object}": f"{line.outcome} {line.rows}" for line in lines if line.place == PORTAL}
    run.reason = run.reason and reworded(run.reason, found, person.tag)
    history.record(conn, run, person.tag, "erased", after={"rows": fact}, user_id=person.id)
    return lines


def delete(conn: Conn, user_id: int, held: Sequence[Holding]) -> None:
    """Delete the account. Raises RefusedError where rows of others refer to it: --remove-references is a remedy."""
    try:
        users.delete(conn, user_id)
    except RefusedError as exc:
        if "referring" in exc.details and any(each.forbids for each in held):
            exc.fix = f"{exc.fix}; or add --remove-references, which deletes those rows"
        raise


def line_of(holding: Holding) -> Line:
    """Return the line for a table."""
    if holding.unlinks:
        return Line(PORTAL, holding.name, holding.count, "unlinked", "the rows stay, their reference is removed")
    return Line(PORTAL, holding.name, holding.count, "removed")


def real_name(conn: Conn, kept: Kept) -> str:
    """Return the name of the real table that a policy keeps. Raises RefusedError for none, and for one of a course."""
    try:
        place = privacy.named(conn, kept.table)
    except errors.SyntaxError:  # of a name
        place = None
    if place is None:
        raise RefusedError(
            f"the policy keeps {kept.table}, which is not a table", fix="correct the name in the policy file"
        )
    if place["is_of_a_course"]:
        raise RefusedError(
            f"the policy keeps {kept.table}, a table of a course",
            why="an erasure keeps rows of the portal alone",
            fix="save those rows elsewhere, and take the table out of the policy file",
        )
    return f"{place['schema_name']}.{place['table_name']}"


def forget(conn: Conn, ids: Sequence[int], found: Words, kept: dict[str, Kept], seen: Mentions) -> list[Line]:
    """Take names and values out of the history."""
    if HISTORY in kept:
        law, entries = kept[HISTORY], privacy.entries(conn, ids, found)
        return [Line(PORTAL, HISTORY, sum(map(len, entries)), "kept", because(law.reason, law.until))]
    lines = []
    if mine := clear_users(conn, ids):
        lines.append(Line(PORTAL, HISTORY, mine, "cleared", "entries about the person: no names, no values, no undo"))
    if others := privacy.clear_mentions(conn, ids, found, seen):
        lines.append(Line(PORTAL, HISTORY, others, "cleared", "other entries that named the person"))
    return lines


def because(reason: str, until: object) -> str:
    """Return why something is kept."""
    return f"{reason}, until {until}" if until else reason


def reworded(text: str, found: Words, tag: str) -> str:
    """Return a text without the names of a person."""
    for word in sorted(found.all, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", tag, text, flags=re.IGNORECASE)
    return text


def copies_here(conn: Conn, person: Person, before: Sequence[Held], unsearched: Sequence[str]) -> list[Line]:
    """Return what became of what courses hold in the portal's database; delete copies that no route led to."""
    copied = catalog.copied(conn)
    paused = paused_schemas(conn)
    left = person_rows.find(conn, copied, person.ids, person.row_ids)
    stray = [schema for schema in left.schemas if schema not in paused]
    if stray:
        with conn.transaction():
            person_rows.remove(conn, copied, left, stray)
    position = person_rows.position(conn)
    still = {f"{schema}.{table}": paused[schema] for schema, table in left.copies if schema in paused}
    lines = [
        Line(PORTAL, held.object, held.count, "removed", **position) for held in before if held.object not in still
    ]
    for name, course in still.items():
        fix = f"its course is paused: rollbook course resume {course_word(course)}"
        lines.append(Line(PORTAL, name, None, "open", fix))
    return lines + not_searched(PORTAL, unsearched)


def paused_schemas(conn: Conn) -> dict[str, str]:
    """Return the schemas of paused courses, each with its course."""
    places = place_states(conn, known_courses(conn, []))
    return {place.schema_name: place.course for place in places if place.paused_at is not None}


def servers(conn: Conn, run: Run, person: Person, before: Mapping[str, There | UnreachableError]) -> list[Line]:
    """Remove the person from the course servers, all at once. `before`: what they held; the stream may be quicker."""
    lines = []
    paused = paused_schemas(conn)
    for name, there in sorted(
        person_places.remove(conn, person.ids, person.row_ids, run.caller(), paused.keys()).items()
    ):
        place = f"server {name}"
        if isinstance(there, UnreachableError):
            lines.append(Line(place, "all courses", None, "open", there.why or there.message))
            continue
        seen = before.get(name)
        was = seen if isinstance(seen, There) else There()
        held = {each.object: each.count for each in (*was.held, *there.held) if each.object not in there.left}
        lines += [Line(place, each, count, "removed", **there.position) for each, count in sorted(held.items())]
        lines += [Line(place, each, None, "open", there.why) for each in there.left]
        lines += not_searched(place, was.unsearched)
        if not held and not there.left:
            lines.append(Line(place, "all courses", 0, "removed", "nothing is held there", **there.position))
    return lines


def kept_lines(conn: Conn, person: Person) -> list[Line]:
    """Return what is kept because a law demands it."""
    return [
        Line(PORTAL, row["table_name"], row["rows"], "kept", because(row["reason"], row["keep_until"]))
        for row in privacy.kept_records(conn, person.ids)
    ]


def afterwards(conn: Conn, person: Person, options: Options) -> list[Line]:
    """Return what is kept and what the discussion service has still to receive; clear entries that came meanwhile."""
    lines = kept_lines(conn, person)
    if privacy.is_queued(conn, person.ids):
        fix = "it has not received the deletion: rollbook discussion sync"
        lines.append(Line("discussion service", f"user {person.id}", 1, "open", fix))
    if not any(each.table == HISTORY for each in options.kept):
        clear_users(conn, person.ids)
    return lines
