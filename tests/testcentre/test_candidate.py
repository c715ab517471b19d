"""`rollbook candidate`: all faults at once, pre-filled from the account, due only by a real change.

P1 to P8 are the scenarios of the original's own test, [n] are its defects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from rollbook.testcentre.exchange_file import EMAIL, FIELD_NAMES, FIELDS
from rollbook.testcentre.queries import candidate as queries
from tests.program import rows, snapshot
from tests.school import Rollbook

TABLE = "portal.student_testcenteruser"
GOOD = (
    "--first-name", "TestFirst", "--last-name", "TestLast", "--address-1", "Test Address", "--city", "TestCity",
    "--state", "Alberta", "--postal-code", "A0B 1C2", "--country", "CAN", "--phone", "252-1866",
    "--phone-country-code", "1",
)  # fmt: skip
REQUIRED, LATIN = "This field is required.", "Must only use characters in Latin-1 (iso-8859-1) encoding"
NEEDED = "Required if country is USA or CAN."


def problems(result: Any) -> list[tuple[str, str]]:
    """The faults of a refused record."""
    assert result.code == 1, result
    return [(row["field"], row["problem"]) for row in json.loads(result.err)["error"]["details"]["problems"]]


def sent(db: Connection[Any]) -> None:
    """All candidates were sent, and accepted."""
    db.execute("update portal.student_testcenteruser set uploaded_at = clock_timestamp(), upload_status = 'Accepted'")


def states(db: Connection[Any]) -> list[tuple[Any, ...]]:
    return rows(db, "rollbook.candidate_status", "username", "progress")


def test_the_fields_and_widths_of_the_program_are_those_of_the_table_and_of_the_rules(db: Connection[Any]) -> None:
    widths = [(field.name, field.width) for field in FIELDS]
    columns = db.execute(
        """select attname, atttypmod - 4 from pg_attribute
        where attrelid = 'portal.student_testcenteruser'::regclass and attname = any(%s)""",
        [list(FIELD_NAMES)],
    ).fetchall()
    assert sorted(columns) == sorted(widths)
    for excess, expected in ((0, []), (1, widths)):  # as wide as it may be, and one more
        given = {field.name: "x" * (field.width + excess) for field in (*FIELDS, EMAIL)}
        found = db.execute(
            "select field, problem from rollbook.candidate_faults(%s) where problem like 'Ensure%%'",
            [json.dumps(given)],
        ).fetchall()
        limits = [(field, f"Ensure this value has at most {width} characters") for field, width in expected]
        assert [(field, problem.split(" (")[0]) for field, problem in found if field != EMAIL.name] == limits
        assert (EMAIL.name in dict(found)) == bool(excess)
    empty = db.execute("select field from rollbook.candidate_faults('{}') where problem = %s", [REQUIRED]).fetchall()
    assert [row[0] for row in empty] == [field.name for field in FIELDS if field.required]


def test_p1_without_any_field_all_that_is_missing_is_told(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("insert into portal.auth_user (username) values ('baduser')")
    before = snapshot(school)
    refused = rollbook("candidate", "create", "baduser")
    assert refused.code == 1
    lines = refused.err.splitlines()
    assert lines[0] == "error: the candidate's record cannot be sent to the test centre"
    required = ["first_name", "last_name", "address_1", "city", "country", "phone", "phone_country_code"]
    assert [line[7:] for line in lines[1:8]] == [f"{field}: {REQUIRED}" for field in required]
    assert problems(rollbook("candidate", "create", "baduser", "--json")) == [(f, REQUIRED) for f in required]
    assert snapshot(school) == before


def test_p2_a_good_candidate_is_made_with_an_id(rollbook: Rollbook, school: Connection[Any]) -> None:
    made = rollbook("candidate", "create", "bob", *GOOD, "--json").row
    assert made["client_candidate_id"].startswith("edX")
    assert (len(made["client_candidate_id"]), made["username"], made["outcome"]) == (15, "bob", "created")
    assert rows(school, TABLE, "user_id", "first_name", "state", "country")[1] == (102, "TestFirst", "Alberta", "CAN")
    assert states(school) == [("ada", "due"), ("bob", "due")]
    again = rollbook("candidate", "create", "bob", *GOOD)
    assert (again.code, "is a candidate already" in again.err) == (1, True)
    entry = rollbook("history", "list", "--json").data[0]
    assert (entry["command"], entry["object"], entry["outcome"]) == ("candidate create", "bob", "created")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("--country", "usa", "--state", "", "--postal-code", " "), [("state", NEEDED), ("postal_code", NEEDED)]),
        (("--country", "12A"), [("country", "Must be three characters (ISO 3166-1):  e.g. USA, CAN, MNG")]),  # [21]
        (("--fax", "1"), [("fax_country_code", "Required if fax is specified.")]),
        (("--first-name", "x" * 31, "--city", "Łódź"),
         [("first_name", "Ensure this value has at most 30 characters (it has 31)."),
          ("city", f"{LATIN}, not Ł (U+0141)")]),
        (("--phone", "1\t2"), [("phone", "Must not contain control characters.")]),  # [21]
    ],
)  # fmt: skip
def test_reasons_are_told_and_nothing_is_stored(  # [20]
    rollbook: Rollbook, school: Connection[Any], changes: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    before = snapshot(school)
    assert problems(rollbook("candidate", "create", "bob", *GOOD, *changes, "--json")) == expected
    rollbook("candidate", "create", "bob", *GOOD)
    stored = snapshot(school)
    assert problems(rollbook("candidate", "update", "bob", *changes, "--json")) == expected
    assert (snapshot(school), before == stored) == (stored, False)


def test_an_accent_apart_is_composed_before_it_is_judged(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    """create, update and import, and the draft from the account: a file that was made on a Mac has accents apart."""
    apart = "Jose\u0301 " + "e\u0301" * 25
    school.execute("update portal.auth_userprofile set name = %s where user_id = 102", ["Rene\u0301 Foo"])
    assert rollbook("candidate", "create", "bob", *GOOD, "--first-name", apart, "-n", "--json").code == 0
    rollbook("candidate", "update", "bob", *GOOD, "--city", "Mu\u0308nchen")
    assert rows(school, TABLE, "user_id", "city")[1] == (102, "M\u00fcnchen")
    again = rollbook("candidate", "update", "bob", "--city", "Mu\u0308nchen", "--json")
    assert (again.code, again.data) == (0, [])
    file = tmp_path / "people.csv"
    file.write_text("user,first_name\nbob,Jose\u0301\nada,O\u2019Neil\n")
    found = json.loads(rollbook("candidate", "import", str(file), "--json").err)["error"]["details"]["problems"]
    assert [row["reason"] for row in found] == [f"{LATIN}, not \u2019 (U+2019); write '"]
    file.write_text("user,first_name\nbob,Jose\u0301\n")
    assert rollbook("candidate", "import", str(file), "--json").data[0]["outcome"] == "changed"
    assert rows(school, TABLE, "user_id", "first_name")[1] == (102, "Jos\u00e9")
    assert rollbook("candidate", "import", str(file), "--json").data[0]["outcome"] == "unchanged"


def test_the_users_address_must_be_latin_1_too(rollbook: Rollbook, school: Connection[Any]) -> None:  # [16]
    school.execute("update portal.auth_user set email = 'łucja@example.org' where id = 102")
    assert problems(rollbook("candidate", "create", "bob", *GOOD, "--json")) == [("email", f"{LATIN}, not ł (U+0142)")]
    school.execute("update portal.auth_user set email = 'ł@example.org' where id = 101")
    checked = rollbook("candidate", "check", "--json")
    assert (checked.code, checked.data) == (4, [
        {"candidate": "edX000000000101", "username": "ada", "authorization": None, "field": "email",
         "problem": f"{LATIN}, not ł (U+0142)"}
    ])  # fmt: skip
    assert "1 record breaks the rules" in checked.err


def test_names_and_address_come_from_the_account_unless_given(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(
        "update portal.auth_userprofile set mailing_address = %s where user_id = 102", ["1 Main St\r\nApt 2\n"]
    )
    rest = ("--city", "London", "--country", "gbr", "--phone", "1", "--phone-country-code", "44")
    made = rollbook("candidate", "create", "bob", "--address-2", "Attic", *rest, "--json")
    assert made.row["name"] == "Bob Foo"
    assert made.err == "from the account: first_name 'Bob', last_name 'Foo', address_1 '1 Main St'\n"
    stored = rows(school, TABLE, "user_id", "first_name", "last_name", "address_1", "address_2", "country")[1]
    assert stored == (102, "Bob", "Foo", "1 Main St", "Attic", "GBR")


def test_update_makes_who_is_no_candidate_one(rollbook: Rollbook, school: Connection[Any]) -> None:
    answer = rollbook("candidate", "update", "bob", *GOOD, "--json")
    assert ({row["field"]: row["after"] for row in answer.data}["country"], answer.code) == ("CAN", 0)
    assert states(school) == [("ada", "due"), ("bob", "due")]


def test_only_a_real_change_makes_due(rollbook: Rollbook, school: Connection[Any]) -> None:  # [20]
    sent(school)
    before = snapshot(school)
    same = rollbook("candidate", "update", "ada", "--country", "gbr", "--city", " London ", "--clear", "fax", "--json")
    assert (same.code, same.data) == (0, [])
    assert snapshot(school) == before
    dry = rollbook("candidate", "update", "ada", "--city", "Paris", "-n", "--json")
    assert dry.data == [{"field": "city", "before": "London", "after": "Paris"}]
    assert (dry.err, snapshot(school)) == ("dry run: nothing was changed\n", before)
    rollbook("candidate", "update", "ada@example.org", "--city", "Paris", "--reason", "moved")
    assert states(school) == [("ada", "due")]
    entry = rollbook("history", "list", "--json").data[0]
    shown = rollbook("history", "show", str(entry["id"]), "--json").data
    assert (shown["before"], shown["after"], shown["reason"]) == ({"city": "London"}, {"city": "Paris"}, "moved")


def test_usage(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    assert rollbook("candidate", "update", "ada").code == 2
    assert rollbook("candidate", "update", "ada", "--clear", "email").code == 2
    assert rollbook("candidate", "update", "ada", "--fax", "1", "--clear", "fax").code == 2
    assert rollbook("candidate", "update", "nobody", "--fax", "1").code == 1
    assert rollbook("candidate", "update", "ada", "--city", "\udcff").code == 2  # a byte that is no UTF-8
    there = rollbook("candidate", "create", "ada")
    assert (there.code, there.err.splitlines()[0]) == (1, "error: ada is a candidate already")
    missing = rollbook("candidate", "show", "bob")
    assert (missing.code, missing.err) == (
        1, "error: bob is not a candidate yet\nfix:   rollbook candidate create bob\n"
    )  # fmt: skip
    assert snapshot(school) == before


def test_list_filters_by_state_and_text(rollbook: Rollbook, school: Connection[Any]) -> None:
    sent(school)
    rollbook("candidate", "create", "bob", *GOOD)
    assert rollbook("candidate", "list", "--state", "accepted", "--json").column("username") == ["ada"]
    assert rollbook("candidate", "list", "--state", "due", "--json").column("username") == ["bob"]
    assert rollbook("candidate", "list", "--match", "TESTLAST", "--json").column("username") == ["bob"]
    assert rollbook("candidate", "list", "--state", "rejected", "--json").data == []


@pytest.mark.usefixtures("school")
def test_show_has_record_state_exams_and_files(rollbook: Rollbook, tmp_path: Path) -> None:
    rollbook("authorization", "create", "ada", "org1/course1/term1", "--exam", "exam1", "--first", "2013-01-01",
             "--last", "2013-12-31")  # fmt: skip
    rollbook("pearson", "export", "cdd", "-o", str(tmp_path))
    shown = rollbook("candidate", "show", "ada", "--json").data
    assert (shown["candidate"]["state"], shown["demographics"]["city"]) == ("sent", "London")
    assert [row["exam"] for row in shown["authorizations"]] == ["exam1"]
    assert [(row["outcome"], row["file"][:4]) for row in shown["files"]] == [("sent", "cdd-")]
    drawn = rollbook("candidate", "show", "ada").out
    assert "demographics\n" in drawn
    assert "edX000000000101" in drawn
    account = rollbook("user", "show", "ada", "--json").data[0]
    assert (account["test_centre"]["state"], [row["exam"] for row in account["exams"]]) == ("sent", ["exam1"])
    assert rollbook("user", "show", "bob", "--json").data[0]["test_centre"] is None


# --- files ------------------------------------------------------------------------------------------------------------


def test_import_makes_changes_and_leaves_alone(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    sent(school)
    file = tmp_path / "candidates.csv"
    file.write_text(
        "user,first_name,city,address_1,country,phone,phone_country_code,fax\n"
        "ada,,London,,gbr,,,\n"
        "bob@example.org,Robert,Boston,2 Main St,DEU,2,49,\\N\n"
    )
    answer = rollbook("candidate", "import", str(file), "--json")
    assert [(row["user"], row["outcome"]) for row in answer.data] == [
        ("ada", "unchanged"), ("bob@example.org", "created")
    ]  # fmt: skip
    stored = rows(school, TABLE, "user_id", "first_name", "last_name", "city", "country", "fax")
    assert stored == [(101, "Ada", "Foo", "London", "GBR", ""), (102, "Robert", "Foo", "Boston", "DEU", "")]
    assert states(school) == [("ada", "accepted"), ("bob", "due")]
    file.write_text("user,city,middle_name\nada,Paris,\\N\nbob,Boston,\n")
    assert rollbook("candidate", "import", str(file), "--json").column("outcome") == ["changed", "unchanged"]
    assert states(school) == [("ada", "due"), ("bob", "due")]


def test_export_is_what_import_reads(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    rollbook("candidate", "create", "bob", *GOOD)
    file = tmp_path / "all.csv"
    assert rollbook("candidate", "export", "-o", str(file)).code == 0
    assert file.read_text().splitlines()[0] == ",".join(queries.COLUMNS)
    before = rows(school, TABLE, "user_id", *FIELD_NAMES)
    sent(school)
    assert rollbook("candidate", "import", str(file), "--json").column("outcome") == ["unchanged"] * 2
    assert states(school) == [("ada", "accepted"), ("bob", "accepted")]
    school.execute("delete from portal.student_testcenteruser")
    assert rollbook("candidate", "import", str(file), "--json").column("outcome") == ["created"] * 2
    assert rows(school, TABLE, "user_id", *FIELD_NAMES) == before


def test_every_wrong_row_is_told_and_nothing_is_stored(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    file, rejects = tmp_path / "candidates.csv", tmp_path / "wrong.csv"
    file.write_text(
        "user,city,address_1,country,phone,phone_country_code,first_name\n"
        "nobody,,,,,,\n"
        "bob,Boston,1 Main St,USA,1,1,\n"
        f"ada,Łódź,,,,,{'x' * 31}\n"
        "101,,,,,,\n"
        "id:101,Paris,,,,,\n"
    )
    before = snapshot(school)
    refused = rollbook("candidate", "import", str(file), "--rejects", str(rejects))
    assert refused.code == 1
    assert refused.err.splitlines()[:7] == [
        "line 2, user: 'nobody': there is no such user",
        f"line 3, postal_code: {NEEDED}",
        f"line 3, state: {NEEDED}",
        f"line 4, city: 'Łódź': {LATIN}, not Ł (U+0141)",
        f"line 4, first_name: '{'x' * 31}': Ensure this value has at most 30 characters (it has 31).",
        "line 5, user: '101': there is no such user",
        "line 6, user: 'id:101': the same user as on line 4",
    ]
    assert snapshot(school) == before
    assert len(rejects.read_text().splitlines()) == 6
    rejects.write_text("user,city\nada,Paris\nnobody,Rome\n")
    skipped = rollbook("candidate", "import", str(rejects), "--on-error", "skip", "--json")
    assert (skipped.code, skipped.column("outcome")) == (5, ["changed", "rejected"])
    assert rows(school, TABLE, "city") == [("Paris",)]


def test_template_is_the_header(rollbook: Rollbook) -> None:
    assert rollbook("candidate", "import", "--template").out == ",".join(queries.COLUMNS) + "\n"


def test_check_finds_what_stood_there_before_the_rules(rollbook: Rollbook, school: Connection[Any]) -> None:
    assert (rollbook("candidate", "check", "--json").data, rollbook("candidate", "check").code) == ([], 0)
    rollbook("authorization", "create", "ada", "org1/course1/term1", "--exam", "exam1", "--first", "2013-01-01",
             "--last", "2013-12-31")  # fmt: skip
    with school.transaction():
        school.execute("set local session_replication_role = replica")
        school.execute("update portal.student_testcenteruser set country = 'XXX', city = ''")
        school.execute("update portal.student_testcenterregistration set accommodation_code = 'BOGUS'")
    found = rollbook("candidate", "check", "--json")
    assert found.code == 4
    assert [(row["authorization"] is None, row["field"]) for row in found.data] == [
        (True, "city"), (True, "country"), (False, "accommodation_code")
    ]  # fmt: skip
