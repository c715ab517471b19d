"""Every example of every help page runs against the demo and ends as its help says.

An example that writes gets its own copy of the portal's database, so that what it deletes is there for the next.
Examples that concern the servers run one after the other on the demo itself, whose course server no copy has.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rollbook.system.demo.centre import Centre
from rollbook.tree import every_command
from tests.conftest import in_memory
from tests.django_site import make_tables
from tests.e2e.test_demo import environment, processes, run
from tests.people.discussion_service import KEY, Service, failing
from tests.people.test_oneroster import V11, bundle
from tests.program import PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def examples(command: Any) -> Iterator[str]:
    """Yield the examples of a command and of those below it, without the leading `rollbook`."""
    for child in getattr(command, "commands", {}).values():
        yield from examples(child)
    text = re.sub(r"\[/?dim\]", "", command.epilog or "").replace(r"\[", "[").replace(" \\\n    ", " ")
    found = re.findall(r"^\$ rollbook (.*)$", inspect.cleandoc(text), re.MULTILINE)
    if any("--dry-run" in parameter.opts for parameter in command.params):
        CHANGES.update(example for example in found if not re.search(r" (-n|--dry-run)\b", example))
    yield from found


CHANGES: set[str] = set()  # examples that write
# `top` needs a terminal: tests/core/test_top.py runs it on one.
ALL = [example for noun, command in every_command().items() if noun != "top" for example in examples(command)]
LIVE = re.compile(
    r"(status|check|doctor|metrics|replication|server|course (attach|detach|move|resume)|user (show|report|erase)|demo|"
    r"shape (column|where|apply))\b"
)
MIGRATING = re.compile(r"schema (upgrade|downgrade|adopt)\b")
ENDLESS = re.compile(r"--watch|--follow")

MITX = "MITx/6.002x/2012_Fall"
# Empty databases on the demo's course server, for a relay and what is behind it.
DATABASES = (
    'version && python -c "import psycopg; c = psycopg.connect($EAST, autocommit=True); '
    "[c.execute(f'drop database if exists {n} with (force)') and c.execute(f'create database {n}') "
    "for n in ('hub', 'west')]\""
)
# Pattern of examples -> commands that run first, in the same database.
BEFORE: dict[str, tuple[str, ...]] = {
    r"registration activate --key-stdin": (
        "registration renew bob --show-key --csv --fields activation_key --no-header > key.txt",
    ),
    r"email-change confirm --key-stdin": (
        "email-change create ada ada@example.com --show-key --csv --fields activation_key --no-header > key.txt",
    ),
    r"user password ada --check": ("user password ada --file password.txt",),
    r"discussion activate$|discussion (sync|status|deactivate)": (
        "discussion activate --url $SERVICE --api-key-file discussion.key",
    ),
    r"user unlink": ("user link ada u5", "user link id:42 u5 --source district"),
    r"discussion status": ("discussion sync ada --all",),
    r"discussion discard": (
        "discussion activate --url $BROKEN --api-key-file discussion.key",
        "user update ada --email ada@example.com", "user update id:42 --email forty-two@example.com",
        "discussion sync || true",
    ),
    r"pearson import": ("candidate update ada --phone '20 7946 0001'", "pearson export -o sent"),
    r"enrollment sync-dates": ("user import --oneroster bundle/ --source sis",),
    r"enrollment roster": ("enrollment export --course edX/DemoX/2012_Fall --fields user -o class.csv",),
    r"server (add west|move)": (DATABASES, "server add hub --admin-dsn service=hub --subscription-dsn service=portal"),
    r"server move .*--direct": ("server move east --through hub --subscription-dsn service=hub --yes",),
    r"server add east .*-dsn": (f"course detach {MITX} --yes", "server remove east --yes"),
    r"server remove": (f"course detach {MITX} --yes",),
    r"schema downgrade": ("schema upgrade",),
    r"schema adopt --undo": ("schema adopt --yes",),
    r"shape apply": ("shape show --toml > shape.toml",),
    r"shape column rename": (
        "version && python -c \"import os, psycopg; psycopg.connect(os.environ['ROLLBOOK_DSN'], autocommit=True)"
        ".execute('alter table portal.auth_userprofile drop column if exists pronouns, drop column if exists pronoun, "
        "add pronouns text')\"",
        "shape column add auth_userprofile pronouns",
    ),
    r"history undo 1 ": (
        "version && python -c \"import os, psycopg; psycopg.connect(os.environ['ROLLBOOK_DSN'], autocommit=True)"
        ".execute('truncate rollbook.history restart identity')\"",
        "user update ada --goals 'To undo'",
    ),
    r"course restore": ("course archive edX/DemoX/2012_Fall -o demox.tar.gz --drop --confirm edX/DemoX/2012_Fall",),
    r"course move .*--finish": ("course attach edX/DemoX/2012_Fall --to east",),
}  # fmt: skip
# Pattern of examples on the demo itself -> commands that bring it back to what it was.
AFTER: dict[str, tuple[str, ...]] = {
    r"course attach \S+ --to east$": ("course detach edX/DemoX/2012_Fall --yes",),
    r"shape column drop": ("shape column add auth_userprofile goals",),
    r"shape column rename .*--dry-run": ("shape column drop auth_userprofile pronouns --yes",),
    r"shape column rename \S+ \S+ \S+$": ("shape column drop auth_userprofile pronoun --yes",),
    r"course archive .*--drop|course restore .*--dry-run": ("course restore demox.tar.gz",),
    r"course detach": (f"course attach {MITX} --to east",),
    r"course rename .*--reason": ("course rename edX/DemoX/2013_Spring edX/DemoX/2012_Fall",),
    r"course close \S+$": (f"course open {MITX}",),
    r"course move": ("course detach edX/DemoX/2012_Fall --yes",),
    r"user erase ada --confirm": ("user create ada --email ada@example.org --name 'Ada'",),
    r"replication pause": ("replication resume --server east",),
    r"server add west": ("server remove west --yes", "server remove hub --yes"),
    r"server move .*--through": ("server move east --direct --subscription-dsn service=portal --yes",),
    r"server move": ("server remove hub --yes",),
    r"server add .*--dry-run": ("server add east --admin-dsn service=east --subscription-dsn service=portal",),
    r"server add east .*-dsn": (f"course attach {MITX} --to east",),
    r"server remove east --yes": (
        "server add east --admin-dsn service=east --subscription-dsn service=portal", f"course attach {MITX} --to east",
    ),
}  # fmt: skip
FILES = {
    "users.txt": "ada\nbob\n",
    "leavers.txt": "ada\n",
    "late.txt": "ada\n",
    "gone.txt": "new@example.org\n",
    "addresses.txt": "new@example.org\nnewer@example.org\n",
    "ids.txt": "edXexam000000000001\n",
    "password.txt": "correct horse battery staple\n",
    "survey.key": "a secret of thirty-two characters\n",
    "site.key": "a secret of thirty-two characters\n",
    "discussion.key": KEY + "\n",
    "config.toml": "timeout = 30\n",
    "people.csv": "username,email,name\nnewton,newton@example.org,Isaac Newton\n",
    "members.csv": "group,user\ntesters,id:42\n",
    "seats.csv": "course_id,user\nedX/DemoX/2012_Fall,id:42\n",
    "addresses.csv": "user,email\nada,ada@example.com\n",
    "policy.toml": "[[keep]]\ntable = 'portal.student_testcenteruser'\nreason = 'the law'\n",
    "policy.json": json.dumps({"testcenter_info": {"Final": {
        "Exam_Series_Code": "Final", "Exam_Display_Name": "Final exam",
        "First_Eligible_Appointment_Date": "2013-01-25T00:00", "Last_Eligible_Appointment_Date": "2013-01-26T23:59",
    }}}),
}  # fmt: skip
# Files of one name that differ from command to command.
OTHERS = {
    "allowed": {"addresses.csv": "course_id,email\nedX/DemoX/2012_Fall,newer@example.org\n"},
    "authorization": {"seats.csv": "user,course_id,exam_series_code\nada,edX/DemoX/2012_Fall,Final\n"},
    "candidate": {
        "people.csv": "user,address_1,city,country,phone,phone_country_code\nbob,1 Main St,London,GBR,20 7946 0000,44\n"
    },
}


def prepare(folder: Path, noun: str) -> None:
    """Write the files that the examples of a noun name."""
    for name, text in (FILES | OTHERS.get(noun, {})).items():
        (folder / name).write_text(text)
    bundle(folder / "bundle", V11)
    for name in ("in", "out", "sent"):
        (folder / name).mkdir()


class Demo:
    """A demo that runs, and `seed`, a copy of its portal."""

    def __init__(self, home: Path) -> None:
        self.home, self.numbers = home, itertools.count()
        self.service, self.broken = Service(), Service()
        self.broken.plan = failing(500)

    def database(self, statement: str) -> None:
        """Create or drop a database."""
        with psycopg.connect(f"host={self.home} dbname=postgres user=postgres", autocommit=True) as conn:
            conn.execute(statement.encode())

    def shell(self, line: str, folder: Path, database: str = "portal") -> subprocess.CompletedProcess[str]:
        """Run `rollbook LINE` in a folder as a shell does."""
        more = {
            "ROLLBOOK_DSN": f"host={self.home} port=5432 dbname={database} user=postgres",
            "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": str(folder / "config"), "SERVICE": self.service.url, "BROKEN": self.broken.url,
        }  # fmt: skip
        east = shlex.quote(f"host={self.home}/east port=5432 dbname=courses user=postgres")
        portal = shlex.quote(f"host={self.home} port=5432 dbname=portal user=postgres")
        line = line.replace("/srv/pearson", shlex.quote(str(folder)))
        line = line.replace("/var/lib/node_exporter", shlex.quote(str(folder)))
        line = line.replace("$EAST", repr(f"host={self.home}/east port=5432 dbname=courses user=postgres"))
        for name in ("hub", "west"):
            there = shlex.quote(f"host={self.home}/east port=5432 dbname={name} user=postgres")
            line = line.replace(f"service={name}", there)
        line = line.replace("--to west", "--to east")  # the demo has one server
        line = re.sub("'host=east.example dbname=courses'|service=east", lambda _: east, line)
        line = re.sub("'service=portal'|service=portal", lambda _: portal, line)
        done = subprocess.run(
            ["sh", "-c", f"rollbook {line}"], env=environment(self.home, **more), cwd=folder, capture_output=True,
            text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def fault(self, example: str, folder: Path, database: str = "portal") -> str | None:
        """Run an example, and first what it needs. Return what went wrong; None if nothing."""
        prepare(folder, example.split(maxsplit=1)[0])
        self.every(BEFORE, example, folder, database)
        if sent := sorted((folder / "sent").glob("*.dat")):
            archive = Centre().answer(sent, folder / "answers.zip", datetime.now(UTC))
            (folder / "in" / "answers.zip").write_bytes(archive.read_bytes())
        line = f"{example} --count 1" if ENDLESS.search(example) else example
        if "--listen" in example:
            line += " & sleep 2; kill $!; wait $!"
        done = self.shell(line, folder, database)
        fine = (0, 4) if example.startswith("doctor") else (0,)  # the demo is not a site to sleep well with
        return None if done.returncode in fine else f"{example}: exit {done.returncode}: {done.stdout}{done.stderr}"

    def every(self, lines: dict[str, tuple[str, ...]], example: str, folder: Path, database: str = "portal") -> None:
        """Run what an example needs before it, or after it."""
        for line in (line for pattern, these in lines.items() if re.match(pattern, example) for line in these):
            done = self.shell(line, folder, database)
            assert done.returncode == 0, f"{line}: exit {done.returncode}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with tempfile.TemporaryDirectory(prefix="rbx", dir=in_memory() or "/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        demo = Demo(Path(folder) / "d")
        try:
            up = demo.shell("demo up", Path("/"))
            assert up.returncode == 0, up.stderr
            demo.database("alter system set fsync = off")
            demo.database("select pg_reload_conf()")
            demo.database("alter database portal allow_connections false")
            demo.database("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = 'portal'")
            for name in ("seed", "reader"):
                demo.database(f"create database {name} template portal")
            demo.database("alter database portal allow_connections true")
            assert demo.shell("replication wait --timeout 60", Path("/")).returncode == 0  # its stream was cut
            yield demo
        finally:
            run(demo.home, "demo", "down")
            for pid in processes(demo.home.parent):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("example", [example for example in ALL if not LIVE.match(example)])
def test_an_example_runs_on_a_copy_of_the_demo(example: str, demo: Demo, tmp_path: Path) -> None:
    database = "reader"
    if example in CHANGES or MIGRATING.match(example) or any(re.match(pattern, example) for pattern in BEFORE):
        database = f"copy_{next(demo.numbers)}"
        # A portal that feeds a course server is not downgraded.
        template = "template0" if MIGRATING.match(example) else "seed"
        demo.database(f"create database {database} template {template} strategy file_copy")
    if example.startswith("schema adopt"):
        make_tables(f"host={demo.home} port=5432 dbname={database} user=postgres")
    fault = demo.fault(example, tmp_path, database)
    assert fault is None, fault
    if database != "reader":
        demo.database(f"drop database {database} with (force)")


def test_the_examples_about_servers_run_on_the_demo(demo: Demo, tmp_path: Path) -> None:
    faults = []
    for number, example in enumerate(example for example in ALL if LIVE.match(example)):
        folder = tmp_path / str(number)
        folder.mkdir()
        faults.append(demo.fault(example, folder))
        demo.every(AFTER, example, folder)
    assert [fault for fault in faults if fault] == []
