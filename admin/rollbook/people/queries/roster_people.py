"""Persons of a OneRoster bundle in pg_temp.roster_user: which account is whose.

rollbook.roster_person remembers which account each sourcedId of a source has. An account belongs to a bundle if it is
remembered, or if the e-mail address agrees and it is neither staff nor superuser; a bundle never changes staff.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core.rows import one, typed
from rollbook.core.users import User

if TYPE_CHECKING:
    from rollbook.core.db import Conn

# Who may be concerned is locked, so that nobody becomes staff, is renamed or is deleted before the end.
LOCK = """
select u.id from portal.auth_user as u
where u.id in (
        select p.user_id from rollbook.roster_person as p
        where p.source = %(source)s
            and (%(is_bulk)s or p.sourced_id in (select r.sourcedid from pg_temp.roster_user as r))
        union all
        select n.id from portal.auth_user as n inner join pg_temp.roster_user as r on r.username = n.username
        union all
        select e.id from portal.auth_user as e inner join pg_temp.roster_user as r on lower(r.email) = lower(e.email)
        where e.email <> ''
    )
order by u.id for no key update
"""

# The accounts that each row may be of: the remembered one, the one of its username, the one of its address. `partner`
# is the line of a living row of the same person, for a row that is inactive or to be deleted.
ACCOUNTS = """
create temporary table roster_account on commit drop as
select
    r.line, r.sourcedid, r.username, r.email,
    not r.is_ended as is_living,
    not r.is_ended and coalesce(lower(btrim(r.enableduser)), 'true') in ('true', 't', 'yes', '1') as is_enabled,
    coalesce(p.is_enabled, false) as was_enabled,
    p.user_id as linked_id, n.id as name_id, e.id as email_id,
    null::integer as partner, null::bigint as user_id, null::text as origin, null::text as kept
from (
    select distinct on (sourcedid) * from pg_temp.roster_user where sourcedid is not null order by sourcedid, line
) as r
left join rollbook.roster_person as p on p.source = %(source)s and p.sourced_id = r.sourcedid
left join portal.auth_user as n on n.username = r.username
left join portal.auth_user as e on lower(e.email) = lower(r.email) and e.email <> ''
"""

# What a living row is remembered for is not another row's, by name or address.
CLAIMED = """
update pg_temp.roster_account as a
set name_id = case when n.line is null then a.name_id end, email_id = case when e.line is null then a.email_id end
from pg_temp.roster_account as b
left join pg_temp.roster_account as n on n.linked_id = b.name_id and n.is_living
left join pg_temp.roster_account as e on e.linked_id = b.email_id and e.is_living
where b.line = a.line and a.linked_id is null and (n.line is not null or e.line is not null)
"""

PARTNERS = """
update pg_temp.roster_account as a set partner = f.partner
from (
    select line, min(partner) as partner
    from (
        select d.line, l.line as partner
        from pg_temp.roster_account as d
        inner join pg_temp.roster_account as l on lower(l.email) = lower(d.email)
        where l.is_living and not d.is_living
        union all
        select d.line, l.line
        from pg_temp.roster_account as d inner join pg_temp.roster_account as l on l.username = d.username
        where l.is_living and not d.is_living and (l.email is null or d.email is null)
    ) as same
    group by line
) as f
where f.line = a.line and a.linked_id is null
"""

# A username alone is not enough, but for that of a person of this source whose other row is not living.
RESOLVE = """
update pg_temp.roster_account as a
set origin = f.origin, user_id = case f.origin when 'linked' then b.linked_id when 'email' then b.email_id
    when 'created' then b.name_id end
from pg_temp.roster_account as b
left join portal.auth_user as n on n.id = b.name_id
left join portal.auth_user as e on e.id = b.email_id
cross join lateral (
    select case
        when b.linked_id is not null then 'linked'
        when b.partner is not null then null
        when e.id is not null and coalesce(n.id = e.id, true) and not (e.is_staff or e.is_superuser) then 'email'
        when n.id is not null and e.id is null and not (n.is_staff or n.is_superuser)
            and (b.email is null or n.email = '') and exists (
                select from pg_temp.roster_account as d where d.linked_id = n.id and not d.is_living
            )
            then 'created'
    end as origin
) as f
where b.line = a.line and f.origin is not null
"""

UNREADABLE = """
insert into pg_temp.problem (line, column_name, value, reason)
select line, 'sourcedId', sourcedid, 'a sourcedId has no control characters'
from pg_temp.roster_user where sourcedid ~ '[[:cntrl:]]'
"""

STRANGERS = """
insert into pg_temp.problem (line, column_name, value, reason)
select
    a.line, case when n.id is null then 'email' else 'username' end,
    case when n.id is null then a.email else a.username end,
    case
        when n.id <> e.id
            then format('%%s belongs to id:%%s, and the e-mail address to id:%%s', n.username, n.id, e.id)
        when n.id is null or n.id = e.id
            then format(
                '%%s is staff or a superuser, and not linked to this bundle', coalesce(n.username, e.username)
            )
        else n.username || ' belongs to ' || coalesce(
            (
                select 'the person ' || min(p.sourced_id) || ' of this source' from rollbook.roster_person as p
                where p.source = %(source)s and p.user_id = n.id
            ),
            'somebody who is not of this bundle'
        )
    end || format(
        '; if it is the same person: rollbook user link id:%%s %%s', coalesce(n.id, e.id),
        rollbook.shell_quote(a.sourcedid)
    ) || case when %(source)s <> 'default' then ' --source ' || rollbook.shell_quote(%(source)s) else '' end
from pg_temp.roster_account as a
left join portal.auth_user as n on n.id = a.name_id
left join portal.auth_user as e on e.id = a.email_id
where a.user_id is null and a.partner is null and (n.id is not null or e.id is not null)
"""

NOT_NEW = """
insert into pg_temp.problem (line, column_name, value, reason)
select a.line, 'username', a.username, format('this person has an account: %%s (id:%%s)', u.username, u.id)
from pg_temp.roster_account as a inner join portal.auth_user as u on u.id = a.user_id
where %(mode)s = 'create'
"""

# Accounts that an operator merged or linked twice: of the living rows that are remembered for one account, the row that
# has its username counts, or else its address, or else the first.
TWINS = """
update pg_temp.roster_account as a set kept = format('the same account as on line %s', f.counts)
from (
    select
        b.line, first_value(b.line) over (
            partition by u.id
            order by lower(b.username) is distinct from lower(u.username),
                lower(b.email) is distinct from lower(u.email), b.line
        ) as counts
    from pg_temp.roster_account as b inner join portal.auth_user as u on u.id = b.linked_id
    where b.is_living and b.linked_id in (
            select d.linked_id from pg_temp.roster_account as d where d.is_living
            group by d.linked_id having count(*) > 1
        )
) as f
where f.line = a.line and f.counts <> a.line
    and not exists (select from pg_temp.problem as p where p.line = a.line and p.file is null)
"""

# Rows that change no account, and why.
KEPT = """
update pg_temp.roster_account as a set kept = f.kept
from pg_temp.roster_account as b
left join portal.auth_user as u on u.id = b.user_id
left join (
    select user_id, min(line) filter (where is_living) as living, min(line) as first
    from pg_temp.roster_account where user_id is not null group by user_id
) as s on s.user_id = b.user_id
left join lateral (
    select p.source from rollbook.roster_person as p
    where p.user_id = b.user_id and p.source <> %(source)s and p.is_living limit 1
) as o on not b.is_living
cross join lateral (
    select case
        when u.is_staff or u.is_superuser then u.username || ' is staff or a superuser: a bundle does not change it'
        when b.is_living then null
        when coalesce(b.partner, s.living) is not null
            then format('the same person as on line %%s', coalesce(b.partner, s.living))
        when b.line > s.first then format('the same person as on line %%s', s.first)
        when b.user_id is null then 'no account'
        when o.source is not null then format('stays: source %%s has this person too', o.source)
    end as kept
) as f
where b.line = a.line and f.kept is not null
    and not exists (select from pg_temp.problem as p where p.line = a.line and p.file is null)
"""

# No e-mail address given: a new user has none, an existing one keeps it. The address of a row that is already wrong is
# not judged. A row that has no account of its own is new. Who was enabled before was blocked by somebody else since.
USERS_STAGED = r"""
insert into pg_temp.staged (line, id, username, email, first_name, last_name, name, is_active)
select
    r.line, coalesce(a.user_id::text, '\N'), r.username,
    case when w.line is null then coalesce(r.email, case when a.user_id is null then '\N' end) else '\N' end,
    r.givenname, r.familyname, nullif(concat_ws(' ', r.givenname, r.middlename, r.familyname), ''),
    case
        when not a.is_living then 'false'
        when not (a.is_enabled and a.was_enabled and a.user_id is not null) then coalesce(r.enableduser, 'true')
    end
from pg_temp.roster_user as r
left join pg_temp.roster_account as a on a.line = r.line
left join (select distinct line from pg_temp.problem where column_name in ('username', 'email') and file is null) as w
    on w.line = r.line
where a.kept is null
"""

# The check of users names our columns.
IN_FILE_COLUMNS = """
update pg_temp.problem as p
set file = 'users.csv',
    column_name = case column_name
        when 'is_active' then 'enabledUser' when 'first_name' then 'givenName' when 'last_name' then 'familyName'
        when 'name' then 'givenName' when 'id' then 'sourcedId' else column_name
    end,
    value = case column_name
        when 'id' then (select r.sourcedid from pg_temp.roster_user as r where r.line = p.line) else value
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
select a.sourcedid, a.user_id from pg_temp.roster_account as a
union all
select p.sourced_id, p.user_id from rollbook.roster_person as p
where p.source = %(source)s and not exists (select from pg_temp.roster_account as a where a.sourcedid = p.sourced_id)
"""

MADE = """
update pg_temp.roster_person_of as p set user_id = d.user_id
from pg_temp.roster_account as a inner join pg_temp.done as d on d.line = coalesce(a.partner, a.line)
where p.sourcedid = a.sourcedid and p.user_id is null
"""

# A partner that is kept as it is, such as staff.
MADE_BY_PARTNER = """
update pg_temp.roster_person_of as p set user_id = l.user_id
from pg_temp.roster_account as a inner join pg_temp.roster_account as l on l.line = a.partner
where p.sourcedid = a.sourcedid and p.user_id is null
"""

REMEMBER = """
insert into rollbook.roster_person as k (source, sourced_id, user_id, origin, is_living, is_enabled)
select %(source)s, a.sourcedid, p.user_id, coalesce(a.origin, 'created'), a.is_living, a.is_enabled
from pg_temp.roster_account as a inner join pg_temp.roster_person_of as p on p.sourcedid = a.sourcedid
where p.user_id is not null
    and not exists (select from pg_temp.problem as w where w.line = a.line and w.file = 'users.csv')
on conflict (source, sourced_id) do update
set is_living = excluded.is_living, is_enabled = excluded.is_enabled
where row(k.is_living, k.is_enabled) <> row(excluded.is_living, excluded.is_enabled)
"""

# A wrong row may mean the account of its username or its address.
NOT_MEANT = sql.SQL("""
    and lower(u.username) not in (
        select lower(btrim(r.username)) from pg_temp.roster_user as r
        inner join pg_temp.problem as w on w.file = 'users.csv' and w.line = r.line
        where r.username is not null
    )
    and lower(u.email) not in (
        select lower(btrim(r.email)) from pg_temp.roster_user as r
        inner join pg_temp.problem as w on w.file = 'users.csv' and w.line = r.line
        where r.email is not null
    )
""")

FORGOTTEN = sql.SQL("""
update rollbook.roster_person as p set is_living = false, is_enabled = false
from portal.auth_user as u
where u.id = p.user_id and p.source = %(source)s and (p.is_living or p.is_enabled)
    and not exists (select from pg_temp.roster_user as r where r.sourcedid = p.sourced_id){not_meant}
""").format(not_meant=NOT_MEANT)

LINKED = """
update pg_temp.outcome as o
set outcome = case o.outcome when 'unchanged' then 'changed' else o.outcome end,
    detail = concat_ws('; ', case a.origin
        when 'email' then 'linked by e-mail address' else 'linked by username, which this source had' end, o.detail)
from pg_temp.roster_account as a
where a.line = o.line and o.file = 'users.csv' and a.linked_id is null and a.origin is not null
"""

STAY_BLOCKED = """
update pg_temp.outcome as o set detail = concat_ws('; ', o.detail, 'stays blocked: the bundle did not block it')
from pg_temp.roster_account as a inner join portal.auth_user as u on u.id = a.user_id
where a.line = o.line and o.file = 'users.csv' and a.kept is null and a.is_enabled and a.was_enabled
    and not u.is_active
"""

KEPT_ROWS = """
with kept as (
    insert into pg_temp.staged (line, username)
    select a.line, coalesce(u.username, a.username)
    from pg_temp.roster_account as a left join portal.auth_user as u on u.id = a.user_id
    where a.kept is not null
        and not exists (select from pg_temp.problem as p where p.line = a.line and p.file = 'users.csv')
    returning line
)
insert into pg_temp.outcome (line, outcome, detail, file)
select a.line, 'unchanged', a.kept, 'users.csv'
from kept as k inner join pg_temp.roster_account as a on a.line = k.line
"""

# Remembered and active, and no longer in the file, under none of their sourcedIds.
GONE = sql.SQL("""
select distinct on (u.id)
    u.id, u.username, p.sourced_id, u.is_staff or u.is_superuser as is_staff,
    (
        select min(o.source) from rollbook.roster_person as o
        where o.user_id = u.id and o.source <> p.source and o.is_living
    ) as elsewhere
from rollbook.roster_person as p inner join portal.auth_user as u on u.id = p.user_id
where p.source = %(source)s and u.is_active
    and not exists (select from pg_temp.roster_user as r where r.sourcedid = p.sourced_id)
    and not exists (select from pg_temp.roster_account as a where a.user_id = u.id){not_meant}
order by u.id, p.sourced_id
""").format(not_meant=NOT_MEANT)

PRESENT = """
select count(distinct u.id) as n
from rollbook.roster_person as p inner join portal.auth_user as u on u.id = p.user_id
where p.source = %s and u.is_active
"""

# After the check, as rows of the file that it does not have: their lines are below zero.
DEACTIVATED = """
with gone as (
    insert into pg_temp.staged (line, id, username, is_active)
    select -u.id, u.id::text, u.username, 'false' from portal.auth_user as u where u.id = any(%s)
    returning line, id
)
insert into pg_temp.target (line, user_id, username, email)
select g.line, u.id, u.username, u.email from gone as g inner join portal.auth_user as u on u.id = g.id::bigint
"""

DEACTIVATED_DONE = """
update pg_temp.outcome set outcome = 'deactivated', detail = 'not in users.csv any more'
where file = 'users.csv' and line < 0
"""

GONE_ROWS = """
with gone as (
    insert into pg_temp.staged (line, username)
    select -g.id, g.username from unnest(%s::bigint[], %s::text[]) as g (id, username)
    returning line
)
insert into pg_temp.outcome (line, outcome, detail, file)
select -g.id, 'gone', g.detail, 'users.csv' from unnest(%s::bigint[], %s::text[]) as g (id, detail)
"""

LINKED_USER = """
select u.id, u.username, u.email
from rollbook.roster_person as p inner join portal.auth_user as u on u.id = p.user_id
where p.source = %s and p.sourced_id = %s
"""

ADD_LINK = "insert into rollbook.roster_person (source, sourced_id, user_id, origin) values (%s, %s, %s, 'linked')"

REMOVE_LINK = "delete from rollbook.roster_person where source = %s and sourced_id = %s and user_id = %s"


@dataclass(frozen=True)
class Gone:
    """An active account of a source whose person is not in a bulk users.csv any more."""

    id: int
    username: str
    sourced_id: str
    is_staff: bool
    elsewhere: str | None  # another source that has this person

    @property
    def may_be_deactivated(self) -> bool:
        """Return whether a bundle may block the account."""
        return not self.is_staff and self.elsewhere is None

    @property
    def detail(self) -> str:
        """Return the sentence of the answer."""
        if self.is_staff:
            return "not in users.csv any more; staff or a superuser, whom a bundle does not change"
        if self.elsewhere is not None:
            return f"not in users.csv any more; source {self.elsewhere} has this person too"
        return "not in users.csv any more; stays active: --deactivate-missing blocks the account"


def stage(conn: Conn, source: str, mode: str, *, is_bulk: bool) -> None:
    """Decide whose account each row of users.csv is of, lock these, and put the users into pg_temp.staged.

    Whose account it cannot be is recorded in pg_temp.problem. `is_bulk`: persons that the file lacks are gone.
    """
    where = {"source": source, "mode": mode, "is_bulk": is_bulk}
    conn.execute(LOCK, where)
    conn.execute(ACCOUNTS, where)
    conn.execute("analyze pg_temp.roster_account")
    conn.execute(CLAIMED)
    conn.execute(PARTNERS)
    conn.execute(RESOLVE)
    conn.execute(UNREADABLE)
    conn.execute(STRANGERS, where)
    conn.execute(NOT_NEW, where)
    conn.execute(TWINS)
    conn.execute(KEPT, where)
    conn.execute(USERS_STAGED)
    conn.execute("analyze pg_temp.staged")


def find_persons(conn: Conn, source: str) -> None:
    """Create pg_temp.roster_person_of; the problems of users name the columns of users.csv from here on."""
    conn.execute(IN_FILE_COLUMNS)
    conn.execute(PERSON_OF)
    conn.execute(KNOWN, {"source": source})
    conn.execute("analyze pg_temp.roster_person_of")


def remember(conn: Conn, source: str, *, is_bulk: bool) -> None:
    """Fill in the accounts that were made, remember whose they are, and record the outcome of what stays as it is."""
    conn.execute(MADE)
    conn.execute(MADE_BY_PARTNER)
    conn.execute(LINKED)
    conn.execute(STAY_BLOCKED)
    conn.execute(KEPT_ROWS)
    conn.execute(REMEMBER, {"source": source})
    if is_bulk:
        conn.execute(FORGOTTEN, {"source": source})


def gone(conn: Conn, source: str) -> list[Gone]:
    """Return the active accounts whose persons are not in a bulk users.csv any more, by id."""
    return typed(Gone, conn, GONE, {"source": source})


def present(conn: Conn, source: str) -> int:
    """Return the number of active accounts of a source."""
    found: int = one(conn, PRESENT, [source])["n"]
    return found


def stage_deactivations(conn: Conn, accounts: list[Gone]) -> None:
    """Add rows to pg_temp.staged and pg_temp.target that block these accounts."""
    conn.execute(DEACTIVATED, [[each.id for each in accounts]])


def record_gone(conn: Conn, stays: list[Gone]) -> None:
    """Record the outcome of the accounts that were deactivated, and of those that are gone and stay active."""
    conn.execute(DEACTIVATED_DONE)
    ids = [each.id for each in stays]
    conn.execute(GONE_ROWS, [ids, [each.username for each in stays], ids, [each.detail for each in stays]])


def linked_user(conn: Conn, source: str, sourced_id: str) -> User | None:
    """Return the user that a person of a source is linked to."""
    row = conn.execute(LINKED_USER, [source, sourced_id]).fetchone()
    return None if row is None else User(id=row["id"], username=row["username"], email=row["email"])


def add_link(conn: Conn, source: str, sourced_id: str, user_id: int) -> None:
    """Remember that an operator linked a person to a user."""
    conn.execute(ADD_LINK, [source, sourced_id, user_id])


def remove_link(conn: Conn, source: str, sourced_id: str, user_id: int) -> bool:
    """Remove a link; return whether there was one."""
    return conn.execute(REMOVE_LINK, [source, sourced_id, user_id]).rowcount > 0
