-- refuse_user_id_change: the id is what a person is known by in every course; it never changes.
-- Fires:    BEFORE UPDATE on portal.auth_user, for each row whose id differs, so before foreign keys complain of less;
--           and AFTER, for the case that a trigger of the application's own changed it later.
-- Locks:    nothing.
-- Security: INVOKER.
create or replace function rollbook.refuse_user_id_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'the id of user % cannot be changed to %', old.id, new.id
        using errcode = 'RB002', hint = 'Create another user, or change the username or the e-mail address.';
end $$;
create or replace trigger rollbook_refuse_user_id_change before update on portal.auth_user
    for each row when (old.id is distinct from new.id) execute function rollbook.refuse_user_id_change();
create or replace trigger rollbook_refuse_user_id_change_late after update on portal.auth_user
    for each row when (old.id is distinct from new.id) execute function rollbook.refuse_user_id_change();
comment on function rollbook.refuse_user_id_change() is
    'The id is what a person is known by in every course; it never changes.';
comment on trigger rollbook_refuse_user_id_change on portal.auth_user is
    'Calls rollbook.refuse_user_id_change, which says what it does.';
comment on trigger rollbook_refuse_user_id_change_late on portal.auth_user is
    'Calls rollbook.refuse_user_id_change, which says what it does.';
