-- change_emails: give users other addresses; each old one is kept in the profile's meta, under old_emails, as
-- [old address, time]. A change of case alone is a change. A pending change to the same address is removed.
-- Called:   by change_email and by `rollbook user import`. Returns the users whose address changed.
-- Raises:   RB013 if the arrays differ in length or name a user twice; 23505 if another user has one of the addresses
--           (case-insensitive).
-- Locks:    the user rows by id, then the profiles: the order in which accounts are written everywhere.
-- Security: INVOKER.
create or replace function rollbook.change_emails(user_ids bigint[], new_emails text[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    changed_ids bigint[];
    old_emails text[];
    emails text[];
    passed_on bigint[];
begin
    perform rollbook.require_pairs(user_ids, new_emails);
    new_emails := array(
        select case when octet_length(n.email) = length(n.email) then n.email else rollbook.normal_email(n.email) end
        from unnest(new_emails) with ordinality as n (email, place) order by n.place
    );
    perform u.id from portal.auth_user as u where u.id = any(user_ids) order by u.id for no key update;
    select array_agg(u.id order by u.id), array_agg(u.email order by u.id), array_agg(n.email order by u.id)
    into changed_ids, old_emails, emails
    from unnest(user_ids, new_emails) as n (id, email)
    inner join portal.auth_user as u on u.id = n.id
    where u.email is distinct from n.email;
    if changed_ids is null then
        return;
    end if;
    -- An address that passes from one of them to another is given up first: the index checks each row at once.
    if cardinality(changed_ids) > 1 then
        passed_on := array(
            select o.id
            from unnest(changed_ids, old_emails) as o (id, email)
            inner join unnest(changed_ids, emails) as n (id, email) on lower(n.email) = lower(o.email) and n.id <> o.id
            where o.email <> ''
        );
        if passed_on <> '{}' then
            update portal.auth_user as u set email = '' where u.id = any(passed_on);
        end if;
    end if;
    update portal.auth_user as u set email = n.email
    from unnest(changed_ids, emails) as n (id, email) where u.id = n.id;
    update portal.auth_userprofile as p
    set meta = rollbook.add_to_meta(
        p.meta, 'old_emails', jsonb_build_array(n.email, (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00')
    )
    from unnest(changed_ids, old_emails) as n (id, email) where p.user_id = n.id;
    delete from portal.student_pendingemailchange as c
    using unnest(changed_ids, emails) as n (id, email)
    where c.user_id = n.id and lower(c.new_email) = lower(n.email);
    return query select unnest(changed_ids);
end $$;
comment on function rollbook.change_emails(bigint[], text[]) is
    'Give users other e-mail addresses; the old ones are kept in the profiles'' meta.';
