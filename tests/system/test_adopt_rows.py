"""What `schema adopt` finds in the rows of a Django site, and each repair that --fix can name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, IsolationLevel

from rollbook.core.command import Author
from rollbook.core.db import Conn, connect
from rollbook.core.errors import RefusedError, UsageError
from rollbook.system.adoption.fixes import apply, are_fixed
from rollbook.system.adoption.repairs import REPAIRS, parsed
from rollbook.system.adoption.rules import find, rejects
from rollbook.system.adoption.site import Site, find_site, read_site
from tests.django_site import DIRTY, LOOSE, LOOSE_ROWS, add_clean

Db = Connection[Any]
AUTHOR = Author("ada", "Grace")


@contextmanager
def reading(site: Db) -> Iterator[tuple[Conn, Site]]:
    """A session as `schema adopt` has it, and the site that it reads; rolled back in the end."""
    with connect(site.info.dsn, name="test", migrated=False, keep=False) as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        yield conn, read_site(conn, find_site(conn, None))


def found(site: Db) -> dict[str, tuple[int, list[int]]]:
    """Each fault: rule, table, column -> count and first ids."""
    with reading(site) as (conn, there):
        return {f"{f.rule} {f.table} {f.column}": (f.count, f.first_ids) for f in find(conn, there)}


STOCK = {
    "username auth_user username": (4, [101, 102, 103, 105]),
    "email auth_user email": (3, [101, 102, 103]),
    "email-form auth_user email": (3, [104, 105, 106]),
    "meta auth_userprofile meta": (5, [201, 202, 203, 204, 205]),
    "year auth_userprofile year_of_birth": (5, [201, 202, 203, 204, 205]),
    "gender auth_userprofile gender": (5, [201, 202, 203, 204, 205]),
    "level auth_userprofile level_of_education": (5, [201, 202, 203, 204, 205]),
    "course student_courseenrollment course_id": (1, [301]),
    "allowed student_courseenrollmentallowed email": (2, [401, 402]),
    "course student_courseenrollmentallowed course_id": (1, [403]),
    "group student_usertestgroup name": (1, [502]),
    "taken student_usertestgroup name": (2, [51, 501]),
    "request student_pendingnamechange new_name": (1, [701]),
    "request student_pendingemailchange new_email": (1, [801]),
    "key student_pendingemailchange activation_key": (1, [802]),
}


def test_every_fault_of_stock_tables_is_found_at_once(site: Db, tmp_path: Path) -> None:
    add_clean(site)
    assert found(site) == {}
    site.execute(DIRTY)
    assert found(site) == STOCK

    file = tmp_path / "rejects.csv"
    with reading(site) as (conn, there):
        assert rejects(conn, there, str(file)) == sum(count for count, _ in STOCK.values())
        locks = conn.execute(
            """select distinct l.mode from pg_locks as l inner join pg_class as c on c.oid = l.relation
            where l.pid = pg_backend_pid() and c.relnamespace = 'public'::regnamespace"""
        ).fetchall()
    assert locks == [{"mode": "AccessShareLock"}]
    with file.open(newline="") as lines:
        assert list(csv.reader(lines)) == [
            ["table", "id", "column", "value", "rule"],
            ["auth_user", "101", "username", "John Doe", "username"],
            ["auth_user", "102", "username", "tab\there", "username"],
            ["auth_user", "103", "username", "", "username"],
            ["auth_user", "105", "username", " \a ", "username"],
            ["auth_user", "104", "email", "not an address", "email-form"],
            ["auth_user", "105", "email", "a@@b", "email-form"],
            ["auth_user", "106", "email", "@example.org", "email-form"],
            ["auth_user", "101", "email", "john@example.org", "email"],
            ["auth_user", "102", "email", "JOHN@example.org", "email"],
            ["auth_user", "103", "email", "John@Example.org", "email"],
            ["auth_userprofile", "201", "gender", "x", "gender"],
            ["auth_userprofile", "202", "gender", "male", "gender"],
            ["auth_userprofile", "203", "gender", " Femal", "gender"],
            ["auth_userprofile", "204", "gender", "M", "gender"],
            ["auth_userprofile", "205", "gender", " ", "gender"],
            ["auth_userprofile", "201", "level_of_education", "p", "level"],
            ["auth_userprofile", "202", "level_of_education", "a", "level"],
            ["auth_userprofile", "203", "level_of_education", "M", "level"],
            ["auth_userprofile", "204", "level_of_education", "phd", "level"],
            ["auth_userprofile", "205", "level_of_education", " ", "level"],
            ["auth_userprofile", "201", "meta", "[]", "meta"],
            ["auth_userprofile", "202", "meta", "not json", "meta"],
            ["auth_userprofile", "203", "meta", '"text"', "meta"],
            ["auth_userprofile", "204", "meta", '{"a": 1', "meta"],
            ["auth_userprofile", "205", "meta", "null", "meta"],
            ["auth_userprofile", "201", "year_of_birth", "20133", "year"],
            ["auth_userprofile", "202", "year_of_birth", "0", "year"],
            ["auth_userprofile", "203", "year_of_birth", "-5", "year"],
            ["auth_userprofile", "204", "year_of_birth", "1850", "year"],
            ["auth_userprofile", "205", "year_of_birth", "2100", "year"],
            ["student_courseenrollment", "301", "course_id", "", "course"],
            ["student_courseenrollmentallowed", "401", "email", "nobody", "allowed"],
            ["student_courseenrollmentallowed", "402", "email", "", "allowed"],
            ["student_courseenrollmentallowed", "403", "course_id", "", "course"],
            ["student_usertestgroup", "502", "name", "", "group"],
            ["student_usertestgroup", "51", "name", "testers", "taken"],
            ["student_usertestgroup", "501", "name", "testers", "taken"],
            ["student_pendingnamechange", "701", "new_name", "X", "request"],
            ["student_pendingemailchange", "801", "new_email", "x", "request"],
            ["student_pendingemailchange", "802", "activation_key", "(secret)", "key"],
        ]


LOOSE_FAULTS = {
    "username auth_user username": (2, [0, 2147483647]),
    "null auth_user first_name": (1, [0]),
    "length auth_user last_name": (1, [0]),
    "null auth_user email": (1, [0]),
    "null auth_user password": (1, [0]),
    "null auth_user is_staff": (3, [-1, 0, 2147483647]),
    "null auth_user is_active": (3, [-1, 0, 2147483647]),
    "null auth_user is_superuser": (3, [-1, 0, 2147483647]),
    "null auth_user date_joined": (3, [-1, 0, 2147483647]),
    "taken auth_user username": (2, [-1, 1]),
    "orphans auth_userprofile user_id": (2, [212, 213]),
    "null auth_userprofile meta": (3, [211, 212, 213]),
    "null auth_userprofile courseware": (3, [211, 212, 213]),
    "null auth_userprofile language": (3, [211, 212, 213]),
    "null auth_userprofile location": (3, [211, 212, 213]),
    "gender auth_userprofile gender": (1, [211]),
    "level auth_userprofile level_of_education": (1, [211]),
    "duplicates auth_userprofile user_id": (2, [11, 211]),
    "orphans auth_registration user_id": (1, [222]),
    "key auth_registration activation_key": (3, [21, 221, 223]),
    "orphans student_courseenrollment user_id": (1, [313]),
    "course student_courseenrollment course_id": (2, [314, 315]),
    "duplicates student_courseenrollment user_id, course_id": (3, [31, 311, 312]),
    "duplicates student_courseenrollmentallowed email, course_id": (2, [41, 411]),
    "group student_usertestgroup name": (1, [511]),
    "null student_usertestgroup description": (1, [511]),
    "orphans student_usertestgroup_users usertestgroup_id": (1, [612]),
    "orphans student_usertestgroup_users user_id": (1, [613]),
    "duplicates student_usertestgroup_users usertestgroup_id, user_id": (2, [61, 611]),
    "null student_pendingnamechange rationale": (1, [711]),
    "duplicates student_pendingnamechange user_id": (2, [71, 711]),
    "null student_pendingemailchange new_email": (1, [812]),
    "request student_pendingemailchange new_email": (1, [811]),
    "null student_pendingemailchange activation_key": (1, [812]),
}
# Words that repair all of it. Where a rule has several, the others are tried one by one below.
ALL = (
    "username=underscore,taken=id-younger,null=default,length=cut,orphans=delete,gender=null,level=null,"
    "duplicates=delete-younger,key=renew,course=delete,group=id,request=delete"
)


def test_tables_without_keys_and_widths_hold_worse_and_are_repaired_at_once(site: Db) -> None:
    add_clean(site)
    site.execute(LOOSE)
    site.execute(LOOSE_ROWS)
    assert found(site) == LOOSE_FAULTS

    with connect(site.info.dsn, name="test", migrated=False) as conn:
        repaired = apply(conn, read_site(conn, "public"), [ALL], AUTHOR)
    assert found(site) == {}
    assert sum(each.rows for each in repaired) == len(rows(site, "select 1 from public.rollbook_adoption_fix"))
    # A row that was deleted for one fault no longer has another.
    assert {f"{each.fix} {each.table}": each.rows for each in repaired if "delete" in each.fix} == {
        "orphans=delete auth_userprofile": 2,
        "duplicates=delete-younger auth_userprofile": 1,
        "orphans=delete auth_registration": 1,
        "orphans=delete student_courseenrollment": 1,
        "course=delete student_courseenrollment": 2,
        "duplicates=delete-younger student_courseenrollment": 2,
        "duplicates=delete-younger student_courseenrollmentallowed": 1,
        "orphans=delete student_usertestgroup_users": 1,
        "duplicates=delete-younger student_usertestgroup_users": 1,
        "duplicates=delete-younger student_pendingnamechange": 1,
        "request=delete student_pendingemailchange": 1,
    }
    assert rows(site, "select id, username, length(last_name), password, is_active from auth_user where id < 1") == [
        (-1, "ada", 0, "!", True),
        (0, "user_0", 150, "!", True),
    ]
    assert rows(site, "select id, username, email from auth_user where id in (1, 2147483647)") == [
        (1, "ada_1", "ada@example.org"),
        (2147483647, "y" * 150, ""),
    ]
    assert rows(site, "select id, name, meta, courseware from auth_userprofile") == [
        (11, "Ada Foo", '{"old_names": []}', "course.xml"),
        (12, "Bob Bar", "", "course.xml"),
        (14, "Eve", "", "course.xml"),
    ]
    assert rows(site, "select id, user_id from student_courseenrollment") == [(31, 1), (32, 2), (33, 1)]
    assert rows(site, "select id, name from student_usertestgroup") == [(51, "testers"), (511, "g" * 28 + "_511")]
    keys = rows(site, "select id, activation_key ~ '^[0-9a-f]{32}$' from auth_registration")
    assert keys == [(21, True), (23, False), (221, True), (223, True)]


# One word for the rows of DIRTY -> a query, and what it returns afterwards.
PROFILES = "select id, {} from auth_userprofile where id between 201 and 206"
MAILS = "select id, email from auth_user where id > 100 and email ~* 'john|^$'"
ONE_BY_ONE = {
    "username=underscore": (
        "select id, username from auth_user where id > 100",
        [(101, "John_Doe"), (102, "tab_here"), (103, "user_103"), (104, "nomail"), (105, "_"), (106, "loc@l"),
         (107, "fine")],
    ),
    "username=underscore-id": (
        "select id, username from auth_user where id in (101, 103, 105)",
        [(101, "John_Doe_101"), (103, "user_103"), (105, "__105")],
    ),
    "email=blank-younger": (MAILS, [(101, "john@example.org"), (102, ""), (103, "")]),
    "email=blank-older": (MAILS, [(101, ""), (102, ""), (103, "John@Example.org")]),
    "email=blank-idle": (MAILS, [(101, ""), (102, "JOHN@example.org"), (103, "")]),
    "email-form=blank": (
        "select id, email from auth_user where id > 103", [(104, ""), (105, ""), (106, ""), (107, "fine@localhost")],
    ),
    "meta=empty": (
        PROFILES.format("meta"), [(201, ""), (202, ""), (203, ""), (204, ""), (205, ""), (206, '{"fine": {}}')],
    ),
    "meta=wrap": (
        PROFILES.format("meta::jsonb"),
        [(201, {"was": "[]"}), (202, {"was": "not json"}), (203, {"was": '"text"'}), (204, {"was": '{"a": 1'}),
         (205, {"was": "null"}), (206, {"fine": {}})],
    ),
    "year=null": (
        PROFILES.format("year_of_birth"),
        [(201, None), (202, None), (203, None), (204, None), (205, None), (206, 1990)],
    ),
    "gender=null": (
        PROFILES.format("gender"), [(201, None), (202, None), (203, None), (204, None), (205, None), (206, "o")],
    ),
    "gender=letter": (
        PROFILES.format("gender"), [(201, None), (202, "m"), (203, "f"), (204, "m"), (205, None), (206, "o")],
    ),
    "level=null": (
        PROFILES.format("level_of_education"),
        [(201, None), (202, None), (203, None), (204, None), (205, None), (206, "none")],
    ),
    "level=other": (
        PROFILES.format("level_of_education"),
        [(201, "other"), (202, "other"), (203, "other"), (204, "other"), (205, "other"), (206, "none")],
    ),
    "key=renew": ("select id, length(activation_key) from student_pendingemailchange", [(81, 11), (801, 1), (802, 32)]),
    "course=delete": ("select id from student_courseenrollment", [(31,), (32,), (33,), (302,)]),
    "allowed=delete": ("select id from student_courseenrollmentallowed", [(41,), (403,)]),
    "request=delete": ("select id from student_pendingnamechange", [(71,), (702,)]),
    "group=id": ("select id, name from student_usertestgroup where id > 501", [(502, "group_502")]),
    "taken=id-younger": (
        "select id, name from student_usertestgroup", [(51, "testers"), (501, "testers_501"), (502, "")],
    ),
    "duplicates=delete-older": ("select id from student_usertestgroup_users", [(61,)]),
    "duplicates=delete-younger": ("select id from student_usertestgroup_users", [(61,)]),
    "orphans=delete": ("select id from forum_post", [(91,), (92,)]),
    "null=default": ("select id from forum_post", [(91,), (92,)]),
    "length=cut": ("select id from forum_post", [(91,), (92,)]),
}  # fmt: skip


def rows(site: Db, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query, by id."""
    return site.execute(f"{query} order by 1").fetchall()


def test_each_word_repairs_the_rows_of_its_rule_and_no_others(site: Db) -> None:
    add_clean(site)
    site.execute(DIRTY)
    assert ONE_BY_ONE.keys() == {f"{rule}={word}" for rule, words in REPAIRS.items() for word in words}
    before = {fault: count for fault, (count, _) in found(site).items()}
    for fix, (query, expected) in ONE_BY_ONE.items():
        with connect(site.info.dsn, name="test", migrated=False, keep=False) as conn:
            there = read_site(conn, "public")
            repaired = apply(conn, there, [fix], AUTHOR)
            left = {f"{f.rule} {f.table} {f.column}": f.count for f in find(conn, there)}
            conn.execute("set local search_path = public")
            after = [tuple(row.values()) for row in conn.execute(f"{query} order by 1".encode())]
        assert (fix, after) == (fix, expected)
        rule = fix.partition("=")[0]
        assert left == {fault: count for fault, count in before.items() if not fault.startswith(f"{rule} ")}, fix
        assert bool(repaired) == (left != before), fix


def test_repairs_are_kept_with_who_and_before_and_after_and_without_secrets(site: Db) -> None:
    add_clean(site)
    site.execute(DIRTY)
    with connect(site.info.dsn, name="test", migrated=False) as conn:
        assert not are_fixed(conn)
        apply(conn, read_site(conn, "public"), ["username=underscore", "key=renew,course=delete"], AUTHOR, "clean up")
        assert are_fixed(conn)
    kept = rows(
        site,
        """select object, user_id, course_id, outcome, before, after, reason, os_user, on_behalf_of, role
        from public.rollbook_adoption_fix where object ~ '301|403|802|101'""",
    )
    who = ("ada", "Grace", "postgres")
    assert kept[0] == ("auth_user 101", 101, None, "changed", {"username": "John Doe"}, {"username": "John_Doe"},
                       "username=underscore: clean up", *who)  # fmt: skip
    assert kept[1] == ("student_courseenrollment 301", 101, "", "removed",
                       {"id": 301, "user_id": 101, "course_id": "", "created": None}, None,
                       "course=delete: clean up", *who)  # fmt: skip
    assert kept[3] == ("student_pendingemailchange 802", 103, None, "changed", {"activation_key": "(secret)"},
                       {"activation_key": "(secret)"}, "key=renew: clean up", *who)  # fmt: skip


def test_a_repair_that_makes_two_names_equal_changes_nothing(site: Db) -> None:
    add_clean(site)
    site.execute(
        """insert into auth_user (id, username, first_name, last_name, email, password, is_staff, is_active,
            is_superuser, date_joined) values
            (5, 'a b', '', '', '', '!', false, true, false, now()),
            (6, 'a_b', '', '', '', '!', false, true, false, now())"""
    )
    before = rows(site, "select * from auth_user")
    site.execute("alter table auth_user drop constraint auth_user_username_key")
    with pytest.raises(RefusedError) as refused, connect(site.info.dsn, name="test", migrated=False) as conn:
        apply(conn, read_site(conn, "public"), ["username=underscore"], AUTHOR)
    assert refused.value.message == "after these repairs 2 rows of auth_user break the rule taken: id 5, 6"
    assert rows(site, "select * from auth_user") == before
    with connect(site.info.dsn, name="test", migrated=False) as conn:
        apply(conn, read_site(conn, "public"), ["username=underscore-id"], AUTHOR)
    assert rows(site, "select id, username from auth_user where id > 4") == [(5, "a_b_5"), (6, "a_b")]


def test_a_repair_that_the_sites_own_index_refuses_names_the_rows_and_another_repair(site: Db) -> None:
    add_clean(site)
    site.execute(
        """insert into auth_user (id, username, first_name, last_name, email, password, is_staff, is_active,
            is_superuser, date_joined) values
            (5, 'a b', '', '', '', '!', false, true, false, now()),
            (6, 'a  b', '', '', '', '!', false, true, false, now())"""
    )
    with connect(site.info.dsn, name="test", migrated=False) as conn:
        with pytest.raises(RefusedError) as refused:
            apply(conn, read_site(conn, "public"), ["username=underscore"], AUTHOR)
        conn.rollback()
        apply(conn, read_site(conn, "public"), [str(refused.value.fix).removeprefix("--fix ")], AUTHOR)
    assert refused.value.message == "--fix username=underscore would make rows of auth_user equal: id 5, 6"
    assert "auth_user_username_key" in str(refused.value.why)
    assert rows(site, "select id, username from auth_user where id > 4") == [(5, "a_b_5"), (6, "a_b_6")]


@pytest.mark.parametrize(
    ("fixes", "words", "fix"),
    [
        (["year=first"], "there is no repair year=first", "--fix year=null"),
        (["email"], "there is no repair email", "--fix email=blank-younger or email=blank-older or email=blank-idle"),
        (["colour=blue"], "there is no repair colour=blue", f"--fix RULE=WORD; the rules: {', '.join(REPAIRS)}"),
        (
            ["email=blank-younger", "email=blank-older"],
            "--fix email=blank-younger and email=blank-older exclude each", "choose one of them",
        ),
    ],
)  # fmt: skip
def test_an_unknown_repair_lists_those_of_its_rule(fixes: list[str], words: str, fix: str) -> None:
    with pytest.raises(UsageError) as refused:
        parsed(fixes)
    assert refused.value.message.startswith(words)
    assert refused.value.fix == fix


def test_sites_without_rows_with_one_table_and_in_another_schema(site: Db) -> None:
    assert found(site) == {}  # a fresh Django project
    add_clean(site)
    site.execute(DIRTY)
    site.execute('alter schema public rename to "My ""Site""; x"; create schema public')
    assert found(site) == STOCK
    schema = '"My ""Site""; x"'
    site.execute(f"drop table {', '.join(f'{schema}.{t}' for t in LATER)} cascade")
    assert found(site) == {fault: rows for fault, rows in STOCK.items() if " auth_user " in fault}


LATER = [
    "auth_userprofile", "auth_registration", "student_courseenrollment", "student_courseenrollmentallowed",
    "student_usertestgroup_users", "student_usertestgroup", "student_pendingnamechange", "student_pendingemailchange",
]  # fmt: skip
