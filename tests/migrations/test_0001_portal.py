"""Revision 0001: the tables of the original in schema portal, and the rules that one row can decide.

The database is migrated to head, so these tests ask for what 0001 promises and allow later revisions to add to it.
"""

from typing import Any, LiteralString

import pytest
from psycopg import Connection, errors, sql

# Table -> its columns in order, as `name type [not null]`. Later revisions may append.
COLUMNS: dict[str, str] = {
    "auth_user": """
        id bigint not null
        username character varying(150) not null
        first_name character varying(150) not null
        last_name character varying(150) not null
        email character varying(254) not null
        password character varying(128) not null
        is_staff boolean not null
        is_active boolean not null
        is_superuser boolean not null
        last_login timestamp with time zone
        date_joined timestamp with time zone not null""",
    "auth_userprofile": """
        id bigint not null
        user_id bigint not null
        name character varying(255) not null
        meta text not null
        courseware character varying(255) not null
        language character varying(255) not null
        location character varying(255) not null
        year_of_birth integer
        gender character varying(6)
        level_of_education character varying(6)
        mailing_address text
        goals text""",
    "auth_registration": """
        id bigint not null
        user_id bigint not null
        activation_key character varying(32) not null""",
    "student_courseenrollment": """
        id bigint not null
        user_id bigint not null
        course_id character varying(255) not null
        created timestamp with time zone""",
    "student_courseenrollmentallowed": """
        id bigint not null
        email character varying(255) not null
        course_id character varying(255) not null
        created timestamp with time zone""",
    "student_usertestgroup": """
        id bigint not null
        name character varying(32) not null
        description text not null""",
    "student_usertestgroup_users": """
        id bigint not null
        usertestgroup_id bigint not null
        user_id bigint not null""",
    "student_pendingnamechange": """
        id bigint not null
        user_id bigint not null
        new_name character varying(255) not null
        rationale character varying(1024) not null""",
    "student_pendingemailchange": """
        id bigint not null
        user_id bigint not null
        new_email character varying(255) not null
        activation_key character varying(32) not null""",
    "student_testcenteruser": """
        id bigint not null
        user_id bigint not null
        created_at timestamp with time zone not null
        updated_at timestamp with time zone not null
        user_updated_at timestamp with time zone not null
        client_candidate_id character varying(50) not null
        first_name character varying(30) not null
        last_name character varying(50) not null
        middle_name character varying(30) not null
        suffix character varying(255) not null
        salutation character varying(50) not null
        address_1 character varying(40) not null
        address_2 character varying(40) not null
        address_3 character varying(40) not null
        city character varying(32) not null
        state character varying(20) not null
        postal_code character varying(16) not null
        country character varying(3) not null
        phone character varying(35) not null
        extension character varying(8) not null
        phone_country_code character varying(3) not null
        fax character varying(35) not null
        fax_country_code character varying(3) not null
        company_name character varying(50) not null
        uploaded_at timestamp with time zone
        processed_at timestamp with time zone
        upload_status character varying(20) not null
        upload_error_message character varying(512) not null
        candidate_id integer
        confirmed_at timestamp with time zone""",
    "student_testcenterregistration": """
        id bigint not null
        testcenter_user_id bigint not null
        course_id character varying(128) not null
        created_at timestamp with time zone not null
        updated_at timestamp with time zone not null
        user_updated_at timestamp with time zone not null
        client_authorization_id character varying(20) not null
        exam_series_code character varying(15) not null
        eligibility_appointment_date_first date not null
        eligibility_appointment_date_last date not null
        accommodation_code character varying(128) not null
        accommodation_request character varying(1024) not null
        uploaded_at timestamp with time zone
        processed_at timestamp with time zone
        upload_status character varying(20) not null
        upload_error_message character varying(512) not null
        authorization_id integer
        confirmed_at timestamp with time zone""",
}

# (table, column) -> the table that the column refers to.
FOREIGN_KEYS: dict[tuple[str, str], str] = {
    ("auth_userprofile", "user_id"): "auth_user",
    ("auth_registration", "user_id"): "auth_user",
    ("student_courseenrollment", "user_id"): "auth_user",
    ("student_usertestgroup_users", "usertestgroup_id"): "student_usertestgroup",
    ("student_usertestgroup_users", "user_id"): "auth_user",
    ("student_pendingnamechange", "user_id"): "auth_user",
    ("student_pendingemailchange", "user_id"): "auth_user",
    ("student_testcenteruser", "user_id"): "auth_user",
    ("student_testcenterregistration", "testcenter_user_id"): "student_testcenteruser",
}

# Table -> the fewest values that make a row, foreign keys aside; {n} tells rows apart. Parents come before children.
MINIMAL: dict[str, dict[str, str]] = {
    "auth_user": {"username": "user{n}"},
    "auth_userprofile": {},
    "auth_registration": {"activation_key": "activate{n}"},
    "student_courseenrollment": {"course_id": "edX/toy/{n}"},
    "student_courseenrollmentallowed": {"email": "guest{n}@example.org", "course_id": "edX/toy/{n}"},
    "student_usertestgroup": {"name": "group{n}"},
    "student_usertestgroup_users": {},
    "student_pendingnamechange": {},
    "student_pendingemailchange": {"activation_key": "confirm{n}"},
    "student_testcenteruser": {
        "client_candidate_id": "edX00000000000{n}",
        "first_name": "Ada",
        "last_name": "Byron",
        "address_1": "1 Main Street",
        "city": "Ulaanbaatar",
        "country": "MNG",
        "phone": "5550100",
        "phone_country_code": "976",
    },
    "student_testcenterregistration": {
        "course_id": "edX/toy/{n}",
        "client_authorization_id": "edXexam00000000000{n}",
        "exam_series_code": "mit6002xfall12a",
        "eligibility_appointment_date_first": "2012-12-15",
        "eligibility_appointment_date_last": "2012-12-30",
    },
}

# Table -> column -> what a minimal row holds there, as an SQL expression.
DEFAULTS: dict[str, dict[str, LiteralString]] = {
    "auth_user": {
        "first_name": "''",
        "last_name": "''",
        "email": "''",
        "password": "'!'",
        "is_staff": "false",
        "is_active": "true",
        "is_superuser": "false",
        "last_login": "null",
        "date_joined": "now()",
    },
    "auth_userprofile": {
        "name": "''",
        "meta": "''",
        "courseware": "'course.xml'",
        "language": "''",
        "location": "''",
        "year_of_birth": "null",
        "gender": "null",
        "level_of_education": "null",
        "mailing_address": "null",
        "goals": "null",
    },
    "student_courseenrollment": {"created": "now()"},
    "student_courseenrollmentallowed": {"created": "now()"},
    "student_usertestgroup": {"description": "''"},
    "student_pendingnamechange": {"new_name": "''", "rationale": "''"},
    "student_pendingemailchange": {"new_email": "''"},
    "student_testcenteruser": {
        "created_at": "now()",
        "updated_at": "now()",
        "user_updated_at": "now()",
        "middle_name": "''",
        "suffix": "''",
        "salutation": "''",
        "address_2": "''",
        "address_3": "''",
        "state": "''",
        "postal_code": "''",
        "extension": "''",
        "fax": "''",
        "fax_country_code": "''",
        "company_name": "''",
        "uploaded_at": "null",
        "processed_at": "null",
        "upload_status": "''",
        "upload_error_message": "''",
        "candidate_id": "null",
        "confirmed_at": "null",
    },
    "student_testcenterregistration": {
        "created_at": "now()",
        "updated_at": "now()",
        "user_updated_at": "now()",
        "accommodation_code": "''",
        "accommodation_request": "''",
        "uploaded_at": "null",
        "processed_at": "null",
        "upload_status": "''",
        "upload_error_message": "''",
        "authorization_id": "null",
        "confirmed_at": "null",
    },
}

# Constraint name -> (table, columns).
UNIQUE: dict[str, tuple[str, list[str]]] = {
    "auth_user_username_key": ("auth_user", ["username"]),
    "auth_userprofile_user_id_key": ("auth_userprofile", ["user_id"]),
    "auth_registration_user_id_key": ("auth_registration", ["user_id"]),
    "auth_registration_activation_key_key": ("auth_registration", ["activation_key"]),
    "student_courseenrollment_user_id_course_id_key": ("student_courseenrollment", ["user_id", "course_id"]),
    "student_courseenrollmentallowed_email_course_id_key": ("student_courseenrollmentallowed", ["email", "course_id"]),
    "student_usertestgroup_name_key": ("student_usertestgroup", ["name"]),
    "student_usertestgroup_users_usertestgroup_id_user_id_key": (
        "student_usertestgroup_users",
        ["usertestgroup_id", "user_id"],
    ),
    "student_pendingnamechange_user_id_key": ("student_pendingnamechange", ["user_id"]),
    "student_pendingemailchange_user_id_key": ("student_pendingemailchange", ["user_id"]),
    "student_pendingemailchange_activation_key_key": ("student_pendingemailchange", ["activation_key"]),
    "student_testcenteruser_user_id_key": ("student_testcenteruser", ["user_id"]),
    "student_testcenteruser_client_candidate_id_key": ("student_testcenteruser", ["client_candidate_id"]),
    "student_testcenterregistration_client_authorization_id_key": (
        "student_testcenterregistration",
        ["client_authorization_id"],
    ),
}

# Table -> columns that the original had indexed, and that no unique constraint leads.
INDEXED: dict[str, str] = {
    "auth_userprofile": "name language location year_of_birth gender level_of_education",
    "student_courseenrollment": "course_id created",
    "student_courseenrollmentallowed": "course_id created",
    "student_pendingemailchange": "new_email",
    # Those on the stamps and answers of the test centre are gone with 0005.
    "student_testcenteruser": "created_at first_name last_name city state "
    "postal_code country extension phone_country_code company_name",
    "student_testcenterregistration": "testcenter_user_id course_id created_at "
    "exam_series_code eligibility_appointment_date_first eligibility_appointment_date_last accommodation_request",
}

# Values that no row may hold: (constraint, table, column, value).
REFUSED: list[tuple[str, str, str, Any]] = [
    *(("auth_user_username_check", "auth_user", "username", bad) for bad in ["", " ", "a b", "a\tb", "ab\n", "a\x01b"]),
    *(
        (constraint, table, column, bad)
        for constraint, table, column in [
            ("auth_user_email_check", "auth_user", "email"),
            ("student_pendingemailchange_new_email_check", "student_pendingemailchange", "new_email"),
            ("student_courseenrollmentallowed_email_check", "student_courseenrollmentallowed", "email"),
        ]
        for bad in ["@", "a", "a@", "@b.org", "a@b@c.org", "a b@c.org", "a@b.org\n", "a@b\t.org", "a\x7f@b.org"]
    ),
    ("student_courseenrollmentallowed_email_check", "student_courseenrollmentallowed", "email", ""),
    *(("auth_userprofile_gender_check", "auth_userprofile", "gender", bad) for bad in ["x", "M", "male"]),
    *(
        ("auth_userprofile_level_of_education_check", "auth_userprofile", "level_of_education", bad)
        for bad in ["phd", "HS", "x"]
    ),
    *(
        ("auth_userprofile_meta_check", "auth_userprofile", "meta", bad)
        for bad in ["[]", "1", '"text"', "null", "true"]
    ),
    ("auth_registration_activation_key_check", "auth_registration", "activation_key", ""),
    ("student_pendingemailchange_activation_key_check", "student_pendingemailchange", "activation_key", ""),
    ("student_courseenrollment_course_id_check", "student_courseenrollment", "course_id", ""),
    ("student_courseenrollmentallowed_course_id_check", "student_courseenrollmentallowed", "course_id", ""),
    ("student_usertestgroup_name_check", "student_usertestgroup", "name", ""),
]

# Values near those, which a row may hold: (table, column, value).
ACCEPTED: list[tuple[str, str, Any]] = [
    *(("auth_user", "username", good) for good in ["x", "Ünï-ç_1", "o+brien", "名前"]),
    *(("auth_user", "email", good) for good in ["", "a@b", "jörg@exämple.org", "o'brien+x@example.org"]),
    *(("student_pendingemailchange", "new_email", good) for good in ["", "jörg@exämple.org"]),
    *(("auth_userprofile", "gender", good) for good in [None, "", "m", "f", "o"]),
    *(
        ("auth_userprofile", "level_of_education", good)
        for good in [None, "", "p_se", "p_oth", "m", "b", "hs", "jhs", "el", "none", "other"]
    ),
    *(("auth_userprofile", "year_of_birth", good) for good in [None, 1980]),
    *(("auth_userprofile", "meta", good) for good in ["", "{}", ' {"old_names": [["Ada", "", "2012"]]}\n']),
    ("student_testcenterregistration", "eligibility_appointment_date_last", "2012-12-15"),
    # 1024 characters that do not compress are too long for a btree entry.
    ("student_testcenterregistration", "accommodation_request", "".join(map(chr, range(0x10000, 0x10400)))),
]


def row_of(table: str, n: int, ids: dict[str, int]) -> dict[str, Any]:
    """Return the least row of `table`: the n-th, with the ids of its parents."""
    row: dict[str, Any] = {column: value.format(n=n) for column, value in MINIMAL[table].items()}
    return row | {column: ids[parent] for (child, column), parent in FOREIGN_KEYS.items() if child == table}


def insert(db: Connection[Any], table: str, row: dict[str, Any]) -> int:
    """Insert `row` into the portal's `table` and return its id."""
    statement = sql.SQL("insert into {} ({}) values ({}) returning id").format(
        sql.Identifier("portal", table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
    )
    return int(one(db.execute(statement, list(row.values())).fetchone()))


def one(row: tuple[Any, ...] | None) -> Any:
    """Return the only value of `row`."""
    assert row is not None
    return row[0]


def parents(db: Connection[Any], n: int) -> dict[str, int]:
    """Insert the n-th row of every table that others refer to; return the ids by table."""
    ids: dict[str, int] = {}
    for table in ("auth_user", "student_usertestgroup", "student_testcenteruser"):
        ids[table] = insert(db, table, row_of(table, n, ids))
    return ids


def family(db: Connection[Any], n: int) -> dict[str, int]:
    """Insert the n-th row of every table, all about one user; return the ids by table."""
    ids = parents(db, n)
    return ids | {table: insert(db, table, row_of(table, n, ids)) for table in MINIMAL if table not in ids}


def childless(db: Connection[Any], table: str, n: int) -> dict[str, int]:
    """Insert the parents that the n-th row of `table` needs, and nothing that would stand in its way."""
    ids = parents(db, n)
    if table in ids:
        db.execute(sql.SQL("delete from {} where id = %s").format(sql.Identifier("portal", table)), [ids.pop(table)])
    return ids


def exists(db: Connection[Any], table: str, row_id: int) -> bool:
    """Whether the portal's `table` has the row."""
    query = sql.SQL("select exists (select from {} where id = %s)").format(sql.Identifier("portal", table))
    return bool(one(db.execute(query, [row_id]).fetchone()))


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_have_the_original_order_type_and_nullability(db: Connection[Any], table: str) -> None:
    found = db.execute(
        """select concat_ws(' ', attname, format_type(atttypid, atttypmod), case when attnotnull then 'not null' end)
        from pg_attribute where attrelid = format('portal.%%I', %s::text)::regclass and attnum > 0
            and not attisdropped order by attnum""",
        [table],
    ).fetchall()
    expected = [line.strip() for line in COLUMNS[table].split("\n") if line.strip()]
    assert [column for (column,) in found][: len(expected)] == expected


@pytest.mark.parametrize("table", COLUMNS)
def test_id_is_an_identity_that_accepts_given_values_and_the_primary_key(db: Connection[Any], table: str) -> None:
    assert db.execute(
        """select a.attidentity::text, c.conname::text
        from pg_attribute a join pg_constraint c on c.conrelid = a.attrelid and c.contype = 'p'
            and c.conkey = array[a.attnum]
        where a.attrelid = format('portal.%%I', %s::text)::regclass and a.attname = 'id'""",
        [table],
    ).fetchall() == [("d", f"{table}_pkey")]


@pytest.mark.parametrize("table", DEFAULTS)
def test_a_row_of_required_values_gets_the_defaults(db: Connection[Any], table: str) -> None:
    row, defaults = row_of(table, 1, childless(db, table, 1)), DEFAULTS[table]
    # now() is the start of the transaction, so it is the same in the default and in what is returned
    statement = sql.SQL("insert into {} ({}) values ({}) returning {}").format(
        sql.Identifier("portal", table),
        sql.SQL(", ").join(map(sql.Identifier, row)) if row else sql.SQL(""),
        sql.SQL(", ").join(sql.Placeholder() * len(row)),
        sql.SQL(", ").join(
            sql.SQL("{} is not distinct from {}").format(sql.Identifier(column), sql.SQL(value))
            for column, value in defaults.items()
        ),
    )
    same = db.execute(statement, list(row.values())).fetchone()
    assert dict(zip(defaults, same or (), strict=True)) == dict.fromkeys(defaults, True)


def test_unique_constraints_stand_under_their_names(db: Connection[Any]) -> None:
    found = db.execute(
        """select conname::text, conrelid::regclass::text, array(
            select attname::text from unnest(conkey) with ordinality as key (attnum, position)
            join pg_attribute using (attnum) where attrelid = conrelid order by position)
        from pg_constraint where contype = 'u' and connamespace = 'portal'::regnamespace and not condeferrable"""
    ).fetchall()
    assert {name: (f"portal.{table}", columns) for name, (table, columns) in UNIQUE.items()}.items() <= {
        name: (table, columns) for name, table, columns in found
    }.items()


@pytest.mark.parametrize("name", UNIQUE)
def test_a_second_row_with_the_same_key_is_refused(db: Connection[Any], name: str) -> None:
    table, columns = UNIQUE[name]
    first = family(db, 1)
    taken = row_of(table, 1, first)
    with pytest.raises(errors.UniqueViolation) as refusal:
        insert(db, table, row_of(table, 2, childless(db, table, 2)) | {column: taken[column] for column in columns})
    assert refusal.value.diag.constraint_name == name


@pytest.mark.parametrize(
    ("name", "shared"), [(name, column) for name, (_, columns) in UNIQUE.items() if columns[1:] for column in columns]
)
def test_a_part_of_a_key_may_repeat(db: Connection[Any], name: str, shared: str) -> None:
    table, _ = UNIQUE[name]
    first = family(db, 1)
    insert(db, table, row_of(table, 2, parents(db, 2)) | {shared: row_of(table, 1, first)[shared]})


def test_email_is_unique_without_regard_to_case(db: Connection[Any]) -> None:
    insert(db, "auth_user", {"username": "ada", "email": "Ada@Example.org"})
    with pytest.raises(errors.UniqueViolation) as refusal:
        insert(db, "auth_user", {"username": "eve", "email": "aDA@eXAMPLE.ORG"})
    assert refusal.value.diag.constraint_name == "auth_user_email_key"


def test_any_number_of_users_may_have_no_email(db: Connection[Any]) -> None:
    assert insert(db, "auth_user", {"username": "ada", "email": ""}) != insert(
        db, "auth_user", {"username": "eve", "email": ""}
    )


def test_usernames_that_differ_in_case_are_the_same(db: Connection[Any]) -> None:
    insert(db, "auth_user", {"username": "ada"})
    with pytest.raises(errors.UniqueViolation):
        insert(db, "auth_user", {"username": "Ada"})


@pytest.mark.parametrize(("constraint", "table", "column", "bad"), REFUSED)
def test_bad_values_are_refused(db: Connection[Any], constraint: str, table: str, column: str, bad: Any) -> None:
    row = row_of(table, 1, childless(db, table, 1)) | {column: bad}
    if column == "username":  # the trigger speaks first, where it is not switched off
        db.execute("set session_replication_role = replica")
    with pytest.raises(errors.CheckViolation) as refusal:
        insert(db, table, row)
    assert refusal.value.diag.constraint_name == constraint


@pytest.mark.parametrize("bad", ["text", "{", "{'a': 1}", "{} {}", " "])
def test_meta_that_is_no_json_is_refused(db: Connection[Any], bad: str) -> None:
    row = row_of("auth_userprofile", 1, parents(db, 1)) | {"meta": bad}
    with pytest.raises(errors.InvalidTextRepresentation):
        insert(db, "auth_userprofile", row)


@pytest.mark.parametrize(("table", "column", "good"), ACCEPTED)
def test_good_values_are_stored_as_given(db: Connection[Any], table: str, column: str, good: Any) -> None:
    row_id = insert(db, table, row_of(table, 1, childless(db, table, 1)) | {column: good})
    query = sql.SQL("select {column} is not distinct from %s from {table} where id = %s").format(
        column=sql.Identifier(column), table=sql.Identifier("portal", table)
    )
    assert one(db.execute(query, [good, row_id]).fetchone())


def test_deleting_a_user_deletes_their_rows_and_no_others(db: Connection[Any]) -> None:
    leaver, stayer = family(db, 1), family(db, 2)
    db.execute("delete from portal.auth_user where id = %s", [leaver["auth_user"]])
    # a group and a permission for an address are nobody's
    assert {table for table in leaver if exists(db, table, leaver[table])} == {
        "student_usertestgroup",
        "student_courseenrollmentallowed",
    }
    assert [table for table in stayer if not exists(db, table, stayer[table])] == []


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("student_usertestgroup", "student_usertestgroup_users"),
        ("student_testcenteruser", "student_testcenterregistration"),
    ],
)
def test_deleting_a_parent_deletes_its_children_and_leaves_the_user(
    db: Connection[Any], parent: str, child: str
) -> None:
    ids = family(db, 1)
    db.execute(sql.SQL("delete from {} where id = %s").format(sql.Identifier("portal", parent)), [ids[parent]])
    assert {table for table in ids if not exists(db, table, ids[table])} == {parent, child}


@pytest.mark.parametrize(("table", "column"), FOREIGN_KEYS)
def test_a_row_without_its_parent_is_refused_at_once(db: Connection[Any], table: str, column: str) -> None:
    row = row_of(table, 1, childless(db, table, 1)) | {column: 0}
    with db.transaction(force_rollback=True), pytest.raises(errors.ForeignKeyViolation) as refusal:
        insert(db, table, row)
    assert refusal.value.diag.constraint_name == f"{table}_{column}_fkey"


@pytest.mark.parametrize("table", INDEXED)
def test_columns_that_the_original_indexed_lead_an_index(db: Connection[Any], table: str) -> None:
    found = db.execute(
        """select attname::text from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = format('portal.%%I', %s::text)::regclass and indisvalid""",
        [table],
    ).fetchall()
    assert set(INDEXED[table].split()) - {column for (column,) in found} == set()


def test_foreign_keys_cascade_and_cannot_be_deferred(db: Connection[Any]) -> None:
    found = db.execute(
        """select conrelid::regclass::text, attname::text, confrelid::regclass::text, confdeltype::text, condeferrable
        from pg_constraint join pg_attribute on attrelid = conrelid and attnum = conkey[1]
        where contype = 'f' and connamespace = 'portal'::regnamespace"""
    ).fetchall()
    assert {
        (f"portal.{table}", column, f"portal.{parent}", "c", False) for (table, column), parent in FOREIGN_KEYS.items()
    } <= set(found)


def test_every_foreign_key_column_leads_a_whole_index(db: Connection[Any]) -> None:
    assert (
        db.execute(
            """select conrelid::regclass::text, attname::text
            from pg_constraint cross join unnest(conkey) as key (attnum)
            join pg_attribute a on a.attrelid = conrelid and a.attnum = key.attnum
            where contype = 'f' and connamespace = 'portal'::regnamespace and not exists (
                select from pg_index where indrelid = conrelid and indkey[0] = key.attnum and indisvalid
                    and indpred is null)"""
        ).fetchall()
        == []
    )


def test_no_index_repeats_what_a_unique_one_serves(db: Connection[Any]) -> None:
    assert (
        db.execute(
            """select a.indexrelid::regclass::text, b.indexrelid::regclass::text
            from pg_index a join pg_index b on b.indrelid = a.indrelid and b.indexrelid <> a.indexrelid
            where a.indrelid in (select oid from pg_class where relnamespace = 'portal'::regnamespace)
                and a.indkey[0] = b.indkey[0] and a.indnkeyatts = 1 and not a.indisunique and b.indisunique
                and num_nulls(a.indpred, b.indpred, a.indexprs, b.indexprs) = 4"""
        ).fetchall()
        == []
    )


def test_the_schema_and_every_table_and_column_of_it_has_a_comment(db: Connection[Any]) -> None:
    assert (
        db.execute(
            """select nspname::text from pg_namespace
            where nspname = 'portal' and obj_description(oid, 'pg_namespace') is null
            union all
            select oid::regclass::text from pg_class
            where relnamespace = 'portal'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
                and obj_description(oid, 'pg_class') is null
            union all
            select attrelid::regclass::text || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
            where relnamespace = 'portal'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f')
                and attnum > 0 and not attisdropped and col_description(attrelid, attnum) is null"""
        ).fetchall()
        == []
    )
