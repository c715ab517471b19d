"""`make freeze` copies what differs from the newest frozen copy, and no more."""

from __future__ import annotations

from pathlib import Path

from tests.tools.freeze import freeze


def write(path: Path, text: str) -> None:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_files_that_differ_are_frozen_and_lost_ones_are_named(tmp_path: Path) -> None:
    migrations, sql = tmp_path / "migrations", tmp_path / "sql"
    for name in ("functions/api/a", "functions/api/b", "views/c", "grants"):
        write(sql / f"{name}.sql", f"-- {name}\n")
    everything = ["functions/api/a.sql", "functions/api/b.sql", "views/c.sql", "grants.sql"]
    assert freeze("0002", migrations, sql) == (everything, [])

    write(sql / "functions/api/b.sql", "-- changed\n")
    (sql / "views/c.sql").unlink()
    assert freeze("0003", migrations, sql) == (["functions/api/b.sql"], ["views/c.sql"])
    assert [path.name for path in (migrations / "frozen/0003").rglob("*.sql")] == ["b.sql"]

    write(sql / "functions/api/b.sql", "-- functions/api/b\n")
    assert freeze("0004", migrations, sql)[0] == ["functions/api/b.sql"]
    assert freeze("0004", migrations, sql)[0] == ["functions/api/b.sql"]
