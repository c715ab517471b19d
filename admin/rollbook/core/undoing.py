"""Undo: what entries of the history changed is put back, where nothing newer is there.

Each entry, or each batch, is a unit; the newest is undone first, so that the next finds what it left. The entries of a
unit are in `pg_temp.undoing`. Each kind of row, in its order, judges its entries: those that cannot be undone go to
`pg_temp.unfit`, with the reason. It writes the others, and leaves in `pg_temp.written` what the history records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core import history
from rollbook.core.command import OnError
from rollbook.core.errors import RefusedError
from rollbook.core.importing import SETTINGS, take_turn
from rollbook.core.referring import deleting
from rollbook.core.rows import Row

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

TURN = "rollbook history undo"
SHOWN = 20  # entries that a refusal names, without --json

# A summary stands for its rows, which have its time. Rows of a batch that were undone before are left out; for those
# whose undo was undone, the entry that did so.
LOAD = """
create temporary table undoing on commit drop as
with recursive chain (id, is_undo) as (
    select h.id, false from rollbook.history as h
    where h.at = %(at)s and case when %(is_batch)s then h.batch = %(number)s else h.id = %(number)s end
    union all
    select u.id, not c.is_undo from chain as c inner join rollbook.history as u on u.undoes = c.id
)
select
    h.id, h.at, h.command, h.kind, h.object, h.outcome, h.user_id, h.course_id, h.before, h.after, h.erased_at
from chain as c inner join rollbook.history as h on h.id = c.id
where not c.is_undo and not exists (select from rollbook.history as u where u.undoes = h.id)
"""

UNFIT = """
create temporary table unfit (id bigint, object text, course_id text, reason text) on commit drop
"""

# Whose rows are judged is locked in the order of ids, as everybody does; accounts that would go, from enrollments too.
LOCK: dict[bool, LiteralString] = {
    False: """
        select u.id from portal.auth_user as u where u.id in (select x.user_id from pg_temp.undoing as x)
        order by u.id for no key update
        """,
    True: """
        select u.id from portal.auth_user as u where u.id in (select x.user_id from pg_temp.undoing as x)
        order by u.id for update
        """,
}

DROP_UNFIT = "delete from pg_temp.undoing as x using pg_temp.unfit as f where f.id = x.id"

# Of a person who was erased, or older than `history erase` keeps.
ERASED = """
insert into pg_temp.unfit
select x.id, x.object, x.course_id, 'its values were erased on ' || (x.erased_at at time zone 'UTC')::date
from pg_temp.undoing as x where x.erased_at is not null
"""

# A course that a bundle created stays: others may be in it by now.
STAYS = """
insert into pg_temp.unfit
select x.id, x.object, x.course_id, 'the course stays; to delete it: rollbook course delete'
from pg_temp.undoing as x where x.kind = 'course'
"""

# What a write did not find any more, although it was judged: somebody else was there first.
MISSED = """
insert into pg_temp.unfit
select x.id, x.object, x.course_id, 'somebody changed it at this moment'
from pg_temp.undoing as x
where x.kind is not null and not exists (select from pg_temp.written as w where w.undoes = x.id)
"""

UNDONE_BY = """
select u.id, (select r.id from rollbook.history as r where r.undoes = u.id limit 1) as redone_by
from rollbook.history as u where u.undoes = %s order by u.id desc limit 1
"""

# Why an entry without a kind cannot be undone, by the longest beginning of its command.
REASONS = {
    "": "what was there before is not in the history",
    "authorization cancel": "authorize again: rollbook authorization create",
    "course": "use the command for courses that does the opposite: rollbook course --help",
    "course archive": "nothing was changed, or rollbook course restore restores it",
    "course close": "rollbook course open opens the course",
    "course create": "rollbook course delete deletes the course",
    "course open": "rollbook course close closes the course",
    "course rename": "rename it back: rollbook course rename",
    "course restore": "rollbook course delete deletes the course",
    "discussion": "use the command that does the opposite: rollbook discussion --help",
    "email-change cancel": "keys are not kept; request it again: rollbook email-change create",
    "email-change": "rollbook email-change cancel takes the request back",
    "exam": "import the earlier policy: rollbook exam import",
    "group delete": "the members of a deleted group are not kept: create and fill it again",
    "group split": "rollbook group delete deletes the groups",
    "history undo": "an account, a candidate or an authorization that was deleted is gone: import or create it again",
    "name-change create": "rollbook name-change reject rejects the request",
    "name-change reject": "request it again: rollbook name-change create",
    "pearson": "the files were exchanged with Pearson already",
    "registration activate": "the key is used: rollbook user deactivate blocks the account",
    "registration renew": "keys are not kept; issue another: rollbook registration renew",
    "replication": "use the command that does the opposite: rollbook replication --help",
    "server": "use the command that does the opposite: rollbook server --help",
    "shape": "use the command that does the opposite: rollbook shape --help",
    "user delete": "a deleted account is gone: create it again, rollbook user create",
    "user merge": "a merge cannot be undone: the account that was merged is gone",
    "user password": "passwords are not kept; set another: rollbook user password",
}


@dataclass(frozen=True)
class Step:
    """The undo of one outcome of one kind of row. `table`: from which it deletes, so that referring rows are named."""

    judge: LiteralString | sql.Composed
    write: tuple[LiteralString | sql.Composed, ...]
    table: str | None = None
    rows: str = ""  # what would be deleted, in words
    condition: LiteralString = ""  # which rows of the table

    def run(self, conn: Conn, parameters: Row) -> None:
        """Judge the entries and undo those that can be. Raises RefusedError if other tables refer to a row."""
        conn.execute(self.judge, parameters)
        conn.execute(DROP_UNFIT)
        if self.table is None:
            self.change(conn, parameters)
        else:
            with deleting(conn, self.rows, self.table, sql.SQL("{}").format(sql.SQL(self.condition))):
                self.change(conn, parameters)

    def change(self, conn: Conn, parameters: Row) -> None:
        """Write."""
        for statement in self.write:
            conn.execute(statement, parameters)


@dataclass(frozen=True)
class Undone:
    """What became of an entry: `undone`, or `skipped` or `kept` with the reason."""

    id: int
    object: str
    course: str | None
    outcome: str
    detail: str | None


def undo(conn: Conn, run: Run, numbers: Sequence[int], steps: Sequence[tuple[str, str, Step]]) -> list[Undone]:
    """Undo entries and batches, the newest first, and record it; return what became of each entry.

    `steps`: kind, outcomes separated by blanks, and what undoes them, in the order in which they run. Raises
    RefusedError for an unknown entry or one that was undone already; unless --on-error is skip, with each entry that
    cannot be undone; nothing is changed then.
    """
    conn.execute(SETTINGS)
    take_turn(conn, run, TURN, "undo")
    done = [each for number in sorted(set(numbers), reverse=True) for each in undo_unit(conn, run, number, steps)]
    unfit = [each for each in done if each.outcome == "skipped"]
    if unfit and (run.on_error is OnError.abort or len(unfit) == len(done)):
        count = f"{len(unfit)} of {len(done)} entries" if len(done) > 1 else f"entry {unfit[0].id}"
        fix = "rollbook history show ID has the values"
        if len(unfit) < len(done):
            fix += "; --on-error skip undoes the others"
        raise RefusedError(
            f"{count} cannot be undone; nothing was changed",
            why="\n".join([
                *(f"{each.id} {' in '.join(filter(None, (each.object, each.course)))}: {each.detail}"
                  for each in unfit[:SHOWN]),
                *([f"and {len(unfit) - SHOWN} more: --json has them all"] if len(unfit) > SHOWN else []),
            ]),
            fix=fix, problems=[vars(each) for each in unfit],
        )  # fmt: skip
    return done


def undo_unit(conn: Conn, run: Run, number: int, steps: Sequence[tuple[str, str, Step]]) -> list[Undone]:
    """Undo one entry or one batch."""
    entry = history.find_history_entry(conn, number)
    is_batch = entry["outcome"] in ("imported", "undone")
    by = conn.execute(UNDONE_BY, [number]).fetchone()
    if by is not None:
        again = f"which entry {by['redone_by']} undid" if by["redone_by"] else "undoing that makes the change again"
        fix = f"rollbook history undo {by['redone_by'] or by['id']}"
        raise RefusedError(f"entry {number} was undone already by entry {by['id']}", why=again, fix=fix)
    conn.execute(LOAD, {"number": number, "is_batch": is_batch, "at": entry["at"]})
    conn.execute("analyze pg_temp.undoing")
    conn.execute(UNFIT)
    history.begin(conn)
    entries = [(row["id"], row["object"], row["course_id"]) for row in conn.execute(
        "select id, object, course_id from pg_temp.undoing order by id")]  # fmt: skip
    if not entries:
        raise RefusedError(
            f"batch {number} has no rows that can be undone", why=reason(entry["command"]),
            fix=f"rollbook history show {number}",
        )  # fmt: skip
    refuse_others(conn)
    conn.execute(STAYS)
    kept = {row["id"] for row in conn.execute("select id from pg_temp.undoing where kind = 'course'")}
    conn.execute(DROP_UNFIT)
    take_steps(conn, {"rationale": run.reason or ""}, steps)
    conn.execute(MISSED)
    unfit = {row["id"]: row["reason"] for row in conn.execute("select id, reason from pg_temp.unfit")}
    if len(unfit) < len(entries):
        whole = not unfit.keys() - kept
        record(conn, run, entry if is_batch else None, len(entries) - len(unfit), is_whole=whole)
    conn.execute("drop table pg_temp.undoing, pg_temp.unfit, pg_temp.written")
    return [
        Undone(key, name, course, "kept" if key in kept else "skipped" if key in unfit else "undone", unfit.get(key))
        for key, name, course in entries
    ]


def take_steps(conn: Conn, parameters: Row, steps: Sequence[tuple[str, str, Step]]) -> None:
    """Run the steps whose entries are there, with the users' rows locked."""
    there = {
        (row["kind"], row["outcome"])
        for row in conn.execute("select distinct kind, outcome from pg_temp.undoing").fetchall()
    }
    conn.execute(LOCK[("user", "created") in there])
    for kind, outcomes, step in steps:
        if there & {(kind, outcome) for outcome in outcomes.split()}:
            step.run(conn, parameters)


def record(conn: Conn, run: Run, summary: Row | None, count: int, *, is_whole: bool) -> None:
    """Record what was undone; of a batch with a summary, which undoes the batch's if nothing is left of it."""
    batch = None
    if summary is not None:
        batch = history.record(
            conn, run, summary["object"], "undone", before={"batch": summary["id"]}, after={"undone": count},
            course_id=summary["course"], undoes=summary["id"] if is_whole else None,
        )  # fmt: skip
    history.record_written(conn, run, batch)


def refuse_others(conn: Conn) -> None:
    """Record in pg_temp.unfit the entries of no kind, each with the reason for its command."""
    conn.execute(ERASED)
    conn.execute(DROP_UNFIT)
    query = "select distinct command from pg_temp.undoing where kind is null"
    for row in conn.execute(query).fetchall():
        conn.execute(
            "insert into pg_temp.unfit select x.id, x.object, x.course_id, case when x.outcome = 'exported' "
            "then 'nothing was changed' else %s end from pg_temp.undoing as x where x.kind is null and x.command = %s",
            [reason(row["command"]), row["command"]],
        )
    conn.execute(DROP_UNFIT)


def reason(command: str) -> str:
    """Return why an entry of a command cannot be undone."""
    known = [name for name in REASONS if f"{command} ".startswith(f"{name} " if name else "")]
    return REASONS[max(known, key=len)]
