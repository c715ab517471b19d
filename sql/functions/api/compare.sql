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
    leaver_ids bigint[];
    comparable boolean;
    copied record;
    columns text[];
    result rollbook.comparison;
begin
    for target in select * from rollbook.routed_courses(course_ids) loop
        leaver_ids := rollbook.leaver_ids(target.course, target.routed_ids);
        comparable := true;
        for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
            result.course_id := (target.course).course_id;
            result.table_name := copied.table_name;
            if rollbook.copy_fault((target.course).schema_name, result.table_name) is not null then
                comparable := false;
                result := (result.course_id, result.table_name, null, null, null, null, null, 'not_comparable');
                return next result;
                continue;
            end if;
            columns := rollbook.course_columns(result.table_name, (target.course).without);
            execute format(
                'select count(p.%1$I), count(c.%1$I), count(*) filter (where c.%1$I is null), '
                'count(*) filter (where p.%1$I = c.%1$I and row(%2$s) is distinct from row(%3$s)), '
                'count(*) filter (where p.%1$I is null) from (%4$s) as p full join %5$I.%6$I as c on c.%1$I = p.%1$I',
                copied.key_column, rollbook.column_list(columns, 'p'), rollbook.column_list(columns, 'c'),
                rollbook.due_rows(result.table_name, (target.course).without), (target.course).schema_name, result.table_name
            ) into result.portal_rows, result.course_rows, result.missing, result.changed, result.extra
            using (target.course).course_id, leaver_ids;
            result.verdict := case
                when result.missing + result.changed + result.extra = 0 then 'match' else 'differs'
            end;
            return next result;
        end loop;
        if comparable then
            return query
            select
                (target.course).course_id, 'route', null::bigint, cardinality(target.routed_ids)::bigint,
                count(*) filter (where s.finding = 'missing'), 0::bigint,
                count(*) filter (where s.finding = 'extra'), 'differs'
            from rollbook.stray_routes(target.course, target.routed_ids) as s
            having count(*) > 0;
        end if;
    end loop;
end $$;
comment on function rollbook.compare(text[]) is
    'Count how the copies of the given courses (null: all courses) differ from the portal: one row for each course '
    'and copied table, with the verdict match, differs or not_comparable. Unknown course IDs return no row.';
