-- trimmed_record: a test-centre record as it is stored: texts composed and trimmed, country and accommodation codes in
-- upper case.
-- Called:   by the triggers of the test-centre tables, and by candidate_faults and authorization_faults.
-- Security: INVOKER; reads nothing but its argument.
create or replace function rollbook.trimmed_record(record jsonb) returns jsonb
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select
        coalesce(jsonb_object_agg(
            f.name,
            case
                when jsonb_typeof(f.value) <> 'string' then f.value
                when f.name in ('country', 'accommodation_code')
                    then to_jsonb(upper(btrim(f.value #>> '{}', e' \t\r\n')))
                when octet_length(f.value #>> '{}') = length(f.value #>> '{}')
                    then to_jsonb(btrim(f.value #>> '{}', e' \t\r\n'))
                else to_jsonb(rollbook.normal_text(f.value #>> '{}'))
            end
        ), '{}')
    from jsonb_each(record) as f (name, value)
$$;
comment on function rollbook.trimmed_record(jsonb) is
    'A test-centre record as it is stored: texts composed and trimmed, country and accommodation codes in upper case.';
