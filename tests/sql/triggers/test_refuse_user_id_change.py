"""sql/triggers/refuse_user_id_change.sql: a user's id never changes."""

from __future__ import annotations

from typing import LiteralString

import pytest

from tests.sql.helpers import KEEP, Db, add_user, enroll, faults, held, leave, refused, run, versions


@pytest.fixture
def pupils(school: Db) -> Db:
    """User 1 in a course, user 2 in none and without a profile, user 3 who left and has no profile."""
    enroll(school, add_user(school, "ada"), KEEP)
    add_user(school, "bob", profile=False)
    enroll(school, add_user(school, "cy", profile=False), KEEP)
    leave(school, 3, KEEP)
    return school


STATEMENTS: list[LiteralString] = [
    "update portal.auth_user set id = 10 where id = 1",
    "update portal.auth_user set id = 10 where id = 2",
    "update portal.auth_user set id = id + 1000",
    "insert into portal.auth_user (username) values ('bob') on conflict (username) do update set id = excluded.id",
    "merge into portal.auth_user u using (values (2)) s (id) on s.id = u.id when matched then update set id = 10",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_change_of_a_users_id_is_refused(pupils: Db, statement: LiteralString) -> None:
    before = versions(pupils)
    refused(pupils, "23R02", statement)
    assert versions(pupils) == before


def test_an_update_that_keeps_the_id_is_not_refused(pupils: Db) -> None:
    run(pupils, "update portal.auth_user set id = id, first_name = 'New'")
    assert faults(pupils) == []
    assert held(pupils, KEEP) == ([1, 3], [1], [1])


def test_a_trigger_of_the_application_does_not_change_it_either(pupils: Db) -> None:
    run(
        pupils,
        """create function public.renumber() returns trigger language plpgsql as $$
        begin new.id := 1000; return new; end $$;
        create trigger zz_renumber before update on portal.auth_user for each row execute function public.renumber()""",
    )
    refused(pupils, "23R02", "update portal.auth_user set first_name = 'New' where id = 3")
    assert faults(pupils) == []
