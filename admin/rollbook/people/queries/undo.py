"""What the entries in pg_temp.undoing need to be undone: see rollbook.people.undo.

A judgement inserts into pg_temp.unfit (id, object, course_id, reason). A write inserts into pg_temp.written what it
did, with the entry that it undid.
"""

from __future__ import annotations

from psycopg import sql

from rollbook.people.fields import PROFILE_FIELDS, USER_FIELDS, names
from rollbook.people.queries.field_sql import each

# --- enrollments ------------------------------------------------------------------------------------------------------

ENROLLED = """
with held as (
    select e.id, e.user_id, e.course_id from portal.student_courseenrollment as e
    where (e.user_id, e.course_id) in (
        select x.user_id, x.course_id from pg_temp.undoing as x where x.kind = 'enrollment' and x.outcome = 'created'
    )
    order by e.user_id, e.course_id for update
)
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when h.id is null then 'the enrollment has ended since' else 'it ended and began again since' end
from pg_temp.undoing as x
left join held as h on h.user_id = x.user_id and h.course_id = x.course_id
where x.kind = 'enrollment' and x.outcome = 'created' and h.id is distinct from (x.after ->> 'id')::bigint
"""

ENROLLED_IDS = """
id in (
    select (x.after ->> 'id')::bigint from pg_temp.undoing as x where x.kind = 'enrollment' and x.outcome = 'created'
)
"""

LEAVE = """
with gone as (
    delete from portal.student_courseenrollment as e
    using pg_temp.undoing as x
    where x.kind = 'enrollment' and x.outcome = 'created' and e.user_id = x.user_id and e.course_id = x.course_id
        and e.id = (x.after ->> 'id')::bigint
    returning e.id, e.user_id, e.course_id, e.created, x.object, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, undoes)
select
    'enrollment', g.object, 'removed', g.user_id, g.course_id,
    jsonb_build_object('id', g.id, 'created', g.created), g.entry
from gone as g
"""

LEFT = """
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when u.id is null then 'the account is gone' else 'the user is enrolled there again' end
from pg_temp.undoing as x
left join portal.auth_user as u on u.id = x.user_id
left join portal.student_courseenrollment as e on e.user_id = x.user_id and e.course_id = x.course_id
where x.kind = 'enrollment' and x.outcome = 'removed' and (u.id is null or e.id is not null)
"""

ENROLL_AGAIN = """
with back as (
    insert into portal.student_courseenrollment (id, user_id, course_id, created)
    select (x.before ->> 'id')::bigint, x.user_id, x.course_id, (x.before ->> 'created')::timestamptz
    from pg_temp.undoing as x
    where x.kind = 'enrollment' and x.outcome = 'removed'
    order by x.user_id, x.course_id
    on conflict (user_id, course_id) do nothing
    returning id, user_id, course_id
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, after, undoes)
select 'enrollment', x.object, 'created', b.user_id, b.course_id, jsonb_build_object('id', b.id), x.id
from back as b
inner join pg_temp.undoing as x
    on x.kind = 'enrollment' and x.outcome = 'removed' and x.user_id = b.user_id and x.course_id = b.course_id
"""

MOVED = """
with held as (
    select e.id, e.user_id, e.course_id from portal.student_courseenrollment as e
    where e.user_id in (select x.user_id from pg_temp.undoing as x where x.outcome = 'moved')
    order by e.user_id, e.course_id for update
)
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when o.id is null then 'the enrollment has ended or was moved again since'
        else 'the user is enrolled in ' || (x.before ->> 'course') || ' again' end
from pg_temp.undoing as x
left join held as o on o.user_id = x.user_id and o.course_id = x.course_id and o.id = (x.after ->> 'id')::bigint
left join held as n on n.user_id = x.user_id and n.course_id = x.before ->> 'course'
where x.kind = 'enrollment' and x.outcome = 'moved' and (o.id is null or n.id is not null)
"""

MOVE_BACK = """
with moved as (
    update portal.student_courseenrollment as e set course_id = x.before ->> 'course'
    from pg_temp.undoing as x
    where x.kind = 'enrollment' and x.outcome = 'moved' and e.id = (x.after ->> 'id')::bigint
    returning e.user_id, e.course_id, x.object, x.before, x.after, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after, undoes)
select 'enrollment', m.object, 'moved', m.user_id, m.course_id, m.after, m.before, m.entry from moved as m
"""

# --- groups -----------------------------------------------------------------------------------------------------------

JOINED = """
with held as (
    select m.id, m.user_id, g.name
    from portal.student_usertestgroup_users as m
    inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id
    where (m.user_id, g.name) in (
        select x.user_id, x.after ->> 'group' from pg_temp.undoing as x
        where x.kind = 'member' and x.outcome = 'created'
    )
    order by m.id for update of m
)
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when h.id is null then 'the user is not in the group any more'
        else 'the user left the group and joined it again since' end
from pg_temp.undoing as x
left join held as h on h.user_id = x.user_id and h.name = x.after ->> 'group'
where x.kind = 'member' and x.outcome = 'created' and h.id is distinct from (x.after ->> 'id')::bigint
"""

QUIT = """
with gone as (
    delete from portal.student_usertestgroup_users as m
    using pg_temp.undoing as x
    where x.kind = 'member' and x.outcome = 'created' and m.id = (x.after ->> 'id')::bigint
    returning m.user_id, x.object, x.after, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, user_id, before, undoes)
select 'member', g.object, 'removed', g.user_id, g.after, g.entry from gone as g
"""

QUITTED = """
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when u.id is null then 'the account is gone'
        when g.id is null then 'the group ' || (x.before ->> 'group') || ' is gone'
        else 'the user is in the group again' end
from pg_temp.undoing as x
left join portal.auth_user as u on u.id = x.user_id
left join portal.student_usertestgroup as g on g.name = x.before ->> 'group'
left join portal.student_usertestgroup_users as m on m.usertestgroup_id = g.id and m.user_id = x.user_id
where x.kind = 'member' and x.outcome = 'removed' and (u.id is null or g.id is null or m.id is not null)
"""

JOIN_AGAIN = """
with back as (
    insert into portal.student_usertestgroup_users (id, usertestgroup_id, user_id)
    select (x.before ->> 'id')::bigint, g.id, x.user_id
    from pg_temp.undoing as x
    inner join portal.student_usertestgroup as g on g.name = x.before ->> 'group'
    where x.kind = 'member' and x.outcome = 'removed'
    order by x.user_id, g.id
    on conflict (usertestgroup_id, user_id) do nothing
    returning id
)
insert into pg_temp.written (kind, object, outcome, user_id, after, undoes)
select 'member', x.object, 'created', x.user_id, x.before, x.id
from back as b
inner join pg_temp.undoing as x
    on x.kind = 'member' and x.outcome = 'removed' and (x.before ->> 'id')::bigint = b.id
"""

GROUPED = """
with held as (
    select g.id, g.name, g.description from portal.student_usertestgroup as g
    where g.name in (select x.object from pg_temp.undoing as x where x.kind = 'group' and x.outcome = 'created')
    order by g.id for update
)
insert into pg_temp.unfit
select x.id, x.object, x.course_id, f.reason
from pg_temp.undoing as x
left join held as h on h.name = x.object
cross join lateral (
    select case
        when h.id is null then 'the group is gone or has another name'
        when h.id <> (x.after ->> 'id')::bigint then 'the group was deleted and created again since'
        when h.description is distinct from x.after ->> 'description' then 'its description was changed since'
        when m.members > 0 then format('members were added since: %%s', m.members)
    end as reason
    from (
        select count(*) as members from portal.student_usertestgroup_users as m where m.usertestgroup_id = h.id
    ) as m
) as f
where x.kind = 'group' and x.outcome = 'created' and f.reason is not null
"""

GROUP_IDS = """
id in (select (x.after ->> 'id')::bigint from pg_temp.undoing as x where x.kind = 'group' and x.outcome = 'created')
"""

UNGROUP = """
with gone as (
    delete from portal.student_usertestgroup as g
    using pg_temp.undoing as x
    where x.kind = 'group' and x.outcome = 'created' and g.id = (x.after ->> 'id')::bigint
    returning x.object, x.after, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, before, undoes)
select 'group', g.object, 'removed', g.after, g.entry from gone as g
"""

UNGROUPED = """
insert into pg_temp.unfit
select x.id, x.object, x.course_id, 'a group has this name'
from pg_temp.undoing as x
where x.kind = 'group' and x.outcome = 'removed'
    and exists (select from portal.student_usertestgroup as g where g.name = x.object)
"""

GROUP_AGAIN = """
with back as (
    insert into portal.student_usertestgroup (id, name, description)
    select (x.before ->> 'id')::bigint, x.object, x.before ->> 'description'
    from pg_temp.undoing as x where x.kind = 'group' and x.outcome = 'removed'
    order by 1
    on conflict (name) do nothing
    returning name
)
insert into pg_temp.written (kind, object, outcome, after, undoes)
select 'group', x.object, 'created', x.before, x.id
from back as b
inner join pg_temp.undoing as x on x.kind = 'group' and x.outcome = 'removed' and x.object = b.name
"""

# --- allowed e-mail addresses -----------------------------------------------------------------------------------------

ALLOWED = """
with held as (
    select a.id, a.auto_enroll from portal.student_courseenrollmentallowed as a
    where a.id in (
        select (x.after ->> 'id')::bigint from pg_temp.undoing as x where x.kind = 'allowed' and x.outcome = 'created'
    )
    order by a.id for update
)
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when h.id is null then 'the address is not allowed any more' else 'auto_enroll was changed since' end
from pg_temp.undoing as x
left join held as h on h.id = (x.after ->> 'id')::bigint
where x.kind = 'allowed' and x.outcome = 'created'
    and h.auto_enroll is distinct from (x.after ->> 'auto_enroll')::boolean
"""

DISALLOW = """
with gone as (
    delete from portal.student_courseenrollmentallowed as a
    using pg_temp.undoing as x
    where x.kind = 'allowed' and x.outcome = 'created' and a.id = (x.after ->> 'id')::bigint
    returning a.id, a.email, a.course_id, a.auto_enroll, a.created, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, course_id, before, undoes)
select
    'allowed', g.email, 'removed', g.course_id,
    jsonb_build_object('id', g.id, 'auto_enroll', g.auto_enroll, 'created', g.created), g.entry
from gone as g
"""

TURNED = """
with held as (
    select a.id, a.auto_enroll from portal.student_courseenrollmentallowed as a
    where a.id in (
        select (x.after ->> 'id')::bigint from pg_temp.undoing as x where x.kind = 'allowed' and x.outcome = 'changed'
    )
    order by a.id for no key update
)
insert into pg_temp.unfit
select
    x.id, x.object, x.course_id,
    case when h.id is null then 'the address is not allowed any more' else 'auto_enroll was changed since' end
from pg_temp.undoing as x
left join held as h on h.id = (x.after ->> 'id')::bigint
where x.kind = 'allowed' and x.outcome = 'changed'
    and h.auto_enroll is distinct from (x.after ->> 'auto_enroll')::boolean
"""

TURN_BACK = """
with turned as (
    update portal.student_courseenrollmentallowed as a set auto_enroll = (x.before ->> 'auto_enroll')::boolean
    from pg_temp.undoing as x
    where x.kind = 'allowed' and x.outcome = 'changed' and a.id = (x.after ->> 'id')::bigint
    returning a.id, a.email, a.course_id, a.auto_enroll, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, course_id, before, after, undoes)
select
    'allowed', t.email, 'changed', t.course_id, jsonb_build_object('auto_enroll', not t.auto_enroll),
    jsonb_build_object('id', t.id, 'auto_enroll', t.auto_enroll), t.entry
from turned as t
"""

DISALLOWED = """
insert into pg_temp.unfit
select x.id, x.object, x.course_id, 'the address is allowed again'
from pg_temp.undoing as x
where x.kind = 'allowed' and x.outcome = 'removed' and exists (
        select from portal.student_courseenrollmentallowed as a
        where a.course_id = x.course_id and lower(a.email) = lower(x.object)
    )
"""

ALLOW_AGAIN = """
with back as (
    insert into portal.student_courseenrollmentallowed (id, email, course_id, auto_enroll, created)
    select
        (x.before ->> 'id')::bigint, x.object, x.course_id, (x.before ->> 'auto_enroll')::boolean,
        (x.before ->> 'created')::timestamptz
    from pg_temp.undoing as x
    where x.kind = 'allowed' and x.outcome = 'removed'
    order by 1
    on conflict (email, course_id) do nothing
    returning id, auto_enroll
)
insert into pg_temp.written (kind, object, outcome, course_id, after, undoes)
select 'allowed', x.object, 'created', x.course_id, jsonb_build_object('id', b.id, 'auto_enroll', b.auto_enroll), x.id
from back as b
inner join pg_temp.undoing as x
    on x.kind = 'allowed' and x.outcome = 'removed' and (x.before ->> 'id')::bigint = b.id
"""

# --- accounts ---------------------------------------------------------------------------------------------------------

USER = ("username", *names(USER_FIELDS), "is_active", "is_staff", "is_superuser")
PROFILE = tuple(field for field in PROFILE_FIELDS if field.name != "name")
CHANGES = sql.SQL("x.kind = 'user' and x.outcome <> 'created'")

# The fields of `after` whose values are others now. Old names and addresses in the meta do not count: each change of a
# name adds one.
CHANGED = sql.SQL(r"""
insert into pg_temp.unfit
select x.id, x.object, x.course_id, f.reason
from pg_temp.undoing as x
left join portal.auth_user as u on u.id = x.user_id
left join portal.auth_userprofile as p on p.user_id = x.user_id
cross join lateral (
    select string_agg(k.key, ', ' order by k.key) as fields
    from jsonb_object_keys(x.after) as k (key)
    cross join lateral (select coalesce(to_jsonb(u) ->> k.key, to_jsonb(p) ->> k.key, '') as value) as n
    where k.key not in ('enrolled', 'password') and case
            when k.key = 'meta' then
                coalesce(nullif(n.value, ''), '{{}}')::jsonb - '{{old_names,old_emails}}'::text[]
                <> coalesce(nullif(x.after ->> 'meta', ''), '{{}}')::jsonb - '{{old_names,old_emails}}'::text[]
            else n.value <> coalesce(x.after ->> k.key, '')
        end
) as c
cross join lateral (
    select case
        when u.id is null then 'the account is gone'
        when x.after ? 'password' then 'the password was changed too, and passwords are not kept'
        when c.fields is not null then 'changed since: ' || c.fields
        when p.id is null and x.before ?| {profile} then 'the profile is gone'
        when x.before ->> 'email' <> '' then (
            select format('the address %%s belongs to %%s now', x.before ->> 'email', o.username)
            from portal.auth_user as o
            where lower(o.email) = lower(x.before ->> 'email') and o.email <> '' and o.id <> x.user_id limit 1
        )
    end as reason
    union all
    select format('the username %%s belongs to another account now', o.username)
    from portal.auth_user as o
    where lower(o.username) = lower(x.before ->> 'username') and o.id <> x.user_id and not exists (
            select from pg_temp.undoing as y
            where y.kind = 'user' and y.user_id = o.id and y.before ->> 'username' <> o.username
        )
) as f
where {changes} and f.reason is not null
""").format(changes=CHANGES, profile=sql.Literal([*names(PROFILE_FIELDS), "meta"]))

# The two entries that a change and its undo leave in the meta are taken out again, if they are its last ones.
TIME = sql.SQL("(to_jsonb(x.at at time zone 'UTC') #>> '{}') || '+00:00'")

CHANGE_BACK = (
    sql.SQL("""
    select rollbook.change_emails(
        array_agg(x.user_id order by x.user_id), array_agg(x.before ->> 'email' order by x.user_id)
    )
    from pg_temp.undoing as x where {changes} and x.before ? 'email'
    having count(*) > 0
    """).format(changes=CHANGES),
    # A name that another of them takes back is given up first.
    sql.SQL("""
    update portal.auth_user as u set username = 'renamed-' || gen_random_uuid()
    from pg_temp.undoing as x
    where {changes} and u.id = x.user_id and x.before ? 'username' and exists (
            select from pg_temp.undoing as y
            where y.kind = 'user' and y.user_id <> x.user_id and lower(y.before ->> 'username') = lower(u.username)
        )
    """).format(changes=CHANGES),
    sql.SQL("""
    update portal.auth_user as u set {columns}
    from pg_temp.undoing as x
    where {changes} and u.id = x.user_id and x.before ?| {names}
    """).format(
        changes=CHANGES, names=sql.Literal(list(USER)),
        columns=sql.SQL(", ").join(
            sql.SQL("{name} = coalesce((x.before ->> {text}){type}, u.{name})").format(
                name=sql.Identifier(name), text=sql.Literal(name),
                type=sql.SQL("::boolean" if name.startswith("is_") else ""),
            )
            for name in USER
        ),
    ),
    sql.SQL("""
    select rollbook.change_names(
        array_agg(x.user_id order by x.user_id), array_agg(x.before ->> 'name' order by x.user_id), %(rationale)s
    )
    from pg_temp.undoing as x where {changes} and x.before ? 'name'
    having count(*) > 0
    """).format(changes=CHANGES),
    sql.SQL("""
    update portal.auth_userprofile as p set {columns}
    from pg_temp.undoing as x
    where {changes} and p.user_id = x.user_id and x.before ?| {names}
    """).format(
        changes=CHANGES, names=sql.Literal(list(names(PROFILE))),
        columns=each(
            PROFILE, "{name} = case when x.before ? {text} then (x.before ->> {text})::{type} else p.{name} end"
        ),
    ),
    sql.SQL("""
    update portal.auth_userprofile as p set meta = case when n.meta = '{{}}' then '' else n.meta::text end
    from pg_temp.undoing as x
    inner join portal.auth_userprofile as o on o.user_id = x.user_id
    cross join lateral (select coalesce(nullif(o.meta, ''), '{{}}')::jsonb as meta) as m
    cross join lateral (
        select case
            when x.before ? 'meta' then
                (coalesce(nullif(x.before ->> 'meta', ''), '{{}}')::jsonb - '{{old_names,old_emails}}'::text[])
                || (m.meta - array(
                    select k.key from jsonb_object_keys(m.meta) as k (key)
                    where k.key not in ('old_names', 'old_emails')
                ))
            else m.meta
        end as meta
    ) as s
    cross join lateral (
        select case
            when s.meta #> '{{old_emails,-2}}' = jsonb_build_array(x.before ->> 'email', {time})
                and s.meta #>> '{{old_emails,-1,0}}' = x.after ->> 'email'
            then s.meta #- '{{old_emails,-1}}' #- '{{old_emails,-1}}'
            else s.meta
        end as meta
    ) as e
    cross join lateral (
        select case
            when e.meta #>> '{{old_names,-2,0}}' = x.before ->> 'name' and e.meta #>> '{{old_names,-2,2}}' = {time}
                and e.meta #>> '{{old_names,-1,0}}' = x.after ->> 'name'
            then e.meta #- '{{old_names,-1}}' #- '{{old_names,-1}}'
            else e.meta
        end as meta
    ) as a
    cross join lateral (
        select a.meta - array(
            select k.key from jsonb_each(a.meta) as k
            where k.key in ('old_names', 'old_emails') and k.value = '[]'
        ) as meta
    ) as n
    where {changes} and p.id = o.id and x.before ?| array['meta', 'email', 'name'] and n.meta <> m.meta
    """).format(changes=CHANGES, time=TIME),
    # The key that the activation used up opens the account again; that of an account that is active is not needed.
    sql.SQL("""
    update portal.auth_registration as r
    set activated_at = case when (x.before ->> 'is_active')::boolean then now() end
    from pg_temp.undoing as x
    where {changes} and r.user_id = x.user_id and x.before ? 'is_active'
        and r.activated_at is not distinct from case when (x.before ->> 'is_active')::boolean then null else x.at end
    """).format(changes=CHANGES),
    sql.SQL("""
    insert into pg_temp.written (kind, object, outcome, user_id, before, after, undoes)
    select 'user', x.object, 'changed', x.user_id, x.after - 'enrolled', x.before, x.id
    from pg_temp.undoing as x where {changes}
    """).format(changes=CHANGES),
)  # fmt: skip

# An account that a file or a command created goes if it is as it was: nobody has signed in, nothing hangs on it.
CREATED = sql.SQL("""
insert into pg_temp.unfit
select x.id, x.object, x.course_id, f.reason
from pg_temp.undoing as x
left join portal.auth_user as u on u.id = x.user_id
left join portal.auth_userprofile as p on p.user_id = x.user_id
cross join lateral (
    select string_agg(n.key, ', ' order by n.key) as fields
    from jsonb_each_text(jsonb_build_object(
        'username', u.username, 'email', u.email, 'is_active', u.is_active, 'is_staff', u.is_staff,
        'is_superuser', u.is_superuser, 'meta', p.meta, {current}
    )) as n
    where coalesce(n.value, '') <> coalesce(
            x.after ->> n.key,
            case when n.key like 'is\\_%%' then 'false' when n.key = 'courseware' then 'course.xml' end, ''
        )
) as c
cross join lateral (
    select string_agg(h.name || ' ' || h.rows, ', ') as rows
    from (
        select 'enrollments' as name, count(*) as rows from portal.student_courseenrollment where user_id = u.id
        union all
        select 'groups', count(*) from portal.student_usertestgroup_users where user_id = u.id
        union all
        select 'name changes', count(*) from portal.student_pendingnamechange where user_id = u.id
        union all
        select 'decided name changes', count(*) from rollbook.name_decision where user_id = u.id
        union all
        select 'e-mail changes', count(*) from portal.student_pendingemailchange where user_id = u.id
        union all
        select 'candidates', count(*) from portal.student_testcenteruser where user_id = u.id
    ) as h
    where h.rows > 0
) as r
cross join lateral (
    select case
        when u.id is null then 'the account is gone'
        when u.last_login is not null then 'the user has signed in since'
        when c.fields is not null then 'changed since: ' || c.fields
        when not x.after ? 'password' and u.password <> '' and u.password not like '!%%' or exists (
                select from rollbook.history as h
                where h.user_id = x.user_id and h.id > x.id and (h.command = 'user password' or h.after ? 'password')
            ) then 'a password was set since'
        when r.rows is not null then 'it has rows of its own since: ' || r.rows
    end as reason
) as f
where x.kind = 'user' and x.outcome = 'created' and f.reason is not null
""").format(current=each((*USER_FIELDS, *PROFILE_FIELDS), "{text}, {table}.{name}"))

CREATED_IDS = "id in (select x.user_id from pg_temp.undoing as x where x.kind = 'user' and x.outcome = 'created')"

# Of no kind: who is deleted has a right to be forgotten, so that this undo cannot be undone.
DELETE = """
with gone as (
    delete from portal.auth_user as u
    using pg_temp.undoing as x
    where x.kind = 'user' and x.outcome = 'created' and u.id = x.user_id
    returning u.id, x.object, x.id as entry
)
insert into pg_temp.written (object, outcome, user_id, undoes)
select g.object, 'removed', g.id, g.entry from gone as g
"""
