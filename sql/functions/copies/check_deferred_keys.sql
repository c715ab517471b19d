-- check_deferred_keys: check now what foreign keys of the course's own would check at the commit: those that are
-- deferred, as all that Django makes. Also keys on tables whose rows the removal of a copy deletes or changes.
-- Called:   by write_copies, where other tables refer to a copy that lost rows, and by repair.
-- Raises:   23R04.
-- Locks:    none.
-- Security: INVOKER, called with the rights of rollbook_owner. SET CONSTRAINTS needs USAGE of a schema for a name, and
--           takes all keys of that name there. So other keys may be checked too; their violations are for the commit.
--           It is undone with its subtransaction: the session's keys are as deferred as before.
create or replace function rollbook.check_deferred_keys(schema_name text, table_name text) returns void
language plpgsql
as $$
declare
    keys text[];
    owners text[];
    violated_schema text;
    violated_table text;
    violated text;
    reason text;
begin
    with recursive affected (relation) as (
        select format('%I.%I', schema_name, table_name)::regclass::oid
        union
        select c.conrelid
        from affected as a
        inner join pg_trigger as t on t.tgrelid = a.relation and t.tgisinternal
        inner join pg_constraint as c on c.oid = t.tgconstraint and c.contype = 'f' and c.confrelid = a.relation
        where c.confdeltype = any ('{c,n,d}'::"char"[])
    )
    select
        array_agg(distinct format('%I.%I', n.nspname, c.conname)),
        array_agg(distinct format('%I.%I.%I', n.nspname, r.relname, c.conname))
    into keys, owners
    from affected as a
    inner join pg_trigger as t on t.tgrelid = a.relation and t.tgisinternal and t.tgdeferrable
    inner join pg_constraint as c on c.oid = t.tgconstraint and c.contype = 'f' and c.confrelid = a.relation
    inner join pg_class as r on r.oid = c.conrelid
    inner join pg_namespace as n on n.oid = c.connamespace;
    if keys is null then
        return;
    end if;
    begin
        begin
            execute format('set constraints %s immediate', array_to_string(keys, ', '));
        exception when insufficient_privilege then
            set constraints all immediate;
        end;
        raise sqlstate 'UNDO0';
    exception
        when sqlstate 'UNDO0' then
            return;
        when foreign_key_violation then
            get stacked diagnostics
                violated_schema = schema_name, violated_table = table_name, violated = constraint_name,
                reason = pg_exception_detail;
            if format('%I.%I.%I', violated_schema, violated_table, violated) = any (owners) then
                perform rollbook.refuse_removal(
                    check_deferred_keys.schema_name, check_deferred_keys.table_name, reason, violated_schema,
                    violated_table
                );
            end if;
    end;
end $$;
comment on function rollbook.check_deferred_keys(text, text) is
    'Check at once what deferred foreign keys on a copy, and on what its removal affects, would check at the commit. '
    'Raises 23R04.';
