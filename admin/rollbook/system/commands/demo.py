"""`rollbook demo`: the main job on a private server, to watch and to break."""

import io
import shlex
import shutil
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from rollbook.core import render
from rollbook.core.command import Format, Run, command
from rollbook.core.errors import RefusedError
from rollbook.core.nouns import noun
from rollbook.core.progress import progress
from rollbook.replication.commands import comparison, placement, server
from rollbook.testcentre.commands import authorization, candidate, pearson

if TYPE_CHECKING:
    from rollbook.system.demo.platform import Platform

app = noun("demo")

NEXT = """
Next, in this shell:
{path}  export ROLLBOOK_DSN={dsn}
  rollbook status                     every course on one screen
  rollbook user show {username:<17}one student, and the copies in each course
  rollbook demo break                 damage a course; then: rollbook replication verify
  rollbook demo down                  stop it and delete its files
"""
BROKEN = ("course", "table", "damage", "row_id")
EXITS = "0 done, 1 refused, 3 the server does not start"


def running() -> "Platform":
    """Return the demo's platform. Raises RefusedError if it does not run."""
    from rollbook.system.demo.platform import Platform

    platform = Platform()
    if not platform.server.is_running():
        raise RefusedError("the demo does not run", fix="rollbook demo up")
    return platform


@command(app, "up", long=True, examples=("demo up", "demo up --quiet"), exits=EXITS, see="rollbook demo down")
def up(run: Run) -> None:
    """Start two private servers, create a portal and five courses, load 1,200 students, and show one change."""
    from rollbook.system.demo.platform import COURSES, LATE, Platform

    began = time.monotonic()
    platform = Platform()
    release = platform.start()
    render.text(run, f"✓ PostgreSQL {release} on a socket in {platform.server.home}, schema at the head\n")
    platform.create_courses(late=False)
    students, enrollments = loaded(run, platform)
    render.text(
        run, f"✓ {len(COURSES) - 1} courses; {students} students and {enrollments} enrollments loaded by COPY\n"
    )
    platform.create_courses(late=True)
    with run_on(run, platform).connect() as conn:
        from rollbook.replication.queries.courses import find_course

        late = find_course(conn, LATE)
    render.text(run, f"✓ {LATE} created afterwards: its {late.copied_users} enrolled students were copied\n\n")

    who, statement, seen = platform.change_a_user()
    render.text(
        run, f"{who['name']} is in three courses and gets a new e-mail address, in the portal:\n\n  {statement};\n\n"
    )
    render.text(run, "In the courses, in the same commit:\n\n")
    as_table = shown(run)
    rows = [{**row, "email": row["email"] or "(not enrolled: no copy)"} for row in seen]
    render.rows(as_table, rows, ("course", "email"))
    move_a_course(run, platform, who)
    to_the_test_centre(run, platform)
    render.text(run, "\nEvery copy against the portal:\n\n")
    comparison.verify(Run(**{**vars(run_on(as_table, platform)), "fields": "course,table,course_rows,verdict"}))
    programs = Path(sys.executable).parent
    found = shutil.which("rollbook") == str(programs / "rollbook")
    path = "" if found else f'  export PATH={shlex.quote(str(programs))}:"$PATH"\n'
    render.text(run, NEXT.format(path=path, dsn=shlex.quote(platform.dsn), username=who["username"]))
    render.note(run, f"({time.monotonic() - began:.1f} s)")


def move_a_course(run: Run, platform: "Platform", who: "render.Row") -> None:
    """Put a course on a second server with the commands that a DBA would use, and watch a change arrive there."""
    from rollbook.system.demo.platform import MOVED

    platform.start_east()
    render.text(run, f"\nOne machine is not enough any more: a second server, in {platform.east.home}\n\n")
    at_portal = Run(**{**vars(run_on(shown(run), platform)), "quiet": True})
    render.text(run, "  rollbook server add east --admin-dsn 'host=...' --subscription-dsn 'host=...'\n")
    with redirect_stdout(io.StringIO()):
        server.add(at_portal, "east", platform.east_dsn, platform.dsn)
    render.text(run, f"  rollbook course attach '{MOVED}' --to east\n\n")
    placement.attach(at_portal, [MOVED], "east")
    now = who["email"]
    then = now.replace(".new@", "@") if ".new@" in now else now.replace("@", ".new@")
    statement, seconds = platform.change_there(who, then)
    render.text(run, f"\n{who['name']} gets the old address back, in the portal:\n\n  {statement};\n\n")
    arrived = "did not reach server east within 10 s" if seconds is None else (
        f"was on server east {seconds * 1000:.1f} ms after the commit"
    )  # fmt: skip
    render.text(run, f"The change {arrived}.\n")


def to_the_test_centre(run: Run, platform: "Platform") -> None:
    """Exchange files with a simulated test centre: sent, answered, one rejected, corrected, sent again."""
    from datetime import UTC, datetime, timedelta

    from rollbook.system.demo.centre import Centre
    from rollbook.system.demo.platform import MOVED

    who, centre = platform.exam_takers(), Centre()
    directory = platform.server.home / "pearson"
    quietly = Run(**{**vars(run_on(shown(run), platform)), "quiet": True})
    home = {
        "address_1": "1 Main Street", "city": "Boston", "state": "MA", "postal_code": "02139", "country": "USA",
        "phone_country_code": "1",
    }  # fmt: skip
    today = datetime.now(UTC)

    def exchanged(turn: int) -> None:
        before = set(directory.glob("*.dat"))
        pearson.export(quietly, str(directory))
        sent = sorted(set(directory.glob("*.dat")) - before)
        at = datetime.now(UTC) + timedelta(seconds=turn)
        pearson.import_(quietly, [str(centre.answer(sent, directory / f"answers-{turn}.zip", at))])

    render.text(run, "\nThree students will sit an exam. Files go to a simulated test centre, which answers:\n\n")
    last = who[-1]["username"]
    with redirect_stdout(io.StringIO()):
        for row in who:
            phone = "unknown" if row["username"] == last else "617 555 0100"
            candidate.create(quietly, row["username"], **home, phone=phone)
            authorization.create(
                quietly, row["username"], MOVED, exam="DEMO1", first=today, last=today + timedelta(days=30)
            )
        exchanged(1)
    render.text(run, f"  rollbook candidate create {last} --phone unknown --city Boston ...\n")
    render.text(run, f"  rollbook authorization create {last} '{MOVED}' --exam DEMO1 ...\n")
    render.text(run, "  rollbook pearson export -o pearson\n  rollbook pearson import pearson/answers-1.zip\n")
    render.text(run, "  rollbook pearson report rejected\n\n")
    pearson.report(Run(**{**vars(quietly), "fields": "what,username,message"}), pearson.Report.rejected)
    with redirect_stdout(io.StringIO()):
        candidate.update(quietly, last, phone="617 555 0102")
        exchanged(2)
    render.text(run, f"\n  rollbook candidate update {last} --phone '617 555 0102'\n")
    render.text(run, "\nCorrected, sent and answered again; the files so far, rollbook pearson list:\n\n")
    files = {**vars(quietly), "fields": "kind,rows,accepted,rejected,waiting", "limit": 8}
    pearson.list_(Run(**files))


def loaded(run: Run, platform: "Platform") -> tuple[int, int]:
    """Load the roster with a bar; return how many students and enrollments there are then."""
    with progress(run, "load", 4) as advance:
        platform.load(advance)
    with platform.connect() as conn:
        from rollbook.replication.queries.copies import count_portal

        there = count_portal(conn)
    return there["users"], there["enrollments"]


def run_on(run: Run, platform: "Platform") -> Run:
    """Return the same call, but on the demo's database."""
    return Run(**{**vars(run), "dsn": platform.dsn})


def shown(run: Run) -> Run:
    """Return the same call with tables, also in a pipe: the demo is a show."""
    return Run(**{**vars(run), "format": Format.table})


@command(app, "load", examples=("demo load", "demo load --quiet"), exits=EXITS, see="rollbook demo up")
def load(run: Run) -> None:
    """Load the roster again: add missing students and enrollments, keep the others."""
    students, enrollments = loaded(run, running())
    render.text(run, f"✓ {students} students, {enrollments} enrollments\n")


@command(app, "status", sets=("document",), examples=("demo status", "demo status --json"),
    exits="0 it runs, 1 it does not", see="rollbook status",
)  # fmt: skip
def status(run: Run) -> None:
    """Show whether the demo runs, its directory, and its contents."""
    from rollbook.replication.queries.copies import count_portal

    platform = running()
    with platform.connect() as conn:
        found = {"dsn": platform.dsn, **count_portal(conn)}
    render.document(run, found, lambda out: render.sections(run, out, {"Demo": found}))


@command(app, "break", sets=("data",), columns=BROKEN, examples=("demo break", "demo break --json"),
    exits="0 damaged, 1 the demo does not run", see="rollbook replication verify, rollbook replication repair",
)  # fmt: skip
def break_(run: Run) -> None:
    """Damage one course of the demo as an accident would, so that verify and repair have something to find."""
    platform = running()
    found = platform.break_course()
    render.rows(run, found, BROKEN)
    render.note(
        run,
        f"Next:\n  export ROLLBOOK_DSN={shlex.quote(platform.dsn)}\n"
        "  rollbook replication verify             finds the three rows\n"
        "  rollbook replication repair --dry-run   shows what would be written\n"
        "  rollbook replication repair             asks, and fixes them",
    )


@command(app, "down", examples=("demo down", "demo down --quiet"), exits=EXITS, see="rollbook demo up")
def down(run: Run) -> None:
    """Stop the private servers and delete their files. A second call changes nothing."""
    from rollbook.system.demo.platform import Platform

    platform = Platform()
    home = platform.server.home
    there = home.exists()
    platform.remove()
    render.text(run, f"✓ {home} is deleted, no server runs\n" if there else "the demo does not run; nothing to do\n")
