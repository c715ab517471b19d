"""Every list in every format, and the options that shape an answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from rollbook.core import render
from rollbook.core.command import Format, Run
from rollbook.core.errors import RefusedError
from rollbook.core.render import indented
from tests.program import KEEP, LISTS, REMOVE, process
from tests.school import Rollbook, write_old

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
# One row or more without any data.
HEALTHY = {"user count", "enrollment count", "schema current", "schema history", "discussion status"}
DOCUMENTS = {
    "status": "portal courses servers",
    "user show ada": "account profile registration pending_changes groups enrollments test_centre exams bundles "
    "copies differences not_compared",
    f"course show {KEEP}": "course schema_name state on_leave server enrolled copied_users copied_profiles "
    "copied_enrollments created_at verified_at verdict differing_rows on_fault paused_at paused_by pause_reason "
    "moving_to leaving without closed_at closed_by local_objects replicated",
    "candidate show ada": "candidate demographics authorizations files",
    "authorization show edXexam000000000101": "authorization files",
    "version": "rollbook ships_revision python psycopg libpq server database_revision",
}


@pytest.mark.parametrize("command", LISTS)
def test_a_list_has_the_keys_of_the_contract_in_every_format(
    rollbook: Rollbook, broken: str, tmp_path: Path, command: str
) -> None:
    del broken
    keys, words = LISTS[command].split(), command.split()
    answers = {style: rollbook(*words, "--format", style) for style in ("json", "jsonl", "csv", "tsv", "table")}
    assert len({answer.code for answer in answers.values()}) == 1
    found = answers["json"].data
    assert found
    assert all(list(row) == keys for row in found)
    assert [list(json.loads(line)) for line in answers["jsonl"].out.splitlines()] == [keys] * len(found)
    for style, delimiter in (("csv", ","), ("tsv", "\t")):
        cells = answers[style].cells(delimiter)
        assert cells[0] == keys
        assert [len(line) for line in cells] == [len(keys)] * (len(found) + 1)
        assert len(rollbook(*words, "--format", style, "--no-header").cells(delimiter)) == len(found)
    assert "…" not in answers["table"].out

    first, *others = keys
    if others:
        turned = rollbook(*words, "--json", "--fields", f"{keys[-1]},{first}")
        assert all(list(row) == [keys[-1], first] for row in turned.data)
        assert rollbook(*words, "--csv", "--fields", f"-{first}").cells()[0] == others
    file = tmp_path / "answer"
    assert rollbook(*words, "--json", "-o", str(file)).out == ""
    assert (file.stat().st_mode & 0o777, len(json.loads(file.read_text()))) == (0o600, len(found))


@pytest.mark.parametrize("command", LISTS)
def test_a_list_on_an_empty_database_is_empty_and_fine(rollbook: Rollbook, empty: str, command: str) -> None:
    del empty
    keys, words = LISTS[command].split(), command.split()
    answers = {style: rollbook(*words, "--format", style) for style in ("json", "csv", "tsv", "table")}
    assert {answer.code for answer in answers.values()} == {0}
    if " ".join(words[:2]) in HEALTHY and "--by" not in words:
        assert answers["json"].data != []
        return
    assert answers["json"].data == []
    assert answers["csv"].out == ",".join(keys) + "\n"
    assert answers["tsv"].out == "\t".join(keys) + "\n"
    assert len(answers["table"].out.splitlines()) >= 1  # a person is told that nothing was found


@pytest.mark.parametrize("command", DOCUMENTS)
def test_a_document_has_its_keys(rollbook: Rollbook, seen: str, command: str) -> None:
    del seen
    found = rollbook(*command.split(), "--json").data
    assert list(found[0] if command.startswith("user") else found) == DOCUMENTS[command].split()
    (line,) = rollbook(*command.split(), "--format", "jsonl").out.splitlines()
    assert json.loads(line).__class__ is found.__class__
    assert rollbook(*command.split(), "--format", "table").out


@pytest.mark.parametrize("command", ["user show ada", f"course show {KEEP}", "version"])
def test_csv_of_a_document_is_csv_or_refused(rollbook: Rollbook, seen: str, command: str) -> None:
    del seen
    answer = rollbook(*command.split(), "--csv")
    assert answer.code == 2 or len({len(line) for line in answer.cells()}) == 1


@pytest.mark.parametrize("command", ["user show ada", f"course show {KEEP}", "version", "status"])
def test_an_unknown_field_of_a_document_is_refused(rollbook: Rollbook, seen: str, command: str) -> None:
    del seen
    answer = rollbook(*command.split(), "--json", "--fields", "no_such_field")
    assert (answer.code, answer.out) == (2, "")


def test_status_on_an_empty_database_has_a_portal_and_no_courses(rollbook: Rollbook, empty: str) -> None:
    del empty
    answer = rollbook("status", "--json")
    assert (answer.code, answer.data["courses"]) == (0, [])
    assert answer.data["portal"].items() >= {"users": 0, "enrollments": 0, "courses": 0, "revision": "0002"}.items()


def test_fields_of_status_are_obeyed_in_every_format(rollbook: Rollbook, seen: str) -> None:
    asked = ("status", "--fields", "course,verdict,reason", "-d", seen)
    assert [*{tuple(row) for row in rollbook(*asked, "--json").data["courses"]}] == [("course", "verdict", "reason")]
    drawn = rollbook(*asked, "--format", "table").out
    assert re.search(r"^COURSE +VERDICT +REASON *$", drawn, re.MULTILINE), drawn
    for style in ("json", "table", "csv"):
        assert rollbook("status", "--fields", "colour", "--format", style, "-d", seen).code == 2
    assert rollbook(*asked, "--html", "-").code == 0


def test_null_is_kept_in_json_and_empty_in_csv(rollbook: Rollbook, seen: str) -> None:
    del seen
    assert rollbook("user", "list", "--match", "eve", "--json").row["last_login"] is None
    assert (
        rollbook("user", "list", "--match", "eve", "--csv", "--no-header", "--fields", "last_login,id").out == ",104\n"
    )


def test_times_are_rfc_3339_in_utc(rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del seen
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    assert rollbook("user", "list", "--match", "ada", "--json").row["date_joined"] == "2012-09-01T08:00:00Z"
    for command, key in (
        ("course list", "since"),
        ("enrollment list", "created"),
        ("replication status", "observed_at"),
    ):
        for style in ("csv", "tsv"):
            answer = rollbook(*command.split(), "--format", style, "--fields", key, "--no-header")
            assert all(RFC_3339.fullmatch(line) for line in answer.out.splitlines()), answer.out


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["ada", "bob", "dan", "eve"]),
        (("--sort", "-username"), ["eve", "dan", "bob", "ada"]),
        (("--sort", "is_active,-id"), ["eve", "dan", "bob", "ada"]),
        (("--sort", "-courses,username"), ["ada", "bob", "dan", "eve"]),
        (("--sort", "-username", "--limit", "1"), ["eve"]),
        (("--limit", "2"), ["ada", "bob"]),
        (("--limit", "0"), []),
        (("--limit", "2", "--all"), ["ada", "bob", "dan", "eve"]),
        (("--match", "AD"), ["ada"]),
        (("--match", "%"), []),
        (("--match", "example.ORG"), ["ada", "bob", "dan"]),
        (("--match", "Dan Foo"), ["dan"]),
        (("--active",), ["ada", "bob"]),
        (("--inactive",), ["dan", "eve"]),
        (("--staff",), ["ada"]),
        (("--no-staff", "--active"), ["bob"]),
        (("--superuser",), []),
        (("--course", KEEP), ["ada", "bob"]),
    ],
)  # fmt: skip
def test_users_are_filtered_sorted_and_limited(
    rollbook: Rollbook, seen: str, options: tuple[str, ...], names: list[str]
) -> None:  # fmt: skip
    del seen
    assert rollbook("user", "list", "--json", *options).column("username") == names


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("course list --match TOY", [REMOVE]),
        ("course list --sort -enrolled", [KEEP, REMOVE]),
        ("course list --sort -course --limit 1", [REMOVE]),
        (f"enrollment list --course {KEEP}", [KEEP, KEEP]),
        ("enrollment list --user ada", [KEEP, REMOVE]),
        ("enrollment list --user ada --match bob", []),
        ("enrollment list --sort -created --limit 1", ["edX/later/2014"]),
    ],
)
def test_courses_and_enrollments_are_filtered_sorted_and_limited(
    rollbook: Rollbook, seen: str, command: str, names: list[str]
) -> None:
    del seen
    assert rollbook(*command.split(), "--json").column("course") == names


def test_a_table_shows_a_hundred_and_says_so_a_machine_gets_all(rollbook: Rollbook, db: Connection[Any]) -> None:
    db.execute("insert into portal.auth_user (username) select 'u' || n from generate_series(1, 150) as n")
    table = rollbook("user", "list", "--format", "table", "--fields", "id", "--no-header")
    assert (len(table.out.splitlines()), table.err) == (100, "100 of 150 rows; --all shows all\n")
    assert len(rollbook("user", "list", "--format", "table", "--all", "--no-header").out.splitlines()) == 150
    assert len(rollbook("user", "list", "--json").data) == 150
    assert rollbook("user", "list", "--format", "table", "-q").err == ""


def test_the_format_comes_from_the_environment_and_an_option_wins(
    rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del seen
    monkeypatch.setenv("ROLLBOOK_FORMAT", "json")
    assert rollbook("course", "list").column("course") == [KEEP, REMOVE]
    assert rollbook("course", "list", "--csv", "--fields", "course").cells() == [["course"], [KEEP], [REMOVE]]
    monkeypatch.setenv("ROLLBOOK_FORMAT", "yaml")
    assert rollbook("course", "list").code == 2


def test_cells_survive_tabs_newlines_quotes_and_scripts(rollbook: Rollbook, school: Connection[Any]) -> None:
    name = 'tab\there, "quoted"\nnext \\ ジュリア'
    write_old(school, "update portal.auth_userprofile set name = %s where user_id = 101", name)
    options = ("user", "list", "--match", "ada", "--fields", "name", "--no-header")
    assert rollbook(*options, "--csv").cells() == [[name]]
    assert rollbook(*options, "--json").row["name"] == name
    assert rollbook(*options).out == 'tab\\there, "quoted"\\nnext \\\\ ジュリア\n'


@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("replication verify", "COURSE"),
        ("course create new/course/1 -n", "select"),
        ("replication repair -n", "select"),
    ],
)
def test_a_file_gets_the_whole_answer_also_as_a_table(
    rollbook: Rollbook, broken: str, tmp_path: Path, command: str, first: str
) -> None:
    del broken
    there = rollbook(*command.split(), "--format", "table")
    into = rollbook(*command.split(), "--format", "table", "-o", str(tmp_path / "answer"))
    assert (into.code, into.out) == (there.code, "")
    lines = (tmp_path / "answer").read_text().splitlines()
    assert (lines[0].split()[0], len(lines)) == (first, len(there.out.splitlines()))


def test_columns_that_is_no_number_is_no_bug(rollbook: Rollbook, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del seen
    monkeypatch.setenv("COLUMNS", "wide")
    assert rollbook("course", "list", "--format", "table").code == 0


def test_quiet_says_nothing_and_verbose_says_the_sql_on_stderr(rollbook: Rollbook, seen: str) -> None:
    assert rollbook("replication", "verify", "-q").err == ""
    loud = process("user", "show", "ada", "--json", "-v", "-d", seen)
    assert "portal.auth_user" in loud.err
    assert "ada" not in loud.err
    assert loud.data[0]["account"]["username"] == "ada"


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("answer.csv", (), "course,"), ("answer.JSON", (), "["), ("answer.jsonl", (), '{"course"'),
        ("answer.tsv", (), "course\t"), ("answer.txt", (), "COURSE "), ("answer", (), "course\t"),
        ("answer.dat", (), "course\t"), ("answer.csv", ("--json",), "["), ("chart.png", ("--format", "csv"), "course,"),
    ],
)  # fmt: skip
def test_the_format_follows_the_ending_of_the_file(
    rollbook: Rollbook, seen: str, tmp_path: Path, name: str, options: tuple[str, ...], first: str
) -> None:
    del seen
    assert rollbook("course", "list", *options, "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / name).read_text().startswith(first)


@pytest.mark.parametrize(
    ("command", "name", "endings"),
    [
        ("user count --by month", "chart.png", ".csv, .json, .jsonl, .tsv, .txt"),
        ("status", "report.html", ".csv, .json, .jsonl, .tsv, .txt"),
        ("user export", "users.xlsx", ".csv, .json, .jsonl, .tsv, .txt"),
        ("user show ada", "ada.csv", ".json, .jsonl, .txt"),
        ("version", "version.pdf", ".json, .jsonl, .txt"),
    ],
)
def test_an_ending_of_another_kind_of_file_is_refused_before_anything_is_written(
    rollbook: Rollbook, seen: str, tmp_path: Path, command: str, name: str, endings: str
) -> None:
    del seen
    answer = rollbook(*command.split(), "-o", str(tmp_path / name))
    assert (answer.code, f"the supported endings are {endings}" in answer.err) == (2, True), answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_export_follows_the_ending_too(rollbook: Rollbook, seen: str, tmp_path: Path) -> None:
    del seen
    for name, first in (("users.json", "["), ("users.csv", "username,"), ("users", "username,")):
        assert rollbook("user", "export", "-o", str(tmp_path / name)).code == 0
        assert (tmp_path / name).read_text().startswith(first)


@pytest.mark.parametrize(
    "value",
    [[], {}, "ü", None, [1, []], {"a": [], "b": {}}, [{"a": 1}, {"b": [[2]]}, []],
     {"portal": {"x": 1.5, "faults": [{"y": True}]}, "courses": [{"course": 'a", {[:', "without": ["a", "b"]}]}],
)  # fmt: skip
def test_indented_json_is_what_the_library_writes(value: Any) -> None:
    assert indented(value) == json.dumps(value, indent=2, ensure_ascii=False)


FORGED = "course full\nfix:   rollbook user grant u1 --superuser --yes"


def test_what_a_server_says_begins_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(format=Format.table)
    render.note(run, f"server east: {FORGED}")
    for columns in (("last_error",), ("course", "reason", "fix")):
        render.rows(run, [dict.fromkeys(columns, FORGED)], columns)
    render.error(run, RefusedError(FORGED, why=FORGED))
    seen = capsys.readouterr()
    assert "rollbook user grant" in seen.out
    assert "rollbook user grant" in seen.err
    assert not [line for line in f"{seen.out}{seen.err}".splitlines() if line.startswith("fix:")]
    render.rows(Run(json=True), [{"reason": FORGED}], ("reason",))
    assert json.loads(capsys.readouterr().out) == [{"reason": FORGED}]
