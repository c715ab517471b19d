"""The screen of `rollbook top`, by Textual. The looks run beside it in threads: no key waits for a database.

A thread that waits for a server that does not answer ends with the program.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.message import Message
from textual.screen import Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from rollbook.core import render
from rollbook.core.chart import LEAST_TOP, chart
from rollbook.core.command import Run, When
from rollbook.core.db import STATEMENT_SECONDS
from rollbook.core.errors import INTERRUPTED, AdminError, UnreachableError
from rollbook.core.live import TERMINATED, textual_streams
from rollbook.core.output import Page
from rollbook.core.rows import Row
from rollbook.core.states import STATES
from rollbook.core.table import heading, shortened, table
from rollbook.core.values import human, marked, visible
from rollbook.core.watch import GAP
from rollbook.replication.board import SORTS, Board, Track
from rollbook.replication.commands.status import TREE, Overview, advice, overview
from rollbook.replication.tree import Hop, drawn

KEYS = "space pause · s sort · / filter · t servers · enter details · v verify · c canary · ? help · q quit"
SHORT_KEYS = "t servers · ? help · q quit"
HELP = """space   pause, and go on
s       sort: worst first, by course, by lag, by rows/s
/       filter by a part of a course, target or state;
        Enter keeps it, Esc removes it
t       all servers as a tree, and why one without courses is not well
enter   details of the course: slot, subscription, tables, the error,
        the command that fixes it
v       verify the course: compare its copies with the portal, row by row;
        changes no copy
c       canary: send a heartbeat and time it on the course's server
↑ ↓     choose a course; Page Up, Page Down, Home and End too
q       quit; Esc leaves a page such as this one

SERVER      relays, and the servers behind them, as in rollbook status; what
            does not fit is one row that says how many, and their worst state
HOP         the part of the lag that this hop takes
LAG         WAL that the course's server has not confirmed
LAG TIME    how long the heartbeat of the last look took
ROWS/S      rows written to the course's copies in the portal's database,
            by PostgreSQL's statistics
LAST ...    the looks of that time, each course to its own scale; x: not known
LAST ERROR  stays, with its time, when the course is well again

No key changes a copy. To repair: rollbook replication repair
"""
LATE_SECONDS = 5.0  # from here on a look that has no answer yet is reported
SILENT_SECONDS = 15.0  # from here on nothing is known of now
LOST_SECONDS = STATEMENT_SECONDS + SILENT_SECONDS  # from here on a look is abandoned: its connection was cut unnoticed
CURSOR = Style(reverse=True)
TREE_WIDTH, TREE_LEFT = 40, 4  # columns of the terminal, and lines for tree and courses, that a tree needs
WIDE_TREE = 80  # columns from which it has the bytes


@dataclass(frozen=True)
class Seen:
    """What one look has seen."""

    whole: Overview
    rows: Mapping[str, int]  # written by course, since statistics began
    at: datetime
    clock: float


@dataclass(frozen=True)
class Column:
    """A column of the table: its name, its heading, its width, and the width of terminals from which it is shown."""

    name: str
    width: int
    least: int = 0

    def heading(self, interval: float) -> str:
        """Return the heading."""
        if self.name in ("lags", "rates"):
            return f"LAST {self.width * interval:g} S"
        return {"rate": "ROWS/S", "error": "LAST ERROR"}.get(self.name) or heading(self.name)


# The course has what the others leave. The state is never hidden.
COLUMNS = (
    Column("course", 16), Column("state", 13), Column("lag_seconds", 9), Column("lags", 12, 76),
    Column("lag_bytes", 8, 112), Column("rate", 8), Column("rates", 12, 96), Column("verdict", 16, 130),
    Column("error", 28, 150),
)  # fmt: skip
NUMBERS = ("lag_seconds", "lag_bytes", "rate")


def look(run: Run) -> Seen:
    """Look at the portal and all courses, as `rollbook status` does. Raises AdminError."""
    from rollbook.replication.queries.activity import rows_written

    with run.connect() as conn:
        whole = overview(run, conn, [])
        rows, clock = rows_written(conn), time.monotonic()
    return Seen(whole, rows, datetime.now().astimezone(), clock)


def cut(lines: list[Text]) -> Text:
    """Return lines that end at the edge of the terminal."""
    joined = Text("\n").join(lines)
    joined.no_wrap, joined.overflow = True, "ellipsis"
    return joined


class Looked(Message):
    """A look is done."""

    def __init__(self, found: Seen | AdminError) -> None:
        self.found = found
        super().__init__()


class Answered(Message):
    """What a key has asked for is there: a page, or a line for the screen."""

    def __init__(self, title: str, content: str = "") -> None:
        self.title, self.content = title, content
        super().__init__()


class Courses(ScrollView, can_focus=True):
    """The table of the courses; only the rows that are seen are drawn."""

    def __init__(self, interval: float) -> None:
        super().__init__(id="courses")
        self.interval = interval
        self.tracks: list[Track] = []
        self.chosen: str | None = None
        self.is_known = True

    def fill(self, tracks: list[Track], *, is_known: bool) -> None:
        """Show these courses; the chosen one stays, wherever it is now."""
        self.tracks, self.is_known = tracks, is_known
        if self.place is None:
            self.chosen = tracks[0].line.course if tracks else None
        self.virtual_size = Size(self.size.width, len(tracks))
        self.refresh()

    @property
    def place(self) -> int | None:
        """Return the row of the chosen course."""
        return next((n for n, track in enumerate(self.tracks) if track.line.course == self.chosen), None)

    @property
    def track(self) -> Track | None:
        """Return the chosen course."""
        return None if self.place is None else self.tracks[self.place]

    def move(self, to: int) -> None:
        """Choose another row."""
        if self.tracks:
            row = max(0, min(to, len(self.tracks) - 1))
            self.chosen = self.tracks[row].line.course
            self.scroll_to_region(Region(0, row, 1, 1), animate=False)
            self.refresh()
            self.post_message(self.Chosen())

    class Chosen(Message):
        """Another course was chosen."""

    def on_key(self, event: events.Key) -> None:
        """Move the cursor."""
        at, screen = self.place or 0, max(1, self.size.height - 1)
        to = {
            "up": at - 1, "down": at + 1, "pageup": at - screen, "pagedown": at + screen, "home": 0,
            "end": len(self.tracks) - 1,
        }.get(event.key)  # fmt: skip
        if to is not None:
            event.stop()
            event.prevent_default()
            self.move(to)

    def on_click(self, event: events.Click) -> None:
        """Choose the row under the pointer."""
        self.move(int(event.y + self.scroll_offset.y))

    def columns(self) -> list[Column]:
        """Return the columns for this width; the course, and the error where it is shown, share what is left."""
        room = self.app.size.width
        shown = [column for column in COLUMNS if room >= column.least]
        left = room - 1 - sum(column.width + 2 for column in shown) + 2  # a column is the scrollbar's
        wide = {"course": left}
        if shown[-1].name == "error":
            longest = max((len(track.line.course) for track in self.tracks), default=0)
            wide = {"course": max(0, min(left, longest - shown[0].width))}
            wide["error"] = left - wide["course"]
        return [replace(column, width=max(8, column.width + wide.get(column.name, 0))) for column in shown]

    def head(self) -> Text:
        """Return the headings."""
        found = [
            f"{column.heading(self.interval):>{column.width}}" if column.name in NUMBERS
            else set_cell_size(column.heading(self.interval), column.width) for column in self.columns()
        ]  # fmt: skip
        return Text("  ".join(found).rstrip(), style="bold", no_wrap=True, overflow="crop")

    def render_line(self, y: int) -> Strip:
        """Draw a row."""
        row = y + self.scroll_offset.y
        if row >= len(self.tracks):
            return Strip.blank(self.size.width)
        track = self.tracks[row]
        base = CURSOR if track.line.course == self.chosen and self.has_focus_within else Style()
        pieces: list[Segment] = []
        for column in self.columns():
            text, style = self.cell(track, column)
            text = f"{text:>{column.width}}" if column.name in NUMBERS else set_cell_size(text, column.width)
            pieces += [Segment(text, base + style), Segment("  ", base)]
        return Strip(pieces).adjust_cell_length(self.size.width, base)

    def cell(self, track: Track, column: Column) -> tuple[str, Style]:
        """Return the text of a cell and its colour. Without an answer nothing is known of now."""
        name, line = column.name, track.line
        if name == "course":
            return shortened(visible(line.course), column.width), Style()
        if name == "error":
            at = f"{track.error_at:%H:%M} " if track.error_at else ""
            return shortened(visible(f"{at}{track.error}"), column.width) if track.error else "–", Style()
        if name in ("lags", "rates"):
            values = list(track.lags if name == "lags" else track.rates)[-column.width :]
            (drawn,) = chart(values, max(LEAST_TOP, *(value or 0 for value in values), 0))
            return f"{drawn:<{len(values)}}".replace(" ", GAP).rjust(column.width), Style()
        if name == "state":
            state = line.state if self.is_known else "unknown"
            mark, color = marked("state", state)
            return f"{mark} {state}", Style.parse(color)
        if not self.is_known:
            return "–", Style()
        if name == "rate":
            return "–" if track.rate is None else f"{track.rate:,.0f}", Style()
        value = getattr(line, name)
        return human(name, value), Style.parse(marked(name, value)[1] or "none")


class Reading(Screen[None]):
    """A page over the table: details, a comparison, help."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, "app.pop_screen", priority=True) for key in ("escape", "q", "enter", "question_mark")
    ]

    def __init__(self, title: str, content: Text) -> None:
        super().__init__()
        self.heading, self.content = title, content

    def compose(self) -> ComposeResult:
        """Make the page."""
        yield Static(Text(self.heading, style="bold"))
        with VerticalScroll():
            yield Static(self.content)
        yield Static(Text("Esc back · ↑ ↓ scroll", style="dim"))


class Top(App[int]):
    """The whole screen."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    * { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    Screen { background: ansi_default; color: ansi_default; }
    #head, #fleet { text-wrap: nowrap; text-overflow: ellipsis; }
    #detail { height: 3; }
    #filter { height: 1; border: none; padding: 0; background: ansi_default; }
    Courses { height: 1fr; }
    VerticalScroll { height: 1fr; }
    """
    # With priority, so that keys act in the order in which they came, however fast; see check_action.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, priority=True) for key, action in (
            ("space", "pause"), ("s", "sort"), ("slash", "filter"), ("t", "servers"), ("enter", "details"),
            ("v", "verify"), ("c", "canary"), ("question_mark", "help"), ("q", "leave"), ("escape", "clear"),
            ("ctrl+c", f"end({INTERRUPTED})"), ("ctrl+q", "end(0)"), ("ctrl+z", "suspend_process"),
        )
    ]  # fmt: skip

    def __init__(self, run: Run, interval: float, first: Seen) -> None:
        if run.color is When.never:
            os.environ["NO_COLOR"] = "1"
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.run_options, self.interval = run, interval
        self.board, self.seen = Board(), first
        self.order, self.wanted, self.notice = SORTS[0], "", ""
        self.is_paused = False
        self.asked_at: float | None = None  # since when a look waits for its answer
        self.watcher: threading.Thread | None = None
        self.working: str | None = None  # what a key has asked for and is not done yet
        self.wake = threading.Event()
        self.add(first)

    def shown(self) -> int:
        """Show the screen until a key or a signal ends it; return the exit code."""
        with textual_streams():
            code = self.run()
        if self._exception is not None:  # a bug of ours: reported like any other
            raise self._exception
        return (code or 0) or (3 if self.board.silent_since else 0)

    def _fatal_error(self) -> None:
        """End after a bug. Textual itself would print the variables of every function, passwords too."""
        self._close_messages_no_wait()

    def compose(self) -> ComposeResult:
        """Make the parts of the screen."""
        self.courses = Courses(self.interval)
        self.head, self.fleet, self.titles = Static(id="head"), Static(id="fleet"), Static()
        self.detail = Static(id="detail")
        self.field, self.keys = Input(placeholder="filter", id="filter"), Static()
        self.field.display = False
        yield from (self.head, self.fleet, self.titles, self.courses, self.detail, self.field, self.keys)

    def on_mount(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
            loop.add_signal_handler(number, self.action_end, code)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        self.courses.focus()
        self.draw()
        self.set_interval(1.0, self.tick)
        self.begin_to_look()

    def on_resize(self) -> None:
        """Use the new width."""
        self.draw()

    # --- looks ----------------------------------------------------------------------------------------------------

    def begin_to_look(self) -> None:
        """Look in a thread from now on; one that still waits is abandoned."""
        self.asked_at = None
        self.watcher = threading.Thread(target=self.watch_portal, daemon=True)
        self.watcher.start()

    def watch_portal(self) -> None:
        """Look again and again."""
        while threading.current_thread() is self.watcher:
            self.wake.wait(self.interval)
            self.wake.clear()
            if self.is_paused:
                continue
            self.asked_at = time.monotonic()
            found: Seen | AdminError
            try:
                found = look(self.run_options)
            except AdminError as exc:
                found = exc
            except Exception as exc:  # a server that stops in the middle of an answer says so in many ways
                found = UnreachableError(f"the look failed: {type(exc).__name__}", why=str(exc))
            if threading.current_thread() is self.watcher:
                self.asked_at = None
                self.post_message(Looked(found))

    def tick(self) -> None:
        """Show the time; where an answer is very late, that nothing is known of now."""
        late = self.late()
        if late > SILENT_SECONDS and not self.board.silent_since:
            self.board.miss(f"no answer for {late:.0f} s", datetime.now().astimezone())
            self.draw()
        if late > LOST_SECONDS:
            self.begin_to_look()
        self.draw_head()

    def late(self) -> float:
        """Return for how many seconds a look waits for its answer."""
        began = self.asked_at
        return time.monotonic() - began if began else 0.0

    def on_looked(self, message: Looked) -> None:
        """Show what was seen, or that there was no answer; an answer that comes in a pause is not shown."""
        if self.is_paused:
            return
        if isinstance(message.found, Seen):
            self.seen = message.found
            self.add(message.found)
        else:
            why = ": ".join(filter(None, (message.found.message, message.found.why)))
            self.board.miss(why, datetime.now().astimezone())
        self.draw()

    def add(self, seen: Seen) -> None:
        """Add a look to the board."""
        self.board.add(seen.whole.courses, seen.rows, seen.at, seen.clock)

    # --- drawing --------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw everything."""
        self.courses.fill(self.board.sorted(self.order, self.wanted), is_known=self.board.silent_since is None)
        self.titles.update(self.courses.head())
        self.draw_servers(self.draw_head())
        self.draw_detail()

    def draw_servers(self, head: int) -> None:
        """Draw the tree of the servers in what the `head` lines leave: the courses keep half of it, if they need it."""
        left = self.size.height - head - 7  # headings, a blank line, the chosen course, the keys
        room = max(left // 2 + 1, left - len(self.courses.tracks))
        rows = drawn(self.servers(), room=room) if left >= TREE_LEFT and self.size.width >= TREE_WIDTH else []
        self.fleet.display = bool(rows)
        if rows:
            self.fleet.update(cut([*self.tree_text(rows).split("\n"), Text()]))

    def servers(self) -> list[Hop]:
        """Return the servers. Without an answer nothing is known of now."""
        if self.board.silent_since is None:
            return self.seen.whole.servers
        return [
            replace(
                hop, state="unknown", lag_bytes=None, lag_seconds=None, hop_seconds=None, reason="the portal is silent",
                fix=None,
            ) for hop in self.seen.whole.servers
        ]  # fmt: skip

    def tree_text(self, rows: list[Row]) -> Text:
        """Return the tree as a table of this width."""
        if any(len(row["state"] or "") > self.size.width // 2 for row in rows):  # a long name, which is above it
            rows = [{**row, "state": row["state"] and row["state"].partition(" ")[0]} for row in rows]
        names = [name for name in TREE if name != "lag_bytes" or self.size.width >= WIDE_TREE]
        page = Page()
        table(replace(self.run_options, quiet=True), page, rows, names)
        return Text.from_ansi(visible(page.getvalue().rstrip("\n"), colours=True))

    def draw_head(self) -> int:
        """Draw what is known of the portal, its time, and whether that is of now; return the number of lines."""
        lines = [Text(self.seen.whole.title, style="bold")]
        if self.board.silent_since:
            lines += self.silence()
        else:
            rate = self.board.rows_per_second
            written = "" if rate is None else f" · {rate:,.0f} rows/s"
            lines.append(Text(f"{self.seen.whole.size}{written}"))
            count = Counter(track.line.state for track in self.board.tracks.values())
            states = [
                (f"{each.mark} {each.name} {count[each.name]}", each.color) for each in STATES if count[each.name]
            ]
            lines.append(Text("  ").join(Text(words, style=color) for words, color in states) or Text("no courses yet"))
            lines += [
                Text(f"✗ {fault.words}", style="bold red") for fault in self.seen.whole.faults if fault.course is None
            ][:1]
            lines.append(self.clock())
        self.head.update(cut(lines))
        wide = self.size.width >= len(KEYS)
        self.keys.update(Text(KEYS if wide else SHORT_KEYS, style="dim", no_wrap=True, overflow="ellipsis"))
        return len(lines)

    def silence(self) -> list[Text]:
        """Return since when the portal gives no answer."""
        since, last = self.board.silent_since, self.board.answered_at
        words = f"✗ the portal is unreachable since {since:%H:%M:%S}; last answer {last:%H:%M:%S}"
        return [Text(words, style="bold red"), Text(visible(self.board.silence).replace("\n", " "), style="red")]

    def clock(self) -> Text:
        """Return the time of what is shown, and how it is ordered."""
        at = f"{self.seen.at:%H:%M:%S}"
        late = self.late()
        wanted = f" · filter: {visible(self.wanted)}" if self.wanted else ""
        if self.is_paused:
            return Text(f"paused: this is of {at}; space goes on{wanted}", style="bold yellow")
        if late > max(LATE_SECONDS, self.interval):
            return Text(f"waiting {late:.0f} s for an answer; this is of {at}{wanted}", style="bold yellow")
        return Text(f"{at}  every {self.interval:g} s · {self.order}{wanted}")

    def draw_detail(self) -> None:
        """Draw why the chosen course is as it is, and the command that helps; or what a key has answered."""
        track = self.courses.track
        lines: list[str | Text] = []
        if self.working:
            lines = [f"{self.working} ..."]
        elif self.notice:
            lines = [self.notice]
        elif track and self.board.silent_since is None:
            line = track.line
            lines = [f"{line.course} · {line.target}", *filter(None, (line.reason, line.fix and f"  {line.fix}"))]
            if track.error and line.state == "ok":
                lines.append(f"last error, {track.error_at:%H:%M:%S}: {track.error}")
        texts = [line if isinstance(line, Text) else Text(visible(line).replace("\n", " ")) for line in lines]
        self.detail.update(cut(texts))

    def on_courses_chosen(self) -> None:
        """Show the words of another course."""
        self.notice = ""
        self.draw_detail()

    # --- keys -----------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether a key is one of ours now: not on a page, and not while a filter is typed."""
        del parameters
        if action in ("end", "suspend_process", "pop_screen"):
            return True
        if isinstance(self.screen, Reading):
            return False
        return not (self.focused is self.field and action not in ("clear", "details"))

    def action_leave(self) -> None:
        """End the program."""
        self.exit(0)

    def hang_up(self) -> None:
        """End, also where the terminal is gone: Textual waits for a thread then that reads it again and again."""
        if not os.isatty(0):
            os._exit(TERMINATED)
        self.exit(TERMINATED)

    def action_end(self, code: int) -> None:
        """End the program, and so give the terminal back."""
        self.exit(code)

    def action_pause(self) -> None:
        """Stop looking, or go on at once."""
        self.is_paused = not self.is_paused
        self.wake.set()
        self.draw()

    def action_sort(self) -> None:
        """Sort in the next order."""
        self.order = SORTS[(SORTS.index(self.order) + 1) % len(SORTS)]
        self.draw()

    def action_filter(self) -> None:
        """Ask for a filter."""
        self.field.display = True
        self.screen.set_focus(self.field)

    def action_clear(self) -> None:
        """Remove the filter."""
        self.field.value = ""
        self.close_field()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self.wanted = event.value.strip()
        self.draw()

    def close_field(self) -> None:
        """Go back to the table."""
        self.field.display = False
        self.screen.set_focus(self.courses)
        self.draw()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Reading("rollbook top", Text(HELP)))

    def action_servers(self) -> None:
        """Show every server as it was at the last look."""
        found = self.servers()
        if rows := drawn(found, whole=True):
            content = Text("\n").join([self.tree_text(rows), Text(visible(advice([], found)))])
            self.push_screen(Reading(f"{render.plural(len(found), 'server')}, {self.seen.at:%H:%M:%S}", content))
        else:
            self.notice = "no course server yet"
            self.draw_detail()

    def action_details(self) -> None:
        """Show what `replication show` shows of the course; after a filter, keep that."""
        if self.focused is self.field:
            self.close_field()
        else:
            self.ask("details", self.details)

    def action_verify(self) -> None:
        """Compare the course with the portal."""
        self.ask("verify", self.verify)

    def action_canary(self) -> None:
        """Time a heartbeat on the course's server."""
        self.ask("canary", self.canary)

    def ask(self, what: str, work: Callable[[str], tuple[str, str]]) -> None:
        """Do in a thread what a key has asked for of the chosen course, one at a time."""
        if not self.courses.chosen or self.working:
            return
        course = self.courses.chosen
        self.working = f"{what} {course}"
        self.draw_detail()

        def answer() -> None:
            try:
                title, content = work(course)
            except AdminError as exc:
                title, content = ": ".join(filter(None, (exc.message, exc.why))), ""
            except Exception as exc:
                title, content = f"{what} failed: {type(exc).__name__}: {exc}", ""
            self.post_message(Answered(title, content))

        threading.Thread(target=answer, daemon=True).start()

    def on_answered(self, message: Answered) -> None:
        """Show an answer: a page, or a line."""
        self.working = None
        if message.content:
            content = Text.from_ansi(visible(message.content, colours=True))
            self.push_screen(Reading(visible(message.title), content))
        else:
            self.notice = message.title
        self.draw_detail()

    def details(self, course: str) -> tuple[str, str]:
        """Return the document of `replication show` as a page."""
        from rollbook.replication.commands.replication import shown_parts
        from rollbook.replication.state import describe_course

        with self.run_options.connect() as portal:
            portal.autocommit = True
            found = describe_course(portal, course, self.run_options.caller())
        page = Page()
        render.sections(self.run_options, page, shown_parts(found))
        return course, page.getvalue()

    def verify(self, course: str) -> tuple[str, str]:
        """Compare a course; return a sentence if it is equal, else a page."""
        from rollbook.replication.commands.comparison import FINDINGS, SCREEN, SHOWN, summary
        from rollbook.replication.session import Progress
        from rollbook.replication.verify import start, verify

        notes: list[str] = []
        run = replace(self.run_options, long=True)
        report = start(run, [course], [], resume=False)
        verify(run, report, Progress(lambda _: None, notes.append), with_findings=True)
        self.wake.set()
        if not notes and not report.courses_with("differs", "not_comparable", "unreachable"):
            return f"{course}: {summary(report).strip()}", ""
        page = Page()
        table(run, page, [vars(row) for row in report.rows], list(SCREEN))
        if report.findings:
            page.write("\n")
            table(run, page, [vars(row) for row in report.findings[:SHOWN]], list(FINDINGS))
        page.write("\n" + "".join(f"{note}\n" for note in notes) + summary(report))
        return course, page.getvalue()

    def canary(self, course: str) -> tuple[str, str]:
        """Time a heartbeat; return a sentence."""
        from rollbook.replication.arrivals import time_heartbeat
        from rollbook.replication.link import ANSWER_SECONDS
        from rollbook.replication.selection import selected

        run = self.run_options
        with run.connect() as portal:
            portal.autocommit = True
            placed = selected(portal, [course])
            answers = time_heartbeat(portal, list(placed), run.caller(), run.timeout or ANSWER_SECONDS)
        ((server, found),) = answers.items()
        if isinstance(found, UnreachableError):
            raise found
        words = "it did not arrive in time" if found is None else f"a heartbeat arrived after {found:.4f} s"
        return f"{course}, server {server}: {words}", ""
