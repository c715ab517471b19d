"""The rules of candidates and authorizations in psql: refusals, their words, and what is due.

P1 to P8 are the scenarios of the original's own tests, [n] its defects.

Tests check_candidate and check_authorization with candidate_faults, authorization_faults, text_fault,
exchange_id_fault, trimmed_record, due_at, differs_for_export, accommodation_names; renew_candidates; and the views
candidate_status, authorization_status and registration_status.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pycountry
import pytest
from psycopg.types.json import Jsonb

from tests.sql.helpers import Db, add_user, refused, run, value

ADA: dict[str, Any] = {
    "first_name": "Ada", "last_name": "Foo", "address_1": "1 Main St", "city": "London", "country": "GBR",
    "phone": "1", "phone_country_code": "44",
}  # fmt: skip
REQUIRED, LATIN = "This field is required.", "Must only use characters in Latin-1 (iso-8859-1) encoding"
ISO = "Must be three characters (ISO 3166-1):  e.g. USA, CAN, MNG"
NEEDED = "Required if country is USA or CAN."
TOO_LONG = "Ensure this value has at most {} characters (it has {})."

EXAM: dict[str, Any] = {
    "course_id": "edX/toy/2012_Fall", "exam_series_code": "Final", "eligibility_appointment_date_first": "2013-01-25",
    "eligibility_appointment_date_last": "2013-01-26",
}  # fmt: skip


def faults(db: Db, what: str, record: dict[str, Any]) -> list[tuple[str, str]]:
    """What the function says of a record."""
    return run(db, "select field, problem from rollbook.{f}(%s)", Jsonb(record), f=f"{what}_faults")


def candidate(db: Db, user: int, **changes: Any) -> int:
    """Insert a candidate; return its id."""
    record = {**ADA, **changes, "user_id": user}
    names = ", ".join(record)
    marks = ", ".join(["%s"] * len(record))
    query = f"insert into portal.student_testcenteruser ({names}) values ({marks}) returning id"
    return int(db.execute(query.encode(), list(record.values())).fetchone()[0])  # type: ignore[index]


def authorization(db: Db, of: int, **changes: Any) -> int:
    """Insert an authorization; return its id."""
    record = {**EXAM, **changes, "testcenter_user_id": of}
    names = ", ".join(record)
    marks = ", ".join(["%s"] * len(record))
    query = f"insert into portal.student_testcenterregistration ({names}) values ({marks}) returning id"
    return int(db.execute(query.encode(), list(record.values())).fetchone()[0])  # type: ignore[index]


def change(db: Db, number: int, **values: Any) -> None:
    """Update a candidate."""
    setting = ", ".join(f"{name} = %s" for name in values)
    query = f"update portal.student_testcenteruser set {setting} where id = %s"
    db.execute(query.encode(), [*values.values(), number])


def amend(db: Db, number: int, **values: Any) -> None:
    """Update an authorization."""
    setting = ", ".join(f"{name} = %s" for name in values)
    query = f"update portal.student_testcenterregistration set {setting} where id = %s"
    db.execute(query.encode(), [*values.values(), number])


def sent(db: Db, table: str = "student_testcenteruser") -> None:
    """Stamp all records of a table as exported now."""
    run(db, "update portal.{t} set uploaded_at = clock_timestamp()", t=table)


# --- candidates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({name: ""}, [(name, REQUIRED)])
        for name in ("first_name", "last_name", "address_1", "city", "country", "phone", "phone_country_code")
    ]
    + [
        ({"first_name": "x" * 31}, [("first_name", TOO_LONG.format(30, 31))]),
        ({"country": "USAX"}, [("country", TOO_LONG.format(3, 4))]),
        ({"company_name": "x" * 51}, [("company_name", TOO_LONG.format(50, 51))]),
        ({"country": "US"}, [("country", ISO)]),
        ({"country": "12A"}, [("country", ISO)]),  # [21]
        ({"country": "XXX"}, [("country", ISO)]),  # [21]
        ({"country": "USA"}, [("state", NEEDED), ("postal_code", NEEDED)]),
        ({"country": "can", "state": "Alberta"}, [("postal_code", NEEDED)]),  # [21] the rule holds in small letters
        ({"country": "MNG"}, []),
        ({"fax": "1"}, [("fax_country_code", "Required if fax is specified.")]),
        ({"fax_country_code": "1"}, []),
        ({"city": "Łódź"}, [("city", f"{LATIN}, not Ł (U+0141)")]),
        ({"first_name": "José"}, []),
        ({"first_name": "Jose\u0301", "city": "\u00a0Mu\u0308nchen\u2009"}, []),  # as a Mac writes it
        ({"last_name": "O\u2019Neil"}, [("last_name", f"{LATIN}, not \u2019 (U+2019); write '")]),
        ({"city": "Foo\u2013Bar"}, [("city", f"{LATIN}, not \u2013 (U+2013); write -")]),
        ({"city": "Foo\u200b"}, [("city", f"{LATIN}, not U+200B (zero width space)")]),
        ({"email": "ł@example.org"}, [("email", f"{LATIN}, not ł (U+0142)")]),  # [16]
        ({"city": "a\tb"}, [("city", "Must not contain control characters.")]),  # [21]
        ({"city": " \t "}, [("city", REQUIRED)]),  # [21] blanks alone are nothing
        ({"city": "a\x85b"}, [("city", "Must not contain control characters.")]),
        # A country that failed has no say about the state.
        ({"country": "US", "state": ""}, [("country", ISO)]),
        (
            {"first_name": "", "city": "x" * 33, "country": "USA", "fax": "1"},
            [("first_name", REQUIRED), ("city", TOO_LONG.format(32, 33)), ("state", NEEDED), ("postal_code", NEEDED),
             ("fax_country_code", "Required if fax is specified.")],
        ),
    ],
)  # fmt: skip
def test_all_faults_of_a_candidate_are_told_at_once(
    portal: Db, changes: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    assert faults(portal, "candidate", {**ADA, **changes}) == expected
    user = add_user(portal, "ada")
    stored = {name: text for name, text in changes.items() if name != "email"}
    if stored != changes or any("at most" in problem for _, problem in expected):  # the column speaks first
        return
    if not expected:
        candidate(portal, user, **stored)
        return
    with pytest.raises(psycopg.Error) as refusal, portal.transaction():
        candidate(portal, user, **stored)
    said = refusal.value.diag
    assert said.sqlstate == "23R16"
    assert said.message_detail == "\n".join(f"{field}: {problem}" for field, problem in expected)
    assert value(portal, "select count(*) from portal.student_testcenteruser") == 0


def test_the_countries_are_those_of_the_standard(portal: Db) -> None:
    found = {row[0] for row in run(portal, "select code from rollbook.country")}
    assert found == {country.alpha_3 for country in pycountry.countries}


def test_a_candidate_is_stored_trimmed_and_gets_an_id_of_12_digits(portal: Db) -> None:
    users = [add_user(portal, f"u{n}") for n in range(3)]
    for user in users:
        candidate(portal, user, first_name="  Ada ", country="usa", state=" CA ", postal_code="1\n")
    rows = run(portal, "select first_name, country, state, postal_code from portal.student_testcenteruser")
    assert rows == [("Ada", "USA", "CA", "1")] * 3
    ids = [row[0] for row in run(portal, "select client_candidate_id from portal.student_testcenteruser")]
    assert len(set(ids)) == 3
    assert all(len(each) == 15 and each[:3] == "edX" and each[3:].isdecimal() for each in ids)


FAULTY_IDS = [
    ("", REQUIRED), ("a\tb", "Must not contain control characters."), ("a\n", "Must not contain control characters."),
    ("Łódź1", f"{LATIN}, not Ł (U+0141)"), (" a", "Must not begin or end with a blank."),
    ("a\u00a0", "Must not begin or end with a blank."),
]  # fmt: skip


def test_our_ids_are_what_the_test_centre_takes(portal: Db) -> None:
    """Both ids, inserted or changed; one that was stored before does not forbid another change, and stays as it is."""
    mine, other = (candidate(portal, add_user(portal, name)) for name in ("ada", "bob"))
    exam = authorization(portal, mine)
    for number, (wrong, problem) in enumerate(FAULTY_IDS):
        for make, update, key in (
            (candidate, change, "client_candidate_id"), (authorization, amend, "client_authorization_id"),
        ):  # fmt: skip
            of = add_user(portal, f"{key}{number}") if make is candidate else other
            for write in (
                lambda: make(portal, of, **{key: wrong}),  # noqa: B023
                lambda: update(portal, exam if make is authorization else mine, **{key: wrong}),  # noqa: B023
            ):
                with pytest.raises(psycopg.errors.IntegrityError) as refusal, portal.transaction():
                    write()
                assert (refusal.value.sqlstate, refusal.value.diag.constraint_name) == ("23R16", "RB016")
                assert refusal.value.diag.message_detail == f"{key}: {problem}"
    assert candidate(portal, add_user(portal, "kept"), client_candidate_id="José 1")
    run(portal, "set session_replication_role = replica")
    change(portal, mine, client_candidate_id=" \t")
    amend(portal, exam, client_authorization_id="")
    run(portal, "reset session_replication_role")
    change(portal, mine, city="Paris")
    amend(portal, exam, accommodation_code="ET30MN")
    assert run(portal, "select client_candidate_id, city from portal.student_testcenteruser where city = 'Paris'") == [
        (" \t", "Paris")
    ]
    sent(portal)
    run(portal, "update portal.student_testcenteruser set client_candidate_id = default where city = 'Paris'")
    assert value(portal, "select needs_uploading from rollbook.candidate_status where city = 'Paris'")


def test_one_candidate_per_user_and_one_authorization_per_exam(portal: Db) -> None:
    ada = add_user(portal, "ada")
    mine = candidate(portal, ada)
    with pytest.raises(psycopg.errors.UniqueViolation), portal.transaction():
        candidate(portal, ada)
    authorization(portal, mine)
    with pytest.raises(psycopg.errors.UniqueViolation), portal.transaction():  # [22]
        authorization(portal, mine)
    authorization(portal, mine, exam_series_code="Midterm")
    ids = [row[0] for row in run(portal, "select client_authorization_id from portal.student_testcenterregistration")]
    assert all(len(each) == 19 and each[:7] == "edXexam" and each[7:].isdecimal() for each in ids)


def due(db: Db, view: str = "candidate_status") -> list[bool]:
    """What needs uploading."""
    return [row[0] for row in run(db, "select needs_uploading from rollbook.{v} order by id", v=view)]


def test_a_real_change_makes_due_and_clears_the_answer_and_nothing_else_does(portal: Db) -> None:
    mine = candidate(portal, add_user(portal, "ada"))
    assert due(portal) == [True]
    sent(portal)
    change(portal, mine, upload_status="Accepted", upload_error_message="WARNING", candidate_id=7)
    before = value(portal, "select user_updated_at from portal.student_testcenteruser")
    for same in ({"city": "London"}, {"city": " London "}, {"country": "gbr"}, {"updated_at": "now"}):  # [20]
        change(portal, mine, **same)
    assert due(portal) == [False]
    assert value(portal, "select demographics_status from rollbook.candidate_status") == "Accepted"
    assert value(portal, "select user_updated_at from portal.student_testcenteruser") == before
    change(portal, mine, city="Oxford")
    assert due(portal) == [True]
    found = run(portal, "select upload_status, upload_error_message, candidate_id from portal.student_testcenteruser")
    assert found == [("", "WARNING", 7)]


@pytest.mark.parametrize("at", ["infinity", "2999-01-01"])
def test_a_record_from_the_future_is_of_now(portal: Db, at: str) -> None:
    mine = candidate(portal, add_user(portal, "ada"), user_updated_at=at)
    authorization(portal, mine, user_updated_at=at)
    for table in ("student_testcenteruser", "student_testcenterregistration"):
        assert value(portal, "select user_updated_at <= clock_timestamp() from portal.{t}", t=table) is True


def test_another_user_makes_due(portal: Db) -> None:
    candidate(portal, add_user(portal, "ada"))
    bob = add_user(portal, "bob")
    sent(portal)
    run(portal, "update portal.student_testcenteruser set user_id = %s", bob)
    assert due(portal) == [True]


def test_an_edit_at_the_instant_of_the_upload_is_due(portal: Db) -> None:
    mine = candidate(portal, add_user(portal, "ada"))
    change(portal, mine, uploaded_at="2999-01-01 00:00+00")  # a clock that went wrong
    assert due(portal) == [False]
    change(portal, mine, city="Oxford")
    assert due(portal) == [True]


def test_another_email_of_the_user_makes_due(portal: Db) -> None:  # [16]
    ada, bob = add_user(portal, "ada"), add_user(portal, "bob")
    for user in (ada, bob):
        candidate(portal, user)
    sent(portal)
    run(portal, "update portal.student_testcenteruser set upload_status = 'Accepted'")
    run(portal, "update portal.auth_user set email = 'ada@example.com' where id = %s", ada)
    run(portal, "update portal.auth_user set email = email, is_active = false where id = %s", bob)
    assert due(portal) == [True, False]
    assert run(portal, "select demographics_status from rollbook.candidate_status order by id") == [
        ("Pending",), ("Accepted",),
    ]  # fmt: skip


def test_a_writer_of_users_without_rights_on_candidates_makes_due(live: Db, app: Db) -> None:
    ada = add_user(live, "ada")
    candidate(live, ada)
    sent(live)
    run(live, "revoke all on portal.student_testcenteruser from portal_app")
    run(live, "alter table portal.student_testcenteruser enable row level security")
    run(app, "update portal.auth_user set email = 'ada@example.com' where id = %s", ada)
    assert due(live) == [True]


def test_an_application_makes_candidates_with_rights_on_the_portal_alone(live: Db, app: Db) -> None:
    ada = add_user(live, "ada")
    run(app, "select 1")
    run(live, "grant usage on all sequences in schema portal to portal_app")
    mine = candidate(app, ada)
    authorization(app, mine)
    refused(app, "23R16", "update portal.student_testcenteruser set country = 'XXX'")


# --- authorizations ---------------------------------------------------------------------------------------------------


CODES = ["EQPMNT", "ET12ET", "ET30MN", "ETDBTM", "SEPRMM", "SRREAD", "SRRERC", "SRRECR", "SRSEAN", "SRSGNR"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"accommodation_code": "*".join(CODES)}, []),  # [23] all ten fit
        ({"accommodation_code": "NONE"}, []),
        ({"accommodation_code": "BOGUS"}, [("accommodation_code", 'Invalid accommodation code specified: "BOGUS"')]),
        ({"accommodation_code": "EQPMNT*"}, [("accommodation_code", 'Invalid accommodation code specified: ""')]),
        ({"accommodation_code": "NONE*EQPMNT"},
         [("accommodation_code", "NONE refuses all accommodations and cannot be combined with other codes.")]),  # [23]
        ({"course_id": ""}, [("course_id", REQUIRED)]),
        ({"exam_series_code": " "}, [("exam_series_code", REQUIRED)]),
        ({"exam_series_code": "Ł"}, [("exam_series_code", f"{LATIN}, not Ł (U+0141)")]),
        ({"eligibility_appointment_date_last": "2013-01-24"},
         [("eligibility_appointment_date_first", "First appointment date must be before last appointment date")]),
    ],
)  # fmt: skip
def test_all_faults_of_an_authorization_are_told_at_once(
    portal: Db, changes: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    assert faults(portal, "authorization", {**EXAM, **changes}) == expected
    mine = candidate(portal, add_user(portal, "ada"))
    if not expected:
        authorization(portal, mine, **changes)
        return
    with pytest.raises(psycopg.Error) as refusal, portal.transaction():
        authorization(portal, mine, **changes)
    assert (refusal.value.diag.sqlstate, refusal.value.diag.message_detail) == (
        "23R16", "\n".join(f"{field}: {problem}" for field, problem in expected),
    )  # fmt: skip


@pytest.mark.parametrize("day", ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"])
def test_a_date_that_the_file_cannot_say_is_refused(portal: Db, day: str) -> None:
    mine = candidate(portal, add_user(portal, "ada"))
    with pytest.raises(psycopg.Error, match="cannot be sent") as refusal, portal.transaction():
        authorization(portal, mine, eligibility_appointment_date_last=day)
    assert "The year must be between 1 and 9999." in (refusal.value.diag.message_detail or "")


def test_dates_that_are_missing_are_told_apart(portal: Db) -> None:
    nothing = {name: text for name, text in EXAM.items() if "date" not in name}
    assert faults(portal, "authorization", nothing) == [
        ("eligibility_appointment_date_first", "First appointment date must be specified"),
        ("eligibility_appointment_date_last", "Last appointment date must be specified"),
    ]


def state(db: Db) -> tuple[Any, ...]:
    """Transaction, registration, summary and whether it is due."""
    (found,) = run(
        db, "select transaction_type, registration_status, status, needs_uploading from rollbook.authorization_status"
    )
    return found


def answered(db: Db, word: str, accepted: str | None) -> None:
    """Note an answer of the test centre, as an import does."""
    run(
        db,
        """update portal.student_testcenterregistration
        set upload_status = %s, processed_at = clock_timestamp(), accepted_at = coalesce(%s, accepted_at)""",
        word, accepted,
    )  # fmt: skip


def test_the_transaction_after_each_answer(portal: Db) -> None:  # [17]
    mine = candidate(portal, add_user(portal, "ada"))
    exam = authorization(portal, mine)
    change(portal, mine, upload_status="Accepted")
    assert state(portal) == ("Add", "Pending", "Pending", True)
    sent(portal, "student_testcenterregistration")
    assert state(portal) == ("Update", "Pending", "Pending", False)
    answered(portal, "Error", None)
    assert state(portal) == ("Add", "Rejected", "Rejected", False)
    amend(portal, exam, eligibility_appointment_date_last="2013-01-27")  # corrected after a rejected Add: Add again
    assert state(portal) == ("Add", "Pending", "Pending", True)
    sent(portal, "student_testcenterregistration")
    answered(portal, "Accepted", "2013-01-20 00:00+00")
    assert state(portal) == ("Update", "Accepted", "Accepted", False)
    amend(portal, exam, eligibility_appointment_date_last="2013-01-28")
    sent(portal, "student_testcenterregistration")
    answered(portal, "Error", None)  # after an accepted Add a rejected Update stays Update
    assert state(portal) == ("Update", "Rejected", "Rejected", False)
    amend(portal, exam, cancelled_at="2013-01-21 00:00+00")
    assert state(portal) == ("Delete", "Pending", "Pending", True)


def test_what_was_never_sent_and_is_cancelled_is_not_sent(portal: Db) -> None:  # [17]
    exam = authorization(portal, candidate(portal, add_user(portal, "ada")))
    amend(portal, exam, cancelled_at="2013-01-21 00:00+00")
    assert state(portal)[3] is False


@pytest.mark.parametrize(
    ("request_text", "code", "status", "names"),
    [
        ("", "EQPMNT", "Skipped", ["Equipment"]),
        ("Time", "", "Pending", []),
        ("Time", "NONE", "Rejected", ["No Accommodation Granted"]),
        ("Time", "ET30MN*SEPRMM", "Accepted", ["Extra Time - 30 Minutes", "Separate Room"]),
    ],
)
def test_the_state_of_an_accommodation(portal: Db, request_text: str, code: str, status: str, names: list[str]) -> None:
    authorization(
        portal, candidate(portal, add_user(portal, "ada")), accommodation_request=request_text, accommodation_code=code
    )
    found = run(portal, "select accommodation_status, accommodation_names from rollbook.authorization_status")
    assert found == [(status, names)]


def test_names_of_unknown_codes(portal: Db) -> None:
    assert value(portal, "select rollbook.accommodation_names('X*EQPMNT')") == ["Unknown code X", "Equipment"]
