-- refuse_taken_username: no further account gets a username that some accounts have in several spellings already. Only
-- where a site came with such accounts: the unique index leaves these names out, and guard_usernames makes this trigger
-- with the names as arguments. All other names the index keeps unique.
-- Fires:    BEFORE INSERT and UPDATE on portal.auth_user, for each row.
-- Raises:   23R14.
-- Locks:    nothing: the names are arguments, so no race can hide one.
-- Security: DEFINER, owned by rollbook_writer, as a writer of accounts may have no right to read them.
create or replace function rollbook.refuse_taken_username() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_relid <> 'portal.auth_user'::regclass or tg_name <> 'rollbook_refuse_taken_username' then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if new.username is distinct from old.username and lower(new.username) = any (tg_argv)
        -- What ON CONFLICT looks for is there already: the unique key has the last word.
        and not (tg_op = 'INSERT' and exists (select from portal.auth_user as u where u.username = new.username))
    then
        raise exception 'the username % is taken (capitals do not matter)', new.username
            using errcode = '23R14', constraint = 'RB014', hint = 'Choose another username.';
    end if;
    return new;
end $$;
comment on function rollbook.refuse_taken_username() is
    'Refuse with 23R14 a username that accounts of the site have in several spellings; its trigger names them.';
