-- normal_text: a text as it is stored: composed (NFC), so that an accent is a part of its letter, and without white
-- space of any kind at both ends.
-- Called:   by normal_name, normal_email and trimmed_record.
-- Security: INVOKER; computes only.
create or replace function rollbook.normal_text(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    if octet_length(value) = length(value) then
        return btrim(value, e' \t\n\v\f\r');
    end if;
    -- Other encodings know no forms.
    return regexp_replace(
        case when getdatabaseencoding() = 'UTF8' then normalize(value, nfc) else value end,
        '^[\u0009-\u000d \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+'
        '|[\u0009-\u000d \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$', '', 'g'
    );
end $$;
comment on function rollbook.normal_text(text) is
    'A text as it is stored: composed (NFC), without white space at both ends.';
