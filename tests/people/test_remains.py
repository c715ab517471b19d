"""What a removal leaves is named, with what takes it away: in a dry run as in earnest."""

from __future__ import annotations

import json
import shlex
from typing import Any

from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result, rows
from tests.school import Rollbook

Db = Connection[Any]


def places(answer: Result) -> dict[str, tuple[int | None, str | None]]:
    """What remains, by place: number and remedy."""
    return {each["place"]: (each["count"], each["fix"]) for row in answer.data for each in row["remains"]}


def test_a_deleted_user(rollbook: Rollbook, furnished: Db) -> None:
    furnished.execute(
        f"""insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll)
        values ('Ada@example.org', '{KEEP}', true), ('ada@example.org', '{REMOVE}', false);
        update rollbook.discussion set active = true;
        update portal.student_testcenteruser set uploaded_at = now() + interval '1 minute';
        insert into rollbook.exchange_file (direction, kind, name, os_user) values ('out', 'ead', 'ead-1.dat', 'x');
        create table {KEEP_SCHEMA}.post (author bigint);
        select rollbook.pause_course('{REMOVE}')"""
    )
    assert rollbook("user", "update", "ada", "--goals", "x").code == 0
    dry = rollbook("user", "delete", "ada", "-n", "--json")
    asked = rollbook("user", "delete", "ada", "--json")
    shown = rollbook("user", "delete", "ada", "-n")
    done = rollbook("user", "delete", "ada", "--confirm", "ada", "--json")
    assert places(dry) == places(done) == {
        f"allowed list of {KEEP}": (1, f"rollbook allowed remove '{KEEP}' 'Ada@example.org'"),
        f"allowed list of {REMOVE}": (1, f"rollbook allowed remove '{REMOVE}' 'ada@example.org'"),
        "history": (1, "delete from rollbook.history where user_id = 101"),
        "test centre": (1, None),
        "exchange files": (2, "rollbook pearson list"),
        "discussion service": (1, "rollbook discussion sync"),
        f"course {REMOVE}": (1, f"rollbook course resume '{REMOVE}'"),
        f"schema {KEEP_SCHEMA}": (1, None),
    }  # fmt: skip
    error = json.loads(asked.err.splitlines()[-1])["error"]
    assert (asked.code, [each["place"] for each in error["details"]["remains"]]) == (6, list(places(done)))
    assert "remains: history: 1, entries of the account; delete from rollbook.history where user_id = 101" in shown.err
    for place, (_, fix) in places(done).items():
        if "rollbook allowed" in str(fix) or "rollbook course" in str(fix):
            assert rollbook(*shlex.split(str(fix))[1:]).code == 0, place
    assert rows(furnished, "portal.student_courseenrollmentallowed", "email") == [("fay@example.org",)]
    assert rows(furnished, "course_edx_toy_2013_spring.auth_user", "id") == []
    assert rollbook("user", "delete", "eve", "--confirm", "eve", "--json").data[0]["remains"] != []  # the service


def test_an_ended_enrollment(rollbook: Rollbook, furnished: Db) -> None:
    furnished.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id) values (%s, %s), (%s, %s)",
        ["ada@example.org", KEEP, "bob@example.org", KEEP],
    )
    dry = rollbook("enrollment", "remove", KEEP, "ada", "eve", "-n", "--json")
    assert places(dry) == {
        f"course {KEEP}": (1, None),
        f"allowed list of {KEEP}": (1, f"rollbook allowed remove '{KEEP}' 'ada@example.org'"),
        "test centre": (1, "rollbook authorization cancel 'edXexam000000000101'"),
    }
    assert dry.data[1]["remains"] == []
    assert places(rollbook("enrollment", "move", "--from", KEEP, "--to", REMOVE, "ada", "-n", "--json")) == places(dry)
    roster = ("enrollment", "roster", KEEP, "-", "--max-removals", "100%", "--yes", "-n")
    assert places(rollbook(*roster, "--json", stdin=b"user\nbob\n")) == places(dry)
    together = rollbook(*roster, stdin=b"user\n").err.splitlines()
    assert [line for line in together if line.startswith("remains:")] == [
        f"remains: course {KEEP}: 2, copies of user and profile: on_leave is keep",
        f"remains: allowed list of {KEEP}: 2, e-mail addresses: they may enroll again; "
        f"rollbook allowed list --with-account --course '{KEEP}'",
        "remains: test centre: 1, authorizations for exams of MITx/6.002x/2012_Fall; "
        "rollbook authorization cancel 'edXexam000000000101'",
    ]
    assert rollbook("enrollment", "remove", REMOVE, "ada", "--json").data[0]["remains"] == []


def test_a_removed_address_a_cancelled_authorization_and_a_course(rollbook: Rollbook, furnished: Db) -> None:
    furnished.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id) values ('ADA@example.org', %s)", [KEEP]
    )
    assert places(rollbook("course", "delete", KEEP, "-n", "--json")) == {
        "enrollments": (2, f"delete from portal.student_courseenrollment where course_id = '{KEEP}'"),
        "allowed list": (2, f"delete from portal.student_courseenrollmentallowed where course_id = '{KEEP}'"),
        "test centre": (1, "rollbook authorization cancel 'edXexam000000000101'"),
        "exams": (1, f"delete from rollbook.exam where course_id = '{KEEP}'"),
    }
    removed = rollbook("allowed", "remove", KEEP, "ada@example.org", "fay@example.org", "--json")
    assert places(removed) == {f"course {KEEP}": (1, f"rollbook enrollment remove '{KEEP}' 'ada'")}
    cancel = ("authorization", "cancel", "edXexam000000000101", "--json")
    assert places(rollbook(*cancel, "-n")) == {}
    furnished.execute("update portal.student_testcenterregistration set uploaded_at = now()")
    assert places(rollbook(*cancel)) == {"test centre": (1, "rollbook pearson export ead -o DIR")}
