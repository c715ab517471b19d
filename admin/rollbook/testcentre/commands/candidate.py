"""`rollbook candidate`: who sits exams at a test centre, and the record of them that it is sent."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import User
from rollbook.core.command import Run, command
from rollbook.core.errors import AttentionError, UsageError

if TYPE_CHECKING:
    from rollbook.core.db import Conn

app = typer.Typer(name="candidate", help="Candidates for exams at a test centre.", no_args_is_help=True)

CREATED = ("client_candidate_id", "username", "name", "country", "outcome")
UPDATED = ("field", "before", "after")
COLUMNS = ("client_candidate_id", "username", "name", "country", "state", "sent_at", "confirmed_at", "error")
FAULTS = ("candidate", "username", "authorization", "field", "problem")
IMPORTED = ("line", "user", "outcome", "detail")
# Field -> help. What the user provides, in the order of the form.
FIELDS = {
    "first_name": "As on the identity document; 30 characters at most.", "middle_name": "At most 30.",
    "last_name": "As on the identity document; at most 50.", "suffix": "Such as Jr.; at most 255.",
    "salutation": "Such as Dr.; at most 50.", "address_1": "Street; at most 40, as the next two.", "address_2": "",
    "address_3": "", "city": "At most 32.", "state": "State or province, 20; needed in USA and CAN.",
    "postal_code": "At most 16; needed in USA and CAN.", "country": "ISO 3166-1 alpha-3, such as USA.",
    "phone": "Without country code; at most 35.", "extension": "At most 8.", "phone_country_code": "At most 3.",
    "fax": "At most 35.", "fax_country_code": "At most 3; needed with a fax.", "company_name": "At most 50.",
}  # fmt: skip
EXPORTED = ("user", *FIELDS)


class State(StrEnum):
    """Where a record stands between here and the test centre."""

    due = "due"
    sent = "sent"
    accepted = "accepted"
    rejected = "rejected"


def with_fields(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command an option for each field; those that are used reach it as one mapping, `given`."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "given"]
    fields = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
                str | None, typer.Option(metavar="TEXT", help=text, rich_help_panel="Fields")
            ],
        )
        for name, text in FIELDS.items()
    ]  # fmt: skip

    def call(*args: Any, **values: Any) -> int | None:  # noqa: ANN401
        fields = {name: values.pop(name, None) for name in FIELDS}
        return function(*args, given={name: text for name, text in fields.items() if text is not None}, **values)

    call.__doc__ = function.__doc__
    call.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return call


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("candidate list --state rejected", "candidate list --match ada --json"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated",
    see="rollbook candidate show, rollbook pearson report",
)  # fmt: skip
def list_(
    run: Run,
    state: Annotated[
        State | None, typer.Option(help="Only those to be sent, to be answered, accepted or rejected.")
    ] = None,
) -> None:
    """List candidates: whether their record is to be sent, was sent, accepted or rejected, and why."""
    from rollbook.testcentre.queries import candidate

    with run.connect() as conn:
        found, total = candidate.listed(conn, render.fetch_limit(run), {"state": state, "match": run.match})
    render.listing(run, found, COLUMNS, empty="no candidate", total=total)


@command(
    app, "show", sets=("document",),
    examples=("candidate show ada", "candidate show ada@example.org --json"),
    exits="0 found, 1 unknown user, or no candidate, 3 unreachable",
    see="rollbook authorization list, rollbook pearson show",
)  # fmt: skip
def show(run: Run, user: User) -> None:
    """Show a candidate: the record, its state, the exams, and each file that it went out with or was answered in."""
    from rollbook.people.queries.names import find_users
    from rollbook.testcentre.queries import candidate

    with run.connect() as conn:
        report = candidate.report(conn, find_users(conn, [user])[0])

    def draw(out: IO[str]) -> None:
        render.sections(run, out, report)

    render.document(run, report, draw)


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "candidate create ada --address-1 '1 Main St' --city London --country GBR --phone '20 7946 0000' "
        "--phone-country-code 44",
        "candidate create bob -n",
    ),
    exits="0 made, 1 refused with all that is wrong, or is one already, 3 unreachable",
    see="rollbook candidate update, rollbook authorization create",
)  # fmt: skip
@with_fields
def create(run: Run, user: User, given: dict[str, str]) -> None:
    """Make a user a candidate. Names and address that are not given are taken from the account, if they fit."""
    from rollbook.people.queries.names import find_users

    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        made = make(conn, run, found, given)
    name = f"{made['first_name']} {made['last_name']}"
    render.rows(run, [made | {"username": found["username"], "name": name, "outcome": "created"}], CREATED)


def make(conn: "Conn", run: Run, user: render.Row, given: dict[str, str]) -> render.Row:
    """Make a user a candidate, note it, and say what the account has filled; return the record."""
    from rollbook.core import history
    from rollbook.testcentre.queries import candidate

    made, filled = candidate.create(conn, user, given)
    told = {field: text for field, text in made.items() if text}
    history.record(conn, run, user["username"], "created", after=told, user_id=user["id"])
    if filled:
        render.note(run, "from the account: " + ", ".join(f"{field} {made[field]!r}" for field in filled))
    return made


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=("candidate update ada --phone '617 555 0102'", "candidate update ada --clear fax --reason 'has none'"),
    exits="0 changed or made, or nothing to change, 1 refused with all that is wrong, 2 nothing named, 3 unreachable",
    see="rollbook candidate show, rollbook pearson export",
)  # fmt: skip
@with_fields
def update(
    run: Run,
    user: User,
    given: dict[str, str],
    clear: Annotated[list[str], typer.Option(metavar="FIELD", help="Empty this field; can be repeated.")] = [],  # noqa: B006
) -> None:
    """Change a candidate's record, which is due then; who is no candidate yet becomes one."""
    from rollbook.core import history
    from rollbook.people.queries.names import find_users
    from rollbook.testcentre.queries import candidate

    for field in clear:
        column = field.replace("-", "_")
        if column not in FIELDS:
            raise UsageError(f"--clear {field}: no such field", fix=f"fields: {', '.join(FIELDS)}")
        if column in given:
            raise UsageError(f"--{field} and --clear {field} exclude each other")
        given[column] = ""
    if not given:
        raise UsageError("nothing to change", fix="name at least one field, such as --phone or --clear fax")
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        if candidate.demographics(conn, found["id"]) is None:
            made = make(conn, run, found, given)
            changes = [{"field": name, "before": None, "after": made[name]} for name in FIELDS if made[name]]
        else:
            changes = candidate.update(conn, found["id"], given)
            if changes:
                history.record(
                    conn, run, found["username"], "changed", before=history.changed(changes, "before"),
                    after=history.changed(changes, "after"), user_id=found["id"],
                )  # fmt: skip
    render.rows(run, changes, UPDATED, empty="nothing to change: it is so already")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "check", sets=("data",), columns=FAULTS, long=True,
    examples=("candidate check", "candidate check --csv -o faults.csv"),
    exits="0 all is right, 3 unreachable, 4 something is wrong", see="rollbook candidate update, rollbook user update",
)  # fmt: skip
def check(run: Run) -> int:
    """Check every record as stored, e-mail addresses and authorizations too: what came by before the rules, or past."""
    from rollbook.testcentre.queries import candidate

    with run.connect() as conn:
        found = candidate.faults(conn)
    render.rows(run, found, FAULTS, empty="all records are right")
    if not found:
        return 0
    count = len({(row["candidate"], row["authorization"]) for row in found})
    error = AttentionError(
        f"{render.plural(count, 'record')} {'breaks' if count == 1 else 'break'} the rules",
        fix="correct them with rollbook candidate update, authorization update or user update",
    )
    render.error(run, error)
    return error.exit_code


@command(
    app, "import", sets=("data", "writes", "bulk"), columns=IMPORTED, long=True,
    examples=("candidate import people.csv --dry-run", "candidate import people.csv --on-error skip"),
    exits="0 done, 1 rows or the file are wrong, nothing changed, 2 the header is wrong, 3 unreachable, "
    "5 some rows skipped",
    see="rollbook candidate export, rollbook candidate check",
)  # fmt: skip
def import_(
    run: Run,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="A CSV file with a header; - is stdin.")] = None,
) -> int:
    r"""Make or change the candidates of a file: user, and any fields. A blank leaves a value alone, \N empties it."""
    from rollbook.core import importing as bulk
    from rollbook.core.sheet import Sheet
    from rollbook.testcentre.queries import candidate

    kind = bulk.Import(
        sheet=Sheet(candidate.COLUMNS, ("user",), ("user",)), turn="rollbook candidate import",
        check=lambda conn, _: candidate.find_wrong(conn), apply=lambda conn, _: candidate.apply(conn), columns=IMPORTED,
    )  # fmt: skip
    return bulk.imported(run, kind, file)


@command(
    app, "export", sets=("data", "listing"), columns=EXPORTED, long=True,
    examples=("candidate export -o candidates.csv", "candidate export --state rejected > wrong.csv"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook candidate import",
)  # fmt: skip
def export(run: Run, state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None) -> None:
    """Write candidates as `candidate import` reads them: CSV, unless another format is asked for; by id."""
    from rollbook.core import exporting
    from rollbook.testcentre.queries import candidate

    exporting.export(
        run, EXPORTED, lambda conn, limit: candidate.export(conn, state=state, match=run.match, limit=limit),
        what="candidates",
    )  # fmt: skip
