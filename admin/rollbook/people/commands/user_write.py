"""`rollbook user create`, `update` and `delete`."""

import json
import secrets
from typing import Annotated, Any

import typer

from rollbook.core import history, remains, render
from rollbook.core.arguments import User
from rollbook.core.clear_option import Clear, cleared
from rollbook.core.command import Run, command
from rollbook.core.completion import courses
from rollbook.core.errors import NotConfirmedError, RefusedError, UsageError
from rollbook.core.shell import quoted
from rollbook.core.users import find_users
from rollbook.people import secret
from rollbook.people.commands.field_options import with_fields
from rollbook.people.commands.password_options import File, HashFile, Stdin, given_hash
from rollbook.people.commands.user import app
from rollbook.people.fields import FIELDS
from rollbook.people.queries import user as accounts
from rollbook.people.queries.enrollment import enroll
from rollbook.people.queries.remains import of_user
from rollbook.people.queries.user import Belongings
from rollbook.people.validation import checked_email, checked_meta, checked_name, checked_texts, checked_username
from rollbook.replication.queries.courses import known_courses

__all__ = ["app", "note_enrolled"]

CREATED = ("id", "username", "email", "is_active", "outcome")
UPDATED = ("field", "before", "after")
DELETED = ("course", "table", "rows", "outcome")
EMPTY: dict[str, Any] = {field.name: field.empty for field in FIELDS} | {"meta": {}}
Meta = Annotated[str | None, typer.Option(metavar="JSON", help="A JSON object with additional data.")]


@command(
    app, "create", sets=("data", "writes"), columns=CREATED,
    examples=(
        "user create grace --email grace@example.org --name 'Grace Hopper'",
        "user create alan --email alan@example.org --name 'Alan' --active --course edX/DemoX/2012_Fall",
        "user create eve --email eve@example.org --password-stdin < password.txt",
    ),
    exits="0 created, 1 refused (taken, invalid address, unknown course), 2 invalid value, 3 unreachable",
    see="rollbook user update, rollbook user password, rollbook registration renew",
)  # fmt: skip
@with_fields
def create(
    run: Run,
    username: Annotated[
        str, typer.Argument(metavar="USERNAME", help="Unique, in any capitals: letters, digits and @ . + - _")
    ],
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="Unique; upper and lower case are the same.")],
    given: dict[str, Any],
    meta: Meta = None,
    password_stdin: Stdin = False,
    password_file: File = None,
    password_hash_file: HashFile = None,
    active: Annotated[bool, typer.Option("--active", help="Activate at once, without the key.")] = False,
    course: Annotated[
        list[str],
        typer.Option(metavar="COURSE", help="Enroll in this course; can be repeated.", autocompletion=courses),
    ] = [],  # noqa: B006 (Typer's way)
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Succeed without change if the username exists.")
    ] = False,
) -> None:
    """Create an account: user, profile and activation key, all or nothing.

    Without a password option the password is unusable. Auto-enrollments of an active account are applied.
    """
    initial = {field.name: field.empty if field.initial is None else field.initial for field in FIELDS}
    values: dict[str, Any] = {
        "username": username, "email": checked_email(email), **initial, **given,
        "meta": "" if meta is None else json.dumps(checked_meta(meta), ensure_ascii=False), "is_active": active,
    }  # fmt: skip
    checked_texts(values)
    stored = given_hash(password_stdin, password_file, password_hash_file)
    with run.connect() as conn:
        values["username"] = username = checked_username(conn, username)
        values["name"] = checked_name(conn, values["name"])
        known_courses(conn, course)
        if if_not_exists:
            try:
                existing = find_users(conn, [f"username:{username}"])[0]
            except RefusedError:
                pass
            else:
                shown = accounts.account(conn, existing["id"])
                render.rows(run, [shown | {"outcome": "unchanged"}], CREATED)
                return
        hidden = {"password": stored or secret.unusable(), "activation_key": secrets.token_hex(16)}
        made = accounts.create(conn, values | hidden)
        recorded = {field: value for field, value in values.items() if value not in ("", None)}
        history.record(
            conn,
            run,
            username,
            "created",
            after=recorded | ({"password": stored} if stored else {}),
            user_id=made["id"],
            kind="user",
        )
        for course_id in course:
            for enrollment in enroll(conn, course_id, [made["id"]]).values():
                history.record(
                    conn, run, username, "created", after=enrollment, user_id=made["id"], course_id=course_id,
                    kind="enrollment",
                )  # fmt: skip
        if active:
            history.begin(conn)
            note_enrolled(run, username, accounts.auto_enroll(conn, [made["id"]]).get(made["id"], 0))
            history.record_written(conn, run)
    render.rows(run, [made], CREATED)


def note_enrolled(run: Run, username: str, added: int) -> None:
    """Report the enrollments that the allowed list gave."""
    if added:
        render.note(
            run, f"{username}: {render.plural(added, 'enrollment')} added, because the address is allowed there"
        )


@command(
    app, "update", sets=("data", "writes"), columns=UPDATED,
    examples=("user update ada --email ada@example.com", "user update ada --goals 'To compute' --clear gender"),
    exits="0 changed, or nothing to change, 1 refused, 2 invalid value, 3 unreachable, 4 not migrated",
    see="rollbook user show, rollbook name-change list, rollbook email-change list",
)  # fmt: skip
@with_fields
def update(
    run: Run,
    user: User,
    given: dict[str, Any],
    username: Annotated[str | None, typer.Option(metavar="TEXT", help="The new username.")] = None,
    email: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The new address; the old one is kept in the meta.")
    ] = None,
    meta: Meta = None,
    clear: Clear = [],  # noqa: B006
) -> None:
    """Change a user's account or profile. The user's courses have the change when the command ends.

    Old names and addresses in the meta stay, even if the meta is set or cleared.
    """
    values: dict[str, Any] = dict(given)
    if username is not None:
        values["username"] = username
    if email is not None:
        values["email"] = checked_email(email)
    if meta is not None:
        values["meta"] = checked_meta(meta)
    values |= cleared(clear, EMPTY, values)
    if not values:
        raise UsageError("nothing to change", fix="name at least one field, such as --email or --clear goals")
    checked_texts(values)
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        if username is not None and username != found["username"]:
            values["username"] = checked_username(conn, username)
        changes = accounts.update(conn, found["id"], values, run.reason or "")
        if changes:
            before, after = (history.changed(changes, side) for side in ("before", "after"))
            history.record(
                conn, run, found["username"], "changed", before=before, after=after, user_id=found["id"], kind="user"
            )
    render.rows(run, changes, UPDATED, empty="unchanged")
    if run.dry_run and changes:
        render.note(run, "dry run: nothing was changed")


@command(
    app, "delete", sets=("data", "writes"), columns=DELETED, long=True,
    examples=("user delete ada -n", "user delete ada@example.org --confirm ada --reason 'asked for it'"),
    exits="0 deleted, 1 unknown user, or a course or another table refuses it, 3 unreachable, 6 not confirmed",
    see="rollbook user deactivate",
)  # fmt: skip
def delete(
    run: Run,
    user: User,
    confirm: Annotated[str | None, typer.Option(metavar="USERNAME", help="Repeat the username to confirm.")] = None,
) -> None:
    """Delete a user and all of the user's rows, in the portal and in every course.

    Without --confirm it lists the rows that would be deleted. What remains elsewhere is named, as `remains` in JSON.
    """
    with run.connect() as conn:
        found = find_users(conn, [user])[0]
        rows = accounts.belongings(conn, found["id"])
        left = of_user(conn, found["id"])
        if not run.dry_run and confirm != found["username"]:
            if not render.wants_json(run):
                render.remains(run, left)
            raise not_confirmed(found["username"], confirm, rows, left)
        flags = accounts.account(conn, found["id"])
        before = {name: flags[name] for name in ("is_active", "is_staff", "is_superuser", "date_joined")} | {
            "rows": [f"{row['course'] or 'portal'}: {row['table']} {row['rows']}" for row in rows]
        }  # a deleted user has a right to be forgotten: no address, no name
        accounts.delete(conn, found["id"])
        history.record(conn, run, found["username"], "removed", before=before, user_id=found["id"])
    render.removed(run, [
        {**row, "outcome": "removed", "remains": [] if number else left} for number, row in enumerate(rows)
    ], DELETED)  # fmt: skip


def not_confirmed(
    username: str, confirm: str | None, rows: list[Belongings], left: list[remains.Remain]
) -> NotConfirmedError:
    """Return the error that lists the rows that would be deleted, by course and table."""
    fix = f"add --confirm {quoted(username)}"
    if confirm is not None:
        return NotConfirmedError(f"--confirm {confirm} is not the user {username}", fix=fix)
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row["course"] or "portal", []).append(f"{row['table']} {row['rows']}")
    goes = "; ".join(f"{place}: {', '.join(tables)}" for place, tables in places.items())
    total = render.plural(sum(row["rows"] for row in rows), "row")
    return NotConfirmedError(f"not confirmed: this deletes user {username}, {total}", why=goes, fix=fix, rows=rows,
                             remains=[each.public for each in left])  # fmt: skip
