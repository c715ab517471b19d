-- require_pairs: refuse users and values that are not pairs, or name a user twice.
-- Called:   by change_emails and change_names, before they lock anything.
-- Raises:   RB013.
-- Security: INVOKER; computes only.
create or replace function rollbook.require_pairs(user_ids bigint[], new_values text[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(user_ids) is distinct from cardinality(new_values) then
        raise exception '% users, but % values', cardinality(user_ids), cardinality(new_values)
            using errcode = 'RB013', hint = 'Give one value for each user.';
    end if;
    if (select count(distinct n.id) from unnest(user_ids) as n (id)) < cardinality(user_ids) then
        raise exception 'a user is named twice' using errcode = 'RB013', hint = 'Name each user once.';
    end if;
end $$;
comment on function rollbook.require_pairs(bigint[], text[]) is
    'Refuse users and values that are not pairs, or name a user twice.';
