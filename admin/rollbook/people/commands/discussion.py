"""`rollbook discussion`: the changes of users that the discussion service must receive, and their delivery."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from rollbook.core import history, render, watch
from rollbook.core.command import Format, Run, command
from rollbook.core.db import Conn, require_own_session
from rollbook.core.errors import UsageError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.core.users import expanded
from rollbook.people import discussion, discussion_settings
from rollbook.people.queries import discussion as queries

app = noun("discussion")

SET = ("active", "url", "has_api_key", "outcome")
STATUS = ("active", "url", "pending", "failed", "oldest_seconds", "last_error", "reachable")
LISTED = ("username", "operation", "attempts", "next_try", "error", "user_id", "since")
DISCARDED = ("username", "user_id", "operation", "error", "outcome")
SYNCED = ("username", "operation", "outcome", "http_status", "error")


class State(StrEnum):
    """Which changes are listed: all pending ones, or those with a failed attempt."""

    failed = "failed"
    pending = "pending"


def switch(run: Run, *, active: bool, url: str | None = None, api_key: str | None = None) -> str:
    """Store the settings that are not None and report all; return the outcome."""
    with run.connect() as conn:
        stored, outcome = discussion_settings.configure(conn, run, active=active, url=url, api_key=api_key)
    row = {"active": active, "url": stored.url, "has_api_key": stored.api_key is not None, "outcome": outcome}
    render.rows(run, [row], SET)
    return outcome


@command(
    app, "activate", sets=("data", "writes"), columns=SET,
    examples=(
        "discussion activate --url https://discussion.example.org --api-key-file discussion.key",
        "discussion activate",
    ),
    exits="0 active, now or before, 2 no such file or not a URL, 3 unreachable, 4 not migrated",
    see="rollbook discussion sync --all, rollbook discussion status",
)  # fmt: skip
def activate(
    run: Run,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar=discussion_settings.URL, help="Its address, without /api/v1; stored in the database."
        ),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read the API key from FILE and store it in the database; - is standard "
                     "input. Without it, `sync` reads ROLLBOOK_DISCUSSION_API_KEY."),
    ] = None,
) -> None:  # fmt: skip
    """Start queueing user changes for the discussion service. Omitted options keep their values."""
    address = discussion_settings.checked_url(url) if url else None
    key = discussion_settings.read_key(api_key_file) if api_key_file is not None else None
    if switch(run, active=True, url=address, api_key=key) == "activated":
        render.note(run, "users written before now are not queued: rollbook discussion sync --all")


@command(
    app, "deactivate", sets=("data", "writes"), columns=SET,
    examples=("discussion deactivate", "discussion deactivate --reason 'service retired'"),
    exits="0 inactive, now or before, 3 unreachable, 4 not migrated", see="rollbook discussion status",
)  # fmt: skip
def deactivate(run: Run) -> None:
    """Stop queueing and sending changes. Queued changes stay, and are sent when it is active again."""
    switch(run, active=False)


@command(
    app, "status", sets=("data", "watch"), columns=STATUS,
    examples=("discussion status", "discussion status --json"),
    exits="0 everything is delivered, or it is not active, 3 unreachable database, 4 undelivered changes, or no answer",
    see="rollbook discussion list, rollbook discussion sync",
)  # fmt: skip
def status(run: Run) -> int:
    """Show the number of pending and failed changes, the latest error, and whether the service answers."""
    return watch.repeated(run, lambda: look(run))


def look(run: Run) -> watch.Look:
    """Look at the queue, and at the service while it is active."""
    with run.connect() as conn:
        settings, state = queries.settings(conn), queries.state(conn)
    reachable = None
    to = discussion_settings.service(settings)
    if settings.active:
        with discussion.Client(to) as client:
            reachable = client.is_there()
    row = {"active": settings.active, "url": to.url, **vars(state), "reachable": reachable}
    code = 4 if state.pending or reachable is False else 0
    return watch.Look(code, lambda: render.rows(run, [row], STATUS), row)


@command(
    app, "list", sets=("data", "listing"), columns=LISTED, times="since",
    examples=("discussion list --state failed", "discussion list --match ada --json"),
    exits="0 even if there is none, 3 unreachable, 4 not migrated", see="rollbook discussion sync --failed",
)  # fmt: skip
def list_(
    run: Run,
    state: Annotated[
        State | None, typer.Option(help="failed: at least one attempt failed; pending: everything undelivered.")
    ] = None,
) -> None:
    """List the undelivered changes, the oldest first."""
    with run.connect() as conn:
        found = queries.outbox(
            conn, failed=state is State.failed, match=run.match, limit=render.fetch_limit(run), period=run.period
        )
        counts = queries.state(conn)
    total = None if run.match or run.since or run.until else counts.failed if state is State.failed else counts.pending
    render.listing(run, found, LISTED, empty="everything is delivered", total=total)


@command(
    app, "discard", sets=("data", "writes", "yes"), columns=DISCARDED,
    examples=("discussion discard id:42 --yes", "discussion discard ada --yes --reason 'the service never knew her'"),
    exits="0 discarded, 1 unknown user, or no failed change, 3 unreachable, 6 not confirmed",
    see="rollbook discussion list --state failed, rollbook discussion sync",
)  # fmt: skip
def discard(
    run: Run,
    user: Annotated[str, typer.Argument(metavar="USER", help="A user; id:N may be a deleted one.")],
) -> None:
    """Discard the failed change that blocks a user's queue. The service never gets it. Later changes are sent."""
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
    exits="0 everything is delivered, 1 unknown user or not active, 3 unreachable database, 4 nothing was delivered, "
    "5 some changes were not delivered",
    see="rollbook discussion status, rollbook discussion list",
)  # fmt: skip
def sync(
    run: Run,
    user: Annotated[
        list[str],
        typer.Argument(metavar="[USER...]", help="Only these users, at once; id:N may be a deleted one."),
    ] = [],  # noqa: B006
    all_: Annotated[bool, typer.Option("--all", help="All users (or all named ones), even without a change.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Retry failed changes at once.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Also deliver each new change, until Ctrl-C.")] = False,
) -> int:
    """Deliver the queued changes to the discussion service, each user's changes in order."""
    if follow and (run.dry_run or render.chosen_format(run) is Format.json):
        raise UsageError("--follow never ends, so it excludes --dry-run and --format json", fix="use --format jsonl")
    named = expanded(user) if user else None
    with run.connect() as conn:
        require_own_session(conn, run.name)
        discussion_settings.active_service(conn)
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
            discussion.follow(conn, ids, at_once=at_once, report=lambda results: followed(run, results))
        return synced(run, conn, ids, at_once=at_once)


def synced(run: Run, conn: Conn, ids: list[int] | None, *, at_once: bool) -> int:
    """Deliver the present changes and report them, also if Ctrl-C ends it; return the exit code."""
    until = queries.last(conn)
    results: list[discussion.Result] = []
    with discussion.Client(discussion_settings.active_service(conn)) as client:
        work = discussion.Delivery(conn, client, ids, at_once=at_once, until=until)
        try:
            with progress(run, "delivering", queries.total(conn, ids, until)) as advance:
                for result in work.results():
                    results.append(result)
                    advance(1)
        finally:
            render.rows(run, map(vars, results), SYNCED, empty="nothing to deliver")
    if results:
        counts = {"delivered": work.delivered, "failed": work.failed}
        history.record(conn, run, "discussion", "failed" if work.failed else "delivered", after=counts)
    left = work.left()
    if left:
        why = "the service does not answer; " if work.is_stopped else ""
        render.note(run, f"{why}{render.plural(left, 'change')} not delivered; see rollbook discussion list")
    return 0 if not left else 5 if work.delivered else 4


def followed(run: Run, results: Sequence[discussion.Result]) -> None:
    """Report a round of --follow."""
    if results:
        render.rows(run, map(vars, results), SYNCED)
        run.no_header = True
