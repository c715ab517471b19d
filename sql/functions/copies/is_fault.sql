-- is_fault: whether an error while a copy is written is the course's: its table is gone, belongs to somebody else, or
-- has a constraint or a trigger that forbids the row. Everything else is the session's or the server's: another
-- session (40, 55P03), a cancelled statement or a shutdown (57), no room (53, 54), the system (58, XX), a session that
-- may not write (25), a refusal of Rollbook's own (RB, 23R). 23R04, a foreign key of the course's that forbids a
-- removal, names the course itself; it is a fault where it may pause the course.
-- Called:   by write_copies, write_copy and repair_copies.
-- Security: INVOKER, called with the rights of rollbook_owner.
create or replace function rollbook.is_fault(state text, schema_name text) returns boolean
language sql stable
as $$
    select left(state, 2) <> all ('{40,53,54,57,58,XX,25,08,RB}'::text[])
        and left(state, 3) <> '23R' and state <> '55P03'
        or state = '23R04' and exists (
            select from rollbook.course as c
            where c.schema_name = is_fault.schema_name::name and c.on_fault = 'pause'
        )
$$;
comment on function rollbook.is_fault(text, text) is
    'Whether an error, by its SQLSTATE, while a copy is written is a fault of the course.';
