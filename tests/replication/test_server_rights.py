"""Roles that are not superusers, row security, and rights that are revoked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import (
    Own,
    Site,
    remedy,
)
from tests.replication.scenes import another_user, becomes, enroll, line, slots, stands_still

MANUAL = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it


def with_roles(site: Own) -> None:
    """Let the portal be read by a login with a password, and both sides be run by roles that are no superusers."""
    site.portal.execute(
        "create role feeder login replication password 'secret'; grant pg_read_all_data to feeder; "
        "create role keeper login replication; grant rollbook_owner, rollbook_operator to keeper"
    )
    database = sql.Identifier(site.portal.info.dbname)
    site.portal.execute(sql.SQL("grant create on database {} to keeper").format(database))
    hba = site.here.data / "pg_hba.conf"
    hba.write_text("local all feeder scram-sha-256\n" + hba.read_text())
    site.portal.execute("select pg_reload_conf()")
    site.server.execute(
        "create role rollbook_owner nologin; create role operator login; grant rollbook_owner to operator; "
        "grant create on database site to operator"
    )
    site.portal_dsn = site.portal_dsn.replace("user=postgres", "user=keeper")


def add_as_operator(site: Own) -> Result:
    """Add the server through these three."""
    return site.run(
        "server", "add", "east", "--admin-dsn", site.server_dsn.replace("user=postgres", "user=operator"),
        "--subscription-dsn", site.portal_dsn.replace("user=keeper", "user=feeder password=secret"),
    )  # fmt: skip


def test_who_is_no_superuser_is_refused_by_name_of_the_right_and_nothing_is_left(own: Callable[..., Own]) -> None:
    site = own()
    with_roles(site)
    refused = add_as_operator(site)
    assert (refused.code, "this role may not record servers" in refused.err) == (3, True)
    grant = "grant insert, update, delete on rollbook.server to "
    assert f'on the portal: {grant}"keeper"' in refused.err
    site.portal.execute(f"{grant}keeper")
    for _ in range(2):
        refused = add_as_operator(site)
        assert refused.code == 3
        assert "the role on server east may not create a subscription" in refused.err
        assert "pg_create_subscription" in refused.err
        assert "secret" not in refused.out + refused.err
        assert site.remains() == []


def test_who_is_no_superuser_may_run_a_server_from_16_on_with_the_rights_in_the_manual(
    own: Callable[..., Own],
) -> None:
    site = own()
    if site.server.info.server_version < 160000:
        pytest.skip("PostgreSQL 15 lets superusers alone make subscriptions; the test above shows the refusal")
    with_roles(site)
    site.portal.execute("grant insert, update, delete on rollbook.server to keeper")
    site.server.execute("grant pg_create_subscription to operator")
    operator = site.server_dsn.replace("user=postgres", "user=operator")
    for route, words, remedy_words in (
        ("feeder passfile=/none", "role operator of server east is not a superuser, so PostgreSQL wants password=...",
         "put password=... there"),
        ("postgres password=secret",
         "the portal lets the login of --subscription-dsn in without asking for its password",
         "let pg_hba.conf of the portal ask"),
    ):  # fmt: skip
        refused = site.run("server", "add", "east", "--admin-dsn", operator, "--subscription-dsn",
                           site.portal_dsn.replace("user=keeper", f"user={route}"))  # fmt: skip
        said = " ".join(refused.err.split())
        assert (refused.code, words in said, remedy_words in said) == (3, True, True), refused
        assert "name a superuser of server east in --admin-dsn" in said
        assert "secret" not in said
    added = add_as_operator(site)
    assert added.code == 0, added
    assert "PostgreSQL wants it there" in added.err
    assert "better:" not in added.err
    assert "Not tried: dblink cannot be installed on server east. rollbook doctor" in " ".join(added.err.split())
    routes = {row["route"]: row["verdict"] for row in site.ok("server", "ping", "east", "--json").data}
    assert routes == {"admin": "ok", "subscription": "ok"}
    site.attach(KEEP, REMOVE)
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    assert site.run("replication", "verify").code == 0
    site.ok("replication", "pause", KEEP)
    site.ok("replication", "resume", KEEP)
    site.as_worker(f"delete from {KEEP_SCHEMA}.student_courseenrollment where id = 301")
    site.ok("replication", "repair", KEEP, "--yes")
    assert site.is_equal(KEEP)
    site.as_worker(another_user(104))
    site.portal.execute(ENROLL)
    stands_still(site)
    found = line(site)
    assert found["state"] in ("lagging", "broken")  # broken from half a minute on
    assert "grant execute on function pg_show_replication_origin_status() to" in found["reason"]
    site.server.execute("grant execute on function pg_show_replication_origin_status() to operator")
    refused = site.run("replication", "repair", KEEP, "--yes", "--timeout", "3")
    assert (refused.code, "not comparable" in refused.err) == (3, True), refused
    site.server.execute("grant set on parameter session_replication_role to operator")
    assert remedy(site, becomes(site, "broken")["fix"]).code == 0
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
    site.ok("course", "detach", KEEP, REMOVE, "--yes")
    site.ok("server", "remove", "east", "--yes")
    assert [left for left in site.remains() if "rollbook" not in left] == []
    assert slots(site) == []


UPDATE = "update portal.auth_user set first_name = 'held' where username = 'ada'"


ENROLL = f"insert into portal.student_courseenrollment (user_id, course_id) values (104, '{KEEP}')"


def refused_rows(site: Site, write: str, forbid: str, allow: str, words: str) -> None:
    """Take a right away that apply needs; see it named, given back, and the stream go on."""
    site.server.execute(forbid.encode())
    site.portal.execute(write.encode())
    if site.server.info.server_version < 160000:  # there apply has the rights of the subscription's owner, a superuser
        site.wait()
    else:
        stands_still(site)
        found = line(site)
        assert found["state"] == "broken"
        assert words in found["reason"]
        assert "42501" in found["reason"]
        shown = site.run("replication", "show", KEEP, "--json").data
        assert (shown["error"]["course"], shown["error"]["table"]) == (KEEP, "auth_user")
        assert site.run("replication", "resume", KEEP).code == 1
        site.server.execute(allow.encode())
        site.ok("replication", "resume", KEEP)
        site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def test_forced_row_security_on_the_server_is_named_and_apply_goes_on_without_it(streaming: Site) -> None:
    table = f"{KEEP_SCHEMA}.auth_user"
    for write in (UPDATE, ENROLL):
        refused_rows(
            streaming,
            write,
            f"alter table {table} enable row level security; alter table {table} force row level security",
            f"alter table {table} no force row level security",
            "row-level security",
        )


def test_a_revoked_right_on_the_server_is_named_and_apply_goes_on_with_it(streaming: Site) -> None:
    table = f"{KEEP_SCHEMA}.auth_user"
    for write, right in ((UPDATE, "update"), (ENROLL, "insert")):
        refused_rows(
            streaming,
            write,
            f"revoke {right} on {table} from rollbook_owner",
            f"grant {right} on {table} to rollbook_owner",
            "permission denied for table auth_user",
        )


def test_a_login_that_could_take_a_base_backup_is_warned_of_until_pg_hba_has_the_lines_of_the_manual(
    own: Callable[..., Own],
) -> None:
    site = own()
    (grants,) = re.findall(r"(grant usage on schema rollbook to csrv;.*?)```", MANUAL, re.DOTALL)
    for statement in ("create database other", f"create role csrv login replication; {grants}"):
        site.portal.execute(statement.encode())
    hba = site.here.data / "pg_hba.conf"
    before = hba.read_text()
    route = site.portal_dsn.replace("user=postgres", "user=csrv")
    command = ("server", "add", "east", "--admin-dsn", site.server_dsn, "--subscription-dsn", route)
    objects = "select array(select oid from pg_extension union all select oid from pg_namespace order by 1)"
    there = site.server.execute(objects).fetchone()
    for options in (("--dry-run",), ("--json",)):
        added = site.ok(*command, *options)
        assert "pg_hba.conf lets the login of --subscription-dsn take a base backup" in " ".join(added.err.split())
    assert added.row["base_backup"] is True
    assert there == site.server.execute("select array(select oid from pg_extension union all select oid "
        "from pg_namespace where nspname <> 'rollbook' order by 1)").fetchone()  # fmt: skip
    for rule, words in (("", "no pg_hba.conf entry"), ("local all csrv reject", "pg_hba.conf rejects")):
        hba.write_text(f"{rule}\nlocal all postgres trust\n")
        site.portal.execute("select pg_reload_conf()")
        refused = " ".join(site.run(*command).err.split())
        assert words in refused
        assert "pg_hba.conf of the portal, before other lines: docs/servers.md has the lines" in refused
        assert "correct --subscription-dsn" not in refused
    (lines,) = re.findall(r"```\n(hostssl portal .*?)```", MANUAL, re.DOTALL)
    lines = lines.replace("hostssl portal       csrv  198.51.100.30/32  scram-sha-256", "local site csrv trust")
    hba.write_text(lines + before)
    site.portal.execute("select pg_reload_conf()")
    assert site.portal.execute("select count(*) from pg_hba_file_rules where error is not null").fetchone() == (0,)
    added = site.ok(*command, "--json")
    assert added.row["base_backup"] is False
    assert "base backup" not in added.err
    site.ok("course", "grant", KEEP, "csrv")
    site.attach(KEEP)
    site.wait()
    for dsn in (route.replace("dbname=site", "dbname=other"), route + " replication=true"):
        with pytest.raises(psycopg.OperationalError, match="rejects"):
            psycopg.connect(dsn)
