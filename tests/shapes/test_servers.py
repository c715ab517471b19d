"""Each shape that ships on a second server: attached, flipped, changed, damaged and repaired there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg import sql

from rollbook.system.demo.server import PrivateServer
from tests.conftest import Cluster
from tests.databases import Databases
from tests.replication.conftest import drop_slots, drop_subscriptions
from tests.shapes.conftest import home
from tests.shapes.platforms import PLATFORMS, gaps
from tests.shapes.test_platforms import Call, follow

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_on_a_second_server(
    name: str, cluster: Cluster, course_server: PrivateServer, course_databases: Databases, call: Call,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    platform = PLATFORMS[name]
    first, second = platform.courses
    with home(cluster, platform) as site, ExitStack() as stack:
        follow(platform, site, call, tmp_path, monkeypatch)
        server = stack.enter_context(course_databases.lent())
        where = course_server.dsn(server.info.dbname)
        stack.callback(drop_slots, site.dba)
        stack.callback(drop_subscriptions, server)

        def ok(*command: str) -> None:
            done = call(*command, "-d", site.dsn)
            assert done.code == 0, (command, done)

        def equal() -> None:
            ok("replication", "wait", "--timeout", "60")
            assert gaps(site.dba, platform.shape, there={first: server, second: server}) == []

        def write(statement: str | None, person: int, *courses: str) -> None:
            for course in courses or ("",):
                if statement:
                    site.app.execute(statement.encode(), {"n": person, "c": course})

        ok("course", "create", second)
        for person in (1, 2, 3):
            write(platform.join, person, first, second)
        write(platform.off, 3, first)
        ok("server", "add", "east", "--admin-dsn", where, "--subscription-dsn", site.dsn)
        ok("course", "attach", first, second, "--to", "east")
        equal()
        write(platform.off, 1, first, second)
        write(platform.on, 3, first)
        write(platform.change_person, 1)
        write(platform.change_person, 2)
        write(platform.change_profile, 2)
        write(platform.join, 4, first)
        equal()
        write(platform.on, 1, first, second)
        write(platform.leave, 2, first)
        write(platform.again, 3, first)
        equal()
        ok("replication", "verify")
        row = site.dba.execute("select schema_name from rollbook.course where course_id = %s", [first]).fetchone()
        assert row
        with server.transaction():
            server.execute("set local session_replication_role = replica")
            for table in platform.shape.tables:
                place = sql.Identifier(row[0], table.name)
                server.execute(sql.SQL("delete from {}").format(place))
        assert call("replication", "verify", "-d", site.dsn).code == 4
        ok("replication", "repair", "--yes")
        equal()
        ok("schema", "check")
        ok("status")
        ok("course", "detach", first, second, "--yes")
        ok("server", "remove", "east", "--yes")
