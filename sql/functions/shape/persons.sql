-- persons: the keys of all persons. As with memberships(), PostgreSQL puts the body in place of the call.
-- Rendered: from the declaration of the shape.
-- Security: INVOKER: the caller reads the table.
create or replace function rollbook.persons()
returns table (id :person.:person_key%type)  -- noqa: LT01
language sql stable
as $$
    select p.:person_key from :person as p
$$;
comment on function rollbook.persons() is 'The keys of all persons.';
