-- refuse_trigger: refuse to run a trigger function for another trigger than ours. Who may create triggers somewhere
-- could otherwise hang routing on a table of their own, with rows of their own, and have it write as rollbook_owner.
-- Called:   by every DEFINER trigger function, before it does anything, where table or trigger is not its own.
-- Raises:   RB018.
-- Security: INVOKER.
create or replace function rollbook.refuse_trigger(trigger_name name, relation oid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'trigger % on % may not run a function of schema rollbook', trigger_name, relation::regclass
        using errcode = 'RB018', hint = format('Drop it: drop trigger %I on %s;', trigger_name, relation::regclass);
end $$;
comment on function rollbook.refuse_trigger(name, oid) is
    'Refuse to run a trigger function for a trigger or a table that is not Rollbook''s.';
