-- check_authorization: an authorization is stored as the test centre takes it, or refused with all its faults. What
-- really changes makes it due, as check_candidate has it; so does a cancellation.
-- Fires:    BEFORE INSERT on portal.student_testcenterregistration, and BEFORE UPDATE OF the columns that staff or the
--           user provides, for each row; stamps and answers of the test centre cost nothing.
-- Raises:   23R16.
-- Locks:    nothing.
-- Security: DEFINER, owned by rollbook_writer, as a writer has no right on what it calls.
create or replace function rollbook.check_authorization() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    faults text;
    -- An id is never trimmed, and one that was stored before the rule does not forbid another change.
    unjudged text[] := '{}';
begin
    if tg_relid <> 'portal.student_testcenterregistration'::regclass
        or tg_name <> all (array['rollbook_check_authorization_insert', 'rollbook_check_authorization_update'])
    then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if tg_op = 'UPDATE' and new.client_authorization_id = old.client_authorization_id then
        unjudged := array['client_authorization_id'];
    end if;
    new := jsonb_populate_record(new, rollbook.trimmed_record(to_jsonb(new) - 'client_authorization_id'));
    select string_agg(format('%s: %s', f.field, f.problem), e'\n') into faults
    from rollbook.authorization_faults(to_jsonb(new) - unjudged) as f;
    if faults is not null then
        raise exception 'the authorization cannot be sent to the test centre'
            using errcode = '23R16', constraint = 'RB016', detail = faults, hint = 'Correct these fields.';
    end if;
    if tg_op = 'INSERT' then
        -- A clock that goes ahead, or infinity, would have every answer be older than the record.
        new.user_updated_at := least(new.user_updated_at, clock_timestamp());
    else
        new.updated_at := clock_timestamp();
        if rollbook.differs_for_export(to_jsonb(old), to_jsonb(new)) then
            new.user_updated_at := rollbook.due_at(old.uploaded_at);
            new.upload_status := '';
        end if;
    end if;
    return new;
end $$;
create or replace trigger rollbook_check_authorization_insert before insert on portal.student_testcenterregistration
    for each row execute function rollbook.check_authorization();
create or replace trigger rollbook_check_authorization_update
    before update of testcenter_user_id, client_authorization_id, course_id, exam_series_code,
        eligibility_appointment_date_first, eligibility_appointment_date_last, accommodation_code,
        accommodation_request, cancelled_at
    on portal.student_testcenterregistration
    for each row execute function rollbook.check_authorization();
comment on function rollbook.check_authorization() is
    'An authorization is stored as the test centre takes it, or refused with all its faults.';
comment on trigger rollbook_check_authorization_insert on portal.student_testcenterregistration is
    'Before an authorization is inserted: trim its fields and check them; refuse it with all faults.';
comment on trigger rollbook_check_authorization_update on portal.student_testcenterregistration is
    'Before an authorization changes: trim and check it, and mark it due if the test centre must hear of it.';
