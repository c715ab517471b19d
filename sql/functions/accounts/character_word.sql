-- character_word: a character in words: its code point, and its name where it cannot be seen.
-- Called:   by the functions that judge texts, for their messages.
-- Security: INVOKER; computes only.
create or replace function rollbook.character_word(seen text) returns text
language plpgsql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
    hex constant text := to_hex(ascii(seen));
    code constant text := lpad(hex, greatest(length(hex), 4), '0');
    name constant text := case
        when seen = ' ' then 'space'
        when code = '0009' then 'tab'
        when code in ('000a', '000d', '0085', '2028', '2029') then 'line break'
        when code < '0020' and length(code) = 4 or code between '007f' and '009f' and length(code) = 4
            then 'control character'
        when code = '00a0' then 'no-break space'
        when code = '00ad' then 'soft hyphen'
        when code in ('200b', '2060', 'feff') then 'zero width space'
        when code = '200c' then 'zero width non-joiner'
        when code = '200d' then 'zero width joiner'
        when code in ('061c', '200e', '200f', '202a', '202b', '202c', '202d', '202e', '2066', '2067', '2068', '2069')
            then 'direction mark'
        when code = 'fffd' then 'replacement character'
        when rollbook.hidden_character(seen) is not null then 'invisible'
        when seen ~ '[\u2000-\u200a\u1680\u202f\u205f\u3000]' then 'space'
    end;
begin
    return format(
        case when name is null then '%1$s (U+%2$s)' else 'U+%2$s (%3$s)' end, seen, upper(code), name
    );
end $$;
comment on function rollbook.character_word(text) is
    'A character in words: Ł (U+0141), or U+200B (zero width space) where it cannot be seen.';
