"""What `schema check` finds on course servers, and what `status` reports of a stream while routing is off."""

from __future__ import annotations

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE_SCHEMA
from tests.replication.conftest import Site
from tests.system.test_schema_check import CODE, COPIES, COURSE_CODE, GRANTS, Fault

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it

A = KEEP_SCHEMA
SAME = {
    "all on a copy",
    "K2 references on a copy",
    "H1 a default",
    "H1 a domain",
    "H1 an index on an expression",
    "a trigger on a copy",
    "a rule",
    "K2 a foreign key with a cast of its own",
    "H6 the owner of a copy",
    "the owner of a schema",
    "a replica identity of all columns",
    "no primary key",
    "another collation",
    "a missing column",
    "the guard for replicas only",
}
FAULTS = [
    *(fault for fault in (*GRANTS, *CODE, *COPIES) if fault.name in SAME),
    Fault(
        "a trigger on the heartbeat",
        "grant trigger on rollbook.heartbeat to sc_app",
        "rollbook.heartbeat",
        "grant",
        "sc_app may add triggers",
    ),
    Fault(
        "a role that writes as a replica",
        "alter role sc_app set session_replication_role = replica",
        "role sc_app",
        "setting",
        "session_replication_role = replica",
    ),
]


@pytest.fixture
def streaming(streaming: Site) -> Site:
    """The same with sequences above the ids with which its rows came."""
    streaming.portal.execute("select setval(seqrelid, 1000) from pg_sequence")
    return streaming


def test_the_check_asks_each_server_and_its_fixes_work_there(streaming: Site) -> None:
    assert streaming.run("schema", "check", "--json").data == []
    for role in ("sc_app", "sc_course"):
        streaming.server.execute(f"do $$ begin create role {role}; exception when duplicate_object then null; end $$")
    streaming.server.execute(COURSE_CODE.encode())
    assert streaming.run("schema", "check", "--json").data == []
    for fault in FAULTS:
        streaming.server.execute(fault.statements.encode())
        answer = streaming.run("schema", "check", "--json")
        found = [
            row
            for row in answer.data
            if (row["object"], row["kind"]) == (fault.object, f"{fault.kind} on server east")
            and fault.difference in row["difference"]
        ]
        assert (answer.code, len(found)) == (4, 1), (fault.name, answer.data)
        for fix in dict.fromkeys([found[0]["fix"], *(row["fix"] for row in answer.data)]):  # then what came with it
            streaming.server.execute(fix.encode())
        streaming.server.execute(f"alter table {A}.auth_user drop column if exists note; drop table if exists {A}.note")
        left = streaming.run("schema", "check", "--json").data
        assert left == [], fault.name


def test_a_copy_that_is_gone_on_a_server_has_a_command(streaming: Site) -> None:
    streaming.server.execute(f"drop table {A}.auth_userprofile; drop schema {REMOVE_SCHEMA} cascade")
    answer = streaming.run("schema", "check", "--json")
    assert answer.code == 4
    assert {(row["object"], row["kind"]) for row in answer.data} == {
        (f"{A}.auth_userprofile", "copy on server east"),
        (REMOVE_SCHEMA, "schema on server east"),
    }
    assert {row["fix"].split("'")[0].split(" ")[2] for row in answer.data} == {"resync"}


def test_a_server_that_does_not_answer_is_named_and_the_exit_code_is_3(streaming: Site) -> None:
    streaming.portal.execute("update rollbook.server set admin_dsn = 'host=/nonexistent dbname=x'")
    try:
        answer = streaming.run("schema", "check", "--json")
        assert (answer.code, answer.row["object"], answer.row["kind"]) == (3, "east", "server")
        assert answer.row["fix"] == "rollbook server ping east"
    finally:
        streaming.portal.execute("update rollbook.server set admin_dsn = %s", [streaming.server_dsn])


@pytest.mark.parametrize(("statement", "state"), [
    ("alter table portal.student_courseenrollment disable trigger user", "unknown"),
    (f"alter table {A}.auth_user disable trigger rollbook_guard_copy", "unknown"),
])  # fmt: skip
def test_a_course_on_a_server_is_not_ok_while_routing_is_off(streaming: Site, statement: str, state: str) -> None:
    streaming.wait()
    assert streaming.states()[KEEP] == "ok"
    streaming.portal.execute(statement.encode())
    assert streaming.states()[KEEP] == state
    assert streaming.run("status", "--json").code == 4
