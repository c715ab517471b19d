"""The file of an archived course: a tar, compressed, with checksums; written, read and checked without a database.

manifest.json (how the course was), enrollments.csv (the portal's rows), and three scripts of pg_dump that are executed
one after the other: before.sql (schema, tables, functions), rows.sql, after.sql (keys, indexes, triggers, rights).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from rollbook.core.errors import RefusedError

FORMAT = 1
MANIFEST, ENROLLMENTS, SUMS = "manifest.json", "enrollments.csv", "SHA256SUMS"
SCRIPTS = {"before.sql": "pre-data", "rows.sql": "data", "after.sql": "post-data"}  # and pg_dump's section
MEMBERS = (MANIFEST, ENROLLMENTS, *SCRIPTS)
CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """How a course was when it was archived. Times are RFC 3339 UTC."""

    format: int
    rollbook: str  # the program's version
    archived_at: str
    course: str
    place: str  # `portal` or `server NAME`
    server_version: int  # server_version_num of the database that was dumped
    pg_dump: str
    kept: dict[str, Any]  # of rollbook.course: schema_name, on_leave, on_fault, without, closed_at, closed_by
    tables: list[dict[str, Any]]  # the declaration of the shape: role, relation, table_name, key_column, ...
    own: list[str]  # what the course had added
    enrollments: int
    copied_users: int | None

    @property
    def schema_name(self) -> str:
        """Return the name of the schema."""
        return str(self.kept["schema_name"])


class Writer:
    """Writes an archive, member by member; a member is measured before it is written, in a file without a name."""

    def __init__(self, file: IO[bytes], directory: Path) -> None:
        """Begin an archive in a file; `directory` takes what is not written yet."""
        self.directory = directory
        self.tar = tarfile.open(fileobj=file, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.sums = ""

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a file that becomes a member."""
        with tempfile.TemporaryFile(dir=self.directory) as file:
            yield file
            file.seek(0)
            self.sums += f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"
            self.add(name, file)

    def add(self, name: str, file: IO[bytes]) -> None:
        """Add a file as a member."""
        info = tarfile.TarInfo(name)
        info.size = file.seek(0, io.SEEK_END)
        info.mode = 0o600
        file.seek(0)
        self.tar.addfile(info, file)

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest and the checksums, and complete the archive."""
        with self.member(MANIFEST) as file:
            file.write(json.dumps(asdict(manifest), indent=2, ensure_ascii=False).encode())
        self.add(SUMS, io.BytesIO(self.sums.encode()))
        self.tar.close()


class Archive:
    """An archive that was checked: its manifest, and its members as files."""

    def __init__(self, path: Path) -> None:
        """Read and check a whole archive. Raises RefusedError for one that is damaged, newer, or something else."""
        self.path = path
        self.files = {name: tempfile.TemporaryFile() for name in MEMBERS}  # noqa: SIM115 (closed with this)
        try:
            self.check(self.unpack())
            self.manifest = self.read_manifest()
        except BaseException:
            self.close()
            raise

    def unpack(self) -> dict[str, str]:
        """Read the members, once from the beginning to the end; return their checksums as they should be."""
        sums: str | None = None
        try:
            with tarfile.open(self.path, "r|gz") as tar:
                for info in tar:
                    content = tar.extractfile(info) if info.isfile() else None
                    if info.name == SUMS and content:
                        sums = content.read().decode()
                    elif info.name in self.files and content:
                        while chunk := content.read(CHUNK):
                            self.files[info.name].write(chunk)
                    else:
                        raise damaged(self.path, f"it has a member {info.name}")
        except FileNotFoundError:
            raise RefusedError(
                f"there is no file {self.path}", fix="name the file of rollbook course archive"
            ) from None
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as exc:
            raise damaged(self.path, str(exc)) from exc
        except OSError as exc:
            raise RefusedError(f"cannot read {self.path}", why=exc.strerror or str(exc)) from exc
        if sums is None:
            raise damaged(self.path, "it ends too early: there are no checksums")
        return {name: digest for digest, _, name in (line.partition("  ") for line in sums.splitlines())}

    def check(self, sums: dict[str, str]) -> None:
        """Compare the checksums."""
        for name, file in self.files.items():
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != sums.get(name):
                raise damaged(self.path, f"{name} does not have its checksum")
            file.seek(0)

    def read_manifest(self) -> Manifest:
        """Return the manifest. Raises RefusedError for a format that this program does not know."""
        try:
            content = json.loads(self.files[MANIFEST].read())
            if content["format"] != FORMAT:
                raise RefusedError(
                    f"{self.path} has format {content['format']}, which this program cannot read",
                    why=f"Rollbook {content['rollbook']} wrote it; this program reads format {FORMAT}",
                    fix=f"restore it with Rollbook {content['rollbook']} or newer",
                )
            manifest = Manifest(**{each.name: content[each.name] for each in fields(Manifest)})
            if not (content["kept"]["schema_name"] and isinstance(content["tables"], list)):
                raise damaged(self.path, f"its {MANIFEST} is none")
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise damaged(self.path, f"its {MANIFEST} is none") from exc
        return manifest

    def close(self) -> None:
        """Close the members."""
        for file in self.files.values():
            file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def damaged(path: Path, why: str) -> RefusedError:
    """Return the refusal of a file that is not a whole archive."""
    return RefusedError(
        f"{path} is damaged, or not an archive of a course", why=why, fix="use another copy of the file"
    )
