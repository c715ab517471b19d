-- hidden_character: the first character of a text that cannot be seen and has no place there: a control character, one
-- without width, one that changes the direction of the text, or what a wrong encoding leaves. Joiners are a part of
-- words in Persian and in the scripts of India, selectors of Chinese, Japanese and Mongolian characters: they may
-- follow those.
-- Called:   by name_fault, email_fault and character_word.
-- Security: INVOKER; computes only.
create or replace function rollbook.hidden_character(value text) returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return substring(
        value from '[\u0001-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f'
        '\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\uffff\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]'
        '|(?<![\u0600-\u109f\u1780-\u18af\ua840-\uabff\U00011000-\U00011fff])[\u200c\u200d]'
        '|(?<![\u1820-\u18aa])[\u180b-\u180f]'
        '|(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\ufe00-\ufe0f\U000e0100-\U000e01ef]'
    );
end $$;
comment on function rollbook.hidden_character(text) is
    'The first character of a text that cannot be seen and has no place there; null for none.';
