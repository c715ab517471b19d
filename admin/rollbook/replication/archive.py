"""Archiving a course, and taking it back.

An archive is made in one snapshot of the place where the course lives, and published under its name when it is whole.
Restoring is one transaction: the scripts of the archive are executed in it, so that nothing of a refused one is left.
"""

from __future__ import annotations

import csv
import glob
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import IsolationLevel, errors, sql
from psycopg.types.json import Jsonb

from rollbook.core import history
from rollbook.core.conninfo import masked
from rollbook.core.db import Conn, require_own_session
from rollbook.core.errors import RefusedError, UnreachableError
from rollbook.core.files import Aside, check_writable, hidden_name, is_special, remove_leftovers, way_out
from rollbook.core.programs import Program, find_program
from rollbook.core.referring import belonging
from rollbook.core.rows import Row, one
from rollbook.core.shape import name as sql_name
from rollbook.core.shell import course_word, is_name
from rollbook.replication import attach, catalog, link
from rollbook.replication.archive_file import ENROLLMENTS, FORMAT, SCRIPTS, Archive, Manifest, Writer, damaged
from rollbook.replication.queries.courses import Course, drop_course, find_course
from rollbook.replication.steps import Steps

if TYPE_CHECKING:
    from rollbook.core.command import Run

LOCK_MS = 10_000  # how long pg_dump waits for a lock
SUPERUSER = "select current_setting('is_superuser') = 'on' as is_superuser"
NEWER = {("sslcertmode", "allow")}  # a default that psycopg names and an older pg_dump does not know
HEAD = b"SET row_security = off;\n"  # the last line of the settings with which a script of pg_dump begins

SHAPE: LiteralString = "select to_jsonb(t) as line from rollbook.shape_table as t order by t.table_name"
KEPT: LiteralString = """
select jsonb_build_object(
    'schema_name', c.schema_name, 'on_leave', c.on_leave, 'on_fault', c.on_fault, 'without', to_jsonb(c.without),
    'closed_at', c.closed_at, 'closed_by', c.closed_by
) as kept
from rollbook.course as c where c.course_id = %s
"""
MEMBERSHIP: LiteralString = """
select t.relation, t.course_column, t.user_column, t.key_column, t.course_type from rollbook.shape_table as t
where t.role = 'membership'
"""
# pg_dump leaves an extension out whose objects are in the schema, and dropping the schema drops it.
EXTENSIONS: LiteralString = """
select e.extname::text as name from pg_extension as e
where e.extnamespace = to_regnamespace(quote_ident(%s)) order by e.extname
"""
# What is in another schema and goes with this one: views of its tables, foreign keys to them, columns of its types.
OUTSIDE: LiteralString = """
with inside as (
    select 'pg_class'::regclass as classid, c.oid as objid, c.relnamespace as schema from pg_class as c
    union all select 'pg_type'::regclass, y.oid, y.typnamespace from pg_type as y
    union all select 'pg_proc'::regclass, p.oid, p.pronamespace from pg_proc as p
)
select distinct pg_describe_object(d.classid, d.objid, d.objsubid) as words
from inside as i
inner join pg_depend as d on d.refclassid = i.classid and d.refobjid = i.objid and d.deptype in ('n', 'a')
left join pg_rewrite as r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
left join pg_constraint as k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
left join pg_attrdef as a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
left join pg_trigger as t on d.classid = 'pg_trigger'::regclass and t.oid = d.objid
left join pg_policy as p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
inner join inside as o
    on (o.classid, o.objid) = (d.classid, d.objid)
    or o.classid = 'pg_class'::regclass
    and o.objid = coalesce(r.ev_class, nullif(k.conrelid, 0), a.adrelid, t.tgrelid, p.polrelid)
where i.schema = to_regnamespace(quote_ident(%s)) and o.schema <> i.schema
order by words
"""
# Their owners stay on the server, and a superuser who restores would be the new one.
DEFINERS: LiteralString = """
select p.oid::regprocedure::text as name from pg_proc as p
where p.prosecdef and p.pronamespace = to_regnamespace(quote_ident(%s)) order by name
"""
# A script's own settings are not executed: these are, for the transaction.
SETTINGS: LiteralString = """
select
    set_config('search_path', '', true), set_config('check_function_bodies', 'off', true),
    set_config('standard_conforming_strings', 'on', true), set_config('xmloption', 'content', true),
    set_config('client_min_messages', 'warning', true)
"""
RESET: LiteralString = """
set local search_path to default; set local check_function_bodies to default; set local xmloption to default
"""
# Who was enrolled then: without an account now, or with one and not enrolled.
GONE: LiteralString = """
select k.user_id, u.id is null as is_gone
from (select distinct cast({user} as bigint) as user_id from pg_temp.archived) as k
left join rollbook.persons() as u on u.id = k.user_id
where u.id is null or not exists (
    select from rollbook.memberships_of(%(course)s) as m where m.user_id = k.user_id
)
order by k.user_id
"""
PERSON: LiteralString = """
select t.relation, t.table_name, t.key_column
from rollbook.shape_table as t
where t.role = 'person' and 2 = (
    select count(*) from pg_attribute as a
    inner join pg_attribute as c
        on c.attname = a.attname and c.attrelid = to_regclass(format('%%I.%%I', %s::text, t.table_name))
    where a.attrelid = t.relation::regclass and a.attname in ('username', 'email')
)
"""
# Another portal, or a new account: the id is somebody else's.
OTHERS: LiteralString = """
select p.{key} as user_id from {relation} as p inner join {copy} as c on c.{key} = p.{key}
where lower(p.username) <> lower(c.username) and lower(p.email) is distinct from lower(c.email)
order by 1
"""


@dataclass(frozen=True)
class Archived:
    """A row of `course archive`; the fields are its columns."""

    course: str
    place: str  # `portal` or `server NAME`
    file: str
    bytes: int | None
    enrollments: int
    copied_users: int | None
    outcome: str


@dataclass(frozen=True)
class Restored:
    """A row of `course restore`; the fields but the last three are its columns."""

    course: str
    schema_name: str
    enrolled: int
    copied_users: int | None
    rows: int  # that were not as the portal has them
    enrolled_again: int
    outcome: str
    gone: list[int]  # users who were enrolled and have no account any more
    ended: list[int]  # users who were enrolled, have an account, and are not enrolled
    others: list[int]  # users who have another username and another e-mail address than then
    invokers: list[str]  # functions that ran with the rights of an owner on a server
    removed: dict[str, int]  # rows of the course's own, by table, that needed or referred to users who are gone


# --- archive ----------------------------------------------------------------------------------------------------------


def archive(run: Run, course_id: str, name: str, *, is_dropped: bool = False) -> Archived:
    """Write the archive of a course; with --dry-run only look at what would be in it.

    Raises RefusedError for an unknown course, one that moves, where no pg_dump fits, for what no archive holds and, if
    the course `is_dropped` then, for what would go with it and is elsewhere; UnreachableError.
    """
    check_writable(name, "-o")
    path = Path(name)
    if is_special(path):
        raise RefusedError(f"cannot archive to {name}", why="it is not a file", fix="name a file with -o")
    if path.exists():
        raise RefusedError(
            f"there is a file {name} already", why="it may be the only copy of a course",
            fix="name another file with -o, or remove it",
        )  # fmt: skip
    with ExitStack() as stack:
        portal = stack.enter_context(run.connect())
        portal.isolation_level = IsolationLevel.REPEATABLE_READ
        portal.execute("select rollbook.require_owner('archive courses')")
        course = find_course(portal, course_id)
        attach.refuse_moving(course)
        place, conn = "portal", portal
        if course.server is not None:
            place = f"server {course.server}"
            conn = stack.enter_context(link.reached(link.find_server(portal, course.server), run.caller(), long=True))
            link.unhurried(conn, run.caller())
            conn.isolation_level = IsolationLevel.REPEATABLE_READ
            stack.enter_context(conn.transaction())
        require_own_session(conn, "an archive")
        for where, session in {"portal": portal, place: conn}.items():  # it is dropped in both
            refuse_incomplete(session, course, where, is_dropped=is_dropped)
        program = find_program("pg_dump", conn.info.server_version)
        manifest = describe(portal, conn, course, place, program)
        if run.dry_run:
            return Archived(course_id, place, name, None, manifest.enrollments, manifest.copied_users, "archived")
        try:
            size = publish(portal, conn, manifest, program, path)
        except OSError as exc:
            raise UnreachableError(f"cannot write {name}", why=exc.strerror, fix=way_out(exc, "-o")) from exc
    with run.connect() as portal:
        history.record(
            portal, run, course_id, "archived", after={"file": str(path.absolute()), "bytes": size}, course_id=course_id
        )
    return Archived(course_id, place, name, size, manifest.enrollments, manifest.copied_users, "archived")


def refuse_incomplete(conn: Conn, course: Course, place: str, *, is_dropped: bool) -> None:
    """Raise RefusedError for what the archive would lack; `conn` is with this place, where the course has a schema."""
    if extension := conn.execute(EXTENSIONS, [course.schema_name]).fetchone():
        name = extension["name"]
        moved = f"alter extension {sql_name(name)} set schema public"
        raise RefusedError(
            f"schema {course.schema_name} has the extension {name}",
            why="no archive holds an extension, and what uses it could not be restored",
            fix=f"as its owner, in the {place}: {moved}" if is_name(name) else "move it to another schema",
        )
    outside = [row["words"] for row in conn.execute(OUTSIDE, [course.schema_name])] if is_dropped else []
    if outside:
        raise RefusedError(
            f"objects outside schema {course.schema_name} would be dropped with it, and are not in the archive",
            why=", ".join(outside), fix="save and drop them, or archive without --drop",
        )  # fmt: skip


def describe(portal: Conn, conn: Conn, course: Course, place: str, program: Program) -> Manifest:
    """Return how a course is; `conn` is with the place where it lives."""
    own = (
        catalog.local_objects(conn, course.schema_name, on_copies=True) if conn is not portal else course.local_objects
    )
    return Manifest(
        format=FORMAT, rollbook=version("rollbook"), archived_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        course=course.course, place=place, server_version=conn.info.server_version, pg_dump=program.version,
        kept=one(portal, KEPT, [course.course])["kept"], tables=[row["line"] for row in portal.execute(SHAPE)],
        own=own, enrollments=course.enrolled, copied_users=course.copied_users,
    )  # fmt: skip


def publish(portal: Conn, conn: Conn, manifest: Manifest, program: Program, path: Path) -> int:
    """Write the file beside its name, read it again, and give it its name; return its bytes."""
    remove_leftovers(path.parent, f".{glob.escape(path.name[:40])}.*.part")
    aside = Aside(path.with_name(hidden_name(path)))
    try:
        writer = Writer(aside.file, path.parent)
        with writer.member(ENROLLMENTS) as file:
            write_enrollments(portal, manifest.course, file)
        snapshot = str(one(conn, "select pg_export_snapshot() as name")["name"])
        for name, section in SCRIPTS.items():
            with writer.member(name) as file:
                dump(conn, program, manifest, section, snapshot, file)
        writer.finish(manifest)
        aside.flush()
        with Archive(aside.hidden):  # every checksum, from the disk
            size = aside.hidden.stat().st_size
        aside.publish(path)
    finally:
        aside.discard()
    return size


def write_enrollments(portal: Conn, course_id: str, file: IO[bytes]) -> None:
    """Write the portal's rows of a course, all columns, in the order of their keys."""
    table = one(portal, MEMBERSHIP)
    query = sql.SQL("copy (select * from {} where {} = {} order by {}) to stdout (format csv, header)").format(
        sql.SQL(table["relation"]), sql.Identifier(table["course_column"]),
        sql.SQL("cast({} as " + table["course_type"] + ")").format(course_id), sql.Identifier(table["key_column"]),
    )  # fmt: skip
    with portal.cursor() as cursor, cursor.copy(query) as copy:
        for chunk in copy:
            file.write(chunk)


def dump(conn: Conn, program: Program, manifest: Manifest, section: str, snapshot: str, file: IO[bytes]) -> None:
    """Write one section of the schema's dump. How it connects is in a file: everybody may read its arguments."""
    pattern = '"' + manifest.schema_name.replace('"', '""') + '"'
    words = [
        str(program.path), "--dbname=service=rollbook", f"--schema={pattern}", f"--section={section}",
        f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_MS}", "--no-publications", "--no-subscriptions",
        "--no-security-labels", "--no-password", "--encoding=UTF8",
    ]  # fmt: skip
    if manifest.place != "portal":  # its roles are those of another cluster
        words += ["--no-owner", "--no-privileges"]
    given = {"PGPASSWORD": conn.info.password} if conn.info.password else {}
    with tempfile.TemporaryDirectory(prefix="rollbook-") as directory:  # for this user alone
        service = Path(directory) / "service"
        service.write_text("[rollbook]\n" + "".join(
            f"{name}={value}\n" for name, value in conn.info.get_parameters().items()
            if name not in {"service", "servicefile"} and (name, value) not in NEWER
        ))  # fmt: skip
        given |= {"PGSERVICEFILE": str(service)}
        done = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, env=os.environ | given, check=False)
    if done.returncode:
        said = masked(" ".join(done.stderr.decode(errors="replace").split()))
        raise UnreachableError(
            f"pg_dump of schema {manifest.schema_name} failed", why=said[:500] or f"it ended with {done.returncode}",
            fix="let a role that may read all of the schema archive it, such as a member of rollbook_owner",
        )  # fmt: skip


def check_drop(run: Run, course_id: str) -> Course:
    """Return a course that is dropped once it is archived. Raises RefusedError where not all of it is archived."""
    with run.connect() as portal:
        course = find_course(portal, course_id)
        own = list(catalog.local_objects(portal, course.schema_name, on_copies=False)) if course.server else []
    if own:
        raise RefusedError(
            f"course {course_id} lives on server {course.server} and has data of its own in the portal too",
            why=", ".join(own),
            fix=f"save it and drop it there: it is in schema {course.schema_name}, and not in the archive",
        )  # fmt: skip
    return course


def drop(run: Run, course: Course) -> list[attach.Placed]:
    """Drop a course that was archived, from its server too; return what its relay keeps."""
    rows: list[attach.Placed] = []
    if course.server is not None:
        rows, _ = attach.detach(run, [course], attach.Detaching(drop_local=True), Steps())
    with run.connect() as portal:
        drop_course(portal, course.course, drop_local=True)
        before = {name: vars(course)[name] for name in ("schema_name", "on_leave", "copied_users", "local_objects")}
        history.record(portal, run, course.course, "removed", before=before, course_id=course.course)
    return [row for row in rows if row.is_left]


# --- restore ----------------------------------------------------------------------------------------------------------


def restore(run: Run, name: str, *, enroll: bool, remove_references: bool) -> Restored:
    """Take a course back from its archive, into the portal, and make its copies current; a dry run rolls that back.

    `enroll`: enroll again who was enrolled then, has an account, and is not enrolled now. `remove_references`: remove
    the course's own rows of users who are gone. Raises RefusedError for a file that is damaged or of a newer version,
    a course that exists, and what the database does not take.
    """
    with Archive(Path(name)) as found, run.connect() as portal:
        manifest = found.manifest
        portal.execute("select rollbook.require_owner('restore courses')")
        check_place(portal, manifest)
        with explained(manifest):
            portal.execute(SETTINGS)
            for script in SCRIPTS:
                execute(portal, found.files[script], name, has_rows=SCRIPTS[script] == "data")
            invokers = disown(portal, manifest)
            portal.execute(RESET)
        table = one(portal, MEMBERSHIP)
        load_enrollments(portal, found)
        others = other_people(portal, manifest.schema_name)
        again = enroll_again(portal, table, manifest.course, others) if enroll else 0
        removed = remove_own(portal, manifest.schema_name) if remove_references else {}
        with nullcontext() if remove_references else needed(manifest):
            written = portal.execute(
                "select inserted, updated, deleted from rollbook.readmit(%s, %s)",
                [manifest.course, Jsonb(manifest.kept)],
            ).fetchall()
        gone = portal.execute(
            sql.SQL(GONE).format(user=sql.Identifier(table["user_column"])), {"course": manifest.course}
        ).fetchall()
        course = find_course(portal, manifest.course)
        history.record(
            portal, run, course.course, "restored", course_id=course.course,
            after={"file": str(Path(name).absolute()), "archived_at": manifest.archived_at, "enrolled_again": again},
        )  # fmt: skip
    return Restored(
        course.course, course.schema_name, course.enrolled, course.copied_users,
        sum(row["inserted"] + row["updated"] + row["deleted"] for row in written), again, "restored",
        [row["user_id"] for row in gone if row["is_gone"]], [row["user_id"] for row in gone if not row["is_gone"]],
        others,
        invokers,
        removed,
    )  # fmt: skip


def check_place(portal: Conn, manifest: Manifest) -> None:
    """Raise RefusedError where the database cannot take this course."""
    course, schema = manifest.course, manifest.schema_name
    if manifest.place != "portal" and one(portal, SUPERUSER)["is_superuser"]:
        raise RefusedError(
            f"a superuser does not restore a course from {manifest.place}",
            why="what its team wrote there, such as a function in a CHECK, would run with a superuser's rights",
            fix="restore it with -d as a member of rollbook_owner and rollbook_operator with CREATE on the database",
        )
    if portal.execute("select 1 from rollbook.course where course_id = %s", [course]).fetchone():
        raise RefusedError(f"course {course} already exists", fix=f"rollbook course show {course_word(course)}")
    if not schema.startswith("course_"):
        raise RefusedError(f"schema {schema} is not one of a course", fix="use another copy of the file")
    held = portal.execute("select course_id from rollbook.course where schema_name = %s", [schema]).fetchone()
    if held:
        raise RefusedError(
            f"schema {schema} belongs to course {held['course_id']}",
            why=f"course {course} had it when it was archived",
            fix="restore it into another portal; or archive that course with --drop, then restore this one",
        )
    if portal.execute("select 1 from pg_namespace where nspname = %s", [schema]).fetchone():
        raise RefusedError(
            f"schema {schema} of course {course} exists already", why="a dump, or a course that is gone, left it",
            fix=sql.SQL("look what it holds, then: alter schema {} rename to {}").format(
                sql.Identifier(schema), sql.Identifier(f"left_{schema}"[:63])
            ).as_string(portal),
        )  # fmt: skip
    theirs, ours = manifest.server_version // 10_000, portal.info.server_version // 10_000
    if theirs > ours:
        raise RefusedError(
            f"the archive is of PostgreSQL {theirs}, and the portal is PostgreSQL {ours}",
            why="an older PostgreSQL does not read all that a newer one writes",
            fix=f"restore it into a portal on PostgreSQL {theirs} or newer",
        )
    keys = ("role", "table_name", "key_column", "user_column", "course_column")
    now = [row["line"] for row in portal.execute(SHAPE)]
    if [[line[key] for key in keys] for line in now] != [[line[key] for key in keys] for line in manifest.tables]:
        raise RefusedError(
            "the archive has another shape",
            why="the tables that are copied, or their keys, were others then",
            fix="restore it into an installation of that shape: tables in its manifest.json",
        )


@contextmanager
def explained(manifest: Manifest) -> Iterator[None]:
    """Say what to do where a script is refused."""
    try:
        yield
    except errors.UndefinedObject as exc:
        if "role" not in str(exc):
            raise
        raise RefusedError(
            f"a role that course {manifest.course} used is gone",
            why=str(exc.diag.message_primary),
            fix="create that role again, without a login: create role NAME; then restore",
        ) from exc
    except errors.InsufficientPrivilege as exc:
        raise UnreachableError(
            f"this role may not restore what course {manifest.course} has added",
            why=str(exc.diag.message_primary),
            fix="restore it as a superuser, or as the role that archived it"
            if manifest.place == "portal"
            else "read before.sql of the archive first: a superuser runs what the course's team wrote with all rights",
        ) from exc


@contextmanager
def needed(manifest: Manifest) -> Iterator[None]:
    """Say what to do where rows of the course's own need a copy of a user who is gone."""
    try:
        yield
    except psycopg.Error as exc:
        if exc.sqlstate != "23R04":
            raise
        raise RefusedError(
            f"rows of course {manifest.course}'s own need a user who is gone",
            why=". ".join(filter(None, (exc.diag.message_primary, exc.diag.message_detail))),
            fix="add --remove-references, which removes such rows of users without an account",
        ) from exc


def remove_own(portal: Conn, schema: str) -> dict[str, int]:
    """Remove the course's own rows of users without an account, or their reference; return how many, by table."""
    copied = catalog.copied(portal)
    removed: dict[str, int] = {}
    for table in reversed(copied.tables):
        place = sql.Identifier(schema, table.name)
        oid = one(portal, "select to_regclass(%s)::oid::bigint as oid", [place.as_string(portal)])["oid"]
        if oid is None:
            continue
        rows = sql.SQL(
            "select r.* from {} as r where not exists (select from rollbook.persons() as u where u.id = r.{})"
        ).format(place, sql.Identifier(table.user_column))
        for each in belonging(portal, oid, rows):
            if (each.schema, each.table) not in ((schema, name) for name in copied.names):
                done = portal.execute(each.removal()).rowcount
                removed[each.name] = removed.get(each.name, 0) + done
    return {name: rows for name, rows in removed.items() if rows}


def execute(portal: Conn, file: IO[bytes], name: str, *, has_rows: bool) -> None:
    """Execute a script of pg_dump: statements and, in the one that has rows, COPY."""
    begun = False
    statements: list[bytes] = []
    for line in file:
        if not begun:  # settings, comments
            begun = line == HEAD
        elif line.startswith((b"\\restrict ", b"\\unrestrict ")):
            continue
        elif line.startswith(b"COPY ") and has_rows:
            run_all(portal, statements)
            with portal.cursor() as cursor, cursor.copy(whole_copy(line, file, name)) as copy:
                for row in file:
                    if row == b"\\.\n":
                        break
                    copy.write(row)
                else:
                    raise damaged(Path(name), "its rows end too early")
        else:
            statements.append(line)
    run_all(portal, statements)


def whole_copy(line: bytes, file: IO[bytes], name: str) -> bytes:
    """Return a COPY that begins with this line; a name in it may have line ends."""
    while line.count(b'"') % 2 or not line.endswith(b" FROM stdin;\n"):
        if not (more := file.readline()):
            raise damaged(Path(name), "its rows end too early")
        line += more
    return line


def run_all(portal: Conn, statements: list[bytes]) -> None:
    """Execute what is collected, and forget it."""
    if any(line.strip() and not line.startswith(b"--") for line in statements):
        portal.execute(b"".join(statements))
    statements.clear()


def disown(portal: Conn, manifest: Manifest) -> list[str]:
    """Let the functions of a course from a server run with the rights of their callers; return those that did not."""
    if manifest.place == "portal":  # their owners are restored with them
        return []
    names = [row["name"] for row in portal.execute(DEFINERS, [manifest.schema_name])]
    for name in names:
        portal.execute(sql.SQL("alter routine {} security invoker").format(sql.SQL(name)))
    return names


def load_enrollments(portal: Conn, found: Archive) -> None:
    """Make pg_temp.archived: the enrollments of the archive, in the columns that the portal's table still has."""
    header = next(csv.reader([found.files[ENROLLMENTS].readline().decode()]))
    names = sql.SQL(", ").join(map(sql.Identifier, header))
    texts = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in header)
    portal.execute(sql.SQL("create temporary table archived ({}) on commit drop").format(texts))
    statement = sql.SQL("copy pg_temp.archived ({}) from stdin (format csv)").format(names)
    with portal.cursor() as cursor, cursor.copy(statement) as copy:
        while chunk := found.files[ENROLLMENTS].read(65536):
            copy.write(chunk)


def other_people(portal: Conn, schema_name: str) -> list[int]:
    """Return the users who by username and e-mail address are not whom the restored copies, not yet current, have."""
    person = portal.execute(PERSON, [schema_name]).fetchone()
    if person is None:
        return []
    query = sql.SQL(OTHERS).format(
        key=sql.Identifier(person["key_column"]), relation=sql.SQL(person["relation"]),
        copy=sql.Identifier(schema_name, person["table_name"]),
    )  # fmt: skip
    return [row["user_id"] for row in portal.execute(query)]


def enroll_again(portal: Conn, table: Row, course_id: str, others: list[int]) -> int:
    """Insert the enrollments of the archive that the portal lacks, with their ids, for users who have an account.

    `others` are not who was enrolled.
    """
    columns = portal.execute(
        "select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type "
        "from pg_attribute as a inner join pg_attribute as k on k.attrelid = 'pg_temp.archived'::regclass "
        "and k.attname = a.attname "
        "where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' "
        "order by a.attnum",
        [table["relation"]],
    ).fetchall()
    user = sql.Identifier(table["user_column"])
    done: Any = portal.execute(
        sql.SQL(
            "insert into {} ({}) overriding system value select {} from pg_temp.archived as k "
            "where exists (select from rollbook.persons() as u where u.id = cast(k.{} as bigint)) and not exists ("
            "select from rollbook.memberships_of(%s) as m where m.user_id = cast(k.{} as bigint)) "
            "and cast(k.{} as bigint) <> all(%s) on conflict do nothing"
        ).format(
            sql.SQL(table["relation"]),
            sql.SQL(", ").join(sql.Identifier(row["name"]) for row in columns),
            sql.SQL(", ").join(
                sql.SQL("cast(k.{} as " + row["type"] + ")").format(sql.Identifier(row["name"])) for row in columns
            ),
            user, user, user,
        ),
        [course_id, others],
    )  # fmt: skip
    return int(done.rowcount)
