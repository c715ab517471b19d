"""Freeze sql/ for a release: copy the files that differ from the newest frozen copy into migrations/frozen/REVISION.

`make freeze REV=0003`. The first release freezes every file. A file that is gone from sql/ is printed: the revision
must drop its object.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rollbook.core.migrating import MIGRATIONS, SQL, known_revisions, object_files


def frozen_before(revision: str, migrations: Path = MIGRATIONS) -> dict[str, str]:
    """Return the newest frozen copy of each file, by its path below sql/, from the revisions before this one."""
    newest: dict[str, str] = {}
    for directory in sorted(path for path in (migrations / "frozen").glob("*") if path.name < revision):
        newest |= {str(path.relative_to(directory)): path.read_text() for path in object_files(directory)}
    return newest


def freeze(revision: str, migrations: Path = MIGRATIONS, sql: Path = SQL) -> tuple[list[str], list[str]]:
    """Copy what differs and return the files that were copied, and those that are gone from sql/."""
    before = frozen_before(revision, migrations)
    current = {str(path.relative_to(sql)): path.read_text() for path in object_files(sql)}
    copied = [name for name, text in current.items() if before.get(name) != text]
    for name in copied:
        target = migrations / "frozen" / revision / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(current[name])
    return copied, sorted(before.keys() - current.keys())


def main() -> int:
    """Freeze the revision that the command line names."""
    revision = sys.argv[1]
    if revision not in known_revisions():
        print(f"there is no revision {revision}; revisions: {', '.join(known_revisions())}")
        return 2
    copied, gone = freeze(revision)
    print("\n".join([f"migrations/frozen/{revision}/{name}" for name in copied]))
    print(f"{len(copied)} files frozen")
    for name in gone:
        print(f"gone from sql/: {name}; revision {revision} must drop its object")
    return 0


if __name__ == "__main__":
    sys.exit(main())
