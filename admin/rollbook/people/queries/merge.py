"""Two accounts of one person: what of the first goes to the second. Every statement has %(source)s and %(target)s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from rollbook.core.referring import Reference, replaced
from rollbook.core.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rollbook.core.db import Conn

Ids = dict[str, Any]

LOCK = """
select id, username, email, is_staff, is_superuser from portal.auth_user
where id in (%(source)s, %(target)s) order by id for update
"""

# The candidates of both, and whether the test centre has heard of one or of an authorization of it.
CANDIDATES = """
select
    c.user_id, c.id, c.client_candidate_id,
    c.uploaded_at is not null or exists (
        select from portal.student_testcenterregistration as a
        where a.testcenter_user_id = c.id and a.uploaded_at is not null
    ) as is_sent
from portal.student_testcenteruser as c where c.user_id in (%(source)s, %(target)s) order by c.id for update
"""

# An enrollment of the second that does not count, by the condition of the shape, gives way to one that does.
DORMANT = """
o.user_id = %(target)s and o.id not in (select m.id from rollbook.memberships() as m where m.user_id = %(target)s)
    and exists (
        select from rollbook.memberships() as m where m.user_id = %(source)s and m.course_id = o.course_id
    )
"""

END_DORMANT = sql.SQL("""
delete from portal.student_courseenrollment as o where {dormant}
returning o.course_id as name, format('of id:%%s; it did not count', o.user_id) as detail
""").format(dormant=sql.SQL(DORMANT))

# Where a course removes the copies of whoever leaves, and tables of its own refer to them, the first user gets another
# enrollment for the rest of the transaction: the copies stay until those rows refer to the second's.
MOVE_ENROLLMENTS: LiteralString = """
with moved as (
    update portal.student_courseenrollment as e set user_id = %(target)s
    where e.user_id = %(source)s and not exists (
        select from portal.student_courseenrollment as t where t.user_id = %(target)s and t.course_id = e.course_id
    )
    returning e.course_id
),
staying as (
    insert into portal.student_courseenrollment (user_id, course_id)
    select %(source)s, m.course_id
    from moved as m
    inner join rollbook.course as c on c.course_id = m.course_id and c.on_leave = 'remove'
    where exists (
        select from rollbook.copied_tables() as t
        inner join pg_constraint as k
            on k.confrelid = to_regclass(format('%%I.%%I', c.schema_name, t.table_name)) and k.contype = 'f'
    )
)
select m.course_id as name, null as detail from moved as m
"""

# What is done, in this order: what moves and what goes. Each returns rows of name and detail.
STEPS: tuple[tuple[str, str, LiteralString | sql.Composed], ...] = (
    ("enrollment", "removed", END_DORMANT),
    ("enrollment", "kept", """
        select e.course_id as name, 'both are enrolled' as detail
        from portal.student_courseenrollment as e
        inner join portal.student_courseenrollment as t on t.user_id = %(target)s and t.course_id = e.course_id
        where e.user_id = %(source)s order by 1
    """),
    ("enrollment", "moved", MOVE_ENROLLMENTS),
    ("group", "moved", """
        update portal.student_usertestgroup_users as m set user_id = %(target)s
        from portal.student_usertestgroup as g
        where m.user_id = %(source)s and g.id = m.usertestgroup_id and not exists (
            select from portal.student_usertestgroup_users as t
            where t.user_id = %(target)s and t.usertestgroup_id = m.usertestgroup_id
        )
        returning g.name, null as detail
    """),
    ("group", "kept", """
        select g.name, 'both are members' as detail
        from portal.student_usertestgroup_users as m
        inner join portal.student_usertestgroup as g on g.id = m.usertestgroup_id
        where m.user_id = %(source)s order by 1
    """),
    ("authorization", "moved", """
        update portal.student_testcenterregistration as a set testcenter_user_id = t.id
        from portal.student_testcenteruser as s, portal.student_testcenteruser as t
        where s.user_id = %(source)s and t.user_id = %(target)s and a.testcenter_user_id = s.id
            and a.cancelled_at is null and not exists (
                select from portal.student_testcenterregistration as b
                where b.testcenter_user_id = t.id and b.cancelled_at is null
                    and b.course_id = a.course_id and b.exam_series_code = a.exam_series_code
            )
        returning a.client_authorization_id as name, concat_ws(' ', a.course_id, a.exam_series_code) as detail
    """),
    ("candidate", "moved", """
        update portal.student_testcenteruser as c set user_id = %(target)s
        where c.user_id = %(source)s and not exists (
            select from portal.student_testcenteruser as t where t.user_id = %(target)s
        )
        returning c.client_candidate_id as name, (
            select case when count(*) > 0 then format('authorizations: %%s', count(*)) end
            from portal.student_testcenterregistration as a where a.testcenter_user_id = c.id
        ) as detail
    """),
    ("authorization", "removed", """
        select a.client_authorization_id as name, concat_ws(' ', a.course_id, a.exam_series_code) as detail
        from portal.student_testcenterregistration as a
        inner join portal.student_testcenteruser as c on c.id = a.testcenter_user_id
        where c.user_id = %(source)s order by 1
    """),
    ("candidate", "removed", """
        select c.client_candidate_id as name, 'it was never sent' as detail
        from portal.student_testcenteruser as c where c.user_id = %(source)s
    """),
    ("name change", "moved", """
        update portal.student_pendingnamechange as c set user_id = %(target)s
        where c.user_id = %(source)s and not exists (
            select from portal.student_pendingnamechange as t where t.user_id = %(target)s
        )
        returning c.new_name as name, null as detail
    """),
    ("name change", "removed", """
        select c.new_name as name, 'both had asked' as detail
        from portal.student_pendingnamechange as c where c.user_id = %(source)s
    """),
    ("e-mail change", "removed", """
        select c.new_email as name, 'its key was for the other account' as detail
        from portal.student_pendingemailchange as c where c.user_id = %(source)s
    """),
    ("name decision", "moved", """
        update rollbook.name_decision as d set user_id = %(target)s where d.user_id = %(source)s
        returning d.new_name as name, d.state as detail
    """),
    ("bundle row", "moved", """
        with person as (
            update rollbook.roster_person as p set user_id = %(target)s where p.user_id = %(source)s
            returning p.sourced_id, p.source
        ),
        seat as (
            update rollbook.roster_enrollment as e set user_id = %(target)s where e.user_id = %(source)s
            returning e.sourced_id, e.source
        )
        select r.sourced_id as name, 'source ' || r.source as detail
        from (select * from person union all select * from seat) as r order by 1
    """),
    ("profile", "moved", """
        update portal.auth_userprofile as p set user_id = %(target)s
        where p.user_id = %(source)s and not exists (
            select from portal.auth_userprofile as t where t.user_id = %(target)s
        )
        returning p.name, format('id:%%s had none', p.user_id) as detail
    """),
    ("allowed", "moved", """
        with entry as (
            select a.id, row_number() over (partition by a.course_id order by a.auto_enroll desc, a.id) as turn
            from portal.student_courseenrollmentallowed as a
            inner join portal.auth_user as s on s.id = %(source)s
            inner join portal.auth_user as t on t.id = %(target)s
            where lower(a.email) = lower(s.email) and t.email <> '' and not exists (
                select from portal.student_courseenrollmentallowed as b
                where b.course_id = a.course_id and lower(b.email) = lower(t.email)
            )
        )
        update portal.student_courseenrollmentallowed as a
        set email = (select t.email from portal.auth_user as t where t.id = %(target)s)
        from entry as e where e.id = a.id and e.turn = 1
        returning a.course_id as name, a.email as detail
    """),
    ("allowed", "removed", """
        delete from portal.student_courseenrollmentallowed as a
        using portal.auth_user as s, portal.auth_user as t
        where s.id = %(source)s and t.id = %(target)s and lower(a.email) = lower(s.email) and t.email <> ''
        returning a.course_id as name, a.email as detail
    """),
)  # fmt: skip

# The lists of the first come before its own name and address, and those of the second before all of them.
KEEP_IN_META = """
update portal.auth_userprofile as p
set meta = (coalesce(nullif(p.meta, ''), '{}')::jsonb || kept.lists)::text
from (
    select jsonb_object_agg(f.name, coalesce(f.of_target, '[]') || coalesce(f.of_source, '[]') || f.entry) as lists
    from (
        select l.name, t.meta -> l.name as of_target, s.meta -> l.name as of_source, l.entry
        from (
            select p.name, nullif(p.meta, '')::jsonb as meta
            from portal.auth_userprofile as p where p.user_id = %(target)s
        ) as t
        cross join portal.auth_user as u
        left join (
            select p.name, nullif(p.meta, '')::jsonb as meta
            from portal.auth_userprofile as p where p.user_id = %(source)s
        ) as s on true
        cross join lateral (
            values
            ('old_names', case when s.name not in ('', t.name) then jsonb_build_array(
                jsonb_build_array(s.name, %(reason)s::text, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
            ) else '[]' end),
            ('old_emails', case when u.email <> '' then jsonb_build_array(
                jsonb_build_array(u.email, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
            ) else '[]' end)
        ) as l (name, entry)
        where u.id = %(source)s
    ) as f
    where f.entry <> '[]' or f.of_source <> '[]'
) as kept
where p.user_id = %(target)s and kept.lists is not null
"""

# The deletion of the first is queued by its trigger.
TELL_DISCUSSION = """
insert into rollbook.discussion_outbox (user_id, operation, username, email)
select u.id, 'put', u.username, u.email
from portal.auth_user as u cross join rollbook.discussion as d
where u.id = %(target)s and d.active
"""

# The tables whose rows of the first user go with it, and what pairs a row with the second user's.
OWN: dict[LiteralString, tuple[LiteralString, LiteralString]] = {
    "auth_user": ("o.id = %(source)s", "n.id = %(target)s"),
    "auth_userprofile": ("o.user_id = %(source)s", "n.user_id = %(target)s"),
    "auth_registration": ("o.user_id = %(source)s", "n.user_id = %(target)s"),
    "student_courseenrollment": ("o.user_id = %(source)s", "n.user_id = %(target)s and n.course_id = o.course_id"),
    "student_usertestgroup_users": (
        "o.user_id = %(source)s", "n.user_id = %(target)s and n.usertestgroup_id = o.usertestgroup_id",
    ),
    "student_pendingnamechange": ("o.user_id = %(source)s", "n.user_id = %(target)s"),
    "student_pendingemailchange": ("o.user_id = %(source)s", "false"),
    "student_testcenteruser": ("o.user_id = %(source)s", "n.user_id = %(target)s"),
    "student_testcenterregistration": (
        "o.testcenter_user_id in (select c.id from portal.student_testcenteruser as c where c.user_id = %(source)s)",
        "false",
    ),
}  # fmt: skip

TABLES = """
select t.name, rollbook.portal_table(t.name)::oid as oid from unnest(%s::text[]) as t (name)
"""

# The copies of the first user, and whether the second has copies there.
COPIES = """
select
    t.table_name as name, to_regclass(format('%%I.%%I', held.schema_name, t.table_name))::oid as oid,
    coalesce(held.schema_name = any (n.schemas), false) as is_there
from rollbook.route as r
cross join unnest(r.schemas) as held (schema_name)
cross join rollbook.copied_tables() as t
left join rollbook.route as n on n.user_id = %(target)s
where r.user_id = %(source)s
order by held.schema_name, t.ordinal
"""

# Columns that courses added to copies which go, by table: their values go too.
OWN_COLUMNS = """
select held.schema_name || '.' || t.table_name as name, string_agg(a.attname, ', ' order by a.attnum) as detail
from rollbook.route as r
cross join unnest(r.schemas) as held (schema_name)
cross join rollbook.copied_tables() as t
inner join pg_attribute as a
    on a.attrelid = to_regclass(format('%%I.%%I', held.schema_name, t.table_name)) and a.attnum > 0
    and not a.attisdropped and a.attname <> all (rollbook.replicated_columns(t.table_name))
where r.user_id = %(source)s and t.role <> 'membership'
group by held.schema_name, t.table_name, t.ordinal
order by held.schema_name, t.ordinal
"""


def lock(conn: Conn, ids: Ids) -> dict[int, Row]:
    """Lock the rows of both users in the order of their ids, and return those that are there, by id."""
    return {row["id"]: row for row in conn.execute(LOCK, ids)}


def candidates(conn: Conn, ids: Ids) -> dict[int, Row]:
    """Lock the candidates of both and return them by user: id, client_candidate_id, is_sent."""
    return {row["user_id"]: row for row in conn.execute(CANDIDATES, ids)}


def keep_in_meta(conn: Conn, ids: Ids, reason: str) -> None:
    """Keep the first user's name and address, and the older ones, in the second's profile."""
    conn.execute(KEEP_IN_META, ids | {"reason": reason})


def tell_discussion(conn: Conn, ids: Ids) -> None:
    """Queue the second user for the discussion service, if it is active."""
    conn.execute(TELL_DISCUSSION, ids)


def own_columns(conn: Conn, ids: Ids) -> list[Row]:
    """Return the tables of courses with columns of their own in the first user's copies: name, detail."""
    return conn.execute(OWN_COLUMNS, ids).fetchall()


def dormant_references(conn: Conn, ids: Ids) -> Iterator[Reference]:
    """Yield what refers to the second user's enrollments that give way."""
    tables = {row["name"]: row["oid"] for row in conn.execute(TABLES, [list(OWN)]).fetchall()}
    place = sql.Identifier("portal", "student_courseenrollment")
    match: LiteralString = "n.user_id = %(source)s and n.course_id = o.course_id"
    oid = tables["student_courseenrollment"]
    yield from replaced(conn, oid, place, sql.SQL(DORMANT), sql.SQL(match), ids, set(tables.values()))


def references(conn: Conn, ids: Ids) -> Iterator[Reference]:
    """Yield what refers to the rows and copies that go with the first user, in tables that are not ours."""
    tables = {row["name"]: row["oid"] for row in conn.execute(TABLES, [list(OWN)]).fetchall()}
    copies = [row for row in conn.execute(COPIES, ids).fetchall() if row["oid"] is not None]
    ours = {*tables.values(), *(row["oid"] for row in copies)}
    for name, (which, match) in OWN.items():
        place = sql.Identifier("portal", name)
        yield from replaced(conn, tables[name], place, sql.SQL(which), sql.SQL(match), ids, ours)
    for row in copies:
        which, match = OWN[row["name"]]
        place = sql.Identifier("portal", row["name"])  # the copies have the portal's keys
        there = sql.SQL(match if row["is_there"] else "false")
        yield from replaced(conn, row["oid"], place, sql.SQL(which), there, ids, ours)
