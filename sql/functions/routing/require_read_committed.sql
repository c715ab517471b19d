-- require_read_committed: refuse work that must see what others committed while it waited for their locks.
-- Called:   by drop_course and the routing of TRUNCATE. Work on single rows needs no such rule: there the older
--           snapshot gets 40001 from the route.
-- Security: INVOKER.
create or replace function rollbook.require_read_committed(work text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception '% runs at READ COMMITTED only, not at %', work, upper(current_setting('transaction_isolation'))
            using errcode = 'RB009', hint = 'Run it in a separate transaction: begin isolation level read committed.';
    end if;
end $$;
comment on function rollbook.require_read_committed(text) is
    'Raise RB009 unless the transaction is READ COMMITTED; `work` names what is refused.';
