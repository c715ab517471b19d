"""Whether pg_hba.conf lets pg_basebackup in with the login of a subscription route: tried by the server, not guessed.

pg_hba.conf decides by address, so the source cannot answer for the server, nor can the machine of this program. It does
not decide which commands a connection of logical replication sends, BASE_BACKUP for instance: docs/relay.md.
"""

from __future__ import annotations

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from rollbook.core.db import Conn
from rollbook.core.rows import one
from rollbook.replication.link import Server

DBLINK = """
select n.nspname::text as schema from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
where e.extname = 'dblink'
"""


def may_take_one(conn: Conn, server: Server) -> bool | None:
    """Let the server open a physical replication connection to its source; return whether it was let in.

    The logical one must have been tried before: where that works and this one fails, the login is refused. Needs dblink
    on the server, which is installed in a transaction that is rolled back. None, not known: the server does not have
    it, or the role there may not install it.
    """
    route = make_conninfo(server.subscription_dsn or "", replication="true", connect_timeout="5")
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("create schema rollbook_probe")
            conn.execute("create extension if not exists dblink with schema rollbook_probe")
            call = sql.SQL("select {0}.dblink_connect(%s, %s), {0}.dblink_disconnect(%s)").format(
                sql.Identifier(one(conn, DBLINK)["schema"])
            )
            conn.execute(call, ["rollbook probe", route, "rollbook probe"])
    except errors.SqlclientUnableToEstablishSqlconnection:
        return False
    except psycopg.Error:
        if conn.broken:
            raise
        return None
    return True
