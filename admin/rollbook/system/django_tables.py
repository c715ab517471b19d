"""What `rollbook schema django` runs: Django's own tables beside auth_user, and the rights of the site's login."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.core.errors import RefusedError
from rollbook.core.migrating import MIGRATIONS
from rollbook.core.rows import one

if TYPE_CHECKING:
    from rollbook.core.db import Conn

OTHER_SITE = """
select o.oid::regclass::text as name
from (values (to_regclass('public.auth_user'))) as o (oid)
where o.oid <> rollbook.portal_table('auth_user')
"""

# Every table that the role that runs this makes in the schema later, so by `migrate`, is the site's to write.
RIGHTS = sql.SQL("""
grant rollbook_application to {role};
do $$
declare
    place constant text := (
        select c.relnamespace::regnamespace::text from pg_class as c where c.oid = rollbook.portal_table('auth_user')
    );
    site_table regclass;
begin
    perform set_config('search_path', place || ', portal, public, pg_temp', true);
    execute format('grant usage on schema %s to %I', place, {name});
    foreach site_table in array array[
        'django_migrations', 'django_content_type', 'auth_permission', 'auth_group', 'auth_group_permissions',
        'auth_user_groups', 'auth_user_user_permissions'
    ]::regclass[] loop
        execute format('grant select, insert, update, delete on %s to %I', site_table, {name});
    end loop;
    execute format('alter default privileges in schema %s grant select, insert, update, delete on tables to %I',
                   place, {name});
end $$;
""")


def script(role: str | None) -> str:
    """Return the SQL, with the rights of the login `role` if there is one."""
    text = (MIGRATIONS / "tables" / "django.sql").read_text()
    return text + (RIGHTS.format(role=sql.Identifier(role), name=sql.Literal(role)).as_string() if role else "")


def make_tables(conn: Conn, role: str | None) -> str:
    """Make what is missing; return the schema. Raises RefusedError beside another user table, and for no such role."""
    if found := conn.execute(OTHER_SITE).fetchone():
        raise RefusedError(
            f"{found['name']} is the user table of a Django site that Rollbook does not replicate",
            why="with search_path=portal,public its groups and permissions would be taken for the portal's",
            fix="rollbook schema adopt, in a database without a portal; or give the portal a database of its own",
        )
    if role and not conn.execute("select 1 from pg_roles where rolname = %s", [role]).fetchone():
        created = sql.SQL("create role {} login").format(sql.Identifier(role)).as_string()
        raise RefusedError(f"there is no role {role}", fix=f"in psql: {created};")
    conn.execute(script(role).encode())
    place: LiteralString = """
        select relnamespace::regnamespace::text as name from pg_class where oid = rollbook.portal_table('auth_user')"""
    return str(one(conn, place)["name"])
