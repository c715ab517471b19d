-- lock_portal: lock the tables that are copied against TRUNCATE and changes of their columns, before anybody holds a
-- route.
-- Rendered: from the declaration of the shape.
-- Called:   by join_courses, route_enrollment_update, fill_course, repair_copies and repair_users.
-- Locks:    ACCESS SHARE on each, parents first.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.lock_portal() returns void
language plpgsql
as $$
begin
    lock table :relations in access share mode;
end $$;
comment on function rollbook.lock_portal() is
    'Lock the tables that are copied against TRUNCATE and changes of their columns, before anybody holds a route.';
