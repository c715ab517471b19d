"""Each role of Rollbook's runs every command of its kind, and is refused everything else: the whole command tree."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from psycopg import Connection, sql

from rollbook.core import shape
from rollbook.core.nouns import NOUNS
from rollbook.tree import every_command
from tests.program import KEEP, REMOVE, Result, snapshot
from tests.school import Rollbook

Db = Connection[Any]

LOOK, PEOPLE, COURSES, NOTHING = "rollbook_monitor", "rollbook_operator", "rollbook_owner", None


class Case(NamedTuple):
    """A call of a command: the role that it needs, None for no right, and its exit code where that role runs it."""

    needs: str | None
    arguments: str
    code: int = 0


# Every command once at least; {x} is a file of the test's. What writes runs as a dry run, which does all of it and
# rolls back, so that no case depends on another.
CASES: dict[str, list[Case]] = {
    "status": [Case(LOOK, ""), Case(LOOK, KEEP), Case(LOOK, "--html -")],
    "top": [Case(NOTHING, "", 2)],  # no terminal
    "check": [Case(LOOK, "", 4), Case(LOOK, "schema replication verify pearson")],
    "metrics": [Case(LOOK, "--textfile {out}/rollbook.prom")],
    "course list": [Case(LOOK, "")],
    "course show": [Case(LOOK, KEEP)],
    "course create": [Case(COURSES, "new/1 -n"), Case(COURSES, "new/1 --without last_login -n")],
    "shape without": [Case(COURSES, "last_login -n")],
    "shape show": [Case(LOOK, ""), Case(LOOK, "--toml")],
    "shape column add": [Case(COURSES, "auth_userprofile goals -n")],
    "shape column drop": [Case(COURSES, "auth_userprofile goals -n")],
    "shape column rename": [Case(COURSES, "auth_userprofile goals aims -n", 1)],  # the accounts name it
    "shape column widen": [Case(COURSES, "auth_user email varchar(300) -n")],
    "shape where": [Case(COURSES, "id>0 -n")],
    "shape apply": [Case(COURSES, "{shape} -n")],
    "course delete": [Case(COURSES, f"{KEEP} -n")],
    "course update": [Case(COURSES, f"{KEEP} --on-fault pause --without last_login -n")],
    "course close": [Case(COURSES, f"{KEEP} -n")],
    "course archive": [Case(COURSES, f"{KEEP} -o {{out}}/course -n")],
    "course rename": [Case(COURSES, f"{KEEP} new/1 -n")],
    "course open": [Case(COURSES, f"{KEEP} -n")],
    "course pause": [Case(COURSES, f"{KEEP} -n")],
    "course resume": [Case(COURSES, f"{KEEP} -n")],
    "course grant": [Case(COURSES, f"{KEEP} rb_course_team -n")],
    "course revoke": [Case(COURSES, f"{KEEP} rb_course_team -n")],
    "replication verify": [Case(LOOK, ""), Case(LOOK, f"{KEEP} --rows"), Case(LOOK, "--html -")],
    "replication status": [Case(LOOK, "")],
    "replication show": [Case(LOOK, KEEP)],
    "replication wait": [Case(LOOK, "")],
    "replication slots": [Case(LOOK, "")],
    "replication lag": [Case(LOOK, "")],
    "replication conflicts": [Case(LOOK, "")],
    "server list": [Case(LOOK, "")],
    "user list": [Case(LOOK, "")],
    "user show": [Case(LOOK, "ada")],
    "user count": [Case(LOOK, f"--by {by}") for by in ("course", "month", "country", "week")],
    "user create": [Case(PEOPLE, "zoe --email zoe@example.org --name Zoe --course edX/toy/2013_Spring -n")],
    "user update": [Case(PEOPLE, "ada --email ada@new.org --name Ada-King --goals x --first-name A -n")],
    "user merge": [Case(PEOPLE, "eve bob -n")],
    "user delete": [Case(PEOPLE, "ada --confirm ada -n")],
    "user activate": [Case(PEOPLE, "dan -n")],
    "user deactivate": [Case(PEOPLE, "ada -n")],
    "user grant": [Case(PEOPLE, "bob --staff -n")],
    "user revoke": [Case(PEOPLE, "ada --staff -n")],
    "user link": [Case(PEOPLE, "ada u5 -n")],
    "user unlink": [Case(PEOPLE, "ada u5 -n", 1)],
    "user password": [Case(PEOPLE, "ada --unusable -n"), Case(PEOPLE, "ada --check --file {password}", 1)],
    "user pseudonym": [Case(LOOK, "ada --secret-file {password}")],
    "user import": [Case(PEOPLE, "{users} --mode upsert -n")],
    "user export": [Case(LOOK, ""), Case(PEOPLE, "--with-password-hash")],
    "registration list": [Case(LOOK, "")],
    "registration show": [Case(LOOK, "dan")],
    "registration activate": [Case(PEOPLE, "dan -n")],
    "registration renew": [Case(PEOPLE, "dan -n")],
    "group create": [Case(PEOPLE, "second -n")],
    "group list": [Case(LOOK, "")],
    "group show": [Case(LOOK, "testers")],
    "group delete": [Case(PEOPLE, "testers --confirm testers -n")],
    "group add": [Case(PEOPLE, "testers ada -n")],
    "group remove": [Case(PEOPLE, "testers bob -n")],
    "group split": [Case(PEOPLE, "a:0.5 b:0.5 -n")],
    "group import": [Case(PEOPLE, "{groups} -n")],
    "group export": [Case(LOOK, "testers")],
    "name-change create": [Case(PEOPLE, "ada Ada-King --rationale x -n")],
    "name-change list": [Case(LOOK, "")],
    "name-change approve": [Case(PEOPLE, "1 -n")],
    "name-change reject": [Case(PEOPLE, "1 -n")],
    "email-change create": [Case(PEOPLE, "ada ada@new.org -n")],
    "email-change list": [Case(LOOK, "")],
    "email-change confirm": [Case(PEOPLE, "bob -n")],
    "email-change import": [Case(PEOPLE, "{emails} -n")],
    "email-change cancel": [Case(PEOPLE, "bob -n")],
    "enrollment add": [Case(PEOPLE, f"{KEEP} dan -n")],
    "enrollment remove": [Case(PEOPLE, f"{KEEP} ada -n")],
    "enrollment move": [Case(PEOPLE, f"bob --from {KEEP} --to {REMOVE} -n")],
    "enrollment import": [Case(PEOPLE, "{enrollments} -n")],
    "enrollment roster": [Case(PEOPLE, f"{KEEP} {{roster}} --yes -n")],
    "enrollment sync-dates": [Case(PEOPLE, "-n")],
    "enrollment export": [Case(LOOK, "")],
    "enrollment list": [Case(LOOK, "")],
    "enrollment count": [Case(LOOK, "--by course"), Case(LOOK, "--by day")],
    "allowed add": [Case(PEOPLE, f"{KEEP} gus@example.org -n")],
    "allowed remove": [Case(PEOPLE, f"{KEEP} fay@example.org -n")],
    "allowed list": [Case(LOOK, "")],
    "allowed import": [Case(PEOPLE, "{allowed} -n")],
    "allowed export": [Case(LOOK, "")],
    "discussion activate": [Case(PEOPLE, "--url http://127.0.0.1:9 --api-key-file {password} -n")],
    "discussion deactivate": [Case(PEOPLE, "-n")],
    "discussion status": [Case(LOOK, "", 4)],
    "discussion list": [Case(LOOK, "")],
    "discussion discard": [Case(PEOPLE, "ada --yes -n")],
    "discussion sync": [Case(PEOPLE, "ada", 4)],  # nothing answers
    "candidate list": [Case(LOOK, "")],
    "candidate show": [Case(LOOK, "ada")],
    "candidate create": [
        Case(PEOPLE, "bob --first-name B --last-name F --address-1 x --city L --country GBR --phone 1 "
                     "--phone-country-code 44 -n"),
    ],
    "candidate update": [Case(PEOPLE, "ada --city Leeds -n")],
    "candidate check": [Case(LOOK, "")],
    "candidate import": [Case(PEOPLE, "{candidates} -n")],
    "candidate export": [Case(LOOK, "")],
    "exam list": [Case(LOOK, "")],
    "exam import": [Case(PEOPLE, f"{KEEP} {{policy}} -n")],
    "authorization list": [Case(LOOK, "")],
    "authorization show": [Case(LOOK, "edXexam000000000101")],
    "authorization create": [
        Case(PEOPLE, f"ada {KEEP} --exam Second --first 2013-02-01 --last 2013-02-02 -n"),
    ],
    "authorization update": [Case(PEOPLE, "edXexam000000000101 --last 2013-01-27 -n")],
    "authorization cancel": [Case(PEOPLE, "edXexam000000000101 -n")],
    "authorization import": [Case(PEOPLE, "{authorizations} -n")],
    "authorization export": [Case(LOOK, "")],
    "pearson export": [Case(PEOPLE, "cdd -o {out} -n")],
    "pearson import": [Case(PEOPLE, "{archive} -n", 5)],  # it answers a record that was never sent
    "pearson list": [Case(LOOK, "")],
    "pearson show": [Case(LOOK, "1")],
    "pearson dump": [Case(LOOK, "")],
    "pearson report": [Case(LOOK, "waiting"), Case(LOOK, "rejected")],
    "doctor": [Case(LOOK, "", 4), Case(LOOK, f"{KEEP} --all", 4)],  # the servers of tests do not flush
    "history list": [Case(LOOK, ""), Case(LOOK, "--user ada"), Case(LOOK, f"--course {KEEP}")],
    "import list": [Case(LOOK, "")],
    "history show": [Case(LOOK, "1")],
    "history undo": [Case(PEOPLE, "1 -n")],
    "schema current": [Case(LOOK, "")],
    "schema history": [Case(NOTHING, "")],
    "schema sql": [Case(NOTHING, "")],
    "schema check": [Case(LOOK, "")],
    "demo status": [Case(NOTHING, "", 1)],
    "version": [Case(NOTHING, "")],
    "config init": [Case(NOTHING, "-n")],
    "config show": [Case(NOTHING, "")],
    "config path": [Case(NOTHING, "")],
    "config check": [Case(NOTHING, "")],
}  # fmt: skip
# What needs a course server, or a difference: tests/replication/test_roles.py.
ELSEWHERE = {
    "course restore",  # needs an archive: tests/replication/test_archive.py
    "course attach", "course detach", "course move", "replication repair", "replication resync", "replication canary",
    "replication pause", "replication resume", "server add", "server show", "server ping", "server move",
    "server remove",
    "schema upgrade", "schema downgrade", "schema grant",  # below, and in tests/system/test_schema_check.py
    "user report", "user erase", "history erase",  # whoever migrates: tests/people/test_privacy.py
    "schema adopt",  # by who owns the site's tables: tests/system/test_adopt_plan.py
    "schema django",  # tests/django
}  # fmt: skip
NO_DATABASE = {"demo up", "demo load", "demo break", "demo down"}  # they make and use servers of their own

ROLES: dict[str, set[str | None]] = {
    "rollbook_monitor": {LOOK, NOTHING},
    "rollbook_operator": {LOOK, PEOPLE, NOTHING},
    "dba": {LOOK, PEOPLE, COURSES, NOTHING},
    "rollbook_application": {NOTHING},
    "course_team": {NOTHING},
}


def leaves() -> set[str]:
    """Every command of the program."""

    def below(name: str, command: Any) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield name
            return
        for verb, child in command.commands.items():
            yield from below(f"{name} {verb}", child)

    return {leaf for noun, command in every_command().items() for leaf in below(noun, command)}


def test_every_command_has_a_case() -> None:
    assert set(CASES) | ELSEWHERE | NO_DATABASE == leaves()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What commands read: a path by name."""
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "password": "correct-horse-battery",
        "shape": shape.toml(shape.default()),
        "users": "username,email,name,goals\nada,ada@new.org,Ada King,x\nzoe,zoe@example.org,Zoe Foo,\n",
        "groups": "group,user\ntesters,ada\n",
        "emails": "user,email\nada,ada@new.org\n",
        "enrollments": f"course_id,user,status\n{KEEP},dan,\n{KEEP},ada,deleted\n",
        "roster": "user\nada\nbob\ndan\n",
        "allowed": f"course_id,email,auto_enroll\n{KEEP},gus@example.org,true\n",
        "candidates": "user,first_name,last_name,address_1,city,country,phone,phone_country_code\n"
                      "bob,Bob,Foo,x,London,GBR,1,44\nada,Ada,King,x,London,GBR,1,44\n",
        "authorizations": "user,course_id,exam_series_code,eligibility_appointment_date_first,"
                          f"eligibility_appointment_date_last\nada,{KEEP},Second,2013-02-01,2013-02-02\n",
        "policy": json.dumps({"testcenter_info": {"Third": {
            "First_Eligible_Appointment_Date": "2013-01-25T00:00", "Last_Eligible_Appointment_Date": "2013-01-26T00:00",
        }}}),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr(
            "vcdc-20130101.dat",
            "ClientCandidateID\tStatus\tDate\tMessage\r\nedX000000000101\tAccepted\t2013/01/01 00:00:00\t\r\n",
        )
    (folder / "out").mkdir()
    return {name: str(folder / name) for name in [*texts, "out"]} | {"archive": str(folder / "archive.zip")}


@pytest.fixture
def login(furnished: Db, dsn: str) -> Iterator[Callable[[str], str]]:
    """The conninfo of a new login with one of the roles; course_team is what `course grant` makes of it."""
    furnished.execute(
        "insert into rollbook.history (os_user, command, object, outcome, kind, user_id, before, after) values "
        "('x', 'user update', 'ada', 'changed', 'user', 101, '{\"goals\": \"x\"}', '{\"goals\": \"World peace\"}');"
        "insert into rollbook.discussion_outbox (user_id, operation, attempts) values (101, 'put', 1);"
        "update rollbook.discussion set active = true, url = 'http://127.0.0.1:9', api_key = 'k'"
    )
    furnished.execute("do $$ begin create role rb_course_team login; exception when duplicate_object then null; end $$")
    furnished.execute("select rollbook.grant_course(%s, 'rb_course_team')", [KEEP])
    furnished.execute("drop role if exists rb_somebody")
    furnished.execute("create role rb_somebody login")

    def member(role: str) -> str:
        if role == "dba":
            furnished.execute("grant rollbook_owner, rollbook_operator to rb_somebody")
            database = sql.Identifier(furnished.info.dbname)
            furnished.execute(sql.SQL("grant create on database {} to rb_somebody").format(database))
            return dsn.replace("user=postgres", "user=rb_somebody")
        if role == "course_team":
            return dsn.replace("user=postgres", "user=rb_course_team")
        furnished.execute(sql.SQL("grant {} to rb_somebody").format(sql.Identifier(role)))
        return dsn.replace("user=postgres", "user=rb_somebody")

    yield member
    furnished.execute("drop owned by rb_somebody")
    furnished.execute("drop role rb_somebody")


@pytest.mark.parametrize("role", list(ROLES))
def test_a_role_runs_every_command_of_its_kind_and_no_other(
    rollbook: Rollbook, login: Callable[[str], str], files: dict[str, str], role: str
) -> None:
    where = login(role)
    wrong: list[tuple[str, Result]] = []
    for command, cases in CASES.items():
        for case in cases:
            arguments = f"{command} {case.arguments}".format(**files).split()
            answer = rollbook(*arguments, dsn=where)
            if case.needs in ROLES[role]:
                fits = answer.code == case.code
            else:
                fits = answer.code == 3 and f"membership in {case.needs}" in answer.err
            if not fits:
                wrong.append((" ".join(arguments), answer))
    assert [f"{words}: {answer.code} {answer.err}" for words, answer in wrong] == []


def test_whoever_migrates_runs_every_command(
    rollbook: Rollbook, login: Callable[[str], str], files: dict[str, str], dsn: str
) -> None:
    del login
    wrong = []
    for command, cases in CASES.items():
        for case in cases:
            arguments = f"{command} {case.arguments}".format(**files).split()
            answer = rollbook(*arguments, dsn=dsn)
            if answer.code != case.code:
                wrong.append((arguments, answer.code, answer.err))
    assert wrong == []


@pytest.mark.parametrize("role", list(ROLES))
def test_only_whoever_migrated_takes_the_schema_away(
    rollbook: Rollbook, login: Callable[[str], str], school: Db, role: str
) -> None:
    before = snapshot(school)
    answer = rollbook("schema", "downgrade", "--to", "base", "--yes", dsn=login(role))
    assert answer.code == 3, answer
    assert snapshot(school) == before
    upgraded = rollbook("schema", "upgrade", dsn=login(role)).code
    assert upgraded == (0 if LOOK in ROLES[role] else 3)


def test_what_works_on_people_is_refused_where_they_are_in_other_tables(
    school: Db, rollbook: Rollbook, files: dict[str, str]
) -> None:
    row = school.execute("select pg_get_functiondef('rollbook.copied_tables()'::regprocedure)").fetchone()
    assert row is not None
    school.execute(str(row[0]).replace("'portal.auth_user'", "'public.mdl_user'"))
    for noun, verbs in {command.split()[0]: command for command in reversed(CASES)}.items():
        answer = rollbook(*verbs.split(), *CASES[verbs][0].arguments.format(**files).split(), "--no-input")
        is_refused = answer.code == 1 and "here people are in public.mdl_user" in answer.err
        assert is_refused is NOUNS[noun].is_of_people, (noun, answer)
