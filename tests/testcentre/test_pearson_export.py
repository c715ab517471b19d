"""`rollbook pearson export`: formats, what is due, the stamp, names, records set aside, races and crashes.

P1-P8 are the scenarios of the original's own test, [n] are its defects.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.program import PROGRAM, Result, snapshot
from tests.school import Rollbook

CDD_HEADER = (
    "ClientCandidateID\tFirstName\tLastName\tMiddleName\tSuffix\tSalutation\tEmail\tAddress1\tAddress2\tAddress3\tCity\t"
    "State\tPostalCode\tCountry\tPhone\tExtension\tPhoneCountryCode\tFAX\tFAXCountryCode\tCompanyName\tLastUpdate\r\n"
)
EAD_HEADER = (
    "AuthorizationTransactionType\tAuthorizationID\tClientAuthorizationID\tClientCandidateID\tExamAuthorizationCount\t"
    "ExamSeriesCode\tAccommodations\tEligibilityApptDateFirst\tEligibilityApptDateLast\tLastUpdate\r\n"
)
CANDIDATE = """
insert into portal.student_testcenteruser (
    user_id, client_candidate_id, user_updated_at, first_name, last_name, address_1, city, state, postal_code, country,
    phone, phone_country_code
)
select
    u.id, 'edX' || lpad(u.id::text, 12, '0'), '2013-01-02 03:04:05+00', 'TestFirst', 'TestLast', 'Test Address',
    'TestCity', 'Alberta', 'A0B 1C2', 'CAN', '252-1866', '1'
from portal.auth_user as u where u.id = any(%s) order by u.id
"""
AUTHORIZATION = """
insert into portal.student_testcenterregistration (
    testcenter_user_id, course_id, user_updated_at, client_authorization_id, exam_series_code,
    eligibility_appointment_date_first, eligibility_appointment_date_last
)
select c.id, %s, '2013-01-02 03:04:05+00', %s, %s, '2013-01-01', '2013-12-31'
from portal.student_testcenteruser as c where c.user_id = %s
"""


def users(db: Connection[Any], count: int) -> None:
    """Users 1 to count, without a candidate."""
    db.execute(
        "insert into portal.auth_user (id, username, email) "
        "select n, 'user' || n, 'user' || n || '@edx.org' from generate_series(1, %s) as n",
        [count],
    )


def candidates(db: Connection[Any], *ids: int) -> None:
    """The original's good candidate, for users."""
    db.execute(CANDIDATE, [list(ids)])


def authorize(db: Connection[Any], user: int, course: str = "org1/course1/term1", exam: str = "exam1") -> str:
    """The original's good registration; return its client id."""
    number = db.execute("select count(*) from portal.student_testcenterregistration").fetchone()
    assert number is not None
    key = f"edXexam{number[0] + 1:012}"
    db.execute(AUTHORIZATION, [course, key, exam, user])
    return key


def records(path: Path) -> list[dict[str, str]]:
    """The records of a file."""
    with path.open(encoding="iso-8859-1", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def sent(result: Result, folder: Path) -> dict[str, Path]:
    """The files of one export by kind; it must have succeeded."""
    assert result.code == 0, result
    return {row["kind"]: folder / row["file"] for row in result.data}


def lines(result: Result, folder: Path, kind: str) -> int:
    """How many lines a file of one export has."""
    return sent(result, folder)[kind].read_bytes().count(b"\r\n")


def test_p4_p5_no_folder_is_a_usage_error(rollbook: Rollbook, db: Connection[Any]) -> None:
    candidates_before = snapshot(db)
    for kind in ("cdd", "ead"):
        result = rollbook("pearson", "export", kind)
        assert (result.code, result.out) == (2, "")
        assert "--output" in result.err
        assert rollbook("pearson", "export", kind, "-o", "").code == 2
    assert snapshot(db) == candidates_before


def test_p6_candidates_are_sent_once_and_again_when_changed(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    folder = tmp_path / "not" / "there"
    users(db, 1)
    assert lines(rollbook("pearson", "export", "cdd", "-o", str(folder), "--json"), folder, "cdd") == 1
    candidates(db, 1)
    assert lines(rollbook("pearson", "export", "cdd", "-o", str(folder), "--json"), folder, "cdd") == 2
    assert lines(rollbook("pearson", "export", "cdd", "-o", str(folder), "--json"), folder, "cdd") == 1
    db.execute("update portal.student_testcenteruser set first_name = 'NewTestFirst'")
    last = rollbook("pearson", "export", "cdd", "-o", str(folder), "--json")
    assert lines(last, folder, "cdd") == 2
    assert records(folder / last.row["file"])[0]["FirstName"] == "NewTestFirst"
    # [14] four exports, within a second or two, are four files
    assert len(list(folder.iterdir())) == 4
    assert lines(rollbook("pearson", "export", "cdd", "-o", str(folder), "--all", "--json"), folder, "cdd") == 2


def test_p7_authorizations_are_sent_once_and_again_when_changed(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    users(db, 1)
    candidates(db, 1)

    def exported() -> int:
        return lines(rollbook("pearson", "export", "ead", "-o", str(tmp_path), "--json"), tmp_path, "ead")

    assert exported() == 1
    authorize(db, 1)
    assert exported() == 2
    assert exported() == 1
    db.execute("update portal.student_testcenterregistration set accommodation_code = 'EQPMNT'")
    assert exported() == 2


def test_p8_13_many_candidates_and_authorizations(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 4)
    candidates(db, 1, 2, 3, 4)
    one, two = "org1/course1/term1", "org1/course2/term1"
    for user, course, exam in (
        (1, one, "exam1"), (1, two, "exam1"), (1, one, "exam2"), (2, one, "exam1"), (3, two, "exam1"),
        (4, one, "exam2"),
    ):  # fmt: skip
        authorize(db, user, course, exam)
    result = rollbook("pearson", "export", "-o", str(tmp_path), "--json")
    assert lines(result, tmp_path, "cdd") == 5
    assert lines(result, tmp_path, "ead") == 7
    assert [(row["rows"], row["set_aside"]) for row in result.data] == [(4, 0), (6, 0)]
    # [15] nothing but the stamp was written; the states are the view's
    assert db.execute("select count(*), count(distinct uploaded_at) from portal.student_testcenteruser").fetchall() == [
        (4, 1)
    ]


def test_the_bytes_of_a_file_of_candidates(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 2)
    candidates(db, 2, 1)
    db.execute("""update portal.student_testcenteruser
        set first_name = 'José "Pepe"', suffix = '\\N', company_name = '\\.' where user_id = 2""")
    db.execute("update portal.student_testcenteruser set user_updated_at = '2013-01-02 03:04:05.9+00'")
    result = rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json")
    content = sent(result, tmp_path)["cdd"].read_bytes()
    second = 'edX000000000002\t"José ""Pepe"""\tTestLast\t\t\\N\t\tuser2@edx.org\tTest Address\t\t\tTestCity\tAlberta\t'
    common = "\t252-1866\t\t1\t\t\t{}\t2013/01/02 03:04:05\r\n"
    assert content.decode("latin-1") == (
        CDD_HEADER
        + "edX000000000001\tTestFirst\tTestLast\t\t\t\tuser1@edx.org\tTest Address\t\t\tTestCity\tAlberta\tA0B 1C2\tCAN"
        + common.format("")
        + second + "A0B 1C2\tCAN" + common.format("\\.")
    )  # fmt: skip
    assert result.row["sha256"] == hashlib.sha256(content).hexdigest()
    assert sent(result, tmp_path)["cdd"].stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"cdd-\d{8}-\d{6}\.dat", result.row["file"])


def test_the_bytes_of_a_file_of_authorizations(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 4)
    candidates(db, 1, 2, 3, 4)
    for user in (1, 2, 3, 4):
        authorize(db, user)
    db.execute("""update portal.student_testcenterregistration as r set
            accommodation_code = (array['', 'EQPMNT*ET12ET', 'NONE', ''])[c.user_id],
            authorization_id = case when c.user_id = 2 then 77 end,
            accepted_at = case when c.user_id = 2 then now() end
        from portal.student_testcenteruser as c where c.id = r.testcenter_user_id""")
    db.execute("update portal.student_testcenterregistration set user_updated_at = '2013-01-02 03:04:05+00'")
    cancelled = (
        "update portal.student_testcenterregistration set cancelled_at = now() where client_authorization_id = %s"
    )
    db.execute(cancelled, ["edXexam000000000004"])  # never sent: nothing to take back
    result = rollbook("pearson", "export", "ead", "-o", str(tmp_path), "--json")
    tail = "\t2013/01/01\t2013/12/31\t2013/01/02 03:04:05\r\n"
    assert sent(result, tmp_path)["ead"].read_bytes().decode("latin-1") == (
        EAD_HEADER
        + "Add\t\tedXexam000000000001\tedX000000000001\t1\texam1\t" + tail
        + "Update\t77\tedXexam000000000002\tedX000000000002\t1\texam1\tEQPMNT*ET12ET" + tail
        + "Add\t\tedXexam000000000003\tedX000000000003\t1\texam1\t" + tail
    )  # fmt: skip
    # [17] what was sent and is cancelled is taken back, once; --force-add makes no Add of that
    db.execute(cancelled, ["edXexam000000000001"])
    last = rollbook("pearson", "export", "ead", "-o", str(tmp_path), "--all", "--force-add", "--json")
    assert [
        (row["AuthorizationTransactionType"], row["ClientAuthorizationID"])
        for row in records(sent(last, tmp_path)["ead"])
    ] == [("Delete", "edXexam000000000001"), ("Add", "edXexam000000000002"), ("Add", "edXexam000000000003")]
    assert rollbook("pearson", "export", "ead", "-o", str(tmp_path), "--json").row["rows"] == 0


def test_14_16_what_cannot_be_written_is_set_aside_and_the_rest_goes(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    users(db, 3)
    candidates(db, 1, 2, 3)
    with db.transaction():
        db.execute("set local session_replication_role = replica")  # as it came from before the rules
        db.execute("update portal.auth_user set email = 'žofie@edx.org' where id = 2")
    result = rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json")
    assert (result.code, result.row["rows"], result.row["set_aside"]) == (5, 2, 1)
    assert [row["ClientCandidateID"] for row in records(tmp_path / result.row["file"])] == [
        "edX000000000001",
        "edX000000000003",
    ]
    for word in ("edX000000000002", "user2", "Email: Must only use characters in Latin-1 (iso-8859-1) encoding"):
        assert word in result.err
    stamped = "select user_id, uploaded_at is not null from portal.student_testcenteruser order by 1"
    assert db.execute(stamped).fetchall() == [(1, True), (2, False), (3, True)]
    shown = rollbook("pearson", "show", str(result.row["batch"]), "--json").data
    assert [(row["key"], row["outcome"]) for row in shown] == [
        ("edX000000000001", "sent"), ("edX000000000002", "set aside"), ("edX000000000003", "sent")
    ]  # fmt: skip
    db.execute("update portal.auth_user set email = 'zofie@edx.org' where id = 2")
    again = rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json")
    assert [row["Email"] for row in records(sent(again, tmp_path)["cdd"])] == ["zofie@edx.org"]


@pytest.mark.made
def test_ids_from_before_the_rule_are_found_set_aside_and_renewed(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    users(db, 4)
    candidates(db, 1, 2, 3, 4)
    keys = [authorize(db, user) for user in (1, 2, 3, 4)]
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        db.execute("update portal.student_testcenteruser set client_candidate_id = '' where user_id = 2")
        db.execute(
            "update portal.student_testcenterregistration set client_authorization_id = e'a\\tb' "
            "where client_authorization_id = %s", [keys[2]],
        )  # fmt: skip
    found = rollbook("candidate", "check", "--json")
    assert (found.code, [(row["username"], row["field"], row["authorization"]) for row in found.data]) == (
        4, [("user2", "client_candidate_id", None), ("user3", "client_authorization_id", "a\tb")]
    )  # fmt: skip
    for kind, key, kept, aside in (
        ("cdd", "ClientCandidateID", 3, ["user2"]), ("ead", "ClientAuthorizationID", 2, ["user2", "user3"])
    ):  # fmt: skip
        result = rollbook("pearson", "export", kind, "-o", str(tmp_path), "--json")
        assert (result.code, result.row["rows"], result.row["set_aside"]) == (5, kept, len(aside))
        assert all(name in result.err for name in aside)
        assert all("\t" not in row[key] and row["ClientCandidateID"] for row in records(tmp_path / result.row["file"]))
    assert "ClientCandidateID: This field is required." in result.err
    assert "ClientAuthorizationID: Must not contain control characters." in result.err
    for statement in json.loads(found.err)["error"]["hint"].split("; "):
        db.execute(statement.removeprefix("psql: "))
    assert rollbook("candidate", "check").code == 0
    result = rollbook("pearson", "export", "-o", str(tmp_path), "--json")
    assert (result.code, [row["rows"] for row in result.data]) == (0, [1, 2])


def test_16_a_changed_email_makes_the_candidate_due(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 1)
    candidates(db, 1)
    assert rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json").row["rows"] == 1
    db.execute("update portal.auth_user set last_name = 'x'")
    assert rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json").row["rows"] == 0
    db.execute("update portal.auth_user set email = 'new@edx.org'")
    last = rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json")
    assert [row["Email"] for row in records(sent(last, tmp_path)["cdd"])] == ["new@edx.org"]


def test_a_dry_run_writes_no_file_and_stamps_nothing(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 1)
    candidates(db, 1)
    before = snapshot(db)
    folder = tmp_path / "out"
    result = rollbook("pearson", "export", "-o", str(folder), "-n", "--json")
    assert (result.code, [row["rows"] for row in result.data], folder.exists()) == (0, [1, 0], False)
    assert snapshot(db) == before


def test_a_folder_that_cannot_be_written_stamps_nothing(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path
) -> None:
    users(db, 1)
    candidates(db, 1)
    before = snapshot(db)
    (tmp_path / "file").write_text("")
    result = rollbook("pearson", "export", "-o", str(tmp_path / "file"))
    assert (result.code, result.out, "cannot write into" in result.err) == (1, "", True)
    assert snapshot(db) == before


def test_a_full_disk_stamps_nothing_and_leaves_nothing(
    rollbook: Rollbook, db: Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users(db, 1)
    candidates(db, 1)
    before = snapshot(db)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = rollbook("pearson", "export", "-o", str(tmp_path / "out"))
    assert (result.code, result.out, "No space left" in result.err) == (3, "", True)
    assert (snapshot(db), list((tmp_path / "out").iterdir())) == (before, [])


# --- races: two sessions, named steps ---------------------------------------------------------------------------------


class Paused:
    """A call of `rollbook pearson` in a process of its own, which somebody's lock holds at one of its steps."""

    def __init__(self, db: Connection[Any], dsn: str, *arguments: str) -> None:
        self.db = db
        program = [PROGRAM, "pearson", *arguments, "--json", "-d", dsn]
        self.running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_until_blocked(self) -> None:
        """Wait until it waits for a lock."""
        for _ in range(500):
            row = self.db.execute(
                "select exists (select from pg_stat_activity where application_name like 'rollbook pearson %' "
                "and wait_event_type = 'Lock' and datname = current_database())"
            ).fetchone()
            if row == (True,):
                return
            assert self.running.poll() is None, self.running.communicate()
            time.sleep(0.02)
        raise AssertionError("it waits for nothing")

    def end(self) -> Result:
        """Wait for its end."""
        out, err = self.running.communicate(timeout=60)
        return Result(self.running.returncode, out, err)


@pytest.mark.parametrize("statement", [
    "update portal.student_testcenteruser set first_name = 'Edited' where user_id = 1",
    "update portal.auth_user set email = 'edited@edx.org' where id = 1",
])  # fmt: skip
def test_15_an_edit_that_is_under_way_is_waited_for_and_is_in_the_file(
    rollbook: Rollbook, db: Connection[Any], dsn: str, tmp_path: Path, statement: str
) -> None:
    users(db, 2)
    candidates(db, 1, 2)
    with psycopg.connect(dsn) as editor:
        editor.execute(statement)  # step 1: an edit, not committed
        export = Paused(db, dsn, "export", "cdd", "-o", str(tmp_path))  # step 2: the export begins
        export.wait_until_blocked()
        editor.commit()  # step 3
    result = export.end()  # step 4
    found = records(sent(result, tmp_path)["cdd"])
    assert [(row["FirstName"], row["Email"]) for row in found if "Edited" in row.values() or "edited@edx.org" in
            row.values()] != []  # fmt: skip
    assert rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json").row["rows"] == 0


@pytest.mark.parametrize("statement", [
    "update portal.student_testcenteruser set first_name = 'Edited' where user_id = 1",
    "update portal.auth_user set email = 'edited@edx.org' where id = 1",
])  # fmt: skip
def test_15_an_edit_that_begins_after_the_export_comes_after_it_and_is_due(
    rollbook: Rollbook, db: Connection[Any], dsn: str, tmp_path: Path, statement: str
) -> None:
    users(db, 2)
    candidates(db, 1, 2)
    done = threading.Event()

    def edit() -> None:
        with psycopg.connect(dsn) as editor:
            editor.execute(statement)
        done.set()

    with psycopg.connect(dsn) as holder:
        holder.execute("lock table rollbook.history in exclusive mode")  # step 1: the export cannot end
        export = Paused(db, dsn, "export", "cdd", "-o", str(tmp_path))  # step 2: it locks, reads and stamps
        export.wait_until_blocked()
        editing = threading.Thread(target=edit)  # step 3: an edit of a record that is in the file
        editing.start()
        assert not done.wait(0.3)  # it waits
        holder.commit()  # step 4: the export ends, then the edit
    first = records(sent(export.end(), tmp_path)["cdd"])
    editing.join()
    assert [(row["FirstName"], row["Email"]) for row in first] == [
        ("TestFirst", "user1@edx.org"), ("TestFirst", "user2@edx.org")
    ]  # fmt: skip
    again = records(sent(rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json"), tmp_path)["cdd"])
    assert [row["ClientCandidateID"] for row in again] == ["edX000000000001"]
    assert {"Edited", "edited@edx.org"} & set(again[0].values())


def test_14_two_exports_at_once_are_two_files_and_send_nothing_twice(
    db: Connection[Any], dsn: str, tmp_path: Path
) -> None:
    users(db, 5)
    candidates(db, 1, 2, 3, 4, 5)
    with psycopg.connect(dsn) as holder:
        holder.execute("lock table rollbook.history in exclusive mode")
        both = [
            Paused(db, dsn, "export", "cdd", "-o", str(tmp_path)),
            Paused(db, dsn, "export", "cdd", "-o", str(tmp_path)),
        ]
        both[0].wait_until_blocked()
        time.sleep(0.5)
    files = [sent(export.end(), tmp_path)["cdd"] for export in both]
    assert len(set(files)) == 2
    assert sorted(len(records(path)) for path in files) == [0, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)


# --- crashes ----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from rollbook import cli
from rollbook.testcentre import exchange_file as pearson

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def call(*arguments, **named):
        function(*arguments, **named)
        die()
    return call

step = sys.argv.pop(1)
if step == "opened": pearson.Outgoing.write = die
elif step == "written": pearson.Outgoing.flush = die
elif step == "flushed": pearson.Outgoing.flush = after(pearson.Outgoing.flush)
elif step == "noted": pearson.Outgoing.publish = die
elif step == "renamed": pearson.Outgoing.publish = after(pearson.Outgoing.publish)
elif step == "committed":
    from rollbook.core import render
    render.rows = die
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("step", ["opened", "written", "flushed", "noted", "renamed", "committed"])
def test_14_killed_at_any_step_nothing_is_lost_or_stamped_without_a_file(
    rollbook: Rollbook, db: Connection[Any], dsn: str, tmp_path: Path, step: str
) -> None:
    users(db, 2)
    candidates(db, 1, 2)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, step, "pearson", "export", "cdd", "-o", str(tmp_path), "-d", dsn],
        check=False, capture_output=True, env=dict(os.environ), timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done
    for _ in range(100):  # until the server has seen that its client is gone
        row = db.execute("select count(*) from pg_stat_activity where application_name like 'rollbook%'").fetchone()
        if row == (0,):
            break
        time.sleep(0.02)
    stamped = db.execute("select count(*) from portal.student_testcenteruser where uploaded_at is not null").fetchone()
    visible = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert stamped == ((2,) if step == "committed" else (0,))
    # whatever has its name is whole: it can be sent
    assert [len(records(path)) for path in visible] == ([2] if step in ("renamed", "committed") else [])
    again = rollbook("pearson", "export", "cdd", "-o", str(tmp_path), "--json")
    assert again.row["rows"] == (0 if step == "committed" else 2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    everything = {row["ClientCandidateID"] for path in tmp_path.iterdir() for row in records(path)}
    assert everything == {"edX000000000001", "edX000000000002"}
