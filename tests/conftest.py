"""One private server a session, one template database with Rollbook at head, a copy of it, as new, for each test."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer
from tests.databases import Databases
from tests.django_site import DjangoSites
from tests.stock_site import adopt_site

pytest_plugins = ["tests.school"]

# What pytest makes of the files is kept, also where the environment says otherwise: making it takes each worker six
# seconds. So is what each start of the program would compile.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell starts what it runs in the background deaf to Ctrl-C, and a child inherits that; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A crash of the machine may lose a test's database; nothing else may.
FAST = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB", "jit": "off",
    "max_wal_size": "256MB",
}  # fmt: skip


def in_memory() -> str | None:
    """Where servers of tests have their files: in memory if 4 GB of it are free, else where temporary files are."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= 4 << 30 else None


# With these fixtures, `db` is one of those databases, which have what the test starts from.
FILLED = {"furnished": "furnished_schools", "school": "schools", "live": "lives"}


@dataclass(frozen=True)
class Cluster:
    """What pytest-postgresql asks of the server that a noproc fixture depends on."""

    server: PrivateServer
    host: str
    port: int = 5432
    user: str = "postgres"
    password: str = ""
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running server: the wheel's PostgreSQL, or that of PG_BINDIR."""
    with tempfile.TemporaryDirectory(prefix="rb-test-", dir=in_memory(), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = PrivateServer(Path(folder) / "pg", settings=FAST)
        server.start()
        try:
            yield Cluster(server, str(server.home))
        finally:
            server.remove()


def migrate(**where: Any) -> None:
    """Bring the template to head, as `rollbook schema upgrade` does, or by adopting a site: `make adopted`."""
    dsn = f"host={where['host']} port={where['port']} user={where['user']} dbname={where['dbname']}"
    if os.environ.get("TEST_ADOPTED"):
        adopt_site(dsn)
    else:
        schema.upgrade(dsn)


template = factories.postgresql_noproc(depends_on="cluster", dbname="rollbook", load=[migrate])


@pytest.fixture(scope="session")
def databases(cluster: Cluster, template: NoopExecutor) -> Databases:
    """The databases at head that tests get."""
    return Databases(cluster.server, str(template.template_dbname))


@pytest.fixture
def db(request: pytest.FixtureRequest) -> Iterator[Connection[Any]]:
    """A connection, autocommit, as superuser, to a database at head that is as new; see FILLED."""
    kinds = [databases for fixture, databases in FILLED.items() if fixture in request.fixturenames]
    kind: Databases = request.getfixturevalue(kinds[0] if kinds else "databases")
    with kind.lent() as conn:
        yield conn


@pytest.fixture(scope="session")
def django_sites(cluster: Cluster) -> DjangoSites:
    """Databases with the tables of a Django site, and without Rollbook."""
    return DjangoSites(cluster.server)


@pytest.fixture
def site(django_sites: DjangoSites) -> Iterator[Connection[Any]]:
    """A connection, autocommit, as superuser, to a Django site without rows; see tests/django_site."""
    with django_sites.site() as conn:
        yield conn


@pytest.fixture
def dsn(db: Connection[Any], cluster: Cluster) -> str:
    """The conninfo of the test's database."""
    return cluster.server.dsn(db.info.dbname)


@pytest.fixture
def session(dsn: str) -> Iterator[Callable[[], Connection[Any]]]:
    """Make further sessions on the test's database, autocommit; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(psycopg.connect(dsn, autocommit=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what a site that was adopted in place cannot do: its portal consists of views."""
    for item in items if os.environ.get("TEST_ADOPTED") else ():
        if item.get_closest_marker("made"):
            item.add_marker(pytest.mark.skip(reason="needs tables in schema portal"))


def pytest_report_header() -> str:
    """Name the PostgreSQL under test, at the top of the report."""
    adopted = ", on a Django site adopted in place" if os.environ.get("TEST_ADOPTED") else ""
    return f"PG_BINDIR: {os.environ.get('PG_BINDIR', 'not set, the wheel')}{adopted}"
