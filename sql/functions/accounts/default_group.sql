-- default_group: what the four default groups are for; null for any other name. They are made on first use.
-- Called:   by `rollbook group add`.
-- Security: INVOKER; constant.
create or replace function rollbook.default_group(group_name text) returns text
language sql immutable
as $$
    select case group_name
        when 'email_future_courses' then 'Wants e-mail about courses to come'
        when 'email_helpers' then 'Wants e-mail about ways to help'
        when 'mitx_unenroll' then 'Has left altogether: no more messages'
        when '6002x_unenroll' then 'Took 6.002x and dropped it'
    end
$$;
comment on function rollbook.default_group(text) is
    'What the four default groups are for; null for any other name.';
