-- split_users: create groups and put users into them at random, each into exactly one: all users, or those named.
-- The users are ordered by a hash of seed and id, and each group takes its share of that order. So sizes
-- are exact, and the same seed, users and shares give the same groups on every server.
-- Called:   by `rollbook group split`. Returns how many users were placed. The groups' description is JSON with the
--           text, the time, the seed and the share.
-- Raises:   RB013 for shares that do not add up to 1 within 0.01 (0.33 three times is valid: shares are
--           normalised), a group named twice, or nobody to place; 23R14 for a group
--           that exists.
-- Locks:    the users FOR KEY SHARE, by id.
-- Security: INVOKER.
create or replace function rollbook.split_users(
    group_names text[], shares numeric[], seed bigint, among bigint[] default null, why text default ''
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    total constant numeric := (select sum(s.share) from unnest(shares) as s (share));
    wrong text;
    placed bigint;
begin
    if coalesce(cardinality(group_names), 0) = 0 or cardinality(group_names) is distinct from cardinality(shares)
        or exists (select from unnest(shares) as s (share) where s.share is null or s.share <= 0)
    then
        raise exception 'each group needs a share above 0' using errcode = 'RB013', hint = 'Write NAME:SHARE.';
    end if;
    if abs(total - 1) > 0.01 then
        raise exception 'Total not 1'
            using errcode = 'RB013', detail = format('The shares add up to %s.', trim_scale(round(total, 6))),
            hint = 'Choose shares that add up to 1, such as 0.3, 0.4 and 0.3.';
    end if;
    select n.name into wrong from unnest(group_names) as n (name) group by n.name having count(*) > 1 limit 1;
    if found then
        raise exception 'group % is named twice', wrong using errcode = 'RB013', hint = 'Name each group once.';
    end if;
    select g.name into wrong from portal.student_usertestgroup as g
    where g.name = any(group_names) order by g.name limit 1;
    if found then
        raise exception '% already exists!', wrong
            using errcode = '23R14', constraint = 'RB014',
            hint = 'Choose names that no group has, or delete that group first.';
    end if;

    insert into portal.student_usertestgroup (name, description)
    select n.name, json_build_object(
        'text', why, 'time', (to_jsonb(now() at time zone 'UTC') #>> '{}') || '+00:00', 'seed', seed, 'share', n.share
    )::text
    from unnest(group_names, shares) with ordinality as n (name, share, position) order by n.position;

    with member as (
        select u.id from portal.auth_user as u
        where among is null or u.id = any(among)
        order by u.id for key share
    ),
    ranked as (
        select
            m.id,
            (row_number() over (order by sha256(convert_to(seed || ':' || m.id, 'UTF8')), m.id) - 0.5)
            / count(*) over () as place
        from member as m
    ),
    part as (
        select n.name, n.position, sum(n.share) over (order by n.position) / total as until
        from unnest(group_names, shares) with ordinality as n (name, share, position)
    )
    insert into portal.student_usertestgroup_users (usertestgroup_id, user_id)
    select g.id, r.id
    from ranked as r
    cross join lateral (
        select p.name from part as p
        where r.place < p.until or p.position = cardinality(group_names)  -- the last takes what rounding leaves
        order by p.position limit 1
    ) as own
    inner join portal.student_usertestgroup as g on g.name = own.name
    order by r.id;
    get diagnostics placed = row_count;
    if placed = 0 then
        raise exception 'there are no users to place' using errcode = 'RB013', hint = 'Choose other users.';
    end if;
    return placed;
end $$;
comment on function rollbook.split_users(text[], numeric[], bigint, bigint[], text) is
    'Create groups and put users into them at random by share, each into exactly one, repeatable by seed.';
