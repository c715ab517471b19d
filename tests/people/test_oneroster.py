"""`rollbook user import --oneroster`: a school's bundle becomes users, courses and enrollments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import REMOVE, rows, snapshot
from tests.school import Rollbook

V11 = {
    "manifest.csv": """propertyName,value
manifest.version,1.0
oneroster.version,1.1
file.academicSessions,absent
file.classes,bulk
file.courses,bulk
file.enrollments,bulk
file.users,bulk
""",
    "users.csv": """"sourcedId","status","dateLastModified","enabledUser","orgSourcedIds","role","username","userIds",\
"givenName","familyName","middleName","identifier","email","sms","phone","agentSourcedIds","grades","password"
"u1","","","true","s1","student","lina","","Lina","Ahmed","B.","","Lina@School.Example.ORG","","","","9",""
"u2","","","false","s1","student","omar","","Omar","Sy","","","","","","","9",""
"u3","","","true","s1","teacher","mrs.ho","","Mei","Ho","","","ho@school.example.org","","","","",""
"u4","","","true","s1","student","bob","","Bob","Foo","","","bob@example.org","","","","",""
""",
    "courses.csv": """sourcedId,status,dateLastModified,schoolYearSourcedId,title,courseCode,grades,orgSourcedId
c1,,,,Algebra,ALG,9,s1
""",
    "classes.csv": """sourcedId,status,dateLastModified,title,grades,courseSourcedId,classCode,classType,location
k-alg-1,,,Algebra 1,9,c1,A1,scheduled,
k-alg-2,,,Algebra 2,9,c1,A2,scheduled,
""",
    "enrollments.csv": """sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary
e1,,,k-alg-1,s1,u1,student,
e2,,,k-alg-1,s1,u2,student,
e3,,,k-alg-1,s1,u3,teacher,true
e4,,,k-alg-2,s1,u4,student,
""",
}
V12 = V11 | {
    "manifest.csv": V11["manifest.csv"].replace("version,1.1", "version,1.2"),
    "users.csv": """sourcedId,status,dateLastModified,enabledUser,username,userIds,givenName,familyName,middleName,\
identifier,email,sms,phone,agentSourcedIds,grades,password,userMasterIdentifier,preferredGivenName
u1,,,true,lina,,Lina,Ahmed,B.,,Lina@School.Example.ORG,,,,9,,,
u2,,,false,omar,,Omar,Sy,,,,,,,9,,,
u3,,,true,mrs.ho,,Mei,Ho,,,ho@school.example.org,,,,,,,
u4,,,true,bob,,Bob,Foo,,,bob@example.org,,,,,,,
""",
    "roles.csv": """sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId
r1,,,u1,primary,student,,,s1
r2,,,u2,secondary,aide,,,s1
r3,,,u2,primary,student,,,s1
r4,,,u3,primary,teacher,,,s1
""",
    # Without a role of its own, the user's counts.
    "enrollments.csv": V11["enrollments.csv"].replace("u2,student", "u2,"),
}


def bundle(folder: Path, files: dict[str, str]) -> str:
    """Write a bundle and return its folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return str(folder)


def people(db: Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute(
        "select username, email, first_name, last_name, name, is_active, r.id is not null from portal.auth_user u "
        "join portal.auth_userprofile p on p.user_id = u.id left join portal.auth_registration r on r.user_id = u.id "
        "where username in ('lina', 'omar', 'mrs.ho') order by username"
    ).fetchall()


def seats(db: Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute(
        "select course_id, username, replicated from rollbook.enrollment_status "
        "where course_id like 'k-%' order by 1, 2"
    ).fetchall()


@pytest.mark.parametrize("files", [V11, V12], ids=["1.1", "1.2"])
def test_a_bundle_becomes_users_courses_and_enrollments(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, files: dict[str, str]
) -> None:
    folder = bundle(tmp_path / "bundle", files)
    answer = rollbook("user", "import", "--oneroster", folder, "--json")
    assert answer.code == 0, answer.err
    assert people(school) == [
        ("lina", "Lina@school.example.org", "Lina", "Ahmed", "Lina B. Ahmed", True, True),
        ("mrs.ho", "ho@school.example.org", "Mei", "Ho", "Mei Ho", True, True),
        ("omar", "", "Omar", "Sy", "Omar Sy", False, True),
    ]
    assert ("bob", "bob@example.org") in rows(school, "portal.auth_user", "username", "email")
    assert seats(school) == [("k-alg-1", "lina", True), ("k-alg-1", "omar", True), ("k-alg-2", "bob", True)]
    assert {"k-alg-1", "k-alg-2"} <= {course for (course,) in rows(school, "rollbook.course", "course_id")}
    assert [row["detail"] for row in answer.data][-4:] == [
        "enrollment of lina in k-alg-1", "enrollment of omar in k-alg-1",
        "mrs.ho in k-alg-1: not a student, not enrolled", "enrollment of bob in k-alg-2",
    ]  # fmt: skip
    made = school.execute("select kind, object, batch is null from rollbook.history order by batch nulls first, id")
    assert sorted(made.fetchall(), key=str) == [
        ("course", "k-alg-1", False), ("course", "k-alg-2", False), *(
            ("enrollment", name, False) for name in ("bob", "lina", "omar")
        ), ("user", "bob", False), ("user", "lina", False), ("user", "mrs.ho", False), ("user", "omar", False),
        (None, "bundle", True),
    ]  # fmt: skip
    before = snapshot(school)
    again = rollbook("user", "import", "--oneroster", folder, "--json")
    assert (again.code, set(again.column("outcome"))) == (0, {"unchanged"})
    assert snapshot(school) == before


def test_what_is_to_be_deleted_is_blocked_or_left(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    rollbook("user", "import", "--oneroster", bundle(tmp_path / "bundle", V11))
    later = V11 | {
        "users.csv": V11["users.csv"].replace('"u1",""', '"u1","tobedeleted"'),
        "enrollments.csv": V11["enrollments.csv"].replace("e2,", "e2,tobedeleted"),
    }
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "bundle", later), "--json")
    assert (answer.code, answer.err) == (0, "1 changed, 2 removed, 7 unchanged\n")
    assert people(school)[0][-2] is False
    assert seats(school) == [("k-alg-2", "bob", True)]
    assert ("k-alg-1",) in rows(school, "rollbook.course", "course_id")


def test_a_dry_run_leaves_nothing(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    before = snapshot(school)
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "b", V11), "-n", "--json")
    assert (answer.code, "would create" in answer.column("outcome")) == (0, True)
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"users.csv": None}, 1, "the bundle lacks users.csv"),
        ({"manifest.csv": None, "classes.csv": None}, 1, "the bundle lacks manifest.csv"),
        ({"users.csv": None, "classes.csv": None}, 1, "the bundle lacks users.csv, classes.csv"),
        (
            {"manifest.csv": "propertyName,value\noneroster.version,2.0\n"},
            1,
            "OneRoster 2.0: this version is not supported",
        ),
        ({"manifest.csv": "propertyName,value\n"}, 1, "no oneroster.version"),
        (
            {"manifest.csv": V11["manifest.csv"].replace("users,bulk", "users,absent")},
            1,
            "neither users.csv nor an earlier bundle of this source has this sourcedId",
        ),
        ({"users.csv": "sourcedId,username\n"}, 2, "users.csv: the column givenName is missing"),
        (
            {"classes.csv": "sourcedId,courseSourcedId,sourcedid\n"},
            2,
            "classes.csv: column sourcedId appears twice",
        ),
        ({"courses.csv": 'sourcedId\n"c1\n'}, 1, "line 2 of courses.csv is not valid CSV"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, change: dict[str, str | None], code: int, words: str
) -> None:
    before = snapshot(school)
    files = {name: text for name, text in {**V11, **change}.items() if text is not None}
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "b", files))
    assert (answer.code, answer.out, words in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


def test_no_folder_and_options_of_one_file_are_usage(rollbook: Rollbook, tmp_path: Path, school: Any) -> None:
    del school
    assert rollbook("user", "import", "--oneroster", str(tmp_path / "nowhere")).code == 2
    assert rollbook("user", "import", "--oneroster", str(tmp_path), "--rejects", "x.csv").code == 2


BAD = {
    "users.csv": V11["users.csv"].replace('"true","s1","teacher"', '"perhaps","s1","teacher"')
    + '"u4","","","true","s1","student","tom","","Tom","X","","","nowhere","","","","",""\n'
    + '"","odd","","true","s1","student","tim","","Tim","X","","","","","","","",""\n',
    "classes.csv": V11["classes.csv"] + "k-9,,,Nine,9,c9,,,\ndefault,,,Default,9,c1,,,\nshort,,,\n",
    "enrollments.csv": V11["enrollments.csv"]
    + "e5,,,k-8,s1,u1,student,\ne6,,,k-alg-1,s1,u9,student,\ne7,,,k-alg-1,s1,u1,pupil,\ne7,,,k-9,s1,u1,student,\n",
}


def test_every_error_is_told_with_file_line_and_column(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "b", V11 | BAD), "--json")
    assert (answer.code, answer.out) == (1, "")
    found = json.loads(answer.err)["error"]["details"]["problems"]
    told = {(row["file"], row["line"], row["column"]) for row in found}
    assert told >= {
        ("users.csv", 4, "enabledUser"), ("users.csv", 6, "sourcedId"), ("users.csv", 6, "email"),
        ("users.csv", 7, "sourcedId"), ("users.csv", 7, "status"),
        ("classes.csv", 4, "courseSourcedId"), ("classes.csv", 5, "sourcedId"), ("classes.csv", 6, None),
        ("enrollments.csv", 4, "userSourcedId"), ("enrollments.csv", 6, "classSourcedId"),
        ("enrollments.csv", 7, "userSourcedId"), ("enrollments.csv", 8, "role"), ("enrollments.csv", 9, "sourcedId"),
        ("enrollments.csv", 9, "classSourcedId"),
    }  # fmt: skip
    assert snapshot(school) == before


def test_skip_applies_what_hangs_on_nothing_wrong(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "b", V11 | BAD), "--on-error", "skip")
    assert answer.code == 5
    assert "users.csv line 4, enabledUser: 'perhaps': true or false" in answer.err
    assert [row[0] for row in people(school)] == ["lina", "omar"]
    assert [row[:2] for row in seats(school)] == [("k-alg-1", "lina"), ("k-alg-1", "omar")]
    assert {course for (course,) in rows(school, "rollbook.course", "course_id")} & {"k-9", "default", "short"} == set()
    assert REMOVE in {course for (course,) in rows(school, "rollbook.course", "course_id")}
