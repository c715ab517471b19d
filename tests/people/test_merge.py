"""`rollbook user merge`: two accounts of one person become one; nothing that the first has is lost unnamed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result, process, rows, snapshot
from tests.school import Rollbook
from tests.sql.stepping import Stepper

Db = Connection[Any]

# Bob has a second account, ada, from which he sat exams; ada is no staff here.
SECOND = """
update portal.auth_user set is_staff = false where id = 101;
insert into portal.student_usertestgroup (id, name) values (7, 'readers');
insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
select g.id, 101 from portal.student_usertestgroup as g;
insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values
    ('Ada@example.org', 'edX/toy/2013_Spring', true), ('ada@example.org', 'edX/toy/2013_Spring', false),
    ('ada@example.org', 'MITx/6.002x/2012_Fall', false), ('bob@example.org', 'MITx/6.002x/2012_Fall', true);
insert into rollbook.name_decision (id, user_id, old_name, new_name, rationale, requested_at, state)
values (1, 101, 'Ada', 'Ida', '', now(), 'rejected');
update portal.auth_userprofile set meta = '{"old_names": [["Ada", "", "2012"]], "shoe": 9}' where user_id = 101;
update portal.auth_userprofile set meta = '{"old_names": [["Rob", "", "2011"]], "hat": 7}', goals = null
where user_id = 102;
update rollbook.discussion set active = true
"""


@pytest.fixture
def twice(furnished: Db) -> Db:
    """The platform where ada and bob are one person."""
    furnished.execute(SECOND)
    return furnished


def equal(rollbook: Rollbook) -> None:
    """Assert that every copy is as the portal has it."""
    answer = rollbook("replication", "verify", "--json")
    assert (answer.code, set(answer.column("verdict"))) == (0, {"match"})


def test_what_the_first_has_goes_to_the_second(rollbook: Rollbook, twice: Db) -> None:
    rollbook("user", "update", "ada", "--goals", "Peace")
    before = snapshot(twice)
    plan = rollbook("user", "merge", "ada", "bob", "-n", "--json")
    assert (plan.code, snapshot(twice)) == (0, before)
    asked = rollbook("user", "merge", "ada", "bob", "--json")
    assert (asked.code, snapshot(twice)) == (6, before)
    assert len(json.loads(asked.err.splitlines()[-1])["error"]["details"]["plan"]) == len(plan.data)

    done = rollbook("user", "merge", "ada", "bob", "--yes", "--json", "--reason", "two accounts")
    parts = {(row["what"], row["name"], row["outcome"]) for row in done.data}
    assert done.code == 0
    assert parts == {
        ("field", "name", "kept"), ("field", "goals", "kept"),
        ("enrollment", REMOVE, "moved"), ("enrollment", KEEP, "kept"),
        ("group", "readers", "moved"), ("group", "testers", "kept"),
        ("candidate", "edX000000000101", "moved"), ("name decision", "Ida", "moved"),
        ("allowed", REMOVE, "moved"), ("allowed", REMOVE, "removed"), ("allowed", KEEP, "removed"),
        ("user", "ada", "removed"),
    }  # fmt: skip
    assert rows(twice, "portal.student_courseenrollment", "id", "user_id") == [(302, 102), (303, 102), (304, 103)]
    assert rows(twice, f"{REMOVE_SCHEMA}.student_courseenrollment", "id", "user_id") == [(303, 102)]
    assert rows(twice, f"{REMOVE_SCHEMA}.auth_user", "id") == [(102,)]
    assert rows(twice, f"{KEEP_SCHEMA}.auth_user", "id") == [(102,)]
    equal(rollbook)
    assert rows(twice, "portal.student_testcenteruser", "user_id", "client_candidate_id") == [(102, "edX000000000101")]
    assert rows(twice, "portal.student_testcenterregistration", "client_authorization_id") == [("edXexam000000000101",)]
    allowed = rows(twice, "portal.student_courseenrollmentallowed", "course_id", "email", "auto_enroll")
    assert sorted(allowed) == [
        (KEEP, "bob@example.org", True), (KEEP, "fay@example.org", False), (REMOVE, "Bob@Example.org", True),
    ]  # fmt: skip
    (meta,) = twice.execute("select meta::jsonb from portal.auth_userprofile where user_id = 102").fetchall()[0]
    assert [entry[:2] for entry in meta["old_names"]] == [["Rob", ""], ["Ada", ""], ["Ada Foo", "two accounts"]]
    assert ([entry[0] for entry in meta["old_emails"]], meta["hat"], "shoe" in meta) == (["ada@example.org"], 7, False)
    queued = [row[1:] for row in rows(twice, "rollbook.discussion_outbox", "id", "user_id", "operation")]
    assert queued == [(102, "put"), (101, "delete")]


def test_the_history_of_the_first_is_found_under_the_second(rollbook: Rollbook, twice: Db) -> None:
    assert rollbook("user", "update", "eve", "--goals", "x").code == 0
    assert rollbook("user", "merge", "eve", "ada", "--yes").code == 0
    assert rollbook("user", "merge", "ada", "bob", "--yes").code == 0
    found = rollbook("history", "list", "--user", "bob", "--json")
    assert found.column("outcome") == ["merged", "merged", "merged", "merged", "changed"]
    assert rollbook("history", "list", "--user", "id:104", "--json").column("outcome") == ["merged", "changed"]
    (entry,) = twice.execute(
        "select before, after from rollbook.history where outcome = 'merged' and user_id = 102"
    ).fetchall()
    assert entry[0] == {"id": 101, "username": "ada"}
    assert entry[1]["moved"]["enrollment"] == [REMOVE]


@pytest.mark.parametrize(
    ("statement", "arguments", "words", "fix"),
    [
        ("select 1", ("bob", "bob"), "the same account", ""),
        ("select 1", ("bob", "Bob@example.org"), "the same account", ""),
        ("select 1", ("nobody", "bob"), "there is no user nobody", "user list"),
        ("select 1", ("bob", "id:999"), "there is no user id:999", ""),
        (
            "update portal.auth_user set is_superuser = true where id = 101",
            ("ada", "bob"), "ada is superuser and bob is not",
            "rollbook user revoke ada --superuser, or rollbook user grant bob --superuser",
        ),
        (
            "update portal.student_testcenteruser set uploaded_at = now() where user_id = 101",
            ("ada", "bob"), "both accounts are candidates", "rollbook user merge bob ada",
        ),
        (
            "update portal.student_testcenteruser set uploaded_at = now()",
            ("ada", "bob"), "both accounts are candidates",
            "delete from portal.student_testcenteruser where client_candidate_id = 'edX000000000101'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused(
    rollbook: Rollbook, twice: Db, statement: str, arguments: tuple[str, str], words: str, fix: str
) -> None:
    add_candidate(twice, 102)
    twice.execute(statement)
    before = snapshot(twice)
    answer = rollbook("user", "merge", *arguments, "--yes")
    assert (answer.code, words in answer.err, fix in answer.err) == (1, True, True), answer.err
    assert snapshot(twice) == before


def add_candidate(db: Db, user: int) -> None:
    """Make a user a candidate, as ada is one."""
    db.execute(
        """insert into portal.student_testcenteruser
            (user_id, client_candidate_id, first_name, last_name, address_1, city, country, phone, phone_country_code)
        select %s, 'edX000000000' || %s, first_name, last_name, address_1, city, country, phone, phone_country_code
        from portal.student_testcenteruser where user_id = 101""",
        [user, str(user)],
    )


def test_of_two_candidates_the_one_that_was_never_sent_goes_and_its_authorizations_stay(
    rollbook: Rollbook, twice: Db
) -> None:
    add_candidate(twice, 102)
    twice.execute("update portal.student_testcenteruser set uploaded_at = now() where user_id = 102")
    parts = rollbook("user", "merge", "ada", "bob", "--yes", "--json").data
    done = {(row["what"], row["name"], row["outcome"]) for row in parts}
    assert {
        ("authorization", "edXexam000000000101", "moved"), ("candidate", "edX000000000101", "removed"),
    } <= done  # fmt: skip
    found = twice.execute(
        """select c.user_id from portal.student_testcenterregistration as a
        inner join portal.student_testcenteruser as c on c.id = a.testcenter_user_id"""
    ).fetchall()
    assert found == [(102,)]


# A log, a forum that would lose its posts, badges of which each has one, and a course's own forum.
SITE = """
create table public.log (id bigint primary key, user_id integer references {auth_user});
create schema "a forum";
create table "a forum".post (id bigint primary key, author bigint references {auth_user} on delete cascade);
create table "a forum".badge (
    owner bigint references {auth_user} on delete set null, word text, primary key (owner, word)
);
create table public.certificate (enrollment bigint references {student_courseenrollment} on delete cascade);
create table course_edx_toy_2013_spring.note (
    author bigint references course_edx_toy_2013_spring.auth_user on delete cascade
);
create table course_mitx_6_002x_2012_fall.note (
    seat bigint references course_mitx_6_002x_2012_fall.student_courseenrollment
);
insert into public.log values (1, 101);
insert into "a forum".post values (1, 101), (2, 101);
insert into public.certificate values (301), (303);
insert into course_edx_toy_2013_spring.note values (101);
insert into course_mitx_6_002x_2012_fall.note values (301)
"""


def real_table(db: Db, name: str) -> str:
    """The table behind a name of schema portal, as SQL spells it."""
    (table,) = db.execute("select rollbook.portal_table(%s)::text", [name]).fetchone() or ("",)
    return str(table)


def test_rows_of_other_tables_are_named_and_moved_when_asked(rollbook: Rollbook, twice: Db) -> None:
    tables = {name: real_table(twice, name) for name in ("auth_user", "student_courseenrollment")}
    twice.execute(SITE.format(**tables))
    before = snapshot(twice)
    for option in ("-n", "--yes"):
        refused = rollbook("user", "merge", "ada", "bob", option, "--json")
        details = json.loads(refused.err.splitlines()[-1])["error"]["details"]["references"]
        assert (refused.code, snapshot(twice)) == (1, before)
        assert {each["table"]: (each["rows"], each["fix"]) for each in details} == {
            "public.log": (1, 'update "public"."log" set "user_id" = 102 where "user_id" = 101'),
            "a forum.post": (2, 'update "a forum"."post" set "author" = 102 where "author" = 101'),
            "public.certificate": (1, 'update "public"."certificate" set "enrollment" = 302 where "enrollment" = 301'),
            f"{REMOVE_SCHEMA}.note": (1, f'update "{REMOVE_SCHEMA}"."note" set "author" = 102 where "author" = 101'),
            f"{KEEP_SCHEMA}.note": (1, f'update "{KEEP_SCHEMA}"."note" set "seat" = 302 where "seat" = 301'),
        }  # fmt: skip
    twice.execute("""insert into "a forum".badge values (101, 'kind'), (101, 'wise'), (102, 'wise')""")
    doubled = rollbook("user", "merge", "ada", "bob", "--yes", "--move-references")
    assert doubled.code == 1
    fix = doubled.err.partition("keep one of them: ")[2]
    twice.execute(fix)  # as printed
    assert rows(twice, "a forum.badge", "owner", "word") == [(101, "kind"), (102, "wise")]
    done = rollbook("user", "merge", "ada", "bob", "--yes", "--move-references", "--json")
    assert done.code == 0, done.err
    assert rows(twice, "a forum.post", "author") == [(102,), (102,)]
    assert rows(twice, "a forum.badge", "owner", "word") == [(102, "kind"), (102, "wise")]
    assert rows(twice, "public.certificate", "enrollment") == [(302,), (303,)]
    assert rows(twice, f"{REMOVE_SCHEMA}.note", "author") == [(102,)]
    assert rows(twice, f"{KEEP_SCHEMA}.note", "seat") == [(302,)]
    assert sorted(row["name"] for row in done.data if row["what"] == "reference") == sorted(
        [*(each["table"] for each in details), "a forum.badge"]
    )
    equal(rollbook)


def test_rows_that_could_refer_to_nobody_are_not_deleted(rollbook: Rollbook, twice: Db) -> None:
    """Ada has left the course, her copy stayed and with it what she wrote; eve was never there."""
    twice.execute("delete from portal.student_courseenrollment where id = 301")
    twice.execute(
        f"create table {KEEP_SCHEMA}.note (author bigint references {KEEP_SCHEMA}.auth_user on delete cascade)"
    )
    twice.execute(f"insert into {KEEP_SCHEMA}.note values (101)")
    answer = rollbook("user", "merge", "ada", "eve", "--yes", "--move-references")
    assert (answer.code, "enroll eve in that course first" in answer.err) == (1, True), answer.err
    assert rollbook("enrollment", "add", KEEP, "eve").code == 0
    assert rollbook("user", "merge", "ada", "eve", "--yes", "--move-references").code == 0
    assert rows(twice, f"{KEEP_SCHEMA}.note", "author") == [(104,)]


# --- races ------------------------------------------------------------------------------------------------------------


WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and application_name ~ 'rollbook'
    and wait_event_type = 'Lock'
"""


@contextmanager
def merging(db: Db, dsn: str, *pairs: tuple[str, str]) -> Iterator[list[Future[Result]]]:
    """Merge accounts in processes of their own, which stop one after the other at a lock of the test's."""
    with ThreadPoolExecutor(len(pairs)) as pool:
        running = []
        for number, pair in enumerate(pairs, start=1):
            running.append(pool.submit(process, "user", "merge", *pair, "--yes", "--json", "-d", dsn))
            until(db, number)
        yield running


def until(db: Db, waiting: int) -> None:
    """Wait until so many processes of the program wait for a lock."""
    deadline = time.monotonic() + 30
    while db.execute(WAITING).fetchone() != (waiting,):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_enrollment_under_way_is_waited_for_and_moves(
    rollbook: Rollbook, twice: Db, session: Callable[[], Db], dsn: str
) -> None:
    """Where foreign keys are deferred, the merge is the one that the deadlock ends: it begins again."""
    other = Stepper(session(), twice)
    other.connection.execute("set deadlock_timeout = '20s'")
    other.begin()
    assert not other.step(
        "insert into portal.student_courseenrollment (id, user_id, course_id) values (309, 104, 'edX/toy/2013_Spring')"
    )
    with merging(twice, dsn, ("eve", "bob")) as (merge,):
        assert other.end() == ""
        assert merge.result().code == 0, merge.result().err
    assert (309, 102) in rows(twice, "portal.student_courseenrollment", "id", "user_id")
    equal(rollbook)


def test_what_comes_during_a_merge_waits_and_opposite_merges_take_turns(
    rollbook: Rollbook, twice: Db, session: Callable[[], Db], dsn: str
) -> None:
    """The first merge stops half-way; then ada enrolls, a second merges the other way round, and bob is deleted."""
    holder, enrolling, deleting = (Stepper(session(), twice) for _ in range(3))
    holder.begin()
    assert not holder.step("select from portal.auth_userprofile where user_id = 102 for update")
    with merging(twice, dsn, ("ada", "bob"), ("bob", "ada")) as (first, second):
        enrolling.begin()
        enrolling.step(  # a deferred foreign key is looked at in the end
            "insert into portal.student_courseenrollment (user_id, course_id) values (101, 'edX/later/2014')"
        )
        deleting.begin()
        assert deleting.step("delete from portal.auth_user where id = 102")
        assert holder.end() == ""
        assert first.result().code == 0
        assert (enrolling.end(), deleting.end()) == ("23503", "")
        assert (second.result().code, "any more" in second.result().err) == (1, True)
    assert rows(twice, "portal.auth_user", "id") == [(103,), (104,)]
    equal(rollbook)
