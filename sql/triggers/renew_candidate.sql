-- renew_candidate: another e-mail address of a user makes their candidate's record due, as the address goes into it.
-- Fires:    AFTER UPDATE on portal.auth_user, for each row WHEN anything has changed. The condition does not
--           name the address, and no UPDATE OF does: else a site could not alter the type of the column.
-- Locks:    the candidate's row, after the user's.
-- Security: DEFINER, owned by rollbook_writer: a writer of users may have no right on candidates.
create or replace function rollbook.renew_candidate() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_relid <> 'portal.auth_user'::regclass or tg_name <> 'rollbook_renew_candidate' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if new.email is not distinct from old.email then
        return null;
    end if;
    update portal.student_testcenteruser as c
    set user_updated_at = rollbook.due_at(c.uploaded_at), upload_status = '', updated_at = clock_timestamp()
    where c.user_id = new.id;
    return null;
end $$;
create or replace trigger rollbook_renew_candidate after update on portal.auth_user
    for each row when (old.* is distinct from new.*)
    execute function rollbook.renew_candidate();
comment on function rollbook.renew_candidate() is
    'Another e-mail address of a user makes their candidate''s record due.';
comment on trigger rollbook_renew_candidate on portal.auth_user is
    'After an e-mail address changes: mark the user''s candidate record as due for export.';
