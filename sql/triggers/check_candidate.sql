-- check_candidate: a candidate's record is stored as the test centre takes it, or refused with all its faults. What
-- the user provides and really changes makes the record due: user_updated_at moves past the last upload, and the
-- answer to that is cleared.
-- Fires:    BEFORE INSERT on portal.student_testcenteruser, and BEFORE UPDATE OF the columns that a user provides, for
--           each row; stamps and answers of the test centre cost nothing.
-- Raises:   23R16.
-- Locks:    nothing.
-- Security: DEFINER, owned by rollbook_writer, as it reads rollbook.country and the user's e-mail address.
create or replace function rollbook.check_candidate() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    faults text;
    -- An id is never trimmed, and one that was stored before the rule does not forbid another change.
    unjudged text[] := '{}';
begin
    if tg_relid <> 'portal.student_testcenteruser'::regclass
        or tg_name <> all (array['rollbook_check_candidate_insert', 'rollbook_check_candidate_update'])
    then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if tg_op = 'UPDATE' and new.client_candidate_id = old.client_candidate_id then
        unjudged := array['client_candidate_id'];
    end if;
    new := jsonb_populate_record(new, rollbook.trimmed_record(to_jsonb(new) - 'client_candidate_id'));
    select string_agg(format('%s: %s', f.field, f.problem), e'\n') into faults
    from rollbook.candidate_faults(
        (to_jsonb(new) - unjudged) || coalesce(
            (select jsonb_build_object('email', u.email) from portal.auth_user as u where u.id = new.user_id), '{}'
        )
    ) as f;
    if faults is not null then
        raise exception 'the candidate''s record cannot be sent to the test centre'
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
create or replace trigger rollbook_check_candidate_insert before insert on portal.student_testcenteruser
    for each row execute function rollbook.check_candidate();
create or replace trigger rollbook_check_candidate_update
    before update of user_id, client_candidate_id, first_name, middle_name, last_name, suffix, salutation,
        address_1, address_2, address_3, city, state, postal_code, country, phone, extension, phone_country_code,
        fax, fax_country_code, company_name
    on portal.student_testcenteruser
    for each row execute function rollbook.check_candidate();
comment on function rollbook.check_candidate() is
    'A candidate''s record is stored as the test centre takes it, or refused with all its faults.';
comment on trigger rollbook_check_candidate_insert on portal.student_testcenteruser is
    'Before a candidate is inserted: trim the fields and check them; refuse the record with all faults.';
comment on trigger rollbook_check_candidate_update on portal.student_testcenteruser is
    'Before a candidate changes: trim and check the record, and mark it due if the test centre must hear of it.';
