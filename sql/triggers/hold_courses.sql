-- hold_courses: allow no course to be created or dropped while users are being deleted.
-- Fires:    BEFORE DELETE on the person table, once per statement, so before the first row is locked.
-- Locks:    see lock_course_set, shared: deletions do not wait for one another.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.hold_courses() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_relid <> :'person'::regclass or tg_name <> 'rollbook_hold_courses' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    perform rollbook.lock_course_set(is_exclusive => false);
    return null;  -- PostgreSQL ignores what a statement trigger returns
end $$;
create or replace trigger rollbook_hold_courses before delete on :person
    for each statement execute function rollbook.hold_courses();
comment on function rollbook.hold_courses() is
    'Trigger function: lock the set of courses while users are deleted, so that none is created or dropped meanwhile.';
comment on trigger rollbook_hold_courses on :person is
    'Before users are deleted: lock the set of courses, so that none is created or dropped meanwhile.';
