"""OneRoster 1.1 and 1.2 bundles, as school information systems export them: a directory of CSV files.

A class becomes a course with the class's sourcedId as its id; whoever is in users.csv becomes a user, named by the
username, active unless `enabledUser` is false; students are enrolled. A row that is `tobedeleted` blocks the user,
ends the enrollment, and leaves the course alone. Versions differ in where roles stand: 1.1 has a column in users.csv,
1.2 the file roles.csv.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

from rollbook.core import history
from rollbook.core import importing as bulk
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet, opened, records
from rollbook.people.queries import roster_people, roster_seats, user_file

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.importing import Staged

USERS = "users.csv"
SOURCE = "default"  # where a platform takes bundles of one system alone
VERSIONS = ("1.1", "1.2")

# File -> table, the columns that are read, and those of them that must be there.
FILES: dict[str, tuple[LiteralString, tuple[str, ...], tuple[str, ...]]] = {
    "manifest.csv": ("roster_manifest", ("propertyName", "value"), ("propertyName", "value")),
    USERS: (
        "roster_user",
        ("sourcedId", "status", "enabledUser", "role", "username", "givenName", "middleName", "familyName", "email"),
        ("sourcedId", "username", "givenName", "familyName", "enabledUser"),
    ),
    "courses.csv": ("roster_course", ("sourcedId", "status"), ("sourcedId",)),
    "classes.csv": (
        "roster_class", ("sourcedId", "status", "title", "courseSourcedId"), ("sourcedId", "courseSourcedId"),
    ),
    "enrollments.csv": (
        "roster_enrollment", ("sourcedId", "status", "classSourcedId", "userSourcedId", "role"),
        ("sourcedId", "classSourcedId", "userSourcedId", "role"),
    ),
}  # fmt: skip
ROLES = ("roster_role", ("status", "userSourcedId", "roleType", "role"))


def imported(run: Run, directory: str, mode: str, columns: tuple[str, ...], source: str = SOURCE) -> int:
    """Import a bundle: users, then courses, then enrollments, in one transaction. Return the exit code.

    `columns` are those of the answer; `source` is whose persons they are.
    """
    if run.template or run.rejects:
        raise UsageError(
            "--template and --rejects are for one file, not for a bundle",
            fix="--on-error skip leaves out what is wrong",
        )

    def check(conn: Conn, _: Staged) -> None:
        user_file.check(conn, mode, with_ids=True)
        roster_people.find_persons(conn, source)
        roster_seats.find_wrong(conn)

    def apply(conn: Conn, _: Staged) -> None:
        user_file.apply(conn, run.reason or "", USERS)
        roster_people.remember(conn, source)
        apply_seats(conn, run)

    kind = bulk.Import(
        sheet=Sheet(user_file.COLUMNS, (), ("username",)), turn="rollbook user import", check=check, apply=apply,
        columns=columns, stage=stage, file=USERS,
    )  # fmt: skip
    return bulk.imported(run, kind, directory)


def stage(conn: Conn, run: Run, sheet: Sheet, directory: str, advance: Callable[[int], None]) -> Staged:
    """Read a bundle into pg_temp.roster_*, and its users into pg_temp.staged.

    Raises UsageError for a path that is not a directory, or a bad header; RefusedError for files that are missing,
    another version,
    or a file that is not CSV.
    """
    if not Path(directory).is_dir():
        raise UsageError(
            f"{directory} is not a directory", fix="unpack the bundle and name the directory of manifest.csv"
        )
    if missing := [name for name in FILES if not (Path(directory) / name).is_file()]:
        raise RefusedError(
            f"the bundle lacks {', '.join(missing)}", why=f"a bundle has {', '.join(FILES)}",
            fix="export it again, with classes and enrollments",
        )  # fmt: skip
    total = 0
    for name in FILES:
        total += read(conn, run, Path(directory) / name, advance)
        if name == "manifest.csv":
            check_manifest(conn)
    table, columns = ROLES
    if (Path(directory) / "roles.csv").is_file():
        read_table(conn, run, Path(directory) / "roles.csv", table, columns, ("userSourcedId", "role"), advance)
    else:
        roster_seats.no_roles(conn)
    bulk.load(conn, "staged", sheet.columns, list(sheet.columns), iter(()))
    roster_people.stage_users(conn)
    return bulk.Staged(list(sheet.columns), total)


def read(conn: Conn, run: Run, path: Path, advance: Callable[[int], None]) -> int:
    """Read one of the bundle's files into its table and return how many rows it has, but for the manifest's."""
    table, columns, required = FILES[path.name]
    count = read_table(conn, run, path, table, columns, required, advance)
    return 0 if path.name == "manifest.csv" else count


def read_table(
    conn: Conn, run: Run, path: Path, table: LiteralString, columns: tuple[str, ...], required: tuple[str, ...],
    advance: Callable[[int], None],
) -> int:  # fmt: skip
    """Read a file into a table, whose columns are the file's in lower case; others are passed over."""
    with opened(str(path), run.encoding) as file:
        found = records(file, run, str(path))
        _, first = next(found, (1, []))
        header = [name.strip().lower() for name in first]
        known = [name.lower() for name in columns]
        expected = f"columns: {', '.join(columns)}, and any others"
        for name in required:
            if name.lower() not in header:
                raise UsageError(f"{path.name}: the column {name} is missing", fix=expected)
        if double := [name for name in columns if header.count(name.lower()) > 1]:
            raise UsageError(f"{path.name}: column {double[0]} appears twice", fix=expected)
        # The file of a wrong user is added later, after the check of users.
        name_of_file = None if path.name == USERS else path.name
        return bulk.load(conn, table, known, header, found, advance=advance, file=name_of_file).rows


def check_manifest(conn: Conn) -> None:
    """Raise RefusedError for a version that is not known, or files that the manifest calls absent."""
    said = roster_seats.manifest(conn)
    version = said.get("oneroster.version")
    if version not in VERSIONS:
        raise RefusedError(
            f"OneRoster {version}: this version is not supported"
            if version
            else "manifest.csv has no oneroster.version",
            fix=f"export the bundle as {' or '.join(VERSIONS)}",
        )
    for name in FILES:
        if said.get(f"file.{name.removesuffix('.csv')}") == "absent":
            raise RefusedError(f"the manifest says that {name} is absent", fix="export the bundle again, with it")


def apply_seats(conn: Conn, run: Run) -> None:
    """Make the courses, enroll the students, end what is to end; the users are there by now."""
    made = roster_seats.make_courses(conn)
    entries: list[Row] = [
        {"object": course_id, "outcome": "created", "after": {"on_leave": "keep"}, "course_id": course_id}
        for course_id in made
    ]
    history.record_many(conn, run, entries)
    roster_seats.enroll(conn, made)
