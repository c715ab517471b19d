-- normal_name: a person's name as it is stored: composed (NFC), without white space at both ends.
-- Called:   by whoever writes a name, before name_fault; by check_name for every write.
-- Security: INVOKER; computes only.
create or replace function rollbook.normal_name(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return rollbook.normal_text(value);
end $$;
comment on function rollbook.normal_name(text) is
    'A person''s name as it is stored: composed (NFC), without white space at both ends.';
