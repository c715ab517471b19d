"""What the tests of the program share: running it, in process and as a process, and what stands in the database."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql

from rollbook.system.demo.server import find_bindir

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "admin" / "rollbook"
PROGRAM = str(Path(sys.executable).parent / "rollbook")
KEEP, REMOVE = "MITx/6.002x/2012_Fall", "edX/toy/2013_Spring"
KEEP_SCHEMA, REMOVE_SCHEMA = "course_mitx_6_002x_2012_fall", "course_edx_toy_2013_spring"
COPIED = ("auth_user", "auth_userprofile", "student_courseenrollment")

# The lists of the contract: command -> the keys of a row.
LISTS: dict[str, str] = {
    "schema current": "database revision is_head pending",
    "schema history": "revision down_revision title locks reversible",
    "schema check": "object kind difference fix",
    "course list": "course schema_name state on_leave enrolled copied_users server since on_fault "
    "paused_at pause_reason moving_to without closed_at",
    "user list": "id username email name is_active is_staff is_superuser date_joined last_login courses",
    "user count": "users active",
    "user count --by course": "key users active",
    "user count --by month": "key users active",
    "user count --by country": "key users active",
    "user count --by week": "key users active",
    "registration list": "username email created expires state",
    "group list": "id name members description",
    "name-change list": "id username old_name new_name rationale requested_at state reason",
    "email-change list": "id username old_email new_email requested_at expires_at conflict",
    "enrollment list": "course username email created replicated",
    "enrollment count": "enrollments",
    "allowed list": "course email auto_enroll user_exists enrolled created",
    "enrollment count --by course": "key enrollments",
    "enrollment count --by day": "key enrollments",
    "enrollment count --by month": "key enrollments",
    "discussion status": "active url pending failed oldest_seconds last_error reachable",
    "discussion list": "username operation attempts next_try error user_id since",
    "candidate list": "client_candidate_id username name country state sent_at confirmed_at error",
    "candidate check": "candidate username authorization field problem",
    "authorization list": "client_authorization_id username course exam first last accommodation state sent_at "
    "confirmed_at error",
    "exam list": "course exam display_name first_appointment last_appointment is_open is_current authorizations "
    "registration_start registration_end name",
    "pearson list": "batch at kind file rows accepted rejected waiting set_aside archive sha256",
    "pearson report waiting": "what key username sent_at waits",
    "replication status": "course target kind state lag_bytes lag_seconds pending_changes oldest_pending_seconds "
    "error_count verified_at verdict observed_at reason fix closed_at",
    "replication verify": "course table portal_rows course_rows missing changed extra verdict server in_flight",
    "replication verify --rows": "course table finding row_id columns server",
    "replication repair -n": "course table inserted updated deleted verdict_after",
}


@dataclass(frozen=True)
class Result:
    """What one call of the program did."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The answer, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def row(self) -> dict[str, Any]:
        """The only row of a JSON answer."""
        (only,) = self.data
        return dict(only)

    def column(self, name: str) -> list[Any]:
        """One column of a JSON answer."""
        return [row[name] for row in self.data]

    def cells(self, delimiter: str = ",") -> list[list[str]]:
        """The lines of a csv or tsv answer."""
        return list(csv.reader(io.StringIO(self.out), delimiter=delimiter))


def environment(**more: str) -> dict[str, str]:
    """The environment of a process: no pager, and pipes as Python buffers them by default."""
    return {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"PAGER": ""} | more


def process(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> Result:
    """Run the program as a process in pipes."""
    done = subprocess.run(
        [PROGRAM, *arguments], input=stdin, capture_output=True, check=False, env=environment(**(env or {})), timeout=60
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def postgres_program(name: str) -> Path:
    """A program of the PostgreSQL under test, such as psql; the test is skipped where that came without its clients."""
    program = find_bindir() / name
    if not program.exists():
        pytest.skip(f"this PostgreSQL came without {name}")
    return program


def snapshot(db: Connection[Any]) -> dict[str, list[str]]:
    """Every row of every table of the portal, of Rollbook and of the courses, and the revision."""
    tables = db.execute(
        """select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'r' and (n.nspname in ('portal', 'rollbook', 'public') or n.nspname like 'course\\_%')
        order by 1, 2"""
    ).fetchall()
    every = sql.SQL(" union all ").join(
        sql.SQL("select {}, t::text from {} as t").format(f"{schema}.{table}", sql.Identifier(schema, table))
        for schema, table in tables
    )
    found: dict[str, list[str]] = {f"{schema}.{table}": [] for schema, table in tables}
    for name, row in db.execute(sql.SQL("{} order by 1, 2").format(every)) if tables else ():
        found[name].append(row)
    return found


def rows(db: Connection[Any], table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of a table, named as schema.table, in the order of the first."""
    return db.execute(
        sql.SQL("select {} from {} order by 1").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(*table.split("."))
        )
    ).fetchall()


def damage(db: Connection[Any], schema: str = KEEP_SCHEMA) -> None:
    """Change a user copy, lose a profile copy, and invent an enrollment copy, past the guards."""
    db.execute("set session_replication_role = replica")
    for statement in (
        "update {}.auth_user set email = 'wrong@example.org' where username = 'ada'",
        "delete from {}.auth_userprofile where id = (select max(id) from {}.auth_userprofile)",
        "insert into {}.student_courseenrollment select 999, user_id, course_id, created from "
        "{}.student_courseenrollment order by id limit 1",
    ):
        db.execute(sql.SQL(statement.replace("{}", "{0}")).format(sql.Identifier(schema)))
    db.execute("reset session_replication_role")
