"""Each shape that ships, from the platform's empty tables to a damaged copy that is repaired: all by the program.

The commands and declarations are those of docs/shape.md, in its order: what it shows is what runs here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from rollbook.core import shape
from rollbook.core.migrating import ROOT
from tests.conftest import Cluster
from tests.program import Result
from tests.shapes.conftest import Home, home
from tests.shapes.platforms import PLATFORMS, Platform, gaps, members

PAGE = (ROOT / "docs" / "shape.md").read_text()
SECTIONS = {
    "open_edx": "Open edX of today",
    "django": "A Django site with its own profile",
    "moodle": "A Moodle-like platform",
}
Call = Callable[..., Result]

# What Rollbook would leave on the platform's tables.
LEFT = """
select t.tgname from pg_trigger as t where starts_with(t.tgname, 'rollbook')
union all select p.polname from pg_policy as p
union all select c.relname from pg_class as c, aclexplode(c.relacl) as a where a.grantee::regrole::text ~ 'rollbook'
union all select n.nspname from pg_namespace as n where n.nspname in ('rollbook', 'portal') or n.nspname ~ '^course_'
union all
select n.nspname from pg_namespace as n, aclexplode(n.nspacl) as a
where a.grantee <> 0 and a.grantee::regrole::text ~ 'rollbook'
"""


def blocks(title: str, language: str) -> list[str]:
    """Return the code of a section of the page."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def follow(platform: Platform, site: Home, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the page says: its SQL as the application's role, its file, its commands."""
    for script in blocks(SECTIONS[platform.name], "sql"):
        site.app.execute(script.encode())
    (declared,) = blocks(SECTIONS[platform.name], "toml")
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / f"{platform.name}.toml").write_text(declared)
    monkeypatch.chdir(tmp_path)
    obey(SECTIONS[platform.name], site, call)


def obey(title: str, site: Home, call: Call) -> None:
    """Run the commands of a section, each of which succeeds."""
    commands = re.findall(r"^\$ rollbook (.*)$", "".join(blocks(title, "console")), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        line, _, file = command.partition(" > ")
        done = call(*shlex.split(line), "-d", site.dsn)
        assert done.code == 0, (command, done)
        if file:
            Path(file).write_text(done.out)


class Course:
    """A platform whose first course is the page's; what each step leaves is compared with the platform's rows."""

    def __init__(self, platform: Platform, site: Home, call: Call) -> None:
        self.platform, self.site, self.call = platform, site, call
        self.declared = platform.shape

    def write(self, statement: LiteralString, person: int, *courses: str) -> None:
        """Run a statement of the platform for a person and each of the courses; then all copies are equal."""
        for course in courses or ("",):
            self.site.app.execute(statement, {"n": person, "c": course})
        self.equal()

    def equal(self) -> None:
        """Compare all copies with the platform's rows."""
        assert gaps(self.site.dba, self.declared) == []

    def members(self) -> set[int]:
        """Return who is in the first course."""
        return members(self.site.dba, self.declared, self.platform.courses[0])

    def code(self, *command: str) -> int:
        """Run the program."""
        return self.call(*command, "-d", self.site.dsn).code

    def written(self) -> object:
        """Return how often routes were written."""
        return self.site.dba.execute("select sum(written) from rollbook.route").fetchone()


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_page_shows_the_shapes_that_ship(name: str) -> None:
    (declared,) = blocks(SECTIONS[name], "toml")
    assert shape.parse(declared, "page") == PLATFORMS[name].shape


@pytest.mark.slow
@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_from_its_tables_to_a_repaired_copy(
    name: str, cluster: Cluster, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = PLATFORMS[name]
    first, second = platform.courses
    with home(cluster, platform) as site:
        site.app.execute(platform.join, {"n": 1, "c": first})  # before Rollbook comes
        follow(platform, site, call, tmp_path, monkeypatch)
        course = Course(platform, site, call)
        assert course.code("course", "create", second, "--on-leave", "keep" if name != "django" else "remove") == 0
        assert course.members() == {1}
        course.equal()
        if name == "open_edx":
            site.app.execute(platform.join, {"n": 4, "c": second})
            obey("Change it online", site, call)
            course.equal()
        enroll_and_leave(course)
        fill(course)
        assert (course.code("replication", "verify"), course.code("schema", "check")) == (0, 0)

        hurt(site, course.declared)
        assert course.code("replication", "verify") == 4
        assert course.code("replication", "repair", "--yes") == 0
        course.equal()
        shown = call("course", "list", "--json", "-d", site.dsn).data
        assert {row["course"]: row["enrolled"] for row in shown}[first] == len(course.members())
        for refused in (("user", "list"), ("enrollment", "add", first, "user1"), ("candidate", "list")):
            done = call(*refused, "-d", site.dsn)
            assert (done.code, "auth_user" in done.err) == (1, True), (refused, done)
        for table in reversed(course.declared.tables):
            site.app.execute(f"truncate {table.relation} cascade".encode())
            course.equal()
        assert course.code("course", "delete", second, "--confirm", second) == 0
        assert course.code("schema", "check") == 0
        assert course.code("schema", "downgrade", "--to", "base", "--yes") == 0
        assert site.dba.execute(LEFT).fetchall() == []
        site.app.execute(platform.add, {"first": 3001, "last": 3001})  # the platform goes on without Rollbook


def enroll_and_leave(course: Course) -> None:
    """Let persons 2 and 3 come, flip, change, have several rows, and go."""
    platform, (first, second) = course.platform, course.platform.courses
    for person in (2, 3):
        course.write(platform.join, person, first, second)
    course.write(platform.off, 2, first, second)
    assert course.members() == {1, 3}
    for person in (2, 3):  # the first has left one course and is kept in the other
        course.write(platform.change_person, person)
        if platform.change_profile:
            course.write(platform.change_profile, person)
    before = course.written()
    course.write(platform.ignored, 3)
    assert (course.written() == before) is (platform.name != "open_edx")  # there last_login is in the whitelist
    course.write(platform.on, 2, first)
    assert course.members() == {1, 2, 3}
    if platform.again and platform.off_one:
        course.write(platform.again, 2, first)
        course.write(platform.off_one, 2, first)
        assert course.members() == {1, 2, 3}
    course.write(platform.leave, 2, first)
    course.write(platform.leave, 3, second)
    assert course.members() == {1, 3}


def fill(course: Course) -> None:
    """COPY a thousand memberships, half of which count."""
    platform, app = course.platform, course.site.app
    app.execute(platform.add, {"first": 7, "last": 1006})
    with app.cursor().copy(platform.copy) as copier:
        for person in range(7, 1007):
            given = {":id": 10_000 + person, ":n": person, ":c": platform.courses[0]}
            line = platform.lines[person % 2]
            copier.write_row([given.get(field, field) if isinstance(field, str) else field for field in line])
    course.equal()
    assert len(course.members()) == 502


def hurt(site: Home, declared: shape.Shape) -> None:
    """Change a copy of each table, lose one, and invent one, past the guards."""
    (found,) = site.dba.execute("select schema_name from rollbook.course order by course_id limit 1").fetchall()
    site.dba.execute("set session_replication_role = replica")
    for table in declared.tables:
        place, key = sql.Identifier(found[0], table.name), sql.Identifier(table.key)
        edge = sql.SQL("(select {}({}) from {})")
        site.dba.execute(
            sql.SQL("delete from {} where {} = {}").format(place, key, edge.format(sql.SQL("max"), key, place))
        )
        site.dba.execute(
            sql.SQL("update {0} set {1} = {1} + 1000000 where {1} = {2}").format(
                place, key, edge.format(sql.SQL("min"), key, place)
            )
        )
    site.dba.execute("reset session_replication_role")


@pytest.mark.slow
def test_a_copy_is_read_only_and_named_by_the_platforms_table(cluster: Cluster, call: Call, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    platform = PLATFORMS["moodle"]
    with home(cluster, platform) as site:
        follow(platform, site, call, tmp_path, monkeypatch)
        site.app.execute(platform.join, {"n": 1, "c": "42"})
        with pytest.raises(psycopg.IntegrityError, match="mdl_user is a copy: write the portal's"):
            site.dba.execute("update course_42.mdl_user set email = 'x'")
        # A method that is disabled takes its class along; another person's write meanwhile waits for it.
        site.app.execute("update mdl_enrol set status = 1 where courseid = 42")
        assert site.dba.execute("select count(*) from course_42.mdl_user").fetchone() == (0,)
        site.app.execute("update mdl_enrol set status = 0, courseid = 42 where id = 1")
        assert gaps(site.dba, platform.shape) == []
        assert site.dba.execute("select count(*) from course_42.mdl_user").fetchone() == (1,)
