-- replicated_columns: THE WHITELIST. The columns of a portal table that travel to a course, in the copy's order.
-- The copies' tables, their guards, bulk routing, verify and repair are built from it. Three triggers also spell the
-- columns out, because building a comparison for a single row costs time: route_user_update, route_profile_update and
-- route_enrollment_update. `tests/tools/check_plpgsql.py` compares their lists with this one.
-- Rendered: from the declaration of the shape.
-- Called:   by Rollbook's functions; null for a table that is not replicated.
-- Security: INVOKER; constant.
create or replace function rollbook.replicated_columns(table_name text) returns text[]
language sql immutable parallel safe
as $$
    select case table_name
        :replicated_columns
    end
$$;
comment on function rollbook.replicated_columns(text) is
    'THE WHITELIST: the columns of a portal table that travel to a course, in the copy''s order; null for other '
    'tables.';
