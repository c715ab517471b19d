-- join_courses: copy users into the courses in which they are enrolled: user, then profile, then enrollment.
-- Reads current state, not events: it skips an enrollment that has ended meanwhile. Enrollments in courses that do not
-- exist (yet) wait for create_course.
-- Looks enrollments up by user and course, never by id: all new ids are on the last page of their index, and
-- SERIALIZABLE writers who read that page and insert into it are refused.
-- new_course_ids: the courses of enrollments that did not count before: a closed course refuses them, and so
--           does a former ID of one.
-- Called:   by the routing of enrollments and by leave_courses, with users and courses of enrollments, in parallel.
-- Raises:   23R53, 23R55.
-- Locks:    first the tables that it reads, so that a TRUNCATE of them waits before anybody holds a route; then
--           lock_courses; then a write of each user's rollbook.route row, in user-id order.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.join_courses(
    user_ids bigint[], course_ids text[], new_course_ids text[] default '{}'
) returns void
language plpgsql
as $$
declare
    enrolled record;
    joined_ids text[];
    courses rollbook.course[];
    course rollbook.course;
begin
    perform rollbook.lock_portal();
    if cardinality(user_ids) = 1 then
        -- The common case: a plan that is kept. The join is planned each time.
        select array[m.user_id::bigint] as user_ids, course_ids as course_ids
        into enrolled
        from rollbook.memberships_of(course_ids[1]) as m
        where m.user_id = user_ids[1];
    else
        select array_agg(joining.user_id) as user_ids, array_agg(joining.course_id) as course_ids
        into enrolled
        from (select distinct * from unnest(user_ids, course_ids)) as joining (user_id, course_id)
        cross join lateral rollbook.memberships_of(joining.course_id) as m
        where m.user_id = joining.user_id;
    end if;
    if enrolled.user_ids is null then
        return;
    end if;
    joined_ids := array(select distinct id.course_id from unnest(enrolled.course_ids) as id (course_id));
    courses := rollbook.lock_courses(joined_ids);
    if cardinality(courses) < cardinality(joined_ids) and new_course_ids <> '{}' then
        perform rollbook.refuse_former(new_course_ids);
    end if;
    foreach course in array courses loop
        if course.closed_at is not null and course.course_id = any (new_course_ids) then
            perform rollbook.refuse_closed(course);
        end if;
    end loop;

    insert into rollbook.route as r (user_id, schemas)
    select e.user_id, array_agg(distinct c.schema_name::text)
    from unnest(enrolled.user_ids, enrolled.course_ids) as e (user_id, course_id)
    inner join unnest(courses) as c on c.course_id = e.course_id
    group by e.user_id
    order by e.user_id
    on conflict (user_id) do update set
        written = r.written + 1,
        schemas = r.schemas || case
            when r.schemas && excluded.schemas
                then array(select unnest(excluded.schemas) except select unnest(r.schemas))
            else excluded.schemas  -- the common case, without a subquery a row
        end;

    perform rollbook.write_copies(array(
        select (target.schema_name, 'put', t.table_name, t.user_column, target.user_ids)::rollbook.copy_step
        from (
            select c.schema_name, array_agg(e.user_id) as user_ids
            from unnest(enrolled.user_ids, enrolled.course_ids) as e (user_id, course_id)
            inner join unnest(courses) as c on c.course_id = e.course_id
            group by c.schema_name
        ) as target
        cross join rollbook.copied_tables() as t
        order by target.schema_name, t.ordinal
    ));
end $$;
comment on function rollbook.join_courses(bigint[], text[], text[]) is
    'Copy users into courses, as far as they are enrolled there: user, then profile, then enrollment. Arguments: user '
    'ids and course IDs, in parallel; the courses of new enrollments. Raises 23R53 where one of these is closed, 23R55 '
    'where it was renamed.';
