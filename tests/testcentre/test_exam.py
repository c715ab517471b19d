"""`rollbook exam`: the exams of a course's policy, with all that is wrong told, and the policy as the whole truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, rows, snapshot
from tests.school import Rollbook

# The original's own sample.
SAMPLE: dict[str, Any] = {
    "Midterm_Exam": {
        "First_Eligible_Appointment_Date": "2012-11-09T00:00", "Last_Eligible_Appointment_Date": "2012-11-09T23:59",
    },
    "Final_Exam": {
        "Exam_Series_Code": "mit6002xfall12a", "Exam_Display_Name": "Final Exam",
        "First_Eligible_Appointment_Date": "2013-01-25T00:00", "Last_Eligible_Appointment_Date": "2013-01-25T23:59",
        "Registration_Start_Date": "2013-01-01T00:00", "Registration_End_Date": "2013-01-21T23:59",
    },
}  # fmt: skip
FIRST, LAST = "First_Eligible_Appointment_Date", "Last_Eligible_Appointment_Date"
START, END = "Registration_Start_Date", "Registration_End_Date"


def policy(tmp_path: Path, exams: Any) -> str:
    """Write a policy file."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"testcenter_info": exams}))
    return str(path)


def exam(**changes: Any) -> dict[str, Any]:
    """A definition with changes; None takes a key away."""
    merged = {FIRST: "2013-01-25T00:00", LAST: "2013-01-26T00:00", **changes}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.usefixtures("school")
def test_the_sample_is_read_with_its_defaults(rollbook: Rollbook, tmp_path: Path) -> None:
    answer = rollbook("exam", "import", KEEP, policy(tmp_path, SAMPLE), "--json")
    assert (answer.code, answer.column("exam"), answer.column("outcome")) == (
        0, ["Midterm_Exam", "mit6002xfall12a"], ["created"] * 2
    )  # fmt: skip
    found = rollbook("exam", "list", "--course", KEEP, "--json").data
    assert [list(row.values()) for row in found] == [
        [KEEP, "Midterm_Exam", "Midterm_Exam", "2012-11-09T00:00:00Z", "2012-11-09T23:59:00Z", False, False, 0,
         "1970-01-01T00:00:00Z", "2012-11-09T23:59:00Z", "Midterm_Exam"],
        [KEEP, "mit6002xfall12a", "Final Exam", "2013-01-25T00:00:00Z", "2013-01-25T23:59:00Z", False, False, 0,
         "2013-01-01T00:00:00Z", "2013-01-21T23:59:00Z", "Final_Exam"],
    ]  # fmt: skip
    entry = rollbook("history", "list", "--json").data[0]
    assert (entry["command"], entry["outcome"]) == ("exam import", "created")


def test_the_policy_is_the_whole_truth(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    file = policy(tmp_path, SAMPLE)
    rollbook("exam", "import", KEEP, file)
    before = snapshot(school)
    assert rollbook("exam", "import", KEEP, file, "--json").column("outcome") == ["unchanged"] * 2
    file = policy(tmp_path, {"Final_Exam": SAMPLE["Final_Exam"] | {"Exam_Display_Name": "Finale"}, "Resit": exam()})
    dry = rollbook("exam", "import", KEEP, file, "-n", "--json")
    assert sorted(dry.column("outcome")) == ["would change", "would create", "would remove"]
    assert snapshot(school) == before
    done = rollbook("exam", "import", KEEP, file, "--json")
    assert {row["exam"]: row["outcome"] for row in done.data} == {
        "Midterm_Exam": "removed", "mit6002xfall12a": "changed", "Resit": "created"
    }  # fmt: skip
    assert rows(school, "rollbook.exam", "exam_series_code", "display_name") == [
        ("Resit", "Resit"), ("mit6002xfall12a", "Finale")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({FIRST: None}, "First appointment date must be specified"),
        ({FIRST: "soon"}, "First appointment date must be specified"),
        ({LAST: None}, "Last appointment date must be specified"),
        ({LAST: "2013-01-26"}, "Last appointment date must be specified"),
        ({START: "2013-01-20T00:01", END: "2013-01-20T00:00"},
         "Registration start date must be before registration end date"),
        ({FIRST: "2013-01-26T00:01"}, "First appointment date must be before last appointment date"),
        ({END: "2013-01-26T00:01"}, "Registration end date must be before last appointment date"),
        ({"Exam_Series_Code": "x" * 16}, f"Exam_Series_Code {'x' * 16} has 16 characters; the limit is 15"),
        ({"Exam_Series_Code": "Ł"}, "Must only use characters in Latin-1 (iso-8859-1) encoding"),
        ({"Exam_Series_Code": 7}, "Exam_Series_Code must be text without control characters"),
        ({"Exam_Series_Code": " Good "}, "Exam_Series_Code Good is also that of exam Good"),
        ({"Exam_Display_Name": ""}, "Exam_Display_Name must be text without control characters"),
        ({"Exam_Series_Code": "Good"}, "Exam_Series_Code Good is also that of exam Good"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_the_exam_and_nothing_is_changed(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    before = snapshot(school)
    exams = {"Good": exam(), "Bad": exam(**changes), "Worse": []}
    refused = rollbook("exam", "import", KEEP, policy(tmp_path, exams), "--json")
    assert refused.code == 1
    details = json.loads(refused.err.splitlines()[-1])["error"]["details"]["problems"]
    assert details == [
        {"exam": "Bad", "problem": problem}, {"exam": "Worse", "problem": "the definition is not a JSON object"}
    ]  # fmt: skip
    assert snapshot(school) == before


def test_equal_dates_are_in_order_and_a_bad_optional_date_counts_as_absent(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    same = "2013-01-25T00:00"
    exams = {"Same": {FIRST: same, LAST: same, START: same, END: same}, "Odd": exam(**{START: "x", END: 7})}
    answer = rollbook("exam", "import", KEEP, policy(tmp_path, exams), "--json")
    assert answer.column("outcome") == ["created"] * 2
    assert answer.err.splitlines() == [
        "Odd: Registration_Start_Date 'x' is not a time such as 2013-01-25T00:00 and is ignored",
        "Odd: Registration_End_Date 7 is not a time such as 2013-01-25T00:00 and is ignored",
    ]
    assert rows(school, "rollbook.exam", "exam_series_code", "registration_start")[0][1].year == 1970


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no json", 1),
        ('{"testcenter_info": {"a": {}, "a": {}}}', 1),
        ("{}", 1),
        ("[]", 1),
        ('{"testcenter_info": []}', 1),
        ("[" * 100_000, 1),
        (None, 2),
    ],
)
def test_what_is_no_policy_is_refused(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, text: str | None, code: int
) -> None:
    path = tmp_path / "policy.json"
    if text is not None:
        path.write_text(text)
    refused = rollbook("exam", "import", KEEP, str(path))
    assert (refused.code, refused.err[:6]) == (code, "error:")
    assert rows(school, "rollbook.exam", "course_id") == []


@pytest.mark.usefixtures("school")
def test_a_policy_file_with_the_runs_name_around_it_is_read_from_stdin_too(rollbook: Rollbook) -> None:
    text = json.dumps({"course/2012_Fall": {"graceperiod": "1 day", "testcenter_info": {"Final": exam()}}})
    answer = rollbook("exam", "import", "MITx/6.002x/2012_Fal", "-", "--json", stdin=text.encode())
    assert (answer.code, answer.column("exam")) == (0, ["Final"])
    assert answer.err == f"note: there is no course MITx/6.002x/2012_Fal here; the nearest is {KEEP}\n"
