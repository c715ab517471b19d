"""`user show`, `replication verify --user` and `repair --user`: one person, in the portal's database and on servers."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.program import COPIED, KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result
from tests.replication.conftest import Site, remedy
from tests.school import write_old

pytestmark = pytest.mark.slow  # `make check` runs it

USER, PROFILE, ENROLLMENT = COPIED


def show(site: Site, *users: str) -> tuple[int, list[dict[str, Any]], str]:
    """What `user show` answers: exit code, documents, stderr."""
    result = site.run("user", "show", *users, "--json")
    return result.code, result.data, result.err


def found(site: Site, *arguments: str) -> list[tuple[Any, ...]]:
    """What differs: user, course, table, finding, row, columns and server of each row."""
    return [tuple(row.values()) for row in site.run("replication", "verify", "--rows", "--json", *arguments).data]


def printed_fix(result: Result) -> str:
    """The remedy of the last error on stderr."""
    return str(json.loads(result.err.splitlines()[-1])["error"]["hint"])


def test_show_compares_each_copy_and_the_printed_fix_repairs_it(shared: Site) -> None:
    code, (ada,), err = show(shared, "ada")
    assert (code, err) == (0, "")
    places = [list(row.values()) for row in ada["copies"]]
    assert places[0] == [KEEP, True, "ok", "ok", "ok", "east", "equal"]
    assert (ada["differences"], ada["not_compared"]) == ([], [])

    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x', last_name = 'y' where id in (101, 102)")
    shared.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where user_id in (101, 102)")
    shared.portal.execute("set session_replication_role = replica")
    shared.portal.execute(f"update {KEEP_SCHEMA}.auth_userprofile set goals = 'drift' where user_id = 101")
    shared.portal.execute("reset session_replication_role")
    shared.wait()
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_userprofile set goals = 'other' where user_id = 101")
    code, (ada,), _ = show(shared, "ada")
    assert code == 4
    assert next(list(row.values()) for row in ada["copies"] if row["course"] == KEEP) == [
        KEEP, True, "ok", "changed", "ok", "east", "differs",
    ]  # fmt: skip
    changed = [(row["server"], row["table"], row["finding"], row["columns"]) for row in ada["differences"]]
    assert changed == [
        (None, PROFILE, "changed", ["goals"]), ("east", USER, "changed", ["last_name", "email"]),
        ("east", PROFILE, "changed", ["goals"]), ("east", ENROLLMENT, "missing", None),
    ]  # fmt: skip
    (both,) = [
        row for row in shared.run("replication", "verify", "--user", "ada", "--json").data if row["changed"] == 2
    ]
    assert (both["user"], both["table"], both["portal_rows"], both["course_rows"]) == ("ada", PROFILE, 1, 1)

    bob = found(shared, "--user", "bob")
    assert [row[2:4] for row in bob] == [(USER, "changed"), (ENROLLMENT, "missing")]
    planned = shared.ok("replication", "repair", "--user", "ada", "-n", "--json").data
    assert [tuple(row.values()) for row in planned] == [
        (KEEP, PROFILE, 0, 2, 0, "would match"), (KEEP, USER, 0, 1, 0, "would match"),
        (KEEP, ENROLLMENT, 1, 0, 0, "would match"),
    ]  # fmt: skip
    fix = printed_fix(shared.run("user", "show", "ada", "--json"))
    assert fix == "rollbook replication repair --user ada"
    assert remedy(shared, fix).code == 0
    assert show(shared, "ada")[0] == 0
    assert found(shared, "--user", "bob") == bob  # nobody else's rows
    rows = shared.run("history", "list", "--user", "ada", "--json").data
    assert {row["command"] for row in rows[:2]} == {"replication repair"}
    assert remedy(shared, "rollbook replication repair --user bob --course " + f"'{KEEP}'").code == 0
    assert shared.is_equal(KEEP)


def test_copies_of_people_who_should_have_none_are_found_and_removed(shared: Site) -> None:
    columns = ", ".join(shared.portal.execute("select rollbook.replicated_columns('auth_user')").fetchone()[0])  # type: ignore[index]
    shared.as_worker(f"insert into {REMOVE_SCHEMA}.auth_user ({columns}) select 999, 'gone', '', '', 'g', '', "
                     f"false, false, false, null, now()")  # fmt: skip
    shared.as_worker(f"insert into {REMOVE_SCHEMA}.student_courseenrollment values (-7, 999, 'x', now())")
    shared.as_worker(f"insert into {REMOVE_SCHEMA}.student_courseenrollment values (-8, 103, 'x', now())")
    dan = found(shared, "--user", "dan")  # he is not enrolled there
    assert dan == [("dan", REMOVE, ENROLLMENT, "extra", -8, None, "east")]
    for name in ("999", "id:999"):
        assert found(shared, "--user", name) == [
            ("id:999", REMOVE, USER, "extra", 999, None, "east"),
            ("id:999", REMOVE, ENROLLMENT, "extra", -7, None, "east"),
        ]  # fmt: skip
    unsure = shared.run("replication", "verify", "--user", "nobody")
    assert (unsure.code, "no user nobody" in unsure.err) == (1, True)
    assert shared.run("replication", "verify", "--user", "998", "--json").data == []
    both = shared.run("replication", "verify", "--user", "dan", "--user", "999", "--json")
    assert both.code == 4
    repaired = shared.ok("replication", "repair", "--user", "dan", "--user", "999", "--yes", "--json")
    assert [tuple(row.values()) for row in repaired.data] == [
        (REMOVE, USER, 0, 0, 1, "match"), (REMOVE, ENROLLMENT, 0, 0, 2, "match"),
    ]  # fmt: skip
    assert shared.is_equal(REMOVE)
    assert shared.run("replication", "repair", "--user", "999", "--json").data == []
    assert shared.run("replication", "repair", "--user", "ada").code == 0  # nothing to do: nothing is asked


def test_a_number_is_a_username_first_then_an_id_and_odd_names_are_pasted_as_ids(shared: Site) -> None:
    shared.portal.execute("insert into portal.auth_user (id, username) values (90001, '101')")
    write_old(shared.portal, "insert into portal.auth_user (id, username) values (90002, '@a;$b')")
    enroll = "insert into portal.student_courseenrollment (user_id, course_id) select id, %s from portal.auth_user "
    shared.portal.execute(enroll + "where id > 90000 and id < 90003", [KEEP])
    shared.wait()
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x' where id in (90001, 90002)")
    assert [row[0] for row in found(shared, "--user", "101")] == ["101"]
    assert found(shared, "--user", "id:101") == []
    assert {row["user"] for row in shared.run("replication", "verify", "--user", "102", "--json").data} == {"bob"}
    odd = shared.run("user", "show", "username:@a;$b", "--json")
    assert (odd.code, printed_fix(odd)) == (4, "rollbook replication repair --user id:90002")
    assert remedy(shared, printed_fix(odd)).code == 0
    number = shared.run("replication", "verify", "--user", "101", "--json")
    assert remedy(shared, printed_fix(number)).code == 0
    shared.portal.execute("delete from portal.auth_user where id in (90001, 90002)")
    gone = shared.run("user", "show", "90001")
    assert (gone.code, "replication verify --user id:90001" in gone.err) == (1, True)


def test_rows_in_flight_are_not_reported(shared: Site) -> None:
    stop = threading.Event()

    def write() -> None:
        import psycopg

        with psycopg.connect(shared.portal_dsn, autocommit=True) as conn:
            number = 0
            while not stop.is_set():
                number += 1
                conn.execute("update portal.auth_user set last_name = %s where id = 101", [str(number)])
                conn.execute(
                    "delete from portal.student_courseenrollment where user_id = 101 and course_id = %s", [KEEP]
                )
                conn.execute(
                    "insert into portal.student_courseenrollment (user_id, course_id) values (101, %s)", [KEEP]
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            result = shared.run("replication", "verify", "--user", "ada", "--json")
            assert (result.code, result.err) == (0, "")
            assert show(shared, "ada")[0] == 0
    finally:
        stop.set()
        writer.join()
    shared.wait()
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set email = 'x' where id = 101")
    assert remedy(shared, "rollbook replication repair --user ada").code == 0
    assert shared.is_equal(KEEP)


def test_what_cannot_be_compared_is_reported_with_its_remedy(shared: Site) -> None:
    shared.portal.execute("select rollbook.pause_course(%s, 'broken')", [KEEP])
    shared.portal.execute("update portal.auth_user set last_name = 'later' where id = 101")
    code, (ada,), err = show(shared, "ada")
    assert code == 4
    assert ada["copies"][0]["user_copy"] == "changed"
    assert f"{KEEP}: paused since" in err
    refused = shared.run("replication", "repair", "--user", "ada", "--json")
    assert (refused.code, refused.data) == (1, [])
    assert printed_fix(refused) == f"rollbook course resume '{KEEP}'"
    assert remedy(shared, printed_fix(refused)).code == 0
    shared.wait()
    assert show(shared, "ada")[0] == 0

    shared.ok("replication", "pause", "--server", "east")
    result = shared.run("user", "show", "ada", "--json")
    assert (result.code, result.data[0]["copies"][0]["server_copy"]) == (4, "paused")
    paused = shared.run("replication", "verify", "--user", "ada", "--json")
    assert (paused.code, {row["verdict"] for row in paused.data}) == (3, {"not_comparable"})
    assert remedy(shared, printed_fix(paused)).code == 0
    assert show(shared, "ada")[0] == 0

    shared.portal.execute("update rollbook.course set state = 'detached' where course_id = %s", [KEEP])
    assert show(shared, "bob")[1][0]["copies"][0]["server_copy"] == "detached"
    shared.portal.execute("update rollbook.course set state = 'ok' where course_id = %s", [KEEP])

    dsn = shared.portal.execute("select admin_dsn from rollbook.server").fetchone()
    shared.portal.execute("update rollbook.server set admin_dsn = 'host=/nowhere dbname=x'")
    try:
        result = shared.run("user", "show", "ada", "--json", "--timeout", "1")
        assert (result.code, result.data[0]["copies"][0]["server_copy"]) == (3, "unreachable")
        assert result.data[0]["copies"][0]["user_copy"] == "ok"
        silent = shared.run("replication", "verify", "--user", "ada", "--json")
        assert (silent.code, {row["verdict"] for row in silent.data}) == (3, {"unreachable"})
        stranger = shared.run("replication", "verify", "--user", "dan", "--json")  # may have copies there
        assert (stranger.code, stranger.data, "server east" in stranger.err) == (3, [], True)
        assert shared.run("replication", "repair", "--user", "ada").code == 3
    finally:
        shared.portal.execute("update rollbook.server set admin_dsn = %s", dsn)
    assert show(shared, "ada")[0] == 0


def test_a_copy_that_is_gone_and_one_that_no_stream_feeds(shared: Site) -> None:
    shared.portal.execute("select rollbook.create_course('extra/1')")
    enroll = "insert into portal.student_courseenrollment (user_id, course_id) values (102, 'extra/1')"
    shared.portal.execute(enroll)
    shared.portal.execute("drop table course_extra_1.auth_userprofile")
    result = shared.run("replication", "verify", "--user", "bob", "--json")
    assert (result.code, printed_fix(result)) == (3, "rollbook replication repair 'extra/1'")
    assert {row["table"] for row in result.data if row["verdict"] == "not_comparable"} == {PROFILE}
    assert remedy(shared, printed_fix(result)).code == 0
    shared.server.execute("drop function rollbook.user_rows")
    shared.server.execute("comment on schema rollbook is 'an older version'")
    result = shared.run("user", "show", "bob", "--json")
    assert (result.code, "older version" in result.err) == (3, True)
    assert remedy(shared, printed_fix(result)).code == 0
    assert show(shared, "bob")[0] == 0
    shared.attach("extra/1")
    shared.ok("course", "detach", "extra/1", "--keep-data", "--yes")
    kept = shared.run("replication", "verify", "--user", "bob")
    assert (kept.code, "course_extra_1" in kept.err) == (0, True)
    shared.portal.execute("select rollbook.drop_course('extra/1')")
    shared.portal.execute("delete from portal.student_courseenrollment where course_id = 'extra/1'")
    shared.server.execute("drop schema course_extra_1 cascade")


@pytest.mark.parametrize("arguments", [("--user", "ada", "--resume"), ("--user", "ada", "bob")])
def test_wrong_arguments_are_refused(shared: Site, arguments: tuple[str, ...]) -> None:
    result = shared.run("replication", "verify", *arguments)
    assert result.code in (1, 2)
    assert "--user" in result.err
