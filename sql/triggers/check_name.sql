-- check_name: a new full name is stored in its normal form, or refused: that of a profile, and the requested one. What
-- is there already stays as it is.
-- Fires:    BEFORE INSERT and UPDATE, for each row, as check_account; plain ASCII of two characters needs no second
--           look.
-- Raises:   23R13.
-- Locks:    nothing.
-- Security: DEFINER, owned by rollbook_writer: a writer of names may have no right on what it calls.
create or replace function rollbook.check_name() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    fault text;
begin
    if tg_name <> 'rollbook_check_name' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    elsif tg_relid = 'portal.auth_userprofile'::regclass then
        if new.name !~ '^([!-~][ -~]*[!-~])?$' and new.name is distinct from old.name then
            fault := rollbook.name_fault(new.name);
            new.name := rollbook.normal_name(new.name);
        end if;
    elsif tg_relid = 'portal.student_pendingnamechange'::regclass then
        if new.new_name is distinct from old.new_name then
            fault := rollbook.name_fault(new.new_name);
            new.new_name := rollbook.normal_name(new.new_name);
        end if;
    else
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if fault is not null then
        raise exception '%', fault
            using errcode = '23R13', constraint = 'RB013', hint = 'Write the full name without this.';
    end if;
    return new;
end $$;
create or replace trigger rollbook_check_name before insert or update on portal.auth_userprofile for each row
    execute function rollbook.check_name();
create or replace trigger rollbook_check_name before insert or update of new_name
    on portal.student_pendingnamechange
    for each row when ((new.new_name)::text !~ '^([!-~][ -~]*[!-~])?$'::text)
    execute function rollbook.check_name();
comment on function rollbook.check_name() is
    'A new full name is stored in its normal form, or refused with 23R13.';
comment on trigger rollbook_check_name on portal.auth_userprofile is
    'Before a full name is written: normalise it, or refuse what cannot be one.';
comment on trigger rollbook_check_name on portal.student_pendingnamechange is
    'Before a new full name is requested: normalise it, or refuse what cannot be one.';
