"""The pages of --html: what `status` and `replication verify` show on a terminal, with charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rollbook.core import page, render
from rollbook.core.chart import LEAST_TOP
from rollbook.core.page import Amount
from rollbook.core.states import STATES
from rollbook.core.values import MARKS
from rollbook.replication.commands import status
from rollbook.replication.tree import drawn

if TYPE_CHECKING:
    from datetime import datetime

    from rollbook.core.command import Run
    from rollbook.replication.queries.courses import Fault
    from rollbook.replication.state import Line
    from rollbook.replication.tree import Hop
    from rollbook.replication.verify import Report

BARS = 12  # courses in a chart
VERDICTS = ("unreachable", "not_comparable", "differs", "match")
NEVER = "never compared"


def status_page(run: Run, seen: status.Overview, days: Mapping[date, int]) -> str:
    """Return the page of `rollbook status`; `days` are enrollments by day, empty where they are not known."""
    found, portal = seen.courses, seen.portal
    names = status.COLUMNS if run.wide or run.fields else status.SCREEN
    lags = [line.lag_seconds for line in found if line.kind == "server" and line.lag_seconds is not None]
    needy = [line for line in found if line.state != "ok"]
    parts = [
        page.tiles({
            "courses": (f"{len(found):,}", ""),
            f"need{'s' if len(needy) == 1 else ''} attention": (
                f"{len(needy):,}", color(needy[0].state) if needy else "green",
            ),
            "users": (f"{portal['users']:,}", ""),
            "enrollments": (f"{portal['enrollments']:,}", ""),
            "highest lag": (f"{max(lags):g} s" if lags else "–", ""),
        }) if found else "",
        attention(seen.faults, found, seen.servers),
        page.pair(states(found), verdicts({line.course: line.verdict for line in found})) if found else "",
        lag(found),
        servers(seen.servers),
        enrollments(days),
        page.section("Courses", page.table([vars(line) for line in found], render.picked(run, names)), is_card=False)
        if found else f"<p>{page.safe(status.NONE)}</p>\n",
    ]  # fmt: skip
    return page.page(f"{portal['database']}: status", seen.title, portal["observed_at"], parts)


def color(word: str) -> str:
    """Return the colour of a state or a verdict."""
    return MARKS.get(word, ("", "dim"))[1]


def attention(faults: Sequence[Fault], found: Sequence[Line], servers: Sequence[Hop]) -> str:
    """Return what needs attention and the commands that help, the worst first."""
    lines = [(fault.words, fault.fix, "") for fault in faults if fault.course is None]
    idle = status.server_needs(servers)
    lines += [(f"{need.who}: {need.reason}", need.fix, "") for need in (*status.needs(found), *idle)]
    if not lines:
        return '<p class="lead verdict green">✓ every course is ok</p>\n' if found else ""
    items = "".join(f"<li>{page.safe(words)}{command(fix)}</li>\n" for words, fix, _ in lines[: 2 * status.SHOWN])
    more = len(lines) - 2 * status.SHOWN
    rest = f"<li>{more} more reasons: rollbook status</li>\n" if more > 0 else ""
    title = f"{status.needing(found)}{f'; {status.servers_needing(idle)}' if idle else ''}"
    return page.section(title, f'<ul class="needs">\n{items}{rest}</ul>\n')


def command(fix: str) -> str:
    """Return a remedy: a line for a shell, or for psql."""
    if not fix:
        return ""
    kind = "" if fix.startswith("rollbook ") else ' class="sql"'
    return f"<code{kind}>{page.safe(fix)}</code>"


def states(found: Sequence[Line]) -> str:
    """Return the chart of the states."""
    count = Counter(line.state for line in found)
    parts = [Amount(state.name, count[state.name], state.mark, state.color) for state in STATES if count[state.name]]
    return page.section("States", page.shares("courses by state", parts))


def verdicts(found: Mapping[str, str | None], title: str = "Last comparison") -> str:
    """Return the chart of the verdicts, by course."""
    count = Counter(verdict or NEVER for verdict in found.values())
    parts = [
        Amount(word, count[word], MARKS.get(word, ("?", ""))[0], color(word))
        for word in (*VERDICTS, NEVER) if count[word]
    ]  # fmt: skip
    return page.section(title, page.shares("courses by verdict", parts), remark="courses by verdict")


def lag(found: Sequence[Line]) -> str:
    """Return the chart of the lag, of the courses that lag most."""
    there = [line for line in found if line.kind == "server"]
    if not there:
        return ""
    worst = sorted(there, key=lambda line: (line.lag_seconds is not None, -(line.lag_seconds or 0), line.course))[:BARS]
    amounts = [Amount(line.course, line.lag_seconds or 0, words(line.lag_seconds), color(line.state)) for line in worst]
    top = max(LEAST_TOP, *(line.lag_seconds or 0 for line in there))
    more = f"{BARS} of {len(there)} courses on servers, " if len(there) > BARS else "courses on servers, "
    return page.section("Lag", page.bars("lag by course", amounts, top), remark=f"{more}scale to {top:g} s")


def servers(found: Sequence[Hop]) -> str:
    """Return the tree of the portal, its relays and servers; nothing where it feeds all and each has courses."""
    rows = drawn(found)
    return page.section("Servers", page.table(rows, status.TREE), is_card=False) if rows else ""


def words(seconds: float | None) -> str:
    """Return a lag in words."""
    return "not known" if seconds is None else f"{seconds:g} s"


def enrollments(days: Mapping[date, int]) -> str:
    """Return the chart of enrollments by day."""
    if not days:
        return ""
    first, last = min(days), max(days)
    chart = page.columns(f"enrollments by day, {first} to {last}", days, "enrollments")
    return page.section("Enrollments by day", chart, remark=f"{sum(days.values()):,} in {len(days)} days, UTC")


def verify_page(run: Run, portal: Mapping[str, Any], report: Report, sentence: str, at: datetime, shown: int) -> str:
    """Return the page of `replication verify`; `sentence` is the verdict, `shown` the number of differing rows."""
    from rollbook.replication.commands.comparison import COLUMNS, FINDINGS, SCREEN

    rank = {word: place for place, word in enumerate(VERDICTS)}
    worst = {row.course: row.verdict for row in sorted(report.rows, key=lambda row: -rank[row.verdict])}
    worst |= {course: verdict for course, verdict in report.earlier.items() if course not in worst}
    first, _, fix = sentence.partition("\n")
    remedy = f'<div class="needs">{command(fix.split("   ")[0].strip())}</div>\n' if fix.strip() else ""
    is_equal = set(worst.values()) <= {"match"}
    mark = "✓" if is_equal else "✗"
    names = render.picked(run, COLUMNS) if run.fields or run.wide else list(SCREEN)
    rows = sorted(report.rows, key=lambda row: rank[row.verdict])  # the worst first; else in their order
    findings = [vars(row) for row in report.findings[:shown]]
    more = f"the first {shown} of {len(report.findings)}" if len(report.findings) > shown else ""
    listed = FINDINGS if any(row.server for row in report.findings) else FINDINGS[:-1]
    parts = [
        f'<div class="card verdict">\n<p class="lead {"green" if is_equal else "red"}">{mark} {page.safe(first)}</p>\n'
        f"{remedy}</div>\n",
        page.pair(verdicts(worst, "Verdicts"), differing(report)),
        page.section("Rows that differ", page.table(findings, listed), remark=more, is_card=False) if findings else "",
        page.section("Tables", page.table([vars(row) for row in rows], names), is_card=False) if rows else "",
    ]
    version = str(portal["server_version"]).split()[0]
    return page.page(f"{portal['database']}: verify", f"{portal['database']} · PostgreSQL {version}", at, parts)


def differing(report: Report) -> str:
    """Return the chart of the rows that differ, of the courses that have most of them."""
    count: Counter[str] = Counter()
    for row in report.rows:
        count[row.course] += row.differing
    most = [(course, number) for course, number in count.most_common(BARS) if number]
    if not most:
        return ""
    amounts = [Amount(course, number, render.plural(number, "row"), "red") for course, number in most]
    more = f"{BARS} of {sum(1 for number in count.values() if number)} courses" if len(most) == BARS else ""
    return page.section("Differing rows", page.bars("differing rows by course", amounts, most[0][1]), remark=more)
