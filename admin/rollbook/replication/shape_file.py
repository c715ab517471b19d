"""`shape apply`: what would make the declaration equal to a file, and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollbook.core import history
from rollbook.core import shape as core
from rollbook.core.declaring import check, identity
from rollbook.core.errors import RefusedError
from rollbook.core.rows import nearest
from rollbook.core.shape import DEFAULT_COURSE, Shape
from rollbook.core.shell import quoted
from rollbook.replication.queries import shape as queries
from rollbook.replication.queries.courses import left_out, set_default_without
from rollbook.replication.queries.shape import Column, CourseShape

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.replication.columns import Outcome
    from rollbook.replication.session import Progress

DEFAULT = "new courses"  # whose list a step changes


@dataclass(frozen=True)
class Step:
    """One difference between the declaration and a file, and what was done about it."""

    change: str  # column add, column drop, where, without, finish
    object: str  # a column, the membership table, a course
    was: str | None
    becomes: str | None
    outcome: str = "planned"


def plan(portal: Conn, wanted: Shape) -> list[Step]:
    """Return what makes the declaration equal to a shape. Raises RefusedError for what cannot change online."""
    now = core.of(portal)
    if identity(now) != identity(wanted):
        old, new = (
            next((mine for mine, other in zip(a, [*b, *[None] * len(a)], strict=False) if mine != other), None)
            for a, b in ((identity(now), identity(wanted)), (identity(wanted), identity(now)))
        )
        raise RefusedError(
            "the file declares other tables or keys",
            why=f"declared is {shown(old)}; the file has {shown(new)}; courses have copies of the declared ones",
            fix="rollbook shape show --toml prints the declared ones; other tables need a database without Rollbook: "
            "rollbook schema upgrade --shape FILE",
        )  # fmt: skip
    if now.tables != wanted.tables:
        wanted = check(portal, wanted)
    steps: list[Step] = []
    for old_table, new_table in zip(now.tables, wanted.tables, strict=True):
        add = [name for name in new_table.columns if name not in old_table.columns]
        drop = [name for name in old_table.columns if name not in new_table.columns]
        steps += [Step("column add", f"{new_table.name}.{name}", None, "travels") for name in add]
        steps += [Step("column drop", f"{old_table.name}.{name}", "travels", None) for name in drop]
        if old_table.condition != new_table.condition:
            steps.append(Step("where", new_table.name, old_table.condition, new_table.condition))
    courses = queries.list_courses(portal)
    if any(course.due for course in courses):
        due = sum(bool(course.due) for course in courses)
        steps.append(Step("finish", f"{due} courses", "a change is under way", "reached"))
    for text in queries.leaving(portal):
        if not any(step.change == "column drop" and step.object == text for step in steps):
            steps.append(Step("column drop", text, "leaving", None))
    steps += without_steps(portal, courses, wanted)
    order = ("finish", "column add", "column drop", "where", "without")
    return sorted(steps, key=lambda step: order.index(step.change))


def shown(part: tuple[object, ...] | None) -> str:
    """Return a table of a shape in words."""
    return "no such table" if part is None else " ".join(str(word) for word in part if word is not None)


def without_steps(portal: Conn, courses: Sequence[CourseShape], wanted: Shape) -> list[Step]:
    """Return how lists of left-out columns differ from those that a file has; courses that it does not name stay."""
    if not wanted.without:
        return []
    known = {course.course: course for course in courses}
    steps = []
    for name, given in wanted.without.items():
        columns = sorted({wanted.listed(column) for column in given})
        if name == DEFAULT_COURSE:
            before = queries.default_without(portal)
        elif name in known:
            before = known[name].without
        else:
            raise RefusedError(f"there is no course {name}", why=nearest(name, known), fix="rollbook course list")
        if columns != sorted(before):
            where = DEFAULT if name == DEFAULT_COURSE else name
            steps.append(Step("without", where, ",".join(before) or None, ",".join(columns) or None))
    return steps


def rename_hints(steps: Sequence[Step]) -> list[str]:
    """Return the commands that would rename columns instead of dropping one and adding another."""
    found = []
    for gone in steps:
        for new in steps:
            if gone.change == "column drop" and new.change == "column add":
                (table, old_name), (other, new_name) = gone.object.split(".", 1), new.object.split(".", 1)
                if table == other:
                    found.append(f"rollbook shape column rename {quoted(table)} {quoted(old_name)} {quoted(new_name)}")
    return found


def apply(
    run: Run, wanted: Shape, steps: Sequence[Step], jobs: int, progress: Progress
) -> tuple[list[Step], list[Outcome]]:  # fmt: skip
    """Do the steps of a plan; return them with their outcomes. A step that fails partly does not stop the others."""
    from rollbook.replication.columns import add, arrive, drop, outcome
    from rollbook.replication.condition import where

    done: list[Step] = []
    outcomes: list[Outcome] = []

    def record(kind: str, result: Outcome) -> None:
        outcomes.append(result)
        done.extend(replace(step, outcome=result.word) for step in steps if step.change == kind)

    def columns(kind: str) -> list[Column]:
        return [Column(*step.object.split(".", 1)) for step in steps if step.change == kind]

    kinds = {step.change for step in steps}
    if "finish" in kinds:
        record("finish", outcome(arrive(run, jobs, progress), is_new=True))
    if "column add" in kinds:
        record("column add", add(run, columns("column add"), jobs, progress))
    if "column drop" in kinds:
        record("column drop", drop(run, columns("column drop"), jobs, progress))
    for step in steps:
        if step.change == "where":
            record("where", where(run, step.becomes, jobs, progress))
    if "without" in kinds:
        record("without", leave_out(run, wanted, jobs, progress))
    return done, outcomes


def leave_out(run: Run, wanted: Shape, jobs: int, progress: Progress) -> Outcome:
    """Let courses, and new ones, leave out what a file has."""
    from rollbook.replication.columns import known_change, outcome
    from rollbook.replication.rollout import roll_out

    with run.connect() as portal:
        lists = {name: left_out(portal, columns) for name, columns in wanted.without.items()}
        before = queries.default_without(portal)
        if DEFAULT_COURSE in lists and lists[DEFAULT_COURSE] != before:
            set_default_without(portal, lists[DEFAULT_COURSE])
            after = {"without": lists[DEFAULT_COURSE]}
            history.record(portal, run, "shape", "updated", before={"without": before}, after=after)
        shape = core.of(portal)
        changes = [
            known_change(shape, course, lists[course.course])
            for course in queries.list_courses(portal)
            if course.course in lists and lists[course.course] != course.without
        ]
    return outcome(roll_out(run, changes, jobs, progress), is_new=True)
