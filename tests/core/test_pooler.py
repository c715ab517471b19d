"""Behind a real PgBouncer in transaction mode, with one session for all: nothing of ours stays in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rollbook.core.db import Caller, session
from rollbook.core.errors import AdminError
from rollbook.replication import link
from tests.conftest import Cluster
from tests.program import KEEP, damage
from tests.school import Rollbook, advance_sequences

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here (Debian: apt install pgbouncer)")


@pytest.fixture(params=[1])
def pooled(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    db: Connection[Any],
    dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The conninfo of the test's database by way of a pooler. The database has settings of its own."""
    for setting in ("search_path = portal, public", "statement_timeout = '17s'", "timezone = 'Asia/Tokyo'"):
        db.execute(f'alter database "{db.info.dbname}" set {setting}'.encode())
    home = tmp_path_factory.mktemp("pgb")
    name = str(conninfo_to_dict(dsn)["dbname"])
    (home / "ini").write_text(
        f"[databases]\n* = host={cluster.host} port=5432 user=postgres\n"
        f"[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {home}\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = {request.param}\nmax_client_conn = 20\n"
    )
    root = os.geteuid() == 0
    for path in [home, *home.parents] if root else []:
        if path == Path("/tmp") or not path.is_relative_to("/tmp"):
            break
        path.chmod(0o755)
    home.chmod(0o777)
    assert PGBOUNCER is not None
    with subprocess.Popen(
        [PGBOUNCER, str(home / "ini")],
        stderr=subprocess.DEVNULL,
        user="nobody" if root else None,
        start_new_session=True,
    ) as pooler:
        where = make_conninfo(host=str(home), port=6432, dbname=name, user="postgres")
        try:
            for _ in range(100):
                try:
                    psycopg.connect(where).close()
                    break
                except psycopg.OperationalError:
                    time.sleep(0.05)
            yield where
        finally:
            pooler.kill()


def own(conn: Connection[Any]) -> dict[str, str]:
    """All settings of the application's session."""
    query = "select name, setting from pg_settings where name <> 'application_name' and strpos(name, '.') = 0"
    found = dict(conn.execute(query).fetchall())
    conn.rollback()
    return found


STUDENTS = b"username,email,name\nzoe,zoe@example.org,Zoe Z\nyan,yan@example.org,Yan Y\n"
WORK = [
    (("user", "list"), None),
    (("course", "list"), None),
    (("user", "show", "ada"), None),
    (("user", "create", "xi", "--email", "xi@example.org"), None),
    (("user", "update", "xi", "--first-name", "X"), None),
    (("enrollment", "add", KEEP, "xi"), None),
    (("user", "import", "-"), STUDENTS),
    (("user", "export"), None),
    (("status",), None),
    (("schema", "check"), None),
    (("user", "show", "nobody"), None),
]


def test_the_applications_session_keeps_its_settings(rollbook: Rollbook, school: Connection[Any], pooled: str) -> None:
    advance_sequences(school)
    with psycopg.connect(pooled) as application:
        before = own(application)
        assert (before["search_path"], before["statement_timeout"]) == ("portal, public", "17000")
        for command, stdin in WORK:
            answer = rollbook(*command, dsn=pooled, stdin=stdin)
            assert answer.code == (1 if command[-1] == "nobody" else 0), (command, answer.err)
            assert own(application) == before, command
        assert application.execute("select count(*) from auth_user where username = 'zoe'").fetchone() == (1,)
        application.rollback()
    assert rollbook("user", "list", "--match", "xi", dsn=pooled).out == rollbook("user", "list", "--match", "xi").out


@pytest.mark.parametrize("pooled", [3], indirect=True)
def test_work_that_needs_two_sessions_at_once_gets_them(
    rollbook: Rollbook, school: Connection[Any], pooled: str
) -> None:
    damage(school)
    assert rollbook("replication", "verify", dsn=pooled).code == 4
    assert rollbook("replication", "repair", "--yes", dsn=pooled).code == 0
    assert rollbook("replication", "verify", dsn=pooled).code == 0


def test_a_failed_command_leaves_nothing_either(rollbook: Rollbook, school: Connection[Any], pooled: str) -> None:
    school.execute("alter table portal.auth_userprofile rename column goals to aims")
    with psycopg.connect(pooled) as application:
        before = own(application)
        assert rollbook("user", "create", "xi", "--email", "xi@example.org", dsn=pooled).code != 0
        assert rollbook("user", "export", dsn=pooled).code != 0
        assert own(application) == before


def test_a_statement_that_is_repeated_is_not_prepared(school: Connection[Any], pooled: str) -> None:
    del school
    for _ in range(3):
        with session(pooled, name="test") as conn:
            for number in range(12):
                assert conn.execute("select %s::int as n", [number]).fetchone() == {"n": number}
                conn.commit()


@pytest.mark.parametrize(
    "command", [("discussion", "sync"), ("schema", "upgrade"), ("schema", "downgrade", "--to", "base", "--yes")]
)
def test_a_lock_that_must_outlive_a_transaction_is_refused(
    rollbook: Rollbook, school: Connection[Any], pooled: str, command: tuple[str, ...]
) -> None:
    school.execute("update rollbook.discussion set active = true, url = 'http://localhost:9', api_key = 'k'")
    if command == ("schema", "upgrade"):  # with nothing to do it takes no lock
        school.execute("update public.rollbook_revision set version_num = '0001'")
    answer = rollbook(*command, dsn=pooled)
    assert (answer.code, "pooler" in answer.err, "fix:" in answer.err) == (1, True, True), answer.err
    assert school.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchall() == [(0,)]


def test_a_course_server_is_neither_held_nor_changed_through_a_pooler(
    school: Connection[Any], dsn: str, pooled: str
) -> None:
    del school
    server = link.Server("east", pooled, pooled, "")
    with session(pooled, name="test") as portal:
        portal.autocommit = True
        with pytest.raises(AdminError, match="session of its own"), link.held(portal, server):
            pass
    with pytest.raises(AdminError, match="session of its own"), link.reached(server, Caller("test")):
        pass
    with session(dsn, name="test") as portal:
        portal.autocommit = True
        assert portal.is_pooled is False


def test_doctor_names_each_pooler_in_the_way(
    rollbook: Rollbook, school: Connection[Any], dsn: str, pooled: str
) -> None:
    def poolers(where: str) -> list[tuple[str, str]]:
        found = rollbook("doctor", "--json", dsn=where).data
        return [(each["where"], each["found"].split(":")[0]) for each in found if each["check"] == "pooler"]

    school.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) values "
        "('one', %(pooled)s, %(dsn)s, '1/1'), ('two', %(dsn)s, %(pooled)s, '1/1')", {"pooled": pooled, "dsn": dsn},
    )  # fmt: skip
    assert poolers(pooled) == [
        ("portal", "a pooler in transaction mode is in between"),
        ("one", "--admin-dsn leads to a pooler in transaction mode"),
        ("two", "--subscription-dsn leads to a pooler"),
    ]
    school.execute("update rollbook.server set admin_dsn = %(dsn)s, subscription_dsn = %(dsn)s", {"dsn": dsn})
    assert poolers(dsn) == []
