"""sql/functions/api/create_course.sql: any ID makes a course with a schema of its own; all or nothing.

Also tests the functions that it calls: register_course, choose_schema_name, fill_course, copy_statements, due_rows,
column_list, course_type, lock_portal.
"""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.sql.helpers import (
    COURSES,
    ENROLLMENT,
    KEEP,
    REMOVE,
    TABLES,
    USER,
    Db,
    add_user,
    create,
    enroll,
    everybody,
    faults,
    findings,
    held,
    leave,
    plant,
    refused,
    run,
    schema,
    select,
    value,
    versions,
)

# Ids -> the schema where the contract says which; an id of foreign letters alone leaves the name to Rollbook.
IDS: dict[str, str | None] = {
    "MITx/6.002x/2012_Fall": "course_mitx_6_002x_2012_fall",
    "edX//toy--2013": "course_edx_toy_2013",
    "edX/toy/2012_Fall": "course_edx_toy_2012_fall",
    "a": "course_a",
    "__Under__score__": "course_under_score",
    "  blank  ": "course_blank",
    "it's": "course_it_s",
    'double "quoted"': "course_double_quoted",
    "'; drop schema portal cascade; --": "course_drop_schema_portal_cascade",
    '"; drop schema portal cascade; --': "course_drop_schema_portal_cascade",
    "$$ || pg_sleep(9) || $$": "course_pg_sleep_9",
    "%s %I %% {0} \\ \\' \t\n": "course_s_i_0",
    "HARVARD/CS50/UPPER": "course_harvard_cs50_upper",
    "Économie/É101": "course_conomie_101",
    "Kelvin \u212a, dotless ı, İstanbul": "course_kelvin_dotless_stanbul",
    "漢字/課程": None,
    "漢字/課程/2": "course_2",
    "\U0001f600": None,
    "-": None,
    "x" * 255: "course_" + "x" * 56,
    "x" * 55 + "/y": "course_" + "x" * 55,
    "null": "course_null",
    "Default": "course_default",
    "course_edx": "course_course_edx",
    "pg_catalog": "course_pg_catalog",
}


def test_a_course_of_any_id_is_made_routed_verified_repaired_and_dropped(portal: Db) -> None:
    create(portal, "neighbour")
    ada, bob, cy = (add_user(portal, name) for name in ("ada", "bob", "cy"))
    enroll(portal, ada, "neighbour")
    for course, wanted in IDS.items():
        with portal.transaction(force_rollback=True):
            enroll(portal, ada, course)
            name = create(portal, course)
            assert name == (wanted or name), course
            assert re.fullmatch("course_[a-z0-9]+(_[a-z0-9]+)*", name), course
            assert len(name) <= 63, course
            assert value(portal, "select rollbook.course_schema(%s)", course) == schema(portal, course) == name
            enroll(portal, bob, course)
            enroll(portal, cy, course)
            leave(portal, cy, course)
            run(portal, "update portal.auth_user set first_name = 'New' where id = %s", ada)
            assert faults(portal) == [], course
            assert held(portal, course) == ([ada, bob, cy], [ada, bob, cy], [ada, bob]), course
            plant(portal, "update {c}.auth_user set first_name = 'Old' where id = %s", ada, c=name)
            assert findings(portal, course) == [(USER, "changed", ada, ["first_name"])], course
            assert run(portal, "select * from rollbook.repair(%s)", course) == [(course, USER, 0, 1, 0)]
            refused(portal, "23R01", "delete from {c}.auth_user", c=name)
            run(portal, "delete from portal.auth_user where id = %s", bob)
            run(portal, "select rollbook.drop_course(%s)", course)
            schemas = run(portal, "select nspname::text from pg_namespace where nspname ~ '^course_'")
            assert schemas == [("course_neighbour",)], course
            run(portal, "update portal.auth_user set first_name = 'Newer'")
            assert faults(portal) == [], course
            assert value(portal, "select count(*) from portal.student_courseenrollment") == 2, course


def test_ids_that_collide_get_schemas_of_their_own(portal: Db) -> None:
    ids = ["a/b", "A_B", "a--b", "/a/b/", "漢字", "課程", "-", "x" * 255, "x" * 254 + "y", "x" * 56, "a b 2", "a/b/2"]
    add_user(portal, "ada")
    enroll(portal, 1, *ids[::2])
    names = [create(portal, course, "keep" if n % 3 else "remove") for n, course in enumerate(ids)]
    assert len(set(names)) == len(ids)
    assert [name for name in names if not re.fullmatch("course_[a-z0-9]+(_[a-z0-9]+)*", name) or len(name) > 63] == []
    assert [held(portal, course) for course in ids] == [
        everybody(*([1] if n % 2 == 0 else [])) for n in range(len(ids))
    ]
    enroll(portal, 1, *ids[1::2])
    run(portal, "update portal.auth_user set first_name = 'New' where id = 1")
    assert [held(portal, course) for course in ids] == [everybody(1)] * len(ids)
    assert faults(portal) == []
    # a name that is free again may be used again, and leads to nobody else's copies
    run(portal, "select rollbook.drop_course(%s)", ids[0])
    leave(portal, 1, ids[0])
    assert create(portal, "a.b") == names[0]
    assert (held(portal, "a.b"), faults(portal)) == (everybody(), [])


def test_a_foreign_schema_of_the_wanted_name_is_never_taken_over(portal: Db) -> None:
    run(
        portal,
        """create schema course_a_b; create table course_a_b.auth_user (id bigint); create schema course_a_b_2;
        create schema "course_C" """,
    )
    assert create(portal, "a/b") == "course_a_b_3"
    assert create(portal, "C") == "course_c"
    run(portal, "select rollbook.drop_course('a/b')")
    assert value(portal, "select count(*) from course_a_b.auth_user") == 0
    assert create(portal, "a/b") == "course_a_b_3"
    # nor one that appears where a course's schema was
    run(portal, "drop schema course_c cascade")
    assert create(portal, "c") not in ("course_c", "course_C")


REFUSED = {
    "null": (None, "keep", "RB003"),
    "empty": ("", "keep", "RB003"),
    "blank": (" \t\n", "keep", "RB003"),
    "too long": ("x" * 256, "keep", "RB003"),
    "default": ("default", "keep", "RB003"),
    "no policy": ("edX/new", None, "RB003"),
    "empty policy": ("edX/new", "", "RB003"),
    "garbage policy": ("edX/new", "forget", "RB003"),
    "policy in capitals": ("edX/new", "KEEP", "RB003"),
    "exists": (KEEP, "keep", "RB005"),
    "exists, other policy": (REMOVE, "keep", "RB005"),
}


def test_what_is_no_course_is_refused_and_leaves_nothing(school: Db) -> None:
    enroll(school, add_user(school, "ada"), KEEP, REMOVE)
    before = versions(school)
    schemas = run(school, "select nspname from pg_namespace order by 1")
    for course, on_leave, code in REFUSED.values():
        refused(school, code, "select rollbook.create_course(%s, %s)", course, on_leave)
    assert run(school, "select nspname from pg_namespace order by 1") == schemas
    assert dict(run(school, "select course_id, on_leave from rollbook.course")) == COURSES
    assert versions(school) == before
    assert faults(school) == []


def test_the_policy_is_keep_unless_told_and_parameters_have_names(portal: Db) -> None:
    run(portal, "select rollbook.create_course('edX/new')")
    run(portal, "select rollbook.create_course(on_leave => 'remove', course_id => 'edX/other')")
    assert run(portal, "select course_id, schema_name, on_leave from rollbook.course order by 1") == [
        ("edX/new", "course_edx_new", "keep"),
        ("edX/other", "course_edx_other", "remove"),
    ]
    run(portal, "select rollbook.drop_course(drop_local => true, course_id => 'edX/new')")
    assert value(portal, "select rollbook.course_schema(course_id => 'edX/other')") == "course_edx_other"


def test_copies_have_the_portals_ids_as_keys_and_nothing_that_could_block(school: Db) -> None:
    name = schema(school, KEEP)
    for table in TABLES:
        assert run(
            school,
            """select contype::text, array(select attname::text from pg_attribute where attrelid = conrelid
                and attnum = any (conkey)) from pg_constraint
            where conrelid = format('%%I.%%I', %s::text, %s::text)::regclass and contype <> 'n'""",
            name,
            table,
        ) == [("p", ["id"])]
        assert (
            run(
                school,
                """select a.attname::text, pg_get_expr(d.adbin, d.adrelid) from pg_attribute a
                left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                where a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and a.attnum > 0
                    and (d.oid is not null or a.attidentity <> '')""",
                name,
                table,
            )
            == []
        )
        assert (
            value(
                school,
                "select count(*) from pg_index where indisunique and indrelid = (%s::text)::regclass",
                f"{name}.{table}",
            )
            == 1
        )
    assert (
        value(school, "select count(*) from pg_class where relkind = 'S' and relnamespace = %s::regnamespace", name)
        == 0
    )


def test_a_course_is_made_whole_or_not_at_all(live: Db, dsn: str) -> None:
    for user in ("ada", "bob"):
        enroll(live, add_user(live, user), "edX/new")
    with live.transaction(force_rollback=True):
        create(live, "edX/new")
        assert held(live, "edX/new") == everybody(1, 2)
    with psycopg.connect(dsn) as killed:  # in the middle of its transaction
        create(killed, "edX/new")
        run(live, "select pg_terminate_backend(%s, 10000)", killed.info.backend_pid)
        killed.close()
    assert value(live, "select count(*) from pg_namespace where nspname = 'course_edx_new'") == 0
    run(live, "update portal.auth_user set first_name = 'New'")
    assert create(live, "edX/new") == "course_edx_new"
    assert held(live, "edX/new") == everybody(1, 2)
    assert faults(live) == []


def test_a_course_of_nobody_and_one_of_many_are_filled(portal: Db) -> None:
    run(
        portal,
        """insert into portal.auth_user (username) select 'u' || i from generate_series(1, 3000) i;
        insert into portal.auth_userprofile (user_id) select id from portal.auth_user where id % 3 > 0;
        insert into portal.student_courseenrollment (user_id, course_id)
        select id, 'edX/many' from portal.auth_user where id % 2 = 0""",
    )
    create(portal, "edX/none")
    create(portal, "edX/many")
    assert held(portal, "edX/none") == everybody()
    assert [len(ids) for ids in held(portal, "edX/many")] == [1500, 1000, 1500]
    run(portal, "update portal.auth_user set first_name = 'New'")
    assert faults(portal) == []


def test_the_schema_and_its_tables_are_the_owners_and_say_what_they_are(school: Db) -> None:
    assert run(
        school,
        """select nspname::text, nspowner::regrole::text, obj_description(oid, 'pg_namespace') <> ''
        from pg_namespace where nspname ~ '^course_' order by 1 desc""",
    ) == [(schema(school, course), "rollbook_owner", True) for course in (KEEP, REMOVE)]
    assert (
        value(
            school,
            """select count(*) from pg_class
            where relnamespace in (select oid from pg_namespace where nspname ~ '^course_')
                and relkind = 'r' and relowner = 'rollbook_owner'::regrole
                and obj_description(oid, 'pg_class') <> ''""",
        )
        == len(TABLES) * 2
    )


@pytest.mark.parametrize(
    ("setting", "to"), [("standard_conforming_strings", "off"), ("quote_all_identifiers", "on"), ("search_path", "")]
)
def test_settings_of_the_session_change_no_refusal_and_no_name(db: Db, setting: str, to: str) -> None:
    if setting == "standard_conforming_strings":
        run(db, "set escape_string_warning = off")
    run(db, "select set_config(%s, %s, false)", setting, to)
    assert create(db, "edX/toy") == "course_edx_toy"
    refused(db, "RB003", "select rollbook.create_course('  ')")
    enroll(db, add_user(db, "ada"), "edX/toy")
    run(db, "update portal.auth_user set first_name = 'New'")
    assert faults(db) == []
    assert len(select(db, "course_edx_toy", ENROLLMENT, ["id"])) == 1


def test_a_dba_who_is_no_superuser_makes_and_drops_courses(live: Db, dsn: str) -> None:
    run(
        live,
        """do $$ begin create role dba login; exception when duplicate_object then null; end $$;
        do $$ begin execute format('grant create on database %I to dba', current_database()); end $$;
        grant rollbook_owner to dba; grant usage on schema rollbook to dba;
        grant execute on all functions in schema rollbook to dba""",
    )
    enroll(live, add_user(live, "ada"), "edX/new")
    try:
        with psycopg.connect(dsn, user="dba", autocommit=True) as dba:
            assert create(dba, "edX/new") == "course_edx_new"
            assert held(live, "edX/new") == everybody(1)
            assert (findings(dba), run(dba, "select * from rollbook.repair()")) == ([], [])
            refused(dba, "23R01", "delete from course_edx_new.auth_user")
            run(dba, "select rollbook.drop_course('edX/new')")
    finally:
        run(live, "revoke rollbook_owner from dba")  # roles are the cluster's, and other tests look who may act for it
    assert faults(live) == []
