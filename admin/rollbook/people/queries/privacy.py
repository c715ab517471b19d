"""All that the portal's database holds of one person, and its removal: by the account's id, by keys, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import errors, sql

from rollbook.core.referring import belonging, counted
from rollbook.core.rows import one, typed

if TYPE_CHECKING:
    from datetime import date

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

SECRETS = ("password", "activation_key")

# Letters that are another one in the other capitals: of İsmail and Yılmaz, of Ανδρέας.
UNSURE = re.compile("[iıσς]")

# The tables of the portal with a column user_id: where a site has no foreign key, they are found by it.
KNOWN = (
    "auth_userprofile", "auth_registration", "student_courseenrollment", "student_usertestgroup_users",
    "student_pendingnamechange", "student_pendingemailchange", "student_testcenteruser",
)  # fmt: skip
# Tables without a foreign key to the account.
LOOSE = ("rollbook.discussion_outbox", "rollbook.kept_record", "public.rollbook_adoption_fix")

# The account with those that were merged into it: copies of them may be on servers, and entries in the history.
ACCOUNTS = """
with recursive account (id) as (
    select %s::bigint
    union
    select (m.before ->> 'id')::bigint
    from rollbook.history as m inner join account as a on a.id = m.user_id
    where m.outcome = 'merged' and m.before ->> 'id' is not null
)
select array_agg(id order by id) as ids from account
"""

# What the person is or was called. What another account is called now is that one's.
WORDS = """
with texts (kind, word) as (
    select w.kind, w.word from portal.auth_user as u
    cross join lateral (values
        ('username', u.username), ('email', u.email), ('name', u.first_name || ' ' || u.last_name)
    ) as w (kind, word) where u.id = any(%(ids)s)
    union all
    select 'name', p.name from portal.auth_userprofile as p where p.user_id = any(%(ids)s)
    union all
    select 'email', o.entry ->> 0 from portal.auth_userprofile as p
    cross join lateral jsonb_path_query(coalesce(nullif(p.meta, ''), '{}')::jsonb, '$.old_emails[*]') as o (entry)
    where p.user_id = any(%(ids)s)
    union all
    select 'name', o.entry ->> 0 from portal.auth_userprofile as p
    cross join lateral jsonb_path_query(coalesce(nullif(p.meta, ''), '{}')::jsonb, '$.old_names[*]') as o (entry)
    where p.user_id = any(%(ids)s)
    union all
    select 'name', c.new_name from portal.student_pendingnamechange as c where c.user_id = any(%(ids)s)
    union all
    select 'email', c.new_email from portal.student_pendingemailchange as c where c.user_id = any(%(ids)s)
    union all
    select 'name', c.first_name || ' ' || c.last_name
    from portal.student_testcenteruser as c where c.user_id = any(%(ids)s)
    union all
    select 'name', w.word from rollbook.name_decision as d
    cross join lateral (values (d.old_name), (d.new_name)) as w (word) where d.user_id = any(%(ids)s)
    union all
    select w.kind, w.word from rollbook.discussion_outbox as o
    cross join lateral (values ('username', o.username), ('email', o.email)) as w (kind, word)
    where o.user_id = any(%(ids)s)
    union all
    select
        case when v.word ~ '^[^@[:space:]]+@[^@[:space:]]+$' then 'email' else f.kind end, v.word
    from rollbook.history as h
    cross join lateral (values (h.before), (h.after)) as s (side)
    cross join lateral (values
        ('username', s.side -> 'username'), ('name', s.side -> 'name'), ('name', s.side -> 'new_name'),
        ('name', s.side -> 'old_name'), ('email', s.side -> 'email'), ('email', s.side -> 'new_email'),
        ('email', s.side -> 'old_email')
    ) as f (kind, value)
    cross join lateral (select f.value #>> '{}' as word) as v
    where h.user_id = any(%(ids)s) and jsonb_typeof(f.value) = 'string'
        and (h.outcome <> 'merged' or h.before is not null)  -- not the account into which it was merged
)
select distinct t.kind, lower(btrim(t.word)) as word
from texts as t
where length(btrim(t.word)) > 1 and not exists (
    select from portal.auth_user as o
    where o.id <> all(%(ids)s) and case t.kind
        when 'username' then lower(o.username) = lower(t.word)
        when 'email' then lower(o.email) = lower(t.word) and o.email <> '' else false
    end
)
order by 1, 2
"""

LOCK = "select id, username from portal.auth_user where id = any(%s) order by id for update"

KEYS = """
select t.name, array_agg(t.id order by t.id) as ids
from (
    select 'auth_user' as name, u.id from unnest(%(ids)s::bigint[]) as u (id)
    union all
    select 'auth_userprofile', p.id from portal.auth_userprofile as p where p.user_id = any(%(ids)s)
    union all
    select 'student_courseenrollment', e.id from portal.student_courseenrollment as e where e.user_id = any(%(ids)s)
) as t group by t.name
"""

ALLOWED = "portal.student_courseenrollmentallowed"

# Files that went to the test centre, or came from it, with a row of the person.
FILES = """
select f.name, f.direction, f.kind, f.at, count(*) as rows, array_agg(r.key order by r.line) as keys
from rollbook.exchange_row as r
inner join rollbook.exchange_file as f on f.id = r.file_id
where {of_person}
group by f.id order by f.id
"""
OF_PERSON = sql.SQL("""
    (
        f.kind in ('cdd', 'vcdc') and r.record_id in (
            select c.id from portal.student_testcenteruser as c where c.user_id = any(%(ids)s)
        )
        or f.kind in ('ead', 'eac') and r.record_id in (
            select a.id from portal.student_testcenterregistration as a
            inner join portal.student_testcenteruser as c on c.id = a.testcenter_user_id where c.user_id = any(%(ids)s)
        )
    )
""")
CLEAR_MESSAGES = sql.SQL("""
update rollbook.exchange_row as r set message = null from rollbook.exchange_file as f
where f.id = r.file_id and r.message is not null and {of_person}
""").format(of_person=OF_PERSON)

# Entries about others, or about nobody, in which the person is named. What such an entry loses cannot be undone.
# A pattern that ignores case costs 20 us an entry; texts that have a word at all are found first.
MENTIONS: LiteralString = """
(h.user_id is null or h.user_id <> all(%(ids)s))
and lower(concat_ws(' ', h.object, h.reason, h.on_behalf_of, h.before::text, h.after::text)) like any (%(like)s)
and (
    concat_ws(' ', h.object, h.reason, h.on_behalf_of) ~* %(sure)s
    or concat_ws(' ', h.before::text, h.after::text) ~* %(json)s
    or lower(h.object) = any(%(names)s) and coalesce(h.kind, '') not in ('group', 'course')
    or lower(h.on_behalf_of) = any(%(names)s)
)
"""
MENTIONED = sql.SQL("""
select h.id, h.at, h.command, h.outcome from rollbook.history as h
where {mentions} and h.id <= %(newest)s order by h.id
""").format(mentions=sql.SQL(MENTIONS))
CLEAR_MENTIONS = sql.SQL("""
with named as (
    select
        h.id, h.object, h.before, h.after,
        case when lower(h.object) = any(%(names)s) and coalesce(h.kind, '') not in ('group', 'course') then %(tag)s
            else regexp_replace(h.object, %(sure)s, %(tag)s, 'gi') end as new_object,
        case when lower(h.on_behalf_of) = any(%(names)s) then %(tag)s
            else regexp_replace(h.on_behalf_of, %(sure)s, %(tag)s, 'gi') end as new_behalf,
        regexp_replace(h.reason, %(sure)s, %(tag)s, 'gi') as new_reason,
        regexp_replace(h.before::text, %(json)s, %(tag)s, 'gi')::jsonb as new_before,
        regexp_replace(h.after::text, %(json)s, %(tag)s, 'gi')::jsonb as new_after
    from rollbook.history as h where (h.id = any(%(entries)s) or h.id > %(newest)s) and {mentions}
)
update rollbook.history as h
set
    object = n.new_object, on_behalf_of = n.new_behalf, reason = n.new_reason, before = n.new_before,
    after = n.new_after,
    kind = case when n.new_object = n.object and n.new_before is not distinct from n.before
        and n.new_after is not distinct from n.after then h.kind end,
    erased_at = now()
from named as n where n.id = h.id
""").format(mentions=sql.SQL(MENTIONS))
CLEAR_BEHALF = """
update rollbook.exchange_file set on_behalf_of = %(tag)s where lower(on_behalf_of) = any(%(names)s)
"""

OF_USERS = """
select h.id, h.at, h.actor, h.on_behalf_of, h.command, h.object, h.outcome, h.course_id, h.before, h.after, h.reason
from rollbook.history as h where h.user_id = any(%s) order by h.id
"""

OPEN = """
select user_id, user_ids, row_ids, open from rollbook.erasure as e
where e.user_id = %(id)s or exists (
    select from unnest(e.digests) as d (digest)
    where d.digest = sha256(convert_to(e.salt::text || lower(%(word)s::text), 'UTF8'))
)
order by e.user_id
"""

# A second run adds what it finds, and forgets no digest.
BEGIN = """
insert into rollbook.erasure as e (user_id, user_ids, row_ids, digests)
values (%(id)s, %(ids)s, %(row_ids)s, '{}')
on conflict (user_id) do update set user_ids = excluded.user_ids, row_ids = e.row_ids || excluded.row_ids
"""
DIGESTS = """
update rollbook.erasure as e set digests = array(
    select sha256(convert_to(e.salt::text || w.word, 'UTF8')) from unnest(%(words)s::text[]) as w (word)
)
where e.user_id = %(id)s
"""


@dataclass(frozen=True)
class Opened:
    """An erasure that has begun and is not finished."""

    user_id: int
    user_ids: list[int]
    row_ids: dict[str, list[int]]
    open: list[str]


@dataclass(frozen=True)
class Words:
    """What a person is or was called, in lower case."""

    usernames: tuple[str, ...]
    emails: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Return all of them."""
        return [*self.usernames, *self.emails, *self.names]

    @property
    def unmistakable(self) -> list[str]:
        """Return those that mean nothing else: addresses, names of several words, usernames with a digit or sign."""
        others = [*(name for name in self.names if " " in name), *(u for u in self.usernames if not u.isalpha())]
        return [*self.emails, *others]

    def parameters(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return what the statements on the history ask: patterns, and the tag that replaces them."""
        return {
            "ids": list(ids), "tag": f"id:{ids[-1]}", "names": self.all,
            "sure": pattern(self.unmistakable), "json": pattern(self.emails, self.usernames),
            "like": ["%" + UNSURE.sub("_", re.sub(r"([%_\\])", r"\\\1", word)) + "%" for word in self.all],
        }  # fmt: skip


def pattern(words: Sequence[str], usernames: Sequence[str] = ()) -> str:
    """Return a regular expression for whole words, and in JSON for usernames as values of user and username."""
    found = []
    if words:
        longest = "|".join(alternatives(word) for word in sorted(words, key=len, reverse=True))
        found.append(rf"(?<![[:alnum:]_.@%+-])(?:{longest})(?![[:alnum:]_@%+-])")
    if usernames:
        named = "|".join(re.escape(word) for word in usernames)
        found.append(rf'(?<="(?:user|username)": ")(?:{named})(?=")')
    return "|".join(found) or "(?=x)y"  # which nothing matches


def alternatives(word: str) -> str:
    """Return a regular expression for a word, with each letter that a change of capitals may turn into another."""
    return UNSURE.sub(lambda found: "[iıİ]" if found[0] in "iı" else "[σς]", re.escape(word))


@dataclass(frozen=True)
class Mentions:
    """Entries of the history, up to the newest, that name a person by these words."""

    words: Words
    entries: list[int]
    newest: int


@dataclass
class Holding:
    """Rows of one table of the portal's database that are a person's; `forbids`: a key of it forbids a deletion."""

    name: str
    place: sql.Identifier
    conditions: list[sql.Composed] = field(default_factory=list)
    forbids: bool = False
    unlinks: bool = True  # only by keys that a deletion sets to null
    count: int | None = 0

    @property
    def condition(self) -> sql.Composed:
        """Return the condition for its rows, alias r."""
        return sql.SQL("({})").format(sql.SQL(" or ").join(self.conditions))


@dataclass(frozen=True)
class Kept:
    """A table whose rows a law makes one keep."""

    table: str
    reason: str
    until: date | None


def accounts(conn: Conn, user_id: int) -> list[int]:
    """Return the account and those that were merged into it, the account last."""
    ids = [number for number in one(conn, ACCOUNTS, [user_id])["ids"] if number != user_id]
    return [*ids, user_id]


def words(conn: Conn, ids: Sequence[int]) -> Words:
    """Return what these accounts are or were called, unless another account is called so."""
    found: dict[str, list[str]] = {}
    for row in conn.execute(WORDS, {"ids": list(ids)}).fetchall():
        found.setdefault(row["kind"], []).append(row["word"])
    return Words(*(tuple(found.get(kind, ())) for kind in ("username", "email", "name")))


def lock(conn: Conn, ids: Sequence[int]) -> dict[int, str]:
    """Lock the accounts in the order of their ids; return the usernames of those that are there."""
    return {row["id"]: row["username"] for row in conn.execute(LOCK, [list(ids)])}


def row_keys(conn: Conn, ids: Sequence[int]) -> dict[str, list[int]]:
    """Return the keys of their copied rows, by table."""
    return {row["name"]: row["ids"] for row in conn.execute(KEYS, {"ids": list(ids)})}


def holdings(conn: Conn, ids: Sequence[int], emails: Sequence[str]) -> list[Holding]:
    """Return the tables of the portal's database that hold rows of these accounts, the account first."""
    found: dict[str, Holding] = {}

    def add(schema: str, table: str, condition: sql.Composed, action: str = "c") -> None:
        name = f"{schema}.{table}"
        holding = found.setdefault(name, Holding(name, sql.Identifier(schema, table)))
        holding.conditions.append(condition)
        holding.forbids |= action in ("a", "r")
        holding.unlinks &= action in ("n", "d")

    root = named(conn, "portal.auth_user")
    by_id = sql.SQL("r.id = any({}::bigint[])").format(list(ids))
    by_user = sql.SQL("r.user_id = any({}::bigint[])").format(list(ids))
    if root is not None:
        add(root["schema_name"], root["table_name"], by_id)
        rows = sql.SQL("select r.* from {} as r where {}").format(
            sql.Identifier(root["schema_name"], root["table_name"]), by_id
        )
        for each in belonging(conn, root["oid"], rows):
            add(each.schema, each.table, each.condition, each.action)
    for name in (*(f"portal.{table}" for table in KNOWN), *LOOSE):
        place = named(conn, name)
        if place is not None and f"{place['schema_name']}.{place['table_name']}" not in found:
            add(place["schema_name"], place["table_name"], by_user)
    allowed = named(conn, ALLOWED)
    if allowed is not None and emails:
        condition = sql.SQL("lower(r.email) = any({}::text[])").format(list(emails))
        add(allowed["schema_name"], allowed["table_name"], condition)
    for holding in found.values():
        rows = sql.SQL("select from {} as r where {}").format(holding.place, holding.condition)
        holding.count = counted(conn, rows)
    return [each for each in found.values() if each.count != 0]


def named(conn: Conn, name: str) -> Row | None:
    """Return the real table behind a name: oid schema_name table_name is_of_a_course; None if there is none."""
    return conn.execute(
        "select c.oid::bigint as oid, n.nspname as schema_name, c.relname as table_name, "
        "n.nspname <> 'rollbook' and pg_get_userbyid(n.nspowner) = 'rollbook_owner' as is_of_a_course "
        "from pg_class as c "
        "inner join pg_namespace as n on n.oid = c.relnamespace where c.oid = rollbook.real_table(to_regclass(%s))",
        [name],
    ).fetchone()


def read(conn: Conn, holding: Holding) -> list[Row] | None:
    """Return the rows of a holding without their secrets; None where this role may not read them."""
    try:
        with conn.transaction():
            rows = conn.execute(
                sql.SQL("select to_jsonb(r) as row from {} as r where {}").format(holding.place, holding.condition)
            ).fetchall()
    except errors.InsufficientPrivilege:
        return read_columns(conn, holding)
    return [without_secrets(row["row"]) for row in rows]


def read_columns(conn: Conn, holding: Holding) -> list[Row] | None:
    """Return the rows with the columns that this role may read; None if that is none."""
    query = (
        "select a.attname as name from pg_attribute as a where a.attrelid = to_regclass(%s) and a.attnum > 0 "
        "and not a.attisdropped and has_column_privilege(a.attrelid, a.attnum, 'select') order by a.attnum"
    )
    names = [row["name"] for row in conn.execute(query, [holding.place.as_string(conn)]).fetchall()]
    if not names:
        return None
    listed = sql.SQL(", ").join(sql.Identifier("r", name) for name in names)
    try:
        with conn.transaction():
            rows = conn.execute(
                sql.SQL("select {} from {} as r where {}").format(listed, holding.place, holding.condition)
            ).fetchall()
    except errors.InsufficientPrivilege:
        return None
    return [without_secrets(row) for row in rows]


def without_secrets(row: Mapping[str, Any]) -> Row:
    """Return a row in which secrets are not shown: only that there is one."""
    return {name: "(secret)" if name in SECRETS and value else value for name, value in row.items()}


def files(conn: Conn, ids: Sequence[int]) -> list[Row]:
    """Return the exchange files with rows of these accounts: name direction kind at rows keys."""
    return conn.execute(sql.SQL(FILES).format(of_person=OF_PERSON), {"ids": list(ids)}).fetchall()


def entries(conn: Conn, ids: Sequence[int], found: Words) -> tuple[list[Row], list[Row]]:
    """Return the entries of the history about these accounts; of those about others that name the person, which."""
    mine = conn.execute(OF_USERS, [list(ids)]).fetchall()
    parameters = found.parameters(ids) | {"newest": newest(conn)}
    return mine, conn.execute(MENTIONED, parameters).fetchall()


def newest(conn: Conn) -> int:
    """Return the id of the newest entry of the history, 0 for none."""
    return int(one(conn, "select coalesce(max(id), 0) as id from rollbook.history")["id"])


def mentions(conn: Conn, ids: Sequence[int], found: Words) -> Mentions:
    """Return which entries about others name the person: it reads the whole history."""
    parameters = found.parameters(ids) | {"newest": newest(conn)}
    rows = conn.execute(MENTIONED, parameters).fetchall()
    return Mentions(found, [row["id"] for row in rows], parameters["newest"])


def clear_mentions(conn: Conn, ids: Sequence[int], found: Words, seen: Mentions) -> int:
    """Take the person's names out of entries about others, those that were seen and newer ones; return how many."""
    if seen.words != found:  # renamed meanwhile
        seen = mentions(conn, ids, found)
    parameters = found.parameters(ids) | {"entries": seen.entries, "newest": seen.newest}
    conn.execute(CLEAR_BEHALF, parameters)
    return conn.execute(CLEAR_MENTIONS, parameters).rowcount


def clear_messages(conn: Conn, ids: Sequence[int]) -> int:
    """Take the test centre's messages out of the person's rows of exchange files; return how many."""
    return conn.execute(CLEAR_MESSAGES, {"ids": list(ids)}).rowcount


def keep(conn: Conn, ids: Sequence[int], holding: Holding, kept: Kept) -> int:
    """Copy the rows of a holding to the kept records, without secrets; return how many."""
    return conn.execute(
        sql.SQL(
            "insert into rollbook.kept_record (user_id, table_name, record, reason, keep_until) "
            "select %(id)s, %(table)s, to_jsonb(r) - %(secrets)s::text[], %(reason)s, %(until)s from {} as r where {}"
        ).format(holding.place, holding.condition),
        {"id": ids[-1], "table": holding.name, "secrets": list(SECRETS), "reason": kept.reason, "until": kept.until},
    ).rowcount  # fmt: skip


def remove_loose(conn: Conn, ids: Sequence[int], emails: Sequence[str], *, with_kept: bool) -> None:
    """Delete what no foreign key takes along; of the discussion service's deletion the name."""
    parameters = {"ids": list(ids), "emails": list(emails)}
    conn.execute("delete from portal.student_courseenrollmentallowed where lower(email) = any(%(emails)s)", parameters)
    conn.execute(
        "delete from rollbook.discussion_outbox where user_id = any(%(ids)s) and operation = 'put'", parameters
    )
    conn.execute("update rollbook.discussion_outbox set username = null where user_id = any(%(ids)s)", parameters)
    if with_kept:
        conn.execute("delete from rollbook.kept_record where user_id = any(%(ids)s)", parameters)
    if named(conn, "public.rollbook_adoption_fix") is not None:
        conn.execute("delete from public.rollbook_adoption_fix where user_id = any(%(ids)s)", parameters)


def remove_referring(conn: Conn, ids: Sequence[int]) -> None:
    """Delete the rows of other tables whose foreign keys forbid the deletion of these accounts."""
    root = named(conn, "portal.auth_user")
    if root is None:
        return
    rows = sql.SQL("select r.* from {} as r where r.id = any({}::bigint[])").format(
        sql.Identifier(root["schema_name"], root["table_name"]), list(ids)
    )
    for each in belonging(conn, root["oid"], rows):
        if each.forbids:
            conn.execute(each.removal())


def find_open(conn: Conn, user_id: int | None, word: str) -> list[Opened]:
    """Return the open erasures of an account, or of whoever was called so."""
    return typed(Opened, conn, OPEN, {"id": user_id, "word": word})


def begin(conn: Conn, ids: Sequence[int], row_ids: Mapping[str, Sequence[int]], found: Words | None) -> None:
    """Record that an erasure has begun; `found`: by which names the same command finds it again."""
    from rollbook.core.rows import as_json

    conn.execute(BEGIN, {"id": ids[-1], "ids": list(ids), "row_ids": as_json(dict(row_ids))})
    if found is not None:
        conn.execute(DIGESTS, {"id": ids[-1], "words": [*found.usernames, *found.emails]})


def end(conn: Conn, user_id: int, still_open: Sequence[str]) -> None:
    """Record which places are open, or forget the erasure if none is."""
    if still_open:
        conn.execute("update rollbook.erasure set open = %s where user_id = %s", [list(still_open), user_id])
    else:
        conn.execute("delete from rollbook.erasure where user_id = %s", [user_id])


def is_queued(conn: Conn, ids: Sequence[int]) -> bool:
    """Return whether the discussion service has still to receive a deletion."""
    query: LiteralString = "select exists (select from rollbook.discussion_outbox where user_id = any(%s)) as yes"
    return bool(one(conn, query, [list(ids)])["yes"])


def kept_records(conn: Conn, ids: Sequence[int]) -> Iterator[Row]:
    """Yield what is kept: table_name rows reason keep_until."""
    yield from conn.execute(
        "select table_name, count(*) as rows, reason, keep_until from rollbook.kept_record where user_id = any(%s) "
        "group by table_name, reason, keep_until order by table_name", [list(ids)],
    ).fetchall()  # fmt: skip
