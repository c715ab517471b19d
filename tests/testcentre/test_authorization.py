"""`rollbook authorization`: dates from the exam or given, one per exam, cancelled and made again.

P1 to P8 are the scenarios of the original's own test, [n] are its defects.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, REMOVE, Result, rows, snapshot
from tests.school import Rollbook
from tests.testcentre.test_pearson_export import candidates, users

TABLE = "portal.student_testcenterregistration"
DAYS = ("--first", "2013-01-01T00:00", "--last", "2013-12-31")
COURSE = "org1/course1/term1"


def create(rollbook: Rollbook, user: str = "ada", course: str = COURSE, exam: str = "exam1", *more: str) -> Result:
    """Authorize as the original's test does."""
    return rollbook("authorization", "create", user, course, "--exam", exam, *DAYS, *more, "--json")


def define(db: Connection[Any], exam: str = "Final", ends: str = "now() + interval '9 days'") -> None:
    """Define an exam of a course, open for registration until `ends`."""
    db.execute(
        "insert into rollbook.exam values (%s, %s, %s, %s, '2033-01-25 00:00+00', '2033-01-26 23:59+00', "
        f"'2012-01-01', {ends})".encode(), [KEEP, exam, exam, exam],
    )  # fmt: skip


def stored(db: Connection[Any], *columns: str) -> list[tuple[Any, ...]]:
    return rows(db, TABLE, "id", *columns)


@pytest.mark.usefixtures("school")
def test_p3_a_candidate_is_authorized_without_a_definition(rollbook: Rollbook) -> None:
    made = create(rollbook)
    assert made.row | {"client_authorization_id": ""} == {
        "client_authorization_id": "", "username": "ada", "course": COURSE, "exam": "exam1", "first": "2013-01-01",
        "last": "2013-12-31", "accommodation_code": "", "outcome": "created",
    }  # fmt: skip
    assert made.row["client_authorization_id"].startswith("edXexam")
    assert made.err == (
        f"note: exam exam1 of {COURSE} is not defined here: the given dates are used; "
        f"there is no course {COURSE}\n"
        f"note: ada is not enrolled in {COURSE}\n"
    )
    assert rollbook("authorization", "list", "--json").row["state"] == "due"
    entry = rollbook("history", "list", "--json").data[0]
    assert (entry["command"], entry["object"]) == ("authorization create", made.row["client_authorization_id"])


def test_dates_come_from_the_definition_unless_given(rollbook: Rollbook, school: Connection[Any]) -> None:
    define(school)
    made = rollbook("authorization", "create", "ada", KEEP, "--exam", "Final", "--json")
    assert (made.row["first"], made.row["last"], made.err) == ("2033-01-25", "2033-01-26", "")
    define(school, "Midterm")
    made = rollbook("authorization", "create", "ada", KEEP, "--exam", "Midterm", "--last", "2033-01-25", "--json")
    assert (made.row["first"], made.row["last"]) == ("2033-01-25", "2033-01-25")


def test_an_exam_that_is_not_there_is_named_with_the_nearest(rollbook: Rollbook, school: Connection[Any]) -> None:
    define(school)
    define(school, "Midterm")
    for course, exam, why in (
        (KEEP, "FINALE", "the nearest is Final"), (KEEP, "xyz", "its exams are Final, Midterm"),
        (REMOVE, "Final", f"Final is an exam of {KEEP}"), (REMOVE, "Fnal", f"{REMOVE} has no exams"),
        (KEEP.lower(), "Fnal", f"there is no course {KEEP.lower()}; the nearest is {KEEP}"),
    ):  # fmt: skip
        refused = rollbook("authorization", "create", "ada", course, "--exam", exam)
        assert (refused.code, [line.strip() for line in refused.err.splitlines()[:2]]) == (
            1, [f"error: there is no exam {exam} of {course}", f"why:   {why}"]
        )  # fmt: skip
    made = rollbook("authorization", "create", "ada", KEEP, "--exam", "Finale", *DAYS)
    assert (made.code, "the given dates are used; the nearest is Final\n" in made.err) == (0, True)
    near = f"there is no course {KEEP}x; the nearest is {KEEP}\n"
    for command in ("history list", "authorization list", "authorization export", "exam list", "pearson dump",
                    "enrollment list", "enrollment count", "enrollment export", "allowed list"):  # fmt: skip
        empty = rollbook(*command.split(), "--course", KEEP + "x")
        assert (empty.code, near in empty.err) == (0, True), (command, empty.err)
    empty = rollbook("authorization", "list", "--exam", "Finalé")
    assert "there is no exam Finalé; the nearest is Final\n" in empty.err
    refused = rollbook("authorization", "create", "ada", KEEP + "x")
    assert f"why:   there is no course {KEEP}x; the nearest is {KEEP}\n" in refused.err


def test_the_only_current_exam_needs_no_name_and_of_several_none_is_guessed(  # [22]
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    none = rollbook("authorization", "create", "ada", KEEP)
    assert (none.code, f"course {KEEP} has no current exam" in none.err) == (1, True)
    define(school, "Final", ends="'2012-12-31'")
    made = rollbook("authorization", "create", "ada", KEEP, "--json")
    assert (made.row["exam"], made.err) == ("Final", "note: registration for exam Final is not open to students\n")
    define(school, "Midterm")
    before = snapshot(school)
    several = rollbook("authorization", "create", "ada", KEEP)
    assert (several.code, "why:   Final, Midterm\n" in several.err) == (1, True)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("nobody", COURSE, "--exam", "e", *DAYS), 1, "there is no user nobody"),
        (("bob", COURSE, "--exam", "e", *DAYS), 1, "bob is not a candidate yet"),
        (("ada", COURSE, "--exam", "e"), 1, f"there is no exam e of {COURSE}"),
        (("ada", COURSE, "--exam", "e", "--first", "2013-01-02", "--last", "2013-01-01"), 1,
         "First appointment date must be before last appointment date"),
        (("ada", COURSE, "--exam", "x" * 16, *DAYS), 1, "at most 15 characters (it has 16)"),
        (("ada", COURSE, "--exam", "e", *DAYS, "--accommodation", "BOGUS"), 1,
         'Invalid accommodation code specified: "BOGUS"'),
        (("ada", COURSE, "--exam", "e", *DAYS, "--accommodation", "NONE", "--accommodation", "ET30MN"), 1,
         "NONE refuses all accommodations"),  # [23]
        (("ada", COURSE, "--exam", "e", *DAYS, "--accommodation", "ET12ET", "--accommodation", "et12et"), 1,
         "A code occurs twice."),
        (("ada", COURSE, "--exam", "e", *DAYS, "--request", "x" * 1025), 1, "at most 1024 characters (it has 1025)"),
        (("ada", COURSE, "--exam", "e", "--first", "2013-02-30", "--last", "2013-03-01"), 2, "2013-02-30"),
        (("ada", COURSE, "--exam", "e", "--first", "soon", "--last", "2013-03-01"), 2, "soon"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_reason(
    rollbook: Rollbook, school: Connection[Any], arguments: tuple[str, ...], code: int, text: str
) -> None:
    before = snapshot(school)
    refused = rollbook("authorization", "create", *arguments)
    assert (refused.code, text in refused.err) == (code, True), refused
    assert snapshot(school) == before


def test_a_second_one_for_the_exam_is_refused_and_names_the_first(  # [22]
    rollbook: Rollbook, school: Connection[Any]
) -> None:
    first = create(rollbook).row["client_authorization_id"]
    again = create(rollbook)
    assert (again.code, first in json.loads(again.err)["error"]["message"]) == (1, True)
    assert len(stored(school)) == 1


def test_p7_a_code_makes_due_again_and_the_same_one_does_not(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = create(rollbook).row["client_authorization_id"]
    school.execute("update portal.student_testcenterregistration set uploaded_at = clock_timestamp()")
    granted = rollbook("authorization", "update", key, "--accommodation", "eqpmnt*et12et", "--json")
    assert granted.data == [{"field": "accommodation_code", "before": "", "after": "EQPMNT*ET12ET"}]
    assert rollbook("authorization", "list", "--json").row["state"] == "due"
    school.execute("update portal.student_testcenterregistration set uploaded_at = clock_timestamp()")
    before = snapshot(school)
    same = rollbook("authorization", "update", key, "--accommodation", "EQPMNT", "--accommodation", "et12et",
                    "--first", "2013-01-01", "--json")  # [20]  # fmt: skip
    assert (same.code, same.data, snapshot(school) == before) == (0, [], True)


def test_update_refuses_what_cannot_be_and_clears(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = create(rollbook, "ada", COURSE, "exam1", "--request", "More time", "--accommodation", "NONE").row[
        "client_authorization_id"
    ]
    before = snapshot(school)
    for arguments, code in (
        (("--last", "2012-01-01"), 1), (("--accommodation", "BOGUS"), 1), (("--clear", "exam"), 2), ((), 2),
        (("--accommodation", "NONE", "--clear", "accommodation-code"), 2), (("--last", "never"), 2),
    ):  # fmt: skip
        assert rollbook("authorization", "update", key, *arguments).code == code
    assert rollbook("authorization", "update", "edXexam1", "--last", "2013-01-01").code == 1
    assert snapshot(school) == before
    cleared = rollbook("authorization", "update", key, "--clear", "accommodation-code", "--json")
    assert cleared.data == [{"field": "accommodation_code", "before": "NONE", "after": ""}]


@pytest.mark.usefixtures("school")
def test_what_waits_for_a_decision_is_listed(rollbook: Rollbook) -> None:
    create(rollbook)
    asking = create(rollbook, "ada", COURSE, "exam2", "--request", "A quiet room").row["client_authorization_id"]
    pending = rollbook("authorization", "list", "--accommodation", "pending", "--json")
    assert pending.column("client_authorization_id") == [asking]
    rollbook("authorization", "update", asking, "--accommodation", "SEPRMM")
    assert rollbook("authorization", "list", "--accommodation", "pending", "--json").data == []
    shown = rollbook("authorization", "show", asking, "--json").data["authorization"]
    assert (shown["accommodation_names"], shown["accommodation_status"]) == (["Separate Room"], "Accepted")
    assert "Separate Room" in rollbook("authorization", "show", asking).out
    assert rollbook("authorization", "list", "--course", "other", "--json").data == []
    assert rollbook("authorization", "list", "--exam", "exam2", "--json").column("exam") == ["exam2"]


@pytest.mark.usefixtures("school")
def test_cancelled_goes_out_once_if_sent_and_can_be_made_again(rollbook: Rollbook, tmp_path: Path) -> None:  # [17]
    sent = create(rollbook).row["client_authorization_id"]
    rollbook("pearson", "export", "-o", str(tmp_path))
    never = create(rollbook, "ada", COURSE, "exam2").row["client_authorization_id"]
    gone = rollbook("authorization", "cancel", sent, never, sent, "--json")
    assert [(row["client_authorization_id"], row["outcome"], row["detail"]) for row in gone.data] == [
        (sent, "cancelled", "the next export deletes it at the test centre"), (never, "cancelled", "was never sent"),
    ]  # fmt: skip
    again = rollbook("authorization", "cancel", sent, "--json").row
    assert (again["outcome"], again["detail"]) == ("unchanged", "was cancelled already")
    states = {row["client_authorization_id"]: row["state"] for row in rollbook("authorization", "list", "--json").data}
    assert states == {sent: "due", never: "cancelled"}
    assert rollbook("authorization", "update", sent, "--last", "2013-01-02").code == 1
    anew = create(rollbook).row["client_authorization_id"]
    rollbook("pearson", "export", "ead", "-o", str(tmp_path / "second"))
    (file,) = (tmp_path / "second").iterdir()
    assert [line.split("\t")[:3] for line in file.read_text().splitlines()[1:]] == [
        ["Delete", "", sent], ["Add", "", anew]
    ]  # fmt: skip


def test_of_several_one_unknown_cancels_none_unless_skipped(rollbook: Rollbook, school: Connection[Any]) -> None:
    key = create(rollbook).row["client_authorization_id"]
    before = snapshot(school)
    assert rollbook("authorization", "cancel", key, "edXexam1").code == 1
    assert rollbook("authorization", "cancel", key, "-n", "--json").row["outcome"] == "would cancel"
    assert rollbook("authorization", "cancel", "edXexam1", "--on-error", "skip").code == 1
    nul = rollbook("authorization", "cancel", "-", stdin=f"{key}\0\n".encode())
    assert (nul.code, "a NUL character among the ids" in nul.err) == (1, True)
    assert snapshot(school) == before
    skipped = rollbook(
        "authorization", "cancel", "-", "--on-error", "skip", "--json", stdin=f"edXexam1\n{key}\n".encode()
    )
    assert (skipped.code, skipped.row["outcome"]) == (5, "cancelled")


def test_p8_many(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    users(db, 4)
    candidates(db, 1, 2, 3, 4)
    file = tmp_path / "seats.csv"
    file.write_text(
        "user,course_id,exam_series_code,eligibility_appointment_date_first,eligibility_appointment_date_last\n"
        + "".join(
            f"user{user},org1/course{course}/term1,exam{exam},2013-01-01,2013-12-31T23:59\n"
            for user, course, exam in ((1, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 1), (3, 2, 1), (4, 1, 2))
        )
    )
    assert rollbook("authorization", "import", str(file), "--json").column("outcome") == ["created"] * 6
    rollbook("pearson", "export", "-o", str(tmp_path / "out"))
    lines = {path.name[:3]: len(path.read_text().splitlines()) for path in (tmp_path / "out").iterdir()}
    assert lines == {"cdd": 5, "ead": 7}
    assert rollbook("authorization", "import", str(file), "--json").column("outcome") == ["unchanged"] * 6
    back = tmp_path / "back.csv"
    assert rollbook("authorization", "export", "-o", str(back)).code == 0
    assert rollbook("authorization", "import", str(back), "--json").column("outcome") == ["unchanged"] * 6
    assert db.execute("select count(*) from rollbook.authorization_status where needs_uploading").fetchone() == (0,)


def test_import_takes_the_dates_of_the_exam_and_tells_all_that_is_wrong(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    define(school)
    file = tmp_path / "seats.csv"
    header = (
        "user,course_id,exam_series_code,eligibility_appointment_date_first,eligibility_appointment_date_last,"
        "accommodation_code,accommodation_request\n"
    )
    file.write_text(
        header + f"ada,{KEEP},Final,,,,\nbob,{KEEP},Final,,,,\nada,{KEEP},Other,,,bogus,\n"
        f"id:101,{KEEP},Final,2013-01-01,2013-02-30,,\nada,{KEEP} ,Final ,2013-W01-1,,,\nada,{KEEP} ,Final ,,,,\n"
    )
    before = snapshot(school)
    refused = rollbook("authorization", "import", str(file))
    assert (refused.code, refused.err.splitlines()[:6]) == (1, [
        "line 3, user: 'bob': is not a candidate yet",
        "line 4, accommodation_code: 'BOGUS': Invalid accommodation code specified: \"BOGUS\"",
        "line 4, exam_series_code: 'Other': there is no such exam of the course, and the row has no dates; "
        "its exams are Final",
        "line 5, eligibility_appointment_date_last: '2013-02-30': not a date in the format YYYY-MM-DD",
        "line 6, eligibility_appointment_date_first: '2013-W01-1': not a date in the format YYYY-MM-DD",
        "line 7, exam_series_code: 'Final': the same user and exam as on line 2",
    ])  # fmt: skip
    assert snapshot(school) == before
    file.write_text(header + f"ada,{KEEP},Final,,,et30mn,More time\n")
    assert rollbook("authorization", "import", str(file), "--json").column("outcome") == ["created"]
    assert stored(school, "eligibility_appointment_date_first", "accommodation_code")[0][1:] == (
        date(2033, 1, 25), "ET30MN"
    )  # fmt: skip
    file.write_text(header + f"ada,{KEEP},Final,,2033-01-25,\\N,\n")
    assert rollbook("authorization", "import", str(file), "--json").column("outcome") == ["changed"]
    assert stored(school, "accommodation_code", "accommodation_request")[0][1:] == ("", "More time")
