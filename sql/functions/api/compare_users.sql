-- compare_users: compare the copies of some users with the portal, and return each of their rows, equal ones too. The
-- rows are found by key: the cost depends on these users alone, not on how many students a course has.
-- course_ids: look into each of these courses, also for copies of users who are not enrolled; null: into the courses in
-- which they are enrolled, or to which their routes lead.
-- Called:   by user_copies, repair_users, `rollbook replication verify --user` and `user show`. All rows come from the
--           snapshot of the calling statement. A user that the portal does not have is compared too.
-- Returns:  finding: ok, missing, changed (with the columns), extra, or not_comparable, with no row, where a copy lacks
--           a table or column. The table name `route` appears only where the route of a user is wrong.
-- Security: DEFINER, owned by rollbook_owner.
create or replace function rollbook.compare_users(user_ids bigint[], course_ids text[] default null)
returns table (course_id text, table_name text, user_id bigint, row_id bigint, finding text, columns text[])
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    asked_ids constant text[] := course_ids;
    enrolled_in constant text[] := array(
        select distinct m.course_id::text from rollbook.memberships() as m where m.user_id = any (user_ids)
    );
    routed_to constant text[] := array(
        select distinct s.name from rollbook.route as r, unnest(r.schemas) as s (name) where r.user_id = any (user_ids)
    );
    held_in constant text[] := case when asked_ids is null then '{}' else array(
        select distinct h.schema_name
        from rollbook.user_rows(
            user_ids, array(select c.schema_name::text from rollbook.course as c where c.course_id = any (asked_ids))
        ) as h
    ) end;
    course rollbook.course;
    copied record;
    person record;
    enrolled_ids bigint[];
    routed_ids bigint[];
    row_ids bigint[];
    comparable boolean;
    whitelist text[];
begin
    select * into person from rollbook.copied_tables() as t where t.role = 'person';
    for course in
        select c.* from rollbook.course as c
        where (asked_ids is null or c.course_id = any (asked_ids))
            and (c.course_id = any (enrolled_in) or c.schema_name = any (routed_to) or c.schema_name = any (held_in))
        order by c.course_id
    loop
        enrolled_ids := array(
            select m.user_id from rollbook.memberships_of(course.course_id) as m where m.user_id = any (user_ids)
        );
        routed_ids := array(
            select r.user_id from rollbook.route as r
            where r.user_id = any (user_ids) and r.schemas @> array[course.schema_name::text]
        );
        comparable := true;
        for copied in select * from rollbook.copied_tables() as t order by t.ordinal loop
            if rollbook.copy_fault(course.schema_name, copied.table_name) is not null then
                comparable := false;
                return query
                select course.course_id, copied.table_name, u.id, null::bigint, 'not_comparable', null::text[]
                from (select unnest(enrolled_ids) union select unnest(routed_ids)) as u (id)
                order by u.id;
                continue;
            end if;
            whitelist := rollbook.course_columns(copied.table_name, course.without);
            -- By id too: a copy may have a row of one user under the id of another one's.
            execute format(
                'select array(select p.%1$I::bigint from %3$s as p where p.%2$I = any ($1) '
                'union select c.%1$I from %4$I.%5$I as c where c.%2$I = any ($1))',
                copied.key_column, copied.user_column, copied.source, course.schema_name, copied.table_name
            ) into row_ids using user_ids;
            return query execute format(
                'select $1, %1$L, coalesce(p.%2$I, c.%2$I)::bigint, coalesce(p.%8$I, c.%8$I)::bigint, '
                'case when c.%8$I is null then ''missing'' when p.%8$I is null then ''extra'' '
                'when row(%6$s) is distinct from row(%7$s) then ''changed'' else ''ok'' end, '
                'case when p.%8$I = c.%8$I then nullif(array_remove(array[%3$s], null), ''{}'') end '
                'from (select * from (%4$s) as due where due.%8$I = any ($3)) as p '
                'full join (select * from %5$I.%1$I as held where held.%8$I = any ($3)) as c on c.%8$I = p.%8$I '
                'order by 3, 4',
                copied.table_name,
                copied.user_column,
                (select string_agg(format('case when p.%1$I is distinct from c.%1$I then %1$L end', w), ', ')
                 from unnest(whitelist) as w),
                rollbook.due_rows(copied.table_name, course.without),
                course.schema_name,
                rollbook.column_list(whitelist, 'p'),
                rollbook.column_list(whitelist, 'c'),
                copied.key_column
            ) using course.course_id,
                case when course.on_leave = 'keep'
                    then array(select unnest(routed_ids) except select unnest(enrolled_ids)) else '{}'::bigint[] end,
                row_ids;
        end loop;
        if comparable then
            -- As stray_routes.
            return query execute format(
                'select $1, ''route'', u.id, u.id, case when u.is_due then ''missing'' else ''extra'' end, null::text[] '
                'from (select id, id = any ($3) or $5 and id = any ($4) as is_due, id = any ($4) as is_routed '
                'from unnest($2) as asked (id)) as u '
                'where u.is_due <> u.is_routed and exists (select from %I.%I as c where c.%I = u.id) = u.is_due '
                'order by u.id',
                course.schema_name, person.table_name, person.key_column
            ) using course.course_id, user_ids, enrolled_ids, routed_ids, course.on_leave = 'keep';
        end if;
    end loop;
end $$;
comment on function rollbook.compare_users(bigint[], text[]) is
    'Compare the copies of some users with the portal, by key: each of their rows in these courses (null: in their '
    'own) with ok, missing, changed (with the columns), extra or not_comparable.';
