-- normal_email: an e-mail address as it is stored: composed (NFC), without white space at both ends. The capitals stay.
-- Called:   by whoever writes an address, before email_fault; by check_account and check_email for every write.
-- Security: INVOKER; computes only.
create or replace function rollbook.normal_email(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return rollbook.normal_text(value);
end $$;
comment on function rollbook.normal_email(text) is
    'An e-mail address as it is stored: composed (NFC), without white space at both ends.';
