"""What a relay sends on, and the logins by which servers subscribe there: who may too little, or write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rollbook.replication.forward import differing
from rollbook.system.doctor import logins
from rollbook.system.doctor.finding import Check, Finding, attention, resync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

TOO_LITTLE = (
    "with "
    + logins.LOGINS
    + """
select
    format('login %%I of server %%s may not read %%s', l.rolname, l.server,
           string_agg(distinct n.nspname, ', ' order by n.nspname)) as found,
    'SELECT on what its publication lists, by rollbook_subscriber: a first copy fails' as wanted,
    format('grant rollbook_subscriber to %%I; then: rollbook server add %%s', l.rolname, l.server) as fix
from logins as l
inner join pg_publication as p on p.pubname = 'rollbook_' || l.server
inner join pg_publication_rel as r on r.prpubid = p.oid
inner join pg_class as c on c.oid = r.prrelid
inner join pg_namespace as n on n.oid = c.relnamespace
where not (has_schema_privilege(l.oid, n.oid, 'usage') and has_table_privilege(l.oid, c.oid, 'select'))
group by l.rolname, l.server
order by 1
"""
)

# What docs/relay.md takes from the login of a server. PostgreSQL only warns whoever may not revoke.
OPEN = (
    "with "
    + logins.LOGINS
    + """
select distinct
    format('login %%I of a subscription %%s', l.rolname, k.words) as found, k.wanted,
    format('on server %%s: %%s', %(place)s::text, k.fix) as fix
from logins as l
cross join lateral (
    select
        'may create temporary tables' as words,
        'a login that writes nothing; the owner of the database, or a superuser, runs the fix' as wanted,
        format('revoke temporary on database %%I from public, %%I;', current_database(), l.rolname) as fix
    where has_database_privilege(l.oid, current_database(), 'temporary')
    union all
    select
        'may create large objects', 'a login that writes nothing; a superuser runs the fix',
        format('revoke execute on function lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) '
               'from public, %%I;', l.rolname)
    where exists (
        select from unnest(array['lo_creat(integer)', 'lo_create(oid)', 'lo_from_bytea(oid, bytea)']) as f (name)
        where has_function_privilege(l.oid, 'pg_catalog.' || f.name, 'execute')
    )
    union all
    select
        'may open as many sessions as it pleases', 'a connection limit',
        format('alter role %%I connection limit 10;', l.rolname)
    where l.rolconnlimit = -1
) as k
where not l.rolsuper
order by 1
"""
)

SHOWN = 3  # copies that a line names
CHECKS = (
    logins.CHECK, Check("subscription login", TOO_LITTLE), Check("subscription login", OPEN),
)  # fmt: skip


def column_lists(
    relay: Conn, where: str, server: str, sent: Sequence[Row], courses: Mapping[str, str]
) -> Iterator[Finding]:
    """Return that a relay sends copies on to a server with other columns than the portal sends.

    A table that is not listed is a check of its own. `sent`: rows of rollbook.published_copies; `courses`: their ids,
    by schema.
    """
    stream = f"rollbook_{server}"
    found, schemas = [], sorted({row["schema_name"] for row in sent})
    for (schema, table), (ours, theirs) in differing(sent, relay, stream, schemas).items():
        if ours is not None and theirs is not None:
            parts = (("without", ours - theirs), ("with", theirs - ours))
            words = " and ".join(f"{word} {', '.join(sorted(names))}" for word, names in parts if names)
            found.append((courses[schema], f"{table} of course {courses[schema]} {words}"))
    if found:
        rest = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield attention(
            "publication", where, f"publication {stream} lists {'; '.join(words for _, words in found[:SHOWN])}{rest}",
            "the columns that the portal sends", resync(list(dict.fromkeys(course for course, _ in found))),
        )  # fmt: skip
