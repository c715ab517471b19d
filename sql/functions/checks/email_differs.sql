-- email_differs: whether two rows have different e-mail addresses.
-- PostgreSQL puts the body in place of the call; but the trigger does not depend on the column, as it would if the
-- condition named it: a site may change the types of its own columns (Django's AlterField). The body is read with the
-- search_path of whoever writes the row: so every operator and function is named with its schema.
-- Called:   by the condition of rollbook_renew_candidate.
-- Security: INVOKER; PUBLIC may execute it, as the condition is checked with the rights of whoever writes the row.
create or replace function rollbook.email_differs(anyelement, anyelement) returns boolean
language sql immutable
as $$
    select ($1.email operator(pg_catalog.=) $2.email) is not true
$$;
comment on function rollbook.email_differs(anyelement, anyelement) is
    'Whether two rows have different e-mail addresses; for conditions of triggers.';
