"""Columns that join the shape, leave it or get another name, while everybody works.

Nothing of it is one large change. A column that joins is first left out by every course: so nothing changes by its
declaration; then one course after the other takes it, its server before the portal. A column that leaves is first left
out by one course after the other, the portal before its server; then the declaration loses it. A rename is both: every
course leaves the column out, the portal renames it, every course takes it under its new name, without new values.
Meanwhile a course misses changes of it: so a rename begins only if all servers answer, and is taken back if a course
cannot leave the column out.

What is under way is recorded: in rollbook.course.due what a course is to get, in rollbook.shape what leaves and what
was renamed. So whoever was interrupted is run again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core import shape as core
from rollbook.core.db import Conn
from rollbook.core.declaring import check, declare
from rollbook.core.errors import AdminError, RefusedError
from rollbook.core.migrating import places
from rollbook.core.rows import nearest
from rollbook.core.shape import Shape, Table
from rollbook.core.shell import course_word, quoted
from rollbook.replication import build, link
from rollbook.replication.link import Server
from rollbook.replication.queries import shape as queries
from rollbook.replication.queries.shape import Column, CourseShape
from rollbook.replication.repair import CATCH_UP_SECONDS, Failure
from rollbook.replication.rollout import Change, Done, refuse_moving, roll_out
from rollbook.replication.session import Progress, opened
from rollbook.replication.steps import Steps
from rollbook.replication.switch import await_snapshots, switch

if TYPE_CHECKING:
    from rollbook.core.command import Run

WORDS = ("unchanged", "updated")
ROUNDS = 5  # how often courses that were made meanwhile are changed too


@dataclass(frozen=True)
class Outcome:
    """What a change of the shape did: courses and rows, and which courses could not be changed."""

    courses: int
    rows: int
    failures: list[Failure]
    word: str  # unchanged, updated, or partly updated


def outcome(done: Done, *, is_new: bool) -> Outcome:
    """Return what was done, in a word; `is_new`: the declaration has changed."""
    word = "partly updated" if done.failures else "updated" if is_new or done.courses else "unchanged"
    return Outcome(len(done.courses), done.rows, done.failures, word)


def find(shape: Shape, column: Column) -> Table:
    """Return the table of a column. Raises RefusedError for a table that is not copied."""
    table = shape.named(column.table)
    if table is None:
        known = [each.name for each in shape.tables]
        raise RefusedError(
            f"{column.table} is not a table that is copied", why=nearest(column.table, known),
            fix=f"name one of {', '.join(known)}",
        )  # fmt: skip
    return table


def refuse_key(table: Table, column: Column) -> None:
    """Raise RefusedError for a key."""
    if column.name in table.keys:
        raise RefusedError(
            f"{column} is a key", why="keys always travel, and find the rows",
            fix="rollbook shape show lists the keys",
        )  # fmt: skip


def declared(shape: Shape, table: Table, names: Sequence[str]) -> Shape:
    """Return the shape with other columns of a table."""
    return shape.changed(replace(table, columns=tuple(names)))


# --- add --------------------------------------------------------------------------------------------------------------


def add(run: Run, columns: Sequence[Column], jobs: int, progress: Progress) -> Outcome:
    """Let columns of the portal's tables travel to all courses. Raises RefusedError; then nothing has changed."""
    with run.connect() as portal:
        shape = core.of(portal)
        new = [column for column in columns if column.name not in find(shape, column).columns]
        wanted = shape
        for column in new:
            table = find(wanted, column)
            wanted = declared(wanted, table, [*table.columns, column.name])
        if new:
            wanted = check(portal, wanted)
            for column in new:
                readable(portal, find(shape, column), column)
        courses = queries.list_courses(portal)
    if run.dry_run:
        return Outcome(len(courses) if new else count_due(courses, columns), 0, [], WORDS[bool(new)])
    with run.connect() as portal:
        for column in columns:
            if column not in new:
                queries.keep_name(portal, column, shape.listed(str(column)))
    own: dict[str, AdminError] = {}
    if new:
        with run.connect() as portal:
            portal.autocommit = True
            own = own_columns(run, portal, new, progress)
            join(run, portal, shape, wanted, new, own, progress)
    done = arrive(run, jobs, progress, [str(column) for column in columns])
    done.failures += [Failure(course, error) for course, error in own.items()]
    return outcome(done, is_new=bool(new))


def count_due(courses: Sequence[CourseShape], columns: Sequence[Column]) -> int:
    """Return how many courses still have to get one of these columns."""
    return sum(any(str(column) in course.due for column in columns) for course in courses)


def readable(portal: Conn, table: Table, column: Column) -> None:
    """Raise RefusedError for a column that the routing may not read."""
    if not queries.may_read(portal, table.relation, column.name):
        right = f"grant select ({core.name(column.name)}) on {table.relation} to rollbook_owner;"
        raise RefusedError(
            f"rollbook_owner may not read {column}", why="the routing reads the table as that role",
            fix=f"in the portal's database: {right}",
        )  # fmt: skip


def own_columns(run: Run, portal: Conn, new: Sequence[Column], progress: Progress) -> dict[str, AdminError]:
    """Return by course why it cannot get a column: it has one of its own with that name, here or on its server."""
    courses = {course.schema_name: course for course in queries.list_courses(portal)}
    found: dict[str, AdminError] = {}

    def add_all(conn: Conn, where: str, schemas: Sequence[str]) -> None:
        for schema, column in queries.present(conn, new, schemas):
            if column not in new or schema not in courses:  # a server that answers what was not asked
                continue
            course, without = courses[schema].course, courses[schema].without
            rename = (
                f"alter table {core.name(schema)}.{core.name(column.table)} rename {core.name(column.name)} to NAME"
            )
            found[course] = RefusedError(
                f"the course has a column {column} of its own {where}",
                why="the portal's values would replace the course's", fix=f"there: {rename}; "
                f"then: rollbook course update {course_word(course)} --without {quoted(','.join(without))}",
            )  # fmt: skip

    add_all(portal, "in the portal's database", list(courses))
    for server in link.list_servers(portal):
        schemas = [course.schema_name for course in courses.values() if server.name in course.hosts]
        try:
            with link.reached(server, run.caller()) as conn:
                add_all(conn, f"on server {server.name}", schemas)
        except AdminError as exc:
            progress.note(f"{exc.message}: {exc.why}")  # its courses fail when it is their turn
    return found


def join(
    run: Run, portal: Conn, old: Shape, new: Shape, columns: Sequence[Column], own: dict[str, AdminError],
    progress: Progress,
) -> None:  # fmt: skip
    """Declare columns that no course has yet: each leaves them out, and they are due to it.

    First the lists, where a name that is not declared has no effect; once everybody sees these, the declaration.
    """
    texts, entries = [str(column) for column in columns], [new.listed(str(column)) for column in columns]
    qualify(portal, old, columns)

    def change(conn: Conn) -> None:
        if queries.travelling(conn, entries):  # a course was made meanwhile
            raise RefusedError("courses are being created", fix="the same command again")
        extend_views(conn, new)
        declare(conn, new)
        queries.clear_due(conn, list(own), texts)
        history.record(conn, run, "shape", "updated", before={"joined": None}, after={"joined": texts})

    for turn in range(ROUNDS):
        queries.leave_out(portal, texts, entries)
        await_snapshots(portal, progress.note, run.timeout)
        try:
            switch(portal, old, change, seconds=run.timeout)
        except RefusedError:
            if turn == ROUNDS - 1 or not queries.travelling(portal, entries):
                raise
        else:
            return


def extend_views(conn: Conn, shape: Shape) -> None:
    """Let the views of a site that was adopted in place have the columns that are declared."""
    where = places(conn)
    for table in shape.tables:
        if not queries.is_view(conn, table.relation) or table.name not in where:
            continue
        there = queries.attribute_names(conn, table.relation)
        if all(column in there for column in table.columns):
            continue
        columns = core.names([*there, *(column for column in table.columns if column not in there)])
        conn.execute(
            f"create or replace view {table.relation} as select {columns} from {where[table.name]}".encode()  # noqa: S608 (names of the catalog)
        )


def qualify(portal: Conn, shape: Shape, columns: Sequence[Column]) -> None:
    """Name the table in lists that leave out a column whose name a second table gets."""
    for column in columns:
        for table in shape.tables:
            if table.name != column.table and column.name in table.columns:
                queries.replace_left_out(portal, column.name, f"{table.name}.{column.name}")


def arrive(run: Run, jobs: int, progress: Progress, due: Sequence[str] | None = None) -> Done:
    """Bring to each course what is due to it; `due`: only to courses to which one of these is."""
    with run.connect() as portal:
        shape = core.of(portal)
        courses = queries.list_courses(portal)
        old_names = queries.renamed(portal)
    changes = [
        arrival(shape, course, old_names)
        for course in courses
        if course.due and (due is None or set(due).intersection(course.due))
    ]
    done = roll_out(run, changes, jobs, progress)
    if changes and not done.failures:
        with run.connect() as portal:
            queries.forget_renamed(portal)
    done.failures += prepare_idle(run, {name for course in courses for name in course.hosts})
    return done


def arrival(shape: Shape, course: CourseShape, old_names: Mapping[str, str]) -> Change:
    """Return the change that brings to a course what is due to it, but for what is not declared (yet)."""
    columns = [Column(*text.split(".", 1)) for text in course.due if text != queries.CONDITION]
    columns = [
        column for column in columns if (table := shape.named(column.table)) and column.name in table.columns
    ]  # fmt: skip
    entries = {shape.listed(str(column)) for column in columns} | {str(column) for column in columns}
    return Change(
        course, [name for name in course.without if name not in entries and name in declared_entries(shape)],
        renamed={
            Column(column.table, old_names[str(column)]): column.name
            for column in columns if str(column) in old_names
        },
        tables=list(dict.fromkeys(column.table for column in columns)),
        brings=[*map(str, columns), *(text for text in course.due if text == queries.CONDITION)],
    )  # fmt: skip


def declared_entries(shape: Shape) -> set[str]:
    """Return what lists of left-out columns may have: what is renamed is in them under its old name for a while."""
    return {entry for table in shape.tables for name in table.columns for entry in (name, f"{table.name}.{name}")}


def known_change(shape: Shape, course: CourseShape, without: Sequence[str]) -> Change:
    """Return the change after which a course leaves out these columns, and no others."""
    again = [
        str(Column(table.name, name))
        for table in shape.tables for name in table.columns
        if shape.listed(str(Column(table.name, name))) in set(course.without) - set(without)
    ]  # fmt: skip
    return Change(course, list(without), tables=[table.name for table in shape.tables], brings=again)


# --- drop -------------------------------------------------------------------------------------------------------------


def drop(run: Run, columns: Sequence[Column], jobs: int, progress: Progress) -> Outcome:
    """Let columns travel to no course, and drop them from all copies. The portal's table keeps its own."""
    with run.connect() as portal:
        shape = core.of(portal)
        for column in columns:
            table = find(shape, column)
            refuse_key(table, column)
            if column.name not in (*table.columns, *queries.attribute_names(portal, table.relation)):
                raise RefusedError(
                    f"{column} does not travel", why=nearest(column.name, table.columns), fix="rollbook shape show"
                )
        there = [column for column in columns if column.name in find(shape, column).columns]
        leaving = [column for column in columns if column in there or str(column) in queries.leaving(portal)]
        if not leaving or run.dry_run:
            return Outcome(len(queries.list_courses(portal)) if leaving else 0, 0, [], WORDS[bool(leaving)])
        queries.forget_renaming(portal, leaving)
        if there:
            queries.record_leaving(
                portal, [str(column) for column in there], [shape.listed(str(column)) for column in there]
            )
    done = withdraw(run, there, jobs, progress) if there else Done()
    if not done.failures:
        with run.connect() as portal:
            portal.autocommit = True
            leave(run, portal, leaving)
    return outcome(done, is_new=True)


def withdraw(
    run: Run, columns: Sequence[Column], jobs: int, progress: Progress, *, keeps: bool = False
) -> Done:  # fmt: skip
    """Let each course leave columns out and drop them; `keeps`: they stay in the copies, and are due later."""
    done = Done()
    for _ in range(ROUNDS):
        with run.connect() as portal:
            shape = core.of(portal)
            courses = queries.list_courses(portal)
            present = {} if keeps else copies_with(run, portal, courses, columns)
        changes = []
        for course in courses:
            leaves = [column for column in columns if shape.listed(str(column)) not in course.without]
            if leaves or course.schema_name in present:
                without = sorted([*course.without, *(shape.listed(str(column)) for column in leaves)])
                changes.append(Change(
                    course, without, dropped=[] if keeps else list(columns),
                    tables=list(dict.fromkeys(column.table for column in columns)),
                    becomes_due=[str(column) for column in leaves] if keeps else [],
                ))  # fmt: skip
        if not changes:
            break
        part = roll_out(run, changes, jobs, progress)
        done.courses += [name for name in part.courses if name not in done.courses]
        done.rows += part.rows
        done.failures = part.failures
        if part.failures:
            break
    return done


def copies_with(
    run: Run, portal: Conn, courses: Sequence[CourseShape], columns: Sequence[Column]
) -> dict[str, list[Column]]:
    """Return by schema the columns that a copy still has, here or on its server. A silent server may have them all."""
    found: dict[str, list[Column]] = {}

    def add_all(conn: Conn, schemas: Sequence[str]) -> None:
        for schema, column in queries.present(conn, columns, schemas):
            found.setdefault(schema, []).append(column)

    add_all(portal, [course.schema_name for course in courses])
    for server in link.list_servers(portal):
        schemas = [course.schema_name for course in courses if server.name in course.hosts]
        try:
            with link.reached(server, run.caller()) as conn:
                add_all(conn, schemas)
        except AdminError:
            found |= {schema: list(columns) for schema in schemas}
    return found


def leave(run: Run, portal: Conn, columns: Sequence[Column]) -> None:
    """Take columns that every course leaves out from the declaration; then from the lists, once servers know too."""
    texts = [str(column) for column in columns]
    shape = core.of(portal)
    entries = [shape.listed(str(column)) for column in columns]
    wanted = shape
    for column in columns:
        table = find(wanted, column)
        wanted = declared(wanted, table, [name for name in table.columns if name != column.name])

    def change(conn: Conn) -> None:
        if queries.travelling(conn, entries):
            raise RefusedError("a course was created that has the column", fix="the same command again")
        declare(conn, wanted)
        for column in columns:
            simplify(conn, wanted, column)
        history.record(conn, run, "shape", "updated", before={"left": None}, after={"left": texts})

    if wanted != shape:
        switch(portal, shape, change, seconds=run.timeout)
    prepare_servers(run, portal)
    queries.remove_left_out(portal, entries, texts)


def simplify(portal: Conn, shape: Shape, column: Column) -> None:
    """Leave the table away in lists where one table alone is left with a column of that name."""
    left = [Column(table.name, column.name) for table in shape.tables if column.name in table.columns]
    if len(left) == 1:
        queries.replace_left_out(portal, str(left[0]), column.name)


def prepare_servers(run: Run, portal: Conn) -> None:
    """Give each server the functions of the shape as it is declared now. Raises UnreachableError."""
    for server in link.list_servers(portal):
        prepare_server(run, portal, server)


def prepare_idle(run: Run, busy: Collection[str]) -> list[Failure]:
    """Give them to servers without courses, which no roll-out comes to; return which server did not get them."""
    failures: list[Failure] = []
    with run.connect() as portal:
        portal.autocommit = True
        for server in link.list_servers(portal):
            if server.name not in busy:
                try:
                    prepare_server(run, portal, server)
                except AdminError as exc:
                    failures.append(Failure(f"server {server.name}", exc))
    return failures


def prepare_server(run: Run, portal: Conn, server: Server) -> None:
    """Give one server the functions of the shape. Raises AdminError."""
    with (
        link.held(portal, server),
        opened(portal, server, run.caller(), catch_up=CATCH_UP_SECONDS, changes=True) as session,
    ):
        build.prepare(session, Steps())


# --- rename -----------------------------------------------------------------------------------------------------------


def rename(run: Run, column: Column, new_name: str, jobs: int, progress: Progress) -> Outcome:
    """Give a column another name: in the portal's table, in all copies, and in the shape."""
    new = Column(column.table, new_name)
    with run.connect() as portal:
        shape = core.of(portal)
        table = find(shape, column)
        refuse_key(table, column)
        is_done = new_name in table.columns and column.name not in table.columns
        if not is_done and column.name not in table.columns:
            raise RefusedError(
                f"{column} does not travel", why=nearest(column.name, table.columns), fix="rollbook shape show"
            )
        if not is_done:
            renameable(portal, table, column, new_name)
        courses = queries.list_courses(portal)
        if run.dry_run:
            return Outcome(len(courses) if not is_done else count_due(courses, [new]), 0, [], "updated")
        if not is_done:
            refuse_unready(run, portal, courses)
    done = Done()
    if not is_done:
        with run.connect() as portal:
            queries.record_renaming(portal, column, new)
            if shape.listed(str(column)) not in queries.default_without(portal):
                queries.record_leaving(portal, [str(column)], [shape.listed(str(column))])
        done = withdraw(run, [column], jobs, progress, keeps=True)
        if done.failures:
            return take_back(run, shape, column, done, jobs, progress)
        with run.connect() as portal:
            portal.autocommit = True
            rename_declared(run, portal, shape, column, new, progress)
    part = arrive(run, jobs, progress, [str(new)])  # each server gets the functions of the shape before its courses
    others = rename_left_out(run, column, new, jobs, progress)
    part = Done(part.courses + others.courses, part.rows, part.failures + others.failures)
    if not part.failures:
        with run.connect() as portal:
            portal.autocommit = True
            prepare_servers(run, portal)
            queries.remove_left_out(portal, [shape.listed(str(column))], [str(column)])
    return outcome(Done(part.courses, done.rows + part.rows, part.failures), is_new=not is_done)


def refuse_unready(run: Run, portal: Conn, courses: Sequence[CourseShape]) -> None:
    """Raise AdminError where a server or a course could not follow, before any course leaves the column out."""
    for course in courses:
        refuse_moving(course)
    hosts = {name for course in courses for name in course.hosts}
    servers = [server for server in link.list_servers(portal) if server.name in hosts]
    for server in servers:
        if server.is_moving:
            raise RefusedError(server.moving_words, fix=server.move_command)
    for answer in link.ask(servers, lambda *_: None, run.caller()).values():
        if isinstance(answer, AdminError):
            raise answer


def take_back(
    run: Run, shape: Shape, column: Column, done: Done, jobs: int, progress: Progress
) -> Outcome:  # fmt: skip
    """Let a column travel again under the name that it has, as not every course could leave it out: none misses it."""
    back = arrive(run, jobs, Progress(note=progress.note), [str(column)])
    if not back.failures:
        with run.connect() as portal:
            queries.keep_name(portal, column, shape.listed(str(column)))
        progress.note(f"{column} keeps its name for now: all courses have it as before")
    return outcome(Done([], done.rows + back.rows, done.failures + back.failures), is_new=False)


def rename_left_out(run: Run, column: Column, new: Column, jobs: int, progress: Progress) -> Done:
    """Rename a column in the copies of courses that leave it out: there it is their own."""
    with run.connect() as portal:
        shape = core.of(portal)
        courses = [
            course for course in queries.list_courses(portal)
            if shape.listed(str(new)) in course.without and str(new) not in course.due
        ]  # fmt: skip
        present = copies_with(run, portal, courses, [column])
    changes = [
        Change(course, course.without, renamed={column: new.name}, tables=[column.table])
        for course in courses if course.schema_name in present
    ]  # fmt: skip
    return roll_out(run, changes, jobs, Progress(note=progress.note))


def renameable(portal: Conn, table: Table, column: Column, new_name: str) -> None:
    """Raise RefusedError where the portal's column cannot be renamed."""
    names = queries.attribute_names(portal, table.relation)
    if new_name in names or new_name in table.columns:
        raise RefusedError(
            f"{table.relation} has a column {new_name} already", why="a rename needs a name that is free",
            fix=f"to let that one travel instead: rollbook shape column add {quoted(column.table)} {quoted(new_name)}; "
            f"then: rollbook shape column drop {quoted(column.table)} {quoted(column.name)}",
        )  # fmt: skip
    if table.condition and queries.is_in_condition(portal, table.condition, column.name):
        raise RefusedError(
            f"the condition of the membership uses {column}", why=table.condition,
            fix="rollbook shape where '' first; afterwards the condition with the new name",
        )  # fmt: skip
    usual = core.default().named(column.table)
    if usual and usual.relation == table.relation and column.name in usual.columns:
        raise RefusedError(
            f"{column} keeps its name", why="the commands on accounts, and Rollbook's views, read it by that name",
            fix=f"to end its travels: rollbook shape column drop {quoted(column.table)} {quoted(column.name)}",
        )  # fmt: skip
    if queries.is_view(portal, table.relation):
        raise RefusedError(
            f"{table.relation} is a view on the table of a site that was adopted in place",
            why="its columns have the names that the site's table had",
            fix=f"leave the name; or: rollbook shape column drop {quoted(column.table)} {quoted(column.name)}, "
            "rename it in the site's table, and adopt that",
        )  # fmt: skip


def rename_declared(
    run: Run, portal: Conn, shape: Shape, column: Column, new: Column, progress: Progress
) -> None:  # fmt: skip
    """Rename a column that every course leaves out, in the portal's table and in the declaration, at once."""
    table = find(shape, column)
    wanted = declared(shape, table, [new.name if name == column.name else name for name in table.columns])
    alter = f"alter table {table.relation} rename column {core.name(column.name)} to {core.name(new.name)}"
    old_entry, new_entry = shape.listed(str(column)), wanted.listed(str(new))
    qualify(portal, shape, [new])
    queries.leave_out_too(portal, old_entry, new_entry)
    await_snapshots(portal, progress.note, run.timeout)

    def change(conn: Conn) -> None:
        if queries.travelling(conn, [old_entry, new_entry]):
            raise RefusedError("a course was created that has the column", fix="the same command again")
        conn.execute(alter.encode())
        declare(conn, wanted)
        queries.record_renamed(conn, column, new, new_entry)
        history.record(conn, run, "shape", "updated", before={"column": str(column)}, after={"column": str(new)})

    switch(portal, shape, change, exclusive=table.relation, seconds=run.timeout)
