"""The files of a OneRoster bundle, a directory or a .zip of CSV files, read into pg_temp.roster_*.

The manifest names each file bulk (all rows that there are), delta (what changed) or absent. Columns may come in any
order and in any capitals; columns that are not read, such as metadata.*, are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, LiteralString

from rollbook.core import importing as bulk
from rollbook.core.errors import RefusedError, UsageError
from rollbook.core.rows import nearest
from rollbook.core.sheet import opened, records
from rollbook.people.queries import roster_file as queries

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn

MANIFEST = "manifest.csv"
VERSIONS = ("1.1", "1.2")
WORDS = ("bulk", "delta", "absent")
LARGEST = 1 << 30  # bytes that a .zip may unpack to


@dataclass(frozen=True)
class File:
    """A file of a bundle: its table, the columns that are read, and those of them that must be there."""

    table: LiteralString
    columns: tuple[str, ...]
    required: tuple[str, ...]
    is_optional: bool = False  # nothing is missed without it, whatever the manifest says of it

    @property
    def has_dates(self) -> bool:
        """Return whether its rows count from beginDate to endDate."""
        return "beginDate" in self.columns


PROPERTIES = File("roster_manifest", ("propertyName", "value"), ("propertyName", "value"))
FILES = {
    "users.csv": File(
        "roster_user",
        ("sourcedId", "status", "enabledUser", "role", "username", "givenName", "middleName", "familyName", "email"),
        ("sourcedId", "username", "givenName", "familyName", "enabledUser"),
    ),
    "courses.csv": File("roster_course", ("sourcedId", "status"), ("sourcedId",), is_optional=True),
    "classes.csv": File("roster_class", ("sourcedId", "status", "title", "courseSourcedId"), ("sourcedId",)),
    "enrollments.csv": File(
        "roster_enrollment",
        ("sourcedId", "status", "classSourcedId", "userSourcedId", "role", "beginDate", "endDate"),
        ("sourcedId", "classSourcedId", "userSourcedId", "role"),
    ),
    "roles.csv": File(
        "roster_role", ("status", "userSourcedId", "roleType", "role", "beginDate", "endDate"),
        ("userSourcedId", "role"), is_optional=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds: bulk, delta or absent for each file that is read."""

    files: dict[str, str]

    def is_bulk(self, name: str) -> bool:
        """Return whether a file is the whole truth."""
        return self.files[name] == "bulk"

    def has(self, name: str) -> bool:
        """Return whether a file is in the bundle."""
        return self.files[name] != "absent"

    @property
    def missing(self) -> list[str]:
        """Return the files that are absent though people, classes or enrollments are in them."""
        return [name for name, file in FILES.items() if not file.is_optional and not self.has(name)]


@contextmanager
def directory_of(name: str) -> Iterator[Path]:
    """Yield the directory of a bundle: itself, or what a .zip holds.

    Raises UsageError for what is neither, RefusedError for a .zip that cannot be read.
    """
    import zipfile  # as tempfile, it costs start-up time
    from tempfile import TemporaryDirectory

    path = Path(name)
    if path.is_dir():
        yield path
    elif path.is_file() and zipfile.is_zipfile(path):
        with TemporaryDirectory(prefix="rollbook-") as place:
            unpack(path, Path(place))
            yield Path(place)
    else:
        raise UsageError(
            f"{name} is not a directory or a .zip file", fix="name the directory of manifest.csv, or the .zip"
        )


def unpack(archive: Path, place: Path) -> None:
    """Unpack the files that are read, and no others: no path in the archive is followed, no size in it is believed."""
    import zipfile

    left = LARGEST
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                name = PurePosixPath(member.filename).name.lower()
                if member.is_dir() or name not in (MANIFEST, *FILES):
                    continue
                if (place / name).exists():
                    raise RefusedError(f"{archive.name} has {name} twice", fix="unpack it, and name one directory")
                with bundle.open(member) as source, (place / name).open("wb") as target:
                    while block := source.read(1 << 20):
                        left -= len(block)
                        if left < 0:
                            raise RefusedError(
                                f"{archive.name} unpacks to more than {LARGEST >> 30} GiB",
                                fix="if that is right, unpack it yourself and name the directory",
                            )
                        target.write(block)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as exc:  # the second: it has a password
        raise RefusedError(
            f"{archive.name} cannot be unpacked", why=str(exc), fix="unpack it yourself and name the directory"
        ) from exc


def read(conn: Conn, run: Run, directory: Path, advance: Callable[[int], None]) -> tuple[Manifest, int]:
    """Read a bundle into pg_temp.roster_*; return its manifest and its number of rows.

    Raises UsageError for a bad header, RefusedError for missing files, another version, or a file that is not CSV.
    """
    found = {path.name.lower(): path for path in sorted(directory.iterdir()) if path.is_file()}
    if MANIFEST not in found:
        raise RefusedError(
            f"the bundle lacks {MANIFEST}", why="it names the version and the files of the bundle",
            fix="export the bundle again, with it",
        )  # fmt: skip
    read_table(conn, run, found[MANIFEST], PROPERTIES, lambda _: None)
    manifest = checked_manifest(queries.manifest(conn), set(found))
    total = 0
    for name, file in FILES.items():
        if manifest.has(name):
            total += read_table(conn, run, found[name], file, advance)
        else:
            bulk.load(conn, file.table, [column.lower() for column in file.columns], [], iter(()))
        queries.add_meanings(conn, file.table, has_dates=file.has_dates)
    return manifest, total


def read_table(conn: Conn, run: Run, path: Path, file: File, advance: Callable[[int], None]) -> int:
    """Read a file into its table, whose columns are the file's in lower case; return the number of rows."""
    name = path.name.lower()
    with opened(str(path), run.encoding) as text:
        found = records(text, run, str(path))
        _, first = next(found, (1, []))
        header = [column.strip().lower() for column in first]
        known = [column.lower() for column in file.columns]
        expected = f"columns: {', '.join(file.columns)}, and any others"
        for column in file.required:
            if column.lower() not in header:
                raise UsageError(f"{name}: the column {column} is missing", fix=expected)
        if double := [column for column in file.columns if header.count(column.lower()) > 1]:
            raise UsageError(f"{name}: column {double[0]} appears twice", fix=expected)
        # The file of a wrong user is added later, after the check of users.
        name_of_file = None if name == "users.csv" else name
        return bulk.load(conn, file.table, known, header, found, advance=advance, file=name_of_file).rows


def checked_manifest(found: list[tuple[str, str]], there: set[str]) -> Manifest:
    """Return what the manifest says of each file that is read. `there` are the names of the files.

    Raises RefusedError for a version or a word that is not known, and for a file that should be there and is not.
    """
    properties = dict(found)
    for name, value in found:
        if properties[name] != value and name.startswith(("file.", "oneroster.")):
            raise RefusedError(
                f"manifest.csv has {name} twice: {value} and {properties[name]}", fix="keep the line that is right"
            )
    version = properties.get("oneroster.version")
    if version not in VERSIONS:
        raise RefusedError(
            f"OneRoster {version}: this version is not supported"
            if version
            else "manifest.csv has no oneroster.version",
            fix=f"export the bundle as {' or '.join(VERSIONS)}",
        )
    words = {name: word for name, word in properties.items() if name.startswith("file.")}
    for name, word in words.items():
        if word not in WORDS:
            raise RefusedError(
                f"manifest.csv: {name} is {word!r}" if word else f"manifest.csv: {name} is blank",
                why=nearest(word, WORDS) or "bulk is the whole truth, delta is what changed, absent is not sent",
                fix=f"write {', '.join(WORDS[:-1])} or {WORDS[-1]}, or export the bundle again",
            )
    files = {}
    for name, file in FILES.items():
        default = "bulk" if name in there else "absent"
        files[name] = words.get(f"file.{name.removesuffix('.csv').lower()}") or (default if file.is_optional else "")
    for name in there & files.keys():
        if not files[name]:
            raise RefusedError(
                f"manifest.csv does not say whether {name} is bulk or delta",
                why="bulk: users and enrollments that are not in the file are gone; delta: they stay",
                fix=f"add the line file.{name.removesuffix('.csv')},bulk (or delta)",
            )  # fmt: skip
    if missing := [name for name, word in files.items() if word != "absent" and name not in there]:
        raise RefusedError(
            f"the bundle lacks {', '.join(missing)}", why="the manifest does not say that it is absent",
            fix="export the bundle again, with it",
        )  # fmt: skip
    manifest = Manifest(files)
    if not any(manifest.has(name) for name, file in FILES.items() if not file.is_optional):
        raise RefusedError(
            "there is nothing to import", why="the manifest calls users, classes and enrollments absent",
            fix="export the bundle again, with them",
        )  # fmt: skip
    return manifest
