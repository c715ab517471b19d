-- grants: who owns what and who may do what, in one place. Run last; can be run again: it puts all of it back.
-- No right hangs on the database itself, as a cloned database does not inherit it. PUBLIC has none.
--   rollbook_owner        NOLOGIN. Owns the copies and the functions that route; reads the replicated portal tables.
--   rollbook_writer       NOLOGIN. Owns the functions that write portal tables themselves, with rights on the columns
--                         that they write and no others: a trigger of an application on these tables runs as this role.
--   rollbook_monitor      Reads what status, verify, checks and lists need. No password hash, key or conninfo.
--   rollbook_operator     Accounts, enrollments, test centre; what rollbook_monitor may.
--   rollbook_application  A web application: rows of the portal's tables, and register_for_exam.
--   rollbook_relay        The logins of relays: heartbeats and, by publish_courses, the copies of courses behind one.
-- Everything else belongs to the role that migrates, which owns the schema: who becomes rollbook_owner by some trick
-- can replace nothing that a DBA calls but the functions that must run as rollbook_owner.
do $$
declare
    migrator constant text := (select n.nspowner::regrole::text from pg_namespace as n where n.nspname = 'rollbook');
    writers constant text[] := '{check_account,check_authorization,check_candidate,check_email,check_name}'::text[]
        || '{refuse_taken_username,register_for_exam,renew_candidates}'::text[];
    object record;
    grantee record;
begin
    -- Who takes over a function needs CREATE on its schema, for this moment.
    grant create on schema rollbook to rollbook_owner, rollbook_writer;
    for object in
        select p.oid::regprocedure::text as name, p.prosecdef, p.proowner::regrole::text as owner,
            case
                when not p.prosecdef then migrator
                when p.proname = any (writers) then 'rollbook_writer'
                else 'rollbook_owner'
            end as wanted,
            p.prorettype = 'trigger'::regtype as is_trigger, p.provolatile <> 'v' as is_reader, p.oid,
            array(
                select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
                from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            ) as grantees
        from pg_proc as p where p.pronamespace = 'rollbook'::regnamespace
    loop
        if object.owner <> object.wanted then
            execute format('alter function %s owner to %s', object.name, object.wanted);
        end if;
        if 'public' = any (object.grantees) then
            execute format('revoke execute on function %s from public', object.name);
        end if;
        if object.is_trigger then  -- a trigger fires without EXECUTE; who has it could hang it elsewhere
            for grantee in
                select distinct a.grantee::regrole::text as name
                from pg_proc as p, aclexplode(p.proacl) as a
                where p.oid = object.oid and a.grantee not in (0, p.proowner)
            loop
                execute format('revoke execute on function %s from %s cascade', object.name, grantee.name);
            end loop;
            continue;
        end if;
        -- What runs with the caller's rights: EXECUTE alone gives none.
        if not object.prosecdef
            and not '{rollbook_owner,rollbook_writer,rollbook_operator}'::text[] <@ object.grantees
        then
            execute format(
                'grant execute on function %s to rollbook_owner, rollbook_writer, rollbook_operator', object.name
            );
        end if;
        if object.is_reader and 'rollbook_monitor' <> all (object.grantees) then  -- STABLE or IMMUTABLE
            execute format('grant execute on function %s to rollbook_monitor', object.name);
        end if;
    end loop;
    for object in
        select k.name, k.owner  -- a right owner is not set again: that would lock the table against everybody
        from (
            select format('%s %s', case c.relkind when 'r' then 'table' when 'v' then 'view' else 'type' end,
                          c.oid::regclass) as name,
                case c.oid when 'rollbook.heartbeat'::regclass then 'rollbook_owner' else migrator end as owner,
                c.relowner
            from pg_class as c where c.relnamespace = 'rollbook'::regnamespace and c.relkind in ('r', 'v', 'c')
        ) as k
        where k.owner <> k.relowner::regrole::text
    loop
        execute format('alter %s owner to %s', object.name, object.owner);
    end loop;
    revoke create on schema rollbook from rollbook_owner, rollbook_writer;
    -- Courses: a restore without owners leaves them to whoever restored.
    for object in
        select format('alter schema %I owner to rollbook_owner', n.nspname) as statement
        from rollbook.course as c inner join pg_namespace as n on n.nspname = c.schema_name
        where n.nspowner <> 'rollbook_owner'::regrole
        union all
        select format('alter table %s owner to rollbook_owner', k.oid::regclass)
        from rollbook.course as c
        inner join pg_namespace as n on n.nspname = c.schema_name
        inner join pg_class as k on k.relnamespace = n.oid and k.relkind = 'r'
        where k.relowner <> 'rollbook_owner'::regrole and rollbook.replicated_columns(k.relname) is not null
    loop
        execute object.statement;
    end loop;
end $$;

grant usage on schema portal, rollbook
to rollbook_owner, rollbook_writer, rollbook_monitor, rollbook_operator, rollbook_application;
-- Where a site was adopted in place, the functions of triggers name its tables.
do $$
declare
    home record;
begin
    for home in
        select distinct t.relnamespace::regnamespace as name, r.rolname as role
        from pg_class as c
        inner join pg_class as t on t.oid = rollbook.real_table(c.oid)
        inner join pg_roles as r on r.rolname in ('rollbook_owner', 'rollbook_writer')
        where c.relnamespace = 'portal'::regnamespace and c.relkind = 'v'
            and not has_schema_privilege(r.oid, t.relnamespace, 'usage')
    loop
        execute format('grant usage on schema %s to %I', home.name, home.role);
    end loop;
    if rollbook.real_table(to_regclass('portal.auth_user')) <> to_regclass('portal.auth_user') then
        -- note_for_discussion reads versions
        execute format('grant select on %s to rollbook_owner', rollbook.real_table(to_regclass('portal.auth_user')));
    end if;
end $$;

-- rollbook_owner ------------------------------------------------------------------------------------------------------
grant execute on function rollbook.guard_copy() to rollbook_owner;  -- hangs it on the copies that it makes
grant execute on function rollbook.renew_candidates(bigint[]) to rollbook_owner;  -- routing calls it
grant usage on schema :schemas to rollbook_owner;
grant select on :relations to rollbook_owner;
grant select, insert, update, delete
on rollbook.course, rollbook.course_set, rollbook.course_latch, rollbook.route, rollbook.verification,
rollbook.discussion_outbox
to rollbook_owner;
-- Not more on servers: a route leads whoever runs `rollbook` to a server, with a password perhaps.
grant select on rollbook.server, rollbook.discussion to rollbook_owner;
grant select, update on rollbook.shape to rollbook_owner;
grant select on rollbook.shape_table to rollbook_owner;

-- rollbook_writer -----------------------------------------------------------------------------------------------------
-- An e-mail address that changes makes the candidate's record due, whoever changed it.
grant select (id, user_id, uploaded_at), update (user_updated_at, updated_at, upload_status)
on portal.student_testcenteruser to rollbook_writer;
-- A student who registers for an exam has no right on authorizations.
grant select on portal.student_testcenterregistration to rollbook_writer;
grant insert (
    testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
    eligibility_appointment_date_last, accommodation_request
) on portal.student_testcenterregistration to rollbook_writer;
grant select (user_id, course_id) on portal.student_courseenrollment to rollbook_writer;
-- The e-mail address is a part of a candidate's record; a username may be there already.
grant select (id, username, email) on portal.auth_user to rollbook_writer;
grant select on rollbook.country, rollbook.exam, rollbook.exam_status to rollbook_writer;

-- If somebody enables row security, Rollbook must still see every row: routing would treat hidden rows as deleted.
-- A policy that is right is not made again: that would lock the table against its readers too.
do $$
declare
    wanted record;
begin
    for wanted in
        select d.policy, d.place, d.role, d.command
        from (
            select
                'rollbook_reads' as policy, rollbook.portal_table(t.table_name) as place, 'rollbook_owner' as role,
                'select' as command
            from rollbook.copied_tables() as t
            union all
            select o.policy, rollbook.portal_table(o.table_name), 'rollbook_writer', o.command
            from (
                values
                ('rollbook_renews', 'student_testcenteruser', 'all'),
                ('rollbook_registers', 'student_testcenterregistration', 'all'),
                ('rollbook_registers', 'student_courseenrollment', 'select'),
                ('rollbook_registers', 'auth_user', 'select')
            ) as o (policy, table_name, command)
        ) as d
        where not exists (
            select from pg_policy as p
            where p.polrelid = d.place and p.polname = d.policy and p.polpermissive
                and p.polcmd = case d.command when 'all' then '*' else 'r' end
                and p.polroles = array[d.role::regrole::oid]
                and pg_get_expr(p.polqual, p.polrelid) = 'true' and p.polwithcheck is null
                and obj_description(p.oid, 'pg_policy') is not null
        )
    loop
        execute format('drop policy if exists %I on %s', wanted.policy, wanted.place);
        execute format(
            'create policy %I on %s for %s to %I using (true)', wanted.policy, wanted.place, wanted.command, wanted.role
        );
        execute format(
            'comment on policy %I on %s is %L', wanted.policy, wanted.place,
            'Rollbook sees every row, also under row security.'
        );
    end loop;
end $$;

-- rollbook_monitor ----------------------------------------------------------------------------------------------------
grant select (
    id, username, first_name, last_name, email, is_staff, is_active, is_superuser, last_login, date_joined
) on portal.auth_user to rollbook_monitor;
grant select (id, user_id, created_at, expires_at, activated_at) on portal.auth_registration to rollbook_monitor;
grant select (id, user_id, new_email, requested_at, expires_at)
on portal.student_pendingemailchange to rollbook_monitor;
grant select
on portal.auth_userprofile, portal.student_courseenrollment, portal.student_courseenrollmentallowed,
portal.student_usertestgroup, portal.student_usertestgroup_users, portal.student_pendingnamechange,
portal.student_testcenteruser, portal.student_testcenterregistration
to rollbook_monitor;
grant select
on rollbook.course, rollbook.course_latch, rollbook.route, rollbook.shape, rollbook.shape_table,
rollbook.verification, rollbook.heartbeat,
rollbook.name_decision, rollbook.history, rollbook.discussion_outbox, rollbook.country, rollbook.exam,
rollbook.exchange_file, rollbook.exchange_row, rollbook.roster_enrollment
to rollbook_monitor;
-- Of tables of another shape only the columns that memberships() reads; views read them with the caller's rights.
do $$
declare
    readable record;
begin
    for readable in
        select
            n.oid::regnamespace as home,
            a.attrelid::regclass as relation,
            string_agg(quote_ident(a.attname), ', ') as columns
        from rollbook.shape_table as s
        inner join pg_class as c on c.oid = rollbook.portal_table(s.table_name)
        inner join pg_namespace as n on n.oid = c.relnamespace
        inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where s.role in ('person', 'membership') and s.relation !~ '^portal\.'
            and (
                a.attname in (s.key_column, s.user_column, s.course_column)
                or quote_ident(a.attname) = any (rollbook.condition_names(s.condition))
            )
        group by 1, 2
    loop
        execute format('grant usage on schema %s to rollbook_monitor', readable.home);
        execute format('grant select (%s) on %s to rollbook_monitor', readable.columns, readable.relation);
    end loop;
end $$;
grant select (only_one, active, url) on rollbook.discussion to rollbook_monitor;
grant select (name, through, moving_through, moving_direct) on rollbook.server to rollbook_monitor;
grant select (user_id, begun_at, open) on rollbook.erasure to rollbook_monitor;  -- not who it was
grant select on all sequences in schema portal, rollbook to rollbook_monitor;  -- `status` tells which are behind
grant select
on rollbook.allowed_status, rollbook.authorization_status, rollbook.candidate_status, rollbook.course_status,
rollbook.email_change_status, rollbook.enrollment_status, rollbook.exam_status, rollbook.exchange_file_status,
rollbook.lock_wait, rollbook.name_change_status, rollbook.registration_status, rollbook.server_route,
rollbook.slot_status
to rollbook_monitor;
grant select on public.rollbook_revision to rollbook_monitor;

-- rollbook_operator ---------------------------------------------------------------------------------------------------
do $$
begin
    if not pg_has_role('rollbook_operator', 'rollbook_monitor', 'usage') then
        grant rollbook_monitor to rollbook_operator;
    end if;
end $$;
grant select, insert, update, delete
on portal.auth_user, portal.auth_userprofile, portal.auth_registration, portal.student_courseenrollment,
portal.student_courseenrollmentallowed, portal.student_usertestgroup, portal.student_usertestgroup_users,
portal.student_pendingnamechange, portal.student_pendingemailchange, portal.student_testcenteruser,
portal.student_testcenterregistration
to rollbook_operator;
grant select, insert, update, delete
on rollbook.exam, rollbook.exchange_row, rollbook.discussion_outbox, rollbook.roster_person,
rollbook.roster_enrollment
to rollbook_operator;
grant select, update on rollbook.discussion to rollbook_operator;
-- What records who did something is written and never changed by its writer, who does not choose the role in it.
grant insert (
    os_user, on_behalf_of, command, object, user_id, course_id, outcome, before, after, reason, kind, batch, undoes
)
on rollbook.history to rollbook_operator;
grant insert (id, user_id, old_name, new_name, rationale, requested_at, state, reason),
update (user_id)  -- `rollbook user merge`
on rollbook.name_decision to rollbook_operator;
grant insert (direction, kind, name, archive, rows, sha256, os_user, on_behalf_of), update (at, rows, set_aside, sha256)
on rollbook.exchange_file to rollbook_operator;

-- rollbook_application ------------------------------------------------------------------------------------------------
-- Not ALL: TRIGGER, REFERENCES and TRUNCATE do not belong to an application's work.
grant select, insert, update, delete
on portal.auth_user, portal.auth_userprofile, portal.auth_registration, portal.student_courseenrollment,
portal.student_courseenrollmentallowed, portal.student_usertestgroup, portal.student_usertestgroup_users,
portal.student_pendingnamechange, portal.student_pendingemailchange, portal.student_testcenteruser,
portal.student_testcenterregistration
to rollbook_application;
grant select on rollbook.exam, rollbook.exam_status, rollbook.country to rollbook_application;
grant execute
on function rollbook.register_for_exam(bigint, text, text, text), rollbook.candidate_draft(bigint),
rollbook.candidate_faults(jsonb), rollbook.authorization_faults(jsonb), rollbook.accommodation_names(text),
rollbook.text_fault(text, integer, boolean), rollbook.exchange_id_fault(text, integer), rollbook.trimmed_record(jsonb),
-- A form asks what a name may be; these call the others.
rollbook.username_fault(text), rollbook.name_fault(text), rollbook.email_fault(text),
rollbook.normal_username(text), rollbook.normal_name(text), rollbook.normal_email(text),
rollbook.normal_text(text), rollbook.hidden_character(text), rollbook.character_word(text)
to rollbook_application;

-- rollbook_relay ------------------------------------------------------------------------------------------------------
grant usage on schema rollbook to rollbook_relay;
grant select on rollbook.heartbeat to rollbook_relay;

-- Where accounts of a site have usernames that differ in case alone.
do $$ begin perform rollbook.guard_usernames(); end $$;
