-- candidate_faults: all faults of a candidate's record, one row a field, in the order of the form. The widths and the
-- required fields are listed here. An `email` and a `client_candidate_id` are checked if the record has
-- them: the file contains them too.
-- Called:   by check_candidate for every write, and by `rollbook candidate`.
-- Security: INVOKER; reads rollbook.country.
create or replace function rollbook.candidate_faults(candidate jsonb) returns table (field text, problem text)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    -- Materialized, so that the record is trimmed once, not for each field.
    with r as materialized (select rollbook.trimmed_record(candidate) as record),
    given as (
        select w.place, w.name, coalesce(r.record ->> w.name, '') as value, r.record,
            rollbook.text_fault(r.record ->> w.name, w.width, w.required) as fault
        from r
        cross join (
            values
            (1, 'first_name', 30, true), (2, 'middle_name', 30, false), (3, 'last_name', 50, true),
            (4, 'suffix', 255, false), (5, 'salutation', 50, false),
            (6, 'address_1', 40, true), (7, 'address_2', 40, false), (8, 'address_3', 40, false),
            (9, 'city', 32, true), (10, 'state', 20, false), (11, 'postal_code', 16, false), (12, 'country', 3, true),
            (13, 'phone', 35, true), (14, 'extension', 8, false), (15, 'phone_country_code', 3, true),
            (16, 'fax', 35, false), (17, 'fax_country_code', 3, false), (18, 'company_name', 50, false),
            (19, 'email', 254, false)
        ) as w (place, name, width, required)
    ),
    judged as (
        select
            g.place, g.name,
            coalesce(g.fault, case
                when g.name = 'country' and not exists (select from rollbook.country as c where c.code = g.value)
                    then 'Must be three characters (ISO 3166-1):  e.g. USA, CAN, MNG'
                when
                    g.name in ('state', 'postal_code') and g.value = '' and g.record ->> 'country' in ('USA', 'CAN')
                    then 'Required if country is USA or CAN.'
                when g.name = 'fax_country_code' and g.value = '' and g.record ->> 'fax' <> ''
                    then 'Required if fax is specified.'
            end) as fault
        from given as g
        union all
        select 0, 'client_candidate_id', rollbook.exchange_id_fault(candidate ->> 'client_candidate_id', 50)
        where candidate ? 'client_candidate_id'
    )
    select j.name, j.fault from judged as j where j.fault is not null order by j.place
$$;
comment on function rollbook.candidate_faults(jsonb) is
    'All faults of a candidate''s record: field and problem, in the order of the form.';
