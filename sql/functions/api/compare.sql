-- compare: count the differences between portal and copies: one row for each course and copied table, also where
-- nothing differs.
-- Called:   by `rollbook replication verify`, in batches of courses; null compares all courses. All rows come from the
--           snapshot of the calling statement.
-- Returns:  portal_rows (the rows that the course should hold), course_rows, missing, changed, extra, and a verdict:
--           match, differs, or not_comparable with nulls where the copy lacks a table or column. The table name `route`
--           appears only where routes differ.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.compare(course_ids text[]) returns setof rollbook.comparison
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    target record;
    course rollbook.course;
    member_ids bigint[];
    due_ids bigint[];
    sound text[];
    copied record;
    written_for text[];  -- the columns that a course leaves out, for which `queries` are written
    queries jsonb;
    result rollbook.comparison;
begin
    for target in select * from rollbook.routed_courses(course_ids) loop
        course := target.course;
        member_ids := array(
            select distinct m.user_id::bigint from rollbook.memberships_of(course.course_id) as m order by 1
        );
        due_ids := case
            when member_ids = target.routed_ids then member_ids  -- often, and then no route is astray
            else member_ids || rollbook.leaver_ids(course, target.routed_ids)
        end;
        sound := array(
            select k.table_name from rollbook.copies_of(course.schema_name, course.without) as k where k.is_sound
        );
        if course.without is distinct from written_for then
            written_for := course.without;
            -- In two parts: the schema of a course is between them.
            queries := (
                select jsonb_object_agg(t.table_name, jsonb_build_array(
                    format(
                        'select count(p.%1$I), count(c.%1$I), count(*) filter (where c.%1$I is null), '
                        'count(*) filter (where p.%1$I = c.%1$I and row(%2$s) is distinct from row(%3$s)), '
                        'count(*) filter (where p.%1$I is null) from (%4$s) as p full join ',
                        t.key_column, rollbook.column_list(columns, 'p'), rollbook.column_list(columns, 'c'),
                        case t.role
                            when 'membership' then rollbook.due_rows(t.table_name, written_for)
                            -- The same rows, found by the users that are known here: planned in a third of the time.
                            else format(
                                'select %s from %s as p where p.%I = any ($2)', rollbook.column_list(columns, 'p'),
                                t.source, t.user_column
                            )
                        end
                    ),
                    format('.%I as c on c.%2$I = p.%2$I', t.table_name, t.key_column)
                ))
                from rollbook.copied_tables() as t
                cross join rollbook.course_columns(t.table_name, written_for) as columns
            );
        end if;
        for copied in select t.table_name from rollbook.copied_tables() as t order by t.ordinal loop
            if copied.table_name = any (sound) then
                execute (queries -> copied.table_name ->> 0) || quote_ident(course.schema_name)
                    || (queries -> copied.table_name ->> 1)
                into result.portal_rows, result.course_rows, result.missing, result.changed, result.extra
                using course.course_id, due_ids;
                result.course_id := course.course_id;
                result.table_name := copied.table_name;
                result.verdict := case
                    when result.missing + result.changed + result.extra = 0 then 'match' else 'differs'
                end;
            else
                result := (course.course_id, copied.table_name, null, null, null, null, null, 'not_comparable');
            end if;
            return next result;
        end loop;
        if member_ids <> target.routed_ids
            and cardinality(sound) = cardinality(array(select t.ordinal from rollbook.copied_tables() as t))
        then
            return query
            select
                course.course_id, 'route', null::bigint, cardinality(target.routed_ids)::bigint,
                count(*) filter (where s.finding = 'missing'), 0::bigint,
                count(*) filter (where s.finding = 'extra'), 'differs'
            from rollbook.stray_routes(course, target.routed_ids) as s
            having count(*) > 0;
        end if;
    end loop;
end $$;
comment on function rollbook.compare(text[]) is
    'Count how the copies of the given courses (null: all courses) differ from the portal: one row for each course '
    'and copied table, with the verdict match, differs or not_comparable. Unknown course IDs return no row.';
