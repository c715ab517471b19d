-- default_groups: the four groups that are created on first use, and the purpose of each.
-- Called:   by default_group and `rollbook group`.
-- Security: INVOKER; constant.
create or replace function rollbook.default_groups() returns table (name text, description text)
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    values
    ('email_future_courses', 'Wants e-mail about courses to come'),
    ('email_helpers', 'Wants e-mail about ways to help'),
    ('mitx_unenroll', 'Has left altogether: no more messages'), -- words: ok
    ('6002x_unenroll', 'Took 6.002x and dropped it')
$$;
comment on function rollbook.default_groups() is
    'The four groups that are created on first use, and the purpose of each.';
