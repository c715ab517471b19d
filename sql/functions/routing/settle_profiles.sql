-- settle_profiles: bring profiles into order in every course that holds one of their users: what is due there is
-- copied, then what is not due there any more is deleted. A profile that moved from user to user within a course keeps
-- what the course wrote beside it.
-- Called:   by the routing of profiles, with the ids they had and all users they had or have.
-- Locks:    a write of each user's rollbook.route row, in user-id order.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.settle_profiles(profile_ids bigint[], user_ids bigint[]) returns void
language plpgsql
as $$
declare
    target record;
begin
    for target in select * from rollbook.touch_routes(user_ids) loop
        perform rollbook.put_copies(target.schema_name, 'auth_userprofile', 'user_id', target.holders);
        perform rollbook.delete_copies(target.schema_name, 'auth_userprofile', 'id', array(
            select had.id from unnest(profile_ids) as had (id)
            where not exists (
                select from portal.auth_userprofile as p
                inner join rollbook.route as r on r.user_id = p.user_id
                where p.id = had.id and r.schemas @> array[target.schema_name]
            )
        ));
    end loop;
end $$;
comment on function rollbook.settle_profiles(bigint[], bigint[]) is
    'Bring profiles into order in every course that holds one of their users.';
