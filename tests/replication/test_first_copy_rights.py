"""A first copy that cannot begin: the login of a subscription may not read the copies at its source."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import remedy, started, until
from tests.replication.scenes import becomes, line, refusal
from tests.replication.zones import BEHIND, Zones, room, site

pytestmark = pytest.mark.slow  # a server of its own; `make check` runs it
__all__ = ["room", "site"]
UNREADABLE = "may not read the copies of"


@contextmanager
def subscribed(site: Zones, *names: str) -> Iterator[dict[str, str]]:
    """Add servers, each with a login that may read heartbeats and nothing else; yield the logins."""
    with ExitStack() as stack:
        logins = {name: f"{name}_{uuid.uuid4().hex[:8]}" for name in names}
        for name, role in logins.items():
            relay = BEHIND[name]
            source = site.sides[relay] if relay else site.portal
            source.execute(f"create role {role} login replication".encode())
            stack.callback(source.execute, f"drop owned by {role}; drop role {role}".encode())
            grants = f"grant usage on schema rollbook to {role}; grant select on rollbook.heartbeat to {role}"
            source.execute(grants.encode())
            route = (site.routes[relay] if relay else site.portal_dsn).replace("user=postgres", f"user={role}")
            added = site.add_server(name, "--subscription-dsn", route)
            assert added.code == 0, added
        yield logins


def follow(site: Zones, fix: str) -> None:
    """Do what a fix prints: a command of the program, or SQL where it says."""
    for part in fix.split("; then: "):
        where, _, statement = part.removeprefix("on ").partition(": ")
        if part.startswith("on "):
            side = site.portal if where == "the portal" else site.sides[where.removeprefix("server ")]
            side.execute(statement.encode())
        else:
            assert remedy(site, part).code == 0


def test_what_a_login_lacks_for_a_first_copy_is_refused_with_its_grant_and_nothing_is_changed(site: Zones) -> None:
    with subscribed(site, "north", "hub", "east") as logins:
        before = site.left()
        for target, courses, grants in (
            ("north", [KEEP, REMOVE], [f"rollbook course grant '{name}' {logins['north']}" for name in (KEEP, REMOVE)]),
            ("east", [KEEP], [f'on the portal: grant rollbook_relay to "{logins["hub"]}"']),
            ("east", [KEEP], [f'on server hub: grant rollbook_subscriber to "{logins["east"]}"']),
        ):
            for options in (["--dry-run"], []):
                refused = site.run("course", "attach", *courses, "--to", target, "--json", *options)
                assert (refused.code, UNREADABLE in refused.err) == (1, True), refused
            assert site.left() == before
            assert refusal(refused)["hint"] == "; then: ".join(grants)
            follow(site, refusal(refused)["hint"])
        site.ok("course", "attach", KEEP, "--to", "east")
        assert site.is_on("east")
        revoke = f"select rollbook.revoke_course('{KEEP}', '{logins['north']}')"
        site.portal.execute(revoke.encode())
        before = site.left()
        refused = site.move("north")
        assert (refused.code, UNREADABLE in refused.err) == (1, True), refused
        assert site.left() == before
        follow(site, refusal(refused)["hint"])
        assert site.move("north").code == 0
        assert site.is_on("north")
        site.portal.execute(revoke.encode())  # it is there: nothing is copied a second time
        site.ok("course", "attach", KEEP, "--to", "north")


def test_a_grant_that_is_gone_when_the_copy_begins_ends_the_wait_and_status_names_it(site: Zones) -> None:
    with subscribed(site, "north") as logins:
        site.ok("course", "grant", KEEP, logins["north"])
        copying = "select from pg_subscription_rel as r where r.srsubstate = 'd'"
        with started(site, "course", "attach", KEEP, "--to", "north", "--json") as attach:
            with site.portal.transaction():
                site.portal.execute("select pg_current_xact_id()")  # the slot of a first copy waits for its end
                until(lambda: site.sides["north"].execute(copying).fetchone() is not None)
                site.portal.execute(f"revoke usage on schema {KEEP_SCHEMA} from {logins['north']}".encode())
            _, err = attach.communicate(timeout=60)
        assert attach.returncode == 4, err
        grant = f"rollbook course grant '{KEEP}' {logins['north']}"
        assert f"{grant}; then: rollbook course attach '{KEEP}' --to north" in err
        broken = becomes(site, "broken")
        assert broken["fix"] == grant
        assert f"login {logins['north']} may not read it on the portal" in broken["reason"]
        shown = site.run("replication", "show", KEEP, "--json").data
        assert (shown["fix"], shown["error"]["operation"]) == (grant, "copy")
        refused = site.run("replication", "resume", KEEP, "--json")
        assert (refused.code, refusal(refused)["hint"]) == (1, grant)
        follow(site, grant)
        until(lambda: site.is_on("north"))
        site.ok("course", "attach", KEEP, "--to", "north")
        assert line(site)["state"] == "ok"
        site.portal.execute(f"revoke usage on schema {KEEP_SCHEMA} from {logins['north']}".encode())
        site.sides["north"].execute(f"drop schema {KEEP_SCHEMA} cascade".encode())
        refused = site.run("replication", "resync", KEEP, "--yes", "--json")
        assert (refused.code, grant in refused.err) == (1, True), refused
        follow(site, grant)
        site.ok("replication", "resync", KEEP, "--yes")
        assert site.is_on("north")
