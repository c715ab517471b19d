"""What `schema check` finds where other tables than the portal's are copied: a live site's, with owners of its own.

Two of the shapes have tables with names as in the portal: real_table tells them apart, portal_table takes the copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from rollbook.core import shape as shapes
from tests.conftest import Cluster
from tests.school import Rollbook, database
from tests.system.test_schema_check import check, follow

pytestmark = pytest.mark.slow  # databases of their own

TABLES = Path(__file__).parents[1] / "shapes"
# Beside tests/shapes/moodle.sql, as docs/shape.md makes it.
MEMBERS = """
create table if not exists mdl_course_member (id bigserial primary key, userid bigint not null,
    courseid bigint not null, status bigint not null, timecreated bigint not null default 0)
"""
# What a live site has: tables of a role of its own, rights of its application, a trigger, a rule for its readers.
SITE = """
do $$ declare name text; begin
    foreach name in array '{ot_site,ot_app,ot_nosy}'::text[] loop
        execute format('create role %I', name);
    end loop;
exception when duplicate_object then null; end $$;
grant all on schema public to ot_site, ot_nosy;
set role ot_site;
"""
OWN = """
grant all on all tables in schema public to ot_app with grant option;
grant all on all sequences in schema public to ot_app;
create function own_trigger() returns trigger language plpgsql as $$ begin return coalesce(new, old); end $$;
create function may_see(bigint) returns boolean language plpgsql as $$ begin return true; end $$;
create trigger own before insert or update on {membership} for each row execute function own_trigger();
create policy own on {membership} to ot_app using (may_see({key}));
reset role;
set role ot_nosy;
create function nosy(bigint) returns boolean language plpgsql as $$ begin return true; end $$;
reset role;
"""
# What is done, the object of the finding, and a part of the difference.
DAMAGES = [
    ("drop trigger rollbook_route_user_update on {person}", "rollbook_route_user_update on {person}", "missing"),
    ("alter table {membership} disable trigger rollbook_route_truncate", "rollbook_route_truncate on {membership}",
     "disabled"),
    ("create or replace trigger rollbook_route_enrollment_insert after insert on {membership} referencing new table as "
     "new_rows for each statement when (false) execute function rollbook.route_enrollment_insert()",
     "rollbook_route_enrollment_insert on {membership}", "not the one shipped"),
    ("revoke select on {person} from rollbook_owner", "rollbook_owner", "lacks SELECT on {person}"),
    ("revoke usage on schema public from public, rollbook_owner", "rollbook_owner", "lacks USAGE on schema public"),
    ("alter table {membership} enable row level security; drop policy rollbook_reads on {membership}", "{membership}",
     "no policy shows every row to rollbook_owner"),
    ("create policy few on {person} as restrictive for select using ({person_key} > 5 or {person_key} < 3)",
     "few on {person}", "hides rows from Rollbook"),
    ("create table part () inherits ({membership})", "{membership}", "part inherits from it"),
    ("create policy by_nosy on {membership} using (nosy({key}))", "by_nosy on {membership}", "ot_nosy owns"),
]  # fmt: skip


@pytest.fixture(params=["django", "moodle", "open_edx"])
def name(request: pytest.FixtureRequest) -> str:
    """The name of a shape that ships."""
    return str(request.param)


@pytest.fixture
def site(cluster: Cluster, name: str, rollbook: Rollbook) -> Iterator[str]:
    """A live site of that shape, its tables copied to one course; its conninfo."""
    shape = shapes.load(shapes.SHAPES / f"{name}.toml")
    membership = shape.tables[-1]
    with database(cluster, f"other_{name}", "template0") as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(SITE)
            conn.execute((TABLES / f"{name}.sql").read_bytes())
            if name == "moodle":
                conn.execute(MEMBERS)
            conn.execute(OWN.format(membership=membership.relation, key=membership.key).encode())
        path = shapes.SHAPES / f"{name}.toml"
        assert rollbook("schema", "upgrade", "--shape", str(path), dsn=dsn).code == 0
        assert rollbook("course", "create", "42", dsn=dsn).code == 0
        yield dsn


def test_damage_to_a_sites_tables_is_found_and_its_fix_works(site: str, name: str, rollbook: Rollbook) -> None:
    assert check(site) == []
    shape = shapes.load(shapes.SHAPES / f"{name}.toml")
    assert rollbook("course", "list", "--json", dsn=site).column("without") == [list(shape.without.get("default", ()))]
    person, membership = shape.tables[0], shape.tables[-1]
    words = {
        "person": person.relation, "membership": membership.relation, "key": membership.key, "person_key": person.key,
    }  # fmt: skip
    with psycopg.connect(site, autocommit=True) as conn:
        for statements, *_ in DAMAGES:
            conn.execute(statements.format(**words).encode())
    found = check(site)
    for statements, thing, difference in DAMAGES:
        objects = [each.object for each in found if difference.format(**words) in each.difference]
        assert thing.format(**words) in objects, (statements, found)
    for fix in dict.fromkeys(each.fix for each in found):
        assert fix is not None
        follow(fix, site, partial(rollbook, dsn=site))
    assert check(site) == []
