-- year_is_outside: whether the year of birth in a row is not within the last 120 years.
-- PostgreSQL puts the body in place of the call; but the trigger does not depend on the column, as it would if the
-- condition named it: a site may change the types of its own columns (Django's AlterField). The body is read with the
-- search_path of whoever writes the row: so every operator and function is named with its schema.
-- Called:   by the condition of rollbook_refuse_year_of_birth.
-- Security: INVOKER; PUBLIC may execute it, as the condition is checked with the rights of whoever writes the row.
create or replace function rollbook.year_is_outside(anyelement) returns boolean
language sql stable
as $$
    select $1.year_of_birth operator(pg_catalog.<) (extract(year from pg_catalog.now()) operator(pg_catalog.-) 119)
        or $1.year_of_birth operator(pg_catalog.>) extract(year from pg_catalog.now())
$$;
comment on function rollbook.year_is_outside(anyelement) is
    'Whether a year of birth is not within the last 120 years; for conditions of triggers.';
