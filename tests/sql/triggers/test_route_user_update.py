"""sql/triggers/route_user_update.sql: a changed user reaches every course with a copy, and no other."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from tests.sql.helpers import (
    ENROLLMENT,
    KEEP,
    PROFILE,
    REMOVE,
    USER,
    Db,
    add_user,
    create,
    enroll,
    fails,
    faults,
    findings,
    plant,
    run,
    schema,
    select,
    versions,
)


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses, user 3 in the keep course, user 4 in none."""
    for name, courses in (("ada", [KEEP, REMOVE]), ("bob", [REMOVE, KEEP]), ("cy", [KEEP]), ("di", [])):
        enroll(school, add_user(school, name), *courses)
    return school


# Each gives some users another last name.
STATEMENTS: dict[str, LiteralString] = {
    "one": "update portal.auth_user set last_name = 'Bar' where id = 1",
    "many": "update portal.auth_user set last_name = 'Bar' || id",
    "from": "update portal.auth_user u set last_name = p.name from portal.auth_userprofile p where p.user_id = u.id",
    "all columns": """update portal.auth_user set (username, first_name, last_name, email, password, is_staff,
        is_active, is_superuser, last_login, date_joined) =
        ('X' || id, 'x', 'Bar', id || '@x.org', 'x', true, false, true, null, '9999-12-30 00:00:00.000001+00')""",
    "one of many changes": "update portal.auth_user set last_name = case id when 2 then 'Bar' else last_name end",
    "the same row twice in a transaction": """
        update portal.auth_user set last_name = 'Foo' where id = 1;
        update portal.auth_user set last_name = 'Bar' where id = 1""",
    "upsert of one": """insert into portal.auth_user (id, username) values (1, 'ada')
        on conflict (id) do update set last_name = 'Bar'""",
    "upsert of many": """insert into portal.auth_user (username) values ('ada'), ('new'), ('bob')
        on conflict (username) do update set last_name = 'Bar'""",
    "merge": """merge into portal.auth_user u
        using (values (1, 'ada'), (2, 'bob'), (5, 'new')) as s (id, name) on u.id = s.id
        when matched then update set last_name = 'Bar' when not matched then insert (username) values (s.name)""",
    "with, two tables": """with told as (update portal.auth_userprofile set name = 'Bar' returning user_id)
        update portal.auth_user u set last_name = 'Bar' from told where told.user_id = u.id""",
    "with, enrolled at once": """with joined as (insert into portal.student_courseenrollment (user_id, course_id)
        select 4, course_id from rollbook.course)
        update portal.auth_user set last_name = 'Bar' where id in (1, 4)""",
    "with, left at once": """with ended as (delete from portal.student_courseenrollment where user_id = 1)
        update portal.auth_user set last_name = 'Bar' where id in (1, 4)""",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_change_reaches_every_course_that_holds_the_user(pupils: Db, statement: str) -> None:
    before = select(pupils, "portal", USER, ["id", "last_name"])
    run(pupils, STATEMENTS[statement])
    assert select(pupils, "portal", USER, ["id", "last_name"]) != before
    assert faults(pupils) == []


def test_a_change_writes_that_users_copies_alone(pupils: Db) -> None:
    for changed in ([1], [1, 3]):
        before = versions(pupils)
        run(pupils, "update portal.auth_user set first_name = first_name || 'x' where id = any (%s)", changed)
        assert {key for key, version in versions(pupils).items() if before[key] != version} == {
            (course, USER, user_id)
            for course in (KEEP, REMOVE)
            for user_id in changed
            if (course, user_id) != (REMOVE, 3)
        }


SILENT: dict[str, LiteralString] = {
    "a user in no course": "update portal.auth_user set email = 'new@edx.org', password = 'new' where id = 4",
    "nothing, one": "update portal.auth_user set email = email where id = 1",
    "nothing, many": "update portal.auth_user set email = email, last_login = last_login",
    "no row": "update portal.auth_user set email = 'x@edx.org' where false",
    "not replicated, one": "update portal.auth_user set seen_response_count = 20, extra = '[1]' where id = 1",
    "not replicated, many": "update portal.auth_user set seen_response_count = 20, about = 'x', extra = '[1]'",
    "upsert of nothing": "insert into portal.auth_user (username) values ('ada') on conflict do nothing",
    "not replicated, profiles": "update portal.auth_userprofile set extra = '[1]'",
    "not replicated, enrollments": "update portal.student_courseenrollment set extra = '[1]'",
}


@pytest.mark.parametrize("statement", SILENT)
def test_an_update_of_no_replicated_value_writes_no_copy(pupils: Db, statement: str) -> None:
    run(pupils, "alter table portal.auth_user add seen_response_count integer default 10, add about text")
    for table in (USER, PROFILE, ENROLLMENT):  # json has no equality, so whole rows cannot be compared
        run(pupils, "alter table portal.{t} add extra json", t=table)
    before = versions(pupils)
    run(pupils, SILENT[statement])
    assert versions(pupils) == before
    assert faults(pupils) == []


def test_columns_may_come_and_go_between_the_statements_of_a_session(pupils: Db) -> None:
    for number, change in enumerate(
        ("add about text default 'x'", "drop about", "add gold integer", "add about json", "drop gold")
    ):
        run(pupils, "update portal.auth_user set first_name = 'A' || %s where id = 1", number)
        run(pupils, "update portal.auth_user set last_name = 'B' || %s", number)
        for table in ("auth_user", "auth_userprofile"):
            run(pupils, "alter table portal.{t} " + change, t=table)
        run(pupils, "update portal.auth_userprofile set name = 'C' || %s", number)
        assert faults(pupils) == []
    run(pupils, "update portal.auth_user set first_name = 'last' where id = 1")
    assert faults(pupils) == []


@pytest.mark.parametrize("when", ["before the course is made", "after"])
def test_columns_map_by_name_and_not_by_position(portal: Db, when: str) -> None:
    user_id = add_user(portal, "ada", first_name="Ada", last_name="Byron")
    enroll(portal, user_id, KEEP)
    readded: LiteralString = """
        alter table portal.auth_user drop first_name, add first_name varchar(150) not null default 'Augusta';
        alter table portal.auth_userprofile
            drop goals, drop location, add goals text, add location varchar(255) default 'Ockham'"""
    if when == "after":
        create(portal, KEEP)
        run(portal, readded)
        plant(portal, "update {c}.auth_user set first_name = 'Augusta'", c=schema(portal, KEEP))
        plant(portal, "update {c}.auth_userprofile set goals = null, location = 'Ockham'", c=schema(portal, KEEP))
    else:
        run(portal, readded)
        create(portal, KEEP)
    assert faults(portal) == []
    run(portal, "update portal.auth_user set first_name = 'A', last_name = 'B' where id = 1")
    run(portal, "update portal.auth_user set first_name = 'C', last_name = 'D'")
    run(portal, "update portal.auth_userprofile set goals = 'E', location = 'F'")
    enroll(portal, add_user(portal, "bob", first_name="Bob"), KEEP)
    assert faults(portal) == []


def test_a_column_that_a_course_dropped_and_added_again_is_filled_by_name(school: Db) -> None:
    enroll(school, add_user(school, "ada"), KEEP)
    name = schema(school, KEEP)
    run(school, "alter table {c}.auth_user drop email cascade, add email varchar(254)", c=name)
    enroll(school, add_user(school, "bob"), KEEP)
    run(school, "update portal.auth_user set last_name = 'Bar'")
    assert faults(school) == []


def test_usernames_swap_in_three_steps(pupils: Db) -> None:
    with pupils.transaction():
        run(pupils, "update portal.auth_user set username = 'x', email = 'x@edx.org' where id = 1")
        run(pupils, "update portal.auth_user set username = 'ada', email = 'ada@edx.org' where id = 2")
        run(pupils, "update portal.auth_user set username = 'bob', email = 'bob@edx.org' where id = 1")
    assert select(pupils, schema(pupils, REMOVE), USER, ["username", "email"]) == [
        ("bob", "bob@edx.org"),
        ("ada", "ada@edx.org"),
    ]
    assert faults(pupils) == []


def test_usernames_swap_in_one_update(pupils: Db) -> None:
    # the portal's own key must allow it for the length of a statement; the copies have no such key
    run(
        pupils,
        """alter table portal.auth_user drop constraint auth_user_username_key;
        alter table portal.auth_user add unique (username) deferrable;
        drop index portal.auth_user_username_lower_key""",
    )
    run(
        pupils,
        """update portal.auth_user set username = case id when 1 then 'bob' else 'ada' end where id in (1, 2)""",
    )
    assert select(pupils, schema(pupils, REMOVE), USER, ["username"]) == [("bob",), ("ada",)]
    assert faults(pupils) == []


def test_toasted_values_are_equal_byte_for_byte(pupils: Db) -> None:
    big = "".join(chr(33 + (i * 7919) % 90) for i in range(300_000)) + "é漢\U0001f600"
    run(pupils, "update portal.auth_userprofile set goals = %s, mailing_address = repeat('ab', 500000)", big)
    assert faults(pupils) == []
    run(pupils, "update portal.auth_userprofile set location = 'toast unchanged' where user_id = 1")
    run(pupils, "update portal.auth_userprofile set goals = goals || 'x' where user_id = 1")
    enroll(pupils, 4, KEEP)
    create(pupils, "edX/third")
    assert select(pupils, schema(pupils, KEEP), PROFILE, ["goals", "location"])[0] == (big + "x", "toast unchanged")
    assert faults(pupils) == []


HOSTILE_SETTINGS = {
    "DateStyle": "German, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "plan_cache_mode": "force_generic_plan",
    "search_path": "pg_temp, pg_catalog",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "row_security": "off",
    "plpgsql.variable_conflict": "error",
}


def test_settings_of_the_writer_change_no_meaning(db: Db, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as writer:
        for name, setting in HOSTILE_SETTINGS.items():
            run(writer, "select set_config(%s, %s, false)", name, setting)
        run(writer, "create temp table auth_user (id bigint); create temp table new_rows (id bigint, user_id bigint)")
        run(
            writer,
            """insert into portal.auth_user (username, last_login, date_joined, last_name)
            values ('ada', '01.02.2012 00:00', '2011-12-31 23:59:59.999999+12:45', E'caf\\u00e9')""",
        )
        run(writer, "insert into portal.auth_userprofile (user_id, goals) values (1, null)")
        create(writer, KEEP)
        create(writer, REMOVE, "remove")
        run(
            writer,
            "insert into portal.student_courseenrollment (user_id, course_id, created) values (1, %s, now())",
            KEEP,
        )
        run(writer, "insert into portal.student_courseenrollment (user_id, course_id) values (1, %s)", REMOVE)
        run(writer, "update portal.auth_user set last_login = '03.04.2012 05:06:07' where id = 1")
        run(writer, "update portal.auth_user set date_joined = date_joined + '1 month'")
        run(writer, "update portal.auth_userprofile set year_of_birth = 1985")
        assert (findings(writer), faults(db)) == ([], [])
        run(writer, "delete from portal.student_courseenrollment where course_id = %s", REMOVE)
        assert (findings(writer), faults(db)) == ([], [])
        plant(db, "update {c}.auth_user set last_login = last_login + '1 us'", c=schema(db, KEEP))
        assert run(writer, "select inserted, updated, deleted from rollbook.repair()") == [(0, 1, 0)]
    run(db, "select rollbook.drop_course(%s)", REMOVE)
    assert faults(db) == []
    assert [str(row[0]) for row in select(db, schema(db, KEEP), USER, ["last_login"])] == ["2012-04-02 23:21:07+00:00"]


def test_an_applications_own_role_routes_with_rights_on_the_portal_alone(live: Db, app: Db) -> None:
    user_id = add_user(app, "ada")
    enroll(app, user_id, KEEP, REMOVE, "edX/none/yet")
    with app.cursor() as cursor, cursor.copy("copy portal.auth_user (username) from stdin") as copy:
        copy.write_row(["bob"])
    enroll(app, 2, REMOVE, KEEP)
    run(app, "update portal.auth_user set first_name = 'A' where id = 1")
    run(app, "update portal.auth_user set last_name = 'B'")
    run(app, "update portal.auth_userprofile set goals = 'C'")
    run(app, "update portal.student_courseenrollment set created = null")
    run(app, "delete from portal.student_courseenrollment where user_id = 1 and course_id = %s", REMOVE)
    run(app, "delete from portal.auth_userprofile where user_id = 1")
    run(app, "delete from portal.auth_user where id = 2")
    assert faults(live) == []
    for query in (
        "select from rollbook.course",
        "select from {c}.auth_user",
        "select rollbook.verify()",
        "select rollbook.join_courses('{{1}}', '{{x}}')",
    ):
        fails(app, psycopg.errors.InsufficientPrivilege, query, c=schema(live, KEEP))
