"""`rollbook user password`: Django can check what Rollbook sets, and the other way round; secrets stay secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pexpect
import pytest
from psycopg import Connection

from rollbook.people import secret
from tests.program import KEEP_SCHEMA, PROGRAM, REMOVE_SCHEMA, environment, snapshot
from tests.school import Rollbook

PLANTED = "Zauberwort-ß 42"


@pytest.fixture(scope="session")
def django() -> Any:
    """Django's own password functions: the judge."""
    from django.conf import settings
    from django.contrib.auth import hashers

    if not settings.configured:
        settings.configure()
    return hashers


def stored(db: Connection[Any], username: str = "ada", schema: str = "portal") -> str:
    """The hash of a user."""
    row = db.execute(f"select password from {schema}.auth_user where username = '{username}'".encode()).fetchone()
    assert row
    return str(row[0])


def test_django_accepts_a_password_that_was_set_and_would_not_renew_it(
    rollbook: Rollbook, school: Connection[Any], django: Any
) -> None:
    answer = rollbook("user", "password", "ada", "--stdin", "--json", stdin=PLANTED.encode() + b"\n")
    assert answer.row == {
        "username": "ada", "algorithm": "pbkdf2_sha256", "iterations": 1_500_000, "outcome": "changed",
    }  # fmt: skip
    kept = stored(school)
    assert django.check_password(PLANTED, kept)
    assert not django.check_password(PLANTED + "x", kept)
    # The newest Django has this number; an older one renews the hash at the next sign-in.
    hasher = django.get_hasher("pbkdf2_sha256")
    assert hasher.iterations <= secret.ITERATIONS
    assert hasher.must_update(kept) == (hasher.iterations != secret.ITERATIONS)
    assert {stored(school, schema=schema) for schema in (KEEP_SCHEMA, REMOVE_SCHEMA)} == {kept}


@pytest.mark.parametrize("iterations", [1, 10_000, None])
def test_what_django_made_is_checked_and_taken_as_a_hash(
    rollbook: Rollbook, school: Connection[Any], django: Any, tmp_path: Path, iterations: int | None
) -> None:
    made = django.get_hasher("pbkdf2_sha256").encode(PLANTED, "NaCl", iterations)
    (tmp_path / "hash").write_text(made + "\n")
    assert rollbook("user", "password", "ada", "--password-hash-file", str(tmp_path / "hash")).code == 0
    assert stored(school) == made
    before = snapshot(school)
    right = rollbook("user", "password", "ada", "--check", "--stdin", "--json", stdin=PLANTED.encode())
    assert (right.code, right.row["outcome"], right.row["iterations"]) == (
        0, "match", iterations or django.get_hasher("pbkdf2_sha256").iterations,
    )  # fmt: skip
    wrong = rollbook("user", "password", "ada", "--check", "--stdin", stdin=b"wrong")
    assert (wrong.code, wrong.out, wrong.err) == (1, "", "error: this is not the password of ada\n")
    assert snapshot(school) == before


def test_an_unusable_password_is_as_django_makes_it(rollbook: Rollbook, school: Connection[Any], django: Any) -> None:
    assert rollbook("user", "password", "ada", "--unusable", "--json").row["algorithm"] == "unusable"
    assert not django.is_password_usable(stored(school))
    assert len(stored(school)) == len(django.make_password(None))
    answer = rollbook("user", "password", "ada", "--check", "--stdin", stdin=b"anything")
    assert (answer.code, "no password that can be used" in answer.err) == (1, True)


def test_an_account_is_made_with_a_password_by_every_way(
    rollbook: Rollbook, db: Connection[Any], django: Any, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PLANTED)
    (tmp_path / "hash").write_text(django.make_password(PLANTED))
    for number, (option, stdin) in enumerate(
        [
            (("--password-stdin",), PLANTED.encode()),
            (("--password-file", str(tmp_path / "password")), None),
            (("--password-hash-file", str(tmp_path / "hash")), None),
        ]
    ):
        name = f"user{number}"
        answer = rollbook("user", "create", name, "--email", f"{name}@example.org", *option, stdin=stdin)
        assert (answer.code, django.check_password(PLANTED, stored(db, name))) == (0, True), answer.err
    rollbook("user", "create", "none", "--email", "none@example.org")
    assert not django.is_password_usable(stored(db, "none"))


@pytest.mark.parametrize(
    ("options", "stdin", "code", "word"),
    [
        (("--stdin",), b"", 1, "the password is blank"),
        (("--stdin",), b"   \n", 1, "the password is blank"),
        (("--stdin",), b"x\n", 1, "too short: at least 2 characters"),
        (("--stdin",), b"x" * 5000, 1, "too long: at most 4096"),
        (("--stdin",), b"one\ntwo\n", 2, "more than one line"),
        (("--stdin",), b"a\x00b", 2, "more than one line"),
        (("--stdin",), b"\xff\xfe", 2, "not UTF-8"),
        (("--file", "/no/such"), b"", 2, "cannot read /no/such"),
        (("--stdin", "--file", "/dev/null"), b"xx", 2, "one way only"),
        (("--stdin", "--unusable"), b"xx", 2, "exclude each other"),
        (("--check", "--unusable"), b"", 2, "needs the password itself"),
        (("--check", "--stdin"), b"", 1, "not the password of ada"),
        ((), b"xx", 6, "no terminal to ask on"),
        (("--check",), b"xx", 6, "no terminal to ask on"),
        (("--no-input",), b"", 6, "--password-stdin"),
    ],
)  # fmt: skip
def test_a_password_that_cannot_be_is_refused(
    rollbook: Rollbook, school: Connection[Any], options: tuple[str, ...], stdin: bytes, code: int, word: str
) -> None:
    before = snapshot(school)
    answer = rollbook("user", "password", "ada", *options, stdin=stdin)
    assert (answer.code, answer.out, word in answer.err) == (code, "", True), answer.err
    assert snapshot(school) == before


@pytest.mark.parametrize(
    "text",
    ["", "planted", "pbkdf2_sha256$x$y", "pbkdf2_sha256$0$planted$" + "A" * 43 + "=", "md5$planted$" + "a" * 31,
     "pbkdf2_sha256$1$" + "s" * 90 + "$" + "A" * 43 + "=", "pbkdf2_sha256$1$planted$short=", "! planted"],
)  # fmt: skip
def test_what_is_no_hash_of_djangos_is_refused_and_not_quoted(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, text: str
) -> None:
    before = snapshot(school)
    (tmp_path / "hash").write_text(text)
    for command in (("password", "ada"), ("create", "zoe", "--email", "zoe@example.org")):
        answer = rollbook("user", *command, "--password-hash-file", str(tmp_path / "hash"))
        assert (answer.code, answer.out) == (1, "")
        assert "not a password hash of Django's" in answer.err
        assert "planted" not in answer.err
    assert snapshot(school) == before


def test_a_hash_of_another_kind_cannot_be_checked(rollbook: Rollbook, school: Connection[Any]) -> None:
    for text in ("pbkdf2_sha256$x$planted", "sha1$planted$aa", "planted"):
        school.execute("update portal.auth_user set password = %s where username = 'ada'", [text])
        answer = rollbook("user", "password", "ada", "--check", "--stdin", stdin=b"xx")
        assert (answer.code, answer.out, "planted" in answer.err) == (1, "", False)
        assert "not a pbkdf2_sha256 hash" in answer.err
        shown = rollbook("user", "show", "ada", "--json")
        assert (shown.data[0]["account"]["password"] in ("unknown", "pbkdf2_sha256"), "planted" in shown.out) == (
            True, False,
        )  # fmt: skip


# What Django 5.2 (the last four: 4.2) made of PLANTED.
MADE = {
    "pbkdf2_sha256": "pbkdf2_sha256$1000$saltsaltsaltsaltsalt12$WpXOKM2aH3OQNWtJV8np3M4weh3WtdORp3uKHG6L1hk=",
    "pbkdf2_sha1": "pbkdf2_sha1$1000$saltsaltsaltsaltsalt12$wCP7KC36Z1zj6fQKN5u+Vy638nI=",
    "argon2": "argon2$argon2id$v=19$m=256,t=2,p=8$c2FsdHNhbHRzYWx0c2FsdHNhbHQxMg$"
    "fctBoV1mRIqeKjgsVLenzfYBKmqDCsH79b9+TgtWpyM",
    "bcrypt_sha256": "bcrypt_sha256$$2b$04$8mat3W9GTjL2iiG2UEWPqujVB/CmDcI4E5DZQJzsuxopi79w/84y2",
    "bcrypt": "bcrypt$$2b$04$WsUuXyYBTIOrHi4fwPK9R.1KTHPwZkvr.7CsfhaJvWWlKZ.q4o.4y",
    "scrypt": "scrypt$1024$saltsaltsaltsaltsalt12$8$5$"
    "kVom9gW4lX7NkcgwBrSI7HZ3NbE8uKYKt2tPjs2I1unkOE7aKegNtLg6dIzhyDtIm3aaYw6Pq4wbytFRT5z0hA==",
    "md5": "md5$saltsaltsaltsaltsalt12$1097ec59f6769454c56ad74f03b21808",
    "sha1": "sha1$a1976$9ec097456af63a8a8189d63e2b87b8914c42e557",
    "sha1 without salt": "sha1$$2e340a8d36084a3a09a712e456a883e86cfe7f43",
    "md5 without salt": "d71b75f848ae083e9afafda6c3c9894f",
    "crypt": "crypt$$abBKNYVTbjYzM",
}
WEAK = {"md5", "sha1", "crypt"}


def test_a_hash_of_each_hasher_is_kept_travels_and_is_checked(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "hashes.csv"
    for kind, made in MADE.items():
        algorithm = kind.split()[0]
        file.write_text(f"""username,password_hash\nada,"{made}"\n""")
        assert rollbook("user", "import", str(file), "--mode", "update").code == 0
        assert {stored(school, schema=place) for place in ("portal", KEEP_SCHEMA, REMOVE_SCHEMA)} == {made}
        right = rollbook("user", "password", "ada", "--check", "--stdin", "--json", stdin=PLANTED.encode())
        assert (right.code, right.row["algorithm"]) == (0, algorithm), right.err
        wrong = rollbook("user", "password", "ada", "--check", "--stdin", stdin=b"wrong")
        assert (wrong.code, wrong.err) == (1, "error: this is not the password of ada\n")
        shown = rollbook("user", "show", "ada", "--json").data[0]["account"]["password"]
        assert shown == algorithm + (" (weak)" if algorithm in WEAK else "")


def test_an_export_with_hashes_is_read_again(rollbook: Rollbook, school: Connection[Any], tmp_path: Path) -> None:
    """Also what a hasher of the site's own wrote, and an account without a password."""
    for name, made in {"ada": MADE["scrypt"], "bob": "own$hasher", "dan": ""}.items():
        school.execute("update portal.auth_user set password = %s where username = %s", [made, name])
    before = snapshot(school)["portal.auth_user"]
    file = tmp_path / "all.csv"
    assert rollbook("user", "export", "--with-password-hash", "-o", str(file)).code == 0
    again = rollbook("user", "import", str(file), "--mode", "upsert", "--json")
    assert again.code == 0, again.err
    assert snapshot(school)["portal.auth_user"] == before


@pytest.mark.parametrize(
    ("text", "word"),
    [("planted", "plain text"), ("$2y$10$" + "a" * 53, "$2y$ needs bcrypt$ before it"),
     ("$argon2id$v=19$m=8,t=1,p=1$YQ$YQ", "$argon2 needs argon2 before it"),
     ("scrypt$planted", "parts"), ("own$planted", "none that Django has"), ("x" * 129, "129 characters")],
)  # fmt: skip
def test_what_is_no_hash_is_called_by_its_name(
    rollbook: Rollbook, school: Connection[Any], tmp_path: Path, text: str, word: str
) -> None:
    before = snapshot(school)
    (tmp_path / "hash").write_text(text)
    (tmp_path / "file.csv").write_text(f"""username,password_hash\nada,"{text}"\n""")
    for command in (
        ("password", "ada", "--hash-file", str(tmp_path / "hash")),
        ("import", str(tmp_path / "file.csv"), "--mode", "update"),
    ):
        answer = rollbook("user", *command)
        assert (answer.code, answer.out, word in answer.err, "planted" in answer.err) == (1, "", True, False)
    assert snapshot(school) == before


@pytest.mark.parametrize(("kind", "package"), [("argon2", "argon2-cffi"), ("bcrypt", "bcrypt")])
def test_what_no_library_checks_here_is_3_and_names_the_library(
    rollbook: Rollbook, school: Connection[Any], monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    from passlib import hash as hashes
    from passlib.exc import MissingBackendError

    def missing(*_: Any) -> bool:
        raise MissingBackendError

    school.execute("update portal.auth_user set password = %s where username = 'ada'", [MADE[kind]])
    monkeypatch.setattr(getattr(hashes, kind), "verify", missing)
    answer = rollbook("user", "password", "ada", "--check", "--stdin", stdin=PLANTED.encode())
    assert (answer.code, answer.out) == (3, "")
    assert f"error: {kind} cannot be checked here" in answer.err
    assert f"pip install {package}" in answer.err


def test_on_a_terminal_it_is_asked_for_twice_and_not_echoed(
    school: Connection[Any], dsn: str, django: Any, tmp_path: Path
) -> None:
    variables = environment(TERM="xterm", ROLLBOOK_LOG_FILE=str(tmp_path / "log"))

    def asked(first: str, second: str) -> tuple[int | None, str]:
        child = pexpect.spawn(PROGRAM, ["user", "password", "ada", "-d", dsn], encoding="utf-8", env=variables,
                              timeout=20, dimensions=(40, 200))  # fmt: skip
        said = ""
        for question, answer in (("new password: ", first), ("repeat the password: ", second)):
            child.expect_exact(question)
            said += child.before
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        return child.exitstatus, said + child.before

    before = snapshot(school)
    code, screen = asked("planted one", "planted two")
    assert (code, "differ" in screen, "planted" in screen) == (1, True, False)
    assert snapshot(school) == before
    code, screen = asked("planted one", "planted one")
    assert (code, "planted" in screen) == (0, False), screen
    assert django.check_password("planted one", stored(school))


def test_a_dry_run_sets_nothing(rollbook: Rollbook, school: Connection[Any]) -> None:
    before = snapshot(school)
    answer = rollbook("user", "password", "ada", "--unusable", "-n", "--json")
    assert (answer.code, answer.row["outcome"]) == (0, "would change")
    assert snapshot(school) == before
