"""`rollbook group`: named sets of users."""

import secrets
from decimal import Decimal
from fractions import Fraction
from typing import IO, Annotated

import typer

from rollbook.core import exporting, history, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import AnyGroups, Group, Groups
from rollbook.core.command import Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import NotConfirmedError, RefusedError, UsageError
from rollbook.core.nouns import noun
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.core.table import blocks
from rollbook.people.commands import named_users as people
from rollbook.people.queries import group as groups
from rollbook.replication.queries.courses import known_courses

app = noun("group")

COLUMNS = ("id", "name", "members", "description")
CREATED = (*COLUMNS, "outcome")
LINKED = ("group", "username", "email", "outcome")
SPLIT = ("id", "name", "share", "members", "seed", "outcome")
IMPORTED = ("line", "group", "user", "outcome", "detail")
EXPORTED = ("group", "user")
WIDTH = 32
SHOWN = 100  # members of a group on a terminal
SEEDS = 2**63
Users = Annotated[
    list[str] | None, typer.Argument(metavar="[USER...]", help="Users; - reads them from stdin, @FILE from a file.")
]
MoreUsers = Annotated[
    list[str], typer.Option("--user", metavar="USER", help="The same as an option, such as --user -; can be repeated.")
]


def checked_name(name: str) -> str:
    """Return the name of a group to be made. Raises RefusedError for one that cannot be stored."""
    if not name.strip():
        raise RefusedError("a group needs a name")
    if len(name) > WIDTH:
        raise RefusedError(f"the name {name[:WIDTH]}… has {len(name)} characters, at most {WIDTH} fit")
    if not name.isprintable():
        raise RefusedError("the name of a group has no control characters")
    return name


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=("group create testers --description 'Sees new pages first'", "group create testers --if-not-exists"),
    exits="0 made, 1 refused (it exists, or the name cannot be), 3 unreachable, 4 not migrated",
    see="rollbook group add, rollbook group split",
)  # fmt: skip
def create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Unique; at most 32 characters.")],
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="What the group is for.")] = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Succeed without change if it already exists.")
    ] = False,
) -> None:
    """Make a group without members."""
    checked_name(name)
    with run.connect() as conn:
        outcome = "created"
        if not groups.exists(conn, name):
            made = groups.create(conn, name, description)
            history.record(conn, run, name, "created", after={"description": made["description"]})
        elif if_not_exists:
            outcome = "unchanged"
        else:
            raise RefusedError(f"{name} already exists!", fix="choose another name, or --if-not-exists")
        found = groups.group(conn, name)
    render.rows(run, [found | {"outcome": outcome}], CREATED)


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("group list", "group list --match trial --sort -members --json"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook group show",
)  # fmt: skip
def list_(run: Run) -> None:
    """List groups by id. --match looks into name and description."""
    with run.connect() as conn:
        found, total = groups.groups(conn, run.match, render.fetch_limit(run))
    render.listing(run, found, COLUMNS, empty="no groups; rollbook group create NAME", total=total, bar="members")


@command(
    app, "show", sets=("document",),
    examples=("group show testers", "group show trial_a trial_b --json"),
    exits="0 found, 1 unknown, 3 unreachable, 4 not migrated", see="rollbook group export (members as CSV)",
)  # fmt: skip
def show(run: Run, group: Groups) -> None:
    """Show groups with their members; several are also compared in size."""
    with run.connect() as conn:
        found = [groups.group(conn, name) for name in dict.fromkeys(group)]
        reports = [
            {"id": row["id"], "name": row["name"], "description": row["description"],
             "members": groups.members(conn, row["id"])}
            for row in found
        ]  # fmt: skip

    def draw(out: IO[str]) -> None:
        if len(reports) > 1:
            most = max(len(report["members"]) for report in reports)
            render.sections(run, out, {"Groups": [
                {"name": report["name"], "members": len(report["members"]),
                 "": blocks(len(report["members"]), most, 30)}
                for report in reports
            ]})  # fmt: skip
        for report in reports:
            head = {name: report[name] for name in ("id", "name", "description")}
            shown = report["members"][:SHOWN] if out.isatty() else report["members"]
            render.sections(run, out, {"Group": head, f"Members ({len(report['members'])})": shown})
            if len(shown) < len(report["members"]):
                render.note(run, f"{len(shown)} of {len(report['members'])} members; rollbook group export has all")

    render.document(run, reports, draw)


@command(
    app, "delete", sets=("data", "writes"), columns=CREATED,
    examples=("group delete testers --confirm testers", "group delete testers --dry-run"),
    exits="0 deleted, 1 unknown, 3 unreachable, 4 not migrated, 6 not confirmed", see="rollbook group remove",
)  # fmt: skip
def delete(
    run: Run,
    group: Group,
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="The group's name again, as you mean it.")] = None,
) -> None:
    """Delete a group and its memberships; the users stay."""
    with run.connect() as conn:
        found = groups.group(conn, group)
        if not run.dry_run and confirm != group:
            what = (
                f"--confirm {confirm} is not the group {group}" if confirm is not None else
                f"not confirmed: this deletes the group {group} with {render.plural(found['members'], 'membership')}"
            )  # fmt: skip
            raise NotConfirmedError(what, fix=f"add --confirm '{group}'")
        groups.delete(conn, found["id"])
        gone = {name: found[name] for name in ("description", "members")}
        history.record(conn, run, group, "removed", before=gone)
    render.rows(run, [found | {"outcome": "removed"}], CREATED)


def link(run: Run, name: str, users: list[str], *, join: bool) -> int:
    """Put users into a group or take them out, and report each. Return the exit code."""
    outcome = "created" if join else "removed"
    with run.connect() as conn:
        group = groups.group(conn, name, make=join)
        found, code = people.chosen(conn, run, users)
        touched = (groups.add if join else groups.remove)(conn, group["id"], [row["id"] for row in found])
        if group["is_new"]:
            history.record(conn, run, name, "created", after={"description": group["description"]})
        history.record_many(conn, run, [
            {"object": f"{name}: {row['username']}", "outcome": outcome, "user_id": row["id"]}
            for row in found if row["id"] in touched
        ])  # fmt: skip
    rows = [{"group": name, **row, "outcome": outcome if row["id"] in touched else "unchanged"} for row in found]
    render.rows(run, rows, LINKED)
    return code


@command(
    app, "add", sets=("data", "writes", "several"), columns=LINKED,
    examples=("group add testers ada bob@example.org", "group add email_helpers --user - < users.txt"),
    exits="0 done (members are skipped), 1 unknown user or group, nothing changed, 3 unreachable, "
    "4 not migrated, 5 some skipped",
    see="rollbook group remove, rollbook group import",
)  # fmt: skip
def add(run: Run, group: Group, user: Users = None, more: MoreUsers = []) -> int:  # noqa: B006 (Typer's way)
    """Put users into a group, all or nothing.

    The groups email_future_courses, email_helpers, mitx_unenroll and 6002x_unenroll are made on first use.
    """
    return link(run, group, [*(user or []), *more], join=True)


@command(
    app, "remove", sets=("data", "writes", "several"), columns=LINKED,
    examples=("group remove testers ada", "group remove testers --user @leavers.txt --dry-run"),
    exits="0 done (users who are not members are skipped), 1 unknown user or group, nothing changed, 3 unreachable, "
    "4 not migrated, 5 some skipped",
    see="rollbook group add, rollbook group delete",
)  # fmt: skip
def remove(run: Run, group: Group, user: Users = None, more: MoreUsers = []) -> int:  # noqa: B006 (Typer's way)
    """Take users out of a group, all or nothing."""
    return link(run, group, [*(user or []), *more], join=False)


def parsed_shares(parts: list[str]) -> dict[str, Decimal]:
    """Return NAME:SHARE as name -> share. Raises UsageError for what is not one, RefusedError for a name or total."""
    shares: dict[str, Fraction] = {}
    for part in parts:
        name, _, text = part.rpartition(":")
        try:
            share = Fraction(text)
        except (ValueError, ZeroDivisionError):
            share = Fraction(0)
        if not name or not 0 < share <= 1:
            raise UsageError(
                f"{part} is not NAME:SHARE", fix="write a share above 0 as 0.25 or 1/4, such as trial:0.25"
            )
        if name in shares:
            raise UsageError(f"the group {name} is named twice", fix="name each group once")
        shares[checked_name(name)] = share
    return {name: Decimal(share.numerator) / Decimal(share.denominator) for name, share in shares.items()}


def parsed_filters(texts: list[str]) -> list[tuple[str, str]]:
    """Return --among as kind and value. Raises UsageError."""
    filters = []
    for text in texts:
        kind, colon, value = text.partition(":")
        if (
            kind not in groups.AMONG
            or bool(value) is not (kind in ("course", "group"))
            or bool(colon) is not bool(value)
        ):
            raise UsageError(
                f"--among {text}: there is no such filter",
                fix="course:ID, group:NAME, active, inactive, staff or superuser",
            )
        filters.append((kind, value))
    return filters


@command(
    app, "split", sets=("data", "writes"), columns=SPLIT, long=True,
    examples=(
        "group split trial_a:0.5 trial_b:0.5 --seed 1",
        "group split new:1/3 old:2/3 --seed 7 --among course:edX/DemoX/2012_Fall --among active",
    ),
    exits="0 done, 1 refused (shares that do not add up to 1, a group that exists, nobody to place), 3 unreachable, "
    "4 not migrated",
    see="rollbook group show, rollbook group export",
)  # fmt: skip
def split(
    run: Run,
    part: Annotated[list[str], typer.Argument(metavar="NAME:SHARE...", help="New groups; the shares add up to 1.")],
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=-SEEDS, max=SEEDS - 1, help="The same seed: the same groups.")
    ] = None,
    among: Annotated[
        list[str],
        typer.Option(metavar="FILTER", help="Only users of course:ID or group:NAME, or who are active, inactive, staff "
                     "or superuser; repeated: all of these."),
    ] = [],  # noqa: B006
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the groups are for.")] = "",
) -> None:  # fmt: skip
    """Make groups and put every user into exactly one of them at random, by share; nobody is left out.

    The groups are as large as the shares say, to the user. Shares may miss 1 by 0.01, as 0.33 three times does: they
    count relative to their sum. The groups' description is JSON: the text, the time, the seed and the share.
    """
    shares, filters = parsed_shares(part), parsed_filters(among)
    chosen = secrets.randbelow(2**31) if seed is None else seed
    with run.connect() as conn:
        for kind, value in filters:
            if kind == "course":
                known_courses(conn, [value])
            elif kind == "group":
                groups.group(conn, value)
        made = groups.split(conn, shares, chosen, groups.among(conn, filters), description)
        history.record_many(conn, run, [
            {"object": row["name"], "outcome": "created", "after": {
                "share": str(shares[row["name"]]), "members": row["members"], "seed": chosen, "among": among}}
            for row in made
        ])  # fmt: skip
    rows = [row | {"share": float(shares[row["name"]]), "seed": chosen, "outcome": "created"} for row in made]
    render.rows(run, rows, SPLIT, bar="members")


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("group import members.csv --rejects wrong.csv", "group import - --create < members.csv"),
    exits="0 done, 1 wrong rows, nothing changed, 2 no such file or header, 3 unreachable, 4 not migrated, "
    "5 wrong rows skipped",
    see="rollbook group export, rollbook group add",
)  # fmt: skip
def import_(
    run: Run,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="CSV with group,user; - is stdin.")] = None,
    create: Annotated[bool, typer.Option("--create", help="Make groups that are not there.")] = False,
) -> int:
    """Put users into groups from a CSV file, `group,user`, all or nothing unless --on-error says skip.

    A user is named as everywhere: username, e-mail, id:N. Whoever is in a group already, stays. Groups must be there,
    or be among the four that are made on first use; --create makes others too.
    """
    sheet = Sheet(EXPORTED, EXPORTED, EXPORTED)
    kind = bulk.Import(
        sheet, "group", lambda conn, _: groups.check_staged(conn, create_groups=create),
        lambda conn, _: groups.add_staged(conn), IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data",), columns=EXPORTED, long=True,
    examples=("group export -o members.csv", "group export testers --csv"),
    exits="0 also if nobody is in one, 1 unknown group, 3 unreachable, 4 not migrated",
    see="rollbook group import",
)  # fmt: skip
def export(
    run: Run, group: AnyGroups = None
) -> None:  # fmt: skip
    """Write the members of groups as CSV, `group,user`, which `group import` reads."""
    names = list(dict.fromkeys(group)) if group else None

    def memberships(conn: Conn, _: int | None) -> list[Row]:
        for name in names or []:
            groups.group(conn, name)
        return groups.memberships(conn, names)

    exporting.export(run, EXPORTED, memberships, what=", ".join(names or ["all groups"]))
