-- username_fault: why a text cannot be a username; null if it can. As Django's: letters and digits of any script, and
-- @ . + - _; but none that the command line reads as another name (id:7, @FILE, an option), and none whose letters
-- look like those of another script (Latin, Greek, Cyrillic in one name).
-- Called:   by check_account for every write, by `rollbook user import`, and by a web application for its form.
-- Security: INVOKER; computes only.
create or replace function rollbook.username_fault(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant text := coalesce(rollbook.normal_username(value), '');
    -- What is neither a letter nor a digit, nor a mark of one script; not each sign of each script.
    odd constant text := substring(
        wanted from '[\u0001-*,/:-?\[-^`{-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7'
        '\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u037e\u0482\u055a-\u055f\u0589-\u058f\u05be'
        '\u05f3-\u060f\u061b-\u061f\u066a-\u066d\u06d4\u06dd\u0700-\u070f\u0890\u0891\u08e2\u0964\u0965\u0e3f\u115f'
        '\u1160\u1400\u1680\u169b\u169c\u17b4\u17b5\u1800-\u180f\u1ab0-\u1ace\u1dc0-\u1dff\u2000-\u2131\u2133-\u214d'
        '\u214f\u218a-\u2bff\u2ce5-\u2cea\u2cf9-\u2cff\u2e00-\u2e2e\u2e30-\u3004\u3008-\u3020\u3030\u3037\u303d-\u303f'
        '\u30a0\u30fb\u3164\u3190-\u319f\u31c0-\u31ef\u3200-\u33ff\u4dc0-\u4dff\ua490-\ua4cf\ue000-\uf8ff\ufd3e-\ufd4f'
        '\ufe00-\ufe6f\ufeff-\uff0f\uffa0\uffe0-\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3'
        '\U0001d000-\U0001d3ff\U0001f000-\U0001faff\U000e0000-\U0010ffff]'
    );
begin
    return case
        when wanted = '' then 'a username is needed'
        when length(wanted) > 150 then format('a username has at most 150 characters (it has %s)', length(wanted))
        when wanted ~ '^(id|email|username):' then format(
            'a username does not begin with %s, which refers to a user in another way',
            substring(wanted from '^[a-z]+:')
        )
        when wanted ~ '^[@-]' then format(
            'a username does not begin with %s, which the command line reads as %s', left(wanted, 1),
            case left(wanted, 1) when '@' then 'a file' else 'an option' end
        )
        when odd is not null then format(
            '%s has no place in a username: it has letters and digits, and @ . + - _', rollbook.character_word(odd)
        )
        when octet_length(wanted) = length(wanted) then null
        when (wanted ~ '[A-Za-z\u00c0-\u024f\u1e00-\u1eff]')::integer
            + (wanted ~ '[\u0370-\u03ff\u1f00-\u1fff]')::integer
            + (wanted ~ '[\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f]')::integer > 1
            then 'a username has letters of one script: those of Latin, Greek and Cyrillic look alike'
    end;
end $$;
comment on function rollbook.username_fault(text) is
    'Why a text cannot be a username, in words; null if it can.';
