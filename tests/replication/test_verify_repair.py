"""`replication verify`, `repair` and `resync` on course servers: what they find, mend, and leave alone."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from rollbook.replication import compare, repair, restart, verify, write_rows
from rollbook.replication.session import Session
from rollbook.system.demo.server import PrivateServer
from tests.program import COPIED, KEEP, KEEP_SCHEMA, PROGRAM, REMOVE, REMOVE_SCHEMA, Result, environment
from tests.replication.conftest import ACTIVE, SCHEMAS, Db, Site, drop_slots, drop_subscriptions, remedy, until
from tests.replication.scenes import stands_still

pytestmark = pytest.mark.slow  # `make check` runs it

USER, PROFILE, ENROLLMENT = COPIED
ENROLL = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"
RENAME = "update portal.auth_user set last_name = %s where id = 101"


def verified(site: Site, *options: str) -> Result:
    """Compare, in numbers."""
    return site.run("replication", "verify", "--json", *options)


def found(site: Site, *options: str) -> list[tuple[Any, ...]]:
    """Compare; course, table, finding, row, columns and server of each difference."""
    return [tuple(row.values()) for row in verified(site, "--rows", *options).data]


def mended(site: Site, *courses: str) -> list[tuple[Any, ...]]:
    """Repair what differs; table, inserted, updated and deleted. It must be equal then."""
    result = site.ok("replication", "repair", *courses, "--yes", "--json")
    assert {row["verdict_after"] for row in result.data} <= {"match"}
    return [tuple(list(row.values())[1:5]) for row in result.data]


@contextmanager
def crowd(site: Site, number: int, *courses: str, first: int = 1000) -> Iterator[range]:
    """So many more students with profiles in these courses, with ids from `first` on; gone in the end."""
    ids = range(first, first + number)
    name = uuid.uuid4().hex[:6]
    with site.portal.transaction():
        site.portal.execute(
            "insert into portal.auth_user (id, username, email) select i, %s || i, %s || i || '@example.org' "
            "from generate_series(%s::int, %s) as i", [name, name, first, ids[-1]],
        )  # fmt: skip
        site.portal.execute(
            "insert into portal.auth_userprofile (id, user_id, name) select i, i, 'Student ' || i "
            "from generate_series(%s::int, %s) as i", [first, ids[-1]],
        )  # fmt: skip
        site.portal.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) select i, c "
            "from generate_series(%s::int, %s) as i, unnest(%s::text[]) as c", [first, ids[-1], list(courses)],
        )  # fmt: skip
    site.wait()
    try:
        yield ids
    finally:
        site.portal.execute("delete from portal.auth_user where id between %s and %s", [first, ids[-1]])
        site.run("replication", "wait", "--timeout", "5")


def texts(conn: Db, schema: str) -> list[tuple[Any, ...]]:
    """All rows of a course as text: Python knows no year 10000."""
    query = "select t::text from {} as t order by id"
    return [row for table in COPIED for row in conn.execute(sql.SQL(query).format(sql.Identifier(schema, table)))]


def versions(conn: Db, schema: str) -> list[tuple[Any, ...]]:
    """Which version of each row stands there."""
    query = "select tableoid::regclass::text, id, xmin::text from {} order by id"
    return [row for table in COPIED for row in conn.execute(sql.SQL(query).format(sql.Identifier(schema, table)))]


# --- what verify finds ------------------------------------------------------------------------------------------------


def test_verify_finds_what_is_missing_changed_and_extra_on_the_server(shared: Site) -> None:
    for statement in (
        "update {}.auth_user set email = email || 'x' where id = 101",
        "update {}.auth_userprofile set goals = '', name = 'ada foo' where id = 201",
        "update {}.auth_userprofile set goals = null where id = 202",
        "delete from {}.student_courseenrollment where id = 301",
        "insert into {}.student_courseenrollment values (-1, 101, 'x', now())",
        "insert into {}.student_courseenrollment values (99999999999, 102, 'x', now())",
    ):
        shared.as_worker(statement.format(KEEP_SCHEMA))
    expected = [
        (KEEP, USER, "changed", 101, ["email"], "east"),
        (KEEP, PROFILE, "changed", 201, ["name", "goals"], "east"),
        (KEEP, PROFILE, "changed", 202, ["goals"], "east"),
        (KEEP, ENROLLMENT, "extra", -1, None, "east"),
        (KEEP, ENROLLMENT, "missing", 301, None, "east"),
        (KEEP, ENROLLMENT, "extra", 99999999999, None, "east"),
    ]
    assert found(shared) == expected
    numbers = verified(shared)
    assert numbers.code == 4
    assert [list(row.values()) for row in numbers.data] == [
        [KEEP, USER, 2, 2, 0, 1, 0, "differs", "east", 0],
        [KEEP, PROFILE, 2, 2, 0, 2, 0, "differs", "east", 0],
        [KEEP, ENROLLMENT, 2, 3, 1, 0, 2, "differs", "east", 0],
        *([REMOVE, table, 1, 1, 0, 0, 0, "match", "east", 0] for table in COPIED),
    ]
    assert found(shared, "--table", PROFILE) == expected[1:3]
    assert found(shared, REMOVE) == []
    assert verified(shared, REMOVE).code == 0
    assert mended(shared) == [(USER, 0, 1, 0), (PROFILE, 0, 2, 0), (ENROLLMENT, 1, 0, 2)]
    assert shared.is_equal(KEEP)


def test_differences_at_the_edges_of_key_ranges_are_found_and_nothing_else(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "RANGE_BITS", 3)
    with crowd(shared, 48, KEEP) as ids:
        edges = [1000, *(i for n in (1008, 1016, 1024, 1032) for i in (n - 1, n, n + 1)), ids[-2], ids[-1]]
        assert verified(shared).code == 0
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set first_name = 'x' where id = any(%s)", edges)
        shared.as_worker(f"delete from {KEEP_SCHEMA}.auth_userprofile where id = any(%s)", edges)
        shared.as_worker(
            f"insert into {KEEP_SCHEMA}.auth_userprofile "
            "select id + 500, user_id, name, meta, courseware, language, location, year_of_birth, gender, "
            f"level_of_education, mailing_address, goals from {KEEP_SCHEMA}.auth_userprofile where id = any(%s)",
            [1002, 1003],
        )
        rows = found(shared, KEEP)
        assert [row[3] for row in rows if row[1] == USER] == edges
        assert {row[2] for row in rows if row[1] == USER} == {"changed"}
        assert [(row[2], row[3]) for row in rows if row[1] == PROFILE] == [
            *(("missing", i) for i in edges), ("extra", 1502), ("extra", 1503),
        ]  # fmt: skip
        assert [row for row in rows if row[1] == ENROLLMENT] == []
        assert mended(shared) == [(USER, 0, len(edges), 0), (PROFILE, len(edges), 0, 2)]
        assert shared.is_equal(KEEP)


def test_two_rows_that_have_swapped_their_values_are_found(shared: Site) -> None:
    with crowd(shared, 2, KEEP) as (one, two):
        swapped = [one, two, one, two]
        shared.as_worker(
            f"update {KEEP_SCHEMA}.auth_user as c set username = o.username "
            f"from {KEEP_SCHEMA}.auth_user as o where c.id in (%s, %s) and o.id = %s + %s - c.id", *swapped,
        )  # fmt: skip
        assert [row[1:4] for row in found(shared, KEEP)] == [(USER, "changed", one), (USER, "changed", two)]
        assert mended(shared) == [(USER, 0, 2, 0)]
        assert shared.is_equal(KEEP)


ODD = [
    "back\\slash \\N \\. \\t", "a\ttab", "two\nlines\r\n", "quote ' \" ''", "(row,\"of\",{braces})",
    "Ünïcödé 漢字 🎓 \u200d\u202e",
    "null", "\x01\x7f", "%s %% {}", "e\u0301 and \u00e9", " blank ", "-- /* $$ ;",
]  # fmt: skip
TIMES = [
    "infinity", "-infinity", "0044-03-15 12:00 BC", "12345-06-07 08:09:10.123456+05", "1883-11-18 12:03:58", "epoch",
]  # fmt: skip


def rules(site: Site, word: str) -> None:
    """Enable or disable the triggers that check names."""
    site.portal.execute(f"alter table portal.auth_user {word} trigger rollbook_check_account".encode())
    site.portal.execute(f"alter table portal.auth_userprofile {word} trigger rollbook_check_name".encode())


def test_unusual_values_arrive_are_compared_and_are_repaired(shared: Site) -> None:
    with crowd(shared, len(ODD), KEEP, REMOVE) as ids:
        rules(shared, "disable")  # these values are from before there was a rule for names
        for i, (number, odd) in enumerate(zip(ids, ODD, strict=True)):
            shared.portal.execute(
                "update portal.auth_user set first_name = %s, last_login = %s, date_joined = %s where id = %s",
                [odd, TIMES[i % len(TIMES)], TIMES[(i + 1) % len(TIMES)], number],
            )  # fmt: skip
            shared.portal.execute(
                "update portal.auth_userprofile set name = %s, goals = %s, mailing_address = '' where user_id = %s",
                [odd, odd, number],
            )
        rules(shared, "enable")
        assert verified(shared).code == 0
        for schema in SCHEMAS.values():
            assert texts(shared.server, schema) == texts(shared.portal, schema)
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set first_name = first_name || ' ' where id >= 1000")
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_userprofile set mailing_address = null where id >= 1000")
        shared.as_worker(f"delete from {REMOVE_SCHEMA}.auth_userprofile where id >= 1000")
        shared.as_worker(f"update {REMOVE_SCHEMA}.auth_user set last_login = date_joined where id >= 1000")
        rows = found(shared)
        assert [row for row in rows if row[0] == KEEP] == [
            *((KEEP, USER, "changed", i, ["first_name"], "east") for i in ids),
            *((KEEP, PROFILE, "changed", i, ["mailing_address"], "east") for i in ids),
        ]
        assert len(rows) == 4 * len(ids)
        mended(shared)
        for schema in SCHEMAS.values():
            assert texts(shared.server, schema) == texts(shared.portal, schema)


SETTINGS = {
    "DateStyle": "German, DMY", "IntervalStyle": "iso_8601", "TimeZone": "Asia/Kolkata", "bytea_output": "escape",
    "client_encoding": "LATIN1", "search_path": "nowhere", "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable", "extra_float_digits": "-5", "quote_all_identifiers": "on",
}  # fmt: skip


@pytest.mark.parametrize("place", ["database {}", "role postgres in database {}"])
def test_settings_of_the_servers_database_or_role_do_not_matter(shared: Site, place: str) -> None:
    name = sql.Identifier(shared.server.info.dbname)
    for setting, value in SETTINGS.items():
        shared.server.execute(sql.SQL("alter " + place + " set {} = {}").format(name, sql.Identifier(setting), value))
    try:
        shared.ok("replication", "pause", KEEP)
        shared.ok("replication", "resume", KEEP)  # with a worker that has them
        shared.portal.execute(
            "update portal.auth_user set first_name = 'Zoë\\漢', last_login = '2012-03-04 05:06:07.08+09' "
            "where id = 101"
        )
        assert verified(shared).code == 0
        assert shared.is_equal(KEEP)
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set last_login = last_login + interval '1 s' where id = 101")
        assert found(shared) == [(KEEP, USER, "changed", 101, ["last_login"], "east")]
        assert mended(shared) == [(USER, 0, 1, 0)]
        assert shared.is_equal(KEEP)
        assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    finally:
        shared.portal.execute("update portal.auth_user set first_name = '' where id = 101")
        for setting in SETTINGS:
            shared.server.execute(sql.SQL("alter " + place + " reset {}").format(name, sql.Identifier(setting)))


# --- a server whose text is stored or sorted otherwise ----------------------------------------------------------------


@contextmanager
def odd_server(site: Site, course_server: PrivateServer, options: str) -> Iterator[tuple[Site, str]]:
    """A second server for the portal, whose database is made with these options, and a course on it."""
    name = f"c_{uuid.uuid4().hex[:10]}"
    where = f"odd/{name}"
    with ExitStack() as stack:
        boss = stack.enter_context(psycopg.connect(course_server.dsn(), autocommit=True))
        boss.execute(f"create database {name} template template0 {options}".encode())
        stack.callback(lambda: boss.execute(f"drop database {name} with (force)".encode()))
        server = stack.enter_context(psycopg.connect(course_server.dsn(name), autocommit=True))
        stack.callback(lambda: drop_subscriptions(server))
        odd = Site(site.portal, site.portal_dsn, server, course_server.dsn(name), site.call, "odd")
        odd.portal.execute("select rollbook.create_course(%s)", [where])
        odd.portal.execute(ENROLL, [101, where])
        odd.add()
        odd.attach(where)
        yield odd, where
        odd.ok("course", "detach", where, "--yes")
        odd.ok("server", "remove", "odd", "--yes")
        odd.portal.execute("select rollbook.drop_course(%s)", [where])


@pytest.mark.parametrize(
    "options",
    ["encoding 'UTF8' locale_provider libc locale 'C.UTF-8'", "encoding 'UTF8' locale_provider libc locale 'C'"],
    ids=["utf8", "c"],
)
def test_a_server_with_another_locale_is_compared_by_what_the_text_means(
    shared: Site, course_server: PrivateServer, options: str
) -> None:
    with odd_server(shared, course_server, options) as (odd, course):
        odd.portal.execute("update portal.auth_user set first_name = 'Zoë Ñandú ÿ' where id = 101")
        odd.portal.execute("update portal.auth_userprofile set goals = 'naïve' where user_id = 101")
        assert verified(odd, course).code == 0
        schema = f"course_{course.replace('/', '_')}"
        odd.as_worker(f"update {schema}.auth_user set first_name = 'Zoe Ñandú ÿ' where id = 101")
        assert found(odd, course) == [(course, USER, "changed", 101, ["first_name"], "odd")]
        assert mended(odd, course) == [(USER, 0, 1, 0)]
        assert verified(odd, course).code == 0
        assert odd.server.execute(f"select convert_to(first_name, 'UTF8') from {schema}.auth_user").fetchone() == (
            "Zoë Ñandú ÿ".encode(),
        )


def test_a_collation_that_takes_different_texts_for_equal_hides_nothing(shared: Site) -> None:
    try:
        shared.server.execute(
            "create collation public.caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    for column in ("username", "email"):
        shared.server.execute(
            f"alter table {KEEP_SCHEMA}.auth_user alter column {column} type varchar(254) collate public.caseless"
        )
    with pytest.raises(errors.DatabaseError):  # nor from the guard
        shared.server.execute(f"update {KEEP_SCHEMA}.auth_user set email = upper(email)")
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = upper(email), username = 'ADA' where id = 101")
    assert found(shared) == [(KEEP, USER, "changed", 101, ["username", "email"], "east")]
    assert mended(shared) == [(USER, 0, 1, 0)]
    assert shared.is_equal(KEEP)


# --- while others write -----------------------------------------------------------------------------------------------


class Writers:
    """Clients who write all the time: each renames its students, enrolls them, lets them leave, makes them anew."""

    def __init__(self, site: Site, ids: range, clients: int) -> None:
        self.site, self.ids = site, ids
        self.done = [0] * clients
        self.failures: list[Exception] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Writers:
        for thread in self.threads:
            thread.start()
        until(lambda: min(self.done) > 2 or bool(self.failures))
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join()
        assert self.failures == []

    def write(self, number: int) -> None:
        """Be one client."""
        choose = random.Random(number)
        mine = self.ids[number :: len(self.threads)]
        try:
            with psycopg.connect(self.site.portal_dsn, autocommit=True) as conn:
                while not self.ending.is_set():
                    self.step(conn, choose, mine)
                    self.done[number] += 1
        except Exception as exc:
            self.failures.append(exc)

    def step(self, conn: Db, choose: random.Random, mine: range) -> None:
        """Do one thing."""
        user, word = choose.choice(mine), str(choose.random())
        match choose.randrange(7):
            case 0:
                conn.execute("update portal.auth_user set last_name = %s where id = %s", [word, user])
            case 1:
                conn.execute("update portal.auth_userprofile set goals = %s where user_id = %s", [word, user])
            case 2:
                conn.execute("update portal.auth_user set first_name = %s where id = any(%s)", [word, list(mine)])
            case 3:
                conn.execute("delete from portal.auth_user where id = %s", [user])
                with conn.transaction():
                    conn.execute("insert into portal.auth_user (id, username) values (%s, %s)", [user, f"w{user}"])
                    conn.execute("insert into portal.auth_userprofile (id, user_id) values (%s, %s)", [user, user])
                    conn.execute(ENROLL, [user, KEEP])
            case _:  # the copies come and go, and come back with the same keys
                course = choose.choice((KEEP, REMOVE, REMOVE))
                left = conn.execute(
                    "delete from portal.student_courseenrollment where user_id = %s and course_id = %s", [user, course]
                ).rowcount
                if not left:
                    conn.execute(ENROLL, [user, course])


def test_rows_under_way_are_no_differences(shared: Site) -> None:
    with crowd(shared, 24, KEEP, REMOVE) as ids:
        with Writers(shared, ids, 4) as writers:
            for _ in range(8):  # among them some that look while a commit is sent already and not yet visible
                before = sum(writers.done)
                answer = verified(shared)
                assert (answer.code, {row["verdict"] for row in answer.data}) == (0, {"match"}), answer.data
                assert sum(writers.done) > before
        assert verified(shared).code == 0
        assert shared.is_equal(KEEP)
        assert shared.is_equal(REMOVE)


def test_what_really_differs_is_found_among_rows_under_way(shared: Site) -> None:
    with crowd(shared, 24, KEEP, REMOVE) as ids, Writers(shared, ids, 4):
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 102")
        shared.as_worker(f"delete from {REMOVE_SCHEMA}.student_courseenrollment where id = 303")
        shared.as_worker(f"insert into {REMOVE_SCHEMA}.student_courseenrollment values (-7, 101, 'x', now())")
        assert found(shared) == [
            (KEEP, USER, "changed", 102, ["email"], "east"),
            (REMOVE, ENROLLMENT, "extra", -7, None, "east"),
            (REMOVE, ENROLLMENT, "missing", 303, None, "east"),
        ]
        assert mended(shared) == [(USER, 0, 1, 0), (ENROLLMENT, 1, 0, 1)]
        assert verified(shared).code == 0


def test_a_server_that_is_behind_is_not_comparable_within_the_timeout(shared: Site) -> None:
    with psycopg.connect(shared.server_dsn) as conn:
        conn.execute(f"lock table {KEEP_SCHEMA}.auth_user in share mode")
        shared.portal.execute(RENAME, [f"held {time.monotonic()}"])
        began = time.monotonic()
        answer = verified(shared, "--timeout", "0.6")
        assert time.monotonic() - began < 3
        assert (answer.code, {row["verdict"] for row in answer.data}) == (3, {"not_comparable"})
        assert {row["missing"] for row in answer.data} == {None}
        assert "did not catch up" in answer.err
        assert shared.run("replication", "repair", "--yes", "--timeout", "0.6").code == 3
        conn.rollback()
    assert verified(shared).code == 0


def test_a_copy_that_somebody_locks_there_is_not_comparable_within_the_timeout(shared: Site) -> None:
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 102")
    assert verified(shared).code == 4
    with psycopg.connect(shared.server_dsn) as conn:
        conn.execute(f"lock table {KEEP_SCHEMA}.auth_user in access exclusive mode")
        began = time.monotonic()
        answer = verified(shared, "--timeout", "1")
        assert time.monotonic() - began < 4
        assert [(row["course"], row["verdict"]) for row in answer.data] == [
            *[(KEEP, "not_comparable")] * 3, *[(REMOVE, "match")] * 3,
        ]  # fmt: skip
        assert answer.code == 3
        conn.rollback()
    assert shared.states() == {KEEP: "drifted", REMOVE: "ok"}, "what differed was not compared since"
    assert mended(shared) == [(USER, 0, 1, 0)]
    assert verified(shared).code == 0


def test_a_table_or_column_that_is_gone_there_makes_its_course_alone_not_comparable(shared: Site) -> None:
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile rename column goals to aims")
    answer = verified(shared)
    assert answer.code == 3
    assert [(row["course"], row["verdict"]) for row in answer.data] == [
        *[(KEEP, "not_comparable")] * 3, *[(REMOVE, "match")] * 3,
    ]  # fmt: skip
    shared.server.execute(f"alter table {KEEP_SCHEMA}.auth_userprofile rename column aims to goals")
    assert verified(shared).code == 0


# --- resume -----------------------------------------------------------------------------------------------------------


def test_verify_stopped_by_ctrl_c_goes_on_with_the_rest_and_forgets_no_difference(shared: Site) -> None:
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 102")
    waits = (
        "select exists (select from pg_stat_activity where application_name = 'rollbook replication verify' "
        "and wait_event_type = 'Lock')"
    )
    with psycopg.connect(shared.server_dsn) as conn:
        conn.execute(f"lock table {REMOVE_SCHEMA}.auth_user in access exclusive mode")
        with subprocess.Popen(
            [PROGRAM, "replication", "verify", "-d", shared.portal_dsn], env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as verify:  # fmt: skip
            try:
                until(lambda: shared.server.execute(waits).fetchone() == (True,))
                verify.send_signal(signal.SIGINT)
                out, err = verify.communicate(timeout=5)
            finally:
                verify.kill()
        conn.rollback()
    assert (verify.returncode, out) == (130, "")
    assert "1 of 2 courses compared" in err
    resumed = verified(shared, "--resume")
    assert {row["course"] for row in resumed.data} == {REMOVE}
    assert resumed.code == 4, "the first course differs"
    assert mended(shared) == [(USER, 0, 1, 0)]
    assert verified(shared).code == 0


def test_verify_interrupted_between_courses_goes_on_with_the_rest(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(session: Session, schema_name: str, **how: Any) -> list[compare.Compared]:
        if schema_name == REMOVE_SCHEMA:
            raise KeyboardInterrupt
        return compare.compare(session, schema_name, **how)

    with monkeypatch.context() as patched:
        patched.setattr(verify, "compare", once)
        stopped = verified(shared)
    assert (stopped.code, stopped.out) == (130, "")
    assert "rollbook replication verify --resume" in stopped.err
    assert {row["course"] for row in verified(shared, "--resume").data} == {REMOVE}


# --- repair -----------------------------------------------------------------------------------------------------------


def spoil(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Change a user, lose a profile and invent an enrollment on the server, past the guards."""
    site.as_worker(f"update {schema}.auth_user set email = 'x@example.org' where id = 101")
    site.as_worker(f"delete from {schema}.auth_userprofile where id = 201")
    site.as_worker(f"insert into {schema}.student_courseenrollment values (-5, 101, 'x', now())")


def test_repair_mends_here_and_there_and_leaves_what_is_the_courses_own(shared: Site) -> None:
    server = shared.server
    server.execute(f"alter table {KEEP_SCHEMA}.auth_user add column note text default 'mine'")
    server.execute(f"create table {KEEP_SCHEMA}.grade (user_id bigint, points int)")
    server.execute(f"insert into {KEEP_SCHEMA}.grade values (101, 5), (102, 6)")
    server.execute(f"update {KEEP_SCHEMA}.auth_user set note = 'hers' where id = 101")
    spoil(shared)
    with shared.portal.transaction():  # and drift in the portal's copy, which travels
        shared.portal.execute("set local session_replication_role = replica")
        shared.portal.execute(f"update {KEEP_SCHEMA}.auth_user set last_name = 'drift' where id = 102")
        shared.portal.execute(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 302")
    assert verified(shared).code == 4
    assert sorted(mended(shared)) == [(USER, 0, 2, 0), (PROFILE, 1, 0, 0), (ENROLLMENT, 1, 0, 1)]
    assert shared.is_equal(KEEP)
    assert verified(shared).code == 0
    assert shared.portal.execute("select count(*) from rollbook.verify()").fetchone() == (0,)
    assert server.execute(f"select id, note from {KEEP_SCHEMA}.auth_user where id < 103 order by 1").fetchall() == [
        (101, "hers"), (102, "mine"),
    ]  # fmt: skip
    assert server.execute(f"select * from {KEEP_SCHEMA}.grade order by 1").fetchall() == [(101, 5), (102, 6)]
    again = shared.run("replication", "repair", "--json")
    assert (again.code, again.data) == (0, [])
    server.execute(f"drop table {KEEP_SCHEMA}.grade")
    server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop column note")


def test_repair_writes_only_what_differs_and_nothing_of_a_neighbour(shared: Site) -> None:
    spoil(shared)
    spoil(shared, REMOVE_SCHEMA)
    before = {schema: versions(shared.server, schema) for schema in SCHEMAS.values()}
    mended(shared, KEEP)
    assert versions(shared.server, REMOVE_SCHEMA) == before[REMOVE_SCHEMA]
    kept = set(before[KEEP_SCHEMA]) & set(versions(shared.server, KEEP_SCHEMA))
    assert {row[1] for row in set(before[KEEP_SCHEMA]) - kept} == {101, -5}
    assert {row[0] for row in found(shared)} == {REMOVE}
    mended(shared)
    assert shared.is_equal(REMOVE)


def test_a_repair_of_many_students_goes_in_batches(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_rows, "BATCH_USERS", 7)
    with crowd(shared, 30, KEEP):
        shared.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where user_id >= 1000")
        shared.as_worker(f"delete from {KEEP_SCHEMA}.auth_userprofile where user_id >= 1000")
        shared.as_worker(f"delete from {KEEP_SCHEMA}.auth_user where id >= 1000")
        assert mended(shared) == [(USER, 30, 0, 0), (PROFILE, 30, 0, 0), (ENROLLMENT, 30, 0, 0)]
        assert shared.is_equal(KEEP)


def test_a_dry_run_tells_what_repair_would_write_and_writes_nothing(shared: Site) -> None:
    spoil(shared)
    before = versions(shared.server, KEEP_SCHEMA), versions(shared.portal, KEEP_SCHEMA)
    planned = shared.run("replication", "repair", "-n", "--json")
    assert planned.code == 0
    assert (versions(shared.server, KEEP_SCHEMA), versions(shared.portal, KEEP_SCHEMA)) == before
    assert {row["verdict_after"] for row in planned.data} == {"would match"}
    assert [tuple(list(row.values())[1:5]) for row in planned.data] == mended(shared)


def test_repair_asks_and_without_an_answer_writes_nothing(shared: Site) -> None:
    spoil(shared)
    before = versions(shared.server, KEEP_SCHEMA)
    for options in ((), ("--no-input",), ("--json",)):
        asked = shared.run("replication", "repair", *options)
        assert (asked.code, asked.out) == (6, ""), options
    assert f"repair 3 rows in 1 course: {KEEP} (3)" in asked.err
    assert versions(shared.server, KEEP_SCHEMA) == before
    mended(shared)


def test_repair_stopped_by_ctrl_c_writes_no_half_and_holds_nobody_up(shared: Site) -> None:
    spoil(shared)
    before = versions(shared.server, KEEP_SCHEMA)
    waits = (
        "select exists (select from pg_stat_activity where application_name = 'rollbook replication repair' "
        "and wait_event_type = 'Lock')"
    )
    with psycopg.connect(shared.server_dsn) as conn:
        conn.execute(f"select from {KEEP_SCHEMA}.auth_user where id = 101 for share")  # readers pass, writers wait
        with subprocess.Popen(
            [PROGRAM, "replication", "repair", "--yes", "-d", shared.portal_dsn], env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as repair:  # fmt: skip
            try:
                until(lambda: shared.server.execute(waits).fetchone() == (True,))
                repair.send_signal(signal.SIGINT)
                out, _ = repair.communicate(timeout=5)
            finally:
                repair.kill()
        assert (repair.returncode, out) == (130, "")
        shared.portal.execute("select from rollbook.route where user_id = 101 for update nowait")  # nobody waits for it
        conn.rollback()
    assert versions(shared.server, KEEP_SCHEMA) == before
    assert mended(shared) == [(USER, 0, 1, 0), (PROFILE, 1, 0, 0), (ENROLLMENT, 0, 0, 1)]


def test_two_commands_do_not_change_one_server_at_once(shared: Site) -> None:
    spoil(shared)
    with psycopg.connect(shared.portal_dsn, autocommit=True) as other:
        other.execute("select pg_advisory_lock(hashtext('rollbook server east'))")
        refused = shared.run("replication", "repair", "--yes")
        assert refused.code == 1
        assert "another command is changing server east" in refused.err
    mended(shared)


def test_a_paused_course_is_not_repaired_and_a_neighbour_elsewhere_is(shared: Site) -> None:
    shared.portal.execute("select rollbook.create_course('edX/here')")
    shared.portal.execute(ENROLL, [104, "edX/here"])
    with shared.portal.transaction():
        shared.portal.execute("set local session_replication_role = replica")
        shared.portal.execute("delete from course_edx_here.auth_user")
    shared.ok("replication", "pause", KEEP)
    alone = shared.run("replication", "repair", KEEP, "--yes")
    assert (alone.code, "rollbook replication resume" in alone.err) == (4, True)
    partly = shared.run("replication", "repair", "--yes", "--json")
    assert (partly.code, [(row["course"], row["inserted"]) for row in partly.data]) == (5, [("edX/here", 1)])
    shared.ok("replication", "resume", KEEP)
    assert shared.run("replication", "repair", "--yes").code == 0
    shared.portal.execute("select rollbook.drop_course('edX/here')")


def stranger(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Put a profile on the server that the portal does not have."""
    site.as_worker(
        f"insert into {schema}.auth_userprofile (id, user_id, name, meta, courseware, language, location) "
        "values (-1, 101, '', '', '', '', '')"
    )


def refer(site: Site, table: str, more: str = "", schema: str = KEEP_SCHEMA) -> None:
    """Let a table of the course's own on the server refer to a copy."""
    site.server.execute(f"create table {schema}.essay (row_id bigint references {schema}.{table} {more})")


def test_a_foreign_key_of_the_courses_own_that_needs_a_row_refuses_by_name(shared: Site) -> None:
    server = shared.server
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x@example.org' where id = 102")
    stranger(shared)
    refer(shared, PROFILE)
    server.execute(f"insert into {KEEP_SCHEMA}.essay values (-1)")
    refused = shared.run("replication", "repair", "--yes")
    assert refused.code == 1
    assert f"course {KEEP} has rows of its own on the server" in refused.err
    assert server.execute(f"select count(*) from {KEEP_SCHEMA}.essay").fetchone() == (1,)
    server.execute(f"delete from {KEEP_SCHEMA}.essay")
    assert mended(shared) == [(USER, 0, 1, 0), (PROFILE, 0, 0, 1)]
    server.execute(f"drop table {KEEP_SCHEMA}.essay")


def test_a_foreign_key_of_the_courses_own_that_cascades_lets_its_rows_go_with_the_copy(shared: Site) -> None:
    server = shared.server
    stranger(shared)
    refer(shared, PROFILE, "on delete cascade")
    server.execute(f"insert into {KEEP_SCHEMA}.essay values (-1), (201)")
    assert mended(shared) == [(PROFILE, 0, 0, 1)]
    assert server.execute(f"select * from {KEEP_SCHEMA}.essay").fetchall() == [(201,)]
    server.execute(f"drop table {KEEP_SCHEMA}.essay")


def test_a_course_that_refers_to_its_copies_is_repaired_parents_first(shared: Site) -> None:
    server = shared.server
    children = (PROFILE, ENROLLMENT)
    for table in children:
        server.execute(
            f"alter table {KEEP_SCHEMA}.{table} add constraint of_user "
            f"foreign key (user_id) references {KEEP_SCHEMA}.auth_user"
        )
    for table in reversed(COPIED):
        shared.as_worker(f"delete from {KEEP_SCHEMA}.{table} where {'id' if table == USER else 'user_id'} = 101")
    for statement in (
        "insert into {}.auth_user select -1, username, first_name, last_name, email, password, is_staff, is_active, "
        "is_superuser, last_login, date_joined from {}.auth_user where id = 102",
        "insert into {}.student_courseenrollment values (-1, -1, 'x', now())",
    ):
        shared.as_worker(statement.replace("{}", KEEP_SCHEMA))
    assert mended(shared) == [(USER, 1, 0, 1), (PROFILE, 1, 0, 0), (ENROLLMENT, 1, 0, 1)]
    assert shared.is_equal(KEEP)
    for table in children:
        server.execute(f"alter table {KEEP_SCHEMA}.{table} drop constraint of_user")


def test_repair_among_writers_ends_equal_and_takes_nothing_from_them(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_rows, "BATCH_USERS", 5)
    with crowd(shared, 24, KEEP, REMOVE) as ids:
        with Writers(shared, ids, 4) as writers:
            for schema in SCHEMAS.values():
                shared.as_worker(f"update {schema}.auth_user set email = 'x@example.org', last_name = 'x'")
                shared.as_worker(f"delete from {schema}.auth_userprofile where mod(id, 3) = 0")
                shared.as_worker(f"delete from {schema}.student_courseenrollment where mod(user_id, 3) = 1")
                shared.as_worker(f"insert into {schema}.student_courseenrollment select -id, id, 'x', now() "
                                 f"from {schema}.auth_user")  # fmt: skip
            before = sum(writers.done)
            result = shared.run("replication", "repair", "--yes")
            assert result.code == 0, result
            assert sum(writers.done) > before
        assert verified(shared).code == 0
        for course in SCHEMAS:
            assert shared.is_equal(course)
        assert shared.portal.execute("select count(*) from rollbook.verify()").fetchone() == (0,)


# --- rows in the way --------------------------------------------------------------------------------------------------


def squat(site: Site, schema: str, user: int, enrollment: int) -> None:
    """Put rows where those of a student who is about to enroll belong, in all three tables."""
    site.as_worker(
        f"insert into {schema}.auth_user (id, username, first_name, last_name, email, password, is_staff, is_active, "
        "is_superuser, date_joined) values (%s, 'squatter', '', '', '', '', false, false, false, now())", user,
    )  # fmt: skip
    site.as_worker(
        f"insert into {schema}.auth_userprofile (id, user_id, name, meta, courseware, language, location) "
        "values (%s, %s, '', '', '', '', '')", user, user,
    )  # fmt: skip
    site.as_worker(f"insert into {schema}.student_courseenrollment values (%s, %s, 'x', now())", enrollment, user)


def test_rows_in_the_way_in_several_tables_and_courses_are_cleared_by_one_command(shared: Site) -> None:
    with crowd(shared, 2) as ids:
        for i, user in enumerate(ids):
            for j, schema in enumerate(SCHEMAS.values()):
                squat(shared, schema, user, 5000 + 10 * i + j)
        bystander = versions(shared.server, KEEP_SCHEMA)[:2]
        for i, user in enumerate(ids):
            for j, course in enumerate(SCHEMAS):
                shared.portal.execute(
                    "insert into portal.student_courseenrollment (id, user_id, course_id) values (%s, %s, %s)",
                    [5000 + 10 * i + j, user, course],
                )
        shared.portal.execute("update portal.auth_user set last_name = 'after' where id = 1000")
        stands_still(shared)
        half = shared.run("replication", "repair", REMOVE, "--yes")
        assert (half.code, f"rollbook replication repair '{KEEP}'" in half.err) == (4, True)
        result = shared.ok("replication", "repair", "--yes", "--json")
        assert sum(row["deleted"] for row in result.data) >= 3
        assert verified(shared).code == 0
        assert all(shared.is_equal(course) for course in SCHEMAS)
        assert versions(shared.server, KEEP_SCHEMA)[:2] == bystander
        assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_row_in_the_way_behind_a_transaction_that_changes_nothing_there_is_found(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction without effect leaves no trace at the server's origin: the stream seems to stand before it."""
    with crowd(shared, 1) as (user,):
        squat(shared, KEEP_SCHEMA, user, 5000)
        for schema in SCHEMAS.values():
            shared.as_worker(f"delete from {schema}.auth_user where id = 101")
        shared.server.execute("alter subscription rollbook_east disable")
        until(lambda: shared.portal.execute(ACTIVE).fetchall() == [(False,)])
        shared.portal.execute(RENAME, ["x"])
        shared.portal.execute(ENROLL, [user, KEEP])
        shared.server.execute("alter subscription rollbook_east enable")  # both come at once
        stands_still(shared)
        shown = shared.run("replication", "status", "--json")
        assert {row["course"]: row["state"] for row in shown.data}[KEEP] == "broken"
        assert f"Key (id)=({user}) already exists" in shown.out
        monkeypatch.setattr(restart, "IDLE_ROUNDS", 1)
        shared.ok("replication", "repair", "--yes")
        assert shared.is_equal(KEEP)


def test_as_long_as_rows_in_the_way_are_cleared_a_stream_that_stops_again_is_set_going_again(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear = restart.delete_conflicts
    with crowd(shared, 6) as ids:
        waiting = list(ids)
        for user in waiting:
            squat(shared, KEEP_SCHEMA, user, 5000 + user)

        def clear_and_enroll_the_next(session: Session) -> Any:
            """The next student enrolls when the row in the way of the one before has just been cleared."""
            gone = clear(session)
            if waiting:
                shared.portal.execute(ENROLL, [waiting.pop(), KEEP])
            return gone

        shared.portal.execute(ENROLL, [waiting.pop(), KEEP])
        stands_still(shared)
        monkeypatch.setattr(restart, "IDLE_ROUNDS", 2)
        monkeypatch.setattr(restart, "delete_conflicts", clear_and_enroll_the_next)
        shared.ok("replication", "repair", "--yes")
        assert waiting == []
        assert verified(shared).code == 0
        assert shared.is_equal(KEEP)


def test_looks_that_rows_in_the_way_interrupt_do_not_count(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with crowd(shared, 6) as ids:
        waiting = list(ids)
        for user in waiting:
            squat(shared, KEEP_SCHEMA, user, 5000 + user)

        def enroll_the_next(session: Session, schema_name: str, **how: Any) -> list[compare.Compared]:
            """Between two comparisons the next student enrolls, and meets a row in the way."""
            if waiting:
                shared.portal.execute(ENROLL, [waiting.pop(), KEEP])
                stands_still(shared)
            return compare.compare(session, schema_name, **how)

        monkeypatch.setattr(repair, "LOOKS", 3)
        monkeypatch.setattr(repair, "compare", enroll_the_next)
        shared.ok("replication", "resync", KEEP, "--yes")
        assert waiting == []
        assert verified(shared).code == 0
        assert shared.is_equal(KEEP)


def test_a_row_that_a_trigger_there_keeps_ends_the_repair(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with crowd(shared, 1) as (user,):
        squat(shared, KEEP_SCHEMA, user, 5000)
        shared.server.execute(
            f"create function {KEEP_SCHEMA}.keep() returns trigger language plpgsql as 'begin return null; end';"
            f"create trigger keep before delete on {KEEP_SCHEMA}.auth_user for each row "
            f"execute function {KEEP_SCHEMA}.keep()"
        )
        shared.portal.execute(ENROLL, [user, KEEP])
        stands_still(shared)
        monkeypatch.setattr(restart, "IDLE_ROUNDS", 3)
        refused = shared.run("replication", "repair", "--yes")
        assert (refused.code, "replication to server east stops again and again" in refused.err) == (3, True), refused
        disable = f"alter table {KEEP_SCHEMA}.auth_user disable trigger keep"
        assert f"fix:   on server east: {disable}; then: rollbook replication repair '{KEEP}'" in refused.err
        shared.server.execute(disable)
        shared.ok("replication", "repair", "--yes")
        assert shared.is_equal(KEEP)
        shared.server.execute(f"drop function {KEEP_SCHEMA}.keep() cascade")


def test_a_row_in_the_way_that_the_course_refers_to_is_refused_by_name(shared: Site) -> None:
    with crowd(shared, 1) as (user,):
        squat(shared, KEEP_SCHEMA, user, 5000)
        refer(shared, USER)
        shared.server.execute(f"insert into {KEEP_SCHEMA}.essay values (%s)", [user])
        shared.portal.execute(ENROLL, [user, KEEP])
        stands_still(shared)
        refused = shared.run("replication", "repair", "--yes")
        assert refused.code == 1
        assert f"course {KEEP} has rows of its own on the server" in refused.err
        shared.server.execute(f"drop table {KEEP_SCHEMA}.essay")
        shared.ok("replication", "repair", "--yes")
        assert shared.is_equal(KEEP)


def test_a_row_in_the_way_is_deleted_on_a_dry_run_neither(shared: Site) -> None:
    with crowd(shared, 1) as (user,):
        squat(shared, KEEP_SCHEMA, user, 5000)
        shared.portal.execute(ENROLL, [user, KEEP])
        stands_still(shared)
        before = versions(shared.server, KEEP_SCHEMA)
        assert shared.run("replication", "repair", "-n").code == 0
        assert versions(shared.server, KEEP_SCHEMA) == before
        shared.ok("replication", "repair", "--yes")
        assert shared.is_equal(KEEP)


# --- resync -----------------------------------------------------------------------------------------------------------


class Reader:
    """Somebody who looks at a course on the server all the time: it must never be empty, nor lack an enrolled user.

    What was lost while others wrote shows until it is written: then only `whole` readers mind the second.
    """

    def __init__(self, site: Site, *, whole: bool = True) -> None:
        self.site, self.whole = site, whole
        self.looks = 0
        self.bad: list[Any] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.read)

    def __enter__(self) -> Reader:
        self.thread.start()
        until(lambda: self.looks > 2 or bool(self.bad))
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join()
        assert self.bad == []

    def read(self) -> None:
        """Look until told to end."""
        query = (
            "select (select count(*) from {0}.auth_user), (select count(*) from {0}.auth_userprofile), "
            "(select count(*) from {0}.student_courseenrollment), "
            "(select count(*) from {0}.student_courseenrollment as e "
            "where not exists (select from {0}.auth_user as u where u.id = e.user_id))"
        )
        try:
            with psycopg.connect(self.site.server_dsn, autocommit=True) as conn:
                while not self.ending.is_set():
                    row = conn.execute(sql.SQL(query).format(sql.Identifier(KEEP_SCHEMA))).fetchone()
                    assert row is not None
                    if 0 in row[:3] or (row[3] and self.whole):
                        self.bad.append(row)
                    self.looks += 1
        except psycopg.Error as exc:
            self.bad.append(exc)


def lose_slot(site: Site) -> None:
    """Let the slot go."""
    site.server.execute("alter subscription rollbook_east disable")
    drop_slots(site.portal)


def lose_subscription(site: Site) -> None:
    """Let the subscription go, and the slot stay."""
    drop_subscriptions(site.server)


def lose_publication(site: Site) -> None:
    """Drop the publication on the portal."""
    site.portal.execute("drop publication rollbook_east")


def move_on(site: Site) -> None:
    """Change, bring and take rows in both courses, which reach no server now."""
    site.portal.execute(RENAME, [f"moved on {time.monotonic()}"])
    site.portal.execute("insert into portal.auth_user (id, username) values (2000, 'zoe') on conflict do nothing")
    for course in SCHEMAS:
        site.portal.execute(ENROLL, [2000, course])
    site.portal.execute("delete from portal.student_courseenrollment where id in (302, 303)")


def move_back(site: Site) -> None:
    """Undo that."""
    site.portal.execute("delete from portal.auth_user where id = 2000")
    site.portal.execute(
        "insert into portal.student_courseenrollment (id, user_id, course_id) values (302, 102, %s), (303, 101, %s)",
        [KEEP, REMOVE],
    )


@pytest.mark.parametrize("lose", [lose_slot, lose_subscription, lose_publication])
def test_resync_brings_a_course_back_while_others_read_it(shared: Site, lose: Callable[[Site], None]) -> None:
    lose(shared)
    move_on(shared)
    neighbour = versions(shared.server, REMOVE_SCHEMA)
    with Reader(shared) as reader:
        answer = shared.ok("replication", "resync", KEEP, "--yes", "--json")
        assert [list(row) for row in answer.data] == [
            ["course", "server", "table", "inserted", "updated", "deleted", "verdict_after"]
        ] * 3
        assert {(row["course"], row["server"], row["verdict_after"]) for row in answer.data} == {
            (KEEP, "east", "match")
        }
        looks = reader.looks
        until(lambda: reader.looks > looks)
    assert shared.is_equal(KEEP)
    assert versions(shared.server, REMOVE_SCHEMA) == neighbour
    assert shared.states() == {KEEP: "ok", REMOVE: "unknown"}
    move_back(shared)  # the stream carries both again
    shared.ok("replication", "resync", REMOVE, "--yes")
    assert shared.is_equal(REMOVE)
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_publication_that_was_gone_for_a_while_is_noticed_and_resync_helps(shared: Site) -> None:
    lose_publication(shared)
    move_on(shared)
    shared.run("replication", "wait", "--timeout", "0.3")
    shared.portal.execute("select rollbook.publish_courses('east')")
    for course in SCHEMAS:
        row = shared.run("replication", "status", course, "--json").row
        assert row["state"] in ("broken", "unknown")
        assert remedy(shared, row["fix"]).code == 0
        assert shared.is_equal(course)
    move_back(shared)
    assert verified(shared).code == 0


def lose_table(site: Site) -> None:
    """Drop one copy."""
    site.server.execute(f"drop table {KEEP_SCHEMA}.auth_userprofile")


def lose_tables(site: Site) -> None:
    """Drop all three copies."""
    for table in COPIED:
        site.server.execute(f"drop table {KEEP_SCHEMA}.{table}")


def lose_schema(site: Site) -> None:
    """Drop all of the course."""
    site.server.execute(f"drop schema {KEEP_SCHEMA} cascade")


def lose_rows(site: Site) -> None:
    """Empty the copies."""
    for table in COPIED:
        site.as_worker(f"truncate {KEEP_SCHEMA}.{table}")


def lose_machinery(site: Site) -> None:
    """Drop what Rollbook made on the server, the guards with it."""
    site.server.execute("drop schema rollbook cascade")


@pytest.mark.parametrize("lose", [lose_table, lose_tables, lose_schema, lose_rows, lose_machinery])
def test_resync_makes_anew_what_is_gone_on_the_server_and_leaves_the_neighbour_alone(
    shared: Site, lose: Callable[[Site], None]
) -> None:
    lose(shared)
    move_on(shared)
    shared.ok("replication", "resync", KEEP, "--yes", "--timeout", "10")
    if shared.states()[REMOVE] == "unknown":
        shared.ok("replication", "resync", REMOVE, "--yes")
    for course, schema in SCHEMAS.items():
        assert shared.is_equal(course)
        with pytest.raises(psycopg.Error, match="is a copy"):  # guarded as before
            shared.server.execute(f"delete from {schema}.student_courseenrollment")
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    move_back(shared)
    assert verified(shared).code == 0
    assert all(shared.is_equal(course) for course in SCHEMAS)


def test_resync_twice_writes_nothing_the_second_time(shared: Site) -> None:
    spoil(shared)
    first = shared.ok("replication", "resync", KEEP, "--yes", "--json")
    assert [tuple(list(row.values())[3:6]) for row in first.data] == [(0, 1, 0), (1, 0, 0), (0, 0, 1)]
    before = versions(shared.server, KEEP_SCHEMA)
    again = shared.ok("replication", "resync", KEEP, "--yes", "--json")
    assert {(row["inserted"], row["updated"], row["deleted"]) for row in again.data} == {(0, 0, 0)}
    assert versions(shared.server, KEEP_SCHEMA) == before


def test_resync_asks_and_a_dry_run_of_it_writes_nothing(shared: Site) -> None:
    spoil(shared)
    before = versions(shared.server, KEEP_SCHEMA)
    asked = shared.run("replication", "resync", KEEP)
    assert (asked.code, asked.out, f"resync {KEEP} on east" in asked.err) == (6, "", True)
    planned = shared.run("replication", "resync", KEEP, "-n", "--json")
    assert (planned.code, planned.column("verdict_after")) == (0, ["would match"])
    assert versions(shared.server, KEEP_SCHEMA) == before
    mended(shared)


def test_resync_of_several_courses_does_what_it_can(shared: Site) -> None:
    lose_slot(shared)
    move_on(shared)
    stranger(shared, REMOVE_SCHEMA)
    refer(shared, PROFILE, schema=REMOVE_SCHEMA)
    shared.server.execute(f"insert into {REMOVE_SCHEMA}.essay values (-1)")
    answer = shared.run("replication", "resync", KEEP, REMOVE, "--yes", "--json")
    assert (answer.code, {row["course"] for row in answer.data}) == (5, {KEEP})
    assert f"course {REMOVE} has rows of its own on the server" in answer.err
    shared.server.execute(f"drop table {REMOVE_SCHEMA}.essay")
    move_back(shared)
    shared.ok("replication", "resync", KEEP, REMOVE, "--yes")
    assert all(shared.is_equal(course) for course in SCHEMAS)


def test_resync_of_a_paused_course_lets_its_stream_go_and_says_so(shared: Site) -> None:
    shared.ok("replication", "pause", KEEP)
    move_on(shared)
    answer = shared.ok("replication", "resync", KEEP, "--yes")
    assert "server east was paused; its replication resumes" in answer.err
    assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
    move_back(shared)
    assert verified(shared).code == 0


def test_resync_among_writers_ends_equal(shared: Site) -> None:
    with crowd(shared, 24, KEEP, REMOVE) as ids:
        with Writers(shared, ids, 4) as writers:
            lose_slot(shared)
            before = sum(writers.done)
            until(lambda: sum(writers.done) > before + 50)
            with Reader(shared, whole=False):
                result = shared.run("replication", "resync", KEEP, REMOVE, "--yes")
            assert result.code == 0, result
        assert verified(shared).code == 0
        assert all(shared.is_equal(course) for course in SCHEMAS)
        assert shared.states() == {KEEP: "ok", REMOVE: "ok"}
