-- check_account: a new username, e-mail address, first or last name is stored in its normal form, or refused. What is
-- there already stays as it is: a row that breaks a rule may change in other columns.
-- Fires:    BEFORE INSERT and UPDATE on portal.auth_user, for each row. A WHEN that names columns would forbid to
--           change their types. Plain ASCII needs no second look: the table's CHECK has the form of an address.
-- Raises:   23R13.
-- Locks:    nothing.
-- Security: DEFINER, owned by rollbook_writer: a writer of accounts may have no right on what it calls.
create or replace function rollbook.check_account() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    fault text;
begin
    if tg_relid <> 'portal.auth_user'::regclass or tg_name <> 'rollbook_check_account' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if tg_op = 'UPDATE' and row(new.username, new.email, new.first_name, new.last_name)
        is not distinct from row(old.username, old.email, old.first_name, old.last_name)
        or new.username ~ '^[A-Za-z0-9_.+][A-Za-z0-9_.@+-]*$'
        and octet_length(concat(new.email, new.first_name, new.last_name))
        = length(concat(new.email, new.first_name, new.last_name))
    then
        return new;
    end if;
    if new.username is distinct from old.username then
        fault := rollbook.username_fault(new.username);
        -- A row that is there already is what ON CONFLICT looks for: the unique key has the last word.
        if fault is not null and tg_op = 'INSERT'
            and exists (select from portal.auth_user as u where u.username = new.username)
        then
            return new;
        end if;
        new.username := rollbook.normal_username(new.username);
    end if;
    if new.email is distinct from old.email then
        fault := coalesce(fault, rollbook.email_fault(new.email));
        new.email := rollbook.normal_email(new.email);
    end if;
    if row(new.first_name, new.last_name) is distinct from row(old.first_name, old.last_name) then
        fault := coalesce(fault, rollbook.character_word(rollbook.hidden_character(
            rollbook.normal_name(concat(new.first_name, new.last_name))
        )) || ' has no place in a name');
        new.first_name := rollbook.normal_name(new.first_name);
        new.last_name := rollbook.normal_name(new.last_name);
    end if;
    if fault is not null then
        raise exception '%', fault
            using errcode = '23R13', constraint = 'RB013', hint = 'Write it without this, or choose another.';
    end if;
    return new;
end $$;
create or replace trigger rollbook_check_account before insert or update on portal.auth_user for each row
    execute function rollbook.check_account();
comment on function rollbook.check_account() is
    'A new username, e-mail address or name of an account is stored in its normal form, or refused with 23R13.';
comment on trigger rollbook_check_account on portal.auth_user is
    'Before an account is written: normalise its new names and address, or refuse what cannot be one.';
