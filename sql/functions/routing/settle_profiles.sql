-- settle_profiles: update the profile copies of these users in every course that holds them: copy the profiles that are
-- due there, then delete those that are not. A profile that moves from one user to another within a course keeps the
-- values that the course added.
-- Called:   by the routing of profiles, with the ids that the profiles had and all users before and after.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.settle_profiles(profile_ids bigint[], user_ids bigint[]) returns void
language plpgsql
as $$
declare
    profile record;
    target record;
    gone_ids bigint[];
    steps rollbook.copy_step[] := '{}';
begin
    select * into profile from rollbook.copied_tables() as t where t.role = 'profile';
    for target in select * from rollbook.touch_routes(user_ids) loop
        steps := array_append(steps, (
            target.schema_name, 'put', profile.table_name, profile.user_column, target.holders
        )::rollbook.copy_step);
        continue when profile_ids = '{}';
        execute format(
            'select array(select had.id from unnest($1) as had (id) where not exists ('
            'select from %1$s as p inner join rollbook.route as r on r.user_id = p.%2$I '
            'where p.%3$I = had.id and r.schemas @> array[$2]))',
            profile.source, profile.user_column, profile.key_column
        ) into gone_ids using profile_ids, target.schema_name;
        steps := array_append(steps, (
            target.schema_name, 'delete', profile.table_name, profile.key_column, gone_ids
        )::rollbook.copy_step);
    end loop;
    perform rollbook.write_copies(steps);
end $$;
comment on function rollbook.settle_profiles(bigint[], bigint[]) is
    'Copy the profiles of these users to every course that holds the users, and delete the copies of these profiles '
    'where they are no longer due.';
