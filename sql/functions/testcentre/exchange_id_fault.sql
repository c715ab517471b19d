-- exchange_id_fault: the fault of one of our ids at the test centre; null for none. Answers are found by it, so it is
-- taken as it is, never trimmed.
-- Called:   by candidate_faults and authorization_faults, and by an export for ids that were stored before.
-- Security: INVOKER; reads nothing but its arguments.
create or replace function rollbook.exchange_id_fault(value text, width integer) returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(rollbook.text_fault(value, width, true), case
        when value ~ '^[ \u00a0]|[ \u00a0]$' then 'Must not begin or end with a blank.'
    end)
$$;
comment on function rollbook.exchange_id_fault(text, integer) is
    'The fault of one of our ids at the test centre; null for none.';
