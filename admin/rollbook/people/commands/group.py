"""`rollbook group`: named sets of users."""

from typing import IO, Annotated

import typer

from rollbook.core import exporting, render
from rollbook.core import importing as bulk
from rollbook.core.arguments import AnyGroups, Group, Groups, ImportFile
from rollbook.core.command import Run, command
from rollbook.core.db import Conn
from rollbook.core.errors import NotConfirmedError
from rollbook.core.nouns import noun
from rollbook.core.rows import Row
from rollbook.core.sheet import Sheet
from rollbook.core.shell import quoted
from rollbook.core.table import blocks
from rollbook.people import groups
from rollbook.people.commands.named_users import chosen
from rollbook.people.queries import group as queries

app = noun("group")

COLUMNS = ("id", "name", "members", "description")
CREATED = (*COLUMNS, "outcome")
LINKED = ("group", "username", "email", "outcome")
SPLIT = ("id", "name", "share", "members", "seed", "outcome")
IMPORTED = ("line", "group", "user", "outcome", "detail")
EXPORTED = ("group", "user")
SHOWN = 100  # members of a group on a terminal
SEEDS = 2**63
Users = Annotated[
    list[str] | None,
    typer.Argument(metavar="[USER...]", help="Users; - reads them from standard input, @FILE from a file."),
]
MoreUsers = Annotated[list[str], typer.Option("--user", metavar="USER", help="A user, as an option; can be repeated.")]


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=("group create reviewers --description 'Reads new pages first'", "group create testers --if-not-exists"),
    exits="0 created, 1 refused (it exists, or invalid name), 3 unreachable, 4 not migrated",
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
    """Create a group without members."""
    groups.checked_name(name)
    with run.connect() as conn:
        created, outcome = groups.create(conn, run, name, description, if_not_exists=if_not_exists)
    render.rows(run, [{**vars(created), "outcome": outcome}], CREATED)


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("group list", "group list --match trial --sort -members --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook group show",
)  # fmt: skip
def list_(run: Run) -> None:
    """List groups by id. --match searches name and description."""
    with run.connect() as conn:
        found, total = queries.groups(conn, run.match, render.fetch_limit(run))
    render.listing(run, found, COLUMNS, empty="no groups; rollbook group create NAME", total=total, bar="members")


@command(
    app, "show", sets=("document",),
    examples=("group show testers", "group show testers email_helpers --json"),
    exits="0 found, 1 unknown, 3 unreachable, 4 not migrated", see="rollbook group export (members as CSV)",
)  # fmt: skip
def show(run: Run, group: Groups) -> None:
    """Show groups with their members. Several groups are also compared in size."""
    with run.connect() as conn:
        found = [queries.group(conn, name) for name in dict.fromkeys(group)]
        reports = [
            {**vars(row), "members": [vars(member) for member in queries.members(conn, row.id)]} for row in found
        ]

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
    exits="0 deleted, 1 unknown or refused, 3 unreachable, 4 not migrated, 6 not confirmed",
    see="rollbook group remove",
)  # fmt: skip
def delete(
    run: Run,
    group: Group,
    confirm: Annotated[str | None, typer.Option(metavar="NAME", help="Repeat the group's name to confirm.")] = None,
) -> None:
    """Delete a group and its memberships, but no users."""
    with run.connect() as conn:
        found = queries.group(conn, group)
        if not run.dry_run and confirm != group:
            what = (
                f"--confirm {confirm} is not the group {group}" if confirm is not None else
                f"not confirmed: this deletes the group {group} with {render.plural(found.members, 'membership')}"
            )  # fmt: skip
            raise NotConfirmedError(what, fix=f"add --confirm {quoted(group, always=True)}")
        groups.delete(conn, run, found)
    render.rows(run, [{**vars(found), "outcome": "removed"}], CREATED)


def link(run: Run, name: str, users: list[str], *, join: bool) -> int:
    """Put users into a group or remove them, and report each. Return the exit code."""
    with run.connect() as conn:
        found, code = chosen(conn, run, users)
        linked = groups.link(conn, run, name, found, join=join)
    render.rows(run, map(vars, linked), LINKED)
    return code


@command(
    app, "add", sets=("data", "writes", "several"), columns=LINKED,
    examples=("group add testers ada bob@example.org", "group add email_helpers --user - < users.txt"),
    exits="0 done (members are skipped), 1 unknown user or group, nothing changed, 3 unreachable, "
    "4 not migrated, 5 some skipped",
    see="rollbook group remove, rollbook group import",
)  # fmt: skip
def add(run: Run, group: Group, user: Users = None, more: MoreUsers = []) -> int:  # noqa: B006 (Typer's way)
    """Add users to a group, all or nothing.

    The groups email_future_courses, email_helpers, mitx_unenroll and 6002x_unenroll are created on first use.
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
    """Remove users from a group, all or nothing."""
    return link(run, group, [*(user or []), *more], join=False)


@command(
    app, "split", sets=("data", "writes"), columns=SPLIT, long=True,
    examples=(
        "group split trial_a:0.5 trial_b:0.5 --seed 1",
        "group split new:1/3 old:2/3 --seed 7 --among course:edX/DemoX/2012_Fall --among active",
    ),
    exits="0 done, 1 refused (shares do not add up to 1, a group exists, no users), 3 unreachable, "
    "4 not migrated",
    see="rollbook group show, rollbook group export",
)  # fmt: skip
def split(
    run: Run,
    part: Annotated[list[str], typer.Argument(metavar="NAME:SHARE...", help="New groups; the shares add up to 1.")],
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=-SEEDS, max=SEEDS - 1, help="The same seed gives the same groups.")
    ] = None,
    among: Annotated[
        list[str],
        typer.Option(metavar="FILTER", help="Only users that are in course:ID or group:NAME, or that are active, "
                     "inactive, staff or superuser. Can be repeated: all must apply."),
    ] = [],  # noqa: B006
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the groups are for.")] = "",
) -> None:  # fmt: skip
    """Create groups and put every user into exactly one of them at random, by share.

    Sizes are exact. Shares must add up to 1 (within 0.01, so that 0.33 three times is valid) and are then normalised.
    The description of each group is JSON: the text, the time, the seed and the share.
    """
    shares, filters = groups.parsed_shares(part), groups.parsed_filters(among)
    with run.connect() as conn:
        created = groups.split(conn, run, shares, seed, filters, description)
    render.rows(run, [{**vars(group), "outcome": "created"} for group in created], SPLIT, bar="members")


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("group import members.csv --rejects wrong.csv", "group import - --create < members.csv"),
    exits="0 done, 1 invalid rows; nothing changed, 2 invalid file or header, 3 unreachable, 4 not migrated, "
    "5 some rows skipped",
    see="rollbook group export, rollbook group add",
)  # fmt: skip
def import_(
    run: Run,
    file: ImportFile = None,
    create: Annotated[bool, typer.Option("--create", help="Create missing groups.")] = False,
) -> int:
    """Add users to groups from a CSV file with the header `group,user`, all or nothing unless --on-error is skip.

    A user is a username, an e-mail address or id:N. Members stay. Groups must exist, or be among the four that are
    created on first use; --create creates others too.
    """
    sheet = Sheet(EXPORTED, EXPORTED, EXPORTED)
    kind = bulk.Import(
        sheet, "group", lambda conn, _: queries.check_staged(conn, create_groups=create),
        lambda conn, _: queries.add_staged(conn), IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data",), columns=EXPORTED, long=True,
    examples=("group export -o members.csv", "group export testers --csv"),
    exits="0 even if there are no members, 1 unknown group, 3 unreachable, 4 not migrated",
    see="rollbook group import",
)  # fmt: skip
def export(
    run: Run, group: AnyGroups = None
) -> None:  # fmt: skip
    """Write the members of groups as CSV, `group,user`, which `group import` reads."""
    names = list(dict.fromkeys(group)) if group else None

    def memberships(conn: Conn, _: int | None) -> list[Row]:
        for name in names or []:
            queries.group(conn, name)
        return queries.memberships(conn, names)

    exporting.export(run, EXPORTED, memberships, what=", ".join(names or ["all groups"]))
