-- grants: who owns what and who may do what, in one place. Run last; can be run again.
-- rollbook_owner (NOLOGIN, no superuser) owns the machinery and reads the three replicated portal tables. Nobody has
-- EXECUTE by default; a DBA grants it. No right depends on the database itself, because a cloned database does not
-- inherit it.
grant usage on schema portal to rollbook_owner;
grant select on portal.auth_user, portal.auth_userprofile, portal.student_courseenrollment to rollbook_owner;
-- If somebody enables row security, routing must still see every row, or it would treat hidden rows as deleted.
drop policy if exists rollbook_reads on portal.auth_user;
drop policy if exists rollbook_reads on portal.auth_userprofile;
drop policy if exists rollbook_reads on portal.student_courseenrollment;
-- renew_candidate marks the candidate's record as due when the e-mail address changes.
grant select, update (user_updated_at, updated_at, upload_status) on portal.student_testcenteruser to rollbook_owner;
drop policy if exists rollbook_renews on portal.student_testcenteruser;
create policy rollbook_renews on portal.student_testcenteruser to rollbook_owner using (true);
comment on policy rollbook_renews on portal.student_testcenteruser is
    'Rollbook sees every row, also under row security.';
-- register_for_exam writes for students, who have no right on authorizations.
grant select on portal.student_testcenterregistration to rollbook_owner;
grant insert (
    testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
    eligibility_appointment_date_last, accommodation_request
) on portal.student_testcenterregistration to rollbook_owner;
drop policy if exists rollbook_registers on portal.student_testcenterregistration;
create policy rollbook_registers on portal.student_testcenterregistration to rollbook_owner using (true);
comment on policy rollbook_registers on portal.student_testcenterregistration is
    'Rollbook sees every row, also under row security.';
create policy rollbook_reads on portal.auth_user for select to rollbook_owner using (true);
create policy rollbook_reads on portal.auth_userprofile for select to rollbook_owner using (true);
create policy rollbook_reads on portal.student_courseenrollment for select to rollbook_owner using (true);
comment on policy rollbook_reads on portal.auth_user is 'Rollbook sees every row, also under row security.';
comment on policy rollbook_reads on portal.auth_userprofile is 'Rollbook sees every row, also under row security.';
comment on policy rollbook_reads on portal.student_courseenrollment is
    'Rollbook sees every row, also under row security.';
do $$
declare
    object record;
begin
    for object in select p.oid::regprocedure as name from pg_proc as p where p.pronamespace = 'rollbook'::regnamespace
    loop
        execute format('alter function %s owner to rollbook_owner', object.name);
        execute format('revoke execute on function %s from public', object.name);
    end loop;
    for object in
        select format('%s %s', case c.relkind when 'r' then 'table' when 'v' then 'view' else 'type' end,
                      c.oid::regclass) as name
        from pg_class as c where c.relnamespace = 'rollbook'::regnamespace and c.relkind in ('r', 'v', 'c')
    loop
        execute format('alter %s owner to rollbook_owner', object.name);
    end loop;
end $$;
