-- text_fault: the fault of one text that goes into a file for the test centre; null for none.
-- Called:   by candidate_faults and authorization_faults, and for a record that was stored before.
-- Security: INVOKER; reads nothing but its arguments.
create or replace function rollbook.text_fault(value text, width integer, required boolean) returns text
language sql
immutable
set search_path = pg_catalog, pg_temp
as $$
    select case
        when required and coalesce(value, '') = '' then 'This field is required.'
        when length(value) > width
            then format('Ensure this value has at most %s characters (it has %s).', width, length(value))
        when value ~ '[^\u0001-\u00ff]' then (
            select
                'Must only use characters in Latin-1 (iso-8859-1) encoding, not ' || rollbook.character_word(f.seen)
                || coalesce('; write ' || case
                    when f.seen ~ '[\u2018-\u201b\u02b9-\u02bc\u2032]' then ''''
                    when f.seen ~ '[\u201c-\u201f\u2033]' then '"'
                    when f.seen ~ '[\u2010-\u2015\u2212]' then '-'
                end, '')
            from substring(value from '[^\u0001-\u00ff]') as f (seen)
        )
        when value ~ '[\u0001-\u001f\u007f-\u009f]' then 'Must not contain control characters.'
    end
$$;
comment on function rollbook.text_fault(text, integer, boolean) is
    'The fault of one text that goes into a file for the test centre; null for none.';
