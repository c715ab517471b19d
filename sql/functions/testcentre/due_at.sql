-- due_at: the time that marks a record as due for the next export: now, and always after the last upload.
-- Called:   by check_candidate, check_authorization and renew_candidates for user_updated_at. Inlined, so it has no SET
--           clause.
-- Security: INVOKER.
create or replace function rollbook.due_at(uploaded_at timestamptz) returns timestamptz
language sql volatile
as $$
    select greatest(clock_timestamp(), uploaded_at + interval '1 microsecond')
$$;
comment on function rollbook.due_at(timestamptz) is
    'The time that marks a record as due for the next export: now, and always after the last upload.';
