"""Start a private PostgreSQL with a portal and a course, and a Django site for each; stop and delete all at the end."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import psycopg

from rollbook.system.demo.server import PrivateServer

HERE = Path(__file__).resolve().parent
COURSE, SCHEMA = "edX/DemoX/2012_Fall", "course_edx_demox_2012_fall"
PASSWORD = "correct horse battery"  # noqa: S105 (of an invented person on a private server)

# Whoever serves pages may write rows; whoever migrates owns the tables.
ROLES = "create role portal_site login; create role course_site login"
COURSE_RIGHTS = f"""
alter table {SCHEMA}.auth_user add column reputation integer not null default 0;
grant usage on schema {SCHEMA} to course_site;
grant select on all tables in schema {SCHEMA} to course_site;
grant update on {SCHEMA}.auth_user to course_site;
alter default privileges in schema {SCHEMA} grant select, insert, update, delete on tables to course_site
"""
ADA = f"""
from django.contrib.auth.models import User
from people.models import Enrollment, Profile
ada = User.objects.create_superuser("ada", "ada@example.org", "{PASSWORD}", first_name="Ada")
Profile.objects.create(user=ada, name="Ada King")
Enrollment.objects.create(user=ada, course_id="{COURSE}")
"""


def interrupt(*_: Any) -> NoReturn:
    """Turn a signal into the exception that Ctrl-C raises, so that everything is cleaned up."""
    raise KeyboardInterrupt


def claim(home: Path) -> TextIO:
    """Return the open file whose lock says, until this process ends, that the directory is in use."""
    lock = (home / "lock.new").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    (home / "lock.new").rename(home / "lock")  # which appears locked
    return lock


def remove_left() -> None:
    """Delete what killed runs of this user left: directories whose lock is free, and their servers."""
    for path in Path(tempfile.gettempdir()).glob("rb-django-*/lock"):
        home = path.parent
        with suppress(BlockingIOError, FileNotFoundError):  # in use, or another start deletes it
            if home.lstat().st_uid != os.geteuid():
                continue
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                print(f"  deleting {home}, which a killed run left", flush=True)
                PrivateServer(home / "pg").remove()
                shutil.rmtree(home, ignore_errors=True)


class Example:
    """The server and the sites; `stack` undoes what was done."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rb-django-", ignore_cleanup_errors=True)))
        self.lock = claim(home)
        home.chmod(0o755)  # as root the server runs as nobody
        self.server = PrivateServer(home / "pg")
        stack.callback(self.server.remove)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "ROLLBOOK_", "DJANGO_"))
        }
        self.environment = {
            **kept, "PGHOST": str(self.server.home), "PGDATABASE": "portal", "PYTHONDONTWRITEBYTECODE": "1",
            "ROLLBOOK_LOG_FILE": str(home / "rollbook.log"),
        }  # fmt: skip

    def call(self, *command: str, user: str = "postgres") -> None:
        """Run a program as a role of the database, and show it. What it prints is shown if it fails."""
        shown = (word if "\n" not in word else "..." for word in command[2 if command[1] == "-m" else 1 :])
        print(" ", *shown, flush=True)
        done = subprocess.run(
            command, cwd=HERE, env={**self.environment, "PGUSER": user}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    def rollbook(self, *arguments: str) -> None:
        """Run the program."""
        self.call(sys.executable, "-m", "rollbook", *arguments)

    def django(self, site: str, *arguments: str) -> None:
        """Run a command of a site's, as the role that migrates."""
        self.call(sys.executable, "manage.py", *arguments, "--settings", f"campus.{site}")

    def build(self) -> None:
        """Make the portal, the course, the tables of both sites, and a person."""
        self.server.start()
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute("create database portal")
            conn.execute(ROLES)
        self.rollbook("schema", "upgrade")
        self.rollbook("schema", "django", "--role", "portal_site")
        self.django("portal", "migrate", "--verbosity", "0")
        self.rollbook("course", "create", COURSE, "--without", "last_login")
        with psycopg.connect(self.server.dsn("portal")) as conn:
            conn.execute(COURSE_RIGHTS.encode())
        self.django("course", "migrate", "--verbosity", "0")
        self.django("portal", "shell", "--verbosity", "0", "--command", ADA)

    def serve(self, site: str, port: int) -> str:
        """Start a site as its own login, on the port or a free one; return its URL when it answers."""
        process = subprocess.Popen(
            [sys.executable, "serve.py", site, str(port), "0"], cwd=HERE, text=True, start_new_session=True,
            env={**self.environment, "PGUSER": f"{site}_site"}, stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,  # closed when this process ends, killed too: the site then ends
        )  # fmt: skip
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        port = int((process.stdout.readline() if process.stdout else "") or sys.exit(f"the {site} site did not start"))
        return f"http://127.0.0.1:{port}/"


def main() -> None:
    """Build, serve, wait for Ctrl-C, clean up."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, interrupt)
    try:
        with ExitStack() as stack:
            stack.callback(lambda: [signal.signal(number, signal.SIG_IGN) for number in signals])
            remove_left()
            example = Example(stack)
            example.build()
            portal, course = example.serve("portal", 8000), example.serve("course", 8001)
            stack.callback(lambda: [signal.signal(number, signal.SIG_IGN) for number in signals])
            print(f"\nPortal  {portal}  (admin: {portal}admin/)\nCourse  {course}\n", flush=True)
            print(f"Log in as ada, password: {PASSWORD}\nCtrl-C stops both sites and deletes all of it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("stopped; nothing is left", flush=True)


if __name__ == "__main__":
    main()
