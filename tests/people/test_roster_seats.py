"""The enrollments of OneRoster bundles: who leaves, dates, deltas, absent files, words; and `enrollment sync-dates`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg import Connection

from rollbook.people import bundle as bundles
from tests.people.test_merge import until
from tests.people.test_oneroster import bundle
from tests.program import process, snapshot
from tests.school import Rollbook

Db = Connection[Any]

MANIFEST = """propertyName,value
manifest.version,1.0
oneroster.version,1.1
file.academicSessions,absent
file.classes,bulk
file.courses,bulk
file.enrollments,bulk
file.orgs,absent
file.users,bulk
source.systemName,SIS
"""
USERS = (
    "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,userIds,givenName,familyName,"
    "middleName,identifier,email,sms,phone,agentSourcedIds,grades,password\n"
)
SAM = "u1,,,true,o1,student,s.alpha,,Sam,Alpha,,,s.alpha@school.example.org,,,,10,\n"
BEA = "u2,,,true,o1,student,s.beta,,Bea,Beta,,,s.beta@school.example.org,,,,10,\n"
TOM = "t1,,,true,o1,teacher,t.gamma,,Tom,Gamma,,,t.gamma@school.example.org,,,,,\n"
COURSES = "sourcedId,status,dateLastModified,schoolYearSourcedId,title,courseCode\nc1,,,,Algebra,ALG\n"
CLASSES = "sourcedId,status,dateLastModified,title,grades,courseSourcedId\n"
ALG = "alg-1,,,Algebra 1,,c1\nalg-2,,,Algebra 2,,c1\n"
ENROLLMENTS = (
    "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate\n"
)
E1 = "e1,,,alg-1,o1,u1,student,false,,\n"
E2 = "e2,,,alg-1,o1,u2,student,false,,\n"
E3 = "e3,,,alg-1,o1,t1,teacher,true,,\n"
FIRST = {
    "manifest.csv": MANIFEST,
    "users.csv": USERS + SAM + BEA + TOM,
    "courses.csv": COURSES,
    "classes.csv": CLASSES + ALG,
    "enrollments.csv": ENROLLMENTS + E1 + E2 + E3,
}
DELTA = {
    "manifest.csv": MANIFEST.replace("bulk", "delta"),
    "users.csv": USERS,
    "courses.csv": COURSES.splitlines()[0] + "\n",
    "classes.csv": CLASSES,
    "enrollments.csv": ENROLLMENTS,
}


def seats(db: Db) -> set[tuple[str, str]]:
    """Return who is in the classes, with a copy in the course."""
    return set(
        db.execute(
            "select course_id, username from rollbook.enrollment_status "
            "where course_id !~ '^(edX|MITx)/' and replicated"
        ).fetchall()
    )


class Imports:
    """Import bundles, each in a directory of its own."""

    def __init__(self, rollbook: Rollbook, place: Path) -> None:
        self.rollbook, self.place, self.count = rollbook, place, 0

    def __call__(self, files: dict[str, str], *options: str, code: int = 0) -> Any:
        self.count += 1
        where = bundle(self.place / str(self.count), files)
        answer = self.rollbook("user", "import", "--oneroster", where, "--json", *options)
        assert answer.code == code, answer.err
        return answer

    def enrollments(self, files: dict[str, str], *options: str, code: int = 0) -> list[tuple[str, str]]:
        """Import a bundle and return the outcomes of its enrollments, those that are not in the file last."""
        rows = self(files, *options, code=code).data
        return [(row["outcome"], row["detail"]) for row in rows if " in alg-" in (row["detail"] or "")]


@pytest.fixture
def imports(rollbook: Rollbook, tmp_path: Path, school: Db) -> Imports:
    del school
    return Imports(rollbook, tmp_path)


def problems(answer: Any) -> set[tuple[str, int, str, str]]:
    found = json.loads(answer.err)["error"]["details"]["problems"]
    return {(row["file"], row["line"], row["column"], row["reason"]) for row in found}


# --- bulk -------------------------------------------------------------------------------------------------------------


def test_who_is_not_in_a_bulk_bundle_leaves(imports: Imports, school: Db) -> None:
    imports(FIRST)
    before = snapshot(school)
    assert imports(FIRST).err == "8 unchanged\n"
    assert snapshot(school) == before
    tuesday = FIRST | {"enrollments.csv": ENROLLMENTS + E1 + E3}
    refused = imports(tuesday, "--yes", code=1).err
    assert "would remove 1 of 2 users from the classes of the bundle; the limit is 0" in refused
    assert "not in the file: s.beta (alg-1)" in refused
    assert "--max-removals 1" in refused
    asked = json.loads(imports(tuesday, "--max-removals", "1", code=6).err)["error"]
    assert asked["details"]["plan"] == {"removed": 1, "present": 2, "leaving": ["s.beta (alg-1)"]}
    plan = imports.enrollments(tuesday, "--max-removals", "1", "-n")
    assert plan[-1] == ("would remove", "enrollment of s.beta in alg-1: not in the file")
    assert snapshot(school) == before
    wednesday = tuesday | {"users.csv": USERS + SAM + TOM}
    assert imports.enrollments(wednesday, "--max-removals", "1", "--yes")[-1][0] == "removed"
    assert seats(school) == {("alg-1", "s.alpha")}


def test_who_stays_without_a_row_of_a_bulk_bundle(imports: Imports, school: Db, rollbook: Rollbook) -> None:
    imports(FIRST)
    for name in ("staff", "other", "extra", "third"):
        rollbook("user", "create", name, "--email", f"{name}@example.org", "--name", name.title(), "--active")
    rollbook("user", "grant", "staff", "--staff")
    rollbook("enrollment", "add", "alg-1", "staff", "extra", "t.gamma", "third")
    rollbook("enrollment", "add", "alg-2", "other")
    rollbook("course", "create", "own")
    rollbook("enrollment", "add", "own", "other")
    school.execute(
        "insert into rollbook.roster_enrollment select 'another school', 'e1', id, 'alg-1', null, null, true "
        "from portal.auth_user where username = 'third'"
    )
    school.commit()
    # alg-2 is no class any more, and `other` did not come from a bundle there: it is left alone.
    fewer = FIRST | {"classes.csv": CLASSES + ALG.splitlines()[0] + "\n"}
    assert imports.enrollments(fewer, "--max-removals", "1", "--yes")[-1] == (
        "removed", "enrollment of extra in alg-1: not in the file"
    )  # fmt: skip
    assert seats(school) == {
        ("alg-1", "s.alpha"), ("alg-1", "s.beta"), ("alg-1", "staff"), ("alg-1", "t.gamma"), ("alg-1", "third"),
        ("alg-2", "other"), ("own", "other"),
    }  # fmt: skip


def test_a_class_that_is_gone_loses_the_students_that_the_source_brought(imports: Imports, school: Db) -> None:
    more = FIRST | {"enrollments.csv": ENROLLMENTS + E1 + E2 + "e4,,,alg-2,o1,u1,student,,,\n"}
    imports(more)
    fewer = FIRST | {"classes.csv": CLASSES + ALG.splitlines()[0] + "\n", "enrollments.csv": ENROLLMENTS + E1 + E2}
    rows = imports(fewer, "--max-removals", "1", "--yes").data
    assert [row["detail"] for row in rows if row["line"] is None] == [
        "course alg-2, which stays here: its class is not in the file",
        "enrollment of s.alpha in alg-2: not in the file",
    ]
    assert seats(school) == {("alg-1", "s.alpha"), ("alg-1", "s.beta")}
    assert imports(fewer).err == "6 unchanged\n"


def test_a_wrong_row_takes_nobody_out(imports: Imports, school: Db) -> None:
    imports(FIRST)
    wrong = FIRST | {
        "users.csv": USERS + SAM + BEA.replace("s.beta@", "@@") + TOM,
        "enrollments.csv": ENROLLMENTS + E1.replace("alg-1", "alg-9") + E2 + E3,
    }
    imports(wrong, "--on-error", "skip", "--yes", code=5)
    assert seats(school) == {("alg-1", "s.alpha"), ("alg-1", "s.beta")}
    for row in ("alg-1 ,o1,u2", "ALG-1,o1, U2 ", ",o1,u2", "alg-1,o1,", ",o1,"):
        meant = FIRST | {"enrollments.csv": ENROLLMENTS + E1 + E3 + f"e9,,,{row},student,false,,\n"}
        imports(meant, "--on-error", "skip", "--yes", code=5)
        assert seats(school) == {("alg-1", "s.alpha"), ("alg-1", "s.beta")}
    for row in ("alg-1,o1,u77", "alg-77,o1,u2", ",o1,u1", "alg-2,o1,"):
        imports(FIRST)
        other = FIRST | {"enrollments.csv": ENROLLMENTS + E1 + E3 + f"e9,,,{row},student,false,,\n"}
        imports(other, "--on-error", "skip", "--yes", "--max-removals", "1", code=5)
        assert seats(school) == {("alg-1", "s.alpha")}


# --- dates ------------------------------------------------------------------------------------------------------------


def test_an_enrollment_counts_from_its_first_day_to_its_last(imports: Imports, school: Db, rollbook: Rollbook) -> None:
    imports(FIRST)
    today = school.execute("select current_date").fetchone()[0].isoformat()  # type: ignore[index]
    dated = FIRST | {
        "enrollments.csv": ENROLLMENTS
        + "e1,active,2025-06-20T18:25:43.511Z,alg-1,o1,u1,student,false,2024-09-01,2025-06-20\n"
        + "e2,Active,,alg-1,o1,u2,student,false,2999-09-01,2999-12-20T00:00:00Z\n"
        + f"e4,,,alg-2,o1,u2,student,false,2025-06-21,{today}\n"
        + "e5,,,alg-2,o1,u2,student,false,2024-09-01,2025-06-20T23:00:00.000+02:00\n"
        + f"e6,,,alg-2,o1,u1,student,false,{today},\n"
    }
    assert imports.enrollments(dated) == [
        ("removed", "enrollment of s.alpha in alg-1: ended 2025-06-20"),
        ("removed", "enrollment of s.beta in alg-1: begins 2999-09-01"),
        ("created", "enrollment of s.beta in alg-2"),
        ("unchanged", "s.beta in alg-2: ended 2025-06-20; another row counts"),
        ("created", "enrollment of s.alpha in alg-2"),
    ]
    assert seats(school) == {("alg-2", "s.alpha"), ("alg-2", "s.beta")}
    assert imports.enrollments(dated)[:2] == [
        ("unchanged", "s.alpha in alg-1: not enrolled: ended 2025-06-20"),
        ("unchanged", "s.beta in alg-1: not enrolled: begins 2999-09-01"),
    ]
    # Time passes; whom an operator removed is not put back by it.
    rollbook("enrollment", "remove", "alg-2", "s.alpha")
    school.execute("update rollbook.roster_enrollment set end_date = current_date - 1 where sourced_id = 'e4'")
    school.execute("update rollbook.roster_enrollment set begin_date = current_date where sourced_id = 'e2'")
    school.commit()
    before = snapshot(school)
    assert rollbook("enrollment", "sync-dates").code == 6
    assert rollbook("enrollment", "sync-dates", "--yes", "--max-removals", "0").code == 1
    assert rollbook("enrollment", "sync-dates", "--source", "nowhere", "--yes").code == 1
    assert rollbook("enrollment", "sync-dates", "-n").code == 0
    assert snapshot(school) == before
    moved = rollbook("enrollment", "sync-dates", "--source", "default", "--yes", "--json")
    assert [(row["course"], row["username"], row["outcome"]) for row in moved.data] == [
        ("alg-1", "s.beta", "created"), ("alg-2", "s.beta", "removed"),
    ]  # fmt: skip
    assert seats(school) == {("alg-1", "s.beta")}
    again = rollbook("enrollment", "sync-dates", "--json")
    assert (again.code, again.data) == (0, [])


def test_today_is_the_day_in_the_time_zone_of_the_database(
    imports: Imports, school: Db, rollbook: Rollbook, dsn: str
) -> None:
    zone, day = school.execute(
        "select n.name, (now() at time zone n.name)::date from pg_timezone_names as n "
        "where n.name in ('Etc/GMT+12', 'Etc/GMT-14') "
        "and (now() at time zone n.name)::date <> (now() at time zone 'UTC')::date"
    ).fetchone()  # type: ignore[misc]
    school.commit()
    on_that_day = FIRST | {"enrollments.csv": ENROLLMENTS + f"e1,,,alg-1,o1,u1,student,,{day},{day}\n"}
    imports.enrollments(on_that_day)
    assert seats(school) == set()
    there = f"{dsn} options='-c TimeZone={zone}'"
    assert rollbook("user", "import", "--oneroster", str(imports.place / "1"), dsn=there).code == 0
    assert seats(school) == {("alg-1", "s.alpha")}


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_that_take_access_away_in_any_capitals(imports: Imports, school: Db) -> None:
    imports(
        FIRST
        | {"enrollments.csv": ENROLLMENTS + E1 + E2 + "e4,,,alg-2,o1,u1,Student,,,\ne5,,,alg-2,o1,u2,student,,,\n"}
    )
    ended = {
        "users.csv": USERS + SAM.replace("u1,,", "u1,INACTIVE,") + BEA.replace("true", "FALSE") + TOM,
        "classes.csv": CLASSES + ALG.replace("alg-2,,", "alg-2,ToBeDeleted,"),
        "enrollments.csv": ENROLLMENTS + E1 + E2.replace("e2,,", "e2, Inactive ,")
        + "e5,ACTIVE,,alg-2,o1,u2,student,,,\n",
    }  # fmt: skip
    assert imports.enrollments(FIRST | ended, "--max-removals", "1", "--yes") == [
        ("removed", "enrollment of s.alpha in alg-1: the user is inactive"),
        ("removed", "enrollment of s.beta in alg-1: inactive"),
        ("removed", "enrollment of s.beta in alg-2: the class is tobedeleted"),
        ("removed", "enrollment of s.alpha in alg-2: ended"),
    ]
    assert seats(school) == set()
    active = school.execute("select username from portal.auth_user where username ~ '^[st][.]' and is_active")
    assert active.fetchall() == [("t.gamma",)]


def test_words_that_nobody_knows_are_wrong(imports: Imports, school: Db) -> None:
    before = snapshot(school)
    wrong = FIRST | {
        "users.csv": USERS + SAM.replace("u1,,", "u1,enabled,") + BEA.replace(",student,", ",pupil,") + TOM,
        "classes.csv": CLASSES + ALG.replace("alg-2,,", "alg-2,deleted,"),
        "enrollments.csv": ENROLLMENTS + "e1,yes,,alg-1,o1,u1,student,,,\n"
        + "e2,,,alg-1,o1,u2,student,,09/01/2026,2026-02-30\n" + "e3,,,alg-1,o1,t1,teacher,,2026-09-02,2026-09-01\n"
        + f"{'e' * 256},,,alg-1,o1,t1,teacher,,,\n",
    }  # fmt: skip
    status = "status is active, inactive or tobedeleted; blank is active"
    role = "the role is student, teacher or another of OneRoster's"
    date = "this is not a date, such as 2026-09-01"
    assert problems(imports(wrong, code=1)) >= {
        ("users.csv", 2, "status", status), ("users.csv", 3, "role", role), ("classes.csv", 3, "status", status),
        ("enrollments.csv", 2, "status", status), ("enrollments.csv", 3, "beginDate", date),
        ("enrollments.csv", 3, "endDate", date), ("enrollments.csv", 4, "endDate", "before beginDate"),
        ("enrollments.csv", 5, "sourcedId", "a sourcedId has at most 255 characters, this one has 256"),
    }  # fmt: skip
    assert snapshot(school) == before


@pytest.mark.parametrize(
    ("line", "new", "words"),
    [
        ("file.enrollments,bulk", "file.enrollments,full", "manifest.csv: file.enrollments is 'full'"),
        ("file.enrollments,bulk", "file.enrollments,", "manifest.csv: file.enrollments is blank"),
        ("file.enrollments,bulk\n", "", "manifest.csv does not say whether enrollments.csv is bulk or delta"),
        ("file.orgs,absent", "file.enrollments,delta", "manifest.csv has file.enrollments twice"),
        ("bulk", "absent", "there is nothing to import"),
    ],
)
def test_a_manifest_that_does_not_say_what_the_files_are_is_refused(
    imports: Imports, line: str, new: str, words: str
) -> None:
    answer = imports(FIRST | {"manifest.csv": MANIFEST.replace(line, new)}, code=1)
    assert words in json.loads(answer.err)["error"]["message"]


# --- deltas and absent files ------------------------------------------------------------------------------------------


def test_a_delta_changes_what_it_names(imports: Imports, school: Db) -> None:
    imports(FIRST)
    delta = DELTA | {
        "enrollments.csv": ENROLLMENTS
        + "e2,tobedeleted,2026-11-01T00:00:00.000Z,alg-1,o1,u2,student,false,,\n"
        + "e9,active,2026-11-01T00:00:00.000Z,alg-2,o1,u1,student,false,,\n"
    }
    done = [("removed", "enrollment of s.beta in alg-1: tobedeleted"), ("created", "enrollment of s.alpha in alg-2")]
    assert imports.enrollments(delta) == done
    assert seats(school) == {("alg-1", "s.alpha"), ("alg-2", "s.alpha")}
    assert imports(delta).err == "2 unchanged\n"
    # A row that moves to another class leaves the old one; users.csv need not be there.
    moved = delta | {
        "manifest.csv": MANIFEST.replace("bulk", "delta").replace("users,delta", "users,Absent"),
        "enrollments.csv": ENROLLMENTS
        + "e9,active,,alg-1,o1,u1,student,false,,\ne1,inactive,,alg-1,o1,u1,student,,,\n",
    }
    del moved["users.csv"]
    imports(moved)
    assert seats(school) == {("alg-1", "s.alpha")}
    gone = DELTA | {"classes.csv": CLASSES + ALG.replace("alg-1,,", "alg-1,tobedeleted,")}
    assert imports(gone).data[-1]["detail"] == "enrollment of s.alpha in alg-1: ended"
    assert seats(school) == set()
    unknown = DELTA | {"enrollments.csv": ENROLLMENTS + "e8,active,,alg-8,o1,u8,student,,,\n"}
    assert problems(imports(unknown, code=1)) == {
        ("enrollments.csv", 2, "classSourcedId", "neither classes.csv nor a course has this sourcedId"),
        (
            "enrollments.csv", 2, "userSourcedId",
            "neither users.csv nor an earlier bundle of this source has this sourcedId",
        ),
    }  # fmt: skip


def test_what_the_manifest_calls_absent_is_not_missed(imports: Imports, school: Db) -> None:
    files = FIRST | {"manifest.csv": MANIFEST.replace("courses,bulk", "courses,ABSENT")}
    del files["courses.csv"]
    assert imports(files).err == "7 created, 1 unchanged\n"
    alone = {"manifest.csv": files["manifest.csv"].replace("classes,bulk", "classes,absent").replace(
        "enrollments,bulk", "enrollments,absent"), "users.csv": FIRST["users.csv"]}  # fmt: skip
    assert "not in the bundle, and not missed: classes.csv, enrollments.csv" in imports(alone).err
    assert seats(school) == {("alg-1", "s.alpha"), ("alg-1", "s.beta")}
    lacking = FIRST | {"manifest.csv": MANIFEST}
    del lacking["courses.csv"]
    assert "the bundle lacks courses.csv" in imports(lacking, code=1).err


# --- the shapes of public exports -------------------------------------------------------------------------------------

# As a roster service writes 1.1: every field quoted, CRLF, a byte order mark, terms, long ids, columns of its own.
SERVICE = {
    "manifest.csv": MANIFEST.replace("file.orgs,absent", "file.demographics,absent\nfile.lineItems,absent"),
    "users.csv": '"sourcedId","orgSourcedIds","role","username","givenName","familyName","email","enabledUser",'
    '"metadata.grade","status","dateLastModified"\n'
    '"58b9f6b0-2c9e-4f3a","sch-1,sch-2","student","lina.a","Lina","Ahmed","lina@school.example.org","TRUE","9","",""\n'
    '"58b9f6b0-2c9e-4f3b","sch-1","guardian","pa.a","Pa","Ahmed","pa@school.example.org","TRUE","","",""\n',
    "courses.csv": '"sourcedId","title"\n"crs-1","Algebra"\n',
    "classes.csv": '"termSourcedIds","sourcedId","title","courseSourcedId"\n"t1,t2","alg-5c","Algebra, 5th","crs-1"\n',
    "enrollments.csv": '"SOURCEDID","userSourcedId","CLASSSOURCEDID","schoolSourcedId","Role","beginDate","endDate"\n'
    '"58b9f6b0-e1","58b9f6b0-2c9e-4f3a","alg-5c","sch-1","student","2020-09-01T00:00:00-05:00",""\n',
}
# As a system writes 1.2: no role in users.csv but roles.csv, userProfiles.csv, all files in the manifest.
PROFILES = {
    "manifest.csv": "propertyName,value\nmanifest.version,1.0\noneroster.version,1.2\n"
    + "".join(
        f"file.{name},{word}\n"
        for word, names in {
            "bulk": "academicSessions classes courses enrollments orgs roles userProfiles users",
            "absent": "categories classResources demographics lineItems results scoreScales",
        }.items()
        for name in names.split()
    ),
    "users.csv": "sourcedId,status,dateLastModified,enabledUser,username,userIds,givenName,familyName,middleName,"
    "identifier,email,sms,phone,agentSourcedIds,grades,password,userMasterIdentifier,preferredGivenName,"
    "preferredMiddleName,preferredFamilyName,primaryOrgSourcedId,pronouns\n"
    "u1,,,true,lina,{LDAP:lina},Lina,Ahmed,,,lina@school.example.org,,,,9,,,,,,o1,\n"
    "u2,,,true,omar,,Omar,Sy,,,omar@school.example.org,,,,9,,,,,,o1,\n"
    "u3,,,true,ho,,Mei,Ho,,,ho@school.example.org,,,,,,,,,,o1,\n",
    "roles.csv": "sourcedId,status,dateLastModified,userSourcedId,roleType,role,beginDate,endDate,orgSourcedId,"
    "userProfileSourcedId\n"
    "r1,,,u1,primary,student,2020-08-01,,o1,p1\nr2,,,u2,primary,student,2020-08-01,2021-07-31,o1,\n"
    "r3,,,u2,secondary,counselor,2021-08-01,,o1,\nr4,,,u3,primary,siteAdministrator,,,o1,\n",
    "userProfiles.csv": "sourcedId,status,dateLastModified,userSourcedId,profileType,vendorId\np1,,,u1,sis,v1\n",
    "courses.csv": "sourcedId,status,dateLastModified,schoolYearSourcedId,title,courseCode\nc1,,,,Algebra,ALG\n",
    "classes.csv": CLASSES + "alg-1,,,Algebra 1,,c1\n",
    "enrollments.csv": ENROLLMENTS + "e1,,,alg-1,o1,u1,,,,\ne2,,,alg-1,o1,u2,,,,\ne3,,,alg-1,o1,u3,administrator,,,\n",
}
# As a change feed writes it: only what changed, no line for what is not sent, no schoolSourcedId.
FEED = {
    "manifest.csv": "propertyName,value\nmanifest.version,1.0\noneroster.version,1.2\nfile.orgs,delta\n"
    "file.users,delta\nfile.roles,absent\nfile.academicSessions,delta\nfile.courses,absent\nfile.classes,delta\nfile.enrollments,delta",
    "users.csv": "sourcedId,status,dateLastModified,enabledUser,username,givenName,familyName\n"
    "u9,active,2026-09-07T00:00:00Z,true,zed,Zed,Zulu",
    "classes.csv": "sourcedId,status,dateLastModified,title,courseSourcedId,termSourcedIds\n"
    "alg-9,active,2026-09-07T00:00:00Z,Algebra,x-course,x-term",
    "enrollments.csv": "sourcedId,status,dateLastModified,classSourcedId,userSourcedId,role\n"
    "e9,active,2026-09-07T00:00:00Z,alg-9,u9,student",
}


def test_bundles_as_others_write_them(imports: Imports, school: Db) -> None:
    windows = {name: "\ufeff" + text.replace("\n", "\r\n") for name, text in SERVICE.items()}
    imports(windows, "--source", "service")
    assert seats(school) == {("alg-5c", "lina.a")}
    imports(FEED, "--source", "feed")
    assert seats(school) == {("alg-5c", "lina.a"), ("alg-9", "zed")}
    assert imports.enrollments(PROFILES | {"users.csv": PROFILES["users.csv"].replace("lina@", "l@")}) == [
        ("created", "enrollment of lina in alg-1"),
        ("unchanged", "omar in alg-1: not a student, not enrolled"),
        ("unchanged", "ho in alg-1: not a student, not enrolled"),
    ]


def test_a_zip_is_read_and_nothing_else_of_it(
    rollbook: Rollbook, school: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def packed(files: dict[str, str], name: str = "bundle.zip") -> str:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, text in files.items():
                archive.writestr(file, text)
        return str(tmp_path / name)

    within = {f"../../export/{name}": text for name, text in FIRST.items()} | {"../../evil.txt": "x"}
    answer = rollbook("user", "import", "--oneroster", packed(within))
    assert answer.code == 0, answer.err
    assert seats(school) == {("alg-1", "s.alpha"), ("alg-1", "s.beta")}
    assert not list(tmp_path.parent.rglob("evil.txt"))
    assert "has manifest.csv twice" in rollbook("user", "import", "--oneroster", packed(within | FIRST)).err
    monkeypatch.setattr(bundles, "LARGEST", 1000)
    assert "unpacks to more than" in rollbook("user", "import", "--oneroster", packed(FIRST)).err
    broken = Path(packed(FIRST))
    broken.write_bytes(broken.read_bytes().replace(b"sourcedId", b"sourcedXX")[:-30])
    assert rollbook("user", "import", "--oneroster", str(broken)).code in (1, 2)


# --- races ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "left"),
    [
        # A deletion wins: the user joins nothing. So does a removal. What is there already is not made twice.
        ("delete from portal.auth_user where username = 's.alpha'", {("alg-2", "t.gamma")}),
        (
            "delete from portal.student_courseenrollment using portal.auth_user as u "
            "where u.id = user_id and username = 's.beta'",
            {("alg-1", "s.alpha"), ("alg-2", "s.alpha"), ("alg-2", "t.gamma")},
        ),
        (
            "insert into portal.student_courseenrollment (user_id, course_id) "
            "select id, 'alg-2' from portal.auth_user where username = 's.alpha'",
            {("alg-1", "s.alpha"), ("alg-2", "s.alpha"), ("alg-2", "t.gamma")},
        ),
    ],
    ids=["delete user", "remove", "add"],
)
def test_what_others_write_meanwhile_is_not_lost(
    imports: Imports, school: Db, session: Callable[[], Db], dsn: str, held: LiteralString, left: set[tuple[str, str]]
) -> None:
    imports(FIRST)
    rows = ENROLLMENTS + "e2,tobedeleted,,alg-1,o1,u2,student,,,\ne9,active,,alg-2,o1,u1,student,,,\n"
    first = bundle(imports.place / "first", DELTA | {"enrollments.csv": rows})
    rows = ENROLLMENTS + "e10,active,,alg-2,o1,t1,student,,,\n"
    second = bundle(imports.place / "second", DELTA | {"enrollments.csv": rows})
    other = session()
    other.autocommit = False
    other.execute(held)
    with ThreadPoolExecutor(2) as pool:
        running = []
        for number, where in enumerate((first, second), start=1):
            running.append(pool.submit(process, "user", "import", "--oneroster", where, "-d", dsn))
            until(school, number)
        other.commit()
        for import_ in running:
            assert import_.result().code == 0, import_.result().err
    assert seats(school) == left
