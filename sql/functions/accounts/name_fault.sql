-- name_fault: why a text cannot be a person's name; null if it can, or is empty, which means none.
-- Called:   by check_name for every write, by `rollbook user import`, and by a web application for its form.
-- Security: INVOKER; computes only.
create or replace function rollbook.name_fault(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant text := rollbook.normal_name(value);
    hidden constant text := rollbook.hidden_character(wanted);
begin
    return case
        when value = '' then null
        when length(wanted) < 2 then 'a name has at least two characters'
        when length(wanted) > 255 then format('a name has at most 255 characters (it has %s)', length(wanted))
        when hidden is not null then format('%s has no place in a name', rollbook.character_word(hidden))
    end;
end $$;
comment on function rollbook.name_fault(text) is
    'Why a text cannot be a person''s name, in words; null if it can, or is empty.';
