"""`enrollment ... --wait`: the command ends when the course's server has it, or says that it has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import Site


@pytest.fixture
def attached(site: Site) -> Site:
    """One course on the server, the other in the portal."""
    site.add()
    site.attach(KEEP)
    return site


def there(site: Site) -> list[int]:
    """Who is enrolled in the course on the server."""
    query = f"select user_id from {KEEP_SCHEMA}.student_courseenrollment order by 1"
    return [user for (user,) in site.server.execute(query.encode()).fetchall()]


def test_when_the_command_ends_the_server_has_it(attached: Site, tmp_path: Path) -> None:
    attached.ok("enrollment", "add", KEEP, "dan", "--wait", "20")
    assert there(attached) == [101, 102, 103]
    attached.ok("enrollment", "remove", KEEP, "ada", "--wait", "20")
    assert there(attached) == [102, 103]
    attached.ok("enrollment", "move", "--from", REMOVE, "--to", KEEP, "ada", "--wait", "20")
    assert there(attached) == [101, 102, 103]
    file = tmp_path / "seats.csv"
    file.write_text(f"course_id,user,status\n{KEEP},eve,\n{KEEP},ada,deleted\n")
    attached.ok("enrollment", "import", str(file), "--wait", "20")
    assert there(attached) == [102, 103, 104]
    file.write_text("user\nada\ndan\n")
    attached.ok("enrollment", "roster", KEEP, str(file), "--max-removals", "100%", "--yes", "--wait", "20")
    assert there(attached) == [101, 103]


def test_a_stream_that_stands_still_is_attention_and_what_was_done_stays(attached: Site) -> None:
    attached.ok("replication", "pause", KEEP)
    result = attached.run("enrollment", "add", KEEP, "dan", "--wait", "0.5", "--json")
    assert (result.code, result.row["outcome"]) == (4, "created")
    assert "server east has not confirmed the change within 0.5 s" in result.err
    assert there(attached) == [101, 102]
    attached.ok("enrollment", "add", REMOVE, "dan", "--wait", "0.5")  # in the portal: there at once
    attached.ok("replication", "resume", KEEP)
    attached.ok("enrollment", "add", KEEP, "dan", "--wait", "20")
    assert there(attached) == [101, 102, 103]


def test_a_dry_run_waits_for_nothing(attached: Site) -> None:
    attached.ok("replication", "pause", KEEP)
    attached.ok("enrollment", "add", KEEP, "dan", "--wait", "0.5", "--dry-run")
