"""Commands that are killed at each of their steps: what was begun is found again, completed, and taken away whole.

A step is met by a lock: another session holds what the step needs, so the program stands right before it. One who waits
is killed there; its statement may still be done by the server behind it, as with any client that dies.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from rollbook.system.demo.server import PrivateServer
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, Site, database, drop_slots, settled, started, until, waits_for
from tests.school import populate

pytestmark = pytest.mark.slow

ENDED = "select count(*) from pg_stat_activity where starts_with(application_name, 'rollbook ')"
CATALOG = "lock table pg_subscription in share mode"  # whoever makes, alters or drops a subscription waits
COPY = "lock table {schema}.{table} in share update exclusive mode"  # so does who changes a publication that lists it
INTERRUPTED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}


@dataclass(frozen=True)
class Step:
    """What the program does next, and the lock before which it waits: on the portal or on the server.

    `before` is a lock at which it waits earlier, where the step's own, held from the beginning, would stop it too soon.
    """

    what: str
    side: str
    lock: str
    before: tuple[str, str] | None = None


WRITER = "update portal.auth_user set email = email where id = 104"  # a slot waits for all who have written
ADD = (
    Step("probe", "server", CATALOG),
    Step("note", "portal", "lock table rollbook.server in exclusive mode"),
    Step("publication", "portal", "lock table rollbook.heartbeat in share update exclusive mode"),
    Step("slot", "portal", WRITER),
    Step("schema", "server", "create schema rollbook"),
    Step("subscription", "server", CATALOG, before=("portal", WRITER)),
    Step("oid", "portal", "update rollbook.server set created_at = created_at", before=("portal", WRITER)),
    Step("beat", "portal", "lock table rollbook.heartbeat in row exclusive mode", before=("portal", WRITER)),
)
NOTE = f"select from rollbook.course where course_id = '{KEEP}' for update"
VERDICT = "lock table rollbook.verification in exclusive mode"
ATTACH = (
    Step("note", "portal", NOTE),
    Step("schema", "server", f"create schema {KEEP_SCHEMA}"),
    Step("publication", "portal", COPY.format(schema=KEEP_SCHEMA, table="auth_userprofile")),
    Step("refresh", "server", CATALOG),
    Step("comparison", "portal", "lock table rollbook.heartbeat in row exclusive mode"),
    Step("verdict", "portal", VERDICT, before=("server", CATALOG)),
)
READER = f"select from {KEEP_SCHEMA}.student_courseenrollment"  # nobody drops what is being read
DETACH = (
    Step("note", "portal", NOTE),
    Step("publication", "portal", COPY.format(schema=KEEP_SCHEMA, table="auth_user")),
    Step("refresh", "server", CATALOG),
    Step("schema", "server", READER),
    Step("last note", "portal", NOTE, before=("server", READER)),
)
TAKE_AWAY = (
    Step("subscription", "server", CATALOG),
    Step("heartbeats", "server", "select from rollbook.heartbeat"),
    Step("portal's side", "portal", "select from rollbook.server for update"),
)
ROW = f"select from {KEEP_SCHEMA}.auth_user where id = 101 for update"
REPAIR = (
    Step("routes", "portal", "select from rollbook.route where user_id = 101 for update"),
    Step("rows", "server", ROW),
    Step("verdict", "portal", VERDICT, before=("server", ROW)),
)


@contextmanager
def held(site: Site, side: str, statement: str) -> Iterator[Db]:
    """Hold a lock in a session of its own."""
    with psycopg.connect(site.portal_dsn if side == "portal" else site.server_dsn) as other:
        other.execute(statement.encode())
        yield other
        other.rollback()


def kill_at(site: Site, step: Step, how: signal.Signals, *command: str) -> None:
    """Run a command as a process, and end it right before a step. Returns when its sessions are gone."""
    sides = {"portal": site.portal, "server": site.server}
    with ExitStack() as stack:
        locks = [stack.enter_context(held(site, *(step.before or (step.side, step.lock))))]
        process = stack.enter_context(started(site, *command))
        until(lambda: waits_for(locks[0], sides[step.before[0] if step.before else step.side]) or has_ended(process))
        if step.before:
            locks.append(stack.enter_context(held(site, step.side, step.lock)))
            locks[0].rollback()
            until(lambda: waits_for(locks[1], sides[step.side]) or has_ended(process))
        process.send_signal(how)
        if how is signal.SIGKILL:
            process.wait(20)
        for lock in locks:  # one who is interrupted may have to take back what the lock keeps from it
            lock.rollback()
        assert process.wait(20) == INTERRUPTED[how], process.communicate()
    until(lambda: all(side.execute(ENDED).fetchone() == (0,) for side in sides.values()))


def has_ended(process: subprocess.Popen[str]) -> bool:
    """Fail, with what it said, if the program has ended before it came to the step."""
    assert process.poll() is None, process.communicate()
    return False


def all_is_taken_away(site: Site) -> None:
    """Take all back, and see that nothing is left on either side."""
    site.ok("course", "detach", KEEP, REMOVE, "--yes")
    site.ok("server", "remove", "east", "--yes")
    assert site.remains() == []


def flows(site: Site, *courses: str) -> None:
    """See that these courses are equal, and follow the next change."""
    site.ok("replication", "verify")
    site.portal.execute("update portal.auth_user set email = email || 'x' where username = 'ada'")
    site.wait()
    assert all(site.is_equal(course) for course in courses)
    assert set(site.states().values()) == {"ok"}


def ids(step: Step) -> str:
    """How a step is called in the report."""
    return step.what


def add_command(site: Site) -> tuple[str, ...]:
    return ("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", site.portal_dsn)


# --- server add -------------------------------------------------------------------------------------------------------


def test_an_add_that_was_killed_at_any_step_is_completed_by_the_next(site: Site) -> None:
    for step in ADD:
        kill_at(site, step, signal.SIGKILL, *add_command(site))
        site.add()
        site.ok("server", "ping", "east")
        site.ok("server", "remove", "east", "--yes")
        assert site.remains() == [], step


@pytest.mark.parametrize("step", ADD[2:7:2], ids=ids)
def test_an_add_that_was_killed_is_taken_away_by_remove(site: Site, step: Step) -> None:
    kill_at(site, step, signal.SIGKILL, *add_command(site))
    site.ok("server", "remove", "east", "--yes")
    assert site.remains() == []


def test_an_add_that_was_interrupted_leaves_nothing(site: Site) -> None:
    for step in (ADD[1], ADD[3], ADD[5], ADD[7]):
        kill_at(site, step, signal.SIGINT, *add_command(site))
        assert site.remains() == [], step


# --- course attach ----------------------------------------------------------------------------------------------------


def test_an_attach_that_was_killed_at_any_step_is_completed_by_the_next(site: Site) -> None:
    site.add()
    site.attach(REMOVE)
    before = settled(site)
    for step in ATTACH:
        kill_at(site, step, signal.SIGKILL, "course", "attach", KEEP, "--to", "east")
        site.attach(KEEP)
        assert site.is_equal(KEEP), step
        site.ok("course", "detach", KEEP, "--yes")
        assert site.remains() == before, step
    flows(site, REMOVE)
    all_is_taken_away(site)


def test_an_attach_that_was_stopped_is_taken_back_by_detach(site: Site) -> None:
    site.add()
    site.attach(REMOVE)
    before = settled(site)
    for step, how in ((ATTACH[1], signal.SIGINT), (ATTACH[2], signal.SIGKILL), (ATTACH[3], signal.SIGINT)):
        kill_at(site, step, how, "course", "attach", KEEP, "--to", "east")
        site.ok("course", "detach", KEEP, "--yes")
        assert site.remains() == before, step
    flows(site, REMOVE)


def test_a_course_whose_first_copy_hangs_is_detached_as_soon_as_it_can_be(site: Site) -> None:
    site.add()
    before = settled(site)
    copying = "select from pg_subscription_rel where srsubstate = 'd'"
    with held(site, "portal", WRITER), started(site, "course", "attach", KEEP, "--to", "east") as process:
        until(lambda: site.server.execute(copying).fetchone() is not None or has_ended(process))
        process.kill()
        process.wait(20)
        until(lambda: site.portal.execute(ENDED).fetchone() == (0,))
        # PostgreSQL waits with the slot of a copy for those who write: the detach is given up in time, and noted.
        assert site.run("course", "detach", KEEP, "--yes", "--timeout", "1").code == 3
        assert site.states()[KEEP] == "detached"
    site.ok("course", "detach", KEEP, "--yes")
    assert site.remains() == before
    site.attach(KEEP)
    flows(site, KEEP)
    all_is_taken_away(site)


def test_one_command_at_a_time_changes_a_server(site: Site) -> None:
    site.add()
    step = ATTACH[3]
    with held(site, step.side, step.lock) as other, started(site, "course", "attach", KEEP, "--to", "east") as process:
        until(lambda: waits_for(other, site.server) or has_ended(process))
        for command in (("course", "attach", REMOVE, "--to", "east"), ("server", "remove", "east", "--unreachable"),
                        add_command(site), ("replication", "pause", "--server", "east")):  # fmt: skip
            answer = site.run(*command, *(["--yes"] if "remove" in command else []))
            assert answer.code == 1, command
            assert site.run("course", "detach", KEEP, "--yes").code == 1
        other.rollback()
        assert process.wait(20) == 0, process.communicate()
    flows(site, KEEP)


# --- course detach ----------------------------------------------------------------------------------------------------


def test_a_detach_that_was_stopped_at_any_step_is_completed_by_the_next(site: Site) -> None:
    site.add()
    site.attach(REMOVE)
    before = settled(site)
    for number, step in enumerate(DETACH):
        site.attach(KEEP)
        how = signal.SIGINT if number % 2 else signal.SIGKILL
        kill_at(site, step, how, "course", "detach", KEEP, "--yes")
        site.ok("course", "detach", KEEP, "--yes")
        assert site.remains() == before, step
    flows(site, REMOVE)


def test_a_detach_that_was_killed_can_be_thought_better_of(site: Site) -> None:
    site.add()
    site.attach(KEEP)
    kill_at(site, DETACH[2], signal.SIGKILL, "course", "detach", KEEP, "--yes")
    assert site.states()[KEEP] == "detached"
    site.portal.execute("update portal.auth_user set email = email || 'y' where username = 'bob'")
    site.attach(KEEP)
    flows(site, KEEP)
    all_is_taken_away(site)


# --- server remove ----------------------------------------------------------------------------------------------------


def test_a_remove_that_was_stopped_at_any_step_is_completed_by_the_next(site: Site) -> None:
    for number, step in enumerate(TAKE_AWAY):
        site.add()
        how = signal.SIGINT if number % 2 else signal.SIGKILL
        kill_at(site, step, how, "server", "remove", "east", "--yes")
        if site.remains():  # what waited may have been done by the server behind the program
            site.ok("server", "remove", "east", "--yes")
        assert site.remains() == [], step


def test_a_server_whose_remove_was_killed_can_be_kept(site: Site) -> None:
    site.add()
    kill_at(site, TAKE_AWAY[1], signal.SIGKILL, "server", "remove", "east", "--yes")
    site.add()
    site.attach(KEEP)
    flows(site, KEEP)
    all_is_taken_away(site)


# --- replication repair -----------------------------------------------------------------------------------------------


def test_a_repair_that_was_stopped_at_any_step_is_completed_by_the_next(site: Site) -> None:
    site.add()
    site.attach(KEEP, REMOVE)
    for number, step in enumerate(REPAIR):
        site.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'wrong@example.org' where id = 101")
        site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 302")
        how = signal.SIGINT if number % 2 else signal.SIGKILL
        kill_at(site, step, how, "replication", "repair", KEEP, "--yes")
        site.ok("replication", "repair", KEEP, "--yes")
        assert site.is_equal(KEEP), step
    flows(site, KEEP, REMOVE)
    all_is_taken_away(site)


# --- the server goes away ---------------------------------------------------------------------------------------------


def lose_at(site: Site, server: PrivateServer, step: Step, *command: str) -> None:
    """Run a command as a process, and stop the server right before a step; the command must say so."""
    with started(site, *command) as process, closing(psycopg.connect(site.server_dsn)) as other:
        other.execute(step.lock.encode())
        until(lambda: waits_for(other, site.server) or has_ended(process))
        server.stop()
        assert process.wait(20) == 3, process.communicate()
    server.start()
    site.server.close()
    site.server = psycopg.connect(site.server_dsn, autocommit=True)


def test_a_server_that_goes_away_in_the_middle_is_taken_up_again_when_it_is_back(
    db: Db, dsn: str, call: Callable[..., Result], course_server: PrivateServer
) -> None:
    populate(db)
    with ExitStack() as stack:
        where = stack.enter_context(database(course_server))
        stack.callback(drop_slots, db)
        stack.callback(course_server.start)
        site = Site(db, dsn, psycopg.connect(where, autocommit=True), where, call)
        stack.callback(lambda: site.server.close())  # noqa: PLW0108 (the last of several)
        lose_at(site, course_server, ADD[4], *add_command(site))
        site.add()
        lose_at(site, course_server, ATTACH[3], "course", "attach", KEEP, "--to", "east")
        site.attach(KEEP)
        flows(site, KEEP)
        lose_at(site, course_server, DETACH[2], "course", "detach", KEEP, "--yes")
        site.ok("course", "detach", KEEP, "--yes")
        site.ok("server", "remove", "east", "--yes")
        assert site.remains() == []
