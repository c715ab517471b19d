"""Other tables of the portal's database forbid a deletion: named with their rows, in a dry run as at the commit."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, Result, snapshot
from tests.school import Rollbook

# A log as Django's, a forum with two levels of which the upper cascades, and one that nobody uses.
FORUM = """
create table portal.django_admin_log (
    id bigint primary key, user_id integer references portal.auth_user deferrable initially deferred
);
create schema forum;
create table forum.post (id bigint primary key, author bigint references portal.auth_user on delete cascade);
create table forum.vote (post bigint references forum.post on delete restrict);
create table forum.badge (owner bigint references portal.auth_user);
insert into portal.django_admin_log select g, 101 from generate_series(1, 3) as g;
insert into forum.post values (1, 101), (2, 102);
insert into forum.vote values (1), (1), (2)
"""


@pytest.fixture
def forum(school: Connection[Any]) -> Connection[Any]:
    """The platform with tables of a web application beside it."""
    school.execute(FORUM)
    return school


def said(answer: Result) -> tuple[int, str, str]:
    """Return exit code, output and the error."""
    return answer.code, answer.out, answer.err[answer.err.index("error:") :]


def test_user_delete_names_every_table_with_rows_and_their_number(rollbook: Rollbook, forum: Connection[Any]) -> None:
    before = snapshot(forum)
    dry, real = rollbook("user", "delete", "ada", "-n"), rollbook("user", "delete", "ada", "--confirm", "ada")
    assert said(dry) == said(real)
    assert (dry.code, dry.out) == (1, "")
    assert "forum.vote: 2, portal.django_admin_log: 3" in dry.err
    assert "vote_post_fkey of forum.vote, django_admin_log_user_id_fkey of portal.django_admin_log" in dry.err
    assert "badge" not in dry.err
    assert snapshot(forum) == before
    forum.execute("delete from portal.django_admin_log where user_id = 101; delete from forum.vote where post = 1")
    assert rollbook("user", "delete", "ada", "--confirm", "ada").code == 0
    assert forum.execute("select id from forum.post").fetchall() == [(2,)]


@pytest.mark.parametrize("action", ["", "on delete restrict"])
def test_a_group_that_others_refer_to_stays(rollbook: Rollbook, school: Connection[Any], action: str) -> None:
    assert rollbook("group", "create", "testers").code == 0
    school.execute(
        f"create table public.trial (g bigint references portal.student_usertestgroup {action} deferrable initially "
        "deferred); insert into public.trial select id from portal.student_usertestgroup where name = 'testers'"
    )
    dry, real = (
        rollbook("group", "delete", "testers", "-n"),
        rollbook("group", "delete", "testers", "--confirm", "testers"),
    )
    assert said(dry) == said(real)
    assert (dry.code, "public.trial: 1" in dry.err) == (1, True), dry.err


def test_a_dry_run_says_no_where_the_commit_does(rollbook: Rollbook, school: Connection[Any]) -> None:
    """Certificates refer to enrollments. An import names the table only."""
    school.execute(
        "create table public.certificate (enrollment bigint references portal.student_courseenrollment deferrable "
        "initially deferred); insert into public.certificate select id from portal.student_courseenrollment"
    )
    before = snapshot(school)
    for command in (
        ("enrollment", "remove", KEEP, "ada"),
        ("enrollment", "roster", KEEP, "-", "--max-removals", "100%", "--yes"),
        ("enrollment", "import", "-"),
    ):
        rows = {"roster": b"user\nbob\n", "import": f"course_id,user,status\n{KEEP},ada,deleted\n".encode()}.get(
            command[1]
        )
        dry, real = (rollbook(*command, *option, stdin=rows) for option in (["-n"], []))
        assert said(dry) == said(real)
        assert (dry.code, dry.out) == (1, ""), dry
        expected = "table public.certificate has rows that refer" if "import" in command else "public.certificate: "
        assert (expected in dry.err, "certificate_enrollment_fkey" in dry.err) == (True, True), dry.err
    assert snapshot(school) == before


def test_a_courses_deferred_key_is_named_in_a_dry_run_too(rollbook: Rollbook, school: Connection[Any]) -> None:
    (name,) = school.execute("select schema_name from rollbook.course where course_id = %s", [KEEP]).fetchone() or ("",)
    school.execute(
        f"create table {name}.post (author bigint references {name}.auth_user deferrable initially deferred); "
        f"insert into {name}.post values (101)"
    )
    dry, real = rollbook("user", "delete", "ada", "-n"), rollbook("user", "delete", "ada", "--confirm", "ada")
    assert said(dry) == said(real)
    assert dry.code == 1
    assert f"course {KEEP} has rows of its own that refer to auth_user, in {name}.post" in dry.err
