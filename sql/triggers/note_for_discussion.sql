-- note_for_discussion: record in rollbook.discussion_outbox the changes of users that the discussion service must
-- receive: a new user, another name or address, a deletion. It only records: a service that is down neither delays nor
-- breaks a save.
-- Fires:    AFTER INSERT, UPDATE and DELETE and BEFORE TRUNCATE on portal.auth_user, once per statement; does nothing
--           while rollbook.discussion is not active. The changes of one user are in commit order: the session that
--           takes a number holds the user's row, or its key, until the commit. The outbox has the row as it is then:
--           another trigger of the portal may have changed it after the statement, and was recorded first.
-- Locks:    nothing but its own new rows, and what NOTIFY takes at the commit. A session with a pending NOTIFY
--           cannot PREPARE TRANSACTION.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.note_for_discussion() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    noted bigint;
begin
    if tg_relid <> 'portal.auth_user'::regclass
        or tg_name <> all (array['rollbook_note_for_discussion_delete', 'rollbook_note_for_discussion_insert', 'rollbook_note_for_discussion_truncate', 'rollbook_note_for_discussion_update'])
    then
        perform rollbook.refuse_trigger(tg_name, tg_relid);
    end if;
    if not exists (select from rollbook.discussion as d where d.active) then
        return null;
    end if;
    -- The common case, such as a login: one row, and nothing to record.
    if tg_op = 'UPDATE' then
        if (select count(*) from (select from new_rows limit 2) as seen) = 1 then
            if (
                select row(n.username, n.email) is not distinct from row(o.username, o.email)
                from new_rows as n cross join old_rows as o
            ) then
                return null;
            end if;
        end if;
    end if;
    -- EXECUTE, as a kept plan would be the one for the size of the first statement of the session. An old snapshot may
    -- show a second user of this id, whom another session has deleted meanwhile: the newer row is the live one.
    -- A plain join would stop at the first of them, as the id is unique.
    execute 'insert into rollbook.discussion_outbox (user_id, operation, username, email) ' || case tg_op
        when 'INSERT' then
            $sql$select n.id, 'put', c.username, c.email
            from new_rows as n
            cross join lateral (
                select u.username, u.email from portal.auth_user as u where u.id = n.id
                order by u.xmax <> '0'::xid, age(u.xmin) limit 1
            ) as c
            order by n.id$sql$
        when 'UPDATE' then
            $sql$select n.id, 'put', c.username, c.email
            from new_rows as n
            inner join old_rows as o on o.id = n.id
            cross join lateral (
                select u.username, u.email from portal.auth_user as u where u.id = n.id
                order by u.xmax <> '0'::xid, age(u.xmin) limit 1
            ) as c
            where row(n.username, n.email) is distinct from row(o.username, o.email)
            order by n.id$sql$
        when 'DELETE' then
            $sql$select o.id, 'delete', o.username, null
            from old_rows as o
            where not exists (select from portal.auth_user as u where u.id = o.id)
            order by o.id$sql$
        else
            $sql$select u.id, 'delete', u.username, null from portal.auth_user as u order by u.id$sql$
    end;
    get diagnostics noted = row_count;
    if noted > 0 then
        notify rollbook_discussion;
    end if;
    return null;
end $$;
create or replace trigger rollbook_note_for_discussion_insert after insert on portal.auth_user
    referencing new table as new_rows
    for each statement execute function rollbook.note_for_discussion();
create or replace trigger rollbook_note_for_discussion_update after update on portal.auth_user
    referencing old table as old_rows new table as new_rows
    for each statement execute function rollbook.note_for_discussion();
create or replace trigger rollbook_note_for_discussion_delete after delete on portal.auth_user
    referencing old table as old_rows
    for each statement execute function rollbook.note_for_discussion();
create or replace trigger rollbook_note_for_discussion_truncate before truncate on portal.auth_user
    for each statement execute function rollbook.note_for_discussion();
comment on function rollbook.note_for_discussion() is
    'Record in rollbook.discussion_outbox the changes of users that the discussion service must receive.';
comment on trigger rollbook_note_for_discussion_insert on portal.auth_user is
    'After users are inserted: queue them for the discussion service, if it is active.';
comment on trigger rollbook_note_for_discussion_update on portal.auth_user is
    'After users are updated: queue changed names and e-mail addresses for the discussion service, if it is active.';
comment on trigger rollbook_note_for_discussion_delete on portal.auth_user is
    'After users are deleted: queue their deletion for the discussion service, if it is active.';
comment on trigger rollbook_note_for_discussion_truncate on portal.auth_user is
    'Before TRUNCATE of all users: queue their deletion for the discussion service, if it is active.';
