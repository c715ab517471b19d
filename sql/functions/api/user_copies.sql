-- user_copies: the state of one user's copies in each course, compared with the portal: ok, missing, changed, extra,
-- unknown where the copy lacks a table or column, or none where no row is due and none exists (a user without a
-- profile).
-- Called:   by a DBA, and to list what goes with a user. All rows come from the snapshot of the calling statement.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.user_copies(user_id bigint)
returns table (course_id text, is_enrolled boolean, user_copy text, profile_copy text, enrollment_copy text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        f.course_id,
        exists (
            select from rollbook.memberships_of(f.course_id) as m where m.user_id = user_copies.user_id
        ),
        coalesce(w.words[min(f.rank) filter (where f.role = 'person')], 'none'),
        coalesce(w.words[min(f.rank) filter (where f.role = 'profile')], 'none'),
        coalesce(w.words[min(f.rank) filter (where f.role = 'membership')], 'none')
    from (
        select c.course_id, t.role, array_position('{not_comparable,changed,missing,extra,ok}', c.finding) as rank
        from rollbook.compare_users(array[user_copies.user_id]) as c
        left join rollbook.copied_tables() as t on t.table_name = c.table_name
    ) as f
    cross join (values ('{unknown,changed,missing,extra,ok}'::text[])) as w (words)
    group by f.course_id, w.words
    order by f.course_id
$$;
comment on function rollbook.user_copies(bigint) is
    'Compare one user''s copies with the portal: a row for each course that the user is enrolled in or that their '
    'route leads to, with ok, missing, changed, extra, unknown or none for user, profile and enrollment.';
