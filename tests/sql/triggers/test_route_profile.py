"""sql/triggers/route_profile_{insert,update,delete}.sql: a profile is current wherever its user is.

Tests route_profile_insert, route_profile_update, route_profile_delete, and settle_profiles, which they share.
"""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import (
    COLUMNS,
    KEEP,
    PROFILE,
    REMOVE,
    Db,
    add_user,
    enroll,
    faults,
    held,
    leave,
    run,
    schema,
    select,
    versions,
)


@pytest.fixture
def pupils(school: Db) -> Db:
    """Users 1 and 2 in both courses, 3 in the keep course, 4 in none; 5, in both, has no profile; 6 has left both."""
    for name, courses in (("ada", [KEEP, REMOVE]), ("bob", [REMOVE, KEEP]), ("cy", [KEEP]), ("di", [])):
        enroll(school, add_user(school, name), *courses)
    enroll(school, add_user(school, "eve", profile=False), KEEP, REMOVE)
    enroll(school, add_user(school, "fay"), KEEP, REMOVE)
    leave(school, 6, KEEP)
    leave(school, 6, REMOVE)
    return school


# Profiles are 5001 to 5004 for users 1 to 4, and 5005 for user 6. Each statement changes some.
STATEMENTS: dict[str, LiteralString] = {
    "update of one": "update portal.auth_userprofile set goals = 'New' where user_id = 1",
    "update of many": "update portal.auth_userprofile set goals = 'New' || user_id",
    "update of all columns": """update portal.auth_userprofile set (name, meta, courseware, language, location,
        year_of_birth, gender, level_of_education, mailing_address, goals) =
        ('Żółć', '{"old_names": []}', '', 'mn', 'Ulaanbaatar', 1989, 'o', 'p_oth', E'1\\n2', '')""",
    "update to nulls": "update portal.auth_userprofile set goals = null, gender = null, year_of_birth = null",
    "late arrival": "insert into portal.auth_userprofile (user_id, name) values (5, 'Eve Foo')",
    "insert for all": """insert into portal.auth_userprofile (user_id, name)
        select id, 'New' from portal.auth_user on conflict do nothing""",
    "upsert": """insert into portal.auth_userprofile (user_id, name) select id, 'New' from portal.auth_user
        on conflict (user_id) do update set name = excluded.name""",
    "upsert to another id": """
        insert into portal.auth_userprofile (user_id, name) select id, 'New' from portal.auth_user
        on conflict (user_id) do update set id = excluded.id""",
    "merge": """merge into portal.auth_userprofile p using portal.auth_user u on u.id = p.user_id
        when matched and u.id = 1 then delete when matched then update set name = u.username
        when not matched then insert (user_id, name) values (u.id, 'New')""",
    "delete of one": "delete from portal.auth_userprofile where user_id = 1",
    "delete of all": "delete from portal.auth_userprofile",
    "to another id": "update portal.auth_userprofile set id = id + 1000",
    # the portal's own key must allow it for the length of a statement
    "to the id of another": """alter table portal.auth_userprofile drop constraint auth_userprofile_pkey;
        alter table portal.auth_userprofile add primary key (id) deferrable;
        update portal.auth_userprofile set id = 5001 + id % 5""",
    "to a user in both courses": "update portal.auth_userprofile set user_id = 5 where user_id = 3",
    "from a user in both courses": """delete from portal.auth_userprofile where user_id = 4;
        update portal.auth_userprofile set user_id = 4 where user_id = 1""",
    "to a user in fewer courses": """delete from portal.auth_userprofile where user_id = 3;
        update portal.auth_userprofile set user_id = 3 where user_id = 1""",
    "to a user who left": """delete from portal.auth_userprofile where user_id = 6;
        update portal.auth_userprofile set user_id = 6 where user_id = 1""",
    "to another user and id": "update portal.auth_userprofile set user_id = 5, id = 7000 where user_id = 1",
    "of some moved, of others changed": """update portal.auth_userprofile
        set user_id = case user_id when 1 then 5 else user_id end, name = name || 'x'""",
    "delete and insert the same": """with gone as (delete from portal.auth_userprofile returning *)
        insert into portal.auth_userprofile select * from gone""",
    "delete and insert again": """with gone as (delete from portal.auth_userprofile returning *)
        insert into portal.auth_userprofile (user_id, name) select user_id, name from gone""",
    "delete and insert for another user": """
        with gone as (delete from portal.auth_userprofile where user_id = 1 returning *)
        insert into portal.auth_userprofile (id, user_id, name) select id, 5, name from gone""",
    "delete and insert for a user in fewer courses": """delete from portal.auth_userprofile where user_id = 3;
        with gone as (delete from portal.auth_userprofile where user_id = 1 returning *)
        insert into portal.auth_userprofile (id, user_id, name) select id, 3, name from gone""",
    "delete and insert for a user in none": """delete from portal.auth_userprofile where user_id = 4;
        with gone as (delete from portal.auth_userprofile where user_id = 1 returning *)
        insert into portal.auth_userprofile (id, user_id, name) select id, 4, name from gone""",
    "insert, and enrolled at once": """delete from portal.auth_userprofile where user_id = 4;
        with joined as (insert into portal.student_courseenrollment (user_id, course_id)
            select 4, course_id from rollbook.course)
        insert into portal.auth_userprofile (user_id, name) values (4, 'New')""",
    "insert, and left at once": """with ended as (delete from portal.student_courseenrollment where user_id = 5)
        insert into portal.auth_userprofile (user_id, name) values (5, 'New')""",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_profile_follows_by_any_statement(pupils: Db, statement: str) -> None:
    before = select(pupils, "portal", PROFILE, COLUMNS[PROFILE])
    assert faults(pupils) == []
    run(pupils, STATEMENTS[statement])
    assert (select(pupils, "portal", PROFILE, COLUMNS[PROFILE]) != before) == (
        statement != "delete and insert the same"
    )
    assert faults(pupils) == []
    owners = {row[1] for row in select(pupils, "portal", PROFILE, COLUMNS[PROFILE])}
    for course in (KEEP, REMOVE):  # wherever the user is, also one who left a keep course
        assert set(held(pupils, course)[1]) == owners & set(held(pupils, course)[0])


def test_a_change_writes_that_profiles_copies_alone(pupils: Db) -> None:
    before = versions(pupils)
    run(pupils, "update portal.auth_userprofile set goals = 'New' where user_id in (1, 3, 4)")
    assert {key for key, version in versions(pupils).items() if before[key] != version} == {
        (KEEP, PROFILE, 5001),
        (REMOVE, PROFILE, 5001),
        (KEEP, PROFILE, 5003),
    }


@pytest.mark.parametrize("where", ["where user_id = 1", "", "where false", "where user_id = 4"])
def test_an_update_of_no_value_writes_no_copy(pupils: Db, where: LiteralString) -> None:
    run(pupils, "alter table portal.auth_userprofile add note text")
    before = versions(pupils)
    run(pupils, "update portal.auth_userprofile set name = name, note = 'x', goals = goals " + where)
    assert versions(pupils) == before


@pytest.mark.parametrize("profile_first", [True, False])
def test_a_profile_may_come_before_or_after_the_enrollment(school: Db, profile_first: bool) -> None:
    user_id = add_user(school, "patty", profile=profile_first)
    enroll(school, user_id, KEEP, REMOVE)
    if not profile_first:
        assert held(school, KEEP) == held(school, REMOVE) == ([user_id], [], [user_id])
        run(school, "insert into portal.auth_userprofile (user_id, name) values (%s, 'Patty Foo')", user_id)
    assert held(school, KEEP) == held(school, REMOVE) == ([user_id], [user_id], [user_id])
    assert faults(school) == []


LOCAL: dict[str, LiteralString] = {
    "changed": "update portal.auth_userprofile set goals = 'New'",
    "moved to another user of the course": "update portal.auth_userprofile set user_id = 5 where user_id = 1",
    "upserted": """insert into portal.auth_userprofile (user_id, name) values (1, 'xx')
        on conflict (user_id) do update set name = excluded.name""",
    "deleted and inserted in one statement": """with gone as (delete from portal.auth_userprofile returning *)
        insert into portal.auth_userprofile select * from gone""",
}


@pytest.mark.parametrize("change", LOCAL)
def test_what_a_course_wrote_beside_a_profile_stays(pupils: Db, change: str) -> None:
    name = schema(pupils, KEEP)
    run(pupils, "alter table {c}.auth_userprofile add mentor text default 'nobody'", c=name)
    run(pupils, "update {c}.auth_userprofile set mentor = 'm' || id", c=name)
    run(pupils, LOCAL[change])
    assert select(pupils, name, PROFILE, ["id", "mentor"]) == [(i, f"m{i}") for i in (5001, 5002, 5003, 5005)]
    assert faults(pupils) == []
