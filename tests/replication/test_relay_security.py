"""Attacks with all that a course server behind a relay has, on servers that are set up as docs/relay.md has it.

Portal, two relays and a course server are clusters of their own, with passwords and TCP. A machine is an address of the
loopback network; a `Way` carries what one machine sends to another, as PostgreSQL does not choose its own address. The
login of a server without a relay is the control: there the same attacks succeed.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, generators, pq

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.conftest import FAST
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, ROOT, Result
from tests.replication.conftest import QUICK, Db, new_ids, private_server, until
from tests.replication.relays import Relayed, schemas
from tests.runbook import section
from tests.school import populate

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

RELAYS, SERVERS = ROOT / "docs" / "relay.md", ROOT / "docs" / "servers.md"
MODES = ("false", "true", "database")  # of replication: SQL, physical, logical
BACKUP = "BASE_BACKUP (LABEL 'x', CHECKPOINT 'fast', MANIFEST 'no')"
SECRET = "pbkdf2-of-bob"  # who is in the other zone alone
PASSWORDS = {name: f"password-of-{name}" for name in ("hub", "dmz", "csrv", "west", "direct", "site")}
DENIED = errors.InsufficientPrivilege


def block(kind: str, heading: str) -> str:
    """Return the block below a heading of the page."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", section(heading, RELAYS), re.MULTILINE | re.DOTALL)
    return str(found)


class Way:
    """Carries connections from the address of one machine to a cluster at another."""

    def __init__(self, source: str, target: str) -> None:
        self.source, self.target = source, target
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.conninfo = f"host=127.0.0.1 port={self.socket.getsockname()[1]} connect_timeout=10"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                one, _ = self.socket.accept()
                threading.Thread(target=self.join, args=(one,), daemon=True).start()

    def join(self, one: socket.socket) -> None:
        with one, suppress(OSError), socket.create_connection((self.target, 5432), 10, (self.source, 0)) as other:
            other.settimeout(None)
            back = threading.Thread(target=self.carry, args=(other, one), daemon=True)
            back.start()
            self.carry(one, other)
            back.join()

    @staticmethod
    def carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def login(self, user: str, database: str, replication: str = "false") -> str:
        """Return the conninfo of somebody who comes this way."""
        password = PASSWORDS.get(user, "unknown")
        return f"{self.conninfo} user={user} password={password} dbname={database} replication={replication}"


def ask(conninfo: str, command: str) -> bytes:
    """Send a command, of the replication protocol perhaps, and return the data that come back. Raises psycopg.Error."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.pgconn.send_query(command.encode())
        results = conn.wait(generators.execute(conn.pgconn))
        assert results[-1].status == pq.ExecStatus.COPY_OUT, results[-1].error_message
        answer = bytearray()
        with suppress(psycopg.ProgrammingError):  # psycopg does not expect a row behind the data
            while isinstance(data := conn.wait(generators.copy_from(conn.pgconn)), memoryview):
                answer += data
        return bytes(answer)


@contextmanager
def decoding(conn: Db, plugin: str = "test_decoding") -> Iterator[Callable[[], str]]:
    """Make a slot; yield what decodes the changes since."""
    conn.execute("select pg_create_logical_replication_slot('spy', %s)", [plugin])
    try:
        yield lambda: str(conn.execute("select array_agg(data) from pg_logical_slot_peek_changes('spy', null, null)")
                          .fetchone())  # fmt: skip
    finally:
        conn.execute("select pg_drop_replication_slot('spy')")


@dataclass
class Network(Relayed):
    """The machines: portal, relay `hub` with server `east`, relay `dmz` of another zone; all are administered."""

    clusters: dict[str, PrivateServer] = field(kw_only=True)
    addresses: dict[str, str] = field(kw_only=True)
    dmz: Db = field(kw_only=True)
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)

    def way(self, source: str, target: str) -> Way:
        """A way from one machine to another."""
        if (source, target) not in self.ways:
            self.ways[source, target] = Way(self.addresses[source], self.addresses[target])
        return self.ways[source, target]

    def lines(self, heading: str, **names: str) -> str:
        """Return lines of pg_hba.conf, with the addresses of this network; PostgreSQL may be built without TLS."""
        found = block("hba", heading).replace("hostssl", "host   ")
        for printed, real in names.items():
            where = {"relay": "192.0.2.20", "server": "198.51.100.30"}.get(printed)
            found = (
                found.replace(f"{where}/32", f"{self.addresses[real]}/32")
                if where
                else re.sub(rf"\b{printed}\b", real, found)
            )
        return found

    def let_in(self, name: str, lines: str) -> None:
        """Give a cluster its pg_hba.conf: these lines, then one that lets in everybody who has a password."""
        cluster = self.clusters[name]
        (cluster.data / "pg_hba.conf").write_text(f"{lines}local all postgres trust\nhost all all all scram-sha-256\n")
        with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
            conn.execute("select pg_reload_conf()")
            until(lambda: conn.execute(
                "select count(*) filter (where error is not null), count(*) from pg_hba_file_rules"
            ).fetchone() == (0, lines.count("\n") + 2))  # fmt: skip

    def passfile(self, name: str, way: Way) -> Path:
        """Put the password of a relay's login at the portal beside the relay's data directory."""
        home = self.clusters[name].home
        path = home / "portal.pgpass"
        path.write_text(f"127.0.0.1:{way.socket.getsockname()[1]}:portal:{name}:{PASSWORDS[name]}\n")
        path.chmod(0o600)
        shutil.chown(path, home.stat().st_uid)
        return path


def execute(conn: Db, statements: str, **names: str) -> None:
    """Run statements of a page one by one, with the names and passwords of this network."""
    for printed, real in names.items():
        statements = re.sub(rf"\b{printed}\b", real, statements)
    for statement in filter(None, map(str.strip, re.sub("--.*", "", statements).split(";"))):
        user = re.match(r"create role (\w+) login", statement)
        conn.execute((statement.replace("...", PASSWORDS[user[1]]) if user else statement).encode())


DATABASES = {"portal": "portal", "hub": "zone", "dmz": "zone", "east": "courses"}


def started(stack: ExitStack, address: str, database: str) -> PrivateServer:
    """Start a cluster with an empty database; one of a relay as the page has it."""
    settings = {
        **FAST, **QUICK, "listen_addresses": address, "max_slot_wal_keep_size": "1GB", "synchronous_commit": "on"
    }  # fmt: skip
    cluster = stack.enter_context(private_server(settings))
    with psycopg.connect(cluster.dsn(), autocommit=True) as conn:
        is_relay = database == "zone"
        execute(conn, block("sql", "Cluster") if is_relay else f"create database {database} template template0")
    if is_relay:
        cluster.stop()
        cluster.start()
    return cluster


@pytest.fixture
def net(call: Callable[..., Result]) -> Iterator[Network]:
    """All set up as the page has it: one course in either zone, and the login of a server without a relay."""
    with ExitStack() as stack:
        prefix = f"127.{random.randrange(1, 255)}.{random.randrange(255)}"
        addresses = {name: f"{prefix}.{10 + number}" for number, name in enumerate([*DATABASES, "north"])}
        clusters = {name: started(stack, addresses[name], database) for name, database in DATABASES.items()}
        dsns = {name: clusters[name].dsn(database) for name, database in DATABASES.items()}
        schema.upgrade(dsns["portal"])
        conns = {name: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for name, dsn in dsns.items()}
        populate(conns["portal"])
        net = Network(
            conns["portal"], dsns["portal"], conns["east"], dsns["east"], call,
            hub=conns["hub"], hub_dsn=dsns["hub"], clusters=clusters, addresses=addresses, dmz=conns["dmz"],
        )  # fmt: skip
        new_ids(net)
        open_portal(net)
        for name in ("hub", "dmz"):
            add_relay(net, name, dsns[name])
        execute(net.dmz, "create database west template template0")
        add_server(net, "east", "hub", dsns["east"], net.way("east", "hub").login("csrv", "zone"))
        add_server(net, "west", "dmz", clusters["dmz"].dsn("west"), net.way("dmz", "dmz").login("west", "zone"))
        net.attach(REMOVE)
        net.ok("course", "attach", KEEP, "--to", "west")
        net.portal.execute("update portal.auth_user set password = %s where username = 'bob'", [SECRET])
        net.wait()
        yield net
        for way in net.ways.values():
            way.close()


def open_portal(net: Network) -> None:
    """Give the portal the logins of both relays, of a server without one, and of a web application."""
    execute(net.portal, "create role site login password '...' in role rollbook_application")
    for name in ("hub", "dmz"):
        execute(net.portal, block("sql", "Login at the portal"), hub=name)
    (grants,) = re.findall(r"```sql\n(create role csrv .*?)```", SERVERS.read_text(), re.DOTALL)
    execute(net.portal, grants, csrv="direct")
    (direct,) = re.findall(r"```\n(hostssl portal .*?)```", SERVERS.read_text(), re.DOTALL)
    direct = direct.replace("hostssl", "host").replace("csrv", "direct")
    net.let_in("portal", "".join([
        net.lines("Login at the portal", relay="hub", server="east"),
        net.lines("Login at the portal", hub="dmz", relay="dmz", server="east"),
        direct.replace("198.51.100.30", net.addresses["north"]),
    ]))  # fmt: skip


def add_relay(net: Network, name: str, dsn: str) -> None:
    """Add a relay; nothing is warned of."""
    way = net.way(name, "portal")
    route = f"{way.conninfo} dbname=portal user={name} passfile={net.passfile(name, way)}"
    added = net.ok("server", "add", name, "--admin-dsn", dsn, "--subscription-dsn", route, "--json")
    assert added.row["base_backup"] is False
    assert added.err == ""
    login = {"hub": "csrv", "dmz": "west"}[name]
    with psycopg.connect(dsn, autocommit=True) as conn:
        execute(conn, block("sql", "Login at the relay"), csrv=login)
    server = {"hub": "east", "dmz": "dmz"}[name]
    net.let_in(name, net.lines("Login at the relay", csrv=login, server=server))


def add_server(net: Network, name: str, relay: str, dsn: str, route: str) -> None:
    """Add a server behind a relay; its password in the catalog is warned of, and nothing else."""
    route = route.replace(" replication=false", "")
    added = net.ok("server", "add", name, "--through", relay, "--admin-dsn", dsn, "--subscription-dsn", route, "--json")
    assert added.row["base_backup"] is False
    assert "contains a password" in added.err
    assert "base backup" not in added.err
    assert "without bound" not in added.err


def test_a_server_behind_a_relay_reaches_nothing_but_its_zone(net: Network) -> None:
    """One test: what it attacks takes ten seconds to set up."""
    nobody_gets_into_the_portal_or_another_zone(net)
    its_machine_holds_nothing_of_the_portal(net)
    control_a_login_without_a_relay_reads_the_whole_portal(net)
    with psycopg.connect(net.way("east", "hub").login("csrv", "zone"), autocommit=True) as spy:
        on_its_relay_it_reads_its_zone_and_writes_nothing(net, spy)
        what_it_holds_there_holds_up_nobody(net, spy)
    what_its_superuser_writes_stays_there(net)
    checks_are_content_with_the_rights_of_the_page_and_they_end_with_the_course(net)


def nobody_gets_into_the_portal_or_another_zone(net: Network) -> None:
    """Not with the login of its relay at the portal either, or of a web application, should it learn the password."""
    nobody = "no pg_hba.conf entry|password authentication failed"  # no line for this address, and no such login
    for target, databases, refusal in (
        ("portal", ("portal", "postgres"), "rejects"), ("dmz", ("zone", "west", "postgres"), f"rejects|{nobody}"),
    ):  # fmt: skip
        way = net.way("east", target)
        for user in ("csrv", "hub", "dmz", "site", "direct", "west", "postgres"):
            for database in databases:
                for mode in MODES:
                    with pytest.raises(psycopg.OperationalError, match=refusal):
                        ask(way.login(user, database, mode), "select 1")
    for source, database in (("north", "portal"), ("hub", "postgres"), ("hub", "template1")):
        with pytest.raises(psycopg.OperationalError, match="rejects"):
            ask(net.way(source, "portal").login("hub", database), "select 1")
    for database, mode in (("postgres", "false"), ("template1", "database"), ("zone", "true")):
        with pytest.raises(psycopg.OperationalError, match="rejects"):
            ask(net.way("east", "hub").login("csrv", database, mode), "select 1")


def its_machine_holds_nothing_of_the_portal(net: Network) -> None:
    net.server.execute("checkpoint")
    files = [path for path in net.clusters["east"].data.rglob("*") if path.is_file()]
    held = b"".join(path.read_bytes() for path in files)
    assert PASSWORDS["csrv"].encode() in held  # what would be seen
    ports = [
        str(row[0]) for row in net.portal.execute("select subscription_dsn from rollbook.server where name = 'hub'")
    ]
    for absent in (PASSWORDS["hub"], SECRET, "Bob@Example.org", net.addresses["portal"], *ports):
        assert absent.encode() not in held


def control_a_login_without_a_relay_reads_the_whole_portal(net: Network) -> None:
    way = net.way("north", "portal")
    with psycopg.connect(way.login("direct", "portal"), autocommit=True) as conn:
        with pytest.raises(DENIED):
            conn.execute("select password from portal.auth_user")
        with pytest.raises(DENIED):
            conn.execute(f"select from {KEEP_SCHEMA}.auth_user".encode())  # what relays read is not for this login
        with decoding(conn) as decoded:
            net.portal.execute("update portal.auth_user set password = %s where username = 'bob'", [SECRET + "-2"])
            assert SECRET + "-2" in decoded()
        net.portal.execute("select pg_create_logical_replication_slot('rollbook_south', 'pgoutput')")
        conn.execute("select pg_drop_replication_slot('rollbook_south')")
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        ask(way.login("direct", "portal", "true"), BACKUP)
    assert SECRET.encode() in ask(way.login("direct", "portal", "database"), BACKUP)


REFUSED = (
    "select subconninfo from pg_subscription", "select * from pg_authid", "select * from pg_hba_file_rules",
    "select pg_read_file('postgresql.conf')", "copy (select 1) to program 'true'", "copy (select 1) to '/tmp/x'",
    "alter subscription rollbook_hub disable", "drop subscription rollbook_hub", "alter system set wal_level = minimal",
    "alter publication rollbook_east add tables in schema public", "drop publication rollbook_east",
    "create publication mine for all tables", "create subscription mine connection '' publication p",
    "set session_replication_role = replica", "set role rollbook_owner", "set session authorization postgres",
    "create extension dblink", "create table public.mine ()", "create schema mine", "create temporary table mine ()",
    "select lo_create(0)", "select lo_from_bytea(0, '')", "select lo_import('/etc/hostname')",
    "select rollbook.publish('rollbook_east', '[]')", "select * from rollbook.portal",
    "insert into rollbook.heartbeat values (0, now(), '0/0', '', 1)", "delete from rollbook.heartbeat",
    f"update {REMOVE_SCHEMA}.auth_user set email = ''", f"delete from {REMOVE_SCHEMA}.auth_user",
    f"truncate {REMOVE_SCHEMA}.auth_user", f"alter table {REMOVE_SCHEMA}.auth_user add column x int",
    f"select from {REMOVE_SCHEMA}.auth_user for key share", f"drop table {REMOVE_SCHEMA}.auth_user",
    f"do $$ begin lock table {REMOVE_SCHEMA}.auth_user in row exclusive mode; end $$",
    "do $$ begin lock table rollbook.heartbeat in share mode; end $$",
    "select pg_replication_origin_advance('pg_1', '0/0')", "select pg_switch_wal()", "select pg_promote()",
    "select pg_terminate_backend(pid) from pg_stat_subscription where pid is not null",
)  # fmt: skip


def is_denied(conn: Db, statement: str) -> bool:
    """Execute a statement; say whether the role lacks the right."""
    try:
        conn.execute(statement.encode())
    except DENIED:
        return True
    except psycopg.Error as exc:
        raise AssertionError(f"{statement}: {exc}") from exc
    return False


def on_its_relay_it_reads_its_zone_and_writes_nothing(net: Network, spy: Db) -> None:
    assert [attack for attack in REFUSED if not is_denied(spy, attack)] == []
    assert schemas(spy) == [REMOVE_SCHEMA]
    # The limits of the page: these work, here and nowhere else.
    with decoding(spy) as decoded:
        net.portal.execute("update portal.auth_user set first_name = 'seen', password = 'p' where username = 'ada'")
        net.portal.execute("update portal.auth_user set first_name = 'unseen' where username = 'bob'")
        net.wait()
        assert "'seen'" in decoded()
        assert "unseen" not in decoded()
    held = ask(net.way("east", "hub").login("csrv", "zone", "database"), BACKUP)
    assert b"ada@example.org" in held
    for absent in (PASSWORDS["hub"], SECRET, "Bob@Example.org", "key-of-dan", KEEP_SCHEMA):
        assert absent.encode() not in held
    net.hub.execute("select pg_create_logical_replication_slot('rollbook_south', 'pgoutput')")
    spy.execute("select pg_drop_replication_slot('rollbook_south')")


def what_it_holds_there_holds_up_nobody(net: Network, spy: Db) -> None:
    spy.execute("select pg_create_logical_replication_slot('idle', 'pgoutput')")
    net.server.execute("alter subscription rollbook_east disable")  # its slot is idle, too
    with spy.transaction():
        spy.execute("set transaction isolation level repeatable read")
        spy.execute("select pg_current_xact_id(), pg_advisory_lock(1)")
        for table in ("auth_user", "auth_userprofile", "student_courseenrollment"):
            spy.execute(f"lock table {REMOVE_SCHEMA}.{table} in access share mode".encode())
            spy.execute(f"select * from {REMOVE_SCHEMA}.{table}".encode())
        spy.execute("lock table rollbook.heartbeat in access share mode")
        with net.portal.transaction():
            net.portal.execute("set local lock_timeout = '2s'")
            net.portal.execute("update portal.auth_user set first_name = 'held' where username in ('ada', 'bob')")
            net.portal.execute(
                "insert into portal.student_courseenrollment (user_id, course_id, created) values (102, %s, now())",
                [REMOVE],
            )
        wal = net.portal.execute("select pg_current_wal_lsn()").fetchone()
        assert wal is not None
        passed = "select bool_and(confirmed_flush_lsn >= %s) from pg_replication_slots"
        until(lambda: net.portal.execute(passed, [wal[0]]).fetchone() == (True,), 30)
        for copies, on in ((REMOVE, net.hub), (KEEP, net.dmz)):
            assert net.copy(copies, on=on) == net.copy(copies, on=net.portal)
        net.ok("replication", "verify", KEEP)
        kept = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        assert net.portal.execute(kept).fetchone() == net.hub.execute(kept).fetchone() == (0,)
        xmin = "select count(*) from pg_replication_slots where xmin is not null"
        assert net.portal.execute(xmin).fetchone() == (0,)
    spy.execute("select pg_drop_replication_slot('idle')")
    net.server.execute("alter subscription rollbook_east enable")
    until(lambda: net.is_equal(REMOVE))


def what_its_superuser_writes_stays_there(net: Network) -> None:
    before = [net.copy(REMOVE, on=on) for on in (net.portal, net.hub)]
    net.as_worker(f"update {REMOVE_SCHEMA}.auth_user set is_staff = true, is_superuser = true")
    net.as_worker("update rollbook.portal set identity = 'mine'")
    net.server.execute("create publication rollbook_hub for all tables")
    assert [net.copy(REMOVE, on=on) for on in (net.portal, net.hub)] == before
    origins = "select array_agg(subname) from pg_subscription"
    assert net.portal.execute(origins).fetchone() == (None,)
    assert net.hub.execute(origins).fetchone() == (["rollbook_hub"],)
    net.as_worker("delete from rollbook.portal")
    net.server.execute("drop publication rollbook_hub")
    net.as_worker(f"delete from {REMOVE_SCHEMA}.student_courseenrollment", at="hub")
    net.ok("replication", "repair", REMOVE, "--yes")
    assert net.is_equal(REMOVE)


def doctor_names_what_the_page_takes_from_a_login(net: Network) -> None:
    for harm in (
        "grant temporary on database zone to public", "grant execute on function lo_create(oid) to csrv",
        "alter role csrv connection limit -1",
    ):  # fmt: skip
        net.hub.execute(harm.encode())
    for is_there in (True, False):
        found = {
            row["found"]: row["fix"] for row in net.run("doctor", "--json").data
            if row["where"] == "hub" and row["check"] == "subscription login" and row["state"] == "attention"
        }  # fmt: skip
        words = ("may create large objects", "may create temporary tables", "may open as many sessions as it pleases")
        assert sorted(found) == [f"login csrv of a subscription {each}" for each in words if is_there]
        for fix in found.values():
            assert fix.startswith("on server hub: ")
            net.hub.execute(fix.removeprefix("on server hub: ").encode())


def checks_are_content_with_the_rights_of_the_page_and_they_end_with_the_course(net: Network) -> None:
    readable = "select array_agg(nspname::text order by 1) from pg_namespace where nspname ~ '^course_' and {}"
    for login, found in (("hub", [REMOVE_SCHEMA, KEEP_SCHEMA]), ("direct", None)):
        query = readable.format(f"has_schema_privilege('{login}', oid, 'usage')").encode()
        row = net.portal.execute(query).fetchone()
        assert row is not None
        assert sorted(row[0] or []) == sorted(found or [])
    assert net.run("schema", "check").code == 0
    rights = (
        "subscription login",
        "role",
        "publication",
        "base backup",
        "pg_hba",
        "schema",
        "grant",
        "slot",
        "left-over",
    )
    found = [row for row in net.run("doctor", "--json").data if row["check"] in rights and row["state"] == "attention"]
    assert found == []
    doctor_names_what_the_page_takes_from_a_login(net)
    net.ok("course", "detach", KEEP, "--yes")
    for on, role in ((net.portal, "rollbook_relay"), (net.dmz, "rollbook_subscriber")):
        reads = "select has_schema_privilege(%s, oid, 'usage') from pg_namespace where nspname = %s"
        assert on.execute(reads, [role, KEEP_SCHEMA]).fetchone() in (None, (False,))
    execute(net.portal, block("sql", "Move servers that are there"), csrv="direct")
    net.ok("server", "remove", "west", "--yes")
    net.ok("server", "remove", "dmz", "--yes")
    execute(net.portal, "drop owned by dmz; drop role dmz")
