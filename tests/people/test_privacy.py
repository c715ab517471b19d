"""`rollbook user report` and `erase` in the portal's database: a byte search finds the person before, and not after."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, REMOVE_SCHEMA, Result, postgres_program, rows, snapshot
from tests.school import Rollbook

Db = Connection[Any]

# Words that mean her and nobody else, wherever they stand; usernames and addresses in all the capitals that were used.
WORDS = ("zelda77", "qwirk", "Xylander", "Vexley", "0155-90210", "Wobbly Lane", "u-zelda")
ALIASES = ("Zelda77@Qwirk.example", "zelda77@old-qwirk.example", "ZELDA77@OLD-QWIRK.example")


def dump(dsn: str) -> str:
    """A database as text, in lower case."""
    return subprocess.run(
        [postgres_program("pg_dump"), "-d", dsn], check=True, capture_output=True, text=True
    ).stdout.lower()


def found(text: str, *words: str) -> list[str]:
    """Which words a dump has."""
    return [word for word in words or WORDS if word.lower() in text]


def live(rollbook: Callable[..., Result], db: Db) -> None:
    """A life of zelda: commands that leave her in every table, and in the history of others."""
    policy = {"testcenter_info": {"Final": {
        "First_Eligible_Appointment_Date": "2013-01-25T00:00", "Last_Eligible_Appointment_Date": "2013-01-26T00:00",
    }}}  # fmt: skip
    Path("policy.json").write_text(json.dumps(policy))
    Path("allowed.csv").write_text(f"course_id,email,auto_enroll\n{REMOVE},ZELDA77@OLD-QWIRK.example,false\n"
                                   f"{REMOVE},other@example.org,false\n")  # fmt: skip
    steps = [
        ("user", "create", "zelda77", "--email", "zelda77@old-qwirk.example", "--name", "Zelda Xylander", "--active",
         "--mailing-address", "1 Wobbly Lane"),
        ("user", "create", "twin", "--email", "twin@qwirk.example", "--name", "Zelda Vexley", "--active"),
        ("allowed", "import", "allowed.csv"),
        ("allowed", "add", KEEP, "zelda77@old-qwirk.example", "--reason", "Zelda Xylander asked"),
        ("user", "update", "zelda77", "--email", "Zelda77@Qwirk.example", "--name", "Zelda Vexley"),
        ("allowed", "add", REMOVE, "zelda77@qwirk.example"),
        ("enrollment", "add", KEEP, "zelda77"), ("enrollment", "add", REMOVE, "zelda77"),
        ("user", "merge", "twin", "zelda77", "--yes"),
        ("name-change", "create", "zelda77", "Zelda Xylander-Vexley", "--rationale", "marriage"),
        ("email-change", "create", "zelda77", "zelda77@new-qwirk.example"),
        ("candidate", "create", "zelda77", "--first-name", "Zelda", "--last-name", "Vexley", "--address-1",
         "1 Wobbly Lane", "--city", "York", "--country", "GBR", "--phone", "0155-90210", "--phone-country-code", "44"),
        ("exam", "import", KEEP, "policy.json"),
        ("authorization", "create", "zelda77", KEEP, "--exam", "Final"),
        ("pearson", "export", "cdd", "-o", "out"),
        ("user", "link", "zelda77", "u-zelda"),
        ("user", "grant", "zelda77", "--staff"),
        ("user", "update", "bob", "--goals", "Chess", "--reason", "zelda77@qwirk.example told us"),
    ]  # fmt: skip
    for step in steps:
        answer = rollbook(*step)
        assert answer.code == 0, (step, answer)
    db.execute(
        f"""create table {KEEP_SCHEMA}.post (author bigint references {KEEP_SCHEMA}.auth_user (id) on delete cascade,
            body text);
        insert into {KEEP_SCHEMA}.post select id, 'by Xylander' from {KEEP_SCHEMA}.auth_user where username = 'zelda77';
        alter table {KEEP_SCHEMA}.auth_user add column nickname text;
        update {KEEP_SCHEMA}.auth_user set nickname = 'qwirky' where username = 'zelda77';
        update rollbook.exchange_row set message = 'Vexley: address too short' where key <> 'edX000000000101';
        update rollbook.history set on_behalf_of = 'Zelda77' where object = 'bob';
        update rollbook.discussion set active = true, url = 'http://127.0.0.1:9';
        update portal.auth_user set email = email || 'x' where username = 'zelda77';
        update portal.auth_user set email = 'Zelda77@Qwirk.example' where username = 'zelda77'"""
    )


@pytest.fixture
def zelda(rollbook: Rollbook, school: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Her id."""
    monkeypatch.chdir(tmp_path)
    live(rollbook, school)
    found = school.execute("select id from portal.auth_user where username = 'zelda77'").fetchone()
    assert found is not None
    return int(found[0])


def outcomes(answer: Result) -> dict[str, tuple[int | None, str]]:
    """The receipt: rows and outcome by object."""
    return {row["object"]: (row["rows"], row["outcome"]) for row in answer.data}


def test_everything_is_reported_and_then_erased(
    rollbook: Rollbook, school: Db, zelda: int, dsn: str, tmp_path: Path
) -> None:
    before = dump(dsn)
    assert found(before) == list(WORDS)
    assert found(before, *ALIASES) == list(ALIASES)
    for word in WORDS[1:]:
        assert word.lower() in before

    # the report
    told = rollbook("user", "report", "zelda77", "-o", "zelda.json")
    assert (told.code, told.out) == (0, ""), told
    file = tmp_path / "zelda.json"
    assert file.stat().st_mode & 0o777 == 0o600
    report = json.loads(file.read_text())
    places = {each["object"]: each["rows"] for each in report["places"]}
    assert {
        "portal.auth_user", "portal.auth_userprofile", "portal.auth_registration", "portal.student_courseenrollment",
        "portal.student_courseenrollmentallowed", "portal.student_pendingnamechange",
        "portal.student_pendingemailchange", "portal.student_testcenteruser", "portal.student_testcenterregistration",
        "rollbook.roster_person", "rollbook.history", "rollbook.discussion_outbox", f"{KEEP_SCHEMA}.auth_user",
        f"{KEEP_SCHEMA}.post",
    } <= places.keys()  # fmt: skip
    assert len(places["portal.student_courseenrollmentallowed"]) == 3
    assert places[f"{KEEP_SCHEMA}.auth_user"][0]["nickname"] == "qwirky"
    assert places["portal.auth_user"][0]["password"] == "(secret)"
    assert [each["kind"] for each in report["exchange_files"]] == ["cdd"]
    assert (report["open"], report["user"]["username"]) == ([], "zelda77")
    assert rollbook("history", "list", "--command", "user report", "--json").data[0]["outcome"] == "exported"

    # asked without a confirmation, and dry
    kept = snapshot(school)
    asked = rollbook("user", "erase", "zelda77")
    assert (asked.code, "add --confirm zelda77" in asked.err) == (6, True), asked
    assert rollbook("user", "erase", "zelda77", "--confirm", "ada").code == 6
    dry = rollbook("user", "erase", "zelda77", "-n", "--json")
    assert (dry.code, outcomes(dry)["portal.student_testcenteruser"]) == (0, (1, "would remove")), dry
    assert snapshot(school) == kept

    # done: the discussion service has still to receive the deletion
    done = rollbook("user", "erase", "zelda77", "--confirm", "zelda77", "--reason", "Zelda77 asked, 2012-17", "--json")
    assert done.code == 5, done
    receipt = outcomes(done)
    assert receipt["portal.auth_user"] == receipt[f"{KEEP_SCHEMA}.auth_user"] == (1, "removed")
    assert receipt[f"{KEEP_SCHEMA}.post"] == (1, "removed")
    assert [row["outcome"] for row in done.data if row["place"] == "exchange files"] == ["sent"]
    assert all(row["lsn"] and row["at"] for row in done.data if row["outcome"] in ("removed", "cleared"))
    assert f"rollbook user erase id:{zelda} --confirm id:{zelda}" in done.err
    after = dump(dsn)
    assert [line for line in after.splitlines() if found(line)] == []
    assert found(after, *ALIASES) == []
    facts = rollbook("history", "list", "--user", f"id:{zelda}", "--json").data
    assert [(row["object"], row["outcome"], row["reason"]) for row in facts if row["command"] == "user erase"] == [
        (f"id:{zelda}", "erased", f"id:{zelda} asked, 2012-17")
    ]

    # the same command finishes it, when the service has it
    assert rows(school, "rollbook.erasure", "user_id") == [(zelda,)]
    school.execute("delete from rollbook.discussion_outbox where user_id = %s", [zelda])
    again = rollbook("user", "erase", "zelda77", "--confirm", "zelda77", "--json")
    assert again.code == 0, again
    assert rows(school, "rollbook.erasure", "user_id") == []
    assert rollbook("user", "erase", "zelda77", "--confirm", "zelda77").code == 1  # nobody knows that name any more
    assert rollbook("replication", "verify").code == 0


def test_what_forbids_it_refuses_it_whole(rollbook: Rollbook, school: Db, session: Any, dsn: str) -> None:
    """Rows of other tables, a course's own rows, and a role that may not: nothing is changed, and the way out works."""
    school.execute(
        f"""create table public.forum (id bigint primary key, author bigint references portal.auth_user (id));
        create table public.answer (forum bigint references public.forum (id));
        insert into public.forum values (1, 101); insert into public.answer values (1);
        create table public.liked (fan bigint references portal.auth_user (id) on delete set null);
        insert into public.liked values (101);
        create table {KEEP_SCHEMA}.essay (author bigint references {KEEP_SCHEMA}.auth_user (id));
        insert into {KEEP_SCHEMA}.essay values (101);
        drop role if exists rb_clerk; create role rb_clerk login in role rollbook_operator, rollbook_owner"""
    )
    before = snapshot(school)
    clerk = dsn.replace("user=postgres", "user=rb_clerk")
    refused = rollbook("user", "erase", "ada", "--confirm", "ada", dsn=clerk)
    assert (refused.code, "role rb_clerk may not erase users" in refused.err) == (3, True), refused
    partly = rollbook("user", "report", "ada", "--json", dsn=clerk)
    assert (partly.code, {each["object"] for each in partly.data["open"]}) == (
        3, {"public.forum", "public.answer", "public.liked", f"{KEEP_SCHEMA}.essay", "rollbook.kept_record"}
    ), partly  # fmt: skip
    school.execute("delete from rollbook.history")  # that of the report
    school.execute("drop role rb_clerk")
    forbidden = rollbook("user", "erase", "ada", "--confirm", "ada")
    assert forbidden.code == 1, forbidden
    assert "public.forum: 1" in forbidden.err or "essay" in forbidden.err, forbidden
    assert "--remove-references" in forbidden.err
    assert snapshot(school) == before

    # An update of the same user meanwhile: it waits, and finds nobody.
    other = session()
    with other.transaction():
        other.execute("update portal.auth_user set first_name = 'Augusta' where id = 101")
    done = rollbook("user", "erase", "ada", "--confirm", "ada", "--remove-references", "--json")
    assert done.code == 0, done
    receipt = outcomes(done)
    assert receipt["public.forum"] == receipt["public.answer"] == receipt[f"{KEEP_SCHEMA}.essay"] == (1, "removed")
    assert receipt["public.liked"] == (1, "unlinked")
    assert [rows(school, name, column) for name, column in (
        ("public.forum", "author"), ("public.answer", "forum"), ("public.liked", "fan"),
        (f"{KEEP_SCHEMA}.essay", "author"),
    )] == [[], [], [(None,)], []]  # fmt: skip


def test_a_policy_keeps_what_a_law_wants(rollbook: Rollbook, school: Db, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    erase = ("user", "erase", "ada", "--confirm", "ada", "--policy", str(policy))
    for text, fault in (
        ("keep = 1", "not a list"), ("[[keep]]\ntabel = 'x'", "unknown key tabel"), ("[[keep]]\ntable = 'x'", "reason"),
        ("[[keep]]\ntable = 'x'\nreason = 'y'\nuntil = 'z'", "not a date"), ("?", "not TOML"),
    ):  # fmt: skip
        policy.write_text(text)
        wrong = rollbook(*erase)
        assert (wrong.code, fault in wrong.err) == (2, True), (text, wrong)
    policy.write_text("[[keep]]\ntable = 'student_testcentreuser'\nreason = 'Examination Act'")
    assert (rollbook(*erase).code, rows(school, "rollbook.erasure", "user_id")) == (1, [])
    for table in ("a.b.c.d", f"{REMOVE_SCHEMA}.auth_user"):  # a course's rows would go all the same
        policy.write_text(f"[[keep]]\ntable = '{table}'\nreason = 'Examination Act'")
        wrong = rollbook(*erase)
        assert (wrong.code, f"the policy keeps {table}" in wrong.err) == (1, True), wrong
    policy.write_text(
        "[[keep]]\ntable = 'student_testcenteruser'\nreason = 'Examination Act'\nuntil = 2031-12-31\n"
        "[[keep]]\ntable = 'rollbook.history'\nreason = 'audit'\n"
    )
    assert rollbook("user", "update", "ada", "--goals", "Analytical").code == 0
    plan = rollbook(*erase, "-n", "--json")
    kept_rows = {row["object"]: row["rows"] for row in plan.data if row["outcome"] == "kept"}
    assert kept_rows == {"portal.student_testcenteruser": 1, "rollbook.history": 1}, plan
    school.execute(f"select rollbook.pause_course('{REMOVE}')")
    done = rollbook(*erase, "--json")
    assert done.code == 5, done
    assert {(row["object"], row["outcome"]) for row in done.data if row["outcome"] in ("kept", "open")} == {
        ("portal.student_testcenteruser", "kept"), ("rollbook.history", "kept"),
        *((f"course_edx_toy_2013_spring.{name}", "open")
          for name in ("auth_user", "auth_userprofile", "student_courseenrollment")),
    }  # fmt: skip
    assert "Examination Act, until 2031-12-31" in {row["detail"] for row in done.data}
    assert rows(school, "rollbook.erasure", "user_id", "user_ids") == [(101, [101])]
    told = rollbook("user", "report", "id:101", "--json")
    assert told.code == 0, told
    kept = {each["object"]: each["rows"] for each in told.data["places"]}
    assert kept["rollbook.kept_record"][0]["record"]["last_name"] == "Foo"
    assert "Analytical" in str(kept["rollbook.history"])

    # The course goes on; a newcomer has the name meanwhile; the time of the law is over.
    school.execute(f"select rollbook.resume_course('{REMOVE}')")
    assert rollbook("user", "create", "ada", "--email", "new@example.org", "--name", "Another Ada").code == 0
    several = rollbook("user", "erase", "ada", "--confirm", "ada")
    assert (several.code, "ada means several persons" in several.err) == (1, True), several
    assert rollbook("user", "erase", "id:101", "--confirm", "ada2").code == 6
    assert rollbook("user", "erase", "id:101", "--confirm", "id:101").code == 0
    assert rows(school, "rollbook.erasure", "user_id") == []
    last = rollbook("user", "erase", "id:101", "--confirm", "id:101", "--with-kept", "--json")
    assert (last.code, outcomes(last)["rollbook.kept_record"]) == (0, (1, "removed")), last
    assert rows(school, "rollbook.kept_record", "id") == []
    assert school.execute("select count(*) from portal.auth_user where username = 'ada'").fetchone() == (1,)


def test_what_is_written_about_statistics_works(rollbook: Rollbook, school: Db) -> None:
    """Analyze alone leaves what it has found in a table that is empty now."""
    page = Path(__file__).parents[2].joinpath("docs", "privacy.md").read_text()
    statements = [line for line in page.split("```sql")[1].split("```")[0].splitlines() if line]
    seen = "select from pg_stats where histogram_bounds::text ~ 'qwirk' or most_common_vals::text ~ 'qwirk'"
    school.execute("delete from portal.student_pendingemailchange")
    for user in ("ada", "bob"):
        assert rollbook("email-change", "create", user, f"{user}@qwirk.example").code == 0
    school.execute("analyze portal.student_pendingemailchange")
    assert school.execute(seen).fetchall()
    for user in ("ada", "bob"):
        assert rollbook("user", "erase", user, "--confirm", user).code == 0
    school.execute(statements.pop(0))
    assert school.execute(seen).fetchall()
    for statement in statements:
        school.execute(statement)
    assert school.execute(seen).fetchall() == []


def test_a_name_is_found_in_other_capitals_of_any_alphabet(rollbook: Rollbook, school: Db) -> None:
    for user, name, written in (
        ("izmir", "İsmail Yılmaz", "İSMAİL YILMAZ"), ("patras", "Ανδρέας Παππάς", "ΑΝΔΡΈΑΣ ΠΑΠΠΆΣ")
    ):  # fmt: skip
        assert rollbook("user", "create", user, "--email", f"{user}@example.org", "--name", name).code == 0
        for reason in (f"{name} asked", f"{written} asked"):
            assert rollbook("user", "update", "bob", "--goals", reason[-9:] + user, "--reason", reason).code == 0
            assert rollbook("user", "update", "bob", "--goals", "", "--reason", reason).code == 0
        assert rollbook("user", "erase", user, "--confirm", user).code == 0
    reasons = school.execute("select distinct reason from rollbook.history where object = 'bob'").fetchall()
    assert len(reasons) == 2, reasons  # id:1 asked, id:2 asked
    assert all(reason.startswith("id:") for (reason,) in reasons), reasons
