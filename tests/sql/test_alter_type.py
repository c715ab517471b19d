"""A site changes the types of its own columns, as Django's AlterField does; nothing of Rollbook's is in the way.

Views read by rollbook.account, enrollments and user_with_email.
"""

from __future__ import annotations

from psycopg import sql

from tests.sql.helpers import (
    COLUMNS,
    KEEP,
    PROFILE,
    USER,
    Db,
    add_user,
    create,
    enroll,
    faults,
    refused,
    run,
    schema,
    select,
    value,
)


def test_columns_of_copied_tables_change_their_type_and_copies_follow_by_the_printed_fix(live: Db) -> None:
    enroll(live, add_user(live, "ada"), KEEP)
    for table, columns in COLUMNS.items():
        for column in columns:
            if (table, column) in {(USER, "id"), (PROFILE, "year_of_birth")}:  # conditions of triggers name them
                continue
            kind = value(
                live,
                "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass "
                "and attname = %s",
                f"portal.{table}", column,
            )  # fmt: skip
            where = sql.Identifier("portal", table)
            live.execute(
                sql.SQL("alter table {} alter {} type {}").format(where, sql.Identifier(column), sql.SQL(kind))
            )
    run(live, "alter table portal.auth_user alter column email type varchar(300)")
    run(live, "alter table portal.student_courseenrollment alter column course_id type varchar(400)")
    run(live, "update portal.auth_user set email = 'ada@new.org'")
    assert select(live, schema(live, KEEP), USER, ["email"]) == [("ada@new.org",)]

    # A value that the portal takes and the copy cannot hold: refused by the course's name, until the copies are wider.
    longer = "update portal.auth_user set email = repeat('x', 280) || '@new.org'"
    refusal = refused(live, "RB020", longer)
    assert KEEP in str(refusal.message_primary)
    assert "rollbook schema check" in str(refusal.message_hint)
    for (fix,) in run(live, "select fix from rollbook.foreign_objects() where kind = 'copy'"):
        live.execute(fix)
    run(live, longer)
    assert faults(live) == []
    assert create(live, "edX/new") == "course_edx_new"

    # The triggers' conditions work.
    refused(live, "23R02", "update portal.auth_user set id = id + 1")
    refused(
        live,
        "23R15",
        "insert into portal.auth_userprofile (user_id, year_of_birth) select id, 1066 from portal.auth_user",
    )
