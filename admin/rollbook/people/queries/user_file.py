"""Users in bulk: what is wrong with the rows of pg_temp.staged, and making and changing accounts from the others.

pg_temp.target has the user of each staged row that exists already. Every rule of the tables is checked before it would
be violated; imports take turns, so that no other import comes between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from rollbook.core import importing as bulk
from rollbook.people.fields import FILE_FIELDS, PROFILE_FIELDS, USER_FIELDS, Field, names
from rollbook.people.queries.field_sql import each
from rollbook.people.secret import HASH, MISFITS, WIDTH

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

COLUMNS = ("id", "username", "email", *names(FILE_FIELDS), "is_active", "password_hash")
PROFILE = tuple(field for field in PROFILE_FIELDS if field in FILE_FIELDS)
CHOSEN = tuple(field for field in FILE_FIELDS if field.choices)
SIZED = tuple(field for field in FILE_FIELDS if field.width is not None)

# As the tables store them; what is there already in another form is found as it is.
NORMAL_USERNAMES = """
update pg_temp.staged as s set username = rollbook.normal_username(s.username)
where octet_length(s.username) > length(s.username)
    and not exists (select from portal.auth_user as u where u.username = s.username)
"""
NORMAL_NAMES = """
update pg_temp.staged as s
set name = rollbook.normal_name(s.name), first_name = rollbook.normal_name(s.first_name),
    last_name = rollbook.normal_name(s.last_name)
where concat_ws('-', s.first_name, s.name, s.last_name) !~ '^[!-~][ -~]*[!-~]$' or s.name ~ '^ | $'
"""

# Whose rows are written is locked in the order of ids, as everybody does, so that what is found stays so.
LOCK = """
select u.id from portal.auth_user as u
where u.username in (select s.username from pg_temp.staged as s where s.id is null) order by u.id for no key update
"""
LOCK_WITH_IDS = """
select u.id from portal.auth_user as u
where u.id in (
        select n.id from portal.auth_user as n
        inner join pg_temp.staged as s on s.username = n.username where s.id is null
        union all
        select case when s.id ~ '^[0-9]{1,18}$' then s.id::bigint end from pg_temp.staged as s where s.id is not null
    )
order by u.id for no key update
"""

# A row names its user by id, or else by username; the id \N is that of a new user, who may take a username that another
# row gives up. In a file of new users an id is a fault, and names nobody.
TARGET = """
create temporary table target on commit drop as
select s.line, u.id as user_id, u.username, u.email, p.name
from (
    select b.line, v.id
    from pg_temp.staged as b inner join portal.auth_user as v on v.username = b.username
    where b.id is null or %(mode)s = 'create'
    union all
    select b.line, case when b.id ~ '^[0-9]{1,18}$' then b.id::bigint end
    from pg_temp.staged as b where b.id is not null and %(mode)s <> 'create'
) as s
inner join portal.auth_user as u on u.id = s.id
left join portal.auth_userprofile as p on p.user_id = u.id
"""

# Who is named by id alone keeps the username.
KEPT_USERNAMES = """
update pg_temp.staged as s set username = t.username
from pg_temp.target as t where t.line = s.line and s.username is null
"""

# What is there already is not judged again.
KEPT_EMAILS = "and not exists (select from pg_temp.target as t where t.line = s.line and t.email = s.email)"


def choices_of(field: Field) -> sql.Composed:
    """Return the values that a field may have, as a list in SQL."""
    return sql.SQL(", ").join(map(sql.Literal, field.choices))


# The rules of the tables. Rows of the wrong form were found before. Most rows are plain, which a cheap test sees: it
# may take a right row for a wrong one, never the other way round.
WRONG_VALUES = sql.SQL(r"""
insert into pg_temp.problem (line, column_name, value, reason)
select s.line, f.name, f.value, f.reason
from pg_temp.staged as s
left join pg_temp.target as t on t.line = s.line
cross join lateral (
    values
    ('id', s.id, case
        when s.id is null or s.id = '\N' then null
        when %(mode)s = 'create'
            then 'the database gives ids; leave it blank, or change users with --mode update'
        when s.id !~ '^[0-9]{{1,18}}$' then 'an id is a whole number'
        when t.line is null then 'there is no user with this id'
    end),
    ('username', s.username, case
        when s.username is null and s.id <> '\N' and %(mode)s <> 'create' then null
        when s.username is null or s.username = '\N' then 'a username is needed'
        when s.username is distinct from t.username and rollbook.username_fault(s.username) is not null
            then rollbook.username_fault(s.username)
        when t.line is not null and %(mode)s = 'create' then 'this username is taken'
        when t.line is null and (s.id is null or s.id = '\N') and %(mode)s = 'update' then 'there is no such user'
    end),
    ('email', s.email, case
        when s.email is null and t.line is null and %(mode)s <> 'update'
            then 'an e-mail address is needed; \N for an account without one'
        when s.email is distinct from t.email and s.email <> '\N' then rollbook.email_fault(s.email)
    end),
    ('name', s.name, case
        when s.name <> '\N' and s.name is distinct from t.name and (t.line is not null or %(mode)s <> 'update')
            then rollbook.name_fault(s.name)
    end),
    ('first_name', s.first_name, case
        when rollbook.hidden_character(rollbook.normal_name(s.first_name)) is not null
            then format('%%s has no place in a name', rollbook.character_word(rollbook.hidden_character(s.first_name)))
    end),
    ('last_name', s.last_name, case
        when rollbook.hidden_character(rollbook.normal_name(s.last_name)) is not null
            then format('%%s has no place in a name', rollbook.character_word(rollbook.hidden_character(s.last_name)))
    end),
    {widths},
    {choices},
    ('year_of_birth', s.year_of_birth, case
        when s.year_of_birth = '\N' then null
        when s.year_of_birth !~ '^[0-9]{{1,9}}$' then 'a year has four digits'
        when s.year_of_birth::integer not between extract(year from now()) - 119 and extract(year from now())
            then 'a year of birth lies within the last 120 years'
    end),
    ('is_active', s.is_active, case
        when lower(s.is_active) not in ('true', 'false', 't', 'f', 'yes', 'no', '1', '0') then 'true or false'
    end),
    ('password_hash', case when s.password_hash is not null then '(secret)' end, case
        when s.password_hash ~ {hash} and length(s.password_hash) <= {hash_width} then null
        when (select u.password from portal.auth_user as u where u.id = t.user_id) = s.password_hash then null
        when length(s.password_hash) > {hash_width}
            then format('%%s characters, at most {hash_width} fit', length(s.password_hash))
        {misfits}
    end)
) as f (name, value, reason)
where (
        (s.id is null or t.line is not null and %(mode)s <> 'create')
        and length(s.username) <= 150 and s.username ~ '^[A-Za-z0-9_.+][A-Za-z0-9_.@+-]*$'
        and case %(mode)s when 'create' then t.line is null when 'update' then t.line is not null else true end
        and (length(s.email) <= 254 and octet_length(s.email) = length(s.email)
            or t.line is not null and s.email is null)
        and coalesce(s.name, '..') ~ '^[!-~][ -~]*[!-~]$'
        and length(concat({sized})) <= {narrowest}
        and octet_length(concat(s.first_name, s.last_name)) = length(concat(s.first_name, s.last_name))
        and {chosen}
        and coalesce(s.year_of_birth, '1990') ~ '^(19[4-9][0-9]|20[01][0-9])$'
        and coalesce(s.is_active, 'true') in ('true', 'false')
        and s.password_hash is null
    ) is not true
    and f.reason is not null
    and not exists (
        select from pg_temp.problem as p
        where p.line = s.line and p.file is null and (p.column_name is null or p.column_name = f.name)
    )
""").format(
    widths=sql.SQL(",\n    ").join(
        sql.SQL(
            "({text}, s.{name}, case when length(s.{name}) > {width} "
            "then format('%%s characters, at most {width} fit', length(s.{name})) end)"
        ).format(text=sql.Literal(field.name), name=sql.Identifier(field.name), width=sql.Literal(field.width))
        for field in SIZED
    ),
    choices=sql.SQL(",\n    ").join(
        sql.SQL("({text}, s.{name}, case when s.{name} not in ({choices}, '\\N') then {reason} end)").format(
            text=sql.Literal(field.name), name=sql.Identifier(field.name), choices=choices_of(field),
            reason=sql.Literal(f"{field.label} is {', '.join(field.choices[:-1])} or {field.choices[-1]}"),
        )
        for field in CHOSEN
    ),
    hash=sql.Literal(f"^(?:{HASH})$"),
    hash_width=sql.Literal(WIDTH),
    misfits=sql.SQL("\n        ").join(
        sql.SQL("when s.password_hash ~ {form} then {reason}").format(
            form=sql.Literal(f"^(?:{form})$"), reason=sql.Literal(f"this is not a password hash of Django's: {why}")
        )
        for form, why in MISFITS.items()
    ),
    sized=each(SIZED, "s.{name}"),
    narrowest=sql.Literal(min(field.width or 0 for field in SIZED)),
    chosen=sql.SQL(" and ").join(
        sql.SQL("coalesce(s.{name}, {first}) in ({choices})").format(
            name=sql.Identifier(field.name), first=sql.Literal(field.choices[0]), choices=choices_of(field)
        )
        for field in CHOSEN
    ),
)  # fmt: skip

# Within the file.
DOUBLES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'username', d.username,
    format('the same as on line %s', d.first) || case when d.is_same then '' else ' (capitals do not matter)' end
from (
    select
        s.line, s.username, min(s.line) over capitals as first,
        first_value(s.username) over capitals = s.username as is_same
    from pg_temp.staged as s
    left join pg_temp.target as t on t.line = s.line
    where s.username <> '\N'
    window capitals as (
        partition by lower(s.username), case when s.username = t.username then t.user_id end order by s.line
    )
) as d
where d.line > d.first
union all
select d.line, 'email', d.email, format('the same as on line %s (capitals do not matter)', d.first)
from (
    select s.line, s.email, min(s.line) over (partition by lower(coalesce(n.email, s.email))) as first
    from pg_temp.staged as s left join pg_temp.normal as n on n.line = s.line
    where s.email <> '\N'
) as d
where d.line > d.first
union all
select d.line, 'id', d.id, format('the same user as on line %s', d.first)
from (
    select
        s.line, s.id, min(s.line) over user_lines as first, bool_or(s.id is not null) over user_lines as has_id
    from pg_temp.target as t inner join pg_temp.staged as s on s.line = t.line
    window user_lines as (partition by t.user_id)
) as d
where d.line > d.first and d.has_id
"""

# Against everybody else. Who takes another name or address in the same file gives up the old one; where that row is
# wrong, those who wait for what it gives up are wrong too: run it until it finds nothing.
TAKEN = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select
    s.line, 'username', s.username,
    format('this username belongs to id:%%s', u.id)
    || case when u.username = s.username then '' else format(', %%s (capitals do not matter)', u.username) end
from pg_temp.staged as s
left join pg_temp.target as t on t.line = s.line
inner join portal.auth_user as u on lower(u.username) = lower(s.username) and u.id is distinct from t.user_id
where s.username is distinct from t.username
    and (s.id is not null and %(mode)s <> 'create' or u.username <> s.username)
    and not exists (
        select from pg_temp.target as g inner join pg_temp.staged as o on o.line = g.line
        where g.user_id = u.id and lower(o.username) <> lower(u.username)
            and not exists (select from pg_temp.problem as p where p.line = g.line and p.file is null)
    )
    and not exists (
        select from pg_temp.problem as p where p.line = s.line and p.file is null and p.column_name = 'username'
    )
union all
select
    s.line, 'email', s.email, format('this e-mail address belongs to %%s (capitals do not matter)', u.username)
from pg_temp.staged as s
left join pg_temp.target as t on t.line = s.line
left join pg_temp.normal as n on n.line = s.line
inner join portal.auth_user as u on lower(u.email) = lower(coalesce(n.email, s.email)) and u.email <> ''
where s.email <> '\N' and u.id is distinct from t.user_id and not exists (
        select from pg_temp.target as g
        inner join pg_temp.staged as o on o.line = g.line
        left join pg_temp.normal as m on m.line = o.line
        where g.user_id = u.id and lower(coalesce(m.email, o.email)) <> lower(u.email)
            and not exists (select from pg_temp.problem as p where p.line = g.line and p.file is null)
    )
    and not exists (
        select from pg_temp.problem as p where p.line = s.line and p.file is null and p.column_name = 'email'
    )
"""

# What a staged value means for a new account: \N and a blank are the empty value.
NEW = r"coalesce(nullif(s.{name}, '\N')::{type}, {empty})"

# A new account: user, profile, activation key. The key of an active account is marked as used.
CREATE = sql.SQL(r"""
with account as (
    insert into portal.auth_user (username, email, password, is_active, {user_fields})
    select
        s.username, coalesce(nullif(s.email, '\N'), ''), coalesce(s.password_hash, '!'),
        coalesce(s.is_active::boolean, false), {user_values}
    from pg_temp.staged as s
    where not exists (select from pg_temp.target as t where t.line = s.line)
    order by s.line
    returning id, username, is_active
),
profile as (
    insert into portal.auth_userprofile (user_id, {profile_fields})
    select a.id, {profile_values}
    from account as a inner join pg_temp.staged as s on s.username = a.username
),
registration as (
    insert into portal.auth_registration (user_id, activated_at)
    select a.id, case when a.is_active then now() end from account as a
),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, after)
    select 'user', s.username, 'created', a.id, jsonb_object(
        array['username', 'email', 'is_active', {named}]
        || case when s.password_hash is null then '{{}}' else '{{password}}'::text[] end,
        array[s.username, nullif(s.email, '\N'), a.is_active::text, {new}]
        || case when s.password_hash is null then '{{}}' else '{{(secret)}}'::text[] end
    )
    from account as a inner join pg_temp.staged as s on s.username = a.username
)
insert into pg_temp.done (line, user_id, outcome, became_active)
select s.line, a.id, 'created', a.is_active
from account as a inner join pg_temp.staged as s on s.username = a.username
""").format(
    named=each(FILE_FIELDS, "{text}"), new=each(FILE_FIELDS, r"nullif(s.{name}, '\N')::{type}::text"),
    user_fields=each(USER_FIELDS, "{name}"), user_values=each(USER_FIELDS, NEW),
    profile_fields=each(PROFILE, "{name}"), profile_values=each(PROFILE, NEW),
)  # fmt: skip

DONE = """
create temporary table done (
    line integer, user_id bigint, outcome text, fields text[], became_active boolean, became_inactive boolean,
    enrolled integer
) on commit drop
"""

# The new values (n) beside the old ones. A blank leaves a value alone; \N empties it.
CHANGE = sql.SQL(r"""
create temporary table change on commit drop as
select
    t.line, t.user_id, p.id as profile_id, u.username as old_username, u.is_active as old_is_active, n.*,
    n.email is distinct from u.email as has_new_email,
    p.id is not null and n.name is distinct from p.name as has_new_name,
    array_remove(array[
        {user_changes},
        case when n.is_active is distinct from u.is_active then 'is_active' end,
        case when n.password is distinct from u.password then 'password' end
    ], null) as user_fields,
    array_remove(array[{profile_changes}], null) as profile_fields
from pg_temp.target as t
inner join pg_temp.staged as s on s.line = t.line
inner join portal.auth_user as u on u.id = t.user_id
left join portal.auth_userprofile as p on p.user_id = u.id
cross join lateral (
    select
        coalesce(s.username, u.username) as username,
        case when s.email = '\N' then '' else coalesce(s.email, u.email) end as email,
        coalesce(s.is_active::boolean, u.is_active) as is_active,
        coalesce(s.password_hash, u.password) as password,
        {values}
) as n
""").format(
    user_changes=each(USER_FIELDS, "case when n.{name} is distinct from u.{name} then {text} end"),
    profile_changes=each(PROFILE, "case when n.{name} is distinct from coalesce(p.{name}, {empty}) then {text} end"),
    values=each(
        FILE_FIELDS,
        r"case when s.{name} = '\N' then {empty} else coalesce(s.{name}::{type}, {table}.{name}, {empty}) end"
        " as {name}",
    ),
)

# Before the accounts change: the values that will, old and new; of a password only that it does.
WRITTEN = sql.SQL("""
insert into pg_temp.written (kind, object, outcome, user_id, before, after)
select
    'user', u.username, 'changed', u.id,
    jsonb_build_object(
        'username', u.username, 'email', u.email, 'is_active', u.is_active, 'password', '(secret)', {old}
    ) - k.kept,
    jsonb_build_object(
        'username', c.username, 'email', c.email, 'is_active', c.is_active, 'password', '(secret)', {new}
    ) - k.kept
from pg_temp.change as c
inner join portal.auth_user as u on u.id = c.user_id
left join portal.auth_userprofile as p on p.user_id = u.id
cross join lateral (
    select array_remove(array[
        case when c.username = u.username then 'username' end,
        case when not c.has_new_email then 'email' end,
        case when c.is_active = u.is_active then 'is_active' end,
        case when c.password = u.password then 'password' end,
        {same}
    ], null) as kept
) as k
where c.has_new_email or c.username <> u.username or c.user_fields <> '{{}}' or c.profile_fields <> '{{}}'
""").format(
    old=each(FILE_FIELDS, "{text}, coalesce({table}.{name}, {empty})"), new=each(FILE_FIELDS, "{text}, c.{name}"),
    same=each(
        FILE_FIELDS, "case when c.{name} is not distinct from coalesce({table}.{name}, {empty}) then {text} end"
    ),
)  # fmt: skip

CHANGE_EMAILS = """
select rollbook.change_emails(array_agg(c.user_id order by c.line), array_agg(c.email order by c.line))
from pg_temp.change as c where c.has_new_email
"""

# A name that another user of the file takes is given up first.
PARK_USERNAMES = """
update portal.auth_user as u set username = 'renamed-' || gen_random_uuid()
from pg_temp.change as c
where u.id = c.user_id and c.username <> c.old_username and exists (
        select from pg_temp.change as o where lower(o.username) = lower(c.old_username) and o.user_id <> c.user_id
    )
"""

UPDATE_USERS = sql.SQL("""
update portal.auth_user as u
set username = c.username, is_active = c.is_active, password = c.password, {values}
from pg_temp.change as c
where u.id = c.user_id and (c.user_fields <> '{{}}' or c.username <> c.old_username)
""").format(values=each(USER_FIELDS, "{name} = c.{name}"))

CHANGE_NAMES = """
select rollbook.change_names(array_agg(c.user_id order by c.line), array_agg(c.name order by c.line), %s)
from pg_temp.change as c where c.has_new_name
"""

UPDATE_PROFILES = sql.SQL("""
update portal.auth_userprofile as p
set {values}
from pg_temp.change as c
where p.id = c.profile_id and array_remove(c.profile_fields, 'name') <> '{{}}'
""").format(values=each(PROFILE, "{name} = c.{name}"))

# A user without a profile gets one with the first value.
ADD_PROFILES = sql.SQL("""
insert into portal.auth_userprofile (user_id, {names})
select c.user_id, {values}
from pg_temp.change as c
where c.profile_id is null and c.profile_fields <> '{{}}'
order by c.user_id
""").format(names=each(PROFILE, "{name}"), values=each(PROFILE, "c.{name}"))

# As `user activate` and `user deactivate` do.
CONSEQUENCES = """
with keys as (
    update portal.auth_registration as r
    set activated_at = case when c.is_active then now() else r.activated_at end,
        expires_at = case when c.is_active then r.expires_at else least(r.expires_at, now()) end
    from pg_temp.change as c
    where r.user_id = c.user_id and c.is_active <> c.old_is_active and r.activated_at is null
)
insert into pg_temp.done (line, user_id, outcome, fields, became_active)
select c.line, c.user_id, case when f.fields = '{}' then 'unchanged' else 'changed' end, f.fields,
    c.is_active and not c.old_is_active
from pg_temp.change as c
cross join lateral (
    select array_remove(array[
        case when c.username <> c.old_username then 'username' end, case when c.has_new_email then 'email' end
    ], null) || c.user_fields || c.profile_fields as fields
) as f
"""

AUTO_ENROLL = """
create temporary table auto_enrolled on commit drop as
select * from rollbook.auto_enroll_users(array(select d.user_id from pg_temp.done as d where d.became_active))
"""

AUTO_ENROLLED = """
with counted as (select a.user_id, count(*) as enrolled from pg_temp.auto_enrolled as a group by a.user_id),
written as (
    insert into pg_temp.written (kind, object, outcome, user_id, course_id, after)
    select 'enrollment', u.username, 'created', e.user_id, e.course_id, jsonb_build_object('id', e.id)
    from pg_temp.auto_enrolled as a
    inner join portal.student_courseenrollment as e on e.user_id = a.user_id and e.course_id = a.course_id
    inner join portal.auth_user as u on u.id = e.user_id
)
update pg_temp.done as d set enrolled = c.enrolled from counted as c where c.user_id = d.user_id
"""

OUTCOMES = """
insert into pg_temp.outcome (line, outcome, detail, file)
select
    d.line, d.outcome,
    nullif(concat_ws(
        '; ', nullif(array_to_string(d.fields, ', '), ''), 'enrolled in ' || d.enrolled || ' allowed'
    ), ''),
    %s
from pg_temp.done as d
"""

EXPORT = sql.SQL("""
select
    u.id, u.username, case when u.email = '' then '\\N' else u.email end as email, {fields}, u.is_active,
    {hash} as password_hash
from portal.auth_user as u
left join portal.auth_userprofile as p on p.user_id = u.id
where (%(match)s::text is null
        or strpos(lower(u.username || ' ' || u.email || ' ' || coalesce(p.name, '')), lower(%(match)s)) > 0)
    and (%(course)s::text is null or exists (
        select from portal.student_courseenrollment as e where e.user_id = u.id and e.course_id = %(course)s
    ))
    and (%(active)s::boolean is null or u.is_active = %(active)s)
order by u.id
limit %(limit)s
""")


def check(conn: Conn, mode: str, *, with_ids: bool) -> None:
    """Record in pg_temp.target which staged row is of which user, and in pg_temp.problem what is wrong with them."""
    match(conn, mode, with_ids=with_ids)
    bulk.check_emails(conn, KEPT_EMAILS)
    find_wrong(conn, mode)


def match(conn: Conn, mode: str, *, with_ids: bool) -> None:
    """Record in pg_temp.target which staged row is of which user; where they may be changed, lock them.

    `with_ids`: rows may name their user by id.
    """
    conn.execute(NORMAL_USERNAMES)
    if mode != "create":
        conn.execute(LOCK_WITH_IDS if with_ids else LOCK)
    conn.execute(TARGET, {"mode": mode})
    conn.execute("analyze pg_temp.target")
    if with_ids and mode != "create":
        conn.execute(KEPT_USERNAMES)


def find_wrong(conn: Conn, mode: str) -> None:
    """Record in pg_temp.problem what is wrong with the staged users, their addresses' form apart. After `match`."""
    conn.execute(WRONG_VALUES, {"mode": mode})
    conn.execute(DOUBLES)
    find_taken(conn, mode)


def find_taken(conn: Conn, mode: str) -> None:
    """Record in pg_temp.problem who wants the username or the address of somebody who keeps it."""
    while conn.execute(TAKEN, {"mode": mode}).rowcount:
        pass


def apply(conn: Conn, rationale: str, file: str | None = None) -> None:
    """Make and change the accounts of pg_temp.staged; record what was done to each row in pg_temp.outcome.

    pg_temp.written has each change, for the history.

    New accounts come last: they may take a username or an address that another row gives up.
    """
    conn.execute(NORMAL_NAMES)
    conn.execute(DONE)
    if conn.execute(CHANGE).rowcount:
        conn.execute(WRITTEN)
        conn.execute(CHANGE_EMAILS)
        conn.execute(PARK_USERNAMES)
        conn.execute(UPDATE_USERS)
        conn.execute(CHANGE_NAMES, [rationale])
        conn.execute(UPDATE_PROFILES)
        conn.execute(ADD_PROFILES)
        conn.execute(CONSEQUENCES)
    conn.execute(CREATE)
    if conn.execute(AUTO_ENROLL).rowcount:
        conn.execute(AUTO_ENROLLED)
    conn.execute(OUTCOMES, [file])


def export(conn: Conn, *, with_hash: bool, **filters: object) -> list[Row]:
    """Return users as an import reads them. `filters`: match, course, active, limit; None does not filter."""
    # A role that may not read the hashes may not name their column.
    column = sql.SQL("u.password") if with_hash else sql.SQL("null::text")
    statement = EXPORT.format(fields=each(FILE_FIELDS, "{table}.{name}"), hash=column)
    return conn.execute(statement, filters).fetchall()
