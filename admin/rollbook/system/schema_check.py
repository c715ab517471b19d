"""What `schema check` finds: the database's objects against the files that this program ships, and what is foreign.

rollbook.foreign_objects() finds what the catalog alone shows; here is what needs the files, and the course servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors

from rollbook.core.db import Caller, other_encoding
from rollbook.core.errors import UnreachableError
from rollbook.core.migrating import SQL, places, rendered
from rollbook.core.shape import name as sql_name
from rollbook.core.shape import of
from rollbook.core.shell import course_word
from rollbook.core.shipped import BODY, as_query
from rollbook.replication import answered, catalog, link
from rollbook.system import portal_tables
from rollbook.system.adoption import records
from rollbook.system.queries import (
    Difference,
    copied_columns,
    foreign_objects,
    function_names,
    left_out_columns,
    list_functions,
    list_triggers,
    owner_rights,
    view_definitions,
    wrong_column_lists,
)

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg.types.json import Jsonb

    from rollbook.core.db import Conn
    from rollbook.core.rows import Row

SIGNATURE = re.compile(r"^comment on function (rollbook\.\w+\([^)]*\))", re.MULTILINE)
OWNER = re.compile(r"^-- Security: DEFINER, owned by (\w+)", re.MULTILINE)  # else the owner of the schema
VIEW = re.compile(r"^create or replace view rollbook\.\w+(?: with \([^)]*\))? as$", re.MULTILINE)
TRIGGER = re.compile(
    r"""^create or replace (trigger (\w+)\s.*?\son ((?:"[^"]+"|\w+)\.(?:"[^"]+"|\w+))\s.*?);""",
    re.DOTALL | re.MULTILINE,
)
MAKE = "rollbook schema grant"
PINNED = "search_path=pg_catalog, pg_temp"

# What a course server answers: the bodies of these functions, which it does not have, as queries.
ASKED = {
    "copy_differences": ("schemas", "columns", "left_out"),
    "foreign_rights": ("schemas", "columns", "relations"),
    "foreign_code": ("schemas", "columns", "relations"),
    "replica_settings": (),
}


def differences(conn: Conn, caller: Caller | None = None) -> list[Difference]:
    """Return everything that is not as shipped or not ours, here and on the course servers."""
    return [*portal_differences(conn), *servers(conn, caller or Caller("rollbook schema check"))]


def portal_differences(conn: Conn) -> list[Difference]:
    """Return everything that is not as shipped or not ours in this database."""
    checks = (encoding, owner, adoption, functions, triggers, views, portal_tables.differences, foreign_objects)
    return [difference for check in checks for difference in check(conn)]


def encoding(conn: Conn) -> list[Difference]:
    """Check that the database is in UTF8: others cannot hold every name, or hold what is not a text."""
    found = other_encoding(conn)
    words = f"{found}, not UTF8: it cannot hold every name, and feeds no course server"
    return [Difference(f"database {conn.info.dbname}", "encoding", words, None)] if found else []


def owner(conn: Conn) -> list[Difference]:
    """Check that the owners of definer functions have no attributes: these functions run with them."""
    return [
        Difference(role, "role", f"has {', '.join(rights)}",
                   f"alter role {role} {' '.join(f'no{right.lower()}' for right in rights)};")
        for role, rights in owner_rights(conn).items()
    ]  # fmt: skip


def adoption(conn: Conn) -> list[Difference]:
    """Check that nobody else can read or write what an adoption recorded: its undo runs it."""
    found = records.rights(conn)
    return [
        *(Difference(each.name, "table", f"belongs to {each.owner}, and --undo runs what is in it",
                     f"alter table {each.name} owner to {each.caller};") for each in found if not each.is_trusted),
        *(Difference(each.name, "right", f"{', '.join(each.others)} may read or write it", each.revoked)
          for each in found if each.others),
    ]  # fmt: skip


def run_file(*paths: Path) -> str:
    """Return the line for psql that runs shipped files."""
    return " ".join("\\i '{}'".format(str(path).replace("'", "''")) for path in paths)


def shipped_texts(conn: Conn, *kinds: str) -> dict[Path, str]:
    """Return the files of these directories of `sql/`, as they are in a database with this shape."""
    shape, where = of(conn), places(conn)
    paths = sorted(path for kind in kinds for path in (SQL / kind).rglob("*.sql"))
    texts = {path: rendered(path.read_text(), shape, where) for path in paths}
    return {path: text for path, text in texts.items() if "create or replace" in text}


def make(path: Path, text: str) -> str:
    """Return the line that makes a shipped file again; one that names what the shape declares needs the program."""
    return run_file(path) if path.read_text() == text else MAKE


def functions(conn: Conn) -> list[Difference]:
    """Compare the functions of schema rollbook: body, rights, owner; none missing, none foreign."""
    texts = shipped_texts(conn, "functions", "triggers")
    given = {SIGNATURE.findall(text)[0]: path for path, text in texts.items()}
    shipped = {name: given[signature] for signature, name in function_names(conn, list(given)).items()}
    there = {row["signature"]: row for row in list_functions(conn)}
    found = []
    for signature in sorted(shipped.keys() | there.keys()):
        if signature not in there:
            problems = [("missing", MAKE)]
        elif signature not in shipped:
            problems = [("not shipped by this program", f"drop function {signature};")]
        else:
            path = shipped[signature]
            problems = function_problems(there[signature], path, texts[path])
        name = signature.split("(")[0]
        found += [Difference(name, "function", problem, fix) for problem, fix in problems]
    return found


def function_problems(row: Row, path: Path, text: str) -> list[tuple[str, str]]:
    """Compare one function with its file, as rendered; return differences and fixes."""
    signature = row["signature"]
    problems = []
    body = BODY.search(text)
    if not body or row["body"] != body[1]:
        problems.append(("the body is not the one shipped", make(path, text)))
    is_definer = "\nsecurity definer\n" in text
    if row["is_definer"] != is_definer:
        rights = "definer" if is_definer else "invoker"
        fix = f"alter function {signature} security {rights};"
        problems.append(("SECURITY DEFINER or INVOKER is not as shipped", fix))
    if row["is_definer"] and PINNED not in (row["settings"] or []):
        fix = f"alter function {signature} set search_path = pg_catalog, pg_temp;"
        problems.append(("the search_path is not pinned", fix))
    named = OWNER.search(text)
    owner = named[1] if named else row["schema_owner"]
    if row["owner"] != owner:
        problems.append((f"owned by {row['owner']}, not by {owner}", f"alter function {signature} owner to {owner};"))
    if row["is_public"]:
        problems.append(("PUBLIC may execute it", f"revoke execute on function {signature} from public;"))
    return problems


def triggers(conn: Conn) -> list[Difference]:
    """Compare the triggers on the portal's tables: there, the same, and enabled."""

    def canonical(definition: str) -> str:
        text = re.sub(r"[()]|::text", " ", definition.lower())  # no cast where a site has text
        return " ".join(text.replace("create ", "").split())

    there = {(row["table"], row["name"]): row for row in list_triggers(conn)}
    found = []
    for text in shipped_texts(conn, "triggers").values():
        for definition, name, place in TRIGGER.findall(text):
            row = there.get((place, name))
            fix = f"create or replace {' '.join(definition.split())};"
            if row is None:
                found.append(Difference(f"{name} on {place}", "trigger", "missing", fix))
            elif canonical(row["definition"]) != canonical(definition):
                words = "the definition is not the one shipped"
                found.append(Difference(f"{name} on {place}", "trigger", words, fix))
            if row is not None and not row["is_enabled"]:
                fix = f"alter table {place} enable trigger {name};"
                found.append(Difference(f"{name} on {place}", "trigger", "disabled, or enabled for replicas", fix))
    return found


def views(conn: Conn) -> list[Difference]:
    """Compare the views with what the shipped text gives on this server."""
    found = []
    for path in sorted((SQL / "views").glob("*.sql")):
        name = f"rollbook.{path.stem}"
        query = VIEW.split(path.read_text(), maxsplit=1)[1].split(";", 1)[0]
        try:
            shipped, there = view_definitions(conn, name, query)
        except (errors.UndefinedColumn, errors.UndefinedTable, errors.UndefinedFunction) as exc:
            # What it needs is gone, which is a finding of its own, with a fix.
            found.append(Difference(name, "view", f"cannot be compared: {exc.diag.message_primary}", None))
            continue
        if there is None:
            found.append(Difference(name, "view", "missing", MAKE))
        elif there != shipped:
            found.append(Difference(name, "view", "the query is not the one shipped", run_file(path)))
    return found


@dataclass(frozen=True)
class Asked:
    """What course servers are asked with."""

    columns: Jsonb
    left_out: Jsonb
    courses: dict[str, list[catalog.Placement]]  # by server

    def of(self, server: link.Server, there: Conn) -> list[Row]:
        """Ask one server what is foreign or not as shipped there."""
        schemas = [row.schema_name for row in self.courses[server.name]]
        answers: list[Row] = [vars(each) for each in encoding(there)]
        for name, parameters in ASKED.items():
            ours = [] if name == "copy_differences" else ["rollbook"]
            given: dict[str, Any] = {
                "schemas": schemas + ours,
                "columns": self.columns,
                "left_out": self.left_out,
                "relations": [],
            }
            answers += there.execute(as_query(f"checks/{name}", *parameters), given).fetchall()
        return answers

    def differences(self, server: str, answer: Iterable[Row]) -> list[Difference]:
        """Return what one server has answered, with its name."""
        resync = {
            row.schema_name: f"rollbook replication resync {course_word(row.course)}" for row in self.courses[server]
        }
        widen = [
            f"rollbook shape column widen {sql_name(table)} {sql_name(column)} '{due}'"
            for table, columns in self.columns.obj.items() for column, due, _ in columns
        ]  # fmt: skip
        return list(server_differences(server, answer, resync, widen))


def to_ask(conn: Conn, asked: Iterable[link.Server]) -> Asked:
    """Return what these servers are asked with."""
    courses = {
        server.name: [row for row in catalog.fed(conn, server) if row.state != "moving"] for server in asked
    }  # fmt: skip
    return Asked(copied_columns(conn), left_out_columns(conn), courses)


def published(conn: Conn) -> list[Difference]:
    """Check the column lists of what is published to course servers."""
    return [
        Difference(
            f"{row['schema_name']}.{row['table']}", f"publication {row['publication']}",
            "its column list is not as shipped", f"rollbook replication resync {course_word(row['course'])}",
        )
        for row in wrong_column_lists(conn)
    ]  # fmt: skip


def servers(conn: Conn, caller: Caller) -> list[Difference]:
    """Check what is published to each course server; ask each for what is foreign or not as shipped there."""
    there = link.list_servers(conn)
    asked = to_ask(conn, there)
    found = published(conn)
    for name, answer in link.ask(there, asked.of, caller).items():
        if isinstance(answer, UnreachableError):
            found.append(Difference(name, "server", f"not checked: {answer.why}", answer.fix))
            continue
        found += asked.differences(name, answer)
    return found


def server_differences(
    server: str, answer: Iterable[Row], resync: dict[str, str], widen: Sequence[str]
) -> Iterator[Difference]:
    """Return what one server has answered, with its name.

    `resync`: the command for a course whose copy is gone; `widen`: those for columns of another type. A fix of the
    server is one of these, or a statement of ours: for psql, as it ends with a semicolon.
    """
    for row in answer:
        fix = row["fix"]
        if fix is None:
            fix = resync.get(row.get("schema_name", ""))
        elif not (fix in widen or (fix.endswith(";") and answered.is_known(fix))):
            fix = answered.look(server)
        yield Difference(row["object"], f"{row['kind']} on server {server}", row["difference"], fix)


def is_unreachable(found: Iterable[Difference]) -> bool:
    """Return whether a server gave no answer."""
    return any(difference.kind == "server" and difference.difference.startswith("not checked") for difference in found)
