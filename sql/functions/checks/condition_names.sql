-- condition_names: the names in a condition as pg_get_expr writes it, quoted as quote_ident does: no text, no type, no
-- part of another name. Columns are among them, functions and keywords too.
-- Called:   by grants.sql, for what a monitor may read, and by `rollbook shape column rename`.
-- Security: INVOKER; computes only.
create or replace function rollbook.condition_names(condition text) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select w.words[1]
        from regexp_matches(
            regexp_replace(condition, $q$'(?:[^']|'')*'|::("[^"]+"|\w+)(\.("[^"]+"|\w+))?$q$, '', 'g'),
            '"(?:[^"]|"")+"|[a-z_][\w$]*', 'g'
        ) as w (words)
    )
$$;
comment on function rollbook.condition_names(text) is
    'The names in a condition: its columns are among them; no text, no type.';
