"""`rollbook user`: accounts."""

import json
import math
import re
import secrets
from collections.abc import Callable
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from rollbook.core import render
from rollbook.core.arguments import OfCourse, OfGroup, User, Users
from rollbook.core.command import Run, command
from rollbook.core.completion import courses
from rollbook.core.errors import NotConfirmedError, RefusedError, UsageError
from rollbook.core.nouns import noun
from rollbook.people.commands import named_users as people

if TYPE_CHECKING:
    from rollbook.people.queries.names import User as Named
    from rollbook.people.queries.user import Belongings

app = noun("user")

CREATED = ("id", "username", "email", "is_active", "outcome")
UPDATED = ("field", "before", "after")
COUNTED = ("key", "users", "active")
DONE = ("username", "outcome")
PASSWORD = ("username", "algorithm", "iterations", "outcome")
DELETED = ("course", "table", "rows", "outcome")
PSEUDONYM = ("username", "pseudonym")
COLUMNS = (
    "id", "username", "email", "name", "is_active", "is_staff", "is_superuser", "date_joined", "last_login", "courses",
)  # fmt: skip
WIDTHS = {
    "username": 150, "first_name": 150, "last_name": 150, "email": 254, "name": 255, "courseware": 255,
    "language": 255, "location": 255,
}  # fmt: skip
NULLABLE = ("year_of_birth", "gender", "level_of_education", "mailing_address", "goals")
EMPTIABLE = ("first_name", "last_name", "name", "courseware", "language", "location")
Text = Annotated[str | None, typer.Option(metavar="TEXT")]
Meta = Annotated[str | None, typer.Option(metavar="JSON", help="An object with further facts.")]
PASSWORD_PANEL = "Password options"  # noqa: S105 (a title)
Stdin = Annotated[
    bool,
    typer.Option("--password-stdin", "--stdin", help="The password stands on stdin.", rich_help_panel=PASSWORD_PANEL),
]
File = Annotated[
    str | None,
    typer.Option("--password-file", "--file", metavar="FILE", help="In this file.", rich_help_panel=PASSWORD_PANEL),
]
HashFile = Annotated[
    str | None,
    typer.Option(
        "--password-hash-file", metavar="FILE", help="Its hash, as Django writes it.", rich_help_panel=PASSWORD_PANEL
    ),
]
FROM_STDIN = "give it with --password-stdin or --password-file, or on a terminal"


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
    country = "country"


def checked_email(address: str) -> str:
    """Return the address, normalised. Raises RefusedError with the reason."""
    from email_validator import EmailNotValidError, validate_email

    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise RefusedError(
            f"Valid e-mail is required: {address!r} is not an e-mail address", why=str(exc),
            fix="write it as name@example.org",
        ) from exc  # fmt: skip


def checked_username(username: str) -> None:
    """Refuse a username that is too short, or has something else than the letters, digits and signs of a URL."""
    if len(username) < 2:
        raise RefusedError("Username must be minimum of two characters long.", fix="choose a longer username")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", username):
        raise RefusedError(
            "Username should only consist of A-Z and 0-9.", why="_ and - may stand there too, no blanks, no NUL",
            fix="choose another username",
        )  # fmt: skip


def checked_name(name: str) -> None:
    """Refuse a full name of one character; none at all is allowed."""
    if name and len(name.strip()) < 2:
        raise RefusedError("Your legal name must be a minimum of two characters long.", fix="give the full name")


def checked_meta(text: str) -> dict[str, Any]:
    """Return the meta, which must be a JSON object. Raises RefusedError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            refuse(number)
        return float(number)

    try:
        content = json.loads(text, parse_constant=refuse, parse_float=finite)
        written = json.dumps(content, ensure_ascii=False)
        written.encode()  # half of a character is none
        if re.search(r"(?<!\\)(?:\\\\)*\\u0000", written):
            refuse("a NUL")
    except (ValueError, RecursionError) as exc:
        raise RefusedError("meta is not JSON", why=str(exc), fix="""write it as '{"name": "value"}'""") from exc
    if not isinstance(content, dict):
        raise RefusedError("meta is not a JSON object", fix="""write it as '{"name": "value"}'""")
    return content


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
    exits="0 also if nobody is found, 1 unknown course or group, 3 unreachable, 4 not migrated",
    see="rollbook user show",
)  # fmt: skip
def list_(
    run: Run,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these.")] = None,
    staff: Annotated[bool | None, typer.Option("--staff/--no-staff", help="Only these.")] = None,
    superuser: Annotated[bool | None, typer.Option("--superuser/--no-superuser", help="Only these.")] = None,
    course: OfCourse = None,
    group: OfGroup = None,
    pending: Annotated[
        bool | None, typer.Option("--pending/--no-pending", help="With a change of name or e-mail that waits.")
    ] = None,
) -> None:
    """List users by id. --match looks into username, e-mail and name."""
    from rollbook.people.queries import user as accounts
    from rollbook.replication.queries.courses import known_courses

    filters = {
        "match": run.match, "course": course, "group": group, "pending": pending, "is_active": active,
        "is_staff": staff, "is_superuser": superuser,
    }  # fmt: skip
    with run.connect() as conn:
        if course is not None:
            known_courses(conn, [course])
        if group is not None:
            accounts.known_group(conn, group)
        found, total = accounts.listed(conn, render.fetch_limit(run), filters)
    render.listing(
        run, found, COLUMNS, empty="nobody found; --match TEXT looks into username, e-mail and name", total=total
    )


@command(
    app, "show", sets=("document",),
    examples=("user show ada", "user show ada@example.org id:42 --json"),
    exits="0 found, 1 unknown or ambiguous, 3 unreachable, 4 not migrated",
    see="rollbook history list --user, rollbook enrollment add",
)  # fmt: skip
def show(run: Run, user: Users) -> None:
    """Show users: account, profile, key, changes that wait, groups, enrollments, test centre, copies in courses."""
    from rollbook.people.queries import user as accounts
    from rollbook.people.queries.names import find_users

    with run.connect() as conn:
        reports = [accounts.report(conn, row["id"]) for row in find_users(conn, people.expanded(user))]

    def draw(out: IO[str]) -> None:
        for report in reports:
            render.sections(run, out, {title.replace("_", " "): part for title, part in report.items()})

    render.document(run, reports, draw)


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "user create grace --email grace@example.org --name 'Grace Hopper'",
        "user create alan --email alan@example.org --name 'Alan' --active --course edX/DemoX/2012_Fall",
        "user create eve --email eve@example.org --password-stdin < password.txt",
    ),
    exits="0 made, 1 refused (taken, bad address, unknown course), 2 a value off the list, 3 unreachable",
    see="rollbook user update, rollbook user password, rollbook registration renew",
)  # fmt: skip
def create(
    run: Run,
    username: Annotated[str, typer.Argument(metavar="USERNAME", help="Unique: letters, digits, _ and -.")],
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
    courseware: Text = "course.xml",
    meta: Meta = None,
    password_stdin: Stdin = False,
    password_file: File = None,
    password_hash_file: HashFile = None,
    active: Annotated[bool, typer.Option("--active", help="Active at once, without the key.")] = False,
    course: Annotated[
        list[str], typer.Option(metavar="COURSE", help="Enroll there; can be repeated.", autocompletion=courses)
    ] = [],  # noqa: B006 (Typer's way)
    if_not_exists: Annotated[bool, typer.Option("--if-not-exists", help="Be content with one that is there.")] = False,
) -> None:
    """Make an account: user, profile and activation key, all or nothing.

    Its password is unusable until one is set. An active one is enrolled at once where its address is allowed.
    """
    from rollbook.core import history
    from rollbook.people import secret
    from rollbook.people.queries import user as accounts
    from rollbook.people.queries.enrollment import enroll
    from rollbook.people.queries.names import find_users
    from rollbook.replication.queries.courses import known_courses

    values = {
        "username": username, "email": checked_email(email), "name": name, "first_name": first_name,
        "last_name": last_name, "language": language, "location": location, "year_of_birth": year_of_birth,
        "gender": gender, "level_of_education": level_of_education, "mailing_address": mailing_address, "goals": goals,
        "courseware": courseware, "meta": "" if meta is None else json.dumps(checked_meta(meta), ensure_ascii=False),
        "is_active": active,
    }  # fmt: skip
    checked_widths(values)
    checked_username(username)
    checked_name(name)
    stored = given_hash(password_stdin, password_file, password_hash_file)
    with run.connect() as conn:
        known_courses(conn, course)
        if if_not_exists:
            try:
                there = find_users(conn, [f"username:{username}"])[0]
            except RefusedError:
                pass
            else:
                shown = accounts.account(conn, there["id"])
                render.rows(run, [shown | {"outcome": "unchanged"}], CREATED)
                return
        hidden = {"password": stored or secret.unusable(), "activation_key": secrets.token_hex(16)}
        made = accounts.create(conn, values | hidden)
        told = {field: value for field, value in values.items() if value not in ("", None)}
        history.record(
            conn, run, username, "created", after=told | ({"password": stored} if stored else {}), user_id=made["id"]
        )
        for course_id in course:
            enroll(conn, course_id, [made["id"]])
            history.record(conn, run, username, "created", user_id=made["id"], course_id=course_id)
        if active:
            tell_enrolled(run, username, accounts.auto_enroll(conn, [made["id"]]).get(made["id"], 0))
    render.rows(run, [made], CREATED)


def given_hash(stdin: bool, file: str | None, hash_file: str | None) -> str | None:
    """Return the hash of the password that the options give, None if they give none. Raises UsageError."""
    from rollbook.people import secret

    if sum((stdin, file is not None, hash_file is not None)) > 1:
        raise UsageError("give the password in one way only", fix="--password-stdin, -file or -hash-file")
    if hash_file is not None:
        return secret.checked_hash(secret.from_file(hash_file, "hash"))
    if stdin:
        return secret.hashed(secret.from_stdin("password"))
    return None if file is None else secret.hashed(secret.from_file(file, "password"))


def tell_enrolled(run: Run, username: str, added: int) -> None:
    """Say that an address was on the list of a course."""
    if added:
        render.note(run, f"{username}: {render.plural(added, 'enrollment')} more, as the address is allowed there")


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=("user update ada --email ada@example.com", "user update ada --goals 'To compute' --clear gender"),
    exits="0 changed, or nothing to change, 1 refused, 2 a value off the list, 3 unreachable, 4 not migrated",
    see="rollbook user show, rollbook name-change list, rollbook email-change list",
)  # fmt: skip
def update(
    run: Run,
    user: User,
    username: Text = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="The old one is kept in the meta.")] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The full name; the old one is kept.")] = None,
    first_name: Text = None,
    last_name: Text = None,
    language: Text = None,
    location: Text = None,
    year_of_birth: Annotated[int | None, typer.Option(metavar="YEAR", min=1, max=9999)] = None,
    gender: Gender | None = None,
    level_of_education: Education | None = None,
    mailing_address: Text = None,
    goals: Text = None,
    courseware: Text = None,
    meta: Meta = None,
    clear: Annotated[list[str], typer.Option(metavar="FIELD", help="Empty this field; can be repeated.")] = [],  # noqa: B006
) -> None:
    """Change a user's account or profile. The change stands in every course of theirs when the command ends.

    The old names and addresses in the meta stay, also when the meta is set or cleared.
    """
    from rollbook.core import history
    from rollbook.people.queries import user as accounts
    from rollbook.people.queries.names import find_users

    given = {
        "username": username, "email": None if email is None else checked_email(email), "name": name,
        "first_name": first_name,
        "last_name": last_name, "language": language, "location": location, "year_of_birth": year_of_birth,
        "gender": gender and str(gender), "level_of_education": level_of_education and str(level_of_education),
        "mailing_address": mailing_address, "goals": goals, "courseware": courseware,
        "meta": None if meta is None else checked_meta(meta),
    }  # fmt: skip
    values: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    empty: dict[str, Any] = dict.fromkeys(NULLABLE) | dict.fromkeys(EMPTIABLE, "") | {"meta": {}}
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
    if username is not None:
        checked_username(username)
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        changes = accounts.update(conn, found["id"], values, run.reason or "")
        if changes:
            before, after = (history.changed(changes, side) for side in ("before", "after"))
            history.record(conn, run, found["username"], "changed", before=before, after=after, user_id=found["id"])
    render.rows(run, changes, UPDATED, empty="unchanged")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "activate", sets=("data", "writes", "several"), columns=DONE,
    examples=("user activate ada", "user activate - --reason 'lost their mail' < users.txt"),
    exits="0 active (who is already stays so), 1 unknown user, nothing done, 3 unreachable, 5 some skipped",
    see="rollbook registration list, rollbook allowed list",
)  # fmt: skip
def activate(run: Run, user: Users) -> int:
    """Make accounts active without their keys, which are spent, and enroll them where their addresses are allowed."""
    return activated(run, user)


def activated(run: Run, users: list[str], columns: tuple[str, ...] = DONE) -> int:
    """Make accounts active, note and report it; return the exit code."""
    from rollbook.core import history
    from rollbook.people.queries import user as accounts

    with run.connect() as conn:
        found, code = people.chosen(conn, run, users)
        active, enrolled = accounts.activate(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": "activated", "user_id": row["id"],
             "before": {"is_active": False}, "after": {"is_active": True, "enrolled": enrolled[row["id"]]}}
            for row in found if row["id"] in active
        ])  # fmt: skip
    for row in found:
        tell_enrolled(run, row["username"], enrolled.get(row["id"], 0))
    report(run, found, active, "activated", columns)
    return code


def report(run: Run, found: "list[Named]", touched: set[int], word: str, columns: tuple[str, ...] = DONE) -> None:
    """Write a row for each user: what was done, or unchanged."""
    render.rows(
        run, [{**row, "outcome": word if row["id"] in touched else "unchanged"} for row in found], columns
    )  # fmt: skip


@command(
    app, "deactivate", sets=("data", "writes", "several"), columns=DONE,
    examples=("user deactivate ada --reason 'asked for it'", "user deactivate ada bob@example.org -n"),
    exits="0 blocked (who is already stays so), 1 unknown user, nothing done, 3 unreachable, 5 some skipped",
    see="rollbook user activate, rollbook user delete",
)  # fmt: skip
def deactivate(run: Run, user: Users) -> int:
    """Block accounts: nobody signs in, enrollments stay. A key that was not used ends too."""
    from rollbook.core import history
    from rollbook.people.queries import user as accounts

    with run.connect() as conn:
        found, code = people.chosen(conn, run, user)
        blocked = accounts.deactivate(conn, [row["id"] for row in found])
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": "deactivated", "user_id": row["id"],
             "before": {"is_active": True}, "after": {"is_active": False}}
            for row in found if row["id"] in blocked
        ])  # fmt: skip
    report(run, found, blocked, "deactivated")
    return code


Staff = Annotated[bool, typer.Option("--staff", help="The staff pages.")]
Superuser = Annotated[bool, typer.Option("--superuser", help="Every permission.")]


@command(
    app, "grant", sets=("data", "writes", "yes", "several"), columns=DONE,
    examples=("user grant ada --staff", "user grant ada bob --staff --superuser --yes"),
    exits="0 done (who has it keeps it), 1 unknown user, nothing done, 3 unreachable, 5 some skipped, 6 not confirmed",
    see="rollbook user revoke, rollbook user list --staff",
)  # fmt: skip
def grant(run: Run, user: Users, staff: Staff = False, superuser: Superuser = False) -> int:
    """Make users staff or superusers. More than one at a time is asked about."""
    return flag(run, user, staff=staff, superuser=superuser, value=True)


@command(
    app, "revoke", sets=("data", "writes", "yes", "several"), columns=DONE,
    examples=("user revoke ada --superuser", "user revoke - --staff --yes < leavers.txt"),
    exits="0 done (who has it not stays so), 1 unknown user, nothing done, 3 unreachable, 5 some skipped, 6 not "
    "confirmed",
    see="rollbook user grant, rollbook user list --staff",
)  # fmt: skip
def revoke(run: Run, user: Users, staff: Staff = False, superuser: Superuser = False) -> int:
    """Take the rights of staff or superusers away. More than one user at a time is asked about."""
    return flag(run, user, staff=staff, superuser=superuser, value=False)


def flag(run: Run, users: list[str], *, staff: bool, superuser: bool, value: bool) -> int:
    """Set or clear the flags, note and report it; return the exit code."""
    from rollbook.core import history
    from rollbook.people.queries import user as accounts

    flags = {name: value for name, asked in (("is_staff", staff), ("is_superuser", superuser)) if asked}
    if not flags:
        raise UsageError("nothing is named", fix="add --staff or --superuser, or both")
    verb, done = ("grant", "granted") if value else ("revoke", "revoked")
    with run.connect() as conn:
        found, code = people.chosen(conn, run, users)
        if len(found) > 1:
            names = ", ".join(row["username"] for row in found[:5]) + (" and more" if len(found) > 5 else "")
            rights = " and ".join(name.removeprefix("is_") for name in flags)
            render.confirm(run, f"{verb} {rights}: {len(found)} users, {names}")
        changes = accounts.set_flags(conn, [row["id"] for row in found], flags)
        history.record_many(conn, run, [
            {"object": row["username"], "outcome": done, "user_id": row["id"],
             "before": history.changed(changes[row["id"]], "before"),
             "after": history.changed(changes[row["id"]], "after")}
            for row in found if changes[row["id"]]
        ])  # fmt: skip
    touched = {user_id for user_id, changed in changes.items() if changed}
    report(run, found, touched, done)
    return code


@command(
    app, "password", sets=("data", "writes"), columns=PASSWORD,
    examples=(
        "user password ada --stdin < password.txt", "user password ada --check --file password.txt",
        "user password ada --unusable",
    ),
    exits="0 set, or it is the one, 1 refused, or it is not, 2 usage, 3 unreachable, 6 nobody can be asked for it",
    see="rollbook user show",
)  # fmt: skip
def password(
    run: Run,
    user: User,
    password_stdin: Stdin = False,
    password_file: File = None,
    password_hash_file: Annotated[
        str | None,
        typer.Option(
            "--password-hash-file",
            "--hash-file",
            metavar="FILE",
            help="Its hash, as Django writes it.",
            rich_help_panel=PASSWORD_PANEL,
        ),
    ] = None,
    unusable: Annotated[
        bool, typer.Option("--unusable", help="None: nobody signs in with one.", rich_help_panel=PASSWORD_PANEL)
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Change nothing: say whether this is the password.")] = False,
) -> None:
    """Set a user's password, or check it. Without an option it is asked for on the terminal, twice.

    It stands in every course of theirs when the command ends.
    """
    from rollbook.core import history
    from rollbook.people import secret
    from rollbook.people.queries import user as accounts
    from rollbook.people.queries.names import find_users

    if unusable and (password_stdin or password_file or password_hash_file):
        raise UsageError("--unusable and a password exclude each other")
    if check and (unusable or password_hash_file):
        raise UsageError("--check needs the password itself", fix=FROM_STDIN)
    if check:
        plain = secret.from_stdin("password") if password_stdin else None
        plain = secret.from_file(password_file, "password") if plain is None and password_file else plain
        plain = render.secret(run, "password", fix=FROM_STDIN) if plain is None else plain
    else:
        given = secret.unusable() if unusable else given_hash(password_stdin, password_file, password_hash_file)
        stored = given or secret.hashed(asked_twice(run))
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        old = accounts.password(conn, found["id"])
        if check:
            stored = old
            if not plain or not secret.matches(plain, stored):
                why = "the account has no password that can be used" if secret.described(stored)[1] is None else None
                raise RefusedError(f"this is not the password of {found['username']}", why=why)
        else:
            accounts.set_password(conn, found["id"], stored)
            before, after = (dict(zip(PASSWORD[1:3], secret.described(one), strict=True)) for one in (old, stored))
            history.record(conn, run, found["username"], "changed", before=before, after=after, user_id=found["id"])
    algorithm, iterations = secret.described(stored)
    outcome = "match" if check else "changed"
    row = {"username": found["username"], "algorithm": algorithm, "iterations": iterations, "outcome": outcome}
    render.rows(run, [row], PASSWORD)


def asked_twice(run: Run) -> str:
    """Return a password from the terminal. Raises RefusedError if the two answers differ."""
    from rollbook.people import secret

    first = secret.checked_password(render.secret(run, "new password", fix=FROM_STDIN))
    if render.secret(run, "the same again", fix=FROM_STDIN) != first:
        raise RefusedError("the two passwords differ; nothing was changed", fix="try again")
    return first


@command(
    app, "delete", sets=("data", "writes"), columns=DELETED, long=True,
    examples=("user delete ada -n", "user delete ada@example.org --confirm ada --reason 'asked for it'"),
    exits="0 deleted, 1 unknown user, or a course holds on to a copy, 3 unreachable, 6 not confirmed",
    see="rollbook user deactivate",
)  # fmt: skip
def delete(
    run: Run,
    user: User,
    confirm: Annotated[
        str | None, typer.Option(metavar="USERNAME", help="The user's name again, as you mean it.")
    ] = None,
) -> None:
    """Delete a user with all that belongs to it: in the portal, and the copies in every course.

    Without --confirm it says what would go where.
    """
    from rollbook.core import history
    from rollbook.people.queries import user as accounts
    from rollbook.people.queries.names import find_users

    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        rows = accounts.belongings(conn, found["id"])
        if not run.dry_run and confirm != found["username"]:
            raise not_confirmed(found["username"], confirm, rows)
        flags = accounts.account(conn, found["id"])
        before = {name: flags[name] for name in ("is_active", "is_staff", "is_superuser", "date_joined")} | {
            "rows": [f"{row['course'] or 'portal'}: {row['table']} {row['rows']}" for row in rows]
        }  # who is deleted wants to be forgotten: no address, no name
        accounts.delete(conn, found["id"])
        history.record(conn, run, found["username"], "removed", before=before, user_id=found["id"])
    render.rows(run, [row | {"outcome": "removed"} for row in rows], DELETED)


def not_confirmed(username: str, confirm: str | None, rows: "list[Belongings]") -> NotConfirmedError:
    """Return the error that says what a deletion would take along, by course and table."""
    fix = f"add --confirm {username}"
    if confirm is not None:
        return NotConfirmedError(f"--confirm {confirm} is not the user {username}", fix=fix)
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row["course"] or "portal", []).append(f"{row['table']} {row['rows']}")
    goes = "; ".join(f"{place}: {', '.join(tables)}" for place, tables in places.items())
    total = render.plural(sum(row["rows"] for row in rows), "row")
    return NotConfirmedError(f"not confirmed: this deletes user {username}, {total}", why=goes, fix=fix, rows=rows)


@command(
    app, "pseudonym", sets=("data",), columns=PSEUDONYM,
    examples=(
        "user pseudonym ada bob --secret-file survey.key", "user pseudonym @users.txt --legacy --secret-file site.key",
    ),
    exits="0 said, 1 unknown user or course, 2 no secret, 3 unreachable, 4 not migrated", see="rollbook user show",
)  # fmt: skip
def pseudonym(
    run: Run,
    user: Users,
    course: Annotated[
        str | None, typer.Option(metavar="COURSE", help="Another one in each course.", autocompletion=courses)
    ] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="The old form: MD5 of secret and id.")] = False,
    secret_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the secret. Else ROLLBOOK_SECRET_KEY.")
    ] = None,
) -> None:
    """Say under which name users appear where they must not be known: a keyed hash of the id, the same each time."""
    from rollbook.people.queries.names import find_users
    from rollbook.replication.queries.courses import known_courses

    if legacy and course is not None:
        raise UsageError("--legacy and --course exclude each other", why="the old form knows no course")
    form = pseudonyms(secret_key(secret_file), course, legacy=legacy)
    with run.connect() as conn:
        if course is not None:
            known_courses(conn, [course])
        found = find_users(conn, people.expanded(user))
    render.rows(run, [{"username": row["username"], "pseudonym": form(row["id"])} for row in found], PSEUDONYM)


def secret_key(file: str | None) -> str:
    """Return the secret for pseudonyms, from a file or the environment. Raises UsageError where there is none."""
    import os

    from rollbook.people import secret

    key = os.environ.get("ROLLBOOK_SECRET_KEY", "") if file is None else secret.from_file(file, "secret")
    if not key:
        raise UsageError("there is no secret", fix="name its file with --secret-file, or set ROLLBOOK_SECRET_KEY")
    return key


def pseudonyms(key: str, course: str | None, *, legacy: bool) -> Callable[[int], str]:
    """Return what makes a pseudonym of an id: 32 characters, 0 to 9 and a to f."""
    import hashlib
    import hmac

    if legacy:
        return lambda user_id: hashlib.md5(f"{key}{user_id}".encode(), usedforsecurity=False).hexdigest()
    place = "" if course is None else f"\n{course}"
    return lambda user_id: hmac.new(key.encode(), f"{user_id}{place}".encode(), hashlib.sha256).hexdigest()[:32]


@command(
    app, "count", sets=("data",), columns=COUNTED,
    examples=("user count", "user count --by course"),
    exits="0 counted, 3 unreachable, 4 not migrated", see="rollbook user list",
)  # fmt: skip
def count(run: Run, by: Annotated[By | None, typer.Option(help="One row for each.")] = None) -> None:
    """Count users and active users: all, by course, by month of joining, or by country of the candidate record."""
    from rollbook.people.queries import user as accounts

    with run.connect() as conn:
        found = accounts.count(conn, by)
    render.rows(run, found, COUNTED if by else COUNTED[1:], empty="nobody", bar="users" if by else None)
