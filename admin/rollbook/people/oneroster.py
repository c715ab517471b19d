"""OneRoster 1.1 and 1.2 bundles, as school information systems export them.

A class becomes a course with the class's sourcedId as its id; whoever is in users.csv becomes a user, active unless
`enabledUser` is false; students are enrolled from beginDate to endDate. A row that is `inactive` or `tobedeleted`
blocks the user, ends the enrollment, and leaves the course alone. In a bulk file, what is not there is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollbook.core import importing as bulk
from rollbook.core import render
from rollbook.core.errors import UsageError
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.people import bundle
from rollbook.people.queries import roster_file, roster_people, roster_seats, user_file
from rollbook.people.removals import Limit, named, require_consent, with_consent
from rollbook.people.roster_links import SOURCE, TURN

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.importing import Staged

USERS = "users.csv"


@dataclass(frozen=True)
class Allowed:
    """What a bundle may take away: so many enrollments, and so many accounts if it blocks those who are gone."""

    limit: Limit
    deactivates: bool


@dataclass
class Bundle:
    """A bundle to be imported: where it comes from, and what it may remove."""

    source: str
    allowed: Allowed
    agreed: frozenset[int]  # what the caller has agreed to: enrollments that end, and accounts, below zero
    parameters: dict[str, object] = field(default_factory=dict)

    def stage(self, conn: Conn, run: Run, sheet: Sheet, name: str, advance: Callable[[int], None]) -> Staged:
        """Read a bundle into pg_temp.roster_*, and its users into pg_temp.staged. Raises as `bundle.read` does."""
        with bundle.directory_of(name) as directory:
            manifest, total = bundle.read(conn, run, directory, advance)
        if manifest.missing:
            render.note(run, f"not in the bundle, and not missed: {', '.join(manifest.missing)}")
        self.parameters = {
            "today": roster_file.today(conn), "source": self.source,
            **{f"{file.removesuffix('.csv')}_bulk": manifest.is_bulk(file) for file in bundle.FILES},
        }  # fmt: skip
        bulk.load(conn, "staged", sheet.columns, list(sheet.columns), iter(()))
        return bulk.Staged(list(sheet.columns), total)

    @property
    def is_bulk(self) -> bool:
        """Return whether users.csv is the whole truth: persons that it lacks are gone."""
        return bool(self.parameters["users_bulk"])

    def apply_people(self, conn: Conn, run: Run) -> None:
        """Make and change the accounts, block those of persons who are gone if asked, remember whose they are.

        Raises RefusedError or ConsentNeededError if too many would be blocked.
        """
        missing = roster_people.gone(conn, self.source) if self.is_bulk else []
        blocked = [each for each in missing if self.allowed.deactivates and each.may_be_deactivated]
        check_deactivations(run, self, blocked, roster_people.present(conn, self.source))
        roster_people.stage_deactivations(conn, blocked)
        user_file.apply(conn, run.reason or "", USERS)
        roster_people.remember(conn, self.source, is_bulk=self.is_bulk)
        roster_people.record_gone(conn, [each for each in missing if each not in blocked])

    def apply_seats(self, conn: Conn, run: Run) -> None:
        """Make the courses, enroll the students, end what is to end; the users are there by now.

        Raises RefusedError or ConsentNeededError if too many students are not in the file any more.
        """
        made = roster_seats.make_courses(conn)
        roster_seats.merge(conn, self.parameters)
        leaving, present = roster_seats.leavers(conn, named=False)
        check_removals(
            run, self.allowed.limit, self.agreed, leaving, present, "the classes of the bundle", "not in the file"
        )
        roster_seats.settle(conn)
        roster_seats.record(conn, self.parameters, made)


def imported(
    run: Run, name: str, mode: str, columns: tuple[str, ...], allowed: Allowed, source: str = SOURCE
) -> int:  # fmt: skip
    """Import a bundle: users, then courses, then enrollments, in one transaction. Return the exit code.

    `columns` are those of the answer; `source` is whose persons they are.
    """
    if run.template or run.rejects:
        raise UsageError(
            "--template and --rejects are for one file, not for a bundle",
            fix="--on-error skip leaves out what is wrong",
        )

    def act(agreed: frozenset[int]) -> int:
        read = Bundle(source, allowed, agreed)

        def check(conn: Conn, _: Staged) -> None:
            roster_people.stage(conn, source, mode, is_bulk=read.is_bulk)
            user_file.check(conn, mode, with_ids=True)
            roster_people.find_persons(conn, source)
            roster_seats.find_wrong(conn, read.parameters)

        def apply(conn: Conn, _: Staged) -> None:
            read.apply_people(conn, run)
            read.apply_seats(conn, run)

        kind = bulk.Import(
            sheet=Sheet(user_file.COLUMNS, (), ("username",)), turn=TURN, check=check, apply=apply,
            columns=columns, stage=read.stage, file=USERS,
        )  # fmt: skip
        return bulk.imported(run, kind, name)

    return with_consent(run, act)


def sync_dates(conn: Conn, run: Run, source: str | None, limit: Limit, agreed: frozenset[int]) -> list[Row]:
    """Enroll whom today's date brings in and end whose last day is over; return each: course username email outcome.

    `source` None is every source. Raises RefusedError for an unknown source or more removals than the limit,
    ConsentNeededError for removals that nobody agreed to.
    """
    bulk.begin(conn)
    bulk.take_turn(conn, run, TURN)
    roster_seats.known_source(conn, source)
    roster_seats.move_dates(conn, {"today": roster_file.today(conn), "source": source})
    leaving, present = roster_seats.leavers(conn, named=True)
    check_removals(run, limit, agreed, leaving, present, "their courses", "whose last day is over")
    roster_seats.settle(conn)
    rows = roster_seats.moved(conn)
    if rows:
        bulk.record_batch(conn, run, source or "every source", Counter(row["outcome"] for row in rows), None)
    return rows


def check_deactivations(run: Run, bundle: Bundle, blocked: list[roster_people.Gone], present: int) -> None:
    """Raise RefusedError for more accounts than the limit, ConsentNeededError for some that nobody agreed to."""
    if not blocked:
        return
    names = [each.username for each in blocked]
    reason = named(names, "not in users.csv any more")
    bundle.allowed.limit.check(names, present, f"the persons of {bundle.source}", reason)
    require_consent(
        run, bundle.agreed, frozenset(-each.id for each in blocked),
        f"block {len(names)} of {present} accounts; {reason}. Continue?",
        {"deactivated": len(names), "present": present, "leaving": names},
    )  # fmt: skip


def check_removals(
    run: Run, limit: Limit, agreed: frozenset[int], leaving: list[roster_seats.Leaver], present: int, place: str,
    because: str,
) -> None:  # fmt: skip
    """Raise RefusedError for more removals than the limit, ConsentNeededError for some that nobody agreed to."""
    names = [f"{each.username} ({each.course})" for each in leaving]
    reason = named(names, because)
    limit.check(names, present, place, reason)
    require_consent(
        run, agreed, frozenset(each.id for each in leaving),
        f"remove {len(names)} of {present} from {place}; {reason}. Continue?",
        {"removed": len(names), "present": present, "leaving": names},
    )  # fmt: skip
