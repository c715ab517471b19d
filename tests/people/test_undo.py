"""`rollbook history undo` and `rollbook import list`: what an entry or an import changed is put back, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from tests.people.test_oneroster import V11, bundle
from tests.program import KEEP, REMOVE, snapshot
from tests.school import Rollbook

Db = Connection[Any]


def rows_of(db: Db) -> dict[str, Any]:
    """The rows of people, without requests (the decision on them stays) and the stamps that each write renews."""
    left_out = ("testcenter", "pendingnamechange")
    found: dict[str, Any] = {
        name: rows for name, rows in snapshot(db).items()
        if name.startswith("portal.") and not any(word in name for word in left_out)
    }  # fmt: skip
    found["candidates"] = db.execute(
        "select user_id, first_name, last_name, city from portal.student_testcenteruser order by 1"
    ).fetchall()
    found["authorizations"] = db.execute(
        "select exam_series_code, eligibility_appointment_date_first, eligibility_appointment_date_last, cancelled_at "
        "from portal.student_testcenterregistration order by 1, 2"
    ).fetchall()
    return found


def newest(db: Db) -> int:
    """The newest entry that is not of a batch."""
    ((number,),) = db.execute("select max(id) from rollbook.history where batch is null").fetchall()
    return int(number)


@pytest.fixture
def site(furnished: Db) -> Db:
    furnished.execute(
        "insert into portal.student_courseenrollmentallowed (email, course_id, auto_enroll) values "
        "('dan@example.org', %s, true)", [KEEP]
    )  # fmt: skip
    return furnished


# Each is undone with one line, the newest entries first, and redone with another.
WRITES = [
    ("enrollment", "add", KEEP, "eve"),
    ("enrollment", "remove", KEEP, "ada", "bob"),
    ("enrollment", "remove", REMOVE, "ada"),
    ("enrollment", "move", "ada", "bob", "--from", KEEP, "--to", REMOVE),
    ("group", "create", "second"),
    ("group", "add", "testers", "ada"),
    ("group", "remove", "testers", "bob"),
    ("group", "add", "email_helpers", "ada"),
    ("allowed", "add", KEEP, "gus@example.org", "Bob@Example.org", "--auto-enroll"),
    ("allowed", "add", KEEP, "dan@example.org", "--no-auto-enroll"),
    ("allowed", "remove", KEEP, "FAY@example.org"),
    ("user", "update", "ada", "--email", "ada@new.org", "--name", "Ada King", "--goals", "x", "--username", "ada2",
     "--first-name", "A", "--gender", "f", "--meta", '{"a": 1}'),
    ("user", "update", "ada", "--clear", "goals"),
    ("user", "activate", "dan"),
    ("user", "deactivate", "ada", "bob"),
    ("user", "grant", "bob", "--staff", "--superuser"),
    ("user", "revoke", "ada", "--staff"),
    ("name-change", "approve", "1"),
]  # fmt: skip
# Undone, but what went is gone for good.
CREATES = [
    ("user", "create", "zoe", "--email", "z@example.org", "--name", "Zoë", "--active", "--course", KEEP),
    ("candidate", "create", "bob", "--first-name", "B", "--last-name", "F", "--address-1", "x", "--city", "L",
     "--country", "GBR", "--phone", "1", "--phone-country-code", "44"),
    ("authorization", "create", "ada", KEEP, "--exam", "Second", "--first", "2013-02-01", "--last", "2013-02-02"),
]  # fmt: skip


# A redo writes them anew: times, and the entries of the meta.
RENEWED = ("portal.auth_userprofile", "portal.auth_registration")


@pytest.mark.parametrize("command", WRITES + CREATES, ids=lambda command: " ".join(command[:2]))
def test_a_write_is_undone_and_redone(rollbook: Rollbook, site: Db, command: tuple[str, ...]) -> None:
    before = rows_of(site)
    answer = rollbook(*command, "--reason", "x")
    assert answer.code == 0, answer.err
    after = rows_of(site)
    assert after != before
    entries = [str(number) for (number,) in site.execute("select id from rollbook.history")]
    tried = rollbook("history", "undo", *entries, "-n")
    assert (tried.code, rows_of(site)) == (0, after), tried.err
    undone = rollbook("history", "undo", *entries, "--yes", "--json", "--reason", "by mistake")
    assert undone.code == 0, undone.err
    assert set(undone.column("outcome")) == {"undone"}
    assert rows_of(site) == before
    again = rollbook("history", "undo", entries[0], "--yes")
    assert again.code == 1
    assert f"entry {entries[0]} was undone already by entry" in again.err
    assert "undoing that makes the change again" in again.err
    undoing = [
        str(number)
        for (number,) in site.execute("select id from rollbook.history where command = 'history undo' order by id desc")
    ]
    redone = rollbook("history", "undo", *undoing, "--yes")
    if command in CREATES:
        assert redone.code == 1
        assert "import or create it again" in redone.err
        assert rows_of(site) == before
    else:
        assert redone.code == 0, redone.err
        ours = {name: found for name, found in rows_of(site).items() if name not in RENEWED}
        assert ours == {name: found for name, found in after.items() if name not in RENEWED}


REFUSED = [
    (("user", "password", "ada", "--unusable"), "passwords are not kept"),
    (("user", "delete", "bob", "--confirm", "bob"), "a deleted account is gone"),
    (("user", "merge", "dan", "eve", "--yes"), "a merge cannot be undone"),
    (("registration", "renew", "dan"), "keys are not kept"),
    (("group", "delete", "testers", "--confirm", "testers"), "members of a deleted group are not kept"),
    (("email-change", "cancel", "bob"), "keys are not kept"),
    (("authorization", "cancel", "edXexam000000000101"), "authorize again"),
    (("course", "create", "new/1"), "rollbook course delete"),
    (("course", "pause", KEEP), "rollbook course --help"),
    (("discussion", "activate"), "rollbook discussion --help"),
    (("user", "export"), "nothing was changed"),
]


@pytest.mark.parametrize(("command", "reason"), REFUSED, ids=lambda value: " ".join(value[:2]))
def test_what_cannot_be_undone_is_refused_with_the_reason(
    rollbook: Rollbook, site: Db, command: tuple[str, ...], reason: str
) -> None:
    assert rollbook(*command).code == 0
    before = snapshot(site)
    answer = rollbook("history", "undo", str(newest(site)), "--yes")
    assert (answer.code, reason in answer.err) == (1, True), answer.err
    assert snapshot(site) == before


# What somebody did since -> what is named.
SINCE = [
    (("user", "update", "ada", "--goals", "x"), "update portal.auth_userprofile set goals = 'y' where user_id = 101",
     "changed since: goals"),
    (("user", "update", "ada", "--email", "ada@new.org"),
     "update portal.auth_user set email = 'ADA@example.org' where id = 104",
     "the address ada@example.org belongs to eve now"),
    (("user", "update", "ada", "--username", "ada2"), "update portal.auth_user set username = 'ada' where id = 104",
     "the username ada belongs to another account now"),
    (("user", "deactivate", "ada"), "delete from portal.auth_user where id = 101", "the account is gone"),
    (("enrollment", "add", KEEP, "eve"), "delete from portal.student_courseenrollment where user_id = 104",
     "the enrollment has ended since"),
    (("enrollment", "add", KEEP, "eve"),
     "update portal.student_courseenrollment set id = id + 1000 where user_id = 104", "began again since"),
    (("enrollment", "remove", KEEP, "bob"),
     f"insert into portal.student_courseenrollment (user_id, course_id) values (102, '{KEEP}')",
     "enrolled there again"),
    (("enrollment", "move", "bob", "--from", KEEP, "--to", REMOVE),
     f"insert into portal.student_courseenrollment (user_id, course_id) values (102, '{KEEP}')", f"in {KEEP} again"),
    (("group", "add", "testers", "ada"), "delete from portal.student_usertestgroup where name = 'testers'",
     "not in the group any more"),
    (("group", "create", "second"),
     "insert into portal.student_usertestgroup_users (usertestgroup_id, user_id) "
     "select id, 101 from portal.student_usertestgroup where name = 'second'", "members were added since: 1"),
    (("allowed", "add", KEEP, "gus@example.org"),
     "update portal.student_courseenrollmentallowed set auto_enroll = true where email = 'gus@example.org'",
     "auto_enroll was changed since"),
    (("user", "create", "zoe", "--email", "z@example.org", "--name", "Zoë"),
     "update portal.auth_user set last_login = now() where username = 'zoe'", "has signed in since"),
    (("user", "create", "zoe", "--email", "z@example.org", "--name", "Zoë"),
     f"insert into portal.student_courseenrollment (user_id, course_id) select id, '{KEEP}' from portal.auth_user "
     "where username = 'zoe'", "it has rows of its own since: enrollments 1"),
    (("user", "create", "zoe", "--email", "z@example.org", "--name", "Zoë"),
     "update portal.auth_user set password = 'pbkdf2_sha256$1$x$y' where username = 'zoe'", "a password was set since"),
    (("candidate", "update", "ada", "--city", "Leeds"),
     "update portal.student_testcenteruser set city = 'York' where user_id = 101", "changed since: city"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "since", "reason"), SINCE, ids=lambda value: str(value)[:30])
def test_what_changed_since_stays_and_is_named(
    rollbook: Rollbook, site: Db, command: tuple[str, ...], since: Any, reason: str
) -> None:
    assert rollbook(*command).code == 0
    site.execute(since)
    before = snapshot(site)
    answer = rollbook("history", "undo", str(newest(site)), "--yes", "--json")
    assert (answer.code, reason in answer.err) == (1, True), answer.err
    assert snapshot(site) == before


IMPORTS = {
    "user import": "username,email,name,goals,gender,is_active\nada,ada@new.org,Ada King,x,f,\nbob,,,\\N,,false\n"
                   "dan,,,,,true\nzoe,zoe@example.org,Zoe Foo,,,\nyan,fay@example.org,Yan Foo,y,m,true\neve,,,,,\n",
    "user import --mode": "id,username,email\n101,bob,ada@new.org\n102,ada,\n\\N,new,ada@example.org\n",
    "enrollment import": f"course_id,user,status\n{KEEP},dan,\n{KEEP},ada,deleted\n{REMOVE},bob,\n",
    "enrollment roster": "user\nada\ndan\neve\n",
    "allowed import": f"course_id,email,auto_enroll\n{KEEP},gus@example.org,true\n{KEEP},fay@example.org,true\n"
                      f"{REMOVE},bob@example.org,true\n",
    "group import": "group,user\ntesters,ada\nemail_helpers,bob\nemail_helpers,dan\n",
    "candidate import": "user,first_name,last_name,address_1,city,country,phone,phone_country_code\n"
                        "bob,Bob,Foo,x,London,GBR,1,44\nada,Ada,King,x,London,GBR,1,44\n",
    "authorization import": "user,course_id,exam_series_code,eligibility_appointment_date_first,"
                            f"eligibility_appointment_date_last\nada,{KEEP},Second,2013-02-01,2013-02-02\n"
                            "ada,MITx/6.002x/2012_Fall,Final,2013-01-25,2013-02-02\n",
}  # fmt: skip


@pytest.mark.parametrize("verb", IMPORTS)
def test_an_import_is_a_batch_and_is_undone(rollbook: Rollbook, site: Db, tmp_path: Path, verb: str) -> None:
    (tmp_path / "file.csv").write_text(IMPORTS[verb])
    course = [KEEP] if verb.endswith("roster") else []
    options = ["--max-removals", "50%", "--yes"] if course else ["upsert"] if "--mode" in verb else []
    if verb == "user import":
        site.execute("update portal.student_courseenrollmentallowed set auto_enroll = true")
        options = ["--mode", "upsert"]
    before = rows_of(site)
    answer = rollbook(*verb.split(), *options, *course, str(tmp_path / "file.csv"), "--json")
    assert answer.code == 0, answer.err
    (batch,) = set(answer.column("batch"))
    (listed,) = rollbook("import", "list", "--json").data
    assert (listed["batch"], listed["undone_by"]) == (batch, None)
    assert verb.startswith(listed["command"])
    assert listed["file"].endswith("file.csv")
    found = rollbook("history", "list", "--batch", str(batch), "--json")
    changed = [row for row in answer.data if row["outcome"] != "unchanged"]
    assert len(found.data) >= 1 + len(changed)
    undone = rollbook("history", "undo", str(batch), "--yes", "--json")
    assert undone.code == 0, undone.err
    assert len(undone.data) == len(found.data) - 1
    assert rows_of(site) == before
    (listed,) = rollbook("import", "list", "--json").data
    assert listed["undone_by"] is not None
    assert rollbook("history", "undo", str(batch), "--yes").code == 1


def test_a_batch_is_undone_whole_or_with_skip_in_parts(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text(IMPORTS["enrollment import"])
    batch = rollbook("enrollment", "import", str(tmp_path / "file.csv"), "--json").data[0]["batch"]
    site.execute("delete from portal.student_courseenrollment where user_id = 103 and course_id = %s", [KEEP])
    before = snapshot(site)
    answer = rollbook("history", "undo", str(batch), "--yes", "--json")
    assert answer.code == 1
    assert "1 of 3 entries cannot be undone; nothing was changed" in answer.err
    assert "the enrollment has ended since" in answer.err
    asked = rollbook("history", "undo", str(batch), "--on-error", "skip")
    assert (asked.code, snapshot(site)) == (6, before)
    assert "undo 3 changes, 1 of them skipped" in asked.err
    answer = rollbook("history", "undo", str(batch), "--yes", "--on-error", "skip", "--json")
    assert (answer.code, sorted(answer.column("outcome"))) == (5, ["skipped", "undone", "undone"])
    held = site.execute("select user_id from portal.student_courseenrollment where course_id = %s order by 1", [KEEP])
    assert held.fetchall() == [(101,), (102,)]
    assert rollbook("import", "list", "--json").data[0]["undone_by"] is None
    # What is left can be undone once nothing is in the way.
    site.execute("insert into portal.student_courseenrollment (id, user_id, course_id) "
                 "select (after ->> 'id')::bigint, user_id, course_id from rollbook.history "
                 "where batch = %s and user_id = 103", [batch])  # fmt: skip
    answer = rollbook("history", "undo", str(batch), "--yes", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["undone"])


def test_a_row_whose_undo_was_undone_is_undone_with_its_batch(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    before = rows_of(site)
    (tmp_path / "file.csv").write_text(IMPORTS["enrollment import"])
    batch = rollbook("enrollment", "import", str(tmp_path / "file.csv"), "--json").data[0]["batch"]
    ((row,),) = site.execute("select min(id) from rollbook.history where batch = %s", [batch]).fetchall()
    assert rollbook("history", "undo", str(row), "--yes").code == 0
    assert rollbook("history", "undo", str(newest(site)), "--yes").code == 0
    answer = rollbook("history", "undo", str(batch), "--yes", "--json")
    assert (answer.code, answer.column("outcome")) == (0, ["undone"] * 3), answer.err
    assert rows_of(site) == before


def test_a_created_account_whose_password_was_changed_since_stays(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse")
    named = ("--email", "z@example.org", "--name", "Zoë", "--password-file", str(tmp_path / "password"))
    assert rollbook("user", "create", "zoe", *named).code == 0
    entry = str(newest(site))
    assert rollbook("history", "undo", entry, "--yes", "-n").code == 0
    assert rollbook("user", "password", "zoe", "--unusable").code == 0
    answer = rollbook("history", "undo", entry, "--yes")
    assert (answer.code, "a password was set since" in answer.err) == (1, True), answer.err


def test_a_refusal_names_the_first_of_many_entries(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    rows = "".join(f"u{number},u{number}@example.org,Name {number}\n" for number in range(30))
    (tmp_path / "file.csv").write_text("username,email,name\n" + rows)
    batch = rollbook("user", "import", str(tmp_path / "file.csv"), "--json").data[0]["batch"]
    site.execute("update portal.auth_user set last_login = now() where username like 'u_%'")
    answer = rollbook("history", "undo", str(batch), "--yes", "--format", "table")
    assert (answer.code, "and 10 more" in answer.err, answer.err.count("has signed in since")) == (1, True, 20)


def test_a_bundle_is_undone_but_for_its_courses(rollbook: Rollbook, site: Db, tmp_path: Path) -> None:
    before = rows_of(site)
    answer = rollbook("user", "import", "--oneroster", bundle(tmp_path / "bundle", V11), "--json")
    assert answer.code == 0, answer.err
    undone = rollbook("history", "undo", str(answer.data[0]["batch"]), "--yes", "--json")
    assert undone.code == 0, undone.err
    assert {row["object"]: row["outcome"] for row in undone.data if row["outcome"] != "undone"} == {
        "k-alg-1": "kept", "k-alg-2": "kept"
    }  # fmt: skip
    assert rows_of(site) == before


def test_unknown_entries_and_other_roles_are_refused(rollbook: Rollbook, site: Db, dsn: str) -> None:
    assert rollbook("history", "undo", "999", "--yes").code == 1
    rollbook("enrollment", "add", KEEP, "eve")
    site.execute("do $$ begin create role rb_reader login; exception when duplicate_object then null; end $$")
    site.execute("grant rollbook_monitor to rb_reader")
    before = snapshot(site)
    answer = rollbook("history", "undo", str(newest(site)), "--yes", dsn=dsn.replace("user=postgres", "user=rb_reader"))
    assert (answer.code != 0, snapshot(site) == before) == (True, True)


def test_two_undos_at_once_and_a_writer_in_between(rollbook: Rollbook, site: Db, dsn: str) -> None:
    from threading import Thread

    rollbook("user", "update", "ada", "--goals", "x")
    entry = str(newest(site))
    # A writer holds the row: the undo waits, finds another value, and nothing is lost.
    with psycopg.connect(dsn) as writer:
        writer.execute("update portal.auth_userprofile set goals = 'z' where user_id = 101")
        writer.execute("select from portal.auth_user where id = 101 for update")
        answers: list[Any] = []
        thread = Thread(target=lambda: answers.append(rollbook("history", "undo", entry, "--yes")))
        thread.start()
        for _ in range(3000):
            blocked = site.execute("select count(*) from pg_stat_activity where pg_blocking_pids(pid) <> '{}'")
            if blocked.fetchone() != (0,):
                break
        writer.commit()
        thread.join()
    assert (answers[0].code, "changed since: goals" in answers[0].err) == (1, True)
    site.execute("update portal.auth_userprofile set goals = 'x' where user_id = 101")
    # Another undo holds its turn: the second waits for it and is refused.
    with psycopg.connect(dsn) as other:
        other.execute("select pg_advisory_xact_lock(hashtext('rollbook history undo'))")
        other.execute(
            "insert into rollbook.history (os_user, command, object, outcome, undoes) "
            "values ('x', 'history undo', 'ada', 'changed', %s)", [entry]
        )  # fmt: skip
        thread = Thread(target=lambda: answers.append(rollbook("history", "undo", entry, "--yes")))
        thread.start()
        for _ in range(3000):
            blocked = site.execute("select count(*) from pg_stat_activity where pg_blocking_pids(pid) <> '{}'")
            if blocked.fetchone() != (0,):
                break
        other.commit()
        thread.join()
    assert (answers[1].code, "was undone already by entry" in answers[1].err) == (1, True), answers[1].err
