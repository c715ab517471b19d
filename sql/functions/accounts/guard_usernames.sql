-- guard_usernames: make, change or drop the trigger of refuse_taken_username, so that it names the usernames which
-- the unique index leaves out, and those that collide.
-- Called:   by grants, and by a DBA after the index was made again, as `schema check` prints it.
-- Locks:    SHARE ROW EXCLUSIVE on portal.auth_user, only where accounts collide or did.
-- Security: INVOKER: the role that migrates.
create or replace function rollbook.guard_usernames() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    place constant regclass := rollbook.portal_table('auth_user');
    names text[];
begin
    -- Where the unique index leaves nobody out, nothing collides, and the table need not be read.
    select array_agg(distinct n.name order by n.name) into names
    from (
        select unnest(
            substring(pg_get_expr(i.indpred, i.indrelid) from '<> ALL \(''(.*)''::text\[\]')::text[]
        ) as name
        from pg_index as i where i.indrelid = place and i.indisunique and i.indpred is not null
            and pg_get_indexdef(i.indexrelid, 1, true) like 'lower(username%'
        union all
        select u.name from rollbook.colliding_usernames() as u
        where not exists (
            select from pg_index as i where i.indrelid = place and i.indisunique and i.indisvalid and i.indpred is null
                and pg_get_indexdef(i.indexrelid, 1, true) like 'lower(username%' and i.indnatts = 1
        )
    ) as n;
    if names is not null then
        execute format(
            'create or replace trigger rollbook_refuse_taken_username before insert or update on %s for each row '
            'execute function rollbook.refuse_taken_username(%s)',
            place, (select string_agg(quote_literal(n.name), ', ' order by n.name) from unnest(names) as n (name))
        );
        execute format(
            'comment on trigger rollbook_refuse_taken_username on %s is %L', place,
            'Refuse another account with a username that several have, in other capitals.'
        );
    elsif exists (
        select from pg_trigger as t where t.tgrelid = place and t.tgname = 'rollbook_refuse_taken_username'
    ) then
        execute format('drop trigger rollbook_refuse_taken_username on %s', place);
    end if;
end $$;
comment on function rollbook.guard_usernames() is
    'Make, change or drop the trigger that guards usernames which several accounts have, in other capitals.';
