-- candidate_draft: the fields of a candidate's record that the account has: the names, and the lines of the postal
-- address. Values that the test centre would refuse are left out, for a person to fill in.
-- Called:   by a web application for an empty form, and by `rollbook candidate`.
-- Security: INVOKER.
create or replace function rollbook.candidate_draft(drafted_user_id bigint) returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(jsonb_object_agg(f.name, f.value), '{}')
    from (
        select
            rollbook.normal_text(u.first_name) as first_name, rollbook.normal_text(u.last_name) as last_name,
            regexp_split_to_array(rollbook.normal_text(p.name), '\s+') as names,
            regexp_split_to_array(rollbook.normal_text(p.mailing_address), '\s*[\r\n]+\s*') as lines
        from portal.auth_user as u left join portal.auth_userprofile as p on p.user_id = u.id
        where u.id = drafted_user_id
    ) as a
    cross join lateral (
        -- The last word of a full name is the family name, unless the account has both names.
        select case when a.first_name = '' and a.last_name = '' then cardinality(a.names) end as words
    ) as n
    cross join lateral (
        values
        ('first_name', coalesce(array_to_string(a.names[: n.words - 1], ' '), a.first_name), 30),
        ('last_name', coalesce(a.names[n.words], a.last_name), 50),
        ('address_1', a.lines[1], 40),
        ('address_2', a.lines[2], 40),
        ('address_3', a.lines[3], 40)
    ) as f (name, value, width)
    where f.value <> '' and rollbook.text_fault(f.value, f.width, true) is null
        and (f.name not like 'address%' or cardinality(a.lines) <= 3)
$$;
comment on function rollbook.candidate_draft(bigint) is
    'The fields of a candidate''s record that the account has: the names, and the lines of the postal address.';
