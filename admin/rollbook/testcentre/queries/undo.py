"""What the entries in pg_temp.undoing need to be undone: see rollbook.testcentre.undo and people.queries.undo."""

from __future__ import annotations

from psycopg import sql

from rollbook.testcentre.exchange_file import FIELD_NAMES

# The fields of `after` whose values are others now.
DIFFERENT = sql.SQL("""
cross join lateral (
    select string_agg(k.key, ', ' order by k.key) as fields
    from jsonb_object_keys(x.after) as k (key)
    where k.key = any({names}) and coalesce(to_jsonb(h) ->> k.key, '') <> coalesce(x.after ->> k.key, '')
) as c
""")

JUDGED = sql.SQL("""
with held as (
    select t.* from portal.{table} as t
    where t.{key} in (select {entry} from pg_temp.undoing as x where x.kind = {kind} and x.outcome = {outcome})
    order by t.id for update
)
insert into pg_temp.unfit
select x.id, x.object, x.course_id, f.reason
from pg_temp.undoing as x
left join held as h on h.{key} = {entry}
{different}
cross join lateral (
    select case when h.id is null then {gone} when c.fields is not null then 'changed since: ' || c.fields {more} end
    as reason
) as f
where x.kind = {kind} and x.outcome = {outcome} and f.reason is not null
""")

AUTHORIZATION_NAMES = (
    "eligibility_appointment_date_first", "eligibility_appointment_date_last", "accommodation_code",
    "accommodation_request",
)  # fmt: skip


def candidates_judged(outcome: str, more: sql.SQL) -> sql.Composed:
    """Return the judgement of candidates; `more` are further branches of its case."""
    return JUDGED.format(
        table=sql.Identifier("student_testcenteruser"), key=sql.Identifier("user_id"), entry=sql.SQL("x.user_id"),
        kind=sql.Literal("candidate"), outcome=sql.Literal(outcome), gone=sql.Literal("the candidate is gone"),
        different=DIFFERENT.format(names=sql.Literal(list(FIELD_NAMES))), more=more,
    )  # fmt: skip


def authorizations_judged(outcome: str, more: sql.SQL) -> sql.Composed:
    """Return the judgement of authorizations; `more` are further branches of its case."""
    return JUDGED.format(
        table=sql.Identifier("student_testcenterregistration"), key=sql.Identifier("client_authorization_id"),
        entry=sql.SQL("x.object"), kind=sql.Literal("authorization"), outcome=sql.Literal(outcome),
        gone=sql.Literal("the authorization is gone"),
        different=DIFFERENT.format(names=sql.Literal(list(AUTHORIZATION_NAMES))), more=more,
    )  # fmt: skip


CANDIDATE_CHANGED = candidates_judged("changed", sql.SQL(""))
CANDIDATE_CREATED = candidates_judged("created", sql.SQL("""
    when h.uploaded_at is not null then 'it was sent to Pearson already'
    when exists (select from portal.student_testcenterregistration as r where r.testcenter_user_id = h.id)
        then 'the candidate has authorizations'
"""))  # fmt: skip
AUTHORIZATION_CHANGED = authorizations_judged(
    "changed", sql.SQL("when h.cancelled_at is not null then 'it is cancelled'")
)
AUTHORIZED = authorizations_judged("created", sql.SQL("""
    when h.uploaded_at is not null then 'it was sent to Pearson already; cancel it: rollbook authorization cancel'
    when h.cancelled_at is not null then 'it is cancelled'
"""))  # fmt: skip

CANDIDATE_BACK = sql.SQL("""
with changed as (
    update portal.student_testcenteruser as c set {columns}
    from pg_temp.undoing as x
    where x.kind = 'candidate' and x.outcome = 'changed' and c.user_id = x.user_id
    returning x.object, x.user_id, x.before, x.after, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, user_id, before, after, undoes)
select 'candidate', c.object, 'changed', c.user_id, c.after, c.before, c.entry from changed as c
""").format(
    columns=sql.SQL(", ").join(
        sql.SQL("{name} = coalesce(x.before ->> {text}, c.{name})").format(
            name=sql.Identifier(name), text=sql.Literal(name)
        )
        for name in FIELD_NAMES
    )
)

AUTHORIZATION_BACK = """
with changed as (
    update portal.student_testcenterregistration as r
    set eligibility_appointment_date_first = coalesce(
            (x.before ->> 'eligibility_appointment_date_first')::date, r.eligibility_appointment_date_first
        ),
        eligibility_appointment_date_last = coalesce(
            (x.before ->> 'eligibility_appointment_date_last')::date, r.eligibility_appointment_date_last
        ),
        accommodation_code = coalesce(x.before ->> 'accommodation_code', r.accommodation_code),
        accommodation_request = coalesce(x.before ->> 'accommodation_request', r.accommodation_request)
    from pg_temp.undoing as x
    where x.kind = 'authorization' and x.outcome = 'changed' and r.client_authorization_id = x.object
    returning x.object, x.user_id, x.course_id, x.before, x.after, x.id as entry
)
insert into pg_temp.written (kind, object, outcome, user_id, course_id, before, after, undoes)
select 'authorization', c.object, 'changed', c.user_id, c.course_id, c.after, c.before, c.entry from changed as c
"""

CANDIDATE_IDS = (
    "user_id in (select x.user_id from pg_temp.undoing as x where x.kind = 'candidate' and x.outcome = 'created')"
)

DELETE_CANDIDATE = """
with gone as (
    delete from portal.student_testcenteruser as c
    using pg_temp.undoing as x
    where x.kind = 'candidate' and x.outcome = 'created' and c.user_id = x.user_id
    returning x.object, x.user_id, x.id as entry
)
insert into pg_temp.written (object, outcome, user_id, undoes)
select g.object, 'removed', g.user_id, g.entry from gone as g
"""

AUTHORIZATION_IDS = """
client_authorization_id in (
    select x.object from pg_temp.undoing as x where x.kind = 'authorization' and x.outcome = 'created'
)
"""

DELETE_AUTHORIZATION = """
with gone as (
    delete from portal.student_testcenterregistration as r
    using pg_temp.undoing as x
    where x.kind = 'authorization' and x.outcome = 'created' and r.client_authorization_id = x.object
    returning x.object, x.user_id, x.course_id, x.id as entry
)
insert into pg_temp.written (object, outcome, user_id, course_id, undoes)
select g.object, 'removed', g.user_id, g.course_id, g.entry from gone as g
"""
