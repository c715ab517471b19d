"""Who may do what with a course server: members of rollbook_monitor and rollbook_operator, and nobody else.

Also tests sql/server/server_grants.sql, and copy_place, digest_columns, digest_rows, hash_ranges, hash_rows and
row_hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import Site

MEMBER = """
do $$ begin create role rb_looker login; exception when duplicate_object or unique_violation then null; end $$
"""


@pytest.fixture
def looker(streaming: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site as a role sees it that has no rights but memberships, here and on the server."""
    for side in (streaming.portal, streaming.server):
        side.execute(MEMBER)
    streaming.portal.execute(
        "update rollbook.server set admin_dsn = %s", [streaming.server_dsn.replace(" user=postgres", "")]
    )
    monkeypatch.setenv("PGUSER", "rb_looker")
    yield replace(streaming, portal_dsn=streaming.portal_dsn.replace("user=postgres", "user=rb_looker"))
    monkeypatch.delenv("PGUSER")
    for side in (streaming.portal, streaming.server):
        for role in ("rollbook_monitor", "rollbook_operator"):
            if side.execute("select from pg_roles where rolname = %s", [role]).fetchone() is not None:
                side.execute(sql.SQL("revoke {} from rb_looker").format(sql.Identifier(role)))


LOOKS = [
    "status", "doctor", "replication status", f"replication show {KEEP}", "replication verify", "replication slots",
    f"replication verify {KEEP} --rows", "replication wait --timeout 20", "replication conflicts", "replication lag",
    "server list", "server show east", "server ping east", f"course show {KEEP}",
    "replication verify --user ada", "user show ada",
]  # fmt: skip
CHANGES = [
    "replication canary", "replication repair --yes", f"replication resync {KEEP} --yes", f"replication pause {KEEP}",
    "replication resume --server east", f"course attach {KEEP} --to east", f"course detach {KEEP} --yes",
    f"course move {KEEP} --to west --yes",
     "course create new/1 --on-leave keep", "replication repair --user ada --yes",
]  # fmt: skip


def damaged(site: Site) -> None:
    """Let a row of the server differ, so that there is something to repair."""
    site.as_worker(f"update {KEEP_SCHEMA}.auth_user set first_name = 'drift' where id = 101")


@pytest.mark.parametrize("role", ["rollbook_monitor", "rollbook_operator"])
def test_members_look_at_servers_and_change_nothing(looker: Site, role: str) -> None:
    looker.portal.execute(sql.SQL("grant {} to rb_looker").format(sql.Identifier(role)))
    looker.server.execute("grant rollbook_monitor to rb_looker")
    answers = {command: looker.run(*command.split()) for command in LOOKS}
    assert {
        command: (answer.code, answer.err) for command, answer in answers.items() if answer.code not in (0, 4)
    } == {}
    damaged(looker)
    assert looker.run("replication", "verify", KEEP).code == 4
    before, said = looker.copy(KEEP), []
    looker.portal.execute(
        "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) "
        "select 'west', admin_dsn, subscription_dsn, portal_identity from rollbook.server"
    )
    for command in CHANGES:
        answer = looker.run(*command.split())
        said.append((command, answer.code, "membership in rollbook_owner" in answer.err, answer.err))
    wrong = [f"{command}: {code} {err}" for command, code, named, err in said if (code, named) != (3, True)]
    assert wrong == []
    looker.portal.execute("delete from rollbook.server where name = 'west'")
    assert looker.copy(KEEP) == before
    other = looker.server_dsn.split(" dbname=")[0] + " dbname=postgres"
    added = looker.run("server", "add", "west", "--admin-dsn", other, "--subscription-dsn", "host=x dbname=y")
    assert added.code == 3, added
    looker.portal.execute("update rollbook.course set server = null")
    removed = looker.run("server", "remove", "east", "--yes")
    assert (removed.code, "membership in rollbook_owner" in removed.err) == (3, True), removed
    assert looker.portal.execute("select count(*) from rollbook.history where role = 'rb_looker'").fetchone() == (0,)


def test_without_the_role_on_the_server_its_courses_are_unreachable(looker: Site) -> None:
    looker.portal.execute("grant rollbook_monitor to rb_looker")
    row = looker.run("replication", "status", KEEP, "--json").row
    assert row["state"] == "unreachable"
    assert "permission denied" in row["reason"]


def test_a_monitor_on_a_server_reads_no_row_and_creates_nothing(looker: Site) -> None:
    looker.server.execute("grant rollbook_monitor to rb_looker")
    refused = [
        f"select * from {KEEP_SCHEMA}.auth_user", f"update {KEEP_SCHEMA}.auth_user set password = 'x'",
        "delete from rollbook.heartbeat", "create table rollbook.mine (id bigint)",
        "select * from rollbook.hash_rows('pg_catalog', 'auth_user', 0, 9)",
        "select * from rollbook.hash_rows('rollbook', 'heartbeat', 0, 9)",
    ]  # fmt: skip
    with psycopg.connect(looker.server_dsn, user="rb_looker", autocommit=True) as conn:
        for statement in refused:
            with pytest.raises(psycopg.Error) as said:
                conn.execute(statement.encode())
            assert said.value.sqlstate in ("42501", "RB006")
        hashes = conn.execute("select id, hash <> 0 from rollbook.hash_rows(%s, 'auth_user', 0, 102)",
                               [KEEP_SCHEMA]).fetchall()  # fmt: skip
    assert hashes == [(101, True)]


def test_rollbook_owner_creates_nothing_on_a_server_and_the_schema_is_not_its_own(streaming: Site) -> None:
    owners = streaming.server.execute(
        """select 'schema', pg_get_userbyid(nspowner) from pg_namespace where nspname = 'rollbook'
        union all select p.proname, pg_get_userbyid(p.proowner) from pg_proc as p
        where p.pronamespace = 'rollbook'::regnamespace and not p.prosecdef
        union all select 'create', 'rollbook_owner'
        where has_schema_privilege('rollbook_owner', 'rollbook', 'create')"""
    ).fetchall()
    assert {owner for _, owner in owners} == {"postgres"}
    definers = streaming.server.execute(
        """select distinct pg_get_userbyid(p.proowner) from pg_proc as p
        where p.pronamespace = 'rollbook'::regnamespace and p.prosecdef"""
    ).fetchall()
    assert definers == [("rollbook_owner",)]


def test_a_course_on_a_server_is_granted_there_by_hand(streaming: Site) -> None:
    streaming.server.execute("do $$ begin create role rb_team; exception when duplicate_object then null; end $$")
    streaming.portal.execute("do $$ begin create role rb_team; exception when duplicate_object then null; end $$")
    granted = streaming.ok("course", "grant", REMOVE, "rb_team")
    statements = granted.err.split("run there: ")[1]
    streaming.server.execute(statements.encode())
    can_read = "select has_table_privilege('rb_team', %s, 'select'), has_table_privilege('rb_team', %s, 'update')"
    place = "course_edx_toy_2013_spring.auth_user"
    assert streaming.server.execute(can_read, [place, place]).fetchone() == (True, False)
