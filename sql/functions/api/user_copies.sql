-- user_copies: the state of one user's copies in each course, compared with the portal: ok, missing, changed, extra,
-- unknown where the copy lacks a table or column, or none where no row is due and none exists (a user without a
-- profile).
-- Called:   by `rollbook user show`. All rows come from the snapshot of the calling statement.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.user_copies(user_id bigint)
returns table (course_id text, is_enrolled boolean, user_copy text, profile_copy text, enrollment_copy text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    wanted constant bigint := user_id;
    course rollbook.course;
    copied record;
    state text;
    states text[];
begin
    for course in
        select c.* from rollbook.course as c
        where exists (
                select from portal.student_courseenrollment as e where e.user_id = wanted and e.course_id = c.course_id
            )
            or exists (
                select from rollbook.route as r
                where r.user_id = wanted and r.schemas @> array[c.schema_name::text]
            )
        order by c.course_id
    loop
        is_enrolled := exists (
            select from portal.student_courseenrollment as e where e.user_id = wanted and e.course_id = course.course_id
        );
        states := '{}';
        for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
            if rollbook.copy_fault(course.schema_name, copied.table_name) is not null then
                states := states || 'unknown'::text;
                continue;
            end if;
            execute format(
                'select case when p.id is null and c.id is null then ''none'' when c.id is null then ''missing'' '
                'when p.id is null then ''extra'' when row(%1$s) is distinct from row(%2$s) then ''changed'' '
                'else ''ok'' end '
                'from (values (1)) as always left join (%3$s) as p on p.%4$I = $3 '
                'left join %5$I.%6$I as c on c.%4$I = $3',
                'p.' || array_to_string(rollbook.replicated_columns(copied.table_name), ', p.'),
                'c.' || array_to_string(rollbook.replicated_columns(copied.table_name), ', c.'),
                rollbook.due_rows(copied.table_name),
                copied.user_column, course.schema_name, copied.table_name
            ) into state using course.course_id, rollbook.leaver_ids(course, array[wanted]), wanted;
            states := states || state;
        end loop;
        course_id := course.course_id;
        user_copy := states[1];
        profile_copy := states[2];
        enrollment_copy := states[3];
        return next;
    end loop;
end $$;
comment on function rollbook.user_copies(bigint) is
    'Compare one user''s copies with the portal: a row for each course that the user is enrolled in or that holds '
    'copies, with ok, missing, changed, extra, unknown or none for user, profile and enrollment.';
