"""`rollbook replication lag`: how far course servers were behind, as a chart or as rows."""

from datetime import datetime
from typing import IO, TYPE_CHECKING, Annotated

import typer

from rollbook.core import render
from rollbook.core.arguments import AnyServers
from rollbook.core.chart import LEAST_TOP, chart
from rollbook.core.command import Run, command
from rollbook.core.errors import UnreachableError
from rollbook.replication.commands.comparison import app

if TYPE_CHECKING:
    from rollbook.replication.lag import History, Period

__all__ = ["app"]  # comparison.py has its other commands

LAG = ("server", "sent_at", "arrived_at", "lag_seconds")
ROWS = 8  # of the chart of one server; several have a line each
WIDEST = 120
CLOCK_SECONDS = 0.05  # from here on a difference of clocks is worth a remark


@command(
    app, "lag", sets=("data",), columns=LAG,
    examples=("replication lag", "replication lag east --since 30m", "replication lag --since 2d --csv"),
    exits="0 shown, 1 unknown server, 2 --since is not a time, 3 a server does not answer, 4 a server lags now",
    see="rollbook replication status, rollbook replication canary",
)  # fmt: skip
def lag(
    run: Run,
    server: AnyServers = [],  # noqa: B006
    since: Annotated[
        str, typer.Option(metavar="TIME", help="For how long: 90s, 30m, 1h, 2d; or since a time (UTC): yesterday.")
    ] = "1h",
) -> int:
    """Show how long the heartbeats of the last hour took to each server: a chart on a terminal, rows elsewhere.

    A server records when a heartbeat arrives. What has not arrived counts with its age; without heartbeats there is a
    gap: let rollbook status run every minute. After a stream was rebuilt nothing is known of the time before.
    """
    from rollbook.core.since import since as parsed
    from rollbook.replication.lag import lag_of
    from rollbook.replication.link import find_server, list_servers
    from rollbook.replication.state import LAG_SECONDS

    beginning = parsed("--since", since)
    with run.connect() as portal:
        portal.autocommit = True
        asked = [find_server(portal, name) for name in dict.fromkeys(server)] or list_servers(portal)
        found = lag_of(portal, asked, beginning, run.caller())
    known = {name: answer for name, answer in found.servers.items() if not isinstance(answer, UnreachableError)}
    if render.is_drawn(run) and not run.fields and known:
        render.document(run, {}, lambda out: draw(run, out, found, known))
    elif not (render.is_drawn(run) and asked):
        rows = [vars(beat) for history in known.values() for beat in history.beats]
        render.rows(run, rows, LAG, empty="no heartbeats in this time" if asked else "no course servers")
    for each in asked:
        answer = found.servers[each.name]
        if isinstance(answer, UnreachableError):
            render.error(run, answer)
        elif not answer.records:
            render.note(
                run, f"server {each.name} does not record yet when heartbeats arrive; from now on:",
                f"  rollbook server add {each.name}",
            )  # fmt: skip
        elif abs(answer.ahead_seconds) >= CLOCK_SECONDS:
            word = "ahead of" if answer.ahead_seconds > 0 else "behind"
            clocks = f"the clock of server {each.name} is {abs(answer.ahead_seconds):.2f} s {word} the portal's"
            render.note(run, f"{clocks}; lag is corrected by that")
    for name, history in known.items():
        for gap in history.unknown:
            why = "the stream was rebuilt" if gap.is_before else "heartbeats of this time were lost"
            render.note(
                run, f"lag of server {name} not known from {when(found, gap.start)} to {when(found, gap.end)}: {why}"
            )
    if found.reaches_back_to:
        render.note(
            run, f"the portal's newest 2,000 heartbeats reach back to {when(found, found.reaches_back_to)} only"
        )
    if len(known) < len(asked):
        return 3
    return 4 if any((history.waiting_seconds or 0) >= LAG_SECONDS for history in known.values()) else 0


def draw(run: Run, out: IO[str], period: "Period", known: "dict[str, History]") -> None:
    """Write a chart of one server, or a line for each of several, all to one scale."""
    from rollbook.core.output import console
    from rollbook.replication.lag import curve

    width = min(console(run, out).width, WIDEST)
    lags = [beat.lag_seconds for history in known.values() for beat in history.beats if beat.lag_seconds is not None]
    highest = max(lags, default=0)
    top = max(LEAST_TOP, highest)
    times = (when(period, period.start), when(period, period.end))
    if len(known) == 1:
        ((name, history),) = known.items()
        pad = len(seconds(top))
        room = max(8, width - pad - 1)
        lines = chart(curve(history.beats, period.start, period.end, room), top, ROWS)
        labels = [seconds(top), *[""] * (ROWS - 2), seconds(0)]
        out.write(f"lag of server {name}: {summary(history, period)}\n")
        out.writelines(f"{label:>{pad}} {line}".rstrip() + "\n" for label, line in zip(labels, lines, strict=True))
        out.write(f"{'':{pad}} {times[0]}{times[1]:>{max(1, room - len(times[0]))}}\n")
        return
    pad = max(map(len, known))
    texts = {name: summary(history, period) for name, history in known.items()}
    room = max(8, width - pad - max(map(len, texts.values())) - 2)
    scale = f"; scale to {seconds(top)}" if top > highest else ""
    is_known = not any(history.unknown for history in known.values())
    words = f"highest{'' if is_known else ' that is known'}: {seconds(highest) if lags or is_known else 'none'}"
    out.write(f"lag from {times[0]} to {times[1]}; {words}{scale}\n")
    for name, history in known.items():
        (line,) = chart(curve(history.beats, period.start, period.end, room), top)
        out.write(f"{name:<{pad}} {line:<{room}} {texts[name]}\n")


def summary(history: "History", period: "Period") -> str:
    """Return the lag of the last heartbeat, and the worst that is known, with its time."""
    lags = [(beat.lag_seconds, beat.sent_at) for beat in history.beats if beat.lag_seconds is not None]
    if not lags:
        return "not known" if history.unknown else "no heartbeats"
    worst, sent_at = max(lags)
    waiting = history.waiting_seconds
    now = f"last {seconds(lags[-1][0])}" if waiting is None else f"waits {seconds(waiting)}"
    most = "known: at most" if history.unknown else "at most"
    return f"{now}, {most} {seconds(worst)} at {when(period, sent_at)}"


def seconds(amount: float) -> str:
    """Return seconds in three digits."""
    return f"{amount:.0f} s" if amount >= 100 else f"{amount:.3g} s"


def when(period: "Period", at: datetime) -> str:
    """Return a time for a reader, with its date where the period has several."""
    days = {each.astimezone().date() for each in (period.start, period.end)}
    return at.astimezone().strftime("%H:%M" if len(days) == 1 else "%m-%d %H:%M")
