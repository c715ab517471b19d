"""`rollbook discussion`: the changes of users that the discussion service must receive, and their delivery."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rollbook.core import history, render
from rollbook.core.command import Format, Run, command
from rollbook.core.db import Conn, require_own_session
from rollbook.core.errors import UsageError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.core.rows import Row
from rollbook.people import discussion
from rollbook.people.commands.named_users import expanded
from rollbook.people.discussion import checked_key, checked_url
from rollbook.people.queries import discussion as queries
from rollbook.replication.commands.status import repeated

app = noun("discussion")

SET = ("active", "url", "has_api_key", "outcome")
STATUS = ("active", "url", "pending", "failed", "oldest_seconds", "last_error", "reachable")
LISTED = ("username", "operation", "attempts", "next_try", "error", "user_id", "since")
DISCARDED = ("username", "user_id", "operation", "error", "outcome")
SYNCED = ("username", "operation", "outcome", "http_status", "error")
LOOK_SECONDS = 10.0  # --follow looks by itself, too: a notice may be lost where a session is replaced
URL_VARIABLE = "ROLLBOOK_DISCUSSION_URL"


class State(StrEnum):
    """Which changes are listed: all pending ones, or those with a failed attempt."""

    failed = "failed"
    pending = "pending"


def key_in(file: str) -> str:
    """Return the key in a file; - is stdin. Raises UsageError."""
    try:
        text = typer.get_text_stream("stdin").read() if file == "-" else Path(file).read_text("utf-8-sig")
    except OSError as exc:
        raise UsageError(f"cannot read {file}", why=exc.strerror) from exc
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8") from None  # the bytes may be of the key
    return checked_key(text, "stdin" if file == "-" else file)


def switch(run: Run, *, active: bool, url: str | None = None, api_key: str | None = None) -> Row:
    """Store the settings that are not None, record them in the history, and return all settings."""
    with run.connect() as conn:
        before = queries.settings(conn)
        changed = queries.configure(conn, active=active, url=url, api_key=api_key)
        after = queries.settings(conn)
        word = "unchanged"
        if changed:
            word = "changed" if before["active"] == active else "activated" if active else "deactivated"
            history.record(conn, run, "discussion", word, before=before, after=after)
    return {"active": active, "url": after["url"], "has_api_key": after["api_key"] is not None, "outcome": word}


@command(
    app, "activate", sets=("data", "writes"), columns=SET,
    examples=(
        "discussion activate --url https://discussion.example.org --api-key-file discussion.key",
        "discussion activate",
    ),
    exits="0 active, also if it was, 2 no such file or no URL, 3 unreachable, 4 not migrated",
    see="rollbook discussion sync --all, rollbook discussion status",
)  # fmt: skip
def activate(
    run: Run,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar=URL_VARIABLE, help="Its address, without /api/v1; kept in the database."),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Holds its key, which is kept in the database; - is stdin. Else the "
                     "variable ROLLBOOK_DISCUSSION_API_KEY counts where `sync` runs."),
    ] = None,
) -> None:  # fmt: skip
    """Start queueing user changes for the discussion service. Omitted options keep their values."""
    address = checked_url(url) if url else None
    row = switch(run, active=True, url=address, api_key=key_in(api_key_file) if api_key_file is not None else None)
    render.rows(run, [row], SET)
    if row["outcome"] == "activated":
        render.note(run, "users who are there already, or just being written: rollbook discussion sync --all")


@command(
    app, "deactivate", sets=("data", "writes"), columns=SET,
    examples=("discussion deactivate", "discussion deactivate --reason 'service retired'"),
    exits="0 off, also if it was, 3 unreachable, 4 not migrated", see="rollbook discussion status",
)  # fmt: skip
def deactivate(run: Run) -> None:
    """Note nothing and send nothing any more; what waits stays and is sent when it is active again."""
    render.rows(run, [switch(run, active=False)], SET)


@command(
    app, "status", sets=("data", "watch"), columns=STATUS,
    examples=("discussion status", "discussion status --json"),
    exits="0 all is delivered, or it is off, 3 unreachable database, 4 something waits, or the service is silent",
    see="rollbook discussion list, rollbook discussion sync",
)  # fmt: skip
def status(run: Run) -> int:
    """Show what waits to be delivered, what failed, the latest error, and whether the service answers."""
    return repeated(run, lambda: status_once(run))


def status_once(run: Run) -> int:
    """Write the state; return 4 if it needs attention."""
    with run.connect() as conn:
        found, waits = queries.settings(conn), queries.state(conn)
    reachable = None
    to = discussion.service(found)
    if found["active"]:
        with discussion.Client(to) as client:
            reachable = client.is_there()
    row = {"active": found["active"], "url": to.url, **waits, "reachable": reachable}
    render.rows(run, [row], STATUS)
    return 4 if waits["pending"] or reachable is False else 0


@command(
    app, "list", sets=("data", "listing"), columns=LISTED,
    examples=("discussion list --state failed", "discussion list --match ada --json"),
    exits="0 also if there is none, 3 unreachable, 4 not migrated", see="rollbook discussion sync --failed",
)  # fmt: skip
def list_(
    run: Run,
    state: Annotated[
        State | None, typer.Option(help="failed: at least one attempt failed; pending: everything undelivered.")
    ] = None,
) -> None:
    """List what is not delivered, the oldest first."""
    with run.connect() as conn:
        found = queries.outbox(
            conn, failed=state is State.failed, match=run.match, limit=render.fetch_limit(run)
        )  # fmt: skip
        total = queries.state(conn)["failed" if state is State.failed else "pending"] if not run.match else None
    render.listing(run, found, LISTED, empty="everything is delivered", total=total)


@command(
    app, "discard", sets=("data", "writes", "yes"), columns=DISCARDED,
    examples=("discussion discard id:42 --yes", "discussion discard ada --yes --reason 'the service never knew her'"),
    exits="0 discarded, 1 unknown user, or nothing of theirs has failed, 3 unreachable, 6 not confirmed",
    see="rollbook discussion list --state failed, rollbook discussion sync",
)  # fmt: skip
def discard(
    run: Run,
    user: Annotated[str, typer.Argument(metavar="USER", help="A user; id:N also of somebody who is deleted.")],
) -> None:
    """Discard the failed change that blocks a user's queue. The service never gets it; later changes are delivered."""
    with run.connect() as conn:
        (user_id,) = queries.named(conn, [user])
        gone = queries.discard(conn, user_id, user)
        render.confirm(run, f"discard the {gone['operation']} of {user}, which failed with: {gone['error']}")
        before = {name: gone[name] for name in ("operation", "attempts", "http_status", "error")}
        history.record(conn, run, f"id:{user_id}", "discarded", before=before, user_id=user_id)
    render.rows(run, [gone | {"outcome": "discarded"}], DISCARDED)


@command(
    app, "sync", sets=("data", "writes"), columns=SYNCED, long=True,
    examples=("discussion sync", "discussion sync --all", "discussion sync --failed --json"),
    exits="0 all is delivered, 1 unknown user or not active, 3 unreachable database, 4 something is not delivered, "
    "5 something is not, others are",
    see="rollbook discussion status, rollbook discussion list",
)  # fmt: skip
def sync(
    run: Run,
    user: Annotated[
        list[str],
        typer.Argument(metavar="[USER...]", help="Only these, at once; id:N also of somebody who is deleted."),
    ] = [],  # noqa: B006
    all_: Annotated[
        bool, typer.Option("--all", help="Every user (of those named), also where nothing has changed.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="At once also what waits for its next try.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with each new change, until Ctrl-C.")] = False,
) -> int:
    """Deliver the queued changes to the discussion service, each user's changes in order."""
    if follow and (run.dry_run or render.chosen_format(run) is Format.json):
        raise UsageError(
            "--follow has no end that --dry-run or one JSON document could wait for", fix="use --format jsonl"
        )
    named = expanded(user) if user else None
    with run.connect() as conn:
        require_own_session(conn, run.name)
        discussion.active_service(conn)
        ids = queries.named(conn, named) if named is not None else None
        if all_:
            count = queries.queue(conn, ids)
            history.record(conn, run, "discussion", "queued", after={"users": count})
        if run.dry_run:
            waits = [
                {**row, "outcome": "would deliver", "http_status": None, "error": None}
                for row in queries.outbox(conn, ids=ids)
            ]
            render.rows(run, waits, SYNCED, empty="everything is delivered")
            return 0
        conn.commit()
        conn.autocommit = True
        at_once = failed or all_ or ids is not None
        if follow:
            followed(run, conn, ids, at_once=at_once)
        return synced(run, conn, ids, at_once=at_once)


def synced(run: Run, conn: Conn, ids: list[int] | None, *, at_once: bool) -> int:
    """Deliver what is there, and report it, also where Ctrl-C ends it."""
    until = queries.last(conn)
    rows: list[Row] = []
    with discussion.Client(discussion.active_service(conn)) as client:
        work = discussion.Delivery(conn, client, ids, at_once=at_once, until=until)
        try:
            with progress(run, "delivering", queries.total(conn, ids, until)) as tell:
                for row in work.results():
                    rows.append(row)
                    tell(1)
        finally:
            render.rows(run, rows, SYNCED, empty="nothing to deliver")
    if rows:
        counts = {"delivered": work.delivered, "failed": work.failed}
        history.record(conn, run, "discussion", "failed" if work.failed else "delivered", after=counts)
    left = work.left()
    if left:
        why = "the service is silent; " if work.is_stopped else ""
        render.note(run, f"{why}{render.plural(left, 'change')} not delivered; see rollbook discussion list")
    return 0 if not left else 5 if work.delivered else 4


def followed(run: Run, conn: Conn, ids: list[int] | None, *, at_once: bool) -> None:
    """Deliver what is there and what comes, until Ctrl-C; where the service is, is looked up for each round."""
    queries.listen(conn)
    while True:
        to = discussion.active_service(conn)
        with discussion.Client(to) as client:
            while discussion.active_service(conn) == to:
                work = discussion.Delivery(conn, client, ids, at_once=at_once, patience=0)
                rows: list[Row] = []
                try:
                    rows.extend(work.results())
                finally:
                    if rows:
                        render.rows(run, rows, SYNCED)
                        run.no_header = True
                at_once = False  # after the first round each waits for its time
                soon = queries.next_try(conn)
                pause = LOOK_SECONDS if soon is None or work.is_stopped else min(max(soon, 0.5), LOOK_SECONDS)
                queries.wait(conn, pause)
