-- refuse_user_id_change: a user's id identifies the person in every course; it never changes.
-- Fires:    BEFORE UPDATE on the person table, for each row whose id differs, so before a foreign key reports a lesser
--           error; and AFTER, in case a trigger of the application changed the id later.
-- Locks:    none.
-- Security: INVOKER.
create or replace function rollbook.refuse_user_id_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'the id of user % cannot be changed to %', old.:person_key, new.:person_key
        using errcode = '23R02', constraint = 'RB002',
        hint = 'Change the username or the e-mail address, or create another user.';
end $$;
create or replace trigger rollbook_refuse_user_id_change before update on :person
    for each row when (old.:person_key is distinct from new.:person_key)
    execute function rollbook.refuse_user_id_change();
create or replace trigger rollbook_refuse_user_id_change_late after update on :person
    for each row when (old.:person_key is distinct from new.:person_key)
    execute function rollbook.refuse_user_id_change();
comment on function rollbook.refuse_user_id_change() is
    'Trigger function: refuse with 23R02 to change a user''s id, which identifies the person in every course.';
comment on trigger rollbook_refuse_user_id_change on :person is
    'Refuse with 23R02 an update that changes a user''s id.';
comment on trigger rollbook_refuse_user_id_change_late on :person is
    'Refuse with 23R02 a user''s id that a trigger of the application changed during the update.';
