-- renew_candidates: another e-mail address of a user makes their candidate's record due, as the address goes into it.
-- Called:   by route_user_update, for the users whose address has changed.
-- Locks:    the candidates' rows, after the users'.
-- Security: DEFINER, owned by rollbook_writer: a writer of users may have no right on candidates.
create or replace function rollbook.renew_candidates(user_ids bigint[]) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update portal.student_testcenteruser as c
    set user_updated_at = rollbook.due_at(c.uploaded_at), upload_status = '', updated_at = clock_timestamp()
    where c.user_id = any (user_ids);
end $$;
comment on function rollbook.renew_candidates(bigint[]) is
    'Mark the candidate records of users with another e-mail address as due for export.';
