-- alter_site_table: run a statement that changes a table of a site that was adopted in place, such as the type of a
-- column. The view in schema portal, which depends on each of its columns, goes before and comes back after, with its
-- owner and rights. Of a table that is in schema portal itself, only the statement runs.
-- table_name:  the name in schema portal, such as auth_user.
-- Called:   by the site's migrations, in the transaction of theirs (Django: RunSQL).
-- Locks:    ACCESS EXCLUSIVE on the view until the end of the transaction, and what the statement takes.
-- Security: INVOKER: the caller owns the view and the table.
create or replace function rollbook.alter_site_table(table_name text, statement text) returns void
language plpgsql
as $$
declare
    path constant text := current_setting('search_path');
    old record;
    definition text;
    right_of_one text;
begin
    select c.oid, c.relowner::regrole as owner, array(
        select format('grant %s on portal.%I to %s', a.privilege_type, c.relname, a.grantee::regrole)
        from aclexplode(c.relacl) as a where a.grantee not in (0, c.relowner)
        union all
        select format('grant %s (%I) on portal.%I to %s', a.privilege_type, b.attname, c.relname, a.grantee::regrole)
        from pg_attribute as b, aclexplode(b.attacl) as a
        where b.attrelid = c.oid and a.grantee not in (0, c.relowner)
    ) as rights
    into old
    from pg_class as c
    where c.relnamespace = 'portal'::regnamespace and c.relname = table_name and c.relkind = 'v';
    if found then
        perform set_config('search_path', 'pg_catalog', true);  -- names in the definition have their schema
        definition := pg_get_viewdef(old.oid);
        perform set_config('search_path', path, true);
        execute format('drop view portal.%I', table_name);
    end if;
    execute statement;
    if definition is not null then
        execute format('create view portal.%I as %s', table_name, definition);
        execute format('alter view portal.%I owner to %s', table_name, old.owner);
        foreach right_of_one in array old.rights loop
            execute right_of_one;
        end loop;
    end if;
end $$;
comment on function rollbook.alter_site_table(text, text) is
    'Run a statement that changes a table of a site adopted in place, past the view in schema portal.';
