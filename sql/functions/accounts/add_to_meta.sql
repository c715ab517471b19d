-- add_to_meta: a profile's meta with one more entry in one of its lists.
-- Called:   by change_name and change_email, for old_names and old_emails.
-- Raises:   23R13 if the meta has a value other than a list under that name; it is not overwritten.
-- Security: INVOKER; computes only.
create or replace function rollbook.add_to_meta(meta text, list_name text, entry jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    content constant jsonb := coalesce(nullif(meta, ''), '{}')::jsonb;
begin
    if jsonb_typeof(coalesce(content -> list_name, '[]')) <> 'array' then
        raise exception 'the profile''s meta has a value other than a list under %', list_name
            using errcode = '23R13', constraint = 'RB013', hint = 'Correct the meta first.';
    end if;
    return jsonb_set(
        content, array[list_name], coalesce(content -> list_name, '[]') || jsonb_build_array(entry)
    )::text;
end $$;
comment on function rollbook.add_to_meta(text, text, jsonb) is
    'A profile''s meta with one more entry in one of its lists.';
