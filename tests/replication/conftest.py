"""Where the tests of course servers start: a portal, a second PostgreSQL server, and a stream between them.

The servers are made once for the run; each test has databases of its own on both, and leaves no slot behind.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from rollbook import cli
from rollbook.core.progress import Reporter
from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.conftest import FAST, Cluster, in_memory
from tests.databases import Databases
from tests.program import KEEP, KEEP_SCHEMA, PROGRAM, REMOVE, REMOVE_SCHEMA, Result, environment
from tests.school import database as portal_database
from tests.school import populate

Db = Connection[Any]
SCHEMAS = {KEEP: KEEP_SCHEMA, REMOVE: REMOVE_SCHEMA}

# Whether the slots of this database are read; the cluster may have those of other sites as well.
ACTIVE = "select active from pg_replication_slots where database = current_database()"

# A worker that failed or lost its connection is started again after this long; five seconds are the default.
QUICK = {"wal_retrieve_retry_interval": "100ms"}


@contextmanager
def private_server(settings: dict[str, str], **how: Any) -> Iterator[PrivateServer]:
    """Start a server in a folder of its own and take it away in the end."""
    with tempfile.TemporaryDirectory(prefix="rb-test-", dir=in_memory(), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(Path(folder) / "pg", settings=settings, **how)
        server.start()
        try:
            yield server
        finally:
            server.remove()


@pytest.fixture(scope="session")
def course_server() -> Iterator[PrivateServer]:
    """A second PostgreSQL server, which holds courses."""
    with private_server({**FAST, **QUICK}) as server:
        yield server


@pytest.fixture(scope="session")
def course_databases(course_server: PrivateServer) -> Databases:
    """Its databases: empty, until a test has courses there."""
    return Databases(course_server, "template0")


@dataclass
class Site:
    """A portal and the database of one course server, with a session on each and the program between them."""

    portal: Db
    portal_dsn: str
    server: Db
    server_dsn: str
    call: Callable[..., Result]
    name: str = "east"

    def run(self, *arguments: str) -> Result:
        """Run the program in process on the portal."""
        return self.call(*arguments, "-d", self.portal_dsn)

    def ok(self, *arguments: str) -> Result:
        """Run the program, which must succeed."""
        result = self.run(*arguments)
        assert result.code == 0, (arguments, result)
        return result

    def add(self) -> Result:
        """Add the course server."""
        return self.ok("server", "add", self.name, "--admin-dsn", self.server_dsn,
                       "--subscription-dsn", self.portal_dsn)  # fmt: skip

    def attach(self, *courses: str) -> Result:
        """Put courses on the server."""
        return self.ok("course", "attach", *courses, "--to", self.name)

    def wait(self) -> None:
        """Return once the server has all that the portal has committed."""
        self.ok("replication", "wait", "--timeout", "20")

    def states(self) -> dict[str, str]:
        """The state of each course, as `replication status` says."""
        return {row["course"]: row["state"] for row in self.run("replication", "status", "--json").data}

    def copy(self, course: str, table: str = "auth_user", *, on: Db | None = None) -> list[tuple[Any, ...]]:
        """All rows of a copy, its replicated columns alone, on the server unless told otherwise."""
        columns = self.portal.execute("select rollbook.replicated_columns(%s)", [table]).fetchone()
        assert columns is not None
        names = sql.SQL(", ").join(sql.Identifier(name) for name in columns[0])
        query = sql.SQL("select {} from {} order by id").format(names, sql.Identifier(SCHEMAS[course], table))
        return (on or self.server).execute(query).fetchall()

    def is_equal(self, course: str) -> bool:
        """Say whether the server holds exactly what the portal's copy holds."""
        return all(
            self.copy(course, table) == self.copy(course, table, on=self.portal)
            for table in ("auth_user", "auth_userprofile", "student_courseenrollment")
        )

    def at(self, name: str) -> Db:
        """The session with a server."""
        assert name == self.name
        return self.server

    def as_worker(self, statement: str, *parameters: Any, at: str | None = None) -> None:
        """Write on a server past the guards, as an accident would; of two in a deadlock, apply goes on."""
        conn = self.at(at or self.name)
        for _ in range(20):
            with suppress(psycopg.errors.DeadlockDetected), conn.transaction():
                conn.execute("set local session_replication_role = replica")
                conn.execute("set local deadlock_timeout = '20ms'")  # who looks first is the one to give way
                conn.execute(statement.encode(), parameters)
                return
        raise AssertionError(f"a deadlock each time: {statement}")

    def remains(self) -> list[str]:
        """What Rollbook has left on either side: slots, publications, subscriptions, origins, schemas, the role."""
        found = [
            f"portal {kind} {row[0]}"
            for kind, query in (
                ("slot", "select slot_name from pg_replication_slots"),
                ("publication", "select pubname from pg_publication"),
                ("server", "select name from rollbook.server"),
                ("course", "select course_id from rollbook.course where server is not null or state <> 'ok'"),
            )
            for row in self.portal.execute(query.encode())
        ]
        found += [
            f"server {kind} {row[0]}"
            for kind, query in (
                ("subscription", "select subname from pg_subscription s join pg_database d on d.oid = s.subdbid "
                                 "where d.datname = current_database()"),
                ("origin", "select roname from pg_replication_origin"),
                ("schema", "select nspname from pg_namespace where nspname not like 'pg\\_%' "
                           "and nspname not in ('public', 'information_schema')"),
            )
            for row in self.server.execute(query.encode())
        ]  # fmt: skip
        return found


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the program in process."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
        capsys.readouterr()
        code = cli.run(list(arguments))
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


@contextmanager
def database(server: PrivateServer) -> Iterator[str]:
    """Make an empty database, yield its conninfo, and drop it with whatever subscription it has."""
    name = f"c_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    try:
        yield server.dsn(name)
    finally:
        with psycopg.connect(server.dsn(name), autocommit=True) as conn:
            drop_subscriptions(conn)
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def drop_subscriptions(conn: Db) -> None:
    """Drop the subscriptions of a database, not their slots."""
    conn.execute("set statement_timeout = '60s'")  # whatever a failed test has left
    query = "select subname from pg_subscription s join pg_database d on d.oid = s.subdbid where d.datname = %s"
    for (name,) in conn.execute(query, [conn.info.dbname]).fetchall():
        subscription = sql.Identifier(name)
        conn.execute(sql.SQL("alter subscription {} disable").format(subscription))
        conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
        conn.execute(sql.SQL("drop subscription {}").format(subscription))


def drop_slots(conn: Db) -> None:
    """Drop all slots of a database; their readers are gone, or about to go."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        left = conn.execute(
            "select slot_name, active_pid from pg_replication_slots where database = current_database()"
        ).fetchall()
        if not left:
            return
        for name, reader in left:
            if reader is not None:
                conn.execute("select pg_terminate_backend(%s)", [reader])
            else:
                with suppress(psycopg.errors.ObjectInUse):  # its reader came back meanwhile
                    conn.execute("select pg_drop_replication_slot(%s)", [name])
        time.sleep(0.02)
    raise AssertionError(f"slots stay: {left}")


@pytest.fixture
def site(
    school: Db, dsn: str, course_server: PrivateServer, course_databases: Databases, call: Callable[..., Result]
) -> Iterator[Site]:
    """A portal with the small platform of `populate`, and an empty database on a second server; no stream yet."""
    with ExitStack() as stack:
        server = stack.enter_context(course_databases.lent())
        where = course_server.dsn(server.info.dbname)
        stack.callback(drop_slots, school)
        stack.callback(drop_subscriptions, server)
        yield Site(school, dsn, server, where, call)


@pytest.fixture
def streaming(site: Site) -> Site:
    """The same with the server added and both courses attached."""
    site.add()
    site.attach(KEEP, REMOVE)
    return site


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition; fail loudly if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def older_bindir() -> Path | None:
    """The programs of an older PostgreSQL than the one under test, to upgrade from; None if there is none."""
    debian = Path("/usr/lib/postgresql/15/bin")
    if os.environ.get("PG_BINDIR"):
        return None
    return debian if (debian / "initdb").exists() else None


class Standing:
    """A portal and its stream that the tests of one file share, as making one takes two seconds for each.

    A test gets it healthy: where one before has failed half-way, it is made anew.
    """

    def __init__(self, cluster: Cluster, template: str, server: PrivateServer) -> None:
        self.cluster, self.template, self.server = cluster, template, server
        self.stack = ExitStack()
        self.now: Site | None = None

    def site(self, call: Callable[..., Result]) -> Site:
        """The shared site, with both courses of `populate` attached and equal, for a test that calls as `call` does."""
        if self.now is not None and not self.is_healthy(self.now):
            self.close()
        if self.now is None:
            self.now = self.made(call)
        self.now.call = call
        return self.now

    def made(self, call: Callable[..., Result]) -> Site:
        """A new one."""
        name = f"p_{uuid.uuid4().hex[:10]}"
        where = self.stack.enter_context(portal_database(self.cluster, name, self.template))
        portal = self.stack.enter_context(psycopg.connect(where, autocommit=True))
        there = self.stack.enter_context(database(self.server))
        server = self.stack.enter_context(psycopg.connect(there, autocommit=True))
        for side in (portal, server):
            side.execute("set statement_timeout = '20s'")  # whatever a test locks itself out of
        site = Site(portal, where, server, there, call)

        def leave() -> None:
            drop_subscriptions(site.server)
            drop_slots(site.portal)
            site.portal.close()  # which a test may have opened anew

        self.stack.callback(leave)
        populate(portal)
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):  # past the ids that are given
            portal.execute(f"alter table portal.{table} alter column id restart with 100000")
        site.add()
        site.attach(KEEP, REMOVE)
        return site

    @staticmethod
    def is_healthy(site: Site) -> bool:
        """Say whether the last test left all well."""
        streams = "select count(*) from pg_subscription where subenabled and subslotname = 'rollbook_east'"
        courses = (
            "select count(*) filter (where c.state = 'ok' and s.paused_at is null), count(*) "
            "from rollbook.course_status as c left join rollbook.server as s on s.name = c.server"
        )
        try:
            return (
                site.server.execute(streams).fetchone() == (1,)
                and site.run("replication", "wait", "--timeout", "5").code == 0
                and site.portal.execute(courses).fetchone() == (2, 2)
                and site.is_equal(KEEP) and site.is_equal(REMOVE)
            )  # fmt: skip
        except psycopg.Error:
            return False

    def close(self) -> None:
        """Take it away."""
        self.now = None
        self.stack.close()


@pytest.fixture(scope="module")
def standing(cluster: Cluster, template: Any, course_server: PrivateServer) -> Iterator[Standing]:
    """What `shared` hands to each test of a file."""
    held = Standing(cluster, template.template_dbname, course_server)
    yield held
    held.close()


@pytest.fixture
def shared(standing: Standing, call: Callable[..., Result]) -> Site:
    """A site with both courses attached and equal, which the tests of one file share."""
    return standing.site(call)


def remedy(site: Site, fix: str) -> Result:
    """Run the command that the program printed as the way out, and say yes where it asks."""
    program, *words = shlex.split(fix)
    assert program == "rollbook", fix
    asks = ["--yes"] if words[1] in ("repair", "resync", "detach") else []
    return site.run(*words, *asks)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No work may count more items than it announced, whatever the test is about."""
    beyond: list[str] = []
    count = Reporter.__call__

    def counts(reporter: Reporter, items: int) -> None:
        count(reporter, items)
        done, total = reporter.pace.items, reporter.pace.total
        if total is not None and done > total:
            beyond.append(f"{done}/{total}")

    monkeypatch.setattr(Reporter, "__call__", counts)
    yield
    assert beyond == []


@pytest.fixture(scope="session", autouse=True)
def prompt(cluster: Cluster) -> None:
    """A WAL sender sends what was flushed: let the portal flush at commit, as real ones do, not 200 ms later."""
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as conn:
        conn.execute("alter system set synchronous_commit = 'on'")
        conn.execute("select pg_reload_conf()")


@contextmanager
def started(site: Site, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program as a process of its own, which does not outlive the block."""
    with subprocess.Popen(
        [PROGRAM, *arguments, "-d", site.portal_dsn], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def waits_for(blocker: Db, side: Db) -> bool:
    """Say whether a session of the program waits there for what another session holds."""
    query = (
        "select from pg_stat_activity where starts_with(application_name, 'rollbook ') "
        "and %s = any (pg_blocking_pids(pid))"
    )
    return side.execute(query, [blocker.info.backend_pid]).fetchone() is not None


def settled(site: Site) -> list[str]:
    """What `Site.remains` says once first copies have ended: until then each has an origin, and may have a slot."""
    unready = "select from pg_subscription_rel where srsubstate <> 'r'"
    until(lambda: site.server.execute(unready).fetchone() is None)
    return site.remains()


# --- servers of a test's own: to stop, copy, restore and upgrade ------------------------------------------------------


@dataclass
class Own(Site):
    """A site whose portal, and perhaps whose course server, is a PostgreSQL server of the test's own."""

    here: PrivateServer = field(kw_only=True)
    there: PrivateServer = field(kw_only=True)

    def again(self) -> None:
        """Start what is down and connect anew."""
        for server in (self.here, self.there):
            server.start()
        self.portal.close()
        self.server.close()
        self.portal = psycopg.connect(self.portal_dsn, autocommit=True)
        self.server = psycopg.connect(self.server_dsn, autocommit=True)


def copied(data: Path, to: PrivateServer) -> None:
    """Put the data directory of a stopped server, or a backup, in the place of another server's."""
    if not to.home.exists():
        to._make_home()
    to.stop("immediate")
    shutil.rmtree(to.data, ignore_errors=True)
    subprocess.run(["cp", "-a", str(data), str(to.data)], check=True)
    settings = {**to.settings, "unix_socket_directories": str(to.home)}
    with (to.data / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def new_ids(site: Site) -> None:
    """Let the portal's own ids begin behind those that `populate` chose."""
    for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
        found = site.portal.execute(f"select greatest(1000, max(id) + 1) from portal.{table}".encode()).fetchone()
        assert found is not None
        site.portal.execute(f"alter table portal.{table} alter column id restart with {found[0]}".encode())


@pytest.fixture(scope="module")
def seeds() -> Iterator[tuple[Path, Path]]:
    """The data directories of a portal with the platform of `populate`, and of an empty course server."""
    with (
        private_server({**FAST, "max_prepared_transactions": "4"}) as portal,
        private_server({**FAST, **QUICK, "wal_receiver_status_interval": "1"}) as server,
    ):
        for each in (portal, server):
            with psycopg.connect(each.dsn(), autocommit=True) as conn:
                conn.execute("create database site template template0")
        schema.upgrade(portal.dsn("site"))
        with psycopg.connect(portal.dsn("site"), autocommit=True) as conn:
            populate(conn)
        portal.stop()
        server.stop()
        yield portal.data, server.data


@pytest.fixture
def place() -> Iterator[Callable[..., PrivateServer]]:
    """Make places for servers of a test's own; what stands there is taken away in the end."""
    with ExitStack() as stack:

        def make(data: Path | None = None, bindir: Path | None = None, **settings: str) -> PrivateServer:
            held = tempfile.TemporaryDirectory(prefix="rb-test-", dir=in_memory(), ignore_cleanup_errors=True)
            folder = stack.enter_context(held)
            Path(folder).chmod(0o755)
            server = PrivateServer(Path(folder) / "pg", settings={**FAST, **settings}, bindir=bindir or find_bindir())
            stack.callback(server.remove)
            if data is not None:
                copied(data, server)
                server.start()
            return server

        yield make


@pytest.fixture
def own(
    seeds: tuple[Path, Path], place: Callable[..., PrivateServer], call: Callable[..., Result]
) -> Iterator[Callable[..., Own]]:
    """Make a site of two servers of the test's own; settings are the portal's."""
    made: list[Own] = []

    def make(**settings: str) -> Own:
        here, there = place(seeds[0], **settings), place(seeds[1])
        sessions = [psycopg.connect(server.dsn("site"), autocommit=True) for server in (here, there)]
        site = Own(sessions[0], here.dsn("site"), sessions[1], there.dsn("site"), call, here=here, there=there)
        new_ids(site)
        made.append(site)
        return site

    yield make
    for site in made:
        site.portal.close()
        site.server.close()
