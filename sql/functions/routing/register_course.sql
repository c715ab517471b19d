-- register_course: the first half of create_course, run as rollbook_owner: check the ID, choose the schema, record
-- both.
-- Locks:    see claim_course_id.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.register_course(new_course_id text, new_on_leave text, new_without text[])
returns name
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    chosen name;
begin
    perform rollbook.require_owner('create courses');
    if new_on_leave is null or new_on_leave not in ('keep', 'remove') then
        raise exception 'on_leave must be "keep" or "remove", not "%"', new_on_leave
            using errcode = 'RB003', hint = 'keep: user and profile stay and stay current. remove: they are deleted.';
    end if;
    perform rollbook.claim_course_id(new_course_id);
    insert into rollbook.course (course_id, schema_name, on_leave, without, due)
    select
        new_course_id, rollbook.choose_schema_name(new_course_id), new_on_leave,
        coalesce(rollbook.left_out(new_without), s.without),
        case when new_without is null then array(  -- what it leaves out only until it has another name
            select l.name from unnest(s.leaving) as l (name)
            where exists (
                select from jsonb_each_text(s.renamed) as r
                where split_part(r.key, '.', 1) || '.' || r.value = l.name
            )
        ) else '{}' end
    from rollbook.shape as s
    returning schema_name into chosen;
    return chosen;
end $$;
comment on function rollbook.register_course(text, text, text[]) is
    'First half of create_course, run as rollbook_owner: claim the ID, check on_leave, choose the schema, record the '
    'course. Raises RB003, RB005.';
