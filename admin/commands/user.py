"""`rollbook user`: accounts."""

import secrets
from enum import StrEnum
from typing import IO, Annotated, Any

import typer

from admin import render
from admin.errors import RefusedError, UsageError
from admin.options import Run, command

app = typer.Typer(name="user", help="People: find them, make accounts, change them.", no_args_is_help=True)

CREATED = ("id", "username", "email", "is_active", "outcome")
UPDATED = ("field", "before", "after")
COUNTED = ("key", "users", "active")
COLUMNS = (
    "id", "username", "email", "name", "is_active", "is_staff", "is_superuser", "date_joined", "last_login", "courses",
)  # fmt: skip
WIDTHS = {
    "username": 150, "first_name": 150, "last_name": 150, "email": 254, "name": 255, "language": 255, "location": 255,
}  # fmt: skip
NULLABLE = ("year_of_birth", "gender", "level_of_education", "mailing_address", "goals")
EMPTIABLE = ("first_name", "last_name", "name", "language", "location")
User = Annotated[str, typer.Argument(metavar="USER", help="A username, an e-mail, id:N, username:X or email:X.")]
Text = Annotated[str | None, typer.Option(metavar="TEXT")]


class Gender(StrEnum):
    """The original's choices."""

    m = "m"
    f = "f"
    o = "o"


class Education(StrEnum):
    """The original's choices for the level of education."""

    p_se = "p_se"
    p_oth = "p_oth"
    m = "m"
    b = "b"
    hs = "hs"
    jhs = "jhs"
    el = "el"
    none = "none"
    other = "other"


class By(StrEnum):
    """What users are counted by."""

    course = "course"
    month = "month"


def checked_email(address: str) -> str:
    """Return the address, normalised. Raises RefusedError with the reason."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise RefusedError(
            f"{address!r} is not an e-mail address", why=str(exc), fix="write it as name@example.org"
        ) from exc


def checked_widths(values: dict[str, Any]) -> None:
    """Refuse text that is longer than its column, saying how much fits, before anything is written."""
    for name, width in WIDTHS.items():
        value = values.get(name)
        if isinstance(value, str) and len(value) > width:
            raise RefusedError(f"{name} has {len(value)} characters, at most {width} fit")
    for name, value in values.items():
        if isinstance(value, str) and "\x00" in value:
            raise RefusedError(f"{name} has a NUL character, which PostgreSQL cannot store")


@command(
    app, "list", sets=("data", "listing"), columns=COLUMNS,
    examples=("user list --match ada", "user list --course edX/DemoX/2012_Fall --inactive --csv"),
    exits="0 also if nobody is found, 1 unknown course, 3 unreachable, 4 not migrated", see="rollbook user show",
)  # fmt: skip
def list_(
    run: Run,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.")] = None,
    staff: Annotated[bool | None, typer.Option("--staff/--no-staff", help="Only these.")] = None,
    superuser: Annotated[bool | None, typer.Option("--superuser/--no-superuser", help="Only these.")] = None,
    course: Annotated[str | None, typer.Option(metavar="COURSE", help="Only those enrolled there.")] = None,
) -> None:
    """List users by id. --match looks into username, e-mail and name."""
    from admin import queries

    flags = {"is_active": active, "is_staff": staff, "is_superuser": superuser}
    limit = render.shown_limit(run)
    with run.connect() as conn:
        if course is not None:
            queries.known_courses(conn, [course])
        found, total = queries.users(
            conn, match=run.match, course=course, limit=None if run.sort else limit,
            flags={name: value for name, value in flags.items() if value is not None},
        )  # fmt: skip
    rows = render.ordered(run, found)[:limit]
    render.rows(
        run, rows, COLUMNS, empty="nobody found; --match TEXT looks into username, e-mail and name", total=total
    )


@command(
    app, "show", sets=("document",),
    examples=("user show ada", "user show ada@example.org id:42 --json"),
    exits="0 found, 1 unknown or ambiguous, 3 unreachable, 4 not migrated", see="rollbook enrollment add",
)  # fmt: skip
def show(run: Run, user: Annotated[list[str], typer.Argument(metavar="USER...", help="One or more users.")]) -> None:
    """Show users: account, profile, enrollments, and for each course whether the copies are there and up to date."""
    from admin import queries

    with run.connect() as conn:
        reports = [queries.user_report(conn, row["id"]) for row in queries.find_users(conn, user)]

    def draw(out: IO[str]) -> None:
        for report in reports:
            render.sections(run, out, report)

    render.document(run, reports, draw)


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "user create ada --email ada@example.org --name 'Ada Lovelace'",
        "user create bob --email bob@example.org --name 'Bob' --active --course edX/DemoX/2012_Fall",
    ),
    exits="0 made, 1 refused (taken, bad address, unknown course), 3 unreachable, 4 not migrated",
    see="rollbook user update, rollbook enrollment add",
)  # fmt: skip
def create(
    run: Run,
    username: Annotated[str, typer.Argument(metavar="USERNAME", help="Unique; no blanks.")],
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="Unique, whatever the capitals.")],
    name: Annotated[str, typer.Option(metavar="TEXT", help="The full name.")] = "",
    first_name: Text = "",
    last_name: Text = "",
    language: Text = "",
    location: Text = "",
    year_of_birth: Annotated[int | None, typer.Option(metavar="YEAR", min=1, max=9999)] = None,
    gender: Gender | None = None,
    level_of_education: Education | None = None,
    mailing_address: Text = None,
    goals: Text = None,
    active: Annotated[bool, typer.Option("--active", help="Active at once, without the key.")] = False,
    course: Annotated[list[str], typer.Option(metavar="COURSE", help="Enroll there; can be repeated.")] = [],  # noqa: B006 (Typer's way)
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Be content with one that is there.")] = False,
) -> None:
    """Make an account: user, profile and activation key, all or nothing. Its password is unusable until one is set."""
    from admin import queries

    values = {
        "username": username, "email": checked_email(email), "name": name, "first_name": first_name,
        "last_name": last_name, "language": language, "location": location, "year_of_birth": year_of_birth,
        "gender": gender, "level_of_education": level_of_education, "mailing_address": mailing_address, "goals": goals,
        "is_active": active, "activation_key": secrets.token_hex(16),
    }  # fmt: skip
    checked_widths(values)
    with run.connect() as conn:
        queries.known_courses(conn, course)
        if if_not_exists:
            try:
                there = queries.find_users(conn, [f"username:{username}"])[0]
            except RefusedError:
                pass
            else:
                shown = queries.user_report(conn, there["id"])["account"]
                render.rows(run, [shown | {"outcome": "unchanged"}], CREATED)
                return
        made = queries.create_user(conn, values)
        for course_id in course:
            queries.enroll(conn, course_id, [made["id"]])
    if run.dry_run:
        made["outcome"] = "would create"
    render.rows(run, [made], CREATED)


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=("user update ada --email ada@example.com", "user update ada --goals 'To compute' --clear gender"),
    exits="0 changed, or nothing to change, 1 refused, 3 unreachable, 4 not migrated", see="rollbook user show",
)  # fmt: skip
def update(
    run: Run,
    user: User,
    username: Text = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS")] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The full name.")] = None,
    first_name: Text = None,
    last_name: Text = None,
    language: Text = None,
    location: Text = None,
    year_of_birth: Annotated[int | None, typer.Option(metavar="YEAR", min=1, max=9999)] = None,
    gender: Gender | None = None,
    level_of_education: Education | None = None,
    mailing_address: Text = None,
    goals: Text = None,
    clear: Annotated[list[str], typer.Option(metavar="FIELD", help="Empty this field; can be repeated.")] = [],  # noqa: B006
) -> None:
    """Change a user's account or profile. The change stands in every course of theirs when the command ends."""
    from admin import queries

    given = {
        "username": username, "email": None if email is None else checked_email(email), "name": name,
        "first_name": first_name,
        "last_name": last_name, "language": language, "location": location, "year_of_birth": year_of_birth,
        "gender": gender and str(gender), "level_of_education": level_of_education and str(level_of_education),
        "mailing_address": mailing_address, "goals": goals,
    }  # fmt: skip
    values: dict[str, str | int | None] = {name: value for name, value in given.items() if value is not None}
    empty: dict[str, str | None] = dict.fromkeys(NULLABLE) | dict.fromkeys(EMPTIABLE, "")
    for field in clear:
        column = field.replace("-", "_")
        if column not in empty:
            raise UsageError(f"--clear {field}: no such field", fix=f"fields: {', '.join(sorted(empty))}")
        if column in values:
            raise UsageError(f"--{field} and --clear {field} exclude each other")
        values[column] = empty[column]
    if not values:
        raise UsageError("nothing to change", fix="name at least one field, such as --email or --clear goals")
    checked_widths(values)
    with run.connect() as conn:
        found = queries.find_users(conn, [user])
        changes = queries.update_user(conn, found[0]["id"], values)
    render.rows(run, changes, UPDATED, empty="unchanged")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "count", sets=("data",), columns=COUNTED,
    examples=("user count", "user count --by course"),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook user list",
)  # fmt: skip
def count(run: Run, by: Annotated[By | None, typer.Option(help="One row for each.")] = None) -> None:
    """Count users and active users: all, by course, or by month of joining."""
    from admin import queries

    with run.connect() as conn:
        found = queries.count_users(conn, by)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="nobody")
