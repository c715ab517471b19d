"""`rollbook pearson import`, list, show, dump, report: answers meet the uploads that they answer.

Numbers in the names are those of the original's defects.

`pearson list` shows rollbook.exchange_file_status.
"""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from rollbook.system.demo.centre import Centre
from tests.core.test_terminal import terminal
from tests.program import Result, snapshot
from tests.school import Rollbook
from tests.testcentre.test_pearson_export import Paused, authorize, candidates, records, users

CDD = "ClientCandidateID\tCandidateID\tStatus\tDate\tMessage\r\n"
EAD = "ClientAuthorizationID\tClientCandidateID\tStatus\tDate\tMessage\r\n"  # as seen at another client of Pearson
STATE = """
select upload_status, upload_error_message, processed_at, candidate_id, confirmed_at is not null
from portal.student_testcenteruser order by id
"""
Db = Connection[Any]


def key(user: int) -> str:
    """The client id of a user's candidate."""
    return f"edX{user:012}"


@pytest.fixture
def sent(rollbook: Rollbook, db: Db, tmp_path: Path) -> datetime:
    """Two candidates, one authorization each, all sent; return the second in which they were."""
    users(db, 2)
    candidates(db, 1, 2)
    authorize(db, 1)
    authorize(db, 2)
    assert rollbook("pearson", "export", "-o", str(tmp_path / "out"), "-q").code == 0
    row = db.execute("select max(uploaded_at) from portal.student_testcenterregistration").fetchone()
    assert row is not None
    at: datetime = row[0].astimezone(UTC)
    return at.replace(microsecond=0)


class Mail:
    """Archives that come in."""

    def __init__(self, rollbook: Rollbook, folder: Path) -> None:
        self.rollbook, self.folder, self.count = rollbook, folder, 0

    def pack(self, **members: str | bytes) -> str:
        """Make an archive of members `vcdc_1="..."`."""
        self.count += 1
        path = self.folder / f"in-{self.count}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name.replace("_", "-") + ".dat", content)
        return str(path)

    def read(self, *archives: str, **members: str | bytes) -> Result:
        """Import archives, or one with these members."""
        return self.rollbook("pearson", "import", *(archives or [self.pack(**members)]), "--json")


@pytest.fixture
def mail(rollbook: Rollbook, tmp_path: Path) -> Mail:
    """Archives that come in."""
    return Mail(rollbook, tmp_path)


def answer(which: str, status: str, at: datetime, message: str = "", number: str = "") -> str:
    """A line of a confirmation file."""
    return f"{which}\t{number}\t{status}\t{at:%Y/%m/%d %H:%M:%S}\t{message}\r\n"


def test_answers_are_applied_and_told(mail: Mail, db: Db, sent: datetime) -> None:
    later = sent + timedelta(minutes=1)
    result = mail.read(
        vcdc_1=CDD
        + answer(key(1), "Accepted", later, "WARNING: short name", "71")
        + answer(key(2), "Error", later, "No"),
        eac_1=EAD + answer("edXexam000000000001", "Accepted", later),
    )
    assert (result.code, result.column("outcome")) == (0, ["accepted", "rejected", "accepted"]), result
    assert result.column("line") == [2, 3, 2]
    assert result.column("member") == ["vcdc-1.dat", "vcdc-1.dat", "eac-1.dat"]
    assert result.column("detail") == [  # [19] what is found is no error
        "Found demographics record for user user1; WARNING: short name",
        "Found demographics record for user user2; No",
        "Found authorization record for user user1",
    ]
    assert db.execute(STATE).fetchall() == [
        ("Accepted", "WARNING: short name", later, 71, True),
        ("Error", "No", later, None, True),
    ]
    found = db.execute(
        "select upload_status, accepted_at, processed_at from portal.student_testcenterregistration order by id"
    )
    assert found.fetchall() == [("Accepted", later, later), ("", None, None)]
    due = "select count(*) from rollbook.candidate_status where needs_uploading"
    assert db.execute(due).fetchone() == (0,)  # an answer makes nothing due


@pytest.mark.parametrize("seconds", [0, 1])
def test_18_a_repeated_answer_changes_nothing(mail: Mail, db: Db, sent: datetime, seconds: int) -> None:
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Error", sent + timedelta(seconds=seconds), "No"))
    assert mail.read(archive).column("outcome") == ["rejected"]
    before = db.execute("select * from portal.student_testcenteruser order by id").fetchall()
    again = mail.read(archive)
    assert (again.code, again.column("outcome")) == (0, ["unchanged"])
    assert db.execute("select * from portal.student_testcenteruser order by id").fetchall() == before


def test_18_an_older_answer_never_overwrites_a_newer_one(mail: Mail, db: Db, sent: datetime) -> None:
    newer = CDD + answer(key(1), "Accepted", sent + timedelta(hours=2))
    older = CDD + answer(key(1), "Error", sent + timedelta(hours=1), "old")
    assert mail.read(vcdc_1=newer).column("outcome") == ["accepted"]
    assert mail.read(vcdc_1=older).column("outcome") == ["older"]
    assert db.execute(STATE).fetchall()[0][:2] == ("Accepted", "")
    # within one archive and within one file, whatever the order
    both = (
        CDD + answer(key(2), "Accepted", sent + timedelta(hours=2)) + answer(key(2), "Error", sent + timedelta(hours=1))
    )
    assert mail.read(vcdc_1=both, vcdc_2=newer).column("outcome") == ["accepted", "older", "unchanged"]
    assert db.execute(STATE).fetchall()[1][0] == "Accepted"


def test_18_an_answer_to_an_old_version_leaves_the_newer_edit_pending(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    db.execute("update portal.student_testcenteruser set first_name = 'Edited' where user_id = 1")
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Accepted", sent))
    result = mail.read(archive)
    assert (result.code, result.column("outcome")) == (0, ["outdated"])
    status = "select demographics_status, needs_uploading from rollbook.candidate_status where user_id = 1"
    assert db.execute(status).fetchone() == ("Pending", True)
    export = rollbook("pearson", "export", "cdd", "-o", str(tmp_path / "out"), "--json")
    assert export.row["rows"] == 1
    db.execute(
        "update portal.student_testcenteruser set uploaded_at = uploaded_at + interval '1 hour' where user_id = 1"
    )
    assert mail.read(archive).column("outcome") == ["older"]
    assert db.execute(status).fetchone() == ("Pending", False)


def test_17_after_a_rejected_add_comes_an_add_and_after_an_accepted_one_an_update(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    one, two = "edXexam000000000001", "edXexam000000000002"

    def corrected(code: str) -> dict[str, str]:
        db.execute("update portal.student_testcenterregistration set accommodation_code = %s", [code])
        result = rollbook("pearson", "export", "ead", "-o", str(tmp_path / "out"), "--json")
        found = records(tmp_path / "out" / result.row["file"])
        return {row["ClientAuthorizationID"]: row["AuthorizationTransactionType"] for row in found}

    later = sent + timedelta(minutes=1)
    mail.read(eac_1=EAD + answer(one, "Error", later, "bad code") + answer(two, "Accepted", later))
    assert corrected("EQPMNT") == {one: "Add", two: "Update"}
    # a rejected Update stays an Update
    mail.read(eac_1=EAD + answer(two, "Error", later + timedelta(minutes=1), "no"))
    assert corrected("ET12ET") == {one: "Add", two: "Update"}


def test_17_what_was_edited_meanwhile_is_known_to_pearson_if_it_was_accepted(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    db.execute("update portal.student_testcenterregistration set accommodation_code = 'EQPMNT'")
    at = sent + timedelta(minutes=1)
    result = mail.read(
        eac_1=EAD + answer("edXexam000000000001", "Accepted", at) + answer("edXexam000000000002", "Error", at, "no")
    )
    assert result.column("outcome") == ["outdated", "outdated"]
    states = "select registration_status, needs_uploading from rollbook.authorization_status"
    assert db.execute(states).fetchall() == [("Pending", True)] * 2
    export = rollbook("pearson", "export", "ead", "-o", str(tmp_path / "out"), "--json")
    assert [row["AuthorizationTransactionType"] for row in records(tmp_path / "out" / export.row["file"])] == [
        "Update",
        "Add",
    ]


def test_17_an_accepted_delete_is_forgotten_by_pearson(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    mail.read(eac_1=EAD + answer("edXexam000000000001", "Accepted", sent + timedelta(seconds=1)))
    where = "where client_authorization_id = 'edXexam000000000001'"
    db.execute(f"update portal.student_testcenterregistration set cancelled_at = clock_timestamp() {where}")
    export = rollbook("pearson", "export", "ead", "-o", str(tmp_path / "out"), "--json")
    assert [row["AuthorizationTransactionType"] for row in records(tmp_path / "out" / export.row["file"])] == ["Delete"]
    mail.read(eac_1=EAD + answer("edXexam000000000001", "Accepted", sent + timedelta(hours=1)))
    found = db.execute(f"select upload_status, accepted_at from portal.student_testcenterregistration {where}")
    assert found.fetchall() == [("Accepted", None)]


def test_19_wrong_lines_are_told_and_the_others_applied(mail: Mail, db: Db, sent: datetime) -> None:
    users_due = "insert into portal.auth_user (id, username, email) values (3, 'user3', 'user3@edx.org')"
    db.execute(users_due)
    candidates(db, 3)
    later = sent + timedelta(minutes=1)
    result = mail.read(
        vcdc_1=(
            CDD + answer("edX999999999999", "Accepted", later) + answer(key(2), "Perhaps", later) + "edX1\tAccepted\r\n"
            + f"{key(2)}\t\tAccepted\tyesterday\t\r\n" + answer("", "Error", later, "line 4 unreadable")
            + answer(key(3), "Accepted", later) + answer(key(1), "Accepted", later, "", "many")
        ),
        eac_1=EAD + answer("edXexam999999999999", "Accepted", later),
    )  # fmt: skip
    assert result.code == 5
    assert result.column("outcome") == [
        "unknown", "refused", "refused", "refused", "refused", "never sent", "accepted", "unknown"
    ]  # fmt: skip
    details = result.column("detail")
    assert details[0] == "Failed to find record for client_candidate_id edX999999999999"
    assert details[4].startswith("Error in CDD file processing (")
    assert details[4].endswith("): line 4 unreadable")
    assert 'CandidateID "many" is not a valid number' in details[6]
    assert details[7] == "Failed to find record for client_auth_id edXexam999999999999"
    assert [row[0] for row in db.execute(STATE).fetchall()] == ["Accepted", "", ""]


def test_14_19_a_refused_archive_changes_nothing_and_neither_does_the_good_one_beside_it(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    good = mail.pack(vcdc_1=CDD + answer(key(1), "Accepted", sent))
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"PK no zip")
    before = snapshot(db)
    for archives in (
        [good, str(bad)],
        [str(bad), good],
        [mail.pack(vcdc_1=CDD, notes="x")],
        [str(tmp_path / "no.zip")],
    ):
        result = rollbook("pearson", "import", *archives)
        assert (result.code, result.out) == (1, ""), result
    assert snapshot(db) == before
    dry = rollbook("pearson", "import", good, "-n", "--json")
    assert (dry.code, dry.column("outcome"), snapshot(db) == before) == (0, ["accepted"], True)


def test_a_long_message_is_cut_in_the_record_and_whole_in_the_history(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime
) -> None:
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Error", sent, "x" * 600))
    assert mail.read(archive).code == 0
    assert [row[1] for row in db.execute(STATE).fetchall()] == ["x" * 512, ""]
    batch = next(row["batch"] for row in rollbook("pearson", "list", "--json").data if row["kind"] == "vcdc")
    assert rollbook("pearson", "show", str(batch), "--json").column("message") == ["x" * 600]
    assert mail.read(archive).column("outcome") == ["unchanged"]


def test_24_every_file_is_kept_with_its_rows_and_outcome(
    rollbook: Rollbook, mail: Mail, sent: datetime, tmp_path: Path
) -> None:
    mail.read(vcdc_1=CDD + answer(key(1), "Accepted", sent, "", "7") + answer(key(9), "Accepted", sent))
    listed = rollbook("pearson", "list", "--json").data
    shape = ("kind", "rows", "accepted", "rejected", "waiting", "set_aside")
    assert [tuple(row[name] for name in shape) for row in listed] == [
        ("vcdc", 2, 1, 0, 0, 0), ("ead", 2, 0, 0, 2, 0), ("cdd", 2, 1, 0, 1, 0)
    ]  # fmt: skip
    shown = rollbook("pearson", "show", str(listed[2]["batch"]), "--json").data
    assert [(row["key"], row["outcome"], row["status"]) for row in shown] == [
        (key(1), "accepted", "Accepted"), (key(2), "sent", None)
    ]  # fmt: skip
    assert [row["kind"] for row in rollbook("pearson", "list", "--kind", "cdd", "--json").data] == ["cdd"]
    assert rollbook("pearson", "list", "--max-age", "1").code == 0
    assert {rollbook("pearson", "list", "--max-age", odd).code for odd in ("inf", "nan", "1e300", "-1")} == {2}
    late = rollbook("pearson", "list", "--max-age", "0")
    assert (late.code, "2 files waited longer" in late.err) == (4, True)
    # what is sent again waits in the later file only
    assert rollbook("pearson", "export", "cdd", "-o", str(tmp_path / "out"), "--all").code == 0
    assert [row["waiting"] for row in rollbook("pearson", "list", "--kind", "cdd", "--json").data] == [2, 0]
    unknown = rollbook("pearson", "show", "4711")
    assert (unknown.code, "there is no file 4711" in unknown.err) == (1, True)


def test_an_import_waits_for_an_edit_under_way(mail: Mail, db: Db, dsn: str, sent: datetime) -> None:
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Accepted", sent))
    with psycopg.connect(dsn) as editor:
        editor.execute("update portal.student_testcenteruser set first_name = 'Edited' where user_id = 1")
        reading = Paused(db, dsn, "import", archive)
        reading.wait_until_blocked()
        editor.commit()
    assert reading.end().column("outcome") == ["outdated"]
    status = "select demographics_status, needs_uploading from rollbook.candidate_status where user_id = 1"
    assert db.execute(status).fetchone() == ("Pending", True)


def test_answers_to_a_large_file_that_was_just_sent_take_no_time(rollbook: Rollbook, db: Db, tmp_path: Path) -> None:
    with db.transaction():
        db.execute("set local session_replication_role = replica")
        users(db, 8_000)
        candidates(db, *range(1, 8_001))
    out = tmp_path / "out"
    assert rollbook("pearson", "export", "cdd", "-o", str(out), "-q").code == 0
    archive = Centre().answer(out.iterdir(), tmp_path / "answers.zip", datetime.now(UTC))
    result = rollbook("pearson", "import", str(archive), "--timeout", "4", "-q")  # for each statement
    assert (result.code, result.out.count("\taccepted\t")) == (0, 8_000)


def test_the_dump_has_the_originals_keys(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    db.execute("""update portal.student_testcenterregistration set accommodation_request = 'More time'
        where client_authorization_id = 'edXexam000000000002'""")
    mail.read(vcdc_1=CDD + answer(key(1), "Error", sent, "No phone"))
    first, second = rollbook("pearson", "dump").data
    common = {
        "last_name": "TestLast", "first_name": "TestFirst", "course_id": "org1/course1/term1",
        "exam_series_code": "exam1", "accommodation_code": "", "registration_status": "Pending",
    }  # fmt: skip
    assert first == common | {
        "username": "user1", "email": "user1@edx.org", "client_candidate_id": key(1),
        "client_authorization_id": "edXexam000000000001", "accommodation_request": "",
        "demographics_status": "Rejected", "accommodation_status": "Skipped", "demographics_error": "No phone",
    }  # fmt: skip
    assert second == common | {
        "username": "user2", "email": "user2@edx.org", "client_candidate_id": key(2),
        "client_authorization_id": "edXexam000000000002", "accommodation_request": "More time",
        "demographics_status": "Pending", "accommodation_status": "Pending", "needs_uploading": True,
    }  # fmt: skip
    assert [row["username"] for row in rollbook("pearson", "dump", "--accommodation-pending").data] == ["user2"]
    assert rollbook("pearson", "dump", "--exam", "exam2").data == []
    assert rollbook("authorization", "cancel", "edXexam000000000002").code == 0
    assert rollbook("pearson", "dump", "--accommodation-pending").data == []
    target = tmp_path / "dump.json"
    assert rollbook("pearson", "dump", "--course", "org1/course1/term1", "-o", str(target)).out == ""
    assert target.read_text().startswith('[\n  {\n    "username": "user1"')


def test_the_reports(rollbook: Rollbook, mail: Mail, db: Db, sent: datetime) -> None:
    db.execute("""update portal.student_testcenterregistration set accommodation_request = 'More time'
        where client_authorization_id = 'edXexam000000000002'""")
    db.execute("""update portal.student_testcenterregistration set eligibility_appointment_date_first = '2013-12-30'
        where client_authorization_id = 'edXexam000000000001'""")
    mail.read(vcdc_1=CDD + answer(key(1), "Error", sent, "No phone"))
    assert [tuple(row.values()) for row in rollbook("pearson", "report", "rejected", "--json").data] == [
        ("candidate", key(1), "user1", f"{sent:%Y-%m-%dT%H:%M:%SZ}", "No phone")
    ]
    waiting = rollbook("pearson", "report", "waiting", "--json").data
    assert sorted((row["what"], row["username"], row["waits"]) for row in waiting) == [
        ("authorization", "user1", "to be sent"), ("authorization", "user2", "to be sent"),
        ("candidate", "user2", "to be answered"),
    ]  # fmt: skip
    (request,) = rollbook("pearson", "report", "accommodation", "--json").data
    assert (request["username"], request["request"]) == ("user2", "More time")
    days = rollbook("pearson", "report", "appointments", "--json").data
    assert [(row["day"], row["authorizations"]) for row in (days[0], days[-1])] == [
        ("2013-01-01", 1),
        ("2013-12-31", 2),
    ]
    table = rollbook("pearson", "report", "rejected", "--format", "table")
    assert (table.code, "No phone" in table.out) == (0, True)
    assert rollbook("pearson", "report", "nothing").code == 2


def test_18_two_answers_of_one_second_do_not_take_turns(mail: Mail, db: Db, sent: datetime) -> None:
    at = sent + timedelta(minutes=1)
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Error", at, "A") + answer(key(1), "Accepted", at, "B"))
    assert mail.read(archive).code == 0
    before = db.execute(STATE).fetchall()
    for _ in range(2):
        assert mail.read(archive).column("outcome") == ["unchanged"] * 2
        assert db.execute(STATE).fetchall() == before


def test_19_a_quote_that_is_not_closed_swallows_no_answer(mail: Mail, db: Db, sent: datetime) -> None:
    later = sent + timedelta(minutes=1)
    before = db.execute(STATE).fetchall()
    refused = mail.read(vcdc_1=CDD + answer(key(1), "Error", later, '"Jr.') + answer(key(2), "Accepted", later))
    assert (refused.code, "an unclosed quote" in refused.err) == (1, True)
    assert db.execute(STATE).fetchall() == before


def test_19_an_answer_from_the_future_is_refused(mail: Mail, db: Db, sent: datetime) -> None:
    result = mail.read(vcdc_1=CDD + answer(key(1), "Error", sent.replace(year=2206)) + answer(key(2), "Accepted", sent))
    assert (result.code, result.column("outcome")) == (5, ["refused", "accepted"])
    assert "is in the future" in result.data[0]["detail"]
    assert [row[0] for row in db.execute(STATE)] == ["", "Accepted"]


def test_17_a_rejected_delete_goes_out_again_with_all(
    rollbook: Rollbook, mail: Mail, db: Db, sent: datetime, tmp_path: Path
) -> None:
    which = "edXexam000000000001"
    assert rollbook("authorization", "cancel", which).code == 0
    assert rollbook("pearson", "export", "ead", "-o", str(tmp_path / "delete")).code == 0
    later = datetime.now(UTC) + timedelta(seconds=2)
    assert mail.read(eac_1=EAD + answer(which, "Error", later)).column("outcome") == ["rejected"]
    assert rollbook("pearson", "export", "ead", "--all", "-o", str(tmp_path / "again")).code == 0
    (file,) = (tmp_path / "again").iterdir()
    assert f"Delete\t\t{which}" in file.read_text()
    (row,) = db.execute(
        "select uploaded_at > %s from rollbook.authorization_status where cancelled_at is not null", [sent]
    )
    assert row == (True,)


def test_a_number_that_comes_with_a_repeated_answer_is_kept(mail: Mail, db: Db, sent: datetime) -> None:
    later = sent + timedelta(minutes=1)
    mail.read(vcdc_1=CDD + answer(key(1), "Accepted", later), eac_1=EAD + answer("edXexam000000000001", "Error", later))
    again = mail.read(
        vcdc_1=CDD + answer(key(1), "Accepted", later, number="71"),
        eac_1=EAD.replace("ClientCandidateID", "AuthorizationID")
        + answer("edXexam000000000001", "Error", later, number="81"),
    )
    assert again.column("outcome") == ["unchanged"] * 2
    assert db.execute(STATE).fetchall()[0][3] == 71
    numbers = "select authorization_id from portal.student_testcenterregistration order by id limit 1"
    assert db.execute(numbers).fetchone() == (81,)


def test_updated_at_is_the_latest_change_by_anyone(mail: Mail, db: Db, sent: datetime) -> None:
    def updated_at() -> datetime:
        row = db.execute("select updated_at from portal.student_testcenteruser where user_id = 1").fetchone()
        assert row is not None
        at: datetime = row[0]
        return at

    stamped = updated_at()
    assert stamped >= sent - timedelta(seconds=1)  # candidates are sent first
    mail.read(vcdc_1=CDD + answer(key(1), "Accepted", sent))
    answered = updated_at()
    db.execute("update portal.auth_user set email = 'new@edx.org' where id = 1")
    assert stamped < answered < updated_at()


def test_a_person_sees_at_80_columns_what_became_of_a_line(mail: Mail, dsn: str, sent: datetime) -> None:
    archive = mail.pack(vcdc_1=CDD + answer(key(1), "Error", sent, "Phone: no digits"))
    code, screen = terminal("pearson", "import", archive, "-n", "-d", dsn, width=80)
    assert (code, "DETAIL" in screen, "rejected" in screen) == (0, True, True), screen
