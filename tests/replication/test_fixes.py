"""No printed fix leads in a circle: each fault's fixes are followed, as they are printed, until the course is `ok`."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from rollbook.core import lock_wait
from rollbook.core.db import Caller
from rollbook.core.errors import AdminError
from rollbook.replication import answered, compare, link
from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import Db, Site, drop_subscriptions, remedy, until
from tests.replication.scenes import another_user, enroll, line, stands_still

LIMIT = 4  # how often one fix may be printed before it counts as a circle
STEPS = 12  # fixes followed before nothing helps
PATIENCE = 30.0  # seconds for what fixes itself: a first copy, a worker that starts again
SAME = "update portal.auth_user set last_name = 'Same' where id in (101, 102)"
LEAVER = "delete from portal.auth_userprofile where id = (select max(id) from portal.auth_userprofile)"
PROFILE = "insert into portal.auth_userprofile (user_id, name) select max(id), 'New' from portal.auth_user"


def function(name: str, body: str) -> str:
    """The statements that create a trigger function of the course, and its trigger for what arrives."""
    return (
        f"create function {{0}}.{name}() returns trigger language plpgsql as $$ begin {body}; return new; end $$; "
        f"create trigger {name} after insert or update or delete on {{0}}.auth_user for each row "
        f"execute function {{0}}.{name}(); alter table {{0}}.auth_user enable always trigger {name};"
    )


@dataclass(frozen=True)
class Case:
    """A fault: what somebody does to the course, what the portal writes then, and what the first fix says."""

    harm: str
    change: str  # empty: somebody enrolls
    fix: str
    undo: str = ""  # of what the fixes leave, such as a disabled trigger


ON_SERVER = {
    "a row with its key": Case("", "", "rollbook replication repair "),  # its harm needs the next id
    "a unique index": Case(
        'create unique index "My ""own""" on {0}.auth_user (last_name) where last_name <> \'\'', SAME,
        'drop index {0}."My ""own"""',
    ),
    "a unique constraint": Case(
        "alter table {0}.auth_user add own text default 'x'; update {0}.auth_user set own = id::text; "
        "alter table {0}.auth_user add constraint own unique (own), alter own set default 'x'; "
        "update {0}.auth_user set own = 'x' where id = 101",
        "", "alter table {0}.auth_user drop constraint own", "alter table {0}.auth_user drop column own",
    ),
    "a check": Case(
        "alter table {0}.auth_user add constraint \"No 'Same'\" check (last_name <> 'Same') not valid", SAME,
        "alter table {0}.auth_user drop constraint \"No 'Same'\"",
    ),
    "not null": Case(
        "alter table {0}.auth_user add room text; update {0}.auth_user set room = '1'; "
        "alter table {0}.auth_user alter room set not null", "",
        "alter table {0}.auth_user alter column room drop not null", "alter table {0}.auth_user drop column room",
    ),
    "a trigger that raises": Case(
        function("own", "raise exception 'the course is full'"), "",
        "alter table {0}.auth_user disable trigger own", "drop function {0}.own() cascade",
    ),
    "a trigger that finds its table by the search path": Case(
        "create table {0}.audit (id bigint); " + function("own", "insert into audit values (new.id)"), SAME,
        "alter table {0}.auth_user disable trigger own", "drop function {0}.own() cascade; drop table {0}.audit",
    ),
    "a trigger that meets a unique index elsewhere": Case(
        "create table {0}.audit (id int primary key); grant all on {0}.audit to rollbook_owner; "
        "insert into {0}.audit values (1); " + function("own", "insert into {0}.audit values (1)"), "",
        "alter table {0}.auth_user disable trigger own", "drop function {0}.own() cascade; drop table {0}.audit",
    ),
    "a trigger without a right": Case(
        "create table {0}.audit (id bigint); " + function("own", "insert into {0}.audit values (new.id)"), "",
        "alter table {0}.auth_user disable trigger own", "drop function {0}.own() cascade; drop table {0}.audit",
    ),
    "a deferred trigger": Case(
        "create function {0}.own() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$; "
        "create constraint trigger own after insert on {0}.auth_user deferrable initially deferred for each row "
        "execute function {0}.own(); alter table {0}.auth_user enable always trigger own", "",
        "alter table {0}.auth_user disable trigger own", "drop function {0}.own() cascade",
    ),
    "a missing column": Case(
        "alter table {0}.auth_user drop column email cascade", "", "alter table {0}.auth_user add column email ",
    ),
    "a missing table": Case(
        "drop table {0}.auth_userprofile", "update portal.auth_userprofile set goals = 'New' where user_id = 101",
        "rollbook replication resync ",
    ),
    "no key": Case(
        "alter table {0}.auth_user drop constraint auth_user_pkey", SAME, "alter table {0}.auth_user add primary key",
    ),
    "another replica identity": Case(
        "create unique index own on {0}.auth_user (username); "
        "alter table {0}.auth_user alter username set not null, replica identity using index own", SAME,
        "alter table {0}.auth_user replica identity default", "drop index {0}.own",
    ),
    "a revoked right": Case(
        "revoke all on {0}.auth_user from rollbook_owner; revoke all on schema {0} from rollbook_owner", "",
        "grant all on schema {0} to rollbook_owner; grant all on table {0}.auth_user to rollbook_owner",
    ),
    "row security": Case(
        "alter table {0}.auth_user enable row level security, force row level security", "",
        "alter table {0}.auth_user no force row level security", "alter table {0}.auth_user disable row level security",
    ),
    "a dropped subscription": Case("", "", "rollbook replication resync "),
    "a disabled subscription": Case(
        "alter subscription rollbook_east disable", "", "rollbook replication resume ",
    ),
}  # fmt: skip
QUICK = ("a unique index", "a disabled subscription")
IN_PORTAL = {
    "a unique index": Case(
        'create unique index "My own" on {0}.auth_user (last_name) where last_name <> \'\'', SAME,
        'drop index {0}."My own";',
    ),
    "a check": Case(
        "alter table {0}.auth_user add constraint own check (last_name <> 'Same') not valid", SAME,
        "alter table {0}.auth_user drop constraint own;",
    ),
    "a trigger": Case(
        function("own", "raise exception 'no: %', new.email"), SAME, "alter table {0}.auth_user disable trigger own;",
        "drop function {0}.own() cascade",
    ),
    "an owner": Case("alter table {0}.auth_user owner to pg_monitor", SAME, "rollbook.repair("),
    "a missing table": Case(
        "drop table {0}.auth_userprofile", LEAVER, "rollbook.repair(",
    ),
    "a replica identity": Case(
        "alter table {0}.auth_user replica identity nothing", SAME,
        "alter table {0}.auth_user replica identity default;",
    ),
}  # fmt: skip


def patiently(conn: Db, statement: str) -> None:
    """Execute a statement that may meet a first copy: each has what the other waits for, and PostgreSQL cannot see it.

    The copy locks its table, and waits with its slot for all who write in the cluster of its relay; here that is the
    server's too.
    """
    for _ in range(20):
        with suppress(psycopg.errors.LockNotAvailable), conn.transaction():
            conn.execute("set local lock_timeout = '1s'")
            conn.execute(statement.encode())
            return
    raise AssertionError(f"locked out each time: {statement}")


class Follower:
    """Executes fixes as they are printed, and counts them: one that comes again and again leads in a circle."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.followed: list[str] = []

    def follow(self, fix: str, *, alternative: int = 0) -> None:
        """Execute all steps of a fix; where a command fails, follow what it prints."""
        self.followed.append(fix)
        assert self.followed.count(fix) <= LIMIT, f"a circle: {self.followed}"
        assert len(self.followed) <= STEPS, self.followed
        if run_it := re.match(r"(?:Run|Resume it[^:]+): (.+?);? (?:or|it recreates)\b", fix):
            self.site.portal.execute(run_it[1].encode())
            return
        for step in fix.split("; or: ")[alternative].split("; then: "):
            if there := re.fullmatch(r"on server (\w+): (.+)", step):
                patiently(self.site.at(there[1]), there[2])
            elif step.startswith("rollbook "):
                self.printed(remedy(self.site, step))
            else:
                self.site.portal.execute(step.encode())

    def printed(self, result: Result) -> None:
        """Follow the fix that a refused command has printed."""
        assert result.code != 70, result
        for fix in re.findall(r"^fix: +(.+)$", result.err, re.MULTILINE) if result.code else []:
            self.follow(fix)

    def until_ok(self) -> None:
        """Follow the fix of the first course that is not `ok`, until none is left."""
        end = time.monotonic() + PATIENCE
        while True:
            needy = [row for row in (line(self.site, name) for name in (KEEP, REMOVE)) if row["state"] != "ok"]
            if not needy and self.site.run("replication", "verify").code == 0:
                break
            if not needy:  # what was skipped, or stood in a column that is gone
                assert time.monotonic() < end
                continue
            fix = needy[0]["fix"]
            if fix is None or needy[0]["state"] == "lagging":
                assert time.monotonic() < end, needy
                time.sleep(0.2)
                continue
            self.follow(fix)
        assert self.site.is_equal(KEEP)
        assert self.site.is_equal(REMOVE)


def harm(site: Site, case: Case, name: str, at: str = "east") -> None:
    """Let the fault come about on a server, and the portal write what meets it."""
    if name == "a row with its key":
        last = site.portal.execute("select nextval(pg_get_serial_sequence('portal.auth_user', 'id'))").fetchall()
        site.as_worker(another_user(last[0][0] + 1), at=at)
    elif name == "a dropped subscription":
        drop_subscriptions(site.at(at))
    elif case.harm:
        site.at(at).execute(case.harm.replace("{0}", KEEP_SCHEMA).replace("rollbook_east", f"rollbook_{at}").encode())
    if case.change:
        site.portal.execute(case.change.encode())
    else:
        enroll(site, 1)
    if "subscription" not in name:
        stands_still(site, at)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ON_SERVER]
)
def test_the_printed_fix_of_a_fault_on_a_server_leads_to_ok(shared: Site, name: str) -> None:
    case = ON_SERVER[name]
    if (
        name in ("a revoked right", "a trigger without a right", "row security")
        and shared.server.info.server_version < 160000
    ):
        pytest.skip("a worker acts for the subscription's owner")
    shared.portal.execute("update portal.auth_user set last_name = '' where last_name <> ''")
    shared.wait()
    harm(shared, case, name)
    row = line(shared)
    assert row["state"] == "broken", row
    assert case.fix.replace("{0}", KEEP_SCHEMA) in row["fix"]
    assert line(shared, REMOVE)["fix"].replace(f"'{REMOVE}'", f"'{KEEP}'") == row["fix"]
    shown = shared.run("replication", "show", KEEP, "--json").data
    assert shown["fix"].split("; or: ")[0] == row["fix"]
    if row["fix"].startswith("on server") and shown["error"]:
        refused = shared.run("replication", "resume", KEEP, "--json")
        assert refused.code == 1
        assert case.fix.replace("{0}", KEEP_SCHEMA) in refused.err.replace('\\"', '"')
        repaired = shared.run("replication", "repair", KEEP, "--yes")
        assert repaired.code != 0
        assert case.fix.replace("{0}", KEEP_SCHEMA) in repaired.err
        (now,) = (each for each in shared.run("replication", "conflicts", "--json").data if each["kind"] != "counted")
        assert now["resolution"] == row["fix"]
    follower = Follower(shared)
    follower.follow(row["fix"])
    follower.until_ok()
    shared.server.execute(case.undo.replace("{0}", KEEP_SCHEMA).encode() or b"select")


def test_an_error_that_names_nothing_lists_what_the_course_added_to_the_table(shared: Site) -> None:
    shared.portal.execute("update portal.auth_user set last_name = 'x' where last_name = ''")
    shared.wait()
    shared.server.execute(f"create index own on {KEEP_SCHEMA}.auth_user ((1 / length(last_name)))")
    shared.portal.execute("update portal.auth_user set last_name = '' where id = 101")
    stands_still(shared)
    row = line(shared)
    assert row["fix"] == (
        f"change what refuses that row in schema {KEEP_SCHEMA} on server east, such as index own on auth_user; then: "
        f"rollbook replication resume '{KEEP}'"
    )
    shared.server.execute(f"drop index {KEEP_SCHEMA}.own")
    assert remedy(shared, row["fix"].split("; then: ")[1]).code == 0


FORGED = "fix:   rollbook user grant u1 --superuser --yes"
LIES = f"""
create function pg_catalog.format(text, text, name) returns text language sql as $$
    select case when $1 = 'alter table %s disable trigger %I' then '{FORGED[7:]}; then: ' else '' end
        || pg_catalog.format($1, variadic array[$2, $3::text]) $$
"""


@pytest.mark.slow
def test_a_server_that_lies_prints_no_command_and_begins_no_line(shared: Site) -> None:
    server = shared.server
    server.execute(function("own", f"raise e'full\\n{FORGED}'").replace("{0}", KEEP_SCHEMA).encode())
    server.execute("set allow_system_table_mods = on")
    server.execute(LIES.encode())
    try:
        shared.portal.execute("update portal.auth_user set last_name = last_name || 'x' where id = 101")
        stands_still(shared)
        row = line(shared)
        assert f"\n{FORGED}" in row["reason"]
        assert row["fix"].startswith(f"change what refuses that row in schema {KEEP_SCHEMA} on server east, such as ")
        for command in ("status --format table --wide", "replication verify", "replication repair --yes"):
            seen = shared.run(*command.split())
            assert not [
                each for each in f"{seen.out}\n{seen.err}".splitlines() if each.startswith("fix:   rollbook user")
            ]
            assert "; then: rollbook user grant" not in f"{seen.out}{seen.err}"
    finally:
        server.execute("drop function pg_catalog.format(text, text, name)")
        server.execute("reset allow_system_table_mods")
        server.execute(f"drop function {KEEP_SCHEMA}.own() cascade".encode())
    assert remedy(shared, row["fix"].split("; then: ")[1]).code == 0


def commands(result: Result) -> list[str]:
    """What of a program's answer looks like a remedy, or an error, of its own."""
    found = re.findall(r"^ *(?:error|fix): +(.+)$", result.err, re.MULTILINE)
    return [*found, *re.findall(r"to end it: (.+)$", result.err, re.MULTILINE)]


def test_what_a_server_raises_is_no_remedy(shared: Site) -> None:
    server = shared.server
    said = {"message": f"no\n{FORGED}", "detail": f"Key (id)=(1)\n{FORGED}", "hint": f"{FORGED[7:]}\n{FORGED}",
            "schema": "portal", "table": "forged", "constraint": "forged_pkey"}  # fmt: skip
    using = ", ".join(f"{key} = {psycopg.sql.quote(value)}" for key, value in said.items())
    for state in ("RB001", "RB019", "P0001", "ZZ001", "23505", "23503"):
        server.execute(
            "create or replace function public.own() returns event_trigger language plpgsql as "
            f"$$ begin raise exception using errcode = '{state}', {using}; end $$".encode()
        )
        server.execute("create event trigger own on ddl_command_start execute function public.own()")
        try:
            answer = shared.run("server", "add", "east", "--admin-dsn", shared.server_dsn,
                                "--subscription-dsn", shared.portal_dsn)  # fmt: skip
        finally:
            server.execute("drop event trigger own")
        assert answer.code in (1, 3), answer
        assert not [each for each in commands(answer) if "forged" in each or each.startswith("rollbook user")], answer
        assert len(answer.err.splitlines()) <= 3, answer
        assert state == "RB019" or answered.look("east") in answer.err, answer
    server.execute(
        "create table public.own (id int); create function public.own_row() returns trigger language plpgsql as "
        f"$$ begin raise exception using errcode = 'P0001', {using}; end $$; "
        "create constraint trigger own after insert on public.own deferrable initially deferred "
        "for each row execute function public.own_row()".encode()
    )
    east = link.Server("east", shared.server_dsn, None, "")
    with pytest.raises(AdminError) as refused, link.reached(east, Caller("rollbook test")) as conn, conn.transaction():
        conn.execute("insert into public.own values (1)")  # refused by the commit
    server.execute("drop table public.own; drop function public.own(), public.own_row()")
    assert (refused.value.message.startswith("server east: no"), refused.value.fix) == (True, answered.look("east"))


def test_what_a_server_may_say_to_do_there_is_one_of_our_statements(shared: Site) -> None:
    east = link.Server("east", shared.server_dsn, None, "")
    for hint, fix in (
        ("Have a superuser run there: grant rollbook_owner to ann", "on server east: grant rollbook_owner to ann"),
        ("Drop it: drop trigger own on c.t;", "on server east: drop trigger own on c.t;"),
        (f"Drop it: {FORGED[7:]}", answered.look("east")),
    ):
        with pytest.raises(AdminError) as refused, link.reached(east, Caller("rollbook test")) as conn:
            conn.execute(f"do $$ begin raise 'no' using errcode = 'RB010', hint = '{hint}'; end $$".encode())
        assert refused.value.fix == fix


@pytest.mark.parametrize("patience", [[], ["--timeout", "1"]], ids=["without end", "bounded"])
def test_who_holds_a_lock_on_a_server_is_ended_there_and_in_our_words(
    shared: Site, patience: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked, look = threading.Event(), lock_wait.look

    def looks(*given: Any) -> None:
        look(*given)
        looked.set()

    monkeypatch.setattr(lock_wait, "look", looks)
    monkeypatch.setattr(lock_wait, "LOOK_SECONDS", 0.5)
    server = shared.server
    server.execute("set allow_system_table_mods = on")
    server.execute(
        f"""create function pg_catalog.format(text, integer) returns text language sql as $$
        select E'{FORGED[7:]}\nerror: forged' $$""".encode()
    )
    try:
        with (
            psycopg.connect(shared.server_dsn, application_name=f"to end it: {FORGED}") as holder,
            ThreadPoolExecutor() as pool,
        ):
            holder.execute(f"lock table {KEEP_SCHEMA}.auth_user in access exclusive mode".encode())
            ends = f"select pg_terminate_backend({holder.info.backend_pid});"
            work = pool.submit(shared.run, "replication", "resync", KEEP, "--yes", *patience)
            if not patience:
                assert looked.wait(20)
            else:
                work.result()
            holder.rollback()
            answer = work.result()
        answer = replace(answer, err=answer.err + "\n".join(caplog.messages))  # pytest takes what goes to stderr
        assert [each for each in commands(answer) if f"on server east: {ends}" in each], answer
        assert not [each for each in commands(answer) if FORGED[7:] in each or "forged" in each], answer
        assert not [each for each in answer.err.splitlines() if each.startswith(("error: forged", FORGED))]
    finally:
        server.execute("drop function pg_catalog.format(text, integer)")
        server.execute("reset allow_system_table_mods")


@pytest.mark.parametrize(
    ("lie", "is_known"),
    [("cross join generate_series(1, 100000) as a cross join generate_series(1, 100000) as b", True),
     ("where public.hold()", False)],
    ids=["without end", "silent"],
)  # fmt: skip
def test_a_look_at_who_holds_a_lock_ends_whatever_the_server_does(
    shared: Site, lie: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_wait, "ANSWER_SECONDS", 0.8)
    server, found = shared.server, list[lock_wait.Holder]()
    server.execute("""create function public.hold() returns boolean language plpgsql as $$ begin loop
        begin perform pg_sleep(600); exception when query_canceled then null; end; end loop; end $$""")
    server.execute("set allow_system_table_mods = on")
    server.execute("alter view pg_catalog.pg_stat_activity rename to kept")
    server.execute(f"create view pg_catalog.pg_stat_activity as select k.* from pg_catalog.kept as k {lie}".encode())
    server.execute("grant select on pg_catalog.pg_stat_activity to public")
    try:
        with (
            psycopg.connect(shared.server_dsn) as holder, psycopg.connect(shared.server_dsn) as waiting,
            ThreadPoolExecutor() as pool,
        ):  # fmt: skip
            lock = f"lock table {KEEP_SCHEMA}.auth_user in access exclusive mode".encode()
            holder.execute(lock)
            work = pool.submit(waiting.execute, lock)
            waits = "select from pg_locks where pid = %s and not granted"
            until(lambda: server.execute(waits, [waiting.info.backend_pid]).fetchone() is not None)
            thread = threading.Thread(target=lock_wait.look, args=(waiting, False, found), daemon=True)
            thread.start()
            thread.join(3)
            holder.rollback()
            work.result()
            assert not thread.is_alive()
            assert [each.remedy for each in found] == (
                [f"select pg_terminate_backend({holder.info.backend_pid});"] if is_known else []
            )
    finally:
        server.execute("select pg_terminate_backend(pid, 5000) from pg_catalog.kept "
                       "where application_name = 'rollbook' and datname = current_database()")  # fmt: skip
        server.execute("drop view pg_catalog.pg_stat_activity")
        server.execute("alter view pg_catalog.kept rename to pg_stat_activity")
        server.execute("reset allow_system_table_mods")
        server.execute("drop function public.hold()")


ENDLESS = "generate_series(1, 100000) as a cross join generate_series(1, 100000) as b"
ANSWERS = {
    "ranges without end": ("hash_ranges", f"select a::bigint, 1::bigint, 1::numeric from {ENDLESS}"),
    "no range": ("hash_ranges", "select null::bigint, null::bigint, 'nan'::numeric"),
    "digests without end": ("digest_rows", f"select a::bigint, 1::bigint, '', ''::bytea from {ENDLESS}"),
    "no digests": ("digest_rows", "select id, 1::bigint, '', null::bytea from unnest($3) as id"),
}


def test_what_a_server_answers_to_verify_has_an_end_and_is_what_was_asked(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "MOST_RANGES", 1000)
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set last_name = 'Other' where id = 101")
    for function_name, body in ANSWERS.values():
        query = (
            "select pg_get_functiondef(oid) from pg_proc where proname = %s and pronamespace = 'rollbook'::regnamespace"
        )
        ((text,),) = shared.server.execute(query, [function_name]).fetchall()
        head = text.partition(" LANGUAGE ")[0]
        shared.server.execute(f"{head} language sql stable as $$ {body} $$".encode())
        began = time.monotonic()
        answer = shared.run("replication", "verify", KEEP, "--json")
        shared.server.execute(text.encode())
        assert time.monotonic() - began < 5
        assert (answer.code, {row["verdict"] for row in answer.data}) == (3, {"not_comparable"}), (body, answer)
        assert "server east gives no usable answer: its answer cannot be read: " in answer.err, (body, answer)
    shared.ok("server", "add", "east")  # the fix
    shared.ok("replication", "repair", KEEP, "--yes")


@pytest.mark.slow
def test_the_printed_skip_leads_to_ok_too(shared: Site) -> None:
    case = ON_SERVER["a check"]
    shared.portal.execute("update portal.auth_user set last_name = '' where last_name <> ''")
    shared.wait()
    harm(shared, case, "a check")
    follower = Follower(shared)
    follower.follow(shared.run("replication", "show", KEEP, "--json").data["fix"], alternative=1)
    follower.until_ok()
    assert "--skip" in follower.followed[0]
    assert "drop constraint" in follower.followed[1]  # repair met it again, and said so


@pytest.mark.parametrize("on_fault", ["refuse", "pause"])
@pytest.mark.parametrize("name", IN_PORTAL)
def test_the_printed_fix_of_a_fault_in_the_portals_database_leads_to_ok(shared: Site, name: str, on_fault: str) -> None:
    case = IN_PORTAL[name]
    shared.portal.execute("update portal.auth_user set last_name = '' where last_name <> ''")
    shared.ok("course", "update", KEEP, "--on-fault", on_fault)
    enroll(shared, 1)
    shared.portal.execute(PROFILE.encode())
    shared.portal.execute(case.harm.replace("{0}", KEEP_SCHEMA).encode())
    follower = Follower(shared)
    if on_fault == "refuse":
        with pytest.raises(psycopg.Error) as refused:
            shared.portal.execute(case.change.encode())
        assert refused.value.sqlstate == "RB020"
        hint = refused.value.diag.message_hint or ""
        assert KEEP in str(refused.value)
        assert case.fix.replace("{0}", KEEP_SCHEMA) in hint
        assert f"rollbook course pause '{KEEP}'" in hint
        follower.follow(hint)
    shared.portal.execute(case.change.encode())
    follower.until_ok()
    shared.portal.execute(case.undo.replace("{0}", KEEP_SCHEMA).encode() or b"select")
    shared.ok("course", "update", KEEP, "--on-fault", "refuse")


@pytest.mark.slow
def test_the_printed_fix_of_a_first_copy_that_is_refused_leads_to_ok(shared: Site) -> None:
    name, schema = "edX/refused", "course_edx_refused"
    shared.portal.execute("select rollbook.create_course(%s)", [name])
    shared.portal.execute("insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [name])
    shared.attach(name)
    shared.ok("course", "detach", name, "--keep-data", "--yes")
    for table in ("student_courseenrollment", "auth_userprofile", "auth_user"):
        shared.as_worker(f"delete from {schema}.{table}")
    shared.server.execute(f"create unique index own on {schema}.auth_user ((1)); alter table {schema}.auth_user "
                          "add constraint own_too check (username <> 'eve')")  # fmt: skip
    attached = shared.run("course", "attach", name, "--to", "east")
    assert (attached.code, f"alter table {schema}.auth_user drop constraint own_too" in attached.err) == (4, True)
    row = line(shared, name)
    assert (row["state"], shared.states()[KEEP]) == ("broken", "ok")
    follower = Follower(shared)
    follower.printed(attached)
    assert shared.states()[name] == "ok"
    shared.ok("course", "detach", name, "--yes")
    shared.portal.execute("select rollbook.drop_course(%s)", [name])
