"""What `schema check` finds: the database's objects against the files that this program ships."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rollbook.core.db import Caller
from rollbook.core.errors import UnreachableError
from rollbook.core.migrating import SQL
from rollbook.replication import catalog, link
from rollbook.system.queries import (
    list_copies,
    list_functions,
    list_triggers,
    owner_rights,
    view_definitions,
    wrong_column_lists,
)

if TYPE_CHECKING:
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

BODY = re.compile(r"\bas \$\$(.*?)\$\$", re.DOTALL)
OWNER = re.compile(r"^-- Security: DEFINER, owned by (\w+)", re.MULTILINE)  # else the owner of the schema
VIEW = re.compile(r"^create or replace view rollbook\.\w+(?: with \([^)]*\))? as$", re.MULTILINE)
TRIGGER = re.compile(r"^create or replace (trigger (\w+)\s.*?\son (portal\.\w+)\s.*?);", re.DOTALL | re.MULTILINE)


def differences(conn: Conn) -> list[Row]:
    """Return object, kind and difference for every function, trigger, view, guard or copy that is not as shipped."""
    found = [*owner(conn), *functions(conn), *triggers(conn), *views(conn), *copies(conn), *servers(conn)]
    return [{"object": name, "kind": kind, "difference": difference} for name, kind, difference in found]


def owner(conn: Conn) -> list[tuple[str, str, str]]:
    """Check that the owners of definer functions have no attributes: these functions run with them."""
    return [(role, "role", f"has {', '.join(rights)}") for role, rights in owner_rights(conn).items()]


def functions(conn: Conn) -> list[tuple[str, str, str]]:
    """Compare the functions of schema rollbook: body, rights, owner; none missing, none foreign."""
    shipped = {
        path.stem: path.read_text() for kind in ("functions", "triggers") for path in (SQL / kind).rglob("*.sql")
    }
    there: dict[str, Row] = {}
    found = []
    for row in list_functions(conn):
        if row["name"] in there:
            found.append((f"rollbook.{row['name']}", "function", "a function of this name with other arguments exists"))
        there[row["name"]] = row
    for name in sorted(shipped.keys() | there.keys()):
        problems = []
        if name not in there:
            problems.append("missing")
        elif name not in shipped:
            problems.append("not shipped by this program")
        else:
            row, text = there[name], shipped[name]
            body = BODY.search(text)
            if not body or row["body"] != body[1]:
                problems.append("the body is not the one shipped")
            if row["is_definer"] != ("\nsecurity definer\n" in text):
                problems.append("SECURITY DEFINER or INVOKER is not as shipped")
            if row["is_definer"] and "search_path=pg_catalog, pg_temp" not in (row["settings"] or []):
                problems.append("the search_path is not pinned")
            named = OWNER.search(text)
            owner = named[1] if named else row["schema_owner"]
            if row["owner"] != owner:
                problems.append(f"owned by {row['owner']}, not by {owner}")
            if row["is_public"]:
                problems.append("PUBLIC may execute it")
        found += [(f"rollbook.{name}", "function", problem) for problem in problems]
    return found


def triggers(conn: Conn) -> list[tuple[str, str, str]]:
    """Compare the triggers on the portal's tables: there, the same, and enabled."""

    def canonical(definition: str) -> str:
        return " ".join(re.sub(r"[()]", " ", definition.lower()).replace("create ", "").split())

    there = {(row["table"], row["name"]): row for row in list_triggers(conn)}
    found = []
    for path in sorted((SQL / "triggers").glob("*.sql")):
        for definition, name, table in TRIGGER.findall(path.read_text()):
            row = there.get((table, name))
            if row is None:
                found.append((f"{name} on {table}", "trigger", "missing"))
            elif canonical(row["definition"]) != canonical(definition):
                found.append((f"{name} on {table}", "trigger", "the definition is not the one shipped"))
            elif not row["is_enabled"]:
                found.append((f"{name} on {table}", "trigger", "disabled, or enabled for replicas"))
    return found


def views(conn: Conn) -> list[tuple[str, str, str]]:
    """Compare the views with what the shipped text gives on this server."""
    found = []
    for path in sorted((SQL / "views").glob("*.sql")):
        name = f"rollbook.{path.stem}"
        query = VIEW.split(path.read_text(), maxsplit=1)[1].split(";", 1)[0]
        shipped, there = view_definitions(conn, name, query)
        if there is None:
            found.append((name, "view", "missing"))
        elif there != shipped:
            found.append((name, "view", "the query is not the one shipped"))
    return found


def copies(conn: Conn) -> list[tuple[str, str, str]]:
    """Check in every course that the copies have their columns and are guarded."""
    return [
        (f"{row['schema_name']}.{row['table']}", "copy", problem)
        for row in list_copies(conn)
        for problem in (
            f"lacks {', '.join(row['missing_columns'])}" if row["missing_columns"] else None,
            None if row["is_guarded"] else "the guard is missing, disabled or not the one shipped: it may be written",
            f"the guard can be bypassed: {', '.join(row['bypasses'])}" if row["bypasses"] else None,
            f"{', '.join(row['trigger_grantees'])} may add triggers, which routing would run as rollbook_owner"
            if row["trigger_grantees"]
            else None,
        )
        if problem
    ]


def servers(conn: Conn) -> list[tuple[str, str, str]]:
    """Check what is published to each course server, and the copies there: their columns and guards."""
    found = []
    columns = catalog.replicated_columns(conn)
    courses = {server.name: catalog.placements(conn, server) for server in link.list_servers(conn)}

    def question(server: link.Server, there: Conn) -> list[catalog.Copy]:
        schemas = [row.schema_name for row in courses[server.name]]
        return catalog.copies(there, columns, schemas, catalog.subscription(there, server))

    found += [
        (
            f"{row['schema_name']}.{row['table']}",
            f"publication {row['publication']}",
            "its column list is not as shipped",
        )
        for row in wrong_column_lists(conn)
    ]
    for name, answer in link.ask(link.list_servers(conn), question, Caller("rollbook schema check")).items():
        if isinstance(answer, UnreachableError):
            found.append((name, "server", f"not checked: {answer.why}"))
            continue
        for copy in answer:
            where = (f"{copy.schema_name}.{copy.table}", f"copy on server {name}")
            if copy.lacking:
                found.append((*where, f"lacks {', '.join(copy.lacking)}"))
            elif not copy.guarded:
                found.append((*where, "the guard is missing or disabled: it may be written"))
    return found
