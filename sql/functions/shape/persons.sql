-- persons: the keys of all persons. As memberships(), PostgreSQL puts the body in place of the call.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.persons()
returns table (id portal.auth_user.id%type)  -- noqa: LT01
language sql stable
as $$
    select p.id from portal.auth_user as p
$$;
comment on function rollbook.persons() is 'The keys of all persons.';
