"""Databases that one test after the other gets, each time as new: cleaning one costs a tenth of making and filling one.

A database is as new when its catalogs have no row that is younger than it, and lack none, and its tables hold the rows
of its template. What a test has made goes, and what it did to rows is undone; where it leaves more behind (a dropped
trigger, a granted right), the database goes and a new one comes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import tuple_row

from rollbook.system.demo.server import PrivateServer

Db = Connection[Any]
Table = tuple[str, str]

# Where a test can leave something; any change there makes a new row version. Sessions with temporary tables leave
# their schemas, empty, which no program sees.
CATALOGS = (
    "pg_attrdef", "pg_attribute", "pg_class", "pg_collation", "pg_constraint", "pg_default_acl", "pg_description",
    "pg_event_trigger", "pg_extension", "pg_operator", "pg_policy", "pg_proc", "pg_publication", "pg_publication_rel",
    "pg_rewrite", "pg_sequence", "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
IN_CATALOG = "select count(*), count(*) filter (where age(xmin) < age(%(born)s::xid)) from pg_catalog.{}"
IN_SCHEMAS = IN_CATALOG.replace("{}", "pg_namespace where nspname !~ '^pg_(toast_)?temp_'")
SHARED = """select count(*), count(d.datacl) from pg_database as d where d.datname = current_database()
    and d.datallowconn and d.datconnlimit = -1 and d.datdba = 'postgres'::regrole
union all
select count(*), 0 from pg_db_role_setting as s join pg_database as d on d.oid = s.setdatabase
where d.datname = current_database()
union all
select count(*), 0 from pg_subscription as s join pg_database as d on d.oid = s.subdbid
where d.datname = current_database()
union all
select count(*), 0 from pg_replication_slots where database = current_database()"""
STATE = sql.SQL(" union all ".join([*(IN_CATALOG.replace("{}", name) for name in CATALOGS), IN_SCHEMAS, SHARED]))

SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
TABLES = "select schemaname, tablename from pg_tables where schemaname !~ '^pg_' and schemaname <> 'information_schema'"
COLUMNS = """select attname from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = ''"""
ANY_ROW = sql.SQL("exists(select from {})")
DIGEST = sql.SQL("(select md5(string_agg(t::text, ' ' order by t::text)) from {} as t)")
SEQUENCES = """select format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value),
    last_value is not null from pg_sequences"""
# What a test has made in schemas that stay. An object's number is higher than that of each before.
NEWEST = sql.SQL("""select max(oid)::bigint, pg_current_xact_id()::text from (
    select oid from pg_class union all select oid from pg_proc union all select oid from pg_trigger) as object""")
MADE = """select format('drop table if exists %%s cascade', oid::regclass) from pg_class
where relkind in ('r', 'p') and oid::bigint > %(newest)s and relpersistence <> 't'
union all
select format('drop view if exists %%s cascade', oid::regclass) from pg_class
where relkind = 'v' and oid::bigint > %(newest)s and relpersistence <> 't'
union all
select format('drop routine if exists %%s cascade', oid::regprocedure) from pg_proc where oid::bigint > %(newest)s
union all
select format('drop trigger if exists %%I on %%s', tgname, tgrelid::regclass) from pg_trigger
where oid::bigint > %(newest)s and not tgisinternal"""

# Those of a failed test, and of a program that was killed.
END_OTHER_SESSIONS = """select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


@dataclass(frozen=True)
class Rows:
    """The rows of a table when new."""

    digest: str
    columns: sql.Composed  # those that can be written
    content: bytes  # as COPY has them


@dataclass(frozen=True)
class New:
    """What a database holds when it is new."""

    schemas: set[str]
    newest: int  # object
    born: str  # transaction: what is younger was done by a test
    sequences: list[tuple[str, int, bool]]
    rows: dict[Table, Rows]  # of the tables that have some
    state: list[tuple[int, int]]


class Databases:
    """The databases of one server that are made from one template."""

    def __init__(self, server: PrivateServer, template: str) -> None:
        self.server, self.template = server, template
        self.free: list[str] = []

    def filled(self, name: str, fill: Callable[[Db], object]) -> Databases:
        """Others, whose template is one of these after `fill`."""
        self.make(name)
        with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
            fill(conn)
        return Databases(self.server, name)

    @contextmanager
    def lent(self) -> Iterator[Db]:
        """Yield a session, autocommit, as superuser, on a database that is as new; then clean that, or else drop it."""
        name = self.free.pop() if self.free else self.make(f"t_{uuid.uuid4().hex[:10]}")
        new = self.new
        with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
            yield conn
            is_cleaned = self.is_cleaned(name, conn, new)
        if is_cleaned:
            self.free.append(name)
        else:
            with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def make(self, name: str) -> str:
        """Make a database; return its name. To copy files takes half of what copying their pages takes."""
        make = sql.SQL("create database {} template {} strategy file_copy")
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute(make.format(sql.Identifier(name), sql.Identifier(self.template)))
        return name

    @cached_property
    def new(self) -> New:
        """What each of them holds when it is new."""
        name = self.make(f"t_{uuid.uuid4().hex[:10]}")
        self.free.append(name)
        with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
            newest, born = only(conn, NEWEST)
            filled = [table for table, is_filled in each(conn, tables(conn), ANY_ROW).items() if is_filled]
            return New(
                schemas={row[0] for row in conn.execute(SCHEMAS)},
                newest=newest,
                born=born,
                sequences=conn.execute(SEQUENCES).fetchall(),
                rows={table: rows(conn, table) for table in filled},
                state=state(conn, born),
            )

    def is_cleaned(self, name: str, used: Db, new: New) -> bool:
        """Take away what a test left, as far as that leaves no trace; say whether the database is as new.

        The test's own session does so, if it is still there: a new one would read the catalogs first, for 12 ms.
        """
        try:
            with psycopg.connect(self.server.dsn(name), autocommit=True) if used.closed else used as conn:
                conn.rollback()
                conn.autocommit, conn.row_factory = True, tuple_row
                conn.execute("discard all")
                conn.execute("set lock_timeout = '2s'")
                conn.execute(END_OTHER_SESSIONS)
                clean(conn, new)
                return state(conn, new.born) == new.state
        except psycopg.Error:
            return False


def clean(conn: Db, new: New) -> None:
    """Drop what a test has made, and put the rows back."""
    conn.execute("set session_replication_role = replica")  # no trigger and no foreign key has a say
    conn.execute("set client_min_messages = warning")
    for (publication,) in conn.execute("select pubname from pg_publication").fetchall():
        conn.execute(sql.SQL("drop publication {}").format(sql.Identifier(publication)))
    for (schema,) in conn.execute(SCHEMAS).fetchall():
        if schema not in new.schemas:
            conn.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    for (drop,) in conn.execute(MADE, {"newest": new.newest}).fetchall():
        conn.execute(drop)
    empty = [table for table in tables(conn) if table not in new.rows]
    found = each(conn, new.rows, DIGEST) | each(conn, empty, ANY_ROW)
    for table, content in found.items():
        before = new.rows.get(table)
        if content != (before.digest if before else False):
            conn.execute(sql.SQL("delete from {}").format(sql.Identifier(*table)))
            if before:
                put = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(*table), before.columns)
                with conn.cursor().copy(put) as copy:
                    copy.write(before.content)
    names, values, are_called = zip(*new.sequences, strict=True) if new.sequences else ((), (), ())
    conn.execute(
        "select setval(s.name::regclass, s.value, s.is_called) "
        "from unnest(%s::text[], %s::bigint[], %s::boolean[]) as s (name, value, is_called)",
        [list(names), list(values), list(are_called)],
    )


def only(conn: Db, query: sql.SQL | sql.Composed) -> tuple[Any, ...]:
    """The only row of a query."""
    (row,) = conn.execute(query).fetchall()
    return tuple(row)


def tables(conn: Db) -> list[Table]:
    """The tables that are not the system's."""
    return conn.execute(TABLES).fetchall()


def each(conn: Db, among: Iterable[Table], question: sql.SQL) -> dict[Table, Any]:
    """What a query of one value says of each table, in one statement."""
    queries = {table: question.format(sql.Identifier(*table)) for table in among}
    answers = only(conn, sql.SQL("select {}").format(sql.SQL(", ").join(queries.values())))
    return dict(zip(queries, answers, strict=True))


def rows(conn: Db, table: Table) -> Rows:
    """The rows of a table."""
    where = sql.Identifier(*table)
    digest = each(conn, [table], DIGEST)[table]
    names = conn.execute(COLUMNS, [where.as_string(conn)]).fetchall()
    columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in names)
    with conn.cursor().copy(sql.SQL("copy {} ({}) to stdout").format(where, columns)) as copy:
        return Rows(digest, columns, b"".join(copy))


def state(conn: Db, born: str) -> list[tuple[int, int]]:
    """Sum up the catalogs: how many rows they have, and how many are younger than that transaction."""
    return conn.execute(STATE, {"born": born}).fetchall()
