"""`rollbook user import --oneroster`: which account each person of a bundle has, `user link` and `unlink`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.people.test_user_file import program
from tests.program import environment, rows, snapshot
from tests.school import Rollbook

MANIFEST = """propertyName,value
manifest.version,1.0
oneroster.version,1.1
file.academicSessions,absent
file.classes,{kind}
file.courses,{kind}
file.enrollments,{kind}
file.orgs,absent
file.users,{kind}
source.systemName,SIS
"""
USERS = "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,userIds,givenName,familyName,email\n"
ENROLLMENTS = "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary\n"

SAM = "u1,,,true,o1,student,s.alpha,,Sam,Alpha,s.alpha@school.example"
BEA = "u2,,,true,o1,student,s.beta,,Bea,Beta,s.beta@school.example"
TOM = "t1,,,true,o1,teacher,t.gamma,,Tom,Gamma,t.gamma@school.example"
ANNA = "u5,,,true,o1,student,anna,,Anna,Schmidt,a.schmidt@school.example"
IN_ALG_1 = ("e1,,,alg-1,o1,u1,student,false", "e2,,,alg-1,o1,u2,student,false", "e3,,,alg-1,o1,t1,teacher,true")

Import = Callable[..., Any]


@pytest.fixture
def bundle(rollbook: Rollbook, tmp_path: Path) -> Import:
    """Import a bundle with these rows of users.csv and enrollments.csv, and return the answer."""

    def call(users: list[str], *options: str, seats: tuple[str, ...] = (), kind: str = "bulk") -> Any:
        where = written(tmp_path / "bundle", users, seats, kind)
        return rollbook("user", "import", "--oneroster", where, *options, "--yes", "--max-removals", "100%", "--json")

    return call


def written(where: Path, users: list[str], seats: tuple[str, ...] = (), kind: str = "bulk") -> str:
    """Write a bundle and return its directory."""
    where.mkdir(exist_ok=True)
    (where / "manifest.csv").write_text(MANIFEST.format(kind=kind))
    (where / "users.csv").write_text(USERS + "".join(f"{row}\n" for row in users))
    (where / "enrollments.csv").write_text(ENROLLMENTS + "".join(f"{row}\n" for row in seats))
    both = kind == "bulk"
    (where / "courses.csv").write_text("sourcedId,status,title\n" + "c1,,Algebra\n" * both)
    classes = "alg-1,,Algebra 1,c1\nalg-2,,Algebra 2,c1\n"
    (where / "classes.csv").write_text("sourcedId,status,title,courseSourcedId\n" + classes * both)
    return str(where)


def problems(answer: Any) -> list[tuple[str, int, str, str]]:
    """Return file, line, column and reason of each wrong row."""
    assert answer.code == 1, answer.err
    found = json.loads(answer.err.splitlines()[-1])["error"]["details"]["problems"]
    return [(each["file"], each["line"], each["column"], each["reason"]) for each in found]


def users_of(answer: Any) -> list[tuple[int | None, str, str, str | None]]:
    """Return line, username, outcome and detail of the rows of users.csv."""
    assert answer.code == 0, answer.err
    return [
        (row["line"], row["username"], row["outcome"], row["detail"])
        for row in answer.data
        if row.get("file", "users.csv") == "users.csv" and not str(row["detail"]).startswith("course ")
    ]


def ids(db: Connection[Any]) -> dict[str, int]:
    return dict(rows(db, "portal.auth_user", "username", "id"))


def account(db: Connection[Any], username: str) -> Any:
    """Return address, activity and staff flag."""
    return db.execute(
        "select email, is_active, is_staff from portal.auth_user where username = %s", [username]
    ).fetchone()


def links(db: Connection[Any]) -> Mapping[tuple[str, str], str]:
    found = db.execute(
        "select p.source, p.sourced_id, u.username from rollbook.roster_person p "
        "join portal.auth_user u on u.id = user_id"
    )
    return {(source, sourced_id): username for source, sourced_id, username in found}


def renamed(row: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in row
        row = row.replace(old, new)
    return row


# --- whose account it is ----------------------------------------------------------------------------------------------


def test_somebody_elses_account_is_not_taken_over(rollbook: Rollbook, db: Connection[Any], bundle: Import) -> None:
    rollbook("user", "create", "anna", "--email", "anna@home.example", "--name", "Anna Other", "--active")
    rollbook("user", "grant", "anna", "--staff")
    number = ids(db)["anna"]
    before = snapshot(db)
    seats = (*IN_ALG_1, "e5,,,alg-1,o1,u5,student,false")
    people = [SAM, BEA, TOM, ANNA]
    remedy = f"rollbook user link id:{number} 'u5'"
    reason = f"anna belongs to somebody who is not of this bundle; if it is the same person: {remedy}"
    assert problems(bundle(people, seats=seats))[:1] == [
        ("enrollments.csv", 5, "userSourcedId", "users.csv is wrong on line 5")
    ]
    assert ("users.csv", 5, "username", reason) in problems(bundle(people, seats=seats))
    dead = renamed(ANNA, ("u5,,", "u5,tobedeleted,"))
    assert ("users.csv", 5, "username", reason) in problems(bundle([SAM, BEA, TOM, dead]))
    assert snapshot(db) == before
    # Nor is an account made whose name looks like hers, or names her on the command line.
    for name in ("ANNA", "\uff41nna", "an\u200bna", f"id:{number}", "email:anna@home.example"):
        alike = renamed(ANNA, (",anna,", f",{name},"))
        assert [row[:3] for row in problems(bundle([SAM, BEA, TOM, alike]))] == [("users.csv", 5, "username")], name
    assert snapshot(db) == before
    skipped = bundle(people, "--on-error", "skip", seats=seats)
    assert skipped.code == 5
    assert (account(db, "anna"), ids(db)["anna"]) == (("anna@home.example", True, True), number)
    # Linked by the remedy, she is of the bundle, and still not changed; the import goes on each night.
    assert rollbook("user", "link", f"id:{number}", "u5").code == 0
    for people in ([SAM, BEA, TOM, ANNA], [SAM, BEA, TOM, dead]):
        answer = bundle(people, seats=seats)
        assert users_of(answer)[3] == (
            5, "anna", "unchanged", "anna is staff or a superuser: a bundle does not change it"
        )  # fmt: skip
    assert account(db, "anna") == ("anna@home.example", True, True)
    gone = bundle([SAM, BEA, TOM], "--deactivate-missing")
    assert ("anna", "gone") in [(row["username"], row["outcome"]) for row in gone.data]
    assert account(db, "anna") == ("anna@home.example", True, True)


def test_an_address_that_agrees_links_an_account_and_a_blank_one_agrees_with_nothing(
    rollbook: Rollbook, db: Connection[Any], bundle: Import
) -> None:
    for name, *options in (
        ("bea", "--email", "S.Beta@School.Example"), ("s-alpha", "--email", "x@school.example"),
        ("boss", "--email", "boss@school.example"),
        ("s-two", "--email", "two@school.example"),
    ):  # fmt: skip
        assert rollbook("user", "create", name, *options, "--name", "Somebody").code == 0
    rollbook("user", "grant", "boss", "--superuser")
    db.execute("update portal.auth_user set email = '' where username = 's-alpha'")
    number = ids(db)
    blank = "u3,,,true,o1,student,s-alpha,,Sam,Alpha,"
    staff = "u4,,,true,o1,student,pupil,,Pu,Pil,BOSS@school.example"
    two = "u6,,,true,o1,student,s-two,,Sam,Two,s.beta@school.example"
    assert problems(bundle([blank, staff, two])) == [
        ("users.csv", 2, "username", f"s-alpha belongs to somebody who is not of this bundle; if it is the same "
         f"person: rollbook user link id:{number['s-alpha']} 'u3'"),
        ("users.csv", 3, "email", f"boss is staff or a superuser, and not linked to this bundle; if it is the same "
         f"person: rollbook user link id:{number['boss']} 'u4'"),
        ("users.csv", 4, "username", f"s-two belongs to id:{number['s-two']}, and the e-mail address to id:"
         f"{number['bea']}; if it is the same person: rollbook user link id:{number['s-two']} 'u6'"),
    ]  # fmt: skip
    answer = bundle([BEA])
    assert users_of(answer) == [
        (2, "s.beta", "changed", "linked by e-mail address; username, email, first_name, last_name, is_active, name")
    ]
    assert (ids(db)["s.beta"], links(db)) == (number["bea"], {("default", "u2"): "s.beta"})
    before = snapshot(db)
    assert set(bundle([BEA]).column("outcome")) == {"unchanged"}
    assert snapshot(db) == before


# --- who was renamed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["s.delta@school.example", "s.beta@school.example"])
def test_a_renamed_student_stays_the_same_account(
    rollbook: Rollbook, db: Connection[Any], bundle: Import, address: str
) -> None:
    bundle([SAM, BEA, TOM], seats=IN_ALG_1)
    rollbook("user", "create", "taken", "--email", "taken@school.example", "--name", "Some One")
    before = ids(db)
    db.execute("update portal.auth_user set password = 'pbkdf2_sha256$1$a$b' where username = 's.beta'")
    delta = renamed(BEA, ("s.beta,,Bea,Beta,s.beta@school.example", f"s.delta,,Bea,Delta,{address}"))
    taken = renamed(delta, ("s.delta,", "taken,"))
    assert ("users.csv", 3, "username", f"this username belongs to id:{before['taken']}") in problems(
        bundle([SAM, taken, TOM], seats=IN_ALG_1)
    )
    fields = ["username", *(["email"] if "delta" in address else []), "last_name", "name"]
    plan = bundle([SAM, delta, TOM], "-n", seats=IN_ALG_1)
    assert users_of(plan)[1] == (3, "s.delta", "would change", ", ".join(fields))
    assert users_of(bundle([SAM, delta, TOM], seats=IN_ALG_1))[1] == (3, "s.delta", "changed", ", ".join(fields))
    now = ids(db)
    assert (now["s.delta"], "s.beta" in now, len(now)) == (before["s.beta"], False, len(before))
    assert db.execute("select email, password from portal.auth_user where username = 's.delta'").fetchone() == (
        address, "pbkdf2_sha256$1$a$b",
    )  # fmt: skip
    seated = db.execute("select username from rollbook.enrollment_status where course_id = 'alg-1' order by 1")
    assert seated.fetchall() == [("s.alpha",), ("s.delta",)]
    again = snapshot(db)
    assert set(bundle([SAM, delta, TOM], seats=IN_ALG_1).column("outcome")) == {"unchanged"}
    assert snapshot(db) == again


def test_names_are_passed_on_within_a_bundle(db: Connection[Any], bundle: Import) -> None:
    bundle([SAM, BEA])
    before = ids(db)
    # Sam takes Bea's name and address, Bea takes Sam's; then Sam a new one, and somebody new his old one.
    swap = [
        "u1,,,true,o1,student,s.beta,,Sam,Beta,s.beta@school.example",
        "u2,,,true,o1,student,s.alpha,,Bea,Alpha,s.alpha@school.example",
    ]
    assert [row[2] for row in users_of(bundle(swap))] == ["changed", "changed"]
    assert ids(db) == before | {"s.beta": before["s.alpha"], "s.alpha": before["s.beta"]}
    chain = [
        "u9,,,true,o1,student,s.beta,,New,Beta,s.beta@school.example",
        "u1,,,true,o1,student,s.gamma,,Sam,Gamma,s.gamma@school.example", swap[1],
    ]  # fmt: skip
    assert [row[1:3] for row in users_of(bundle(chain))] == [
        ("s.beta", "created"), ("s.gamma", "changed"), ("s.alpha", "unchanged"),
    ]  # fmt: skip
    assert links(db) == {("default", "u1"): "s.gamma", ("default", "u2"): "s.alpha", ("default", "u9"): "s.beta"}
    # Who waits for a name that is not given up after all is wrong too.
    wrong = [renamed(chain[0], (",s.beta,", ",s.gamma,")), renamed(chain[1], (",s.gamma,", ",two words,")), swap[1]]
    assert [each[:3] for each in problems(bundle(wrong))] == [
        ("users.csv", 2, "username"),
        ("users.csv", 3, "username"),
    ]


# --- a person in two rows ---------------------------------------------------------------------------------------------


def test_of_two_rows_of_a_person_the_living_one_counts(db: Connection[Any], bundle: Import) -> None:
    dead, new = renamed(SAM, ("u1,,", "u1,TOBEDELETED,")), renamed(SAM, ("u1,", "u8,"))
    for first in ([dead, new], [new, dead]):
        answer = bundle(first)
        assert {row[3] for row in users_of(answer)} <= {
            None,
            "the same person as on line 2",
            "the same person as on line 3",
        }
        assert (account(db, "s.alpha")[1], set(links(db))) == (True, {("default", "u1"), ("default", "u8")})
    assert set(bundle([new, dead]).column("outcome")) == {"unchanged"}
    for both in ([SAM, new], [new, SAM]):
        assert [row[2:] for row in users_of(bundle(both))] == [
            ("unchanged", None), ("unchanged", "the same account as on line 2"),
        ]  # fmt: skip
    # Without an address too, where the source had the name.
    bare, again = "u3,,,true,o1,student,bare,,Ba,Re,", "u4,,,true,o1,student,bare,,Ba,Re,"
    bundle([bare])
    answer = bundle([renamed(bare, ("u3,,", "u3,inactive,")), again])
    assert [row[1:3] for row in users_of(answer) if row[0]] == [("bare", "unchanged"), ("bare", "changed")]
    assert account(db, "bare")[1] is True
    # A new sourcedId with the name of another person of the source is refused with that.
    other = "u7,,,true,o1,student,s.alpha,,An,Other,other@school.example"
    assert "s.alpha belongs to the person u1 of this source" in problems(bundle([other], kind="delta"))[0][3]


def test_a_merged_account_does_not_stop_the_next_import(
    rollbook: Rollbook, db: Connection[Any], bundle: Import
) -> None:
    kim = "k5,,,true,o1,student,kim,,Kim,Lee,kim@school.example"
    lee = "k6,,,true,o1,student,kimlee,,Kim,Lee,kimlee@school.example"
    seats = ("e1,,,alg-1,o1,k5,student,false", "e2,,,alg-2,o1,k6,student,false")
    bundle([kim, lee], seats=seats)
    assert rollbook("user", "merge", "kim", "kimlee", "--yes").code == 0
    before = ids(db)
    answer = bundle([kim, lee], "--deactivate-missing", seats=seats)
    assert users_of(answer)[:2] == [
        (2, "kimlee", "unchanged", "the same account as on line 3"), (3, "kimlee", "unchanged", None),
    ]  # fmt: skip
    # Renamed, the address has it.
    named = renamed(lee, (",kimlee,", ",k.lee,"))
    assert [row[1:3] for row in users_of(bundle([kim, named], seats=seats))[:2]] == [
        ("k.lee", "unchanged"), ("k.lee", "changed"),
    ]  # fmt: skip
    assert (ids(db)["k.lee"], len(ids(db))) == (before["kimlee"], len(before))
    seated = db.execute(
        "select course_id, username from rollbook.enrollment_status where course_id like 'alg-%' order by 1"
    )
    assert seated.fetchall() == [("alg-1", "k.lee"), ("alg-2", "k.lee")]
    # Two rows that are not remembered are wrong, and the answer has the sourcedId.
    rollbook("user", "create", "pat", "--email", "pat@school.example", "--name", "Pat")
    pat = "p1,,,true,o1,student,pat,,Pat,Lee,pat@school.example"
    refused = bundle([pat, renamed(pat, ("p1,", "p2,"))])
    assert ("users.csv", 3, "sourcedId", "the same user as on line 2") in problems(refused)
    found = json.loads(refused.err.splitlines()[-1])["error"]["details"]["problems"]
    assert [each["value"] for each in found if each["column"] == "sourcedId"] == ["p2"]


def test_who_was_deleted_is_new(rollbook: Rollbook, db: Connection[Any], bundle: Import) -> None:
    bundle([SAM, BEA])
    before = ids(db)
    assert rollbook("user", "delete", "s.alpha", "--confirm", "s.alpha").code == 0
    assert links(db) == {("default", "u2"): "s.beta"}
    assert users_of(bundle([renamed(SAM, ("u1,,", "u1,tobedeleted,")), BEA]))[0] == (
        2,
        "s.alpha",
        "unchanged",
        "no account",
    )
    assert users_of(bundle([SAM, BEA]))[0] == (2, "s.alpha", "created", None)
    assert ids(db)["s.alpha"] > before["s.beta"]


# --- sources, deltas, and who is gone ---------------------------------------------------------------------------------


def test_two_sources_with_the_same_sourced_ids_are_different_people(
    rollbook: Rollbook, db: Connection[Any], bundle: Import
) -> None:
    bundle([SAM])
    other = "u1,,,true,o1,student,z.one,,Zoe,One,zoe@other.example"
    assert users_of(bundle([other], "--source", "other"))[0][1:3] == ("z.one", "created")
    assert links(db) == {("default", "u1"): "s.alpha", ("other", "u1"): "z.one"}
    # Both schools have Sam: the one that deletes him does not block him, the last one does.
    second = renamed(SAM, ("u1,", "x1,"))
    assert users_of(bundle([other, second], "--source", "other"))[1] == (
        3,
        "s.alpha",
        "changed",
        "linked by e-mail address",
    )
    dead = renamed(SAM, ("u1,,", "u1,inactive,"))
    assert users_of(bundle([dead])) == [(2, "s.alpha", "unchanged", "stays: source other has this person too")]
    assert account(db, "s.alpha")[1] is True
    last = bundle([other, renamed(second, ("x1,,", "x1,inactive,"))], "--source", "other")
    assert users_of(last)[1] == (3, "s.alpha", "changed", "is_active")
    for name in ("", " x", "a\tb", "x" * 101):
        assert bundle([SAM], "--source", name).code == 2
    shown = rollbook("user", "show", "s.alpha", "--json").data
    assert [(row["source"], row["sourced_id"], row["origin"]) for row in shown[0]["bundles"]] == [
        ("default", "u1", "created"), ("other", "x1", "email"),
    ]  # fmt: skip
    assert rollbook("user", "import", "x.csv", "--source", "other").code == 2


def test_a_delta_looks_up_whom_earlier_bundles_brought(db: Connection[Any], bundle: Import) -> None:
    bundle([SAM, BEA, TOM], seats=IN_ALG_1)
    answer = bundle(
        [], kind="delta",
        seats=(
            "e2,tobedeleted,2026-11-01T00:00:00.000Z,alg-1,o1,u2,student,false",
            "e9,active,,alg-2,o1,u1,student,false",
        ),
    )  # fmt: skip
    assert answer.code == 0, answer.err
    seated = db.execute(
        "select course_id, username from rollbook.enrollment_status where course_id like 'alg-%' order by 1, 2"
    )
    assert seated.fetchall() == [("alg-1", "s.alpha"), ("alg-2", "s.alpha")]
    unknown = bundle([], kind="delta", seats=("e10,,,alg-2,o1,u99,student,false",))
    assert [each[:3] for each in problems(unknown)] == [("enrollments.csv", 2, "userSourcedId")]
    assert users_of(bundle([renamed(BEA, ("Beta", "Delta"))], kind="delta"))[0][2] == "changed"


def test_who_is_gone_is_reported_and_deactivated_if_asked(
    rollbook: Rollbook, db: Connection[Any], bundle: Import, tmp_path: Path
) -> None:
    bundle([SAM, BEA, TOM])
    rollbook("user", "grant", "t.gamma", "--staff")
    before = snapshot(db)
    for wrong in (  # she has no sourcedId, or another one
        renamed(BEA, ("u2,", ","), ("s.beta@", "beta@")), renamed(BEA, ("u2,", ","), ("s.beta,", "b.beta,")),
        renamed(BEA, ("u2,", "u22,"), ("s.beta,", "S.BETA,"), ("s.beta@school.example", "")),
    ):  # fmt: skip
        skipped = bundle([SAM, wrong, TOM], "--deactivate-missing", "--on-error", "skip")
        assert (skipped.code, {row["outcome"] for row in skipped.data}) == (5, {"unchanged", "rejected"})
        assert snapshot(db)["rollbook.roster_person"] == before["rollbook.roster_person"]
        assert account(db, "s.beta")[1] is True
    stays = "not in users.csv any more; stays active: --deactivate-missing blocks the account"
    answer = bundle([SAM])
    assert users_of(answer)[1:] == [
        (None, "s.beta", "gone", stays),
        (None, "t.gamma", "gone", "not in users.csv any more; staff or a superuser, whom a bundle does not change"),
    ]
    assert account(db, "s.beta")[1] is True
    assert rows(db, "rollbook.history", "id") == rows_of(before, "rollbook.history")
    where = written(tmp_path / "gone", [SAM])
    command = ("user", "import", "--oneroster", where, "--deactivate-missing")
    limited = rollbook(*command, "--yes", "--max-removals", "0")
    assert (limited.code, "--max-removals 1" in limited.err) == (1, True)
    assert rollbook(*command, "--max-removals", "100%").code == 6
    assert account(db, "s.beta")[1] is True
    done = bundle([SAM], "--deactivate-missing")
    assert users_of(done)[1:] == [
        (None, "s.beta", "deactivated", "not in users.csv any more"),
        (None, "t.gamma", "gone", "not in users.csv any more; staff or a superuser, whom a bundle does not change"),
    ]
    assert (account(db, "s.beta")[1], account(db, "t.gamma")[1]) == (False, True)
    assert users_of(bundle([SAM, BEA, TOM]))[1][1:3] == ("s.beta", "changed")
    assert account(db, "s.beta")[1] is True


def rows_of(snapshot_: dict[str, Any], table: str) -> list[Any]:
    return [(int(str(row).split(",")[0].lstrip("('")),) for row in snapshot_[table]]


# --- links ------------------------------------------------------------------------------------------------------------


def test_an_operator_links_and_unlinks(rollbook: Rollbook, db: Connection[Any], bundle: Import) -> None:
    rollbook("user", "create", "bare", "--email", "bare@home.example", "--name", "Ba Re")
    bare = "u3,,,true,o1,student,bare,,Ba,Re,"
    assert bundle([bare]).code == 1
    assert rollbook("user", "link", "bare", "u3", "--json").data == [
        {"username": "bare", "source": "default", "sourced_id": "u3", "outcome": "linked"}
    ]
    assert rollbook("user", "link", "bare", "u3", "--json").column("outcome") == ["unchanged"]
    assert users_of(bundle([bare]))[0][1:3] == ("bare", "changed")
    rollbook("user", "create", "other", "--email", "other@home.example", "--name", "Ot Her")
    refused = rollbook("user", "link", "other", "u3")
    assert (refused.code, "fix:   rollbook user unlink bare u3" in refused.err) == (1, True), refused.err
    assert rollbook("user", "unlink", "other", "u3").code == 1
    assert rollbook("user", "unlink", "bare", "u3").code == 0
    assert (links(db), bundle([bare]).code) == ({}, 1)
    assert rollbook("user", "link", "bare", "a\nb").code == 2
    found = db.execute("select object, outcome from rollbook.history where command like 'user %link' order by id")
    assert found.fetchall() == [("bare", "linked"), ("bare", "unlinked")]


def test_operators_write_links_and_monitors_do_not_read_them(db: Connection[Any]) -> None:
    found = db.execute("""
        select r.name, has_table_privilege(r.name, 'rollbook.roster_person', p.name)
        from (values ('rollbook_operator'), ('rollbook_monitor'), ('rollbook_application')) as r (name)
        cross join (values ('select'), ('insert'), ('update'), ('delete')) as p (name)
    """).fetchall()
    assert {name for name, may in found if may} == {"rollbook_operator"}
    assert sum(may for _, may in found) == 4


# --- at the same time -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nobody_is_taken_over_while_others_write(
    rollbook: Rollbook, db: Connection[Any], dsn: str, tmp_path: Path, session: Callable[[], Connection[Any]],
    bundle: Import,
) -> None:  # fmt: skip
    bundle([SAM])

    def started(users: list[str]) -> subprocess.Popen[bytes]:
        where = written(tmp_path / "raced", users)
        return subprocess.Popen(
            program("user", "import", "--oneroster", where, "--json", "-d", dsn), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip

    def waits() -> None:
        query = (
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'rollbook user%'"
        )
        end = time.monotonic() + 30
        while not db.execute(query).fetchone():
            assert time.monotonic() < end
            time.sleep(0.02)

    # The username is made meanwhile: nothing is imported.
    other = session()
    other.autocommit = False
    other.execute("insert into portal.auth_user (username, email, password) values ('s.beta', 'x@home.example', '!')")
    with started([SAM, BEA]) as running:
        waits()
        other.commit()
        assert running.wait(60) == 1
    assert account(db, "s.beta")[0] == "x@home.example"
    assert links(db) == {("default", "u1"): "s.alpha"}
    # The linked account is deleted meanwhile: the person is new.
    first = ids(db)["s.alpha"]
    other.execute("delete from portal.auth_user where username = 's.alpha'")
    with started([SAM]) as running:
        waits()
        other.commit()
        assert running.wait(60) == 0
    assert ids(db)["s.alpha"] != first
    # It becomes staff meanwhile: it is not changed.
    other.execute("update portal.auth_user set is_staff = true where username = 's.alpha'")
    with started([renamed(SAM, ("s.alpha,", "s.omega,"))]) as running:
        waits()
        other.commit()
        assert running.wait(60) == 0
    assert "s.omega" not in ids(db)
    # Two imports of one source take turns.
    other.execute("select pg_advisory_xact_lock(hashtext('rollbook user import'))")
    with started([SAM, TOM]) as one, started([SAM, TOM]) as two:
        waits()
        other.commit()
        assert (one.wait(60), two.wait(60)) == (0, 0)
    assert len([name for name in ids(db) if name == "t.gamma"]) == 1
    del rollbook


def test_an_account_that_an_operator_blocked_stays_blocked(
    rollbook: Rollbook, db: Connection[Any], bundle: Import
) -> None:
    bundle([SAM, BEA])
    rollbook("user", "deactivate", "s.alpha")
    renamed_sam = renamed(SAM, ("Sam,Alpha", "Samuel,Alpha"))
    stays = "stays blocked: the bundle did not block it"
    assert users_of(bundle([SAM, BEA])) == [(2, "s.alpha", "unchanged", stays), (3, "s.beta", "unchanged", None)]
    assert users_of(bundle([renamed_sam]))[0][2:] == ("changed", f"first_name, name; {stays}")
    assert account(db, "s.alpha")[1] is False
    # The bundle blocks by itself, and lets in again whom it blocked; an operator's word holds until then.
    off = renamed(BEA, (",true,", ",false,"))
    for row, is_active in ((off, False), (BEA, True), (off, False)):
        bundle([row])
        assert account(db, "s.beta")[1] is is_active
    rollbook("user", "activate", "s.beta")
    assert users_of(bundle([off]))[0][2:] == ("changed", "is_active")
    assert account(db, "s.beta")[1] is False
    # Gone and back, by the file's own choice.
    bundle([SAM], "--deactivate-missing")
    assert users_of(bundle([SAM, BEA]))[1][2:] == ("changed", "is_active")
