"""sql/functions/shape/copied_tables.sql: the tables with a whitelist, parents before the rows that refer to them."""

from __future__ import annotations

import pytest

from tests.sql.helpers import COLUMNS, ENROLLMENT, PROFILE, TABLES, USER, Db, run


def test_the_copied_tables_are_the_contracts_in_their_order(portal: Db) -> None:
    assert run(portal, "select table_name, user_column, ordinal from rollbook.copied_tables()") == [
        (USER, "id", 1),
        (PROFILE, "user_id", 2),
        (ENROLLMENT, "user_id", 3),
    ]


@pytest.mark.made
def test_each_has_a_whitelist_with_its_user_column_and_no_other_table_has_one(portal: Db) -> None:
    listed = run(
        portal,
        """select c.relname::text, rollbook.replicated_columns(c.relname), t.user_column
        from pg_class as c left join rollbook.copied_tables() as t on t.table_name = c.relname
        where c.relnamespace = 'portal'::regnamespace and c.relkind = 'r'
            and (t.table_name is not null or rollbook.replicated_columns(c.relname) is not null)""",
    )
    assert {table: columns for table, columns, _ in listed} == COLUMNS
    assert all(user_column in COLUMNS[table] for table, _, user_column in listed)


@pytest.mark.made
def test_a_table_comes_after_those_that_it_refers_to(portal: Db) -> None:
    references = run(
        portal,
        """select k.conrelid::regclass::text, k.confrelid::regclass::text from pg_constraint as k
        where k.contype = 'f' and k.conrelid = any (
            select format('portal.%I', t.table_name)::regclass from rollbook.copied_tables() as t)""",
    )
    order = [f"portal.{table}" for table in TABLES]
    assert references
    assert all(order.index(parent) < order.index(child) for child, parent in references)
