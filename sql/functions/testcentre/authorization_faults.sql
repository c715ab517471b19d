-- authorization_faults: all faults of an authorization, one row a field. A `client_authorization_id` is checked if the
-- record has one.
-- Called:   by check_authorization for every write, and by `rollbook authorization`.
-- Security: INVOKER; reads nothing but its argument.
create or replace function rollbook.authorization_faults(registration jsonb) returns table (field text, problem text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    -- Materialized, so that the record is trimmed once, not for each field.
    with given as materialized (
        select
            r.record, r.record ->> 'accommodation_code' as codes,
            r.record ->> 'eligibility_appointment_date_first' as first,
            r.record ->> 'eligibility_appointment_date_last' as last,
            (
                select string_agg(format('"%s"', c.code), ', ')
                from regexp_split_to_table(nullif(r.record ->> 'accommodation_code', ''), '[*]') as c (code)
                where c.code = '' or rollbook.accommodation_names(c.code) = array['Unknown code ' || c.code]
            ) as unknown
        from (select rollbook.trimmed_record(registration) as record) as r
    )
    select f.name, f.fault
    from given as g
    cross join lateral (
        values
        (0, 'client_authorization_id', case when registration ? 'client_authorization_id'
            then rollbook.exchange_id_fault(registration ->> 'client_authorization_id', 20)
        end),
        (1, 'course_id', case
            when coalesce(g.record ->> 'course_id', '') = '' then 'This field is required.'
            when length(g.record ->> 'course_id') > 128 then format(
                'Ensure this value has at most 128 characters (it has %s).', length(g.record ->> 'course_id')
            )
        end),
        (2, 'exam_series_code', rollbook.text_fault(g.record ->> 'exam_series_code', 15, true)),
        (3, 'eligibility_appointment_date_first', case
            when coalesce(g.first, '') = '' then 'First appointment date must be specified'
            when g.first !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then 'The year must be between 1 and 9999.'
            when g.first > g.last then 'First appointment date must be before last appointment date'
        end),
        (4, 'eligibility_appointment_date_last', case
            when coalesce(g.last, '') = '' then 'Last appointment date must be specified'
            when g.last !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then 'The year must be between 1 and 9999.'
        end),
        (5, 'accommodation_code', case
            when g.unknown is not null then format('Invalid accommodation code specified: %s', g.unknown)
            when (select count(*) > count(distinct c.code) from regexp_split_to_table(g.codes, '[*]') as c (code))
                then 'A code occurs twice.'
            when g.codes <> 'NONE' and 'NONE' = any(string_to_array(g.codes, '*'))
                then 'NONE refuses all accommodations and cannot be combined with other codes.'
        end),
        (6, 'accommodation_request', case
            when length(g.record ->> 'accommodation_request') > 1024 then format(
                'Ensure this value has at most 1024 characters (it has %s).',
                length(g.record ->> 'accommodation_request')
            )
        end)
    ) as f (place, name, fault)
    where f.fault is not null
    order by f.place
$$;
comment on function rollbook.authorization_faults(jsonb) is
    'All faults of an authorization: field and problem.';
