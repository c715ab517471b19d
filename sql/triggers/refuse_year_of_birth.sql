-- refuse_year_of_birth: a year of birth lies within the last 120 years. A trigger, not a CHECK, as it depends on time:
-- a year that was valid when written stays, and can be restored.
-- Fires:    BEFORE INSERT or UPDATE OF year_of_birth on portal.auth_userprofile, for each row WHEN the year is outside;
--           a row within costs nothing. An old year may be saved again unchanged.
-- Raises:   23R15.
-- Locks:    nothing.
-- Security: INVOKER; raises only.
create or replace function rollbook.refuse_year_of_birth() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' and new.year_of_birth = old.year_of_birth then
        return new;
    end if;
    raise exception 'year_of_birth % is not within the last 120 years', new.year_of_birth
        using errcode = '23R15', constraint = 'RB015', hint = 'Give the year with four digits, or leave it empty.';
end $$;
create or replace trigger rollbook_refuse_year_of_birth before insert or update of year_of_birth
    on portal.auth_userprofile
    for each row when (
        (new.year_of_birth)::numeric < (extract(year from now()) - (119)::numeric)
        or (new.year_of_birth)::numeric > extract(year from now())
    )
    execute function rollbook.refuse_year_of_birth();
comment on function rollbook.refuse_year_of_birth() is
    'A year of birth lies within the last 120 years.';
comment on trigger rollbook_refuse_year_of_birth on portal.auth_userprofile is
    'Refuse a new year of birth that is not within the last 120 years.';
