-- row_hash: the expression that hashes the replicated columns of a row `c` of one copy to 64 bits. Its id is the seed:
-- so the sum over a range of rows is equal on both sides where the rows are, and changes where two rows have swapped a
-- value. PostgreSQL's own hash takes a fifth of the time of a SHA-256 of the row's text. Servers of different byte
-- orders hash differently: between them each row is doubtful, and digest_columns compares it.
-- Called:   by hash_ranges and hash_rows, inside which the caller's rights are rollbook_owner's.
-- Raises:   RB006.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.row_hash(schema_name text, table_name text, without text[]) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select format('hash_record_extended(row(%s), c.%I)', string_agg(
        format(
            case
                when a.atttypid = any ('{bool, int2, int4, int8, date, timestamp, timestamptz, uuid}'::regtype[])
                    then 'c.%I'
                else 'c.%I::text collate "C"' -- a course may give a text a collation in which different texts are equal
            end, w.name
        ), ', ' order by w.position
    ), coalesce(
        (select t.key_column from rollbook.copied_tables() as t where t.table_name = row_hash.table_name), 'id'
    ))
    from unnest(rollbook.course_columns(table_name, without)) with ordinality as w (name, position)
    inner join pg_attribute as a
        on a.attrelid = rollbook.copy_place(schema_name, table_name)::regclass and a.attname = w.name
$$;
comment on function rollbook.row_hash(text, text, text[]) is
    'The SQL expression that hashes the replicated columns of a row of one copy. Raises RB006 for whatever is not a '
    'copy of a course.';
