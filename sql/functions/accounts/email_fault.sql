-- email_fault: why a text cannot be an e-mail address, as far as a cheap rule can see; null if it can, or is empty,
-- which means none. The command line checks the rest; what is refused here it refuses too.
-- Called:   by check_account and check_email for every write, by imports, and by a web application for its form.
-- Security: INVOKER; computes only.
create or replace function rollbook.email_fault(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant text := rollbook.normal_email(value);
    odd constant text := coalesce(
        substring(wanted from '[ \u0009-\u000d\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'),
        rollbook.hidden_character(wanted)
    );
begin
    return case
        when value = '' then null
        when length(wanted) > 254
            then format('an e-mail address has at most 254 characters (it has %s)', length(wanted))
        when odd is not null then format('%s has no place in an e-mail address', rollbook.character_word(odd))
        when wanted !~ '^[^@]+@[^@]+$' then 'this is not an e-mail address'
    end;
end $$;
comment on function rollbook.email_fault(text) is
    'Why a text cannot be an e-mail address, in words; null if it can, or is empty.';
