-- check_email: a new e-mail address is stored in its normal form, or refused: the requested one, and one that may
-- enroll. What is there already stays as it is.
-- Fires:    BEFORE INSERT and BEFORE UPDATE of the address, for each row WHEN it is not plain ASCII; of that the CHECK
--           of the table has the form.
-- Raises:   23R13.
-- Locks:    nothing.
-- Security: DEFINER, owned by rollbook_writer: a writer of addresses may have no right on what it calls.
create or replace function rollbook.check_email() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    fault text;
begin
    if tg_name <> 'rollbook_check_email' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    elsif tg_relid = 'portal.student_pendingemailchange'::regclass then
        if new.new_email is distinct from old.new_email then
            fault := rollbook.email_fault(new.new_email);
            new.new_email := rollbook.normal_email(new.new_email);
        end if;
    elsif tg_relid = 'portal.student_courseenrollmentallowed'::regclass then
        if new.email is distinct from old.email then
            fault := rollbook.email_fault(new.email);
            new.email := rollbook.normal_email(new.email);
        end if;
    else
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if fault is not null then
        raise exception '%', fault
            using errcode = '23R13', constraint = 'RB013', hint = 'Write name@example.org.';
    end if;
    return new;
end $$;
create or replace trigger rollbook_check_email before insert or update of new_email
    on portal.student_pendingemailchange
    for each row when (octet_length((new.new_email)::text) <> length((new.new_email)::text))
    execute function rollbook.check_email();
create or replace trigger rollbook_check_email before insert or update of email
    on portal.student_courseenrollmentallowed
    for each row when (
        octet_length((new.email)::text) <> length((new.email)::text) or length((new.email)::text) > 254
    )
    execute function rollbook.check_email();
comment on function rollbook.check_email() is
    'A new e-mail address is stored in its normal form, or refused with 23R13.';
comment on trigger rollbook_check_email on portal.student_pendingemailchange is
    'Before a new e-mail address is requested: normalise it, or refuse what cannot be one.';
comment on trigger rollbook_check_email on portal.student_courseenrollmentallowed is
    'Before an e-mail address is allowed: normalise it, or refuse what cannot be one.';
