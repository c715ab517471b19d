"""What a server answers is printed to be executed only if it is one of our statements: no name begins a command."""

from __future__ import annotations

import ast
import inspect
import re
from itertools import product

import pytest

from rollbook.core.shipped import as_query
from rollbook.replication import answered, apply_error, catalog, obstacle
from rollbook.replication.carry import Own, Sides, commands
from rollbook.replication.link import Server
from rollbook.system.doctor import access, copies, relay, roles, settings, slots, stream, upkeep
from rollbook.system.doctor.finding import Finding, fit, placed
from rollbook.system.schema_check import server_differences
from tests.program import KEEP

GUARD = "WHEN ((CURRENT_USER <> 'rollbook_owner'::text)) EXECUTE FUNCTION rollbook.guard_copy"
OURS = (
    'drop index c."My ""own""";',
    "alter table c.auth_user drop constraint \"No 'Same'\"",
    'alter table "C".auth_user add column a character varying(255), add column b timestamp with time zone;',
    'alter table c.auth_user alter column a type text collate "de-x-icu" using a::text;',
    "alter table c.auth_user drop constraint own, add primary key (id);",
    "drop trigger if exists rollbook_guard_copy on c.auth_user; CREATE TRIGGER rollbook_guard_copy BEFORE INSERT OR "
    f"DELETE OR TRUNCATE ON c.auth_user FOR EACH STATEMENT {GUARD}();",
    f"CREATE TRIGGER rollbook_guard_copy_update AFTER UPDATE ON c.auth_user FOR EACH ROW {GUARD}('id', 'email');",
    "set role ann; revoke references (id), trigger on c.auth_user from bob cascade; reset role;",
    "alter function c.own(integer,text[]) set search_path = c, pg_temp;",
    "alter system set max_slot_wal_keep_size = '10GB'; select pg_reload_conf();",
    r"sed -i '3s/\(.*\)\btrust\b/\1scram-sha-256/' '/srv/my data/pg_hba.conf'; then: select pg_reload_conf();",
    f"rollbook replication repair '{KEEP}'; then: on server east: select pg_stat_reset_subscription_stats(16500);",
    "rollbook server ping east",
)
FORGED = (
    "vacuum; then: rollbook user grant u1 --superuser --yes; then: alter table c.t disable trigger own",
    "rollbook user grant u1 --superuser --yes",
    "rollbook replication repair 'other/course/1'",
    f"rollbook replication repair '{KEEP}' && touch x",
    "rollbook server remove west --yes",
    "on server west: drop index c.own",
    "alter role csrv superuser;",
    "drop index c.own\n\\! touch x",
    'drop index c."\\! touch x"',
    'drop index c."a;b"',
    'drop index c."$(touch x)"',
    'drop index c."`touch x`"',
    'drop index c."a\u202eb"',
    'drop index c."a\nfix: rollbook user grant u1 --superuser --yes"',
    "sed -i '3e touch x' /srv/pg_hba.conf; then: select pg_reload_conf();",
    "sed -i '3s/^/# /' /srv/x -e1e; then: select pg_reload_conf();",
    "pg_ctl restart -D '/srv'; touch x",
    "cd '/srv' && touch x",
)
ASKED = [
    *(as_query(f"checks/{name}").decode() for name in (
        "obstacle_fix", "copy_differences", "foreign_rights", "foreign_code", "replica_settings",
    )),
    obstacle.KEEPERS, apply_error.DEFERRED, catalog.COPIES,
    *(check.query for check in (
        *settings.OF_SERVER, *stream.CHECKS, *roles.OF_SERVER, *copies.OF_SERVER, *slots.CHECKS, *relay.CHECKS,
        *upkeep.EVERYWHERE, *upkeep.OF_SOURCE,
    )),
]  # fmt: skip
VERBS = "alter|checkpoint|commit|drop|grant|reindex|revoke|rollback|select|set role"
LITERAL = re.compile(rf"(?:'((?:{VERBS}) (?:[^'\n]|'')*)'(?!\s*\|\|)(?:\s*\n\s*'((?:[^'\n]|'')*)')?)")
WORDS = (
    "c", "text", "c.f(integer)", "'on'", "5", "default", "table", "trigger", "fsync", "add column c text",
    "revoke create on schema rollbook from c cascade;", "alter system set max_wal_senders = 5", "",
)  # fmt: skip
NOT_OF_SERVERS = ("alter policy ", "alter table %s drop constraint %I, add constraint")  # of the portal alone
PARTS = ("alter table", "drop constraint %I, ", "drop rule %I on", "drop trigger %I on", "drop trigger if exists %1$s ")


def statements() -> set[str]:
    """What servers are asked to write as a fix, with the places of its names."""
    found = set()
    for query in ASKED:
        text = re.sub("--.*", "", query.replace("%%", "%"))
        found |= {(first + then).replace("''", "'") for first, then in LITERAL.findall(text)}
    return {each for each in found if not each.startswith(NOT_OF_SERVERS) and not each.startswith(PARTS[-1])} - {*PARTS}


def built() -> set[str]:
    """What is built here as the fix of a line of doctor, from a server's answer, with the places of its values."""
    found = set()
    for module in (settings, relay, access):
        for call in ast.walk(ast.parse(inspect.getsource(module))):
            if (
                isinstance(call, ast.Call)
                and ast.unparse(call.func) == "attention"
                and isinstance(call.args[-1], ast.JoinedStr)
            ):
                parts = call.args[-1].values
                found.add("".join(str(each.value) if isinstance(each, ast.Constant) else "%s" for each in parts))
    return found


@pytest.mark.parametrize("shipped", sorted(statements() | built()))
def test_what_this_program_asks_for_is_known(shipped: str) -> None:
    parts = re.split(r"%(?:\d\$)?[IsL]", shipped)
    for words in product(WORDS, repeat=len(parts) - 1):
        if answered.is_known("".join(map("".join, zip(parts, (*words, ""), strict=True))), servers={"c"}):
            return
    pytest.fail("a server's answer would not be printed")


@pytest.mark.parametrize("text", OURS)
def test_our_statements_are_known_with_any_names_in_their_places(text: str) -> None:
    assert answered.is_known(text, servers={"east"}, courses={KEEP})


@pytest.mark.parametrize("text", FORGED)
def test_nothing_else_is(text: str) -> None:
    assert not answered.is_known(text, servers={"east"}, courses={KEEP})


@pytest.mark.parametrize("text", FORGED)
def test_in_its_place_is_said_where_to_look(text: str) -> None:
    row = {"schema_name": "c", "object": "c.auth_user", "kind": "copy", "difference": "differs", "fix": text}
    (difference,) = server_differences("east", [row], {}, [])
    (finding,) = fit([Finding("slot", "east", "attention", "found", None, text)], courses={KEEP})
    for fix in (difference.fix, finding.fix):
        assert fix is not None
        assert re.fullmatch("look at it on server east: [a-z, ]+", fix)


@pytest.mark.parametrize(("text", "shown"), [
    ("select pg_drop_replication_slot('x1');", "on server hub: select pg_drop_replication_slot('x1');"),
    ("sed -i '3s/^/# /' /srv/pg_hba.conf; then: select pg_reload_conf();",
     "on server hub: sed -i '3s/^/# /' /srv/pg_hba.conf; then: on server hub: select pg_reload_conf();"),
    ("drop publication rollbook_mid; then: rollbook replication resync 'a'",
     "on server hub: drop publication rollbook_mid; then: rollbook replication resync 'a'"),
    ("rollback prepared 'x'; or: commit prepared 'x';",
     "on server hub: rollback prepared 'x'; or: on server hub: commit prepared 'x';"),
    ("on server east: alter subscription s enable;", "on server east: alter subscription s enable;"),
    (answered.look("hub"), answered.look("hub")),
])  # fmt: skip
def test_each_step_for_a_server_names_it(text: str, shown: str) -> None:
    for where, fix in (("hub", shown), ("portal", text)):
        assert [each.fix for each in placed([Finding("slot", where, "attention", "", None, text)], {"hub"})] == [fix]


def test_a_statement_for_psql_ends_as_one() -> None:
    """A fix without a semicolon is for a shell."""
    row = {"schema_name": "c", "object": "c.t", "kind": "copy", "difference": "differs", "fix": "drop index c.own"}
    (difference,) = server_differences("east", [row], {}, [])
    assert difference.fix == answered.look("east")


@pytest.mark.parametrize("own", [
    Own(4, "index own", "\\! touch x", None),
    Own(4, "index own", "create index own on c.t (a)", None, after=["\\! touch x"]),
    Own(4, "index own\nrollbook user grant u1 --superuser --yes", "create index own on c.t (a)", None),
])  # fmt: skip
def test_psql_gets_no_command_of_its_own_from_a_server(own: Own) -> None:
    sides = Sides(Server("east", "dbname=e", None, ""), Server("west", "dbname=w", None, ""), "c")
    assert commands(sides, [own], set(), set(), []) == {}
    carried = Own(4, "index own", "create index own on c.t (a)", None)
    assert list(commands(sides, [carried], set(), set(), [])) == ["index own"]
