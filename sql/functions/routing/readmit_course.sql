-- readmit_course: record a course whose schema is there already, paused, with routes for whoever has copies in it and
-- an account in the portal, and for whoever is enrolled. reopen_course makes the copies current.
-- kept:     its row of rollbook.course as archive_course gave it: schema_name, on_leave, on_fault, without, closed_at,
--           closed_by.
-- Called:   by readmit_schema.
-- Raises:   RB003, RB005, RB028, RB054 for a schema that is another course's, or none.
-- Locks:    see claim_course_id; a write of the rollbook.route rows of these users, in user-id order.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.readmit_course(old_course_id text, kept jsonb) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    old_schema constant text := kept ->> 'schema_name';
    person record;
    routed_ids bigint[];
begin
    perform rollbook.require_owner('restore courses');
    if old_schema is null or not starts_with(old_schema, 'course_') then
        raise exception 'schema % is not one of a course', coalesce(old_schema, 'null')
            using errcode = 'RB054', hint = 'The schemas of courses begin with course_.';
    end if;
    perform rollbook.claim_course_id(old_course_id);
    insert into rollbook.course (
        course_id, schema_name, on_leave, on_fault, without, closed_at, closed_by, paused_at, paused_by, pause_reason
    )
    values (
        old_course_id, old_schema, kept ->> 'on_leave', kept ->> 'on_fault',
        rollbook.left_out(array(select jsonb_array_elements_text(kept -> 'without'))),
        (kept ->> 'closed_at')::timestamptz, kept ->> 'closed_by', clock_timestamp(), session_user, 'being restored'
    );
    select * into person from rollbook.copied_tables() as t where t.role = 'person';
    if kept ->> 'on_leave' = 'keep' and to_regclass(format('%I.%I', old_schema, person.table_name)) is not null then
        execute format(
            'select array(select c.%3$I from %1$I.%2$I as c inner join rollbook.persons() as u on u.id = c.%3$I)',
            old_schema, person.table_name, person.key_column
        ) into routed_ids;
    end if;
    insert into rollbook.route as r (user_id, schemas)
    select m.user_id, array[old_schema]
    from (
        select e.user_id from rollbook.memberships_of(old_course_id) as e union select unnest(routed_ids)
    ) as m
    order by m.user_id
    on conflict (user_id) do update set written = r.written + 1, schemas = r.schemas || excluded.schemas;
exception when unique_violation then
    raise exception 'schema % belongs to another course', old_schema
        using errcode = 'RB054', hint = 'Rename or delete that course first.';
end $$;
comment on function rollbook.readmit_course(text, jsonb) is
    'Record a course whose schema is there already, paused, with the routes to it. Raises RB003, RB005, RB028, RB054.';
