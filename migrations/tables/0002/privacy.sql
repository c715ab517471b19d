-- privacy: erasures that are not finished, and records that are kept of persons who were erased. Part of revision 0002.
-- Locks: new tables only.

create table rollbook.erasure (
    user_id bigint primary key,
    user_ids bigint[] not null,
    row_ids jsonb not null default '{}',
    salt uuid not null default gen_random_uuid(),
    digests bytea[] not null default '{}',
    begun_at timestamptz not null default now(),
    open text[] not null default '{}'
);
comment on table rollbook.erasure is
    'Erasures of persons that have begun and are not finished: numbers and digests, no name. Written by '
    '`rollbook user erase`.';
comment on column rollbook.erasure.user_id is 'The account that was erased.';
comment on column rollbook.erasure.user_ids is 'With the accounts that were merged into it.';
comment on column rollbook.erasure.row_ids is
    'By table the keys of their rows, to find what refers to them on servers.';
comment on column rollbook.erasure.salt is 'What the digests begin with.';
comment on column rollbook.erasure.digests is
    'SHA-256 of salt, username and of salt, e-mail address in lower case: so that the same command finishes it.';
comment on column rollbook.erasure.begun_at is 'Time at which the account was deleted.';
comment on column rollbook.erasure.open is 'The places that were not reached yet.';

create table rollbook.kept_record (
    id bigint generated always as identity primary key,
    user_id bigint not null,
    table_name text not null,
    record jsonb not null,
    reason text not null,
    keep_until date,
    at timestamptz not null default now()
);
create index on rollbook.kept_record (user_id);
comment on table rollbook.kept_record is
    'Records of erased persons that a law makes one keep, as the policy file of `rollbook user erase` names them.';
comment on column rollbook.kept_record.id is 'The number of the record.';
comment on column rollbook.kept_record.user_id is 'The account that was erased.';
comment on column rollbook.kept_record.table_name is 'The table that had it.';
comment on column rollbook.kept_record.record is 'The row as it was, without secrets.';
comment on column rollbook.kept_record.reason is 'Why it is kept: the law, as the policy file says.';
comment on column rollbook.kept_record.keep_until is 'Until when; null = the policy file does not say.';
comment on column rollbook.kept_record.at is 'Time of the erasure.';
