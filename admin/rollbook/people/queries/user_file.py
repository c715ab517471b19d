"""Users in bulk: what is wrong with the rows of pg_temp.staged, and making and changing accounts from the others.

pg_temp.target says which staged row is of which user that exists. Every rule of the tables is looked at before it
would be hit; the turn that imports take keeps another import from coming between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

COLUMNS = (
    "username", "email", "first_name", "last_name", "name", "gender", "level_of_education", "year_of_birth",
    "mailing_address", "goals", "language", "location", "is_active", "password_hash",
)  # fmt: skip

# Whose rows are written is locked in the order of ids, as everybody does, so that what is found stays so.
LOCK = """
select u.id from portal.auth_user as u
where u.username in (select s.username from pg_temp.staged as s) order by u.id for no key update
"""

TARGET = """
create temporary table target on commit drop as
select s.line, u.id as user_id, u.email from pg_temp.staged as s inner join portal.auth_user as u
    on u.username = s.username
"""

# What is there already is not judged again.
KEPT_EMAILS = "and not exists (select from pg_temp.target as t where t.line = s.line and t.email = s.email)"

# The rules are those of the tables; a row that has no good form was found before. Most rows are plain, which a cheap
# look tells: it may take a right row for a wrong one, never the other way round.
WRONG_VALUES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select s.line, f.name, f.value, f.reason
from pg_temp.staged as s
left join pg_temp.target as t on t.line = s.line
cross join lateral (
    values
    ('username', s.username, case
        when s.username is null or s.username = '\N' then 'a username is needed'
        when length(s.username) > 150 then format('%%s characters, at most 150 fit', length(s.username))
        when s.username ~ '[[:space:][:cntrl:]]' then 'a username has no blanks or control characters'
        when t.line is not null and %(mode)s = 'create' then 'this username is taken'
        when t.line is null and %(mode)s = 'update' then 'there is no such user'
    end),
    ('email', s.email, case
        when s.email is null and t.line is null and %(mode)s <> 'update'
            then 'an e-mail address is needed; \N for an account without one'
        when length(s.email) > 254 then format('%%s characters, at most 254 fit', length(s.email))
    end),
    ('first_name', s.first_name, case
        when length(s.first_name) > 150 then format('%%s characters, at most 150 fit', length(s.first_name))
    end),
    ('last_name', s.last_name, case
        when length(s.last_name) > 150 then format('%%s characters, at most 150 fit', length(s.last_name))
    end),
    ('name', s.name, case
        when length(s.name) > 255 then format('%%s characters, at most 255 fit', length(s.name))
    end),
    ('language', s.language, case
        when length(s.language) > 255 then format('%%s characters, at most 255 fit', length(s.language))
    end),
    ('location', s.location, case
        when length(s.location) > 255 then format('%%s characters, at most 255 fit', length(s.location))
    end),
    ('gender', s.gender, case when s.gender not in ('m', 'f', 'o', '\N') then 'gender is m, f or o' end),
    ('level_of_education', s.level_of_education, case
        when s.level_of_education not in ('p_se', 'p_oth', 'm', 'b', 'hs', 'jhs', 'el', 'none', 'other', '\N')
            then 'level of education is p_se, p_oth, m, b, hs, jhs, el, none or other'
    end),
    ('year_of_birth', s.year_of_birth, case
        when s.year_of_birth = '\N' then null
        when s.year_of_birth !~ '^[0-9]{1,9}$' then 'a year has four digits'
        when s.year_of_birth::integer not between extract(year from now()) - 119 and extract(year from now())
            then 'a year of birth lies within the last 120 years'
    end),
    ('is_active', s.is_active, case
        when lower(s.is_active) not in ('true', 'false', 't', 'f', 'yes', 'no', '1', '0') then 'true or false'
    end),
    ('password_hash', case when s.password_hash is not null then '(secret)' end, case
        when length(s.password_hash) > 128
            or s.password_hash !~ '^(![!-~]*|pbkdf2_sha256\$[1-9][0-9]{0,7}\$[^$[:space:]]+\$[A-Za-z0-9+/]{43}=)$'
            then 'this is not a password hash of Django''s: pbkdf2_sha256$ITERATIONS$SALT$HASH'
    end)
) as f (name, value, reason)
where (
        length(s.username) <= 150 and s.username ~ '^[A-Za-z0-9_.@+-]+$'
        and case %(mode)s when 'create' then t.line is null when 'update' then t.line is not null else true end
        and (length(s.email) <= 254 or t.line is not null and s.email is null)
        and length(concat(s.first_name, s.last_name, s.name, s.language, s.location)) <= 150
        and coalesce(s.gender, 'm') in ('m', 'f', 'o')
        and coalesce(s.level_of_education, 'm') in ('p_se', 'p_oth', 'm', 'b', 'hs', 'jhs', 'el', 'none', 'other')
        and coalesce(s.year_of_birth, '1990') ~ '^(19[6-9][0-9]|200[0-9])$'
        and coalesce(s.is_active, 'true') in ('true', 'false')
        and s.password_hash is null
    ) is not true
    and f.reason is not null
    and not exists (
        select from pg_temp.problem as p
        where p.line = s.line and p.file is null and (p.column_name is null or p.column_name = f.name)
    )
"""

# Within the file, and against everybody else. An address that its owner gives up in the same file is taken still.
DOUBLES = r"""
insert into pg_temp.problem (line, column_name, value, reason)
select d.line, 'username', d.username, format('the same as on line %s', d.first)
from (
    select s.line, s.username, min(s.line) over (partition by s.username) as first
    from pg_temp.staged as s where s.username <> '\N'
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
select
    s.line, 'email', s.email, format('this e-mail address belongs to %s (capitals do not matter)', u.username)
from pg_temp.staged as s
left join pg_temp.normal as n on n.line = s.line
inner join portal.auth_user as u on lower(u.email) = lower(coalesce(n.email, s.email)) and u.email <> ''
where s.email <> '\N' and u.username is distinct from s.username
"""

# A new account: user, profile, activation key. An active one's key is spent at once.
CREATE = r"""
with account as (
    insert into portal.auth_user (username, email, first_name, last_name, password, is_active)
    select
        s.username, coalesce(nullif(s.email, '\N'), ''), coalesce(nullif(s.first_name, '\N'), ''),
        coalesce(nullif(s.last_name, '\N'), ''), coalesce(s.password_hash, '!'), coalesce(s.is_active::boolean, false)
    from pg_temp.staged as s
    where not exists (select from pg_temp.target as t where t.line = s.line)
    order by s.line
    returning id, username, is_active
),
profile as (
    insert into portal.auth_userprofile
        (user_id, name, language, location, year_of_birth, gender, level_of_education, mailing_address, goals)
    select
        a.id, coalesce(nullif(s.name, '\N'), ''), coalesce(nullif(s.language, '\N'), ''),
        coalesce(nullif(s.location, '\N'), ''), nullif(s.year_of_birth, '\N')::integer, nullif(s.gender, '\N'),
        nullif(s.level_of_education, '\N'), nullif(s.mailing_address, '\N'), nullif(s.goals, '\N')
    from account as a inner join pg_temp.staged as s on s.username = a.username
),
registration as (
    insert into portal.auth_registration (user_id, activated_at)
    select a.id, case when a.is_active then now() end from account as a
)
insert into pg_temp.done (line, user_id, outcome, became_active)
select s.line, a.id, 'created', a.is_active
from account as a inner join pg_temp.staged as s on s.username = a.username
"""

DONE = """
create temporary table done (
    line integer, user_id bigint, outcome text, fields text[], became_active boolean, became_inactive boolean,
    enrolled integer
) on commit drop
"""

# What is to be and what is, side by side. A blank leaves alone; where nothing may stand, \N means empty.
CHANGE = r"""
create temporary table change on commit drop as
select
    t.line, t.user_id, p.id as profile_id, u.email as old_email, p.name as old_name, u.is_active as old_is_active,
    n.*,
    array_remove(array[
        case when n.email is distinct from u.email then 'email' end,
        case when n.first_name is distinct from u.first_name then 'first_name' end,
        case when n.last_name is distinct from u.last_name then 'last_name' end,
        case when n.is_active is distinct from u.is_active then 'is_active' end,
        case when n.password is distinct from u.password then 'password' end
    ], null) as user_fields,
    array_remove(array[
        case when n.name is distinct from coalesce(p.name, '') then 'name' end,
        case when n.gender is distinct from p.gender then 'gender' end,
        case when n.level_of_education is distinct from p.level_of_education then 'level_of_education' end,
        case when n.year_of_birth is distinct from p.year_of_birth then 'year_of_birth' end,
        case when n.mailing_address is distinct from p.mailing_address then 'mailing_address' end,
        case when n.goals is distinct from p.goals then 'goals' end,
        case when n.language is distinct from coalesce(p.language, '') then 'language' end,
        case when n.location is distinct from coalesce(p.location, '') then 'location' end
    ], null) as profile_fields
from pg_temp.target as t
inner join pg_temp.staged as s on s.line = t.line
inner join portal.auth_user as u on u.id = t.user_id
left join portal.auth_userprofile as p on p.user_id = u.id
cross join lateral (
    select
        case when s.email = '\N' then '' else coalesce(s.email, u.email) end as email,
        case when s.first_name = '\N' then '' else coalesce(s.first_name, u.first_name) end as first_name,
        case when s.last_name = '\N' then '' else coalesce(s.last_name, u.last_name) end as last_name,
        coalesce(s.is_active::boolean, u.is_active) as is_active,
        coalesce(s.password_hash, u.password) as password,
        case when s.name = '\N' then '' else coalesce(s.name, p.name, '') end as name,
        case when s.gender = '\N' then null else coalesce(s.gender, p.gender) end as gender,
        case when s.level_of_education = '\N' then null else coalesce(s.level_of_education, p.level_of_education) end
            as level_of_education,
        case when s.year_of_birth = '\N' then null else coalesce(s.year_of_birth::integer, p.year_of_birth) end
            as year_of_birth,
        case when s.mailing_address = '\N' then null else coalesce(s.mailing_address, p.mailing_address) end
            as mailing_address,
        case when s.goals = '\N' then null else coalesce(s.goals, p.goals) end as goals,
        case when s.language = '\N' then '' else coalesce(s.language, p.language, '') end as language,
        case when s.location = '\N' then '' else coalesce(s.location, p.location, '') end as location
) as n
"""

UPDATE_USERS = """
update portal.auth_user as u
set email = c.email, first_name = c.first_name, last_name = c.last_name, is_active = c.is_active,
    password = c.password
from pg_temp.change as c
where u.id = c.user_id and c.user_fields <> '{}'
"""

# Old addresses and names stay in the profile's meta, as rollbook.change_email and change_name do for one user.
UPDATE_PROFILES = """
with kept as (
    select c.*, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00' as at from pg_temp.change as c
    where c.profile_id is not null and (c.profile_fields <> '{}' or c.email is distinct from c.old_email)
),
addressed as (
    select
        k.*,
        case
            when k.email is distinct from k.old_email
                then rollbook.add_to_meta(p.meta, 'old_emails', jsonb_build_array(k.old_email, k.at))
            else p.meta
        end as with_email
    from kept as k inner join portal.auth_userprofile as p on p.id = k.profile_id
)
update portal.auth_userprofile as p
set name = a.name, gender = a.gender, level_of_education = a.level_of_education, year_of_birth = a.year_of_birth,
    mailing_address = a.mailing_address, goals = a.goals, language = a.language, location = a.location,
    meta = case
        when a.name is distinct from a.old_name
            then rollbook.add_to_meta(a.with_email, 'old_names', jsonb_build_array(a.old_name, %s::text, a.at))
        else a.with_email
    end
from addressed as a
where p.id = a.profile_id
"""

# Whoever has no profile gets one with the first value.
ADD_PROFILES = """
insert into portal.auth_userprofile
    (user_id, name, language, location, year_of_birth, gender, level_of_education, mailing_address, goals)
select
    c.user_id, c.name, c.language, c.location, c.year_of_birth, c.gender, c.level_of_education, c.mailing_address,
    c.goals
from pg_temp.change as c
where c.profile_id is null and c.profile_fields <> '{}'
order by c.user_id
"""

# As `user activate` and `user deactivate` have it; a request for the address that is there now is done with.
CONSEQUENCES = """
with keys as (
    update portal.auth_registration as r
    set activated_at = case when c.is_active then now() else r.activated_at end,
        expires_at = case when c.is_active then r.expires_at else least(r.expires_at, now()) end
    from pg_temp.change as c
    where r.user_id = c.user_id and c.is_active <> c.old_is_active and r.activated_at is null
),
requests as (
    delete from portal.student_pendingemailchange as r using pg_temp.change as c
    where r.user_id = c.user_id and c.email is distinct from c.old_email and lower(r.new_email) = lower(c.email)
)
insert into pg_temp.done (line, user_id, outcome, fields, became_active)
select
    c.line, c.user_id, case when c.user_fields || c.profile_fields = '{}' then 'unchanged' else 'changed' end,
    c.user_fields || c.profile_fields, c.is_active and not c.old_is_active
from pg_temp.change as c
"""

# Activation enrolls where the address is allowed with auto_enroll, as rollbook.auto_enroll does for one user.
AUTO_ENROLL = """
with added as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select distinct u.id, a.course_id
    from pg_temp.done as d
    inner join portal.auth_user as u on u.id = d.user_id
    inner join portal.student_courseenrollmentallowed as a on lower(a.email) = lower(u.email) and a.auto_enroll
    where d.became_active
    order by u.id, a.course_id
    on conflict (user_id, course_id) do nothing
    returning user_id
),
counted as (select a.user_id, count(*) as enrolled from added as a group by a.user_id)
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

EXPORT = """
select
    u.username, case when u.email = '' then '\\N' else u.email end as email, u.first_name, u.last_name, p.name,
    p.gender, p.level_of_education, p.year_of_birth, p.mailing_address, p.goals, p.language, p.location, u.is_active,
    case when %(with_hash)s then u.password end as password_hash
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
"""


def match(conn: Conn, mode: str) -> None:
    """Note in pg_temp.target which staged row is of which user; where they may be changed, lock them."""
    if mode != "create":
        conn.execute(LOCK)
    conn.execute(TARGET)
    conn.execute("analyze pg_temp.target")


def find_wrong(conn: Conn, mode: str) -> None:
    """Note in pg_temp.problem what is wrong with the staged users, their addresses' form apart. After `match`."""
    conn.execute(WRONG_VALUES, {"mode": mode})
    conn.execute(DOUBLES)


def apply(conn: Conn, rationale: str, file: str | None = None) -> None:
    """Make and change the accounts of pg_temp.staged; note what was done to each row in pg_temp.outcome."""
    conn.execute(DONE)
    conn.execute(CREATE)
    conn.execute(CHANGE)
    conn.execute(UPDATE_USERS)
    conn.execute(UPDATE_PROFILES, [rationale])
    conn.execute(ADD_PROFILES)
    conn.execute(CONSEQUENCES)
    conn.execute(AUTO_ENROLL)
    conn.execute(OUTCOMES, [file])


def export(conn: Conn, *, with_hash: bool, **filters: object) -> list[Row]:
    """Return users as an import reads them. `filters`: match, course, active, limit; None is no filter."""
    return conn.execute(EXPORT, {**filters, "with_hash": with_hash}).fetchall()
