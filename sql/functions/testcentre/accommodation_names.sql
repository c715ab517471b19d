-- accommodation_names: the names of an authorization's accommodation codes, which are joined by *.
-- Called:   by the view authorization_status, and by authorization_faults to find unknown codes.
-- Security: INVOKER; reads nothing but its argument.
create or replace function rollbook.accommodation_names(codes text) returns text[]
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(coalesce(n.name, 'Unknown code ' || c.code) order by c.place), '{}')
    from regexp_split_to_table(codes, '[*]') with ordinality as c (code, place)
    left join (
        values
        ('NONE', 'No Accommodation Granted'),
        ('EQPMNT', 'Equipment'),
        ('ET12ET', 'Extra Time - 1/2 Exam Time'),
        ('ET30MN', 'Extra Time - 30 Minutes'),
        ('ETDBTM', 'Extra Time - Double Time'),
        ('SEPRMM', 'Separate Room'),
        ('SRREAD', 'Separate Room and Reader'),
        ('SRRERC', 'Separate Room and Reader/Recorder'),
        ('SRRECR', 'Separate Room and Recorder'),
        ('SRSEAN', 'Separate Room and Service Animal'),
        ('SRSGNR', 'Separate Room and Sign Language Interpreter')
    ) as n (code, name) on n.code = c.code
    where c.code <> ''
$$;
comment on function rollbook.accommodation_names(text) is
    'The names of accommodation codes, which are joined by *; an unknown code X is named Unknown code X.';
