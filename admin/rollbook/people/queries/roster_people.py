"""Persons of a OneRoster bundle in pg_temp.roster_user: which account is whose.

rollbook.roster_person remembers which account each sourcedId of a source has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# No e-mail address given: a new user has none, an existing one keeps it.
USERS_STAGED = r"""
insert into pg_temp.staged (line, username, email, first_name, last_name, name, is_active)
select
    r.line, r.username, coalesce(r.email, case when u.id is null then '\N' end), r.givenname, r.familyname,
    nullif(concat_ws(' ', r.givenname, r.middlename, r.familyname), ''),
    case when r.is_ended then 'false' else coalesce(r.enableduser, 'true') end
from pg_temp.roster_user as r
left join portal.auth_user as u on u.username = r.username
where not r.is_ended or u.id is not null
"""

# The check of users names our columns.
IN_FILE_COLUMNS = """
update pg_temp.problem
set file = 'users.csv', column_name = case column_name
    when 'is_active' then 'enabledUser' when 'first_name' then 'givenName' when 'last_name' then 'familyName'
    when 'name' then 'givenName' else column_name
end
where file is null
"""

# Every person of the bundle's file, and every one that is remembered for its source; user_id is null for those whose
# account is made later, or whose row is wrong.
PERSON_OF = """
create temporary table roster_person_of (sourcedid text primary key, user_id bigint) on commit drop
"""

KNOWN = """
insert into pg_temp.roster_person_of (sourcedid, user_id)
select distinct on (coalesce(r.sourcedid, k.sourced_id)) coalesce(r.sourcedid, k.sourced_id),
    coalesce(k.user_id, u.id)
from (select * from pg_temp.roster_user where sourcedid is not null) as r
left join portal.auth_user as u on u.username = r.username
full join (select * from rollbook.roster_person where source = %(source)s) as k on k.sourced_id = r.sourcedid
order by 1, r.line
"""

MADE = """
update pg_temp.roster_person_of as p set user_id = u.id
from pg_temp.roster_user as r inner join portal.auth_user as u on u.username = r.username
where p.sourcedid = r.sourcedid and p.user_id is null
"""

REMEMBER = """
insert into rollbook.roster_person (source, sourced_id, user_id)
select %(source)s, p.sourcedid, p.user_id from pg_temp.roster_person_of as p where p.user_id is not null
on conflict do nothing
"""


def stage_users(conn: Conn) -> None:
    """Put the users into pg_temp.staged, as an import of users has them."""
    conn.execute(USERS_STAGED)
    conn.execute("analyze pg_temp.staged")


def find_persons(conn: Conn, source: str) -> None:
    """Create pg_temp.roster_person_of; the problems of users name the columns of users.csv from here on."""
    conn.execute(IN_FILE_COLUMNS)
    conn.execute(PERSON_OF)
    conn.execute(KNOWN, {"source": source})
    conn.execute("analyze pg_temp.roster_person_of")


def remember(conn: Conn, source: str) -> None:
    """Fill in the accounts that were made, and remember whose they are."""
    conn.execute(MADE)
    conn.execute(REMEMBER, {"source": source})
