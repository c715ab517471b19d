-- delete_copies: delete copies in one course. If a foreign key of the course's own forbids it, the whole portal
-- statement fails, and the error names the course and the table that has the key. Callers check deferred keys after it.
-- Called:   by leave_courses, the routing of deletes, and repair; children first. The keys are ids or user ids;
--           null: all rows that are no longer in the portal.
-- Returns:  how many rows were deleted.
-- Raises:   23R04 if rows that the course added refer to a copy.
-- Locks:    none; the caller has written the users' routes.
-- Security: INVOKER, called with the rights of rollbook_owner; the guard of the copies lets it pass.
create or replace function rollbook.delete_copies(schema_name text, table_name text, key_column text, keys bigint[])
returns bigint
language plpgsql
as $$
declare
    copied record;
    deleted bigint;
    reason text;
    referring_schema text;
    referring_table text;
begin
    if keys is null then
        select * into copied from rollbook.copied_tables() as t where t.table_name = delete_copies.table_name;
        execute format(
            'delete from %1$I.%2$I as c where not exists (select from %3$s as p where p.%4$I = c.%4$I)',
            schema_name, table_name, copied.source, copied.key_column
        );
    else
        execute format('delete from %I.%I where %I = any ($1)', schema_name, table_name, key_column) using keys;
    end if;
    get diagnostics deleted = row_count;
    return deleted;
exception when foreign_key_violation or restrict_violation then
    get stacked diagnostics
        reason = pg_exception_detail, referring_schema = schema_name, referring_table = table_name;
    perform rollbook.refuse_removal(
        delete_copies.schema_name, delete_copies.table_name, reason, referring_schema, referring_table
    );
end $$;
comment on function rollbook.delete_copies(text, text, text, bigint[]) is
    'Delete rows of one copied table by key and return their number. Raises 23R04 if rows that the course added refer '
    'to them.';
