-- course_rights: the rights that a role was granted itself on a course's schema, its copies and their columns, as text.
-- Called:   by grant_course and revoke_course, before and after, as the first thing that they do.
-- Raises:   RB019 for a caller who may not act for rollbook_owner, RB023.
-- Security: INVOKER; reads the catalog.
create or replace function rollbook.course_rights(schema_name text, role text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    role_id constant oid := (select r.oid from pg_roles as r where r.rolname = role);
    schema_id constant oid := (select n.oid from pg_namespace as n where n.nspname = schema_name);
begin
    perform rollbook.require_owner('grant rights on courses');
    if role_id is null then
        raise exception 'there is no role %', role
            using errcode = 'RB023', hint = format('Create it first: create role %I;', role);
    end if;
    if starts_with(role, 'rollbook_') then
        raise exception 'role % belongs to Rollbook', role
            using errcode = 'RB023', hint = 'Name the role of the course''s team.';
    end if;
    return array(
        select format('%s %s', granted.place, granted.privilege) as rights
        from (
            select schema_name as place, a.privilege_type as privilege, a.grantee
            from pg_namespace as n, aclexplode(n.nspacl) as a
            where n.oid = schema_id
            union all
            select c.relname::text, a.privilege_type, a.grantee
            from pg_class as c, aclexplode(c.relacl) as a
            where c.relnamespace = schema_id and rollbook.replicated_columns(c.relname) is not null
            union all
            select format('%s.%s', c.relname, t.attname), a.privilege_type, a.grantee
            from pg_class as c, pg_attribute as t, aclexplode(t.attacl) as a
            where c.relnamespace = schema_id and t.attrelid = c.oid
                and rollbook.replicated_columns(c.relname) is not null
        ) as granted
        where granted.grantee = role_id
        order by rights
    );
end $$;
comment on function rollbook.course_rights(text, text) is
    'The rights that a role was granted itself on a course''s schema, its copies and their columns, as text. Raises '
    'RB019 for a caller who may not create courses, RB023 for an unknown role or one of Rollbook''s own.';
