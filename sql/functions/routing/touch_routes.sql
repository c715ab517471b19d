-- touch_routes: write the routes of users whose rows changed, and return the schemas that hold their copies.
-- Every path that changes the content of a copy first writes the user's route row, in user-id order. So two paths that
-- meet at one user run one after the other, or the one with the older snapshot gets 40001. Locking the row instead
-- would not do: a REPEATABLE READ transaction does not notice a lock that was released.
-- Called:   by all routing but join_courses, and by repair. It reads a portal table only while users are deleted: a
--           TRUNCATE that waits for the caller may hold that table.
-- Locks:    a write of each user's rollbook.route row.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.touch_routes(user_ids bigint[])
returns table (schema_name text, holders bigint[])
language plpgsql
as $$
begin
    if current_setting('rollbook.user_deletion', true) = pg_current_xact_id()::text then
        -- In the cascade of a deletion: deleted users are finished and get no new route.
        user_ids := array(select u.id from rollbook.persons() as u where u.id = any (user_ids));
    end if;
    return query
    with touched as (
        insert into rollbook.route as r (user_id)
        select distinct u.id from unnest(user_ids) as u (id) where u.id is not null order by u.id
        on conflict (user_id) do update set written = r.written + 1
        returning r.user_id, r.schemas
    )
    select held.schema_name, array_agg(touched.user_id order by touched.user_id)
    from touched, unnest(touched.schemas) as held (schema_name)
    group by held.schema_name
    order by held.schema_name;
end $$;
comment on function rollbook.touch_routes(bigint[]) is
    'Write the routes of users whose rows changed; return each schema that holds copies, with its users.';
