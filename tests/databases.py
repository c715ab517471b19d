"""Databases that one test after the other gets, each time as new: making one costs 0.3 seconds, cleaning one 0.03.

A database is as new when its catalogs hold the very row versions that they held after it was made, and its tables the
rows. Where a test leaves more behind (a dropped trigger, a granted right), the database goes and a new one comes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, sql

from rollbook.system.demo.server import PrivateServer

Table = tuple[str, str]

# Where a test can leave something; any change there makes a new row version.
CATALOGS = (
    "pg_attrdef", "pg_attribute", "pg_class", "pg_collation", "pg_constraint", "pg_default_acl", "pg_description",
    "pg_event_trigger", "pg_extension", "pg_namespace", "pg_operator", "pg_policy", "pg_proc", "pg_publication",
    "pg_publication_rel", "pg_rewrite", "pg_sequence", "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
VERSIONS = sql.SQL("select md5(string_agg(ctid::text || xmin, ' ' order by ctid)) from {}")
SHARED_VERSIONS = sql.SQL("""(with here as (select oid, xmin from pg_database where datname = current_database())
select concat_ws(' ', h.xmin, (select string_agg(xmin::text, ' ' order by ctid) from pg_db_role_setting
                               where setdatabase = h.oid)) from here as h
union all select string_agg(s.subname::text, ' ') from pg_subscription as s join here as h on h.oid = s.subdbid
union all select string_agg(slot_name::text, ' ') from pg_replication_slots where database = current_database())""")

SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
TABLES = "select schemaname, tablename from pg_tables where schemaname !~ '^pg_' and schemaname <> 'information_schema'"

# Those of a failed test, and of a program that was killed.
END_OTHER_SESSIONS = """select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""


@dataclass(frozen=True)
class New:
    """What a database holds when it is new: its schemas, its tables with rows, and the state of everything."""

    schemas: set[str]
    filled: set[Table]
    state: list[tuple[str, ...]]


class Databases:
    """The databases of one server that are made from one template."""

    def __init__(self, server: PrivateServer, template: str) -> None:
        self.server, self.template = server, template
        self.free: list[tuple[str, New]] = []

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Yield the name of a database that is as new; in the end clean it, or else drop it."""
        name, new = self.free.pop() if self.free else self.made()
        yield name
        if self.is_cleaned(name, new):
            self.free.append((name, new))
        else:
            with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def made(self) -> tuple[str, New]:
        """Make a database; return its name and how it is."""
        name = f"t_{uuid.uuid4().hex[:10]}"
        make = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(self.template))
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute(make)
        with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
            schemas = {row[0] for row in conn.execute(SCHEMAS)}
            filled = {table for table in tables(conn) if conn.execute(any_row(table)).fetchone()}
            return name, New(schemas, filled, state(conn, filled))

    def is_cleaned(self, name: str, new: New) -> bool:
        """Take away what a test left, as far as that leaves no trace; say whether the database is as new."""
        try:
            with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
                conn.execute("set lock_timeout = '2s'")
                conn.execute(END_OTHER_SESSIONS)
                clean(conn, new)
                return state(conn, new.filled) == new.state
        except psycopg.Error:
            return False


def clean(conn: Connection[Any], new: New) -> None:
    """Drop what a test has made, and delete the rows of the rest."""
    conn.execute("set session_replication_role = replica")  # no trigger and no foreign key has a say
    for (publication,) in conn.execute("select pubname from pg_publication").fetchall():
        conn.execute(sql.SQL("drop publication {}").format(sql.Identifier(publication)))
    for (schema,) in conn.execute(SCHEMAS).fetchall():
        if schema not in new.schemas:
            conn.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    for table in tables(conn):
        if table not in new.filled:
            conn.execute(sql.SQL("delete from {}").format(sql.Identifier(*table)))
    conn.execute("select setval(seqrelid::regclass, seqstart, false) from pg_sequence")


def tables(conn: Connection[Any]) -> list[Table]:
    """The tables that are not the system's."""
    return conn.execute(TABLES).fetchall()


def any_row(table: Table) -> sql.Composed:
    """A query for one row of a table."""
    return sql.SQL("select 1 from {} limit 1").format(sql.Identifier(*table))


def state(conn: Connection[Any], filled: set[Table]) -> list[tuple[str, ...]]:
    """Sum up the catalogs, and the rows of the tables that have some when new."""
    content = sql.SQL("select md5(string_agg(t::text, ' ' order by t::text)) from {} as t")
    queries = [VERSIONS.format(sql.Identifier("pg_catalog", name)) for name in CATALOGS]
    queries += [content.format(sql.Identifier(*table)) for table in sorted(filled)]
    return conn.execute(sql.SQL(" union all ").join([*queries, SHARED_VERSIONS])).fetchall()
