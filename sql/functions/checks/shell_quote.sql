-- shell_quote: return a text as one word of a command that somebody will paste into a shell; %L quotes for SQL alone.
-- Security: INVOKER.
create or replace function rollbook.shell_quote(word text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select '''' || replace(word, '''', '''"''"''') || '''';
$$;
comment on function rollbook.shell_quote(text) is
    'Return a text in single quotes, as a shell reads it: for the commands in hints.';
