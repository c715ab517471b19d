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
    target record;
    steps rollbook.copy_step[] := '{}';
begin
    for target in select * from rollbook.touch_routes(user_ids) loop
        steps := array_append(steps, (
            target.schema_name, 'put', 'auth_userprofile', 'user_id', target.holders
        )::rollbook.copy_step);
        steps := array_append(steps, (target.schema_name, 'delete', 'auth_userprofile', 'id', array(
            select had.id from unnest(profile_ids) as had (id)
            where not exists (
                select from portal.auth_userprofile as p
                inner join rollbook.route as r on r.user_id = p.user_id
                where p.id = had.id and r.schemas @> array[target.schema_name]
            )
        ))::rollbook.copy_step);
    end loop;
    perform rollbook.write_copies(steps);
end $$;
comment on function rollbook.settle_profiles(bigint[], bigint[]) is
    'Copy the profiles of these users to every course that holds the users, and delete the copies of these profiles '
    'where they are no longer due.';
